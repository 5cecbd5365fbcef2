/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/pick.h"

#include "gateway/upstream/service.h"
#include "lib/hash.h"

#define THROWS       4   /* at random, before every instance is looked at */
#define SCAN_MAX     64  /* in larger pools the idlest of some, not of all */
#define SCAN_SOME    16  /* ... of so many */
#define RING_POINTS  160 /* of the heaviest instance */
#define RING_MAX     65536
#define RING_FLOOR   8  /* in flight, per worker: a key does not move for less */
#define WARM_MIN     10 /* percent of its share that a new instance gets at once */
#define MEAN_FOR_MS  100
#define NEAR_FOR_MS  100
#define NEAR_OVER    14 /* tenths: so much more than its share a zone can take */
#define NEAR_BUSY    4  /* in flight on an instance before other zones are asked */
#define FORGET_AFTER 10 /* 2^n ms after which a latency counts half */

/* What is asked of an instance; each level is tried when the one before finds none. */
enum level {
	LEVEL_GOOD,
	LEVEL_WARMING, /* those too that should not have their whole share yet */
	LEVEL_PANIC,   /* nothing healthy is left: all rather than none */
	LEVELS,
};

struct choice {
	struct service *s;
	struct pick_group *group;
	const struct pick_query *q;
	uint64_t now_ms;
	enum level level;
};

/* SplitMix64, as random_fast, but of the service: a test sows it. */
static uint64_t throw_dice(struct picker *p)
{
	p->seed += 0x9e3779b97f4a7c15ULL;
	return hash_mix64(p->seed);
}

/* --- tables -------------------------------------------------------------------------------- */

static void group_init(struct pick_group *g, struct endpoint **members, size_t count)
{
	double total = 0;
	size_t *small, small_count = 0, large_count = 0;
	double *share;
	bool is_even = true;

	free(g->alias);
	g->alias = NULL;
	g->members = members;
	g->count = count;
	g->mean_until_ms = 0;
	for (size_t i = 0; i < count; i++) {
		total += members[i]->weight;
		is_even = is_even && members[i]->weight == members[0]->weight;
	}
	if (is_even)
		return;
	g->alias = calloc(count, sizeof(*g->alias));
	share = calloc(count, sizeof(*share));
	small = calloc(count, sizeof(*small)); /* filled from both ends */
	if (g->alias && share && small) {
		for (size_t i = 0; i < count; i++) {
			share[i] = (double)members[i]->weight * (double)count / total;
			if (share[i] < 1)
				small[small_count++] = i;
			else
				small[count - ++large_count] = i;
			g->alias[i] = (struct pick_alias) { UINT32_MAX, (uint32_t)i };
		}
		while (small_count && large_count) {
			size_t less = small[--small_count], more = small[count - large_count];

			g->alias[less].stay = (uint32_t)(share[less] * (double)UINT32_MAX);
			g->alias[less].other = (uint32_t)more;
			share[more] -= 1 - share[less];
			if (share[more] >= 1)
				continue;
			large_count--;
			small[small_count++] = more;
		}
	} else {
		free(g->alias);
		g->alias = NULL;
	}
	free(share);
	free(small);
}

/* Equal in every worker and every gateway: a key finds the same instance everywhere. */
static const struct hash_key ring_key = { { 0x67617465686f7573ULL, 0x65207269e6720031ULL } };

static int by_hash(const void *a, const void *b)
{
	const struct pick_point *x = a, *y = b;

	return (x->hash > y->hash) - (x->hash < y->hash);
}

/*
 * An instance's points depend on nothing but its address, and their number on its weight beside the
 * heaviest: who comes or goes moves the keys of his own points and no others.
 */
static void build_ring(struct service *s)
{
	struct picker *p = &s->picker;
	size_t most = MIN((size_t)RING_POINTS, RING_MAX / MAX(s->count, (size_t)1) + 1);
	uint32_t heaviest = 1;

	free(p->ring);
	p->ring = NULL;
	p->ring_count = 0;
	if (s->balance != GW_RING_HASH)
		return;
	p->ring = calloc(s->count * most + 1, sizeof(*p->ring));
	for (size_t i = 0; i < s->count; i++)
		heaviest = MAX(heaviest, (uint32_t)s->endpoints[i]->weight);
	for (size_t i = 0; p->ring && i < s->count; i++) {
		struct endpoint *e = s->endpoints[i];
		size_t points = MAX(most * e->weight / heaviest, (size_t)1);
		char address[NET_ADDR_LEN];
		uint64_t hash;

		net_format(address, &e->addr);
		hash = hash_sip13(&ring_key, address, strlen(address));
		for (size_t j = 0; j < points; j++)
			p->ring[p->ring_count++] = (struct pick_point) {
				.hash = hash_mix64(hash + j * 0x9e3779b97f4a7c15ULL),
				.endpoint = e,
			};
	}
	if (p->ring)
		qsort(p->ring, p->ring_count, sizeof(*p->ring), by_hash);
}

