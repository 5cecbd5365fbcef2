/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/token_cache.h"

#include <pthread.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/hash.h"

#define SHARDS       64 /* few threads, short sections: a lock is hardly ever waited for */
#define WAYS         8
#define MAX_IDENTITY (16U << 10)

struct entry {
	struct token_key key;
	struct identity *id; /* NULL: free */
	uint64_t used;       /* the shard's clock at the last use */
};

struct shard {
	pthread_mutex_t lock;
	struct entry *entries; /* sets of WAYS */
	uint64_t clock;
	struct token_cache_stats stats;
};

struct token_cache {
	struct hash_key
		keys[2]; /* of this cache alone: nobody can compute a place or a collision */
	size_t set_mask; /* sets per shard - 1 */
	struct shard shards[SHARDS];
};

struct token_cache *token_cache_new(size_t max_tokens)
{
	struct token_cache *c = calloc(1, sizeof(*c));
	size_t sets = 1;

	if (!c)
		return NULL;
	while (sets * WAYS * SHARDS < max_tokens && sets < (1U << 20))
		sets *= 2;
	c->set_mask = sets - 1;
	random_bytes(c->keys, sizeof(c->keys));
	for (size_t i = 0; i < SHARDS; i++) {
		pthread_mutex_init(&c->shards[i].lock, NULL);
		c->shards[i].entries = calloc(sets * WAYS, sizeof(struct entry));
		if (!c->shards[i].entries) {
			token_cache_free(&c);
			return NULL;
		}
	}
	return c;
}

void token_cache_free(struct token_cache **c)
{
	if (!*c)
		return;
	token_cache_clear(*c);
	for (size_t i = 0; i < SHARDS; i++) {
		free((*c)->shards[i].entries);
		pthread_mutex_destroy(&(*c)->shards[i].lock);
	}
	free(*c);
	*c = NULL;
}

struct token_key token_cache_hash(const struct token_cache *c, struct str token)
{
	struct token_key hash = { { 0 } };

	for (size_t i = 0; i < 2; i++)
		hash.hash[i] = hash_sip13(&c->keys[i], token.p, token.len);
	return hash;
}

struct token_key token_cache_key_of(const struct token_key *hash, uint64_t fingerprint)
{
	struct token_key key = { { 0 } };

	for (size_t i = 0; i < 2; i++)
		key.hash[i] = hash_mix64(hash->hash[i] ^ hash_mix64(fingerprint + i));
	return key;
}

struct token_key token_cache_key(const struct token_cache *c, uint64_t fingerprint,
				 struct str token)
{
	struct token_key hash = token_cache_hash(c, token);

	return token_cache_key_of(&hash, fingerprint);
}

static struct shard *shard_of(struct token_cache *c, const struct token_key *key)
{
	return &c->shards[key->hash[0] % SHARDS];
}

static struct entry *set_of(const struct token_cache *c, const struct shard *shard,
			    const struct token_key *key)
{
	return &shard->entries[((key->hash[0] / SHARDS) & c->set_mask) * WAYS];
}

static struct entry *set_find(struct entry *set, const struct token_key *key)
{
	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].id && set[i].key.hash[0] == key->hash[0] &&
		    set[i].key.hash[1] == key->hash[1])
			return &set[i];
	}
	return NULL;
}

static void entry_drop(struct shard *shard, struct entry *e)
{
	if (e->id)
		shard->stats.tokens--;
	identity_put(&e->id);
}

struct identity *token_cache_get(struct token_cache *c, const struct token_key *key, int64_t now_s)
{
	struct shard *shard = shard_of(c, key);
	struct identity *id = NULL;
	struct entry *e;

	pthread_mutex_lock(&shard->lock);
	e = set_find(set_of(c, shard, key), key);
	if (e && e->id->expires_s <= now_s)
		entry_drop(shard, e);
	else if (e)
		id = identity_ref(e->id);
	if (id) {
		e->used = ++shard->clock;
		shard->stats.hits++;
	} else {
		shard->stats.misses++;
	}
	pthread_mutex_unlock(&shard->lock);
	return id;
}

/* A free way, an expired one, else the one that was not used for longest. */
static struct entry *set_victim(struct entry *set, int64_t now_s)
{
	struct entry *victim = &set[0];

	for (size_t i = 0; i < WAYS; i++) {
		if (!set[i].id || set[i].id->expires_s <= now_s)
			return &set[i];
		if (set[i].used < victim->used)
			victim = &set[i];
	}
	return victim;
}

void token_cache_put(struct token_cache *c, const struct token_key *key, struct identity *id,
		     int64_t now_s)
{
	struct shard *shard = shard_of(c, key);
	struct entry *set, *e;

	if (id->size > MAX_IDENTITY || id->expires_s <= now_s)
		return;
	pthread_mutex_lock(&shard->lock);
	set = set_of(c, shard, key);
	e = set_find(set, key);
	if (!e)
		e = set_victim(set, now_s);
	if (e->id && e->id->expires_s > now_s && memcmp(&e->key, key, sizeof(*key)) != 0)
		shard->stats.evictions++;
	entry_drop(shard, e);
	*e = (struct entry) { .key = *key, .id = identity_ref(id), .used = ++shard->clock };
	shard->stats.tokens++;
	pthread_mutex_unlock(&shard->lock);
}

void token_cache_clear(struct token_cache *c)
{
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = &c->shards[i];

		pthread_mutex_lock(&shard->lock);
		for (size_t j = 0; shard->entries && j < (c->set_mask + 1) * WAYS; j++)
			entry_drop(shard, &shard->entries[j]);
		pthread_mutex_unlock(&shard->lock);
	}
}

void token_cache_stats(struct token_cache *c, struct token_cache_stats *out)
{
	*out = (struct token_cache_stats) { 0 };
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = &c->shards[i];

		pthread_mutex_lock(&shard->lock);
		out->hits += shard->stats.hits;
		out->misses += shard->stats.misses;
		out->evictions += shard->stats.evictions;
		out->tokens += shard->stats.tokens;
		pthread_mutex_unlock(&shard->lock);
	}
}
