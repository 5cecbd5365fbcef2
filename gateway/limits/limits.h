/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rate limits: GCRA on one atomic word per key in a table shared by all threads, without locks and
 * without sweeps. Time is a parameter.
 *
 * A rule lets `limit` requests per window pass on the average and at most `burst` at once (by
 * default burst = limit: a client that was quiet may send `limit` at once, then one each window /
 * limit). Refused requests cost nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/identity.h"
#include "lib/buf.h"
#include "lib/conf.h"
#include "lib/http.h"
#include "lib/net.h"
#include "lib/str.h"

enum limits_part_kind {
	LIMITS_GLOBAL,
	LIMITS_USER,
	LIMITS_IP,
	LIMITS_ENDPOINT,
	LIMITS_HEADER,
	LIMITS_CLAIM,
	LIMITS_API_KEY,
};

struct limit_store;

#define LIMITS_MAX_PARTS 4

struct limits_part {
	enum limits_part_kind kind;
	struct str name; /* of the header or claim */
};

/* Read from "user", "header:X-Device-Id", or several joined by "+": "user+endpoint". */
struct limits_key_spec {
	struct limits_part parts[LIMITS_MAX_PARTS];
	size_t part_count;
};

/* Returns NULL or the sentence that says what is wrong. Names point into `text`. */
const char *limits_parse_key(struct limits_key_spec *out, struct str text);

struct limits_rule {
	struct str name;
	struct limits_key_spec key;
	uint64_t limit, burst, window_s;
	bool is_shadow;      /* counts, and refuses nobody; set after limits_rule_init */
	bool needs_identity; /* its key has user or claim parts: check it after authentication */
	/* derived by limits_rule_init */
	uint64_t id;       /* of the name: counters live on over a reload */
	uint64_t token_ns; /* time that earns one request */
	uint64_t burst_ns; /* credit of a full bucket */
	char policy[128];  /* its member of RateLimit-Policy: "per-user";q=100;w=60 */
};

/* burst 0 means limit. Returns NULL, or the sentence (rates above 1,000,000/s are refused). */
const char *limits_rule_init(struct limits_rule *out, struct str name,
			     const struct limits_key_spec *key, uint64_t limit, uint64_t window_s,
			     uint64_t burst);

/* What keys are made of. A part that a request lacks (no such header, no identity) is replaced by
 * the client's address, so leaving a header out evades nothing and shares nobody's bucket. */
struct limits_subject {
	const struct net_addr *client;
	const struct identity *identity; /* NULL when anonymous */
	struct str endpoint;             /* the route's name */
	const struct http_field *fields;
	size_t field_count;
};

struct limits_table;

/* For about `keys` keys at once (16 bytes each). NULL: out of memory. */
struct limits_table *limits_table_new(size_t keys);
/* Counts in common with other gateways (48 bytes each). The store is borrowed; it is freed first.
 */
struct limits_table *limits_table_new_shared(size_t keys, struct limit_store *store);
void limits_table_free(struct limits_table **t);

struct limits_verdict {
	bool is_allowed;
	const struct limits_rule *rule; /* the strictest: the one that refuses longest, or that has
					   the smallest share left; NULL when there are no rules */
	uint64_t remaining;             /* requests of that rule that would pass now */
	uint64_t retry_after_ns;        /* when refused: until one would pass */
	uint64_t reset_ns;              /* until the whole burst is there again */
	const struct limits_rule *shadowed; /* a rule in shadow that would have refused, or NULL */
};

#define LIMITS_MAX_RULES 16

/*
 * Takes one request from every rule, or from none when one refuses; rules in shadow do not refuse.
 * At most LIMITS_MAX_RULES rules (the configuration sees to it). Any thread, never waits.
 */
void limits_check(struct limits_table *t, const struct limits_rule *const *rules, size_t count,
		  const struct limits_subject *subject, uint64_t now_ns,
		  struct limits_verdict *out);
/* The stricter of two verdicts (before and after authentication), for the answer's fields. */
const struct limits_verdict *limits_stricter(const struct limits_verdict *a,
					     const struct limits_verdict *b);

/* Values of the fields (draft-ietf-httpapi-ratelimit-headers): `"per-user";r=19;t=1`. */
void limits_write_ratelimit(const struct limits_verdict *v, struct buf *out);
/* Seconds for Retry-After, at least 1. */
uint64_t limits_retry_after_s(const struct limits_verdict *v);

struct limits_stats {
	uint64_t evicted_live; /* keys that lost their history because the table was full */
	uint64_t keys;         /* slots in use, live or idle */
};
void limits_table_stats(const struct limits_table *t, struct limits_stats *out);

/* Counts a verdict that was acted upon: whom it refused, whom a rule in shadow would have. */
void limits_count(struct limits_table *t, const struct limits_verdict *v);

/* By the rule's name, since the process began. */
struct limits_counts {
	uint64_t refused;
	uint64_t shadowed; /* would have been refused */
};
void limits_table_counts(const struct limits_table *t, const struct limits_rule *rule,
			 struct limits_counts *out);
