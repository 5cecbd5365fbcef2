/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/limits/limit_script.h"
#include "gateway/limits/limit_store_impl.h"
#include "lib/cleanup.h"
#include "lib/log.h"

#define RETRY_MS    1000 /* after Redis refused the script */
#define FAREWELL_MS 500
#define MAX_POSTS   (1U << 14) /* keys told by workers and not yet taken in hand */

/* --- what workers call ------------------------------------------------------------------------ */

bool limit_store_is_common(const struct limit_store *s)
{
	return atomic_load_explicit(&s->is_common, memory_order_relaxed);
}

enum limit_failure limit_store_on_failure(const struct limit_store *s)
{
	return s->on_failure;
}

uint32_t limit_store_gateways(const struct limit_store *s)
{
	return atomic_load_explicit(&s->gateways, memory_order_relaxed);
}

void limit_store_set_gateways(struct limit_store *s, uint32_t count)
{
	atomic_store(&s->gateways, MAX(count, 1U));
}

void limit_store_touch(struct limit_store *s, const struct limits_slot *slot,
		       const struct limits_rule *rule, const struct limits_subject *subject,
		       uint64_t now_ns)
{
	uint8_t idle = LEASE_IDLE;
	struct post *post, *next;
	size_t len;

	if (!limit_store_is_common(s))
		return;
	/* Nothing to tell, and either nobody to share with, or nothing to share yet. */
	if (atomic_load_explicit(&slot->lease->owed, memory_order_relaxed) == 0 &&
	    (!limits_has_rivals(slot->lease, limits_ms(now_ns)) ||
	     limits_is_before(&slot->lease->quiet, limits_ms(now_ns))))
		return;
	if (atomic_load_explicit(&s->is_full, memory_order_relaxed) ||
	    !atomic_compare_exchange_strong(&slot->lease->state, &idle, LEASE_BUSY))
		return;
	post = atomic_fetch_add(&s->post_count, 1) < MAX_POSTS ? malloc(sizeof(*post)) : NULL;
	if (!post) {
		atomic_fetch_sub(&s->post_count, 1);
		atomic_fetch_add(&s->dropped, 1);
		atomic_store(&slot->lease->state, LEASE_IDLE);
		return;
	}
	len = MIN(rule->name.len, (size_t)RULE_NAME_MAX);
	post->slot = *slot;
	post->token_ns = rule->token_ns;
	post->burst_ns = rule->burst_ns;
	memcpy(post->rule, rule->name.p, len);
	post->rule[len] = '\0';
	limits_shared_key(post->name, rule, subject);
	/* Without a lock: who holds one may be interrupted just then, and no worker waits. */
	next = atomic_load(&s->posts);
	do {
		post->next = next;
	} while (!atomic_compare_exchange_weak(&s->posts, &next, post));
	if (!next)
		loop_post(s->loop, &s->take_posts);
}

/* --- together or alone -------------------------------------------------------------------------
 */

static void store_set_common(struct limit_store *s, bool is_common, const char *why)
{
	static const char *const then[] = {
		[LIMIT_LOCAL] = "each gateway counts its share for itself",
		[LIMIT_OPEN] = "limits are not enforced",
		[LIMIT_CLOSED] = "limited requests are refused",
	};
	bool was_common = atomic_exchange(&s->is_common, is_common);
	char addr[NET_ADDR_LEN];

	if (was_common && !is_common)
		metrics_inc(&s->counters.failures, 1);
	if (is_common ? !was_common : !s->has_complained) {
		net_format(addr, &s->options.url.addr);
		if (is_common)
			log_info("rate limits: Redis at %s: counting in common", addr);
		else
			log_warn("rate limits: Redis at %s: %s; until it is back, %s", addr, why,
				 then[s->on_failure]);
	}
	s->has_complained = !is_common;
}

static void on_state(struct redis *r, bool is_up, const char *detail, void *arg)
{
	struct limit_store *s = arg;

	(void)r;
	if (s->is_stopping)
		return;
	loop_timer_stop(s->loop, &s->timer);
	store_set_common(s, is_up, detail);
	limit_share_run_queue(s);
}

void limit_store_refused(struct limit_store *s, const char *problem)
{
	if (s->is_stopping)
		return;
	store_set_common(s, false, problem);
	loop_timer_start(s->loop, &s->timer, RETRY_MS);
}

/* --- the thread's events ---------------------------------------------------------------------- */

