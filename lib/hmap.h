/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive hash map: the caller's struct embeds a node and brings the hash; the map links nodes
 * and grows. The map owns no element. Growth rehashes all at once (doubling), so inserts are
 * amortised constant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/cleanup.h"

struct hmap_node {
	struct hmap_node *next;
	uint64_t hash;
};

struct hmap {
	struct hmap_node **buckets;
	size_t mask; /* number of buckets - 1; no buckets before the first insert */
	size_t count;
};

/* All zeroes is an empty map. Frees the buckets, not the elements. */
void hmap_fini(struct hmap *m);
/* Returns 0 or -ENOMEM. The caller has made sure that the key is not in there. */
int hmap_insert(struct hmap *m, struct hmap_node *node, uint64_t hash);
/* The node must be in the map. */
void hmap_remove(struct hmap *m, struct hmap_node *node);

/* First node with this hash, then the next one: the caller compares keys. */
static inline struct hmap_node *hmap_first(const struct hmap *m, uint64_t hash)
{
	struct hmap_node *n = m->buckets ? m->buckets[hash & m->mask] : NULL;

	while (n && n->hash != hash)
		n = n->next;
	return n;
}

static inline struct hmap_node *hmap_next(const struct hmap_node *node)
{
	struct hmap_node *n = node->next;

	while (n && n->hash != node->hash)
		n = n->next;
	return n;
}

/* Every node, in no order. The body may remove (and free) the node it is given, and add none. */
struct hmap_iter {
	const struct hmap *map;
	size_t bucket;
	struct hmap_node *next;
};

static inline struct hmap_node *hmap_iter_next(struct hmap_iter *it)
{
	struct hmap_node *n = it->next;

	while (!n) {
		if (!it->map->buckets || it->bucket > it->map->mask)
			return NULL;
		n = it->map->buckets[it->bucket++];
	}
	it->next = n->next;
	return n;
}

#define hmap_for_each(pos, m)                                                                     \
	for (struct hmap_iter pos##_it_ = { .map = (m) }, *pos##_once_ = &pos##_it_; pos##_once_; \
	     pos##_once_ = NULL)                                                                  \
		for (struct hmap_node * pos; (pos = hmap_iter_next(&pos##_it_)) != NULL;)
