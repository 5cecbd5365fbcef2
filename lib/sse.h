/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a stream of server-sent events (WHATWG HTML 9.2) piece by piece. No I/O. */
#pragma once

#include <stdbool.h>

#include "lib/buf.h"
#include "lib/str.h"

struct sse {
	struct buf line, data; /* of the line and the event being read */
	char event[32];        /* "" means "message" */
	char id[32];           /* the last one seen; stays until another comes */
	bool has_data;
};

/* No event and no line may be longer than `max` bytes. */
void sse_init(struct sse *s, size_t max);
void sse_fini(struct sse *s);
/*
 * Takes the next bytes and calls on_event for each event that they complete; slices are good during
 * the call. Stops when on_event returns false. Returns 0, -EMSGSIZE (a bound was passed or memory
 * ran out; the stream is of no use any more), or -ECANCELED when on_event said so.
 */
int sse_feed(struct sse *s, struct str bytes,
	     bool (*on_event)(struct str event, struct str id, struct str data, void *arg),
	     void *arg);
