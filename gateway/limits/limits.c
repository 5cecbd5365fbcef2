/* SPDX-License-Identifier: Apache-2.0 */
/* The table of counters, and what it says about a request. */
#include "gateway/limits/limits.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "gateway/limits/limit_store.h"
#include "gateway/limits/limits_private.h"
#include "lib/cleanup.h"
#include "lib/clock.h"

#define WAYS 8

/*
 * A set holds the keys whose hash leads to it: tags in one cache line, their words in the next. A
 * word is the time at which the key's bucket will be full again (GCRA's theoretical arrival time).
 * A word in the past says the same as no entry at all, so an idle key can be replaced by just
 * writing another tag.
 */
struct set {
	_Atomic uint64_t tags[WAYS]; /* 0: never used */
	_Atomic uint64_t full_at_ns[WAYS];
};

/* What became of a rule's requests. Rules come and go with reloads, their names stay. */
#define COUNTERS 4096 /* more than twice the rules that a configuration may have */
struct counter {
	_Atomic uint64_t id; /* of the rule; 0: free */
	_Atomic uint64_t refused, shadowed;
};

struct limits_table {
	struct set *sets;
	size_t mask;
	struct limit_store *store;   /* NULL: not shared */
	struct limits_lease *leases; /* WAYS for each set; NULL: not shared */
	_Atomic uint64_t evicted_live;
	_Atomic uint64_t keys;
	struct counter counters[COUNTERS];
};

/* --- table --------------------------------------------------------------------------------- */

static void *zeroed(size_t bytes)
{
	void *p = aligned_alloc(64, bytes);

	if (p)
		memset(p, 0, bytes);
	return p;
}

struct limits_table *limits_table_new_shared(size_t keys, struct limit_store *store)
{
	struct limits_table *t = calloc(1, sizeof(*t));
	size_t sets = 1;

	while (sets * WAYS < keys && sets < SIZE_MAX / sizeof(struct set) / 8)
		sets *= 2;
	if (!t)
		return NULL;
	t->mask = sets - 1;
	t->store = store;
	t->sets = zeroed(sets * sizeof(struct set));
	t->leases = store ? zeroed(sets * WAYS * sizeof(struct limits_lease)) : NULL;
	if (!t->sets || (store && !t->leases))
		limits_table_free(&t);
	return t;
}

struct limits_table *limits_table_new(size_t keys)
{
	return limits_table_new_shared(keys, NULL);
}

void limits_table_free(struct limits_table **t)
{
	if (!*t)
		return;
	free((*t)->sets);
	free((*t)->leases);
	free(*t);
	*t = NULL;
}

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static void store(_Atomic uint64_t *p, uint64_t value)
{
	atomic_store_explicit(p, value, memory_order_relaxed);
}

static struct limits_slot slot_at(const struct limits_table *t, struct set *set, size_t way,
				  uint64_t key)
{
	return (struct limits_slot) {
		.tag = &set->tags[way],
		.full_at_ns = &set->full_at_ns[way],
		.key = key,
		.lease = t->leases ? &t->leases[(size_t)(set - t->sets) * WAYS + way] : NULL,
	};
}

static bool set_find(const struct limits_table *t, struct set *set, uint64_t key,
		     struct limits_slot *out)
{
	for (size_t i = 0; i < WAYS; i++) {
		if (load(&set->tags[i]) == key) {
			*out = slot_at(t, set, i, key);
			return true;
		}
	}
	return false;
}

static void lease_reset(struct limits_lease *lease)
{
	if (!lease)
		return;
	atomic_store(&lease->leased, 0);
	atomic_store(&lease->owed, 0);
	atomic_store(&lease->seen, 0);
	atomic_store(&lease->rivals, 0);
	atomic_store(&lease->quiet, 0);
	store(&lease->tat_us, 0);
	atomic_store(&lease->was_alone, false);
	atomic_store(&lease->state, LEASE_IDLE);
}

/*
 * Makes room: the first unused or idle way, else the one that will be full soonest, which forgets
 * the least. Fails when another thread was quicker; then look again, it may have put our key there.
 */
static bool set_claim(struct limits_table *t, struct set *set, uint64_t key, uint64_t now_ns,
		      struct limits_slot *out)
{
	size_t way = 0;
	uint64_t soonest = UINT64_MAX, tag;

