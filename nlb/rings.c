/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/rings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/maglev.h"

#define CHOICES       3
#define EARLIER_COUNT 2

static void add_earlier(struct nlb_slot *slot, uint16_t id, const bool *may_be_named)
{
	if (!id || id >= NLB_MAX_GATEWAYS || !may_be_named[id] || id == slot->gateway)
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

/* Who has had a slot for no longer was its owner for a moment: the slot's clock counts minutes. */
#define BRIEF_MIN 1

static bool is_brief(const struct nlb_slot *slot, uint64_t now_min)
{
	uint64_t age = (now_min - (slot->flags & NLB_SLOT_TIME_MASK)) & NLB_SLOT_TIME_MASK;

	return (slot->flags & NLB_SLOT_MOVED) && age <= BRIEF_MIN;
}

/*
 * Owners of before, the latest first; but one that had the slot only for a moment has few of its
 * connections, and several changes in a row must not push out the one that has nearly all. Members
 * that fail their checks are kept in mind: packets do not go there meanwhile, and when it was only
 * the check that failed, their connections are still there. Those noted before only as next choices
 * are forgotten when the slot never moved: then the choices of this pool are better guesses.
 */
static void add_history(struct nlb_slot *slot, const struct nlb_slot *before, const bool *is_member,
			uint64_t now_min)
{
	if (is_brief(before, now_min))
		add_earlier(slot, before->earlier[0], is_member);
	add_earlier(slot, before->gateway, is_member);
	for (unsigned i = 0; i < EARLIER_COUNT && (before->flags & NLB_SLOT_MOVED); i++)
		add_earlier(slot, before->earlier[i], is_member);
}

/* Members by what they are, not by where they stand in the list. */
struct heir {
	struct str identity;
	uint16_t index;
	uint32_t owns, most; /* slots; `most` is its fair share, rounded up */
};

static int heir_compare(const void *pa, const void *pb)
{
	const struct heir *a = pa, *b = pb;
	size_t len = MIN(a->identity.len, b->identity.len);
	int order = len ? memcmp(a->identity.p, b->identity.p, len) : 0;

	if (order)
		return order;
	return (a->identity.len > b->identity.len) - (a->identity.len < b->identity.len);
}

static bool is_owner(const struct ring_member *m)
{
	return m->takes_new && m->weight;
}

/* Those who may own slots, in the order of their identities; how many. */
static size_t list_heirs(struct heir *heirs, const struct ring_member *members, size_t count)
{
	uint64_t weights = 0;
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		if (!is_owner(&members[i]))
			continue;
		heirs[n++] = (struct heir) { members[i].identity, (uint16_t)i, 0, 0 };
		weights += members[i].weight;
	}
	qsort(heirs, n, sizeof(*heirs), heir_compare);
	for (size_t h = 0; h < n; h++) {
		uint64_t weight = members[heirs[h].index].weight;

		heirs[h].most = (uint32_t)((weight * NLB_RING_SLOTS + weights - 1) / weights);
	}
	return n;
}

static bool inherit(struct heir *heir, uint16_t *owner)
{
	if (heir->owns >= heir->most)
		return false;
	heir->owns++;
	*owner = heir->index;
	return true;
}

/*
 * Who owns each slot when those who are out have lost theirs. The table is made of all members, so
 * that one who goes out (or drains) and comes back moves its own slots and no others: a table made
 * of the rest would move several times as many in a large pool. An orphan goes to its next choice,
 * or to anybody else who has less than a fair share. `owners` are indices of members, MAGLEV_NONE
 * where nobody is left.
 */
