/* SPDX-License-Identifier: Apache-2.0 */
/* A key in hand: when to ask Redis about it, and for how much. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/limits/limit_script.h"
#include "gateway/limits/limit_store_impl.h"
#include "lib/cleanup.h"
#include "lib/clock.h"

#define PACE_MS       20  /* between two calls for one key that is far from its limit */
#define NEAR_MS       2   /* and for one that is near */
#define HOLD_MS       200 /* until a lease that nobody uses is given back */
#define LEAD_MIN_MS   2   /* how early the next request is asked for, beside the round trip */
#define LEAD_MAX_MS   500
#define QUIET_MS      2000 /* the next request may pass later than this: not kept in hand until then */
#define RIVALS_MIN_MS 1000
#define RIVALS_MAX_MS 60000

static void share_plan(struct share *share);
static void share_ask(struct share *share, bool is_farewell);

static bool share_is_current(const struct share *share)
{
	return atomic_load(share->slot.tag) == share->slot.key;
}

void limit_share_free(struct share *share)
{
	struct limit_store *s = share->store;

	loop_timer_stop(s->loop, &share->timer);
	list_remove(&share->queue_node);
	hmap_remove(&s->shares, &share->node);
	atomic_store(&s->is_full, s->shares.count >= MAX_SHARES);
	metrics_set(&s->counters.keys, s->shares.count);
	free(share);
	if (s->is_stopping && s->shares.count == 0)
		loop_stop(s->loop);
}

/* Out of hand: workers tell when it is wanted again. */
static void share_release(struct share *share)
{
	if (share_is_current(share))
		atomic_store(&share->slot.lease->state, LEASE_IDLE);
	limit_share_free(share);
}

static void share_wait(struct share *share, enum share_state state, uint64_t delay_ms)
{
	share->state = state;
	loop_timer_start(share->store->loop, &share->timer, delay_ms);
}

static int32_t share_leased(const struct share *share)
{
	return atomic_load(&share->slot.lease->leased);
}

/* What of the bucket is used up, by our estimate. */
static uint64_t share_debt_ns(const struct share *share)
{
	uint64_t full_at_ns = atomic_load(share->slot.full_at_ns);
	uint64_t now_ns = loop_now_ns(share->store->loop);

	return full_at_ns > now_ns ? full_at_ns - now_ns : 0;
}

static bool share_has_rivals(const struct share *share)
{
	return limits_has_rivals(share->slot.lease, limits_ms(loop_now_ns(share->store->loop)));
}

/* Nothing left to use, neither of a lease nor of the bucket. */
static bool share_is_empty(const struct share *share)
{
	return share_leased(share) <= 0 && share_debt_ns(share) + share->token_ns > share->burst_ns;
}

static uint64_t lead_ms(const struct limit_store *s)
{
	uint64_t ms = LEAD_MIN_MS + metrics_get(&s->counters.round_trip_us) * 3 / 2000;

	return MIN(ms, (uint64_t)LEAD_MAX_MS);
}

/* A small burst is spent before a long pause ends. */
static uint64_t pace_ms(const struct share *share)
{
	uint64_t tenth = share->burst_ns / share->token_ns / 10;

	if (share_debt_ns(share) > share->burst_ns / 2)
		return NEAR_MS;
	return MIN(MAX(tenth, (uint64_t)NEAR_MS), (uint64_t)PACE_MS);
}

/* Nobody wants anything at the moment. */
static void share_rest(struct share *share)
{
	struct limits_lease *lease = share->slot.lease;
	uint8_t idle = LEASE_IDLE;

	atomic_store(&lease->state, LEASE_IDLE);
	/* A request that came meanwhile has told nobody. */
	if (atomic_load(&lease->seen) > 0 &&
	    atomic_compare_exchange_strong(&lease->state, &idle, LEASE_BUSY)) {
		share_plan(share);
		return;
	}
	if (share_leased(share) > 0)
		share_wait(share, SHARE_HOLDING, HOLD_MS);
	else
		limit_share_free(share);
}

