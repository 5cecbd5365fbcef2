/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened in a stretch of time, by endpoint and by user. Both tables are bounded: endpoints
 * beyond the bound are counted together as "(other)"; of users a full table keeps those that ask
 * most, by giving the place of the least of a few drawn ones to a newcomer, who takes over its
 * count (after Metwally, Agrawal, El Abbadi 2005, "Space-Saving"), so that nobody is counted less
 * than he asked.
 *
 * One thread fills it; handed on to others it is immutable and any thread may read it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/hmap.h"
#include "lib/metrics.h"
#include "lib/str.h"

#define TALLY_OTHER STR("(other)")

struct tally_endpoint {
	struct hmap_node node;
	struct str endpoint, version, route;
	uint64_t status_class[6]; /* as route_stats */
	uint64_t limited;
	struct metrics_histogram latency;
	char text[]; /* endpoint, version and route, one after another */
};

enum tally_kind { TALLY_USER, TALLY_KEY, TALLY_ADDRESS, TALLY_KINDS };

extern const char *const tally_kinds[TALLY_KINDS]; /* "user", "api_key", "address" */

struct tally_user {
	struct hmap_node node;
	enum tally_kind kind;
	struct str name;
	uint64_t requests, errors, limited; /* errors: 5xx */
	uint64_t uncertain;                 /* of the requests, what may be another's */
	size_t index;                       /* in tally.users */
	char text[];
};

struct tally {
	unsigned refs;
	uint64_t id; /* the caller's: which stretch */
	struct hmap endpoint_map, user_map;
	struct tally_user **users;
	size_t user_max, endpoint_max;
	uint64_t requests;
};

/* One request. Names are cut to TALLY_NAME_MAX bytes. */
#define TALLY_NAME_MAX 256
struct tally_request {
	struct str endpoint, version, route;
	enum tally_kind kind;
	struct str user;
	unsigned status_class; /* 0 to 5 */
	bool is_limited;
	uint64_t latency_us;
};

/* NULL when out of memory; one reference. */
struct tally *tally_new(size_t endpoint_max, size_t user_max);
struct tally *tally_ref(struct tally *t);
/* Clears the pointer; NULL inside is fine. */
void tally_put(struct tally **t);

/* Without memory a request is only in the sum. */
void tally_note(struct tally *t, const struct tally_request *r);
/* Adds all of `from`. */
void tally_merge(struct tally *to, const struct tally *from);

/* Pointers into the tally, most requests first (or most refused): up to `max` of them. */
size_t tally_top_endpoints(const struct tally *t, const struct tally_endpoint **out, size_t max);
size_t tally_top_users(const struct tally *t, const struct tally_user **out, size_t max,
		       bool by_limited);

uint64_t tally_endpoint_requests(const struct tally_endpoint *e);
