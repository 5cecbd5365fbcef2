/* SPDX-License-Identifier: Apache-2.0 */
/* What the table of limits (limits.c) and the thread that talks to Redis (limit_store.c) share. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gateway/limits/limits.h"

/* What a lease is doing: whether the store's thread has the key in hand already. */
enum limits_lease_state {
	LEASE_IDLE,
	LEASE_BUSY, /* told, timed or asked: it will be looked at again without being told */
};

/*
 * Beside each word of a table that is shared over Redis. The word full_at_ns then is this gateway's
 * estimate of the common clock: what Redis said last, and what was admitted here since.
 */
struct limits_lease {
	_Atomic int32_t leased; /* requests that Redis granted ahead and nobody took yet */
	/* Admitted without asking: Redis is to be told. Below zero when one was told just before it
	 * was taken back. */
	_Atomic int32_t owed;
	_Atomic uint32_t seen;   /* requests, admitted or not, since Redis was asked */
	_Atomic uint32_t rivals; /* until when other gateways are known to admit the same key, ms */
	_Atomic uint32_t quiet;  /* until when there is nothing to ask for, ms; 0: there is */
	_Atomic uint8_t state;   /* enum limits_lease_state */
	_Atomic bool was_alone;  /* some were admitted while Redis was away */
	_Atomic uint64_t tat_us; /* the common clock as Redis told it last, to see who moved it */
};
_Static_assert(sizeof(struct limits_lease) == 32, "documented: 48 bytes a key with its word");

/* A key's place in the table. */
struct limits_slot {
	_Atomic uint64_t *tag, *full_at_ns;
	uint64_t key;
	struct limits_lease *lease; /* NULL in a table that is not shared */
};

/* Milliseconds as leases keep them: they wrap after 49 days. */
static inline uint32_t limits_ms(uint64_t ns)
{
	uint32_t ms = (uint32_t)(ns / 1000000);

	return ms ? ms : 1;
}

static inline bool limits_is_before(const _Atomic uint32_t *moment_ms, uint32_t now_ms)
{
	uint32_t until = atomic_load_explicit(moment_ms, memory_order_relaxed);

	return until && (int32_t)(until - now_ms) > 0;
}

static inline bool limits_has_rivals(const struct limits_lease *lease, uint32_t now_ms)
{
	return limits_is_before(&lease->rivals, now_ms);
}

/* How many times its cost a request on credit is counted, while other gateways may be admitting
 * the same key at the same time. */
#define LIMITS_CAUTION 2

/* Undoes what one request was charged, which Redis may have been told of meanwhile. */
void limits_give_back(const struct limits_slot *slot, uint64_t cost_ns);

uint64_t limits_key(const struct limits_rule *rule, const struct limits_subject *s);
/* The key's name for all gateways. */
void limits_shared_key(uint64_t out[2], const struct limits_rule *rule,
		       const struct limits_subject *s);
