/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/limits.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define WAYS           8
#define MAX_PER_SECOND 1000000ULL
#define MAX_WINDOW_S   (31ULL * 86400)
#define MAX_BURST      1000000000ULL

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

struct limits_table {
	struct set *sets;
	size_t mask;
	_Atomic uint64_t evicted_live;
	_Atomic uint64_t keys;
};

/* --- rules --------------------------------------------------------------------------------- */

static const char *parse_part(struct limits_part *out, struct str text)
{
	static const struct {
		struct str word;
		enum limits_part_kind kind;
		bool has_name;
	} kinds[] = {
		{ STR("global"), LIMITS_GLOBAL, false },
		{ STR("user"), LIMITS_USER, false },
		{ STR("ip"), LIMITS_IP, false },
		{ STR("endpoint"), LIMITS_ENDPOINT, false },
		{ STR("header:"), LIMITS_HEADER, true },
		{ STR("claim:"), LIMITS_CLAIM, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct str name;

		if (kinds[i].has_name ? !str_starts(text, kinds[i].word)
				      : !str_eq(text, kinds[i].word))
			continue;
		name = str_sub(text, kinds[i].word.len, text.len);
		if (kinds[i].kind == LIMITS_HEADER && !http_is_token(name))
			return "must name a header behind \"header:\"";
		if (kinds[i].kind == LIMITS_CLAIM && name.len == 0)
			return "must name a claim behind \"claim:\"";
		*out = (struct limits_part) { .kind = kinds[i].kind, .name = name };
		return NULL;
	}
	return "must be \"user\", \"ip\", \"endpoint\", \"global\", \"header:NAME\", "
	       "\"claim:NAME\", or "
	       "several joined by \"+\"";
}

const char *limits_parse_key(struct limits_key_spec *out, struct str text)
{
	struct limits_key_spec spec = { .part_count = 0 };
	struct str part;

	while (str_split(&text, '+', &part)) {
		const char *complaint;

		if (spec.part_count == LIMITS_MAX_PARTS)
			return "must have at most 4 parts";
		complaint = parse_part(&spec.parts[spec.part_count], str_trim(part));
		if (complaint)
			return complaint;
		spec.part_count++;
	}
	*out = spec;
	return NULL;
}

const char *limits_rule_init(struct limits_rule *out, struct str name,
			     const struct limits_key_spec *key, uint64_t limit, uint64_t window_s,
			     uint64_t burst)
{
	char shown[65] = "";

	if (name.len)
		memcpy(shown, name.p, MIN(name.len, sizeof(shown) - 1));
	if (burst == 0)
		burst = limit;
	if (limit == 0 || window_s == 0 || window_s > MAX_WINDOW_S)
		return "must have a limit of at least 1 in a window of 1 second to 31 days";
	/* Faster than that, a token's time in nanoseconds is rounded by more than 0.1 %. */
	if (limit / window_s > MAX_PER_SECOND || limit > MAX_PER_SECOND * window_s)
		return "must not exceed 1,000,000 requests per second";
	if (burst > MAX_BURST)
		return "must have a burst of at most 1,000,000,000";
	*out = (struct limits_rule) {
		.name = name,
		.key = *key,
		.limit = limit,
		.burst = burst,
		.window_s = window_s,
		.id = hash_str(name),
		.token_ns = window_s * NSEC_PER_SEC / limit,
	};
	if (__builtin_mul_overflow(out->token_ns, burst, &out->burst_ns) ||
	    out->burst_ns > INT64_MAX / 4)
		return "must have a burst that refills within a century";
	for (size_t i = 0; i < key->part_count; i++) {
		if (key->parts[i].kind == LIMITS_USER || key->parts[i].kind == LIMITS_CLAIM)
			out->needs_identity = true;
	}
	snprintf(out->policy, sizeof(out->policy), "\"%.64s\";q=%llu;w=%llu", shown,
		 (unsigned long long)limit, (unsigned long long)window_s);
	return NULL;
}

/* --- keys ---------------------------------------------------------------------------------- */

static uint64_t mix_in(uint64_t h, enum limits_part_kind kind, struct str bytes)
{
	return hash_mix64((h ^ hash_str(bytes)) + ((uint64_t)kind + 1) * 0x9e3779b97f4a7c15ULL);
}

static struct str address_bytes(const struct net_addr *a)
{
	if (a->sa.sa_family == AF_INET)
		return str_of((const char *)&a->in.sin_addr, 4);
	/* A customer has at least a /64: limits by single address would be no limits. */
	if (a->sa.sa_family == AF_INET6)
		return str_of((const char *)&a->in6.sin6_addr, 8);
	return STR("unix");
}

/* What the part is for this request; false when the request has none. */
static bool part_value(const struct limits_part *part, const struct limits_subject *s,
		       struct str *out)
{
	const struct http_field *field;
	const struct claim *claim;

	switch (part->kind) {
	case LIMITS_GLOBAL:
		*out = STR("");
		return true;
	case LIMITS_ENDPOINT:
		*out = s->endpoint;
		return true;
	case LIMITS_HEADER:
		field = http_find_name(s->fields, s->field_count, part->name);
		if (!field || field->value.len == 0)
			return false;
		*out = field->value;
		return true;
	case LIMITS_USER:
	case LIMITS_CLAIM:
		if (!s->identity)
			return false;
		claim = part->kind == LIMITS_USER ? s->identity->user
						  : identity_claim(s->identity, part->name);
		if (!claim)
			return false;
		*out = claim->json; /* the user 1 is not the user "1" */
		return true;
	case LIMITS_IP:
	default:
		return false;
	}
}

static uint64_t key_of(const struct limits_rule *rule, const struct limits_subject *s)
{
	uint64_t h = rule->id;

	for (size_t i = 0; i < rule->key.part_count; i++) {
		const struct limits_part *part = &rule->key.parts[i];
		struct str value;

		if (part_value(part, s, &value))
			h = mix_in(h, part->kind, value);
		else
			h = mix_in(h, LIMITS_IP, address_bytes(s->client));
	}
	return h ? h : 1;
}

/* --- table --------------------------------------------------------------------------------- */

struct limits_table *limits_table_new(size_t keys)
{
	struct limits_table *t = calloc(1, sizeof(*t));
	size_t sets = 1;

	while (sets * WAYS < keys && sets < SIZE_MAX / sizeof(struct set) / 4)
		sets *= 2;
	if (!t)
		return NULL;
	t->mask = sets - 1;
	t->sets = aligned_alloc(64, sets * sizeof(struct set));
	if (!t->sets) {
		free(t);
		return NULL;
	}
	memset(t->sets, 0, sets * sizeof(struct set));
	return t;
}

void limits_table_free(struct limits_table **t)
{
	if (!*t)
		return;
	free((*t)->sets);
	free(*t);
	*t = NULL;
}

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

struct slot {
	_Atomic uint64_t *tag, *full_at_ns;
	uint64_t key;
};

static bool set_find(struct set *set, uint64_t key, struct slot *out)
{
	for (size_t i = 0; i < WAYS; i++) {
		if (load(&set->tags[i]) == key) {
			*out = (struct slot) { &set->tags[i], &set->full_at_ns[i], key };
			return true;
		}
	}
	return false;
}

/*
 * Makes room: the first unused or idle way, else the one that will be full soonest, which forgets
 * the least. Fails when another thread was quicker; then look again, it may have put our key there.
 */
static bool set_claim(struct limits_table *t, struct set *set, uint64_t key, uint64_t now_ns,
		      struct slot *out)
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
	*out = (struct slot) { &set->tags[way], &set->full_at_ns[way], key };
	return true;
}

