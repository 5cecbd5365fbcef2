/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of every request: one JSON line each, formatted by the worker into a ring of its own
 * and written by a thread of its own, in batches, so that a slow or full disk never slows a
 * request. What does not fit is counted and dropped. The file is reopened on request, for rotation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/str.h"

struct request;
struct record_queue;
struct record_writer;
struct record_ring;

/* `path` is a file, "-" for standard output, or NULL: none yet. Starts the thread. */
int record_writer_new(struct record_writer **out, const char *path, unsigned rings,
		      struct err *err);
/* Writes what is queued, as far as it can be written within a second; ends the thread. */
void record_writer_free(struct record_writer **w);
/* Reopens the file at once (another process renamed it). Waits a moment until nothing goes to the
 * old one any more. A path of NULL ends it. */
int record_writer_reopen(struct record_writer *w, const char *path, struct err *err);
/* The ring of worker `index`; only that worker's thread writes to it. */
struct record_ring *record_writer_ring(struct record_writer *w, unsigned index);

/* Lines go there as well (record_stream.h), while it is on. Any thread. */
void record_ring_set_stream(struct record_ring *ring, struct record_queue *stream);

/* Worker: queues the line of a request that has ended. Never waits. */
void record_request(struct record_ring *ring, const struct request *r);

struct record_stats {
	uint64_t written, dropped, errors;
};
void record_writer_stats(const struct record_writer *w, struct record_stats *out);
