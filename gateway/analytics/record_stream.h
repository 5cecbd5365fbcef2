/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The access log as a Redis stream, where the lines of all gateways come together. A thread of its
 * own sends them, pipelined; a line leaves its queue when Redis has taken it, so those under way
 * when a connection breaks are sent again and may be there twice. Redis slow or gone: the queues
 * fill, and then lines are counted and dropped. Neither requests nor the file notice.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gateway/analytics/record_queue.h"
#include "lib/err.h"
#include "lib/redis.h"
#include "lib/str.h"

#define RECORD_STREAM_KEY_MAX 256

/* As configured. */
struct gw_access_stream {
	struct redis_url url;
	struct str key;
	uint64_t max_length; /* entries that Redis keeps, about */
};

struct record_stream;

/* Starts the thread, with a queue for each worker. `name` is for Redis' list of connections.
 * Returns 0 or -errno. */
int record_stream_new(struct record_stream **out, const struct gw_access_stream *conf,
		      unsigned queues, const char *name, struct err *err);
/* Sends what is queued, as far as it goes within a second; ends the thread. */
void record_stream_free(struct record_stream **s);
/* From now on this one; NULL: none, and what is queued is forgotten. */
void record_stream_set(struct record_stream *s, const struct gw_access_stream *conf);
/* The queue of worker `index`; only that worker's thread writes to it. */
struct record_queue *record_stream_queue(struct record_stream *s, unsigned index);

struct record_stream_stats {
	uint64_t written; /* Redis has them */
	uint64_t dropped; /* no room in the queue */
	uint64_t refused; /* Redis answered with an error */
	bool is_up;
};
void record_stream_stats(const struct record_stream *s, struct record_stream_stats *out);