	for (size_t i = 0; i < WAYS && soonest > now_ns; i++) {
		uint64_t full_at_ns = load(&set->tags[i]) ? load(&set->full_at_ns[i]) : 0;

		if (full_at_ns < soonest) {
			soonest = full_at_ns;
			way = i;
		}
	}
	tag = load(&set->tags[way]);
	if (tag == key)
		return false;
	/* The new key must not inherit the debt of the old one. */
	if (soonest > now_ns && !atomic_compare_exchange_strong(&set->full_at_ns[way], &soonest, 0))
		return false;
	if (!atomic_compare_exchange_strong(&set->tags[way], &tag, key))
		return false;
	if (tag == 0)
		atomic_fetch_add_explicit(&t->keys, 1, memory_order_relaxed);
	else if (soonest > now_ns)
		atomic_fetch_add_explicit(&t->evicted_live, 1, memory_order_relaxed);
	*out = slot_at(t, set, way, key);
	lease_reset(out->lease);
	return true;
}

static struct limits_slot slot_get(struct limits_table *t, uint64_t key, uint64_t now_ns)
{
	struct set *set = &t->sets[(key >> 24) & t->mask];
	struct limits_slot slot;

	while (!set_find(t, set, key, &slot) && !set_claim(t, set, key, now_ns, &slot))
		;
	return slot;
}

static uint64_t debt_at(uint64_t full_at_ns, uint64_t now_ns)
{
	return full_at_ns > now_ns ? full_at_ns - now_ns : 0;
}

/* --- terms ------------------------------------------------------------------------------------
 *
 * What a request costs and what it may cost, which depends on how much we know of other gateways.
 */
struct terms {
	uint64_t cost_ns; /* added to the debt */
	uint64_t unit_ns; /* what one request is in what clients are told */
	bool is_alone, is_open, is_closed;
};

static struct terms terms_of(const struct limits_table *t, const struct limits_slot *slot,
			     const struct limits_rule *rule, uint64_t now_ns)
{
	struct terms terms = { .cost_ns = rule->token_ns, .unit_ns = rule->token_ns };

	if (!slot->lease)
		return terms;
	if (limit_store_is_common(t->store)) {
		/* Nobody else admits this key, as far as is known: all the room is ours. */
		if (limits_has_rivals(slot->lease, limits_ms(now_ns)))
			terms.cost_ns *= LIMITS_CAUTION;
		return terms;
	}
	terms.is_alone = true;
	switch (limit_store_on_failure(t->store)) {
	case LIMIT_LOCAL:
		/* So much dearer, our share of the limit is what it buys. */
		terms.cost_ns *= limit_store_gateways(t->store);
		terms.unit_ns = terms.cost_ns;
		break;
	case LIMIT_OPEN:
		terms.is_open = true;
		break;
	case LIMIT_CLOSED:
		terms.is_closed = true;
		break;
	}
	return terms;
}

/* A full bucket lets one pass, whatever that costs. */
static bool fits(const struct limits_rule *rule, uint64_t debt_ns, uint64_t cost_ns)
{
	return debt_ns + MIN(cost_ns, rule->burst_ns) <= rule->burst_ns;
}

static bool take_leased(struct limits_lease *lease)
{
	int32_t leased = lease ? atomic_load_explicit(&lease->leased, memory_order_relaxed) : 0;

	while (leased > 0) {
		/* On failure `leased` is what it is now. */
		if (atomic_compare_exchange_weak(&lease->leased, &leased, leased - 1))
			return true;
	}
	return false;
}

enum taken {
	TAKEN_NOT,
	TAKEN_LEASED,
	TAKEN_CREDIT,
	TAKEN_FREE,  /* counted nowhere */
	TAKEN_WRONG, /* the key lost its place meanwhile */
};

void limits_give_back(const struct limits_slot *slot, uint64_t cost_ns)
{
	uint64_t full_at_ns = load(slot->full_at_ns);

	/* Another key may have begun at 0 there, or Redis told better: never to before the clock's
	 * beginning, which would be the end of time. */
	while (!atomic_compare_exchange_weak(slot->full_at_ns, &full_at_ns,
					     full_at_ns - MIN(full_at_ns, cost_ns)))
		;
	if (slot->lease)
		atomic_fetch_sub(&slot->lease->owed, 1);
}

static void slot_give_back(const struct limits_slot *slot, const struct terms *terms,
			   enum taken taken)
{
	if (taken == TAKEN_LEASED)
		atomic_fetch_add(&slot->lease->leased, 1);
	else if (taken == TAKEN_CREDIT)
		limits_give_back(slot, terms->cost_ns);
}

/*
 * Takes one request if it is there; *debt_ns is the debt without it. TAKEN_WRONG when another key
 * was charged: that is undone.
 */