void picker_rebuild(struct service *s)
{
	struct picker *p = &s->picker;
	size_t near = 0;

	if (p->seed == 0)
		p->seed = random_u64();
	if (p->all.turn == 0)
		p->all.turn = p->near.turn = p->far.turn = random_u64();
	while (near < s->count && s->endpoints[near]->is_near)
		near++;
	p->weight_sum = 0;
	for (size_t i = 0; i < s->count; i++)
		p->weight_sum += s->endpoints[i]->weight;
	for (size_t i = 0; i < s->count; i++)
		s->endpoints[i]->relief = (float)p->weight_sum /
					  (float)(s->count * s->endpoints[i]->weight);
	group_init(&p->all, s->endpoints, s->count);
	group_init(&p->near, s->endpoints, near);
	group_init(&p->far, s->endpoints + near, s->count - near);
	p->near_until_ms = 0;
	build_ring(s);
}

void picker_fini(struct picker *p)
{
	free(p->all.alias);
	free(p->near.alias);
	free(p->far.alias);
	free(p->ring);
	*p = (struct picker) { 0 };
}

/* --- who may be taken ---------------------------------------------------------------------- */

static bool was_tried(const struct endpoint *e, const struct pick_query *q)
{
	for (unsigned i = 0; i < q->tried_count; i++) {
		if (q->tried[i] == e)
			return true;
	}
	return false;
}

/* Percent of its share that an instance gets: new ones, and those that return, begin cold. */
static uint32_t warmth(const struct choice *c, const struct endpoint *e)
{
	uint64_t age_ms;

	if (!e->warm_from_ms || c->now_ms >= c->s->warming_until_ms)
		return 100;
	age_ms = c->now_ms > e->warm_from_ms ? c->now_ms - e->warm_from_ms : 0;
	if (age_ms >= c->s->slow_start_ms)
		return 100;
	return MAX((uint32_t)(100 * age_ms / c->s->slow_start_ms), (uint32_t)WARM_MIN);
}

static bool is_usable(const struct choice *c, const struct endpoint *e)
{
	if (was_tried(e, c->q) || endpoint_is_full(c->s, e))
		return false;
	return c->level == LEVEL_PANIC || !endpoint_is_ejected(e, c->now_ms);
}

/* For policies that draw: a cold instance takes its part of the draws. One that has not answered
 * yet is asked one thing at a time (Netflix's probation). */
static bool is_drawn(const struct choice *c, const struct endpoint *e)
{
	uint32_t percent;

	if (!is_usable(c, e))
		return false;
	if (c->level != LEVEL_GOOD || c->now_ms >= c->s->warming_until_ms)
		return true;
	if (e->is_unproven && e->in_flight)
		return false;
	percent = warmth(c, e);
	return percent == 100 || throw_dice(&c->s->picker) % 100 < percent;
}

/* --- drawing ------------------------------------------------------------------------------- */

/* An index by weight. */
static size_t throw_index(const struct choice *c)
{
	const struct pick_group *g = c->group;
	uint64_t dice = throw_dice(&c->s->picker);
	size_t at = (size_t)((uint64_t)(uint32_t)dice * g->count >> 32);

	if (g->alias && dice >> 32 > g->alias[at].stay)
		at = g->alias[at].other;
	return at;
}

/* An instance at random, by weight; NULL when there is none. */
static struct endpoint *draw(const struct choice *c)
{
	const struct pick_group *g = c->group;
	size_t at = 0;

	/* Throwing again, not stepping to the neighbour, so that the neighbour of an ejected one
	 * does not get its load. */
	for (int i = 0; i < THROWS; i++) {
		at = throw_index(c);
		if (is_drawn(c, g->members[at]))
			return g->members[at];
	}
	for (size_t i = 0; i < g->count; i++) {
		struct endpoint *e = g->members[(at + i) % g->count];

		if (is_drawn(c, e))
			return e;
	}
	return NULL;
}

