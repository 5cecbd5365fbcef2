/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate limits that hold across gateways: a thread of its own keeps each key's GCRA clock in step
 * with the one in Redis. Workers never wait for it.
 *
 * A worker admits a request on what it knows: a lease (requests that Redis granted ahead), or else
 * credit, the room that the clock had when Redis told it last. Credit that was used is settled with
 * Redis within milliseconds, even when others had used it up meanwhile: what was too much in one
 * moment is missing in the next, so over time the limit is exact. While several gateways admit the
 * same key, credit is given cautiously, and near the limit on leases alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gateway/limits/limits.h"
#include "lib/err.h"
#include "lib/redis.h"
#include "lib/str.h"

struct limit_store;
struct limits_slot;

/* What becomes of requests while Redis does not answer. */
enum limit_failure {
	LIMIT_LOCAL,  /* each gateway counts for itself, and lets its share of the limit pass */
	LIMIT_OPEN,   /* all pass */
	LIMIT_CLOSED, /* none passes but on leases that are left */
};

/* Copied by limit_store_new. */
struct limit_store_options {
	struct redis_url url;
	const char *prefix; /* of all keys in Redis: "gatehouse:limits:rider:" */
	const char *name;   /* of the connection */
	enum limit_failure on_failure;
	uint32_t timeout_ms; /* how long an answer may take before Redis counts as failed */
	uint32_t gateways;   /* until limit_store_set_gateways says better; at least 1 */
};

/* NULL with the sentence in err. */
struct limit_store *limit_store_new(const struct limit_store_options *options, struct err *err);
/* Starts the thread; before it every key is counted as if Redis had failed. Returns 0 or -errno. */
int limit_store_start(struct limit_store *s);
/* Gives leases back, for at most half a second, and ends the thread. After the last limits_check
 * and before the table is freed. Clears the pointer; NULL inside is fine. */
void limit_store_free(struct limit_store **s);

/* Any thread: how many gateways share the limits now, this one included. */
void limit_store_set_gateways(struct limit_store *s, uint32_t count);
uint32_t limit_store_gateways(const struct limit_store *s);

/* --- for limits.c, any thread ----------------------------------------------------------------- */

/* Redis answers: requests are counted in common. */
bool limit_store_is_common(const struct limit_store *s);
enum limit_failure limit_store_on_failure(const struct limit_store *s);
/* There was a request for this key: its lease is to be looked at. Does nothing if that is under way
 * already. Never waits. */
void limit_store_touch(struct limit_store *s, const struct limits_slot *slot,
		       const struct limits_rule *rule, const struct limits_subject *subject,
		       uint64_t now_ns);

/* --- numbers ---------------------------------------------------------------------------------- */

struct limit_store_stats {
	bool is_up;             /* connected */
	bool is_common;         /* and counting in common */
	uint32_t gateways;      /* that share the limits */
	uint64_t failures;      /* times that counting in common ended */
	uint64_t asks;          /* scripts sent */
	uint64_t answers;       /* scripts that Redis ran */
	uint64_t errors;        /* answered by an error, late or not at all */
	uint64_t granted;       /* requests granted ahead */
	uint64_t settled;       /* requests told afterwards */
	uint64_t returned;      /* granted ahead and given back unused */
	uint64_t dropped;       /* keys that could not be looked after, too many at once */
	uint64_t keys;          /* in hand at the moment */
	uint64_t round_trip_us; /* of late */
};

void limit_store_get_stats(const struct limit_store *s, struct limit_store_stats *out);