static int share_out(uint16_t *owners, const uint16_t *choices, const struct ring_member *members,
		     size_t count)
{
	CLEANUP(cleanup_free) struct heir *heirs = calloc(count + 1, sizeof(*heirs));
	CLEANUP(cleanup_free) uint16_t *heir_of = calloc(count + 1, sizeof(*heir_of));
	size_t n, turn = 0;

	if (!heirs || !heir_of)
		return -ENOMEM;
	n = list_heirs(heirs, members, count);
	for (size_t h = 0; h < n; h++)
		heir_of[heirs[h].index] = (uint16_t)h;
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint16_t first = choices[(size_t)s * CHOICES];

		owners[s] = MAGLEV_NONE;
		if (first != MAGLEV_NONE && is_owner(&members[first])) {
			owners[s] = first;
			heirs[heir_of[first]].owns++;
		}
	}
	for (uint32_t s = 0; n && s < NLB_RING_SLOTS; s++) {
		bool is_done = owners[s] != MAGLEV_NONE;

		for (unsigned k = 1; k < CHOICES && !is_done; k++) {
			uint16_t next = choices[(size_t)s * CHOICES + k];

			is_done = next != MAGLEV_NONE && is_owner(&members[next]) &&
				  inherit(&heirs[heir_of[next]], &owners[s]);
		}
		for (size_t tries = 0; tries < n && !is_done; tries++)
			is_done = inherit(&heirs[turn++ % n], &owners[s]);
	}
	return 0;
}

int ring_build(struct nlb_slot *out, const struct nlb_slot *before,
	       const struct ring_member *members, size_t count, const struct hash_key *key,
	       bool is_beginning, uint64_t now_min)
{
	CLEANUP(cleanup_free)
	uint16_t *choices = calloc(NLB_RING_SLOTS, sizeof(*choices) * CHOICES);
	CLEANUP(cleanup_free) uint16_t *owners = calloc(NLB_RING_SLOTS, sizeof(*owners));
	CLEANUP(cleanup_free) struct maglev_node *nodes = calloc(count + 1, sizeof(*nodes));
	bool takes_known[NLB_MAX_GATEWAYS] = { false }, is_member[NLB_MAX_GATEWAYS] = { false };
	int moved = 0, err;

	if (!choices || !owners || !nodes)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (members[i].id >= NLB_MAX_GATEWAYS)
			return -EINVAL;
		nodes[i].identity = members[i].identity;
		nodes[i].weight = members[i].weight;
		is_member[members[i].id] = true;
		takes_known[members[i].id] = members[i].takes_known;
	}
	err = maglev_build(choices, NLB_RING_SLOTS, CHOICES, nodes, count, key);
	if (!err)
		err = share_out(owners, choices, members, count);
	if (err)
		return err;

	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		const uint16_t *choice = &choices[(size_t)s * CHOICES];
		struct nlb_slot *slot = &out[s];

		*slot = (struct nlb_slot) { 0 };
		if (owners[s] != MAGLEV_NONE)
			slot->gateway = members[owners[s]].id;
		/* In the beginning nobody is an owner of a moment: nobody has been before. */
		if (before)
			slot->flags = flags_after(slot, &before[s],
						  is_beginning ? now_min - BRIEF_MIN - 1 : now_min);
		if (before && !is_beginning)
			add_history(slot, &before[s], is_member, now_min);
		/* The first one too: whoever drains holds the slot's connections. */
		for (unsigned k = 0; k < CHOICES; k++) {
			if (choice[k] != MAGLEV_NONE)
				add_earlier(slot, members[choice[k]].id, takes_known);
		}
		moved += !before || before[s].gateway != slot->gateway;
	}
	return moved;
}

uint32_t ring_settle(struct nlb_slot *slots, uint64_t now_min, uint64_t settle_min)
{
	const uint16_t fresh = NLB_SLOT_MOVED | (uint16_t)(now_min & NLB_SLOT_TIME_MASK);
	uint32_t marked = 0;

	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint16_t flags = slots[s].flags, then = flags;
		uint16_t age = (uint16_t)((now_min - (flags & NLB_SLOT_TIME_MASK)) &
					  NLB_SLOT_TIME_MASK);

		if (!(flags & NLB_SLOT_MOVED))
			continue;
		/* It lies ahead, by another clock: that of a container of its own, say. */
		if (age > NLB_SLOT_TIME_MASK / 2)
			then = fresh;
		else if (age >= settle_min)
			then = 0;
		if (then != flags)
			__atomic_store_n(&slots[s].flags, then, __ATOMIC_RELAXED);
		marked += then != 0;
	}
	return marked;
}
