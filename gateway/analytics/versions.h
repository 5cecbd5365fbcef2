/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who still calls which version: requests by route, version and consumer since the process began,
 * over reloads. Each worker counts for itself; reports add the workers up. Consumers are bounded:
 * of a few drawn ones the one that was silent longest makes room, and is counted as forgotten.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gateway/analytics/tally.h"

struct request;
struct versions;

#define VERSIONS_CONSUMERS_MAX 4096

struct versions_consumer {
	struct hmap_node node;
	struct str route, version;
	enum tally_kind kind;
	struct str name;
	uint64_t requests;
	uint64_t first_ms, last_ms; /* wall clock */
	size_t index;
	char text[];
};

/* All of one route's version. */
struct versions_sum {
	uint64_t requests, forgotten;
	uint64_t first_ms, last_ms; /* 0: none yet */
};

/* NULL when out of memory. */
struct versions *versions_new(void);
void versions_free(struct versions *v);

/* The worker: a request of a route with a version has ended. */
void versions_note(struct versions *v, const struct request *r);

/* Any thread: adds one's counts of all versions to another. */
void versions_merge(struct versions *to, struct versions *from);
/* On one that nobody writes to any more. */
void versions_get(const struct versions *v, struct str route, struct str version,
		  struct versions_sum *out);
/* Of that version, most requests first: pointers into it. */
size_t versions_top(const struct versions *v, struct str route, struct str version,
		    const struct versions_consumer **out, size_t max);
