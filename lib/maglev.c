/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/maglev.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/cleanup.h"

/* A node's walk over all slots in its own order: offset, offset + skip, … modulo the prime. */
struct walker {
	uint64_t order; /* hash of the identity: the order of turns */
	struct str identity;
	uint32_t weight, credit;
	uint32_t at, skip;
	uint32_t left; /* slots not visited yet */
	uint16_t index;
};

struct table {
	uint16_t *choices;
	uint8_t *count; /* choices that each slot has */
	uint32_t slots, depth;
};

static int walker_compare(const void *pa, const void *pb)
{
	const struct walker *a = pa, *b = pb;
	size_t len = MIN(a->identity.len, b->identity.len);
	int order;

	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	order = len ? memcmp(a->identity.p, b->identity.p, len) : 0;
	if (order)
		return order;
	return (a->identity.len > b->identity.len) - (a->identity.len < b->identity.len);
}

static void walker_init(struct walker *w, const struct maglev_node *node, uint16_t index,
			uint32_t slots, const struct hash_key *key)
{
	uint64_t h = hash_sip13(key, node->identity.p, node->identity.len);
	uint64_t skip = hash_mix64(h);

	*w = (struct walker) {
		.order = hash_mix64(skip),
		.identity = node->identity,
		.weight = node->weight,
		.at = (uint32_t)(h % slots),
		.skip = slots > 2 ? (uint32_t)(skip % (slots - 1)) + 1 : 1,
		.left = slots,
		.index = index,
	};
}

/*
 * Walks on until the node has become the choice of `rank` of some slot. Slots met on the way that
 * have an owner already note the node as a later choice: it asked first, so it is the one that
 * would have got the slot without the owner.
 */
static bool walker_take_turn(struct walker *w, struct table *t, uint32_t rank)
{
	while (w->left) {
		uint32_t slot = w->at;
		uint32_t have = t->count[slot];

		w->at += w->skip;
		if (w->at >= t->slots)
			w->at -= t->slots;
		w->left--;
		if (have == t->depth)
			continue;
		t->choices[(size_t)slot * t->depth + have] = w->index;
		t->count[slot]++;
		if (have == rank)
			return true;
	}
	return false;
}

/* Every node earns turns in proportion to its weight until each slot has a choice of this rank. */
static void fill_rank(struct walker *walkers, size_t count, struct table *t, uint32_t rank,
		      uint32_t heaviest)
{
	uint32_t missing = 0;
	bool is_moving = true;

	for (uint32_t slot = 0; slot < t->slots; slot++)
		missing += t->count[slot] <= rank;
	while (missing && is_moving) {
		is_moving = false;
		for (size_t i = 0; i < count && missing; i++) {
			struct walker *w = &walkers[i];

			is_moving |= w->left > 0;
			w->credit += w->weight;
			if (w->credit < heaviest)
				continue;
			w->credit -= heaviest;
			missing -= walker_take_turn(w, t, rank);
		}
	}
}

int maglev_build(uint16_t *choices, uint32_t slots, uint32_t depth, const struct maglev_node *nodes,
		 size_t count, const struct hash_key *key)
{
	CLEANUP(cleanup_free) struct walker *walkers = NULL;
	CLEANUP(cleanup_free) uint8_t *counts = NULL;
	struct table t = { .choices = choices, .slots = slots, .depth = depth };
	uint32_t heaviest = 0;
	size_t active = 0;

	if (count >= MAGLEV_NONE || slots < 2 || depth < 1 || depth > UINT8_MAX)
		return -EINVAL;
	for (size_t i = 0; i < count; i++) {
		if (nodes[i].weight > MAGLEV_WEIGHT_MAX)
			return -EINVAL;
	}
	walkers = calloc(count ? count : 1, sizeof(*walkers));
	counts = calloc(slots, 1);
	if (!walkers || !counts)
		return -ENOMEM;

	t.count = counts;
	for (size_t i = 0; i < count; i++) {
		if (!nodes[i].weight)
			continue;
		walker_init(&walkers[active++], &nodes[i], (uint16_t)i, slots, key);
		heaviest = MAX(heaviest, nodes[i].weight);
	}
	qsort(walkers, active, sizeof(*walkers), walker_compare);
	for (size_t i = 0; i < (size_t)slots * depth; i++)
		choices[i] = MAGLEV_NONE;
	for (uint32_t rank = 0; rank < depth; rank++)
		fill_rank(walkers, active, &t, rank, heaviest);
	return 0;
}