/*
 * Expected wait: what is in flight there, beside what its weight is made for, times how long each
 * takes. An old latency counts less and less, or whoever was slow once would never be asked again.
 */
static float cost(const struct choice *c, const struct endpoint *e)
{
	uint64_t latency = e->latency_us ? e->latency_us : c->s->latency_us;
	uint64_t age = (c->now_ms - e->latency_at_ms) >> FORGET_AFTER;

	if (e->latency_us)
		latency = age < 32 ? latency >> age : 0;
	return (1 + (float)e->in_flight * e->relief) * (float)(latency ? latency : 1);
}

/* --- the policies -------------------------------------------------------------------------- */

static struct endpoint *pick_random(const struct choice *c)
{
	return draw(c);
}

/* Another one; NULL when there is none. */
static struct endpoint *draw_other(const struct choice *c, const struct endpoint *first)
{
	const struct pick_group *g = c->group;
	size_t from;

	for (int i = 0; i < THROWS && g->count > 2; i++) {
		struct endpoint *e = g->members[throw_index(c)];

		if (e != first && is_drawn(c, e))
			return e;
	}
	from = throw_index(c);
	for (size_t i = 0; i < g->count; i++) {
		struct endpoint *e = g->members[(from + i) % g->count];

		if (e != first && is_drawn(c, e))
			return e;
	}
	return NULL;
}

/* The power of two choices (Mitzenmacher 2001): herds less than the best of all, costs less, and is
 * nearly as good. */
static struct endpoint *pick_p2c(const struct choice *c)
{
	struct endpoint *a = draw(c);
	struct endpoint *b = a ? draw_other(c, a) : NULL;

	return !b || cost(c, a) <= cost(c, b) ? a : b;
}

static struct endpoint *take_turns(const struct choice *c,
				   bool (*fits)(const struct choice *c, const struct endpoint *e))
{
	struct pick_group *g = c->group;

	for (size_t i = 0; i < g->count; i++) {
		struct endpoint *e = g->members[g->turn++ % g->count];

		if (fits(c, e))
			return e;
	}
	return NULL;
}

/* In turn; where weights differ, smoothly: each turn everyone earns his weight, the richest is
 * taken and pays all that was earned. */
static struct endpoint *pick_round_robin(const struct choice *c)
{
	struct endpoint *best = NULL;
	int64_t total = 0;

	if (!c->group->alias && c->now_ms >= c->s->warming_until_ms)
		return take_turns(c, is_usable);
	for (size_t i = 0; i < c->group->count; i++) {
		struct endpoint *e = c->group->members[i];
		int64_t earned = (int64_t)e->weight * warmth(c, e);

		if (!is_usable(c, e))
			continue;
		e->wrr_credit += earned;
		total += earned;
		if (!best || e->wrr_credit > best->wrr_credit)
			best = e;
	}
	if (best)
		best->wrr_credit -= total;
	return best;
}

static struct endpoint *pick_least_request(const struct choice *c)
{
	struct pick_group *g = c->group;
	size_t from = throw_index(c); /* ties go to anyone, not always to the first */
	struct endpoint *best = NULL;

	for (size_t i = 0; i < (g->count <= SCAN_MAX ? g->count : SCAN_SOME); i++) {
		struct endpoint *e =
			g->members[g->count <= SCAN_MAX ? (from + i) % g->count : throw_index(c)];

		if (is_drawn(c, e) && (!best || (uint64_t)e->in_flight * best->weight <
							(uint64_t)best->in_flight * e->weight))
			best = e;
	}
	return best ? best : draw(c);
}

/* Sum of the group's mean latencies, added up now and then. */
static uint64_t mean_sum_us(const struct choice *c)
{
	struct pick_group *g = c->group;

	if (c->now_ms < g->mean_until_ms)
		return g->mean_sum_us;
	g->mean_until_ms = c->now_ms + MEAN_FOR_MS;
	g->mean_sum_us = 0;
	for (size_t i = 0; i < g->count; i++)
		g->mean_sum_us += g->members[i]->mean_us;
	return g->mean_sum_us;
}

/*
 * Ribbon's weights: the sum of all mean latencies less the instance's own. A draw that is taken
 * with the probability 1 - own / sum gives just these, and nothing has to be kept in order.
 * Ribbon's means never fade; these do, so that whoever recovers gets his share back.
 */
static struct endpoint *pick_weighted_response_time(const struct choice *c)
{
	uint64_t sum = mean_sum_us(c);
	struct endpoint *e = NULL;

