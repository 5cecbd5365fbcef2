/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/hash.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "lib/cleanup.h"

static uint64_t rotl(uint64_t x, int b)
{
	return (x << b) | (x >> (64 - b));
}

static uint64_t load64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v; /* little-endian hosts only, as all of gatehouse */
}

#define SIP_ROUND(v0, v1, v2, v3)       \
	do {                            \
		v0 += v1;               \
		v1 = rotl(v1, 13) ^ v0; \
		v0 = rotl(v0, 32);      \
		v2 += v3;               \
		v3 = rotl(v3, 16) ^ v2; \
		v0 += v3;               \
		v3 = rotl(v3, 21) ^ v0; \
		v2 += v1;               \
		v1 = rotl(v1, 17) ^ v2; \
		v2 = rotl(v2, 32);      \
	} while (0)

uint64_t hash_sip13(const struct hash_key *key, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t v0 = key->k[0] ^ 0x736f6d6570736575ULL;
	uint64_t v1 = key->k[1] ^ 0x646f72616e646f6dULL;
	uint64_t v2 = key->k[0] ^ 0x6c7967656e657261ULL;
	uint64_t v3 = key->k[1] ^ 0x7465646279746573ULL;
	uint64_t last = (uint64_t)len << 56;
	size_t left = len;

	for (; left >= 8; p += 8, left -= 8) {
		uint64_t m = load64(p);

		v3 ^= m;
		SIP_ROUND(v0, v1, v2, v3);
		v0 ^= m;
	}
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)p[i] << (8 * i);
	v3 ^= last;
	SIP_ROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

static void kernel_random(void *out, size_t len)
{
	char *p = out;

	while (len) {
		ssize_t n = getrandom(p, len, 0);

		/* Without randomness neither request ids nor hash keys mean anything. */
		if (n < 0) {
			perror("getrandom");
			abort();
		}
		p += n;
		len -= (size_t)n;
	}
}

static struct hash_key process_key;
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void process_key_draw(void)
{
	kernel_random(&process_key, sizeof(process_key));
}

const struct hash_key *hash_process_key(void)
{
	pthread_once(&process_key_once, process_key_draw);
	return &process_key;
}

void random_bytes(void *out, size_t len)
{
	static __thread unsigned char stock[4096];
	static __thread size_t left;

	if (len > sizeof(stock)) {
		kernel_random(out, len);
		return;
	}
	if (len > left) {
		kernel_random(stock, sizeof(stock));
		left = sizeof(stock);
	}
	left -= len;
	memcpy(out, stock + left, len);
	/* A drawn byte is never kept. */
	explicit_bzero(stock + left, len);
}

uint64_t random_u64(void)
{
	uint64_t v;

	random_bytes(&v, sizeof(v));
	return v;
}

uint64_t random_fast(void)
{
	static __thread uint64_t state;

	if (state == 0)
		state = random_u64() | 1;
	state += 0x9e3779b97f4a7c15ULL;
	return hash_mix64(state);
}
