/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store that several registries share, in one Redis. Each keeps all of it in memory and answers
 * reads from there; changes are made by scripts at Redis, under the next index, and every registry
 * follows the stream of them. While Redis is away nothing changes and nothing runs out; when it
 * comes back without what was known, the first registry to notice puts it back from memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/redis.h"
#include "registry/write.h"

struct loop;
struct reg_shared;

struct reg_shared_config {
	struct redis_url url;
	struct str prefix; /* of all keys */
	/* It is ready (detail says why it was not, or ""), or away (why). */
	void (*on_state)(bool is_ready, const char *detail, void *arg);
	/* What a log should say of the way there: put back, taken over. */
	void (*on_news)(const char *text, bool is_trouble, void *arg);
	void *arg;
};

/* Begins to connect. `store` must have been made with reg_shared_on_expire and is_shared. NULL when
 * out of memory. */
struct reg_shared *reg_shared_new(struct loop *loop, struct reg_store *store,
				  const struct reg_shared_config *config);
/* Tells the others what they do not know yet and waits for it, at most a second. For the end. */
void reg_shared_flush(struct reg_shared *s);
/* Whoever waits for a write is told -EAGAIN, so before http_server_free. */
void reg_shared_free(struct reg_shared **s);

struct reg_writer *reg_shared_writer(struct reg_shared *s);
/* For reg_store_config.on_expire: the others may have heard of a renewal that we have not. */
bool reg_shared_on_expire(struct reg_shared *s, const struct reg_entry *entry);

struct reg_shared_stats {
	bool is_ready;
	uint64_t writes;       /* done by Redis for us */
	uint64_t renewals;     /* told to the others */
	uint64_t entries;      /* of the stream, followed */
	uint64_t loads;        /* of the full state */
	uint64_t restorations; /* times we put the state back */
};
const struct reg_shared_stats *reg_shared_stats(const struct reg_shared *s);
const struct redis_stats *reg_shared_redis(const struct reg_shared *s);
