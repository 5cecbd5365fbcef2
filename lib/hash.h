/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed hashing for tables whose keys strangers choose, and random bytes in bulk. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"

struct hash_key {
	uint64_t k[2];
};

/* SipHash-1-3 (Aumasson, Bernstein 2012; the reduced-round variant of hash tables). */
uint64_t hash_sip13(const struct hash_key *key, const void *data, size_t len);

/* A key drawn once per process: the hash of a string differs from run to run. */
const struct hash_key *hash_process_key(void);

static inline uint64_t hash_str(struct str s)
{
	return hash_sip13(hash_process_key(), s.p, s.len);
}

/* Finalizer of SplitMix64 (Steele et al. 2014): spreads an integer over 64 bits. */
static inline uint64_t hash_mix64(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* Cryptographically random bytes; per-thread stock, so that a draw costs no system call. Ends the
 * process if the kernel gives none. */
void random_bytes(void *out, size_t len);
uint64_t random_u64(void);

/* Fast and predictable to whoever sees many outputs: for load-balancing picks and jitter only. Per
 * thread. */
uint64_t random_fast(void);
