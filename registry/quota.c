/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/quota.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"

#define KEY_MAX 72 /* a letter, then an address or the name of a token */

struct reg_quota {
	struct hmap_node node;
	struct reg_quotas *all;
	size_t count;
	size_t key_len;
	char key[KEY_MAX];
};

struct reg_quotas {
	struct hmap map;
	struct reg_quota *current; /* of the request being handled */
};

static void quota_drop_if_unused(struct reg_quota *q)
{
	if (q->count || q->all->current == q)
		return;
	hmap_remove(&q->all->map, &q->node);
	free(q);
}

static size_t make_key(char key[static KEY_MAX], struct str token, const struct net_addr *peer)
{
	if (token.p) {
		size_t len = MIN(token.len, (size_t)KEY_MAX - 1);

		key[0] = 't';
		memcpy(key + 1, token.p, len);
		return len + 1;
	}
	if (peer->sa.sa_family == AF_INET) {
		key[0] = '4';
		memcpy(key + 1, &peer->in.sin_addr, 4);
		return 5;
	}
	if (peer->sa.sa_family == AF_INET6) {
		/* Whoever has one address of a /64 has them all. */
		key[0] = '6';
		memcpy(key + 1, &peer->in6.sin6_addr, 8);
		return 9;
	}
	key[0] = 'u';
	return 1;
}

struct reg_quota *reg_quotas_use(struct reg_quotas *all, struct str token,
				 const struct net_addr *peer)
{
	char key[KEY_MAX];
	size_t len = make_key(key, token, peer);
	uint64_t hash = hash_str(str_of(key, len));
	struct reg_quota *q;

	for (struct hmap_node *n = hmap_first(&all->map, hash); n; n = hmap_next(n)) {
		q = container_of(n, struct reg_quota, node);
		if (q->key_len == len && memcmp(q->key, key, len) == 0) {
			all->current = q;
			return q;
		}
	}
	q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->all = all;
	q->key_len = len;
	memcpy(q->key, key, len);
	if (hmap_insert(&all->map, &q->node, hash) < 0) {
		free(q);
		return NULL;
	}
	all->current = q;
	return q;
}

void reg_quotas_done(struct reg_quotas *all)
{
	struct reg_quota *q = TAKE_PTR(all->current);

	if (q)
		quota_drop_if_unused(q);
}

size_t reg_quota_count(const struct reg_quota *q)
{
	return q->count;
}

void reg_quota_take(struct reg_quota *q)
{
	if (q)
		q->count++;
}

void reg_quota_give(struct reg_quota *q)
{
	if (!q)
		return;
	q->count--;
	quota_drop_if_unused(q);
}

struct reg_quotas *reg_quotas_new(void)
{
	return calloc(1, sizeof(struct reg_quotas));
}

void reg_quotas_free(struct reg_quotas **allp)
{
	struct reg_quotas *all = TAKE_PTR(*allp);

	if (!all)
		return;
	hmap_fini(&all->map);
	free(all);
}