static struct slot slot_get(struct limits_table *t, uint64_t key, uint64_t now_ns)
{
	struct set *set = &t->sets[(key >> 24) & t->mask];
	struct slot slot;

	while (!set_find(set, key, &slot) && !set_claim(t, set, key, now_ns, &slot))
		;
	return slot;
}

/* Nanoseconds of debt once one more request was taken. */
static uint64_t debt_after(const struct limits_rule *rule, uint64_t full_at_ns, uint64_t now_ns)
{
	return (full_at_ns > now_ns ? full_at_ns - now_ns : 0) + rule->token_ns;
}

static void slot_give_back(const struct slot *slot, const struct limits_rule *rule)
{
	atomic_fetch_sub_explicit(slot->full_at_ns, rule->token_ns, memory_order_relaxed);
}

/*
 * Takes one request if it is there; *debt_ns is the debt with it, taken or not. -1 when the key
 * lost its place in between, so that another key was charged: that is undone.
 */
static int slot_take(const struct slot *slot, const struct limits_rule *rule, uint64_t now_ns,
		     uint64_t *debt_ns)
{
	uint64_t full_at_ns = load(slot->full_at_ns);

	do {
		*debt_ns = debt_after(rule, full_at_ns, now_ns);
		if (*debt_ns > rule->burst_ns)
			return 0;
	} while (!atomic_compare_exchange_weak(slot->full_at_ns, &full_at_ns, now_ns + *debt_ns));
	if (load(slot->tag) == slot->key)
		return 1;
	slot_give_back(slot, rule);
	return -1;
}