static void on_take_posts(struct loop_task *task)
{
	struct limit_store *s = container_of(task, struct limit_store, take_posts);
	struct post *all = atomic_exchange(&s->posts, NULL), *oldest = NULL;

	while (all) {
		struct post *next = all->next;

		all->next = oldest;
		oldest = all;
		all = next;
	}
	while (oldest) {
		struct post *next = oldest->next;

		atomic_fetch_sub(&s->post_count, 1);
		limit_share_take(s, oldest);
		free(oldest);
		oldest = next;
	}
}

static void on_run_queue(struct loop_task *task)
{
	limit_share_run_queue(container_of(task, struct limit_store, run_queue));
}

static void on_store_timer(struct loop_timer *timer)
{
	struct limit_store *s = container_of(timer, struct limit_store, timer);

	if (s->is_stopping)
		loop_stop(s->loop);
	else if (redis_is_up(s->redis))
		store_set_common(s, true, "");
}

/* Farewell: what was granted and not used goes back, what is owed is told. */
static void on_stop(struct loop_task *task)
{
	struct limit_store *s = container_of(task, struct limit_store, stop);

	on_take_posts(&s->take_posts);
	s->is_stopping = true;
	loop_timer_start(s->loop, &s->timer, FAREWELL_MS);
	hmap_for_each (node, &s->shares) {
		limit_share_farewell(container_of(node, struct share, node));
	}
	if (s->shares.count == 0)
		loop_stop(s->loop);
}

/* --- life ------------------------------------------------------------------------------------- */

static void *store_run(void *arg)
{
	struct limit_store *s = arg;

	pthread_setname_np(pthread_self(), "limits");
	loop_run(s->loop);
	return NULL;
}

struct limit_store *limit_store_new(const struct limit_store_options *options, struct err *err)
{
	struct limit_store *s = calloc(1, sizeof(*s));
	struct redis_options redis = {
		.url = options->url,
		.connect_timeout_ms = options->timeout_ms,
		.command_timeout_ms = options->timeout_ms,
		.backoff_max_ms = 2000,
		.max_pending = MAX_CALLS,
		.max_out = 16U << 20,
		.max_reply = 1U << 20,
		.on_state = on_state,
		.arg = s,
	};

	if (!s) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	s->options = *options;
	s->on_failure = options->on_failure;
	snprintf(s->prefix, sizeof(s->prefix), "%s", options->prefix);
	snprintf(s->connection, sizeof(s->connection), "%s", options->name ? options->name : "");
	limit_store_set_gateways(s, options->gateways);
	s->take_posts.run = on_take_posts;
	s->stop.run = on_stop;
	s->run_queue.run = on_run_queue;
	list_init(&s->queue);
	s->timer.on_fire = on_store_timer;
	redis_script_init(&s->script, limit_script_text);
	s->loop = loop_new();
	redis.name = s->connection;
	s->redis = s->loop ? redis_new(s->loop, &redis) : NULL;
	if (!s->redis) {
		err_set(err, -ENOMEM, "out of memory or descriptors");
		limit_store_free(&s);
	}
	return s;
}

int limit_store_start(struct limit_store *s)
{
	sigset_t all, before;
	int rc;

	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&s->thread, NULL, store_run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	s->has_thread = rc == 0;
	return -rc;
}

void limit_store_free(struct limit_store **sp)
{
	struct limit_store *s = *sp;

	if (!s)
		return;
	*sp = NULL;
	if (s->has_thread) {
		loop_post(s->loop, &s->stop);
		pthread_join(s->thread, NULL);
	}
	s->is_stopping = true;
	redis_free(&s->redis); /* ends what is asked */
	hmap_for_each (node, &s->shares)
		limit_share_free(container_of(node, struct share, node));
	hmap_fini(&s->shares);
	loop_free(s->loop);
	for (struct post *post = atomic_load(&s->posts), *next; post; post = next) {
		next = post->next;
		free(post);
	}
	free(s);
}

void limit_store_get_stats(const struct limit_store *s, struct limit_store_stats *out)
{
	const struct counters *c = &s->counters;

	*out = (struct limit_store_stats) {
		.is_up = metrics_get(&redis_stats(s->redis)->is_up) != 0,
		.is_common = limit_store_is_common(s),
		.gateways = limit_store_gateways(s),
		.failures = metrics_get(&c->failures),
		.asks = metrics_get(&c->asks),
		.answers = metrics_get(&c->answers),
		.errors = metrics_get(&c->errors),
		.granted = metrics_get(&c->granted),
		.settled = metrics_get(&c->settled),
		.returned = metrics_get(&c->returned),
		.dropped = atomic_load(&s->dropped),
		.keys = metrics_get(&c->keys),
		.round_trip_us = metrics_get(&c->round_trip_us),
	};
}
