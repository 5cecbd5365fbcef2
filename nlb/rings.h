/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds the ring of one VIP: Maglev says who owns each slot, the ring before says who owned it,
 * and the result remembers both. Pure: no maps, no clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/nlb_abi.h"
#include "lib/hash.h"
#include "lib/str.h"

struct ring_member {
	uint16_t id;         /* index into the map `gateways` */
	struct str identity; /* its address: the same on every NLB */
	uint32_t weight;
	bool takes_new;   /* may own slots */
	bool takes_known; /* may be guessed to have connections */
};

/*
 * Fills `out` (NLB_RING_SLOTS). `before` is the ring in force, NULL if there is none.
 * `is_beginning`: the first gateways are only just being found healthy, so who owned a slot says
 * little of who holds connections of the past, and those who would own it next are named instead.
 * `now_min` are minutes of CLOCK_BOOTTIME. Returns the number of slots whose owner changed, or
 * -errno.
 */
int ring_build(struct nlb_slot *out, const struct nlb_slot *before,
	       const struct ring_member *members, size_t count, const struct hash_key *key,
	       bool is_beginning, uint64_t now_min);

/*
 * Clears the "moved" mark of slots that moved at least settle_min ago, in place: packets may read
 * meanwhile. One that is dated ahead is dated now. Returns how many are still marked.
 */
uint32_t ring_settle(struct nlb_slot *slots, uint64_t now_min, uint64_t settle_min);