	for (int i = 0; i < 8; i++) {
		e = draw(c);
		if (!e || sum == 0 || c->group->count == 1 ||
		    throw_dice(&c->s->picker) % sum >= MIN(e->mean_us, sum - 1))
			return e;
	}
	return e;
}

/* Ribbon's AvailabilityFilteringRule: in turn, but for those whose circuit is tripped (ejected) or
 * that have all the requests they may have (endpoint_is_full). */
static struct endpoint *pick_availability(const struct choice *c)
{
	return take_turns(c, is_drawn);
}

/* The first of the ring from the key on that is not over-loaded (Mirrokni et al. 2016: consistent
 * hashing with bounded loads). */
static struct endpoint *pick_ring_hash(const struct choice *c)
{
	const struct picker *p = &c->s->picker;
	uint64_t hash = hash_mix64(c->q->key), total = c->s->in_flight + 1;
	size_t low = 0, high = p->ring_count;
	struct endpoint *first = NULL, *last = NULL;

	if (!p->ring_count)
		return draw(c);
	while (low < high) {
		size_t mid = (low + high) / 2;

		if (p->ring[mid].hash < hash)
			low = mid + 1;
		else
			high = mid;
	}
	for (size_t i = 0; i < p->ring_count; i++) {
		struct endpoint *e = p->ring[(low + i) % p->ring_count].endpoint;
		uint64_t bound;

		if (e == last || !is_usable(c, e))
			continue;
		last = e;
		if (!first)
			first = e;
		bound = total * e->weight * c->s->hash_balance_percent / (100 * p->weight_sum) + 1;
		if (!c->s->hash_balance_percent || e->in_flight < MAX(bound, (uint64_t)RING_FLOOR))
			return e;
	}
	return first;
}

static struct endpoint *(*const policies[GW_BALANCES])(const struct choice *c) = {
	[GW_P2C] = pick_p2c,
	[GW_ROUND_ROBIN] = pick_round_robin,
	[GW_LEAST_REQUEST] = pick_least_request,
	[GW_WEIGHTED_RESPONSE_TIME] = pick_weighted_response_time,
	[GW_AVAILABILITY] = pick_availability,
	[GW_RING_HASH] = pick_ring_hash,
	[GW_RANDOM] = pick_random,
};

static struct endpoint *pick(struct choice *c, struct pick_group *group)
{
	c->group = group;
	return policies[c->s->balance](c);
}

/* --- zones --------------------------------------------------------------------------------- */

/* All of the own zone's instances healthy: it takes everything, and still when two in seven are
 * not; with fewer it keeps as much as the rest can carry, and others get what remains. */
static uint32_t near_share(const struct choice *c)
{
	struct picker *p = &c->s->picker;
	uint64_t good = 0, all = 0;

	if (c->now_ms < p->near_until_ms)
		return p->near_share;
	for (size_t i = 0; i < p->near.count; i++) {
		const struct endpoint *e = p->near.members[i];

		all += e->weight;
		good += endpoint_is_ejected(e, c->now_ms) ? 0 : e->weight;
	}
	p->near_until_ms = c->now_ms + NEAR_FOR_MS;
	p->near_share = (uint32_t)MIN((NEAR_OVER * good << 16) / (10 * all), 1UL << 16);
	return p->near_share;
}

/* Of the own zone, unless others must help: by health, and when an instance there is twice as busy
 * as one elsewhere. */
static struct endpoint *pick_by_zone(struct choice *c)
{
	struct picker *p = &c->s->picker;
	struct endpoint *e, *other;

	if (!c->s->prefer_zone || p->near.count == 0 || p->far.count == 0 ||
	    c->s->balance == GW_RING_HASH || c->level == LEVEL_PANIC)
		return pick(c, &p->all);
	if (throw_dice(p) >> 48 >= near_share(c)) {
		e = pick(c, &p->far);
		return e ? e : pick(c, &p->near);
	}
	e = pick(c, &p->near);
	if (!e)
		return pick(c, &p->far);
	if (e->in_flight < NEAR_BUSY)
		return e;
	c->group = &p->far;
	other = draw(c);
	return other && 2 * cost(c, other) < cost(c, e) ? other : e;
}

struct endpoint *picker_choose(struct service *s, const struct pick_query *q)
{
	struct choice c = { .s = s, .q = q, .now_ms = loop_now_ms(s->worker->loop) };
	struct endpoint *e = NULL;

	while (s->count && !e && c.level < LEVELS) {
		e = pick_by_zone(&c);
		c.level++;
	}
	return e;
}
