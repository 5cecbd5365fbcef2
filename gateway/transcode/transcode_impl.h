/* SPDX-License-Identifier: Apache-2.0 */
/* What the two directions of a translation share. In the request's arena. */
#pragma once

#include "gateway/request.h"
#include "gateway/transcode/table.h"
#include "gateway/transcode/transcode.h"
#include "lib/buf.h"
#include "lib/json.h"
#include "lib/loop.h"

/* What all translations of one worker may hold at once; above it 503. */
#define TRANSCODE_TOTAL_MAX (256UL << 20)

#define TRANSCODE_VALUES_MAX (HTTP_RULE_VARIABLES_MAX + 256)

struct transcode_stream_format;

struct transcode {
	struct request *r;
	const struct transcode_table *table;
	const struct transcode_binding *binding;

	/* to the service */
	struct buf json;    /* of the client */
	struct buf message; /* a frame, made of it */
	struct proto_value values[TRANSCODE_VALUES_MAX];
	size_t value_count;
	size_t counted;          /* of the worker's transcode_bytes */
	bool is_feeding, is_fed; /* the exchange takes the frame, has all of it */

	/* from the service */
	const struct downstream_ops *down; /* towards the client */
	struct buf frame;                  /* what has come of one */
	struct buf answer;                 /* JSON */
	const struct transcode_stream_format *format;
	uint64_t messages;
	const char *failure; /* what is wrong with the service's answer */
	bool is_too_much;    /* ... or rather that there is no room for it now */
	struct loop_timer failed;
	const struct sink_ops *service; /* of the exchange */
	bool is_begun;                  /* the head of a stream went to the client */
	bool is_blocked;                /* the client is slow */
	bool is_over;                   /* the exchange has ended; what is left is in `answer` */
};

#define TRANSCODE_TOO_MUCH "too much is being translated at the moment"

/* After a buffer grew: false when all of the worker's are too large together. */
bool transcode_has_room(struct transcode *t);
