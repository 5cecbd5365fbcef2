/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/revoked.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"

#define SHARDS 64

const char *const revoked_kinds[REVOKED_KINDS] = { "jti", "sub", "api_key" };

struct entry {
	struct hmap_node node;
	struct revocation r; /* its texts behind it */
};

struct shard {
	pthread_mutex_t lock;
	struct hmap entries;
};

struct revoked {
	size_t count;                   /* atomic: looked at before any lock */
	size_t counts[REVOKED_SOURCES]; /* atomic */
	struct shard shards[SHARDS];
};

struct revoked *revoked_new(void)
{
	struct revoked *t = calloc(1, sizeof(*t));

	for (size_t i = 0; t && i < SHARDS; i++)
		pthread_mutex_init(&t->shards[i].lock, NULL);
	return t;
}

static uint64_t hash_of(enum revoked_kind kind, struct str value)
{
	return hash_mix64(hash_str(value) + kind);
}

static struct shard *shard_of(struct revoked *t, uint64_t hash)
{
	return &t->shards[hash >> 58];
}

static void entry_drop(struct revoked *t, struct shard *shard, struct entry *e)
{
	hmap_remove(&shard->entries, &e->node);
	__atomic_sub_fetch(&t->count, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&t->counts[e->r.source], 1, __ATOMIC_RELAXED);
	free(e);
}

struct sweep {
	bool by_time, by_round;
	int64_t now_s;
	enum revoked_source source;
	uint64_t round;
};

static bool is_unwanted(const struct revocation *r, const struct sweep *s)
{
	if (s->by_time)
		return r->until_s <= s->now_s;
	return !s->by_round || (r->source == s->source && r->round != s->round);
}

static void sweep(struct revoked *t, const struct sweep *s)
{
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = &t->shards[i];

		pthread_mutex_lock(&shard->lock);
		hmap_for_each (node, &shard->entries) {
			struct entry *e = container_of(node, struct entry, node);

			if (is_unwanted(&e->r, s))
				entry_drop(t, shard, e);
		}
		pthread_mutex_unlock(&shard->lock);
	}
}

void revoked_keep(struct revoked *t, enum revoked_source source, uint64_t round)
{
	sweep(t, &(struct sweep) { .by_round = true, .source = source, .round = round });
}

void revoked_expire(struct revoked *t, int64_t now_s)
{
	sweep(t, &(struct sweep) { .by_time = true, .now_s = now_s });
}

void revoked_free(struct revoked **t)
{
	if (!*t)
		return;
	sweep(*t, &(struct sweep) { 0 });
	for (size_t i = 0; i < SHARDS; i++) {
		hmap_fini(&(*t)->shards[i].entries);
		pthread_mutex_destroy(&(*t)->shards[i].lock);
	}
	free(*t);
	*t = NULL;
}

static struct entry *find(const struct shard *shard, uint64_t hash, const struct revocation *r)
{
	for (struct hmap_node *n = hmap_first(&shard->entries, hash); n; n = hmap_next(n)) {
		struct entry *e = container_of(n, struct entry, node);

		if (e->r.kind == r->kind && e->r.source == r->source &&
		    str_eq(e->r.value, r->value) && str_eq(e->r.auth, r->auth))
			return e;
	}
	return NULL;
}

static struct entry *entry_new(const struct revocation *r)
{
	struct entry *e = malloc(sizeof(*e) + r->value.len + r->auth.len);
	char *text;

	if (!e)
		return NULL;
	text = (char *)(e + 1);
	*e = (struct entry) { .r = *r };
	if (r->value.len)
		memcpy(text, r->value.p, r->value.len);
	if (r->auth.len)
		memcpy(text + r->value.len, r->auth.p, r->auth.len);
	e->r.value.p = text;
	e->r.auth.p = text + r->value.len;
	return e;
}

/* A file's next version is there beside the former one for a moment. */
static size_t most_of(enum revoked_source source)
{
	return source == REVOKED_BY_FILE ? 2UL * REVOKED_MAX : REVOKED_MAX;
}

int revoked_add(struct revoked *t, const struct revocation *r)
{
	uint64_t hash = hash_of(r->kind, r->value);
	struct shard *shard = shard_of(t, hash);
	struct entry *old, *fresh;
	int rc = 0;

	fresh = entry_new(r);
	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&shard->lock);
	old = find(shard, hash, r);
	if (!old && revoked_count(t, r->source) >= most_of(r->source))
		rc = -ENOSPC;
	else
		rc = hmap_insert(&shard->entries, &fresh->node, hash);
	if (rc == 0) {
		__atomic_add_fetch(&t->count, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&t->counts[r->source], 1, __ATOMIC_RELAXED);
		if (old)
			entry_drop(t, shard, old);
	}
	pthread_mutex_unlock(&shard->lock);
	if (rc < 0)
		free(fresh);
	return rc;
}

bool revoked_remove(struct revoked *t, const struct revocation *r)
{
	uint64_t hash = hash_of(r->kind, r->value);
	struct shard *shard = shard_of(t, hash);
	struct revocation wanted = *r;
	struct entry *e;

	wanted.source = REVOKED_BY_ADMIN;
	pthread_mutex_lock(&shard->lock);
	e = find(shard, hash, &wanted);
	if (e)
		entry_drop(t, shard, e);
	pthread_mutex_unlock(&shard->lock);
	return e != NULL;
}

static bool has(struct revoked *t, enum revoked_kind kind, const struct claim *claim,
		const struct identity *id, struct str auth, int64_t now_s)
{
	struct shard *shard;
	bool is_revoked = false;
	uint64_t hash;

	if (!claim)
		return false;
	hash = hash_of(kind, claim->text);
	shard = shard_of(t, hash);
	pthread_mutex_lock(&shard->lock);
	for (struct hmap_node *n = hmap_first(&shard->entries, hash); n; n = hmap_next(n)) {
		const struct revocation *r = &container_of(n, struct entry, node)->r;

		/* What does not say when it was issued may be from before. */
		is_revoked |= r->kind == kind && str_eq(r->value, claim->text) &&
			      r->until_s > now_s && id->issued_s < r->before_s &&
			      (r->auth.len == 0 || str_eq(r->auth, auth));
	}
	pthread_mutex_unlock(&shard->lock);
	return is_revoked;
}

bool revoked_has(struct revoked *t, const struct identity *id, struct str auth, int64_t now_s)
{
	if (__atomic_load_n(&t->count, __ATOMIC_RELAXED) == 0)
		return false;
	return has(t, REVOKED_JTI, id->jti, id, auth, now_s) ||
	       has(t, REVOKED_SUB, id->sub, id, auth, now_s) ||
	       has(t, REVOKED_API_KEY, id->key_id, id, auth, now_s);
}

size_t revoked_count(const struct revoked *t, enum revoked_source source)
{
	return __atomic_load_n(&t->counts[source], __ATOMIC_RELAXED);
}

void revoked_each(struct revoked *t, void (*visit)(const struct revocation *r, void *arg),
		  void *arg)
{
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = &t->shards[i];

		pthread_mutex_lock(&shard->lock);
		hmap_for_each (node, &shard->entries)
			visit(&container_of(node, struct entry, node)->r, arg);
		pthread_mutex_unlock(&shard->lock);
	}
}