static enum taken slot_take(const struct limits_slot *slot, const struct limits_rule *rule,
			    const struct terms *terms, uint64_t now_ns, uint64_t *debt_ns)
{
	uint64_t full_at_ns;

	if (take_leased(slot->lease)) {
		*debt_ns = debt_at(load(slot->full_at_ns), now_ns);
		return TAKEN_LEASED;
	}
	full_at_ns = load(slot->full_at_ns);
	do {
		*debt_ns = debt_at(full_at_ns, now_ns);
		if (terms->is_closed || !fits(rule, *debt_ns, terms->cost_ns))
			return terms->is_open ? TAKEN_FREE : TAKEN_NOT;
	} while (!atomic_compare_exchange_weak(slot->full_at_ns, &full_at_ns,
					       now_ns + *debt_ns + terms->cost_ns));
	if (slot->lease) {
		atomic_fetch_add(&slot->lease->owed, 1);
		if (terms->is_alone)
			atomic_store_explicit(&slot->lease->was_alone, true, memory_order_relaxed);
	}
	if (load(slot->tag) == slot->key)
		return TAKEN_CREDIT;
	slot_give_back(slot, terms, TAKEN_CREDIT);
	return TAKEN_WRONG;
}

/* --- verdicts ------------------------------------------------------------------------------ */

static struct limits_verdict refusal(const struct limits_rule *rule, const struct terms *terms,
				     uint64_t debt_ns)
{
	uint64_t need_ns = debt_ns + MIN(terms->unit_ns, rule->burst_ns);
	uint64_t wait_ns = need_ns > rule->burst_ns ? need_ns - rule->burst_ns : 0;

	/* Nobody knows when Redis is back. */
	if (terms->is_closed)
		wait_ns = MAX(wait_ns, NSEC_PER_SEC);
	return (struct limits_verdict) {
		.rule = rule,
		.retry_after_ns = wait_ns,
		.reset_ns = debt_ns,
	};
}

/* debt_ns: with it. */
static struct limits_verdict grant(const struct limits_rule *rule, const struct terms *terms,
				   const struct limits_slot *slot, uint64_t debt_ns)
{
	uint64_t room_ns = debt_ns < rule->burst_ns ? rule->burst_ns - debt_ns : 0;
	int32_t leased = slot->lease ? atomic_load(&slot->lease->leased) : 0;
	uint64_t ahead = leased > 0 ? (uint64_t)leased : 0;

	return (struct limits_verdict) {
		.is_allowed = true,
		.rule = rule,
		.remaining = room_ns / terms->unit_ns + ahead,
		.reset_ns = debt_ns,
	};
}

const struct limits_verdict *limits_stricter(const struct limits_verdict *a,
					     const struct limits_verdict *b)
{
	if (!a->rule || !b->rule)
		return a->rule ? a : b;
	if (a->is_allowed != b->is_allowed)
		return a->is_allowed ? b : a;
	if (!a->is_allowed)
		return a->retry_after_ns >= b->retry_after_ns ? a : b;
	/* The smaller share of its burst. Bursts are at most 1e9, so the products fit. */
	return a->remaining * b->rule->burst <= b->remaining * a->rule->burst ? a : b;
}

/* `shadowed` stays what it was. */
static void verdict_add(struct limits_verdict *sum, const struct limits_verdict *one)
{
	const struct limits_rule *shadowed = sum->shadowed;

	*sum = *limits_stricter(sum, one);
	sum->shadowed = shadowed;
}

/* --- the check --------------------------------------------------------------------------------
 */

/* One request and its rules. */
struct check {
	struct limits_table *table;
	const struct limits_rule *const *rules;
	size_t count;
	const struct limits_subject *subject;
	uint64_t now_ns;
	struct limits_slot slots[LIMITS_MAX_RULES];
	struct terms terms[LIMITS_MAX_RULES];
	enum taken taken[LIMITS_MAX_RULES];
};

static struct counter *counter_of(const struct limits_table *t, uint64_t id, bool may_add)
{
	/* A pointer to what the table owns: counting changes nothing else of it. */
	struct counter *all = (struct counter *)(uintptr_t)t->counters;

	for (size_t i = 0; i < COUNTERS; i++) {
		struct counter *c = &all[(id + i) % COUNTERS];
		uint64_t found = load(&c->id);

		if (found == 0 && (!may_add || atomic_compare_exchange_strong(&c->id, &found, id)))
			return may_add ? c : NULL;
		if (found == id)
			return c;
	}
	return NULL;
}

/* The lease of this rule's key is to be looked at: somebody wanted something of it. */
static void touch(const struct check *k, size_t i)
{
	if (!k->slots[i].lease)
		return;
	atomic_fetch_add(&k->slots[i].lease->seen, 1);
	limit_store_touch(k->table->store, &k->slots[i], k->rules[i], k->subject, k->now_ns);
}