/* --- verdicts ------------------------------------------------------------------------------ */

static struct limits_verdict refusal(const struct limits_rule *rule, uint64_t debt_ns)
{
	return (struct limits_verdict) {
		.rule = rule,
		.retry_after_ns = debt_ns - rule->burst_ns,
		.reset_ns = debt_ns - rule->token_ns,
	};
}

static struct limits_verdict grant(const struct limits_rule *rule, uint64_t debt_ns)
{
	return (struct limits_verdict) {
		.is_allowed = true,
		.rule = rule,
		.remaining = (rule->burst_ns - debt_ns) / rule->token_ns,
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

static void verdict_add(struct limits_verdict *sum, const struct limits_verdict *one)
{
	*sum = *limits_stricter(sum, one);
}

/* Whether all rules would let it pass, taking nothing; the strictest refusal otherwise. */
static bool all_would_pass(const struct slot *slots, const struct limits_rule *const *rules,
			   size_t count, uint64_t now_ns, struct limits_verdict *out)
{
	bool would_pass = true;

	for (size_t i = 0; i < count; i++) {
		uint64_t debt_ns = debt_after(rules[i], load(slots[i].full_at_ns), now_ns);
		struct limits_verdict refused;

		if (debt_ns <= rules[i]->burst_ns)
			continue;
		refused = refusal(rules[i], debt_ns);
		verdict_add(out, &refused);
		would_pass = false;
	}
	return would_pass;
}

void limits_check(struct limits_table *t, const struct limits_rule *const *rules, size_t count,
		  const struct limits_subject *subject, uint64_t now_ns, struct limits_verdict *out)
{
	struct slot slots[LIMITS_MAX_RULES];
	struct limits_verdict sum = { .is_allowed = true };

	count = MIN(count, (size_t)LIMITS_MAX_RULES);
	for (size_t i = 0; i < count; i++)
		slots[i] = slot_get(t, key_of(rules[i], subject), now_ns);
	if (count > 1 && !all_would_pass(slots, rules, count, now_ns, &sum)) {
		*out = sum;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct limits_verdict one;
		uint64_t debt_ns;
		int taken;

		while ((taken = slot_take(&slots[i], rules[i], now_ns, &debt_ns)) < 0)
			slots[i] = slot_get(t, slots[i].key, now_ns);
		if (taken) {
			one = grant(rules[i], debt_ns);
			verdict_add(&sum, &one);
			continue;
		}
		/* Another thread took the last one in between: the earlier rules get theirs back.
		 */
		*out = refusal(rules[i], debt_ns);
		while (i-- > 0)
			slot_give_back(&slots[i], rules[i]);
		return;
	}
	*out = sum;
}

static uint64_t ceil_s(uint64_t ns)
{
	return (ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC;
}

void limits_write_ratelimit(const struct limits_verdict *v, struct buf *out)
{
	buf_putc(out, '"');
	buf_add(out, str_sub(v->rule->name, 0, MIN(v->rule->name.len, (size_t)64)));
	buf_addz(out, "\";r=");
	buf_u64(out, v->remaining);
	buf_addz(out, ";t=");
	buf_u64(out, ceil_s(v->reset_ns));
}

uint64_t limits_retry_after_s(const struct limits_verdict *v)
{
	return MAX(ceil_s(v->retry_after_ns), (uint64_t)1);
}

void limits_table_stats(const struct limits_table *t, struct limits_stats *out)
{
	*out = (struct limits_stats) {
		.evicted_live = load(&t->evicted_live),
		.keys = load(&t->keys),
	};
}
