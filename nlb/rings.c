/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/rings.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/maglev.h"

#define CHOICES       3
#define EARLIER_COUNT 2

static void add_earlier(struct nlb_slot *slot, uint16_t id, const bool *takes_known)
{
	if (!id || id >= NLB_MAX_GATEWAYS || !takes_known[id] || id == slot->gateway)
		return;
	for (unsigned i = 0; i < EARLIER_COUNT; i++) {
		if (slot->earlier[i] == id)
			return;
		if (!slot->earlier[i]) {
			slot->earlier[i] = id;
			return;
		}
	}
}

/* The flow table is asked for slots that have moved: it knows the connections of before. */
static uint16_t flags_after(const struct nlb_slot *slot, const struct nlb_slot *before,
			    uint64_t now_min)
{
	if (before->gateway != slot->gateway &&
	    (before->gateway || (before->flags & NLB_SLOT_MOVED)))
		return NLB_SLOT_MOVED | (uint16_t)(now_min & NLB_SLOT_TIME_MASK);
	return before->flags;
}

/*
 * Owners of before, the latest first. Those noted before only as next choices are forgotten when
 * the slot never moved: then the choices of this pool are better guesses.
 */
static void add_history(struct nlb_slot *slot, const struct nlb_slot *before,
			const bool *takes_known)
{
	add_earlier(slot, before->gateway, takes_known);
	for (unsigned i = 0; i < EARLIER_COUNT && (before->flags & NLB_SLOT_MOVED); i++)
		add_earlier(slot, before->earlier[i], takes_known);
}

int ring_build(struct nlb_slot *out, const struct nlb_slot *before,
	       const struct ring_member *members, size_t count, const struct hash_key *key,
	       bool is_beginning, uint64_t now_min)
{
	CLEANUP(cleanup_free)
	uint16_t *choices = calloc(NLB_RING_SLOTS, sizeof(*choices) * CHOICES);
	CLEANUP(cleanup_free) struct maglev_node *nodes = calloc(count + 1, sizeof(*nodes));
	bool takes_known[NLB_MAX_GATEWAYS] = { false };
	int moved = 0, err;

	if (!choices || !nodes)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (members[i].id >= NLB_MAX_GATEWAYS)
			return -EINVAL;
		nodes[i].identity = members[i].identity;
		nodes[i].weight = members[i].takes_new ? members[i].weight : 0;
		takes_known[members[i].id] = members[i].takes_known;
	}
	err = maglev_build(choices, NLB_RING_SLOTS, CHOICES, nodes, count, key);
	if (err)
		return err;

	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		const uint16_t *choice = &choices[(size_t)s * CHOICES];
		struct nlb_slot *slot = &out[s];

		*slot = (struct nlb_slot) { 0 };
		if (choice[0] != MAGLEV_NONE)
			slot->gateway = members[choice[0]].id;
		if (before)
			slot->flags = flags_after(slot, &before[s], now_min);
		if (before && !is_beginning)
			add_history(slot, &before[s], takes_known);
		for (unsigned k = 1; k < CHOICES; k++) {
			if (choice[k] != MAGLEV_NONE)
				add_earlier(slot, members[choice[k]].id, takes_known);
		}
		moved += !before || before[s].gateway != slot->gateway;
	}
	return moved;
}

uint32_t ring_settle(struct nlb_slot *slots, uint64_t now_min, uint64_t settle_min)
{
	uint32_t marked = 0;

	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint16_t flags = slots[s].flags;
		uint16_t age = (uint16_t)((now_min - (flags & NLB_SLOT_TIME_MASK)) &
					  NLB_SLOT_TIME_MASK);

		if (!(flags & NLB_SLOT_MOVED))
			continue;
		if (age >= settle_min)
			__atomic_store_n(&slots[s].flags, 0, __ATOMIC_RELAXED);
		else
			marked++;
	}
	return marked;
}