static bool would_pass(const struct check *k, size_t i, uint64_t *debt_ns)
{
	const struct limits_slot *slot = &k->slots[i];

	*debt_ns = debt_at(load(slot->full_at_ns), k->now_ns);
	if (k->rules[i]->is_shadow || k->terms[i].is_open)
		return true;
	if (slot->lease && atomic_load_explicit(&slot->lease->leased, memory_order_relaxed) > 0)
		return true;
	return !k->terms[i].is_closed && fits(k->rules[i], *debt_ns, k->terms[i].cost_ns);
}

/* Whether all rules would let it pass, taking nothing; the strictest refusal otherwise. */
static bool all_would_pass(const struct check *k, struct limits_verdict *out)
{
	bool all_would = true;

	for (size_t i = 0; i < k->count; i++) {
		struct limits_verdict refused;
		uint64_t debt_ns;

		if (would_pass(k, i, &debt_ns))
			continue;
		refused = refusal(k->rules[i], &k->terms[i], debt_ns);
		verdict_add(out, &refused);
		touch(k, i);
		all_would = false;
	}
	return all_would;
}

static enum taken take(struct check *k, size_t i, uint64_t *debt_ns)
{
	do {
		k->taken[i] = slot_take(&k->slots[i], k->rules[i], &k->terms[i], k->now_ns,
					debt_ns);
		if (k->taken[i] == TAKEN_WRONG)
			k->slots[i] = slot_get(k->table, k->slots[i].key, k->now_ns);
	} while (k->taken[i] == TAKEN_WRONG);
	return k->taken[i];
}

/* When a rule refuses, nothing is taken, and *sum is the refusal. */
static void take_all(struct check *k, struct limits_verdict *sum)
{
	for (size_t i = 0; i < k->count; i++) {
		const struct limits_rule *rule = k->rules[i];
		struct limits_verdict one;
		uint64_t debt_ns;

		if (take(k, i, &debt_ns) == TAKEN_NOT) {
			if (rule->is_shadow) {
				sum->shadowed = sum->shadowed ? sum->shadowed : rule;
				continue;
			}
			*sum = refusal(rule, &k->terms[i], debt_ns);
			touch(k, i);
			/* Perhaps another thread took the last one in between: the earlier rules
			 * get theirs back. */
			while (i-- > 0)
				slot_give_back(&k->slots[i], &k->terms[i], k->taken[i]);
			return;
		}
		if (rule->is_shadow)
			continue;
		if (k->taken[i] == TAKEN_CREDIT)
			debt_ns += k->terms[i].cost_ns;
		one = grant(rule, &k->terms[i], &k->slots[i], debt_ns);
		verdict_add(sum, &one);
	}
	for (size_t i = 0; i < k->count; i++)
		touch(k, i);
}

void limits_check(struct limits_table *t, const struct limits_rule *const *rules, size_t count,
		  const struct limits_subject *subject, uint64_t now_ns, struct limits_verdict *out)
{
	struct check k; /* large, and mostly unused: not cleared */
	struct limits_verdict sum = { .is_allowed = true };

	k.table = t;
	k.rules = rules;
	k.count = MIN(count, (size_t)LIMITS_MAX_RULES);
	k.subject = subject;
	k.now_ns = now_ns;
	for (size_t i = 0; i < k.count; i++) {
		k.slots[i] = slot_get(t, limits_key(rules[i], subject), now_ns);
		k.terms[i] = terms_of(t, &k.slots[i], rules[i], now_ns);
	}
	if (k.count < 2 || all_would_pass(&k, &sum))
		take_all(&k, &sum);
	*out = sum;
}

void limits_count(struct limits_table *t, const struct limits_verdict *v)
{
	struct counter *c;

	if (!v->is_allowed) {
		c = counter_of(t, v->rule->id, true);
		if (c)
			atomic_fetch_add_explicit(&c->refused, 1, memory_order_relaxed);
	}
	if (v->shadowed) {
		c = counter_of(t, v->shadowed->id, true);
		if (c)
			atomic_fetch_add_explicit(&c->shadowed, 1, memory_order_relaxed);
	}
}

void limits_table_counts(const struct limits_table *t, const struct limits_rule *rule,
			 struct limits_counts *out)
{
	const struct counter *c = counter_of(t, rule->id, false);

	*out = (struct limits_counts) {
		.refused = c ? load(&c->refused) : 0,
		.shadowed = c ? load(&c->shadowed) : 0,
	};
}

void limits_table_stats(const struct limits_table *t, struct limits_stats *out)
{
	*out = (struct limits_stats) {
		.evicted_live = load(&t->evicted_live),
		.keys = load(&t->keys),
	};
}