/* Sets when to ask next. */
static void share_plan(struct share *share)
{
	struct limit_store *s = share->store;
	struct limits_lease *lease = share->slot.lease;
	uint64_t now_ns = loop_now_ns(s->loop), at_ns = now_ns;

	if (!share_is_current(share)) {
		limit_share_free(share);
		return;
	}
	if (s->is_stopping && share_leased(share) > 0) {
		share_ask(share, true);
		return;
	}
	if (!limit_store_is_common(s) || s->is_stopping) {
		share_release(share);
		return;
	}
	if (share_is_empty(share) && !share_has_rivals(share) && atomic_load(&lease->owed) == 0) {
		/* Our own estimate is all there is to know. */
		atomic_store(&lease->seen, 0);
		share_rest(share);
		return;
	}
	if (share->asked_ns)
		at_ns = MAX(at_ns, share->asked_ns + pace_ms(share) * NSEC_PER_MSEC);
	/* Shortly before the next request may pass; not all the time before. */
	if (share_is_empty(share) && atomic_load(&lease->owed) == 0) {
		uint64_t wait_ns = share_debt_ns(share) + share->token_ns - share->burst_ns;
		uint64_t lead_ns = lead_ms(s) * NSEC_PER_MSEC;

		at_ns = MAX(at_ns, now_ns + (wait_ns > lead_ns ? wait_ns - lead_ns : 0));
		if (at_ns - now_ns > QUIET_MS * NSEC_PER_MSEC) {
			/* Whoever comes after that tells. */
			atomic_store(&lease->quiet, limits_ms(at_ns));
			atomic_store(&lease->seen, 0);
			share_rest(share);
			return;
		}
	}
	if (at_ns <= now_ns)
		share_ask(share, false);
	else
		share_wait(share, SHARE_TIMED,
			   (at_ns - now_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

/* How many requests to ask for ahead: none while there is plenty for everybody. */
static int64_t share_want(const struct share *share, uint32_t demand)
{
	struct limit_store *s = share->store;
	uint64_t debt_ns = share_debt_ns(share), now_ns = loop_now_ns(s->loop);
	uint64_t room = debt_ns < share->burst_ns ? (share->burst_ns - debt_ns) / share->token_ns
						  : 0;
	uint64_t elapsed_ms = share->asked_ns ? (now_ns - share->asked_ns) / NSEC_PER_MSEC : 0;
	uint64_t next = (uint64_t)demand * (PACE_MS + lead_ms(s)) * 3 / 2 /
				MAX(elapsed_ms, share->asked_ns ? 1ULL : PACE_MS) +
			1;
	int64_t leased = MAX(share_leased(share), 0);

	if (!share_has_rivals(share) || demand == 0 || room >= MAX(4 * next, 8ULL))
		return 0;
	next = MIN(next, share->burst_ns / share->token_ns);
	return MAX((int64_t)next - leased, 0L);
}

/*
 * What was admitted without asking. Over an outage only what is still to be paid off: the rest was
 * each gateway's own share.
 */
static int64_t share_take_owed(const struct share *share)
{
	struct limit_store *s = share->store;
	struct limits_lease *lease = share->slot.lease;
	int64_t owed = atomic_exchange(&lease->owed, 0);

	if (atomic_exchange(&lease->was_alone, false)) {
		uint64_t cost_ns = share->token_ns * limit_store_gateways(s);
		uint64_t debt = (share_debt_ns(share) + cost_ns - 1) / cost_ns;

		/* A long outage counts beyond what fits, and then backwards. */
		if (owed < 0 || (uint64_t)owed > debt)
			owed = (int64_t)MIN(debt, (uint64_t)INT32_MAX);
	}
	return owed;
}

static void on_answer(const struct redis_answer *answer, void *arg);

/* Microseconds, exactly. */
static void write_us(char out[static 32], uint64_t ns)
{
	snprintf(out, 32, "%llu.%03u", (unsigned long long)(ns / 1000), (unsigned)(ns % 1000));
}

static int share_send(struct share *share, int64_t settle, int64_t want)
{
	struct limit_store *s = share->store;
	uint64_t ahead_us = share_is_empty(share) ? lead_ms(s) * 1000 : 0;
	char text[7][32];
	struct str args[8] = { str_from(share->name) };

	write_us(text[0], share->token_ns);
	write_us(text[1], share->burst_ns);
	snprintf(text[2], sizeof(text[2]), "%lld", (long long)settle);
	snprintf(text[3], sizeof(text[3]), "%lld", (long long)want);
	snprintf(text[4], sizeof(text[4]), "%llu", (unsigned long long)ahead_us);
	snprintf(text[5], sizeof(text[5]), "%u", limit_store_gateways(s));
	snprintf(text[6], sizeof(text[6]), "%llu",
		 (unsigned long long)atomic_load(&share->slot.lease->tat_us));
	for (size_t i = 0; i < ARRAY_SIZE(text); i++)
		args[i + 1] = str_from(text[i]);
	return redis_eval(s->redis, &s->script, 1, args, ARRAY_SIZE(args), on_answer, share);
}

static void share_ask(struct share *share, bool is_farewell)
{
	struct limit_store *s = share->store;
	struct limits_lease *lease = share->slot.lease;
	uint32_t demand = atomic_exchange(&lease->seen, 0);
	int64_t settle = share_take_owed(share), want = 0;
	int32_t unused = 0;
	int rc;

	if (is_farewell)
		unused = MAX(atomic_exchange(&lease->leased, 0), 0);
	else
		want = share_want(share, demand);
	settle -= unused;
	if (settle == 0 && want == 0) {
		/* The lease is large enough for now: look again while it is in use. */
		share->asked_ns = loop_now_ns(s->loop);
		if (demand && share_leased(share) > 0)
			share_plan(share);
		else
			share_rest(share);
		return;
	}
	rc = share_send(share, settle, want);
	if (rc < 0) {
		atomic_fetch_add(&lease->owed, (int32_t)(settle + unused));
		atomic_fetch_add(&lease->seen, demand);
		if (rc == -ENOBUFS && !is_farewell) {
			share->state = SHARE_QUEUED;
			list_add_tail(&s->queue, &share->queue_node);
		} else {
			share_release(share);
		}
		return;
	}
	share->state = SHARE_ASKED;
	share->asked_ns = loop_now_ns(s->loop);
	share->demand = demand;
	share->want = want;
	metrics_inc(&s->counters.asks, 1);
	metrics_inc(&s->counters.settled, (uint64_t)MAX(settle + unused, 0L));
	metrics_inc(&s->counters.returned, (uint64_t)unused);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool read_answer(const struct redisReply *reply, int64_t out[LIMIT_SCRIPT_ITEMS])
{
	for (size_t i = 0; i < LIMIT_SCRIPT_ITEMS; i++) {
		if (!redis_int(redis_item(reply, i), &out[i]) || out[i] > INT64_MAX / 4000 ||
		    out[i] < INT64_MIN / 4000)
			return false;
	}
	return out[LIMIT_SCRIPT_GRANTED] >= 0 && out[LIMIT_SCRIPT_GRANTED] <= INT32_MAX;
}

/* Takes over what Redis says of the common clock. */
static void share_learn(struct share *share, const int64_t said[LIMIT_SCRIPT_ITEMS])
{
	struct limits_lease *lease = share->slot.lease;
	uint64_t now_ns = loop_now_ns(share->store->loop);
	uint32_t now_ms = limits_ms(now_ns);
	int32_t owed = atomic_load(&lease->owed);
	uint64_t since = owed > 0 ? (uint64_t)owed : 0, caution = 1;

	if (said[LIMIT_SCRIPT_MOVED]) {
		uint64_t ms = 4 * share->token_ns / NSEC_PER_MSEC;
		uint32_t until = now_ms + (uint32_t)MIN(MAX(ms, (uint64_t)RIVALS_MIN_MS),
							(uint64_t)RIVALS_MAX_MS);

		atomic_store(&lease->rivals, until ? until : 1);
	}
	if (limits_has_rivals(lease, now_ms))
		caution = LIMITS_CAUTION;
	/* What was admitted while the call was under way is not in the answer. */
	atomic_store(share->slot.full_at_ns,
		     now_ns + (uint64_t)MAX(said[LIMIT_SCRIPT_DEBT], 0L) * 1000 +
			     since * share->token_ns * caution);
	atomic_store(&lease->tat_us, (uint64_t)MAX(said[LIMIT_SCRIPT_CLOCK], 0L));
	atomic_store(&lease->quiet, 0);
}

static void share_next(struct share *share, bool is_hungry)
{
	const struct limits_lease *lease = share->slot.lease;
	bool is_wanted = atomic_load(&lease->seen) > 0 || is_hungry;

	/* Lingers a little: who came once comes again. */
	if (is_wanted ||
	    loop_now_ns(share->store->loop) - share->asked_ns < pace_ms(share) * NSEC_PER_MSEC)
		share_plan(share);
	else
		share_rest(share);
}

static void on_answer(const struct redis_answer *answer, void *arg)
{
	struct share *share = arg;
	struct limit_store *s = share->store;
	int64_t said[LIMIT_SCRIPT_ITEMS];
	uint64_t took_us;

	/* More than was asked for would be let through without end. */
	if (answer->error < 0 || !read_answer(answer->reply, said) ||
	    said[LIMIT_SCRIPT_GRANTED] > share->want) {
		metrics_inc(&s->counters.errors, 1);
		if (answer->reply)
			limit_store_refused(s, answer->error < 0
						       ? answer->problem
						       : "the script's answer makes no sense");
		share_release(share);
		return;
	}
	took_us = (loop_now_ns(s->loop) - share->asked_ns) / 1000;
	metrics_set(&s->counters.round_trip_us,
		    (metrics_get(&s->counters.round_trip_us) * 7 + took_us) / 8);
	metrics_inc(&s->counters.answers, 1);
	loop_defer(s->loop, &s->run_queue);
	metrics_inc(&s->counters.granted, (uint64_t)said[LIMIT_SCRIPT_GRANTED]);
	if (!share_is_current(share)) {
		limit_share_free(share);
		return;
	}
	share_learn(share, said);
	if (said[LIMIT_SCRIPT_GRANTED] > 0 && said[LIMIT_SCRIPT_VALID] > 0) {
		share->coming = (uint32_t)said[LIMIT_SCRIPT_GRANTED];
		share_wait(share, SHARE_COMING, (uint64_t)said[LIMIT_SCRIPT_VALID] / 1000 + 1);
		return;
	}
	atomic_fetch_add(&share->slot.lease->leased, (int32_t)said[LIMIT_SCRIPT_GRANTED]);
	share_next(share, share->want > 0 && said[LIMIT_SCRIPT_GRANTED] == 0 && share->demand > 0);
}

/* --- coming and going --------------------------------------------------------------------------
 */

static void share_on_timer(struct loop_timer *timer)
{
	struct share *share = container_of(timer, struct share, timer);
	uint8_t idle = LEASE_IDLE;

	if (!share_is_current(share)) {
		limit_share_free(share);
		return;
	}
	switch (share->state) {
	case SHARE_TIMED:
		if (limit_store_is_common(share->store))
			share_ask(share, false);
		else
			share_release(share);
		break;
	case SHARE_COMING:
		atomic_fetch_add(&share->slot.lease->leased, (int32_t)share->coming);
		share->coming = 0;
		share_next(share, false);
		break;
	case SHARE_HOLDING:
		/* If not, a worker has told just now. */
		if (atomic_compare_exchange_strong(&share->slot.lease->state, &idle, LEASE_BUSY))
			share_ask(share, true);
		break;
	case SHARE_ASKED:
	case SHARE_QUEUED:
		break;
	}
}

static struct share *share_find(const struct limit_store *s, const struct limits_slot *slot)
{
	for (struct hmap_node *n = hmap_first(&s->shares, slot->key); n; n = hmap_next(n)) {
		struct share *share = container_of(n, struct share, node);

		if (share->slot.key == slot->key && share->slot.tag == slot->tag)
			return share;
	}
	return NULL;
}

static struct share *share_new(struct limit_store *s, const struct post *post)
{
	size_t room = strlen(s->prefix) + strlen(post->rule) + 1 + 32 + 1;
	struct share *share = s->shares.count < MAX_SHARES ? malloc(sizeof(*share) + room) : NULL;

	if (!share)
		return NULL;
	*share = (struct share) {
		.store = s,
		.slot = post->slot,
		.timer.on_fire = share_on_timer,
		.token_ns = post->token_ns,
		.burst_ns = post->burst_ns,
	};
	snprintf(share->name, room, "%s%s:%016llx%016llx", s->prefix, post->rule,
		 (unsigned long long)post->name[0], (unsigned long long)post->name[1]);
	list_init(&share->queue_node);
	if (hmap_insert(&s->shares, &share->node, post->slot.key) < 0) {
		free(share);
		return NULL;
	}
	atomic_store(&s->is_full, s->shares.count >= MAX_SHARES);
	metrics_set(&s->counters.keys, s->shares.count);
	return share;
}

void limit_share_take(struct limit_store *s, const struct post *post)
{
	struct share *share = share_find(s, &post->slot);

	if (!share)
		share = share_new(s, post);
	if (!share) {
		atomic_fetch_add(&s->dropped, 1);
		atomic_store(&post->slot.lease->state, LEASE_IDLE);
	} else if (share->state == SHARE_HOLDING || share->asked_ns == 0) {
		loop_timer_stop(s->loop, &share->timer);
		share->token_ns = post->token_ns; /* as of the latest reload */
		share->burst_ns = post->burst_ns;
		share_plan(share);
	}
}

void limit_share_run_queue(struct limit_store *s)
{
	while (!list_empty(&s->queue) && (!redis_is_up(s->redis) || !redis_is_full(s->redis))) {
		struct share *share = container_of(s->queue.next, struct share, queue_node);

		list_remove(&share->queue_node);
		if (!share_is_current(share))
			limit_share_free(share);
		else if (!limit_store_is_common(s))
			share_release(share);
		else
			share_ask(share, false);
	}
}

void limit_share_farewell(struct share *share)
{
	if (share->state == SHARE_ASKED)
		return;
	atomic_fetch_add(&share->slot.lease->leased, (int32_t)share->coming);
	share->coming = 0;
	share_ask(share, true);
}
