/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instance of a service takes the next request: one row of a table for each policy, all with
 * one signature. Belongs to one worker, draws from a generator of its own, and costs nothing that
 * grows with the number of instances but where a policy needs it (smooth weights, the idlest of a
 * small pool).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct endpoint;
struct service;

/* Walker's alias method: one throw gives an instance by weight. */
struct pick_alias {
	uint32_t stay; /* below this of 2^32: the instance itself */
	uint32_t other;
};

/* Instances that are chosen among: all, those of the own zone, those of other zones. */
struct pick_group {
	struct endpoint **members; /* a part of the service's list */
	size_t count;
	struct pick_alias *alias; /* NULL: all weigh the same */
	uint64_t turn;            /* of those that take turns */
	uint64_t mean_sum_us, mean_until_ms;
};

struct pick_point {
	uint64_t hash;
	struct endpoint *endpoint;
};

/* Embed it, zeroed. */
struct picker {
	struct pick_group all, near, far;
	struct pick_point *ring; /* by hash; of ring_hash only */
	size_t ring_count;
	uint64_t weight_sum;
	uint64_t seed;          /* of the generator */
	uint32_t near_share;    /* of 2^16: what the own zone is good for */
	uint64_t near_until_ms; /* it is right before then */
};

/* What to choose for. */
struct pick_query {
	struct endpoint *const *tried; /* none of these */
	unsigned tried_count;
	uint64_t key; /* of ring_hash */
};

/* The service's list has changed: makes tables of it anew. Without memory for them weights and
 * rings are done without. */
void picker_rebuild(struct service *s);
void picker_fini(struct picker *p);

/* The choice, NULL when there is nothing to choose. Counts nothing. */
struct endpoint *picker_choose(struct service *s, const struct pick_query *q);
