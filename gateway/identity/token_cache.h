/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remembers verified tokens, so that a signature is checked once. Bounded, shared by all threads
 * (sharded locks). A token is found by 128 bits of secret-keyed hash over all of it, under the
 * fingerprint of the issuer's rules and keys: another domain, another key set or other rules never
 * see it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/identity.h"
#include "lib/str.h"

struct token_cache;

/* Holds at least about `max_tokens`; identities larger than 16 KiB are not kept. NULL: out of
 * memory. */
struct token_cache *token_cache_new(size_t max_tokens);
void token_cache_free(struct token_cache **c);

/* A token's place, computed once for get and put. */
struct token_key {
	uint64_t hash[2];
};
struct token_key token_cache_key(const struct token_cache *c, uint64_t fingerprint,
				 struct str token);
/* The same in two steps, for a token that several issuers may have signed: the first one costs. */
struct token_key token_cache_hash(const struct token_cache *c, struct str token);
struct token_key token_cache_key_of(const struct token_key *hash, uint64_t fingerprint);

/* The identity with a reference for the caller, or NULL. Never one whose expires_s <= now_s. */
struct identity *token_cache_get(struct token_cache *c, const struct token_key *key, int64_t now_s);
/* Takes a reference of its own. */
void token_cache_put(struct token_cache *c, const struct token_key *key, struct identity *id,
		     int64_t now_s);
/* Forgets everything (a revocation). */
void token_cache_clear(struct token_cache *c);

struct token_cache_stats {
	uint64_t hits, misses, evictions, tokens;
};
void token_cache_stats(struct token_cache *c, struct token_cache_stats *out);
