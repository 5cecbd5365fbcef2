/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/hmap.h"

#include <errno.h>
#include <stdlib.h>

#define HMAP_MIN_BUCKETS 16

void hmap_fini(struct hmap *m)
{
	free(m->buckets);
	*m = (struct hmap) { 0 };
}

static int hmap_grow(struct hmap *m)
{
	size_t buckets = m->buckets ? (m->mask + 1) * 2 : HMAP_MIN_BUCKETS;
	struct hmap_node **fresh = calloc(buckets, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	hmap_for_each (n, m) {
		n->next = fresh[n->hash & (buckets - 1)];
		fresh[n->hash & (buckets - 1)] = n;
	}
	free(m->buckets);
	m->buckets = fresh;
	m->mask = buckets - 1;
	return 0;
}

int hmap_insert(struct hmap *m, struct hmap_node *node, uint64_t hash)
{
	/* A full map still works, only slower, when there is no memory to grow it. */
	if ((!m->buckets || m->count > m->mask) && hmap_grow(m) < 0 && !m->buckets)
		return -ENOMEM;
	node->hash = hash;
	node->next = m->buckets[hash & m->mask];
	m->buckets[hash & m->mask] = node;
	m->count++;
	return 0;
}

void hmap_remove(struct hmap *m, struct hmap_node *node)
{
	struct hmap_node **at = &m->buckets[node->hash & m->mask];

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	m->count--;
}
