/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/service.h"

#include "gateway/upstream/h2conn.h"
#include "gateway/upstream/upconn.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "lib/tls_client.h"

#define LATENCY_WINDOW_MS 10000 /* over which an old latency fades */
#define TELL_EVERY_MS     60000 /* of one instance, by each worker */
#define RETRY_EARNED      200   /* thousandths per request: 20 % */
#define RETRY_COST        1000UL
#define RETRY_MAX         (100 * RETRY_COST)
#define RETRY_START       (10 * RETRY_COST)

#define LOOK_OUT_MS 5 /* for places that other workers give back */

static void serve_pending(struct loop_task *task);
static void on_look_out(struct loop_timer *timer);

struct service *service_new(struct worker *w, struct str name)
{
	struct service *s = calloc(1, sizeof(*s) + name.len);

	if (!s)
		return NULL;
	s->refs = 1;
	s->worker = w;
	memcpy(s + 1, name.p, name.len);
	s->name = str_of((char *)(s + 1), name.len);
	s->retry_budget = RETRY_START;
	s->ejection = (struct gw_ejection) { 5, 1000, 30000, 50 };
	list_init(&s->waiters);
	list_init(&s->pending);
	s->serve.run = serve_pending;
	s->look_out.on_fire = on_look_out;
	return s;
}

struct service *service_get(struct service *s)
{
	s->refs++;
	return s;
}

void service_put(struct service *s)
{
	if (--s->refs)
		return;
	service_set_members(s, NULL, 0);
	loop_cancel(&s->serve);
	loop_timer_stop(s->worker->loop, &s->look_out);
	picker_fini(&s->picker);
	circuit_put(&s->circuit);
	tls_client_free(&s->tls);
	free(s->endpoints);
	free(s);
}

/* What was made under another policy, connections and sessions, must not be used under this one. */
static void change_tls(struct service *s, struct tls_client *tls)
{
	if (s->tls && tls_client_eq(s->tls, tls))
		return;
	if (!s->tls && !tls)
		return;
	tls_client_free(&s->tls);
	s->tls = tls ? tls_client_get(tls) : NULL;
	for (size_t i = 0; i < s->count; i++) {
		upconn_close_idle(s->endpoints[i]);
		h2conn_drain(s->endpoints[i]);
		SSL_SESSION_free(s->endpoints[i]->session);
		s->endpoints[i]->session = NULL;
	}
}

void service_configure(struct service *s, const struct gw_service *conf, struct tls_client *tls)
{
	bool has_ring = s->balance == GW_RING_HASH;

	change_tls(s, tls);
	s->balance = conf->balance;
	if (has_ring != (s->balance == GW_RING_HASH))
		picker_rebuild(s);
	s->prefer_zone = conf->prefer_zone;
	s->slow_start_ms = conf->slow_start_ms;
	s->hash_balance_percent = conf->hash_balance_percent;
	s->max_concurrent = conf->max_concurrent;
	s->max_pending = conf->max_pending;
	s->max_concurrent_per_instance = conf->max_concurrent_per_instance;
	s->max_connections = conf->max_connections;
	s->ejection = conf->ejection;
	s->breaker = (struct circuit_rules) { 0 };
	if (conf->circuit_breaker)
		s->breaker = *conf->circuit_breaker;
	s->idle_timeout_ms = conf->idle_timeout_ms;
	s->max_idle = conf->max_idle_connections;
	s->ping_after_ms = conf->ping_after_ms;
	s->ping_timeout_ms = conf->ping_timeout_ms;
}

void service_use_circuit(struct service *s, struct circuit *circuit)
{
	/* Whoever is counted there must leave there. */
	if (s->circuit == circuit || s->counted)
		return;
	circuit_put(&s->circuit);
	s->circuit = circuit ? circuit_get(circuit) : NULL;
}

struct endpoint *endpoint_get(struct endpoint *e)
{
	e->refs++;
	return e;
}

void endpoint_put(struct endpoint *e)
{
	if (--e->refs)
		return;
	SSL_SESSION_free(e->session);
	circuit_put(&e->circuit);
	free(e);
}

static struct endpoint *endpoint_new(const struct service *s, const struct service_member *m)
{
	struct endpoint *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->refs = 1;
	e->addr = m->addr;
	e->circuit = m->circuit ? circuit_get(m->circuit) : NULL;
	e->is_unproven = s->is_known;
	list_init(&e->idle);
	list_init(&e->h2conns);
	return e;
}

static struct endpoint *find_endpoint(const struct service *s, const struct net_addr *addr)
{
	for (size_t i = 0; i < s->count; i++) {
		if (net_addr_eq(&s->endpoints[i]->addr, addr))
			return s->endpoints[i];
	}
	return NULL;
}

/* Gets more and more from then on, but not in a pool where everyone is as new. */
static void begin_cold(struct service *s, struct endpoint *e, uint64_t from_ms)
{
	if (!s->is_known || s->slow_start_ms == 0)
		return;
	e->warm_from_ms = from_ms;
	s->warming_until_ms = MAX(s->warming_until_ms, from_ms + s->slow_start_ms);
}

/* The instance of the new list, with what is known of it from the old one. */
static struct endpoint *take_member(struct service *s, const struct service_member *m)
{
	struct endpoint *e = find_endpoint(s, &m->addr);
	bool is_new = !e;

	e = e ? endpoint_get(e) : endpoint_new(s, m);
	if (!e)
		return NULL;
	if (is_new || (e->is_failing && !m->is_failing))
		begin_cold(s, e, loop_now_ms(s->worker->loop));
	e->weight = m->weight ? m->weight : 1;
	e->is_failing = m->is_failing;
	e->is_near = m->is_near;
	return e;
}

static void replace_endpoints(struct service *s, struct endpoint **fresh, size_t count)
{
	for (size_t i = 0; i < s->count; i++)
		s->endpoints[i]->is_gone = true;
	for (size_t i = 0; i < count; i++)
		fresh[i]->is_gone = false;
	for (size_t i = 0; i < s->count; i++) {
		if (s->endpoints[i]->is_gone) {
			upconn_close_idle(s->endpoints[i]);
			h2conn_drain(s->endpoints[i]);
		}
		endpoint_put(s->endpoints[i]);
	}
	free(s->endpoints);
	s->endpoints = fresh;
	s->count = count;
	picker_rebuild(s);
}

void service_set_members(struct service *s, const struct service_member *members, size_t count)
{
	struct endpoint **fresh = calloc(count ? count : 1, sizeof(struct endpoint *));
	size_t n = 0;

	if (!fresh)
		return; /* the old list stays: better than none */
	for (unsigned is_far = 0; is_far < 2; is_far++) {
		for (size_t i = 0; i < count; i++) {
			if (members[i].is_near == is_far)
				continue;
			fresh[n] = take_member(s, &members[i]);
			n += fresh[n] != NULL;
		}
	}
	replace_endpoints(s, fresh, n);
	s->is_known = true;
	while (!list_empty(&s->waiters)) {
		struct service_waiter *waiter = container_of(s->waiters.next, struct service_waiter,
							     node);

		list_remove(&waiter->node);
		waiter->on_known(waiter);
	}
}

/* --- choosing ------------------------------------------------------------------------------ */

bool endpoint_is_ejected(const struct endpoint *e, uint64_t now_ms)
{
	return e->is_failing || e->ejected_until_ms > now_ms;
}

bool endpoint_is_full(const struct service *s, const struct endpoint *e)
{
	return s->max_concurrent_per_instance && e->circuit &&
	       circuit_is_full(e->circuit, s->max_concurrent_per_instance);
}

/* Takes a place at the instance. Other workers may have taken the last one just now. */
static bool endpoint_enter(const struct service *s, struct endpoint *e)
{
	if (!s->max_concurrent_per_instance || !e->circuit)
		return true;
	if (!circuit_enter(e->circuit, s->max_concurrent_per_instance))
		return false;
	e->counted++;
	return true;
}

struct endpoint *service_choose(struct service *s, const struct pick_query *q)
{
	struct endpoint *e;

	do {
		e = picker_choose(s, q);
		if (!e)
			return NULL;
	} while (!endpoint_enter(s, e)); /* full now: not chosen again */
	e->in_flight++;
	s->in_flight++;
	metrics_inc(&e->requests, 1);
	return endpoint_get(e);
}

enum service_verdict service_enter(struct service *s, bool has_waited, uint64_t *retry_ms)
{
	enum circuit_pass pass = CIRCUIT_PASS;
	bool is_first = has_waited || list_empty(&s->pending);

	if (!s->circuit || !(s->max_concurrent || s->breaker.failure_percent))
		return SERVICE_GO;
	if (s->breaker.failure_percent)
		pass = circuit_ask(s->circuit, &s->breaker, loop_now_ms(s->worker->loop), retry_ms);
	if (pass == CIRCUIT_REFUSE)
		return SERVICE_OPEN;
	if (s->max_concurrent && (!is_first || !circuit_enter(s->circuit, s->max_concurrent))) {
		if (pass == CIRCUIT_PROBE)
			circuit_end_probe(s->circuit);
		return SERVICE_BUSY;
	}
	s->counted += s->max_concurrent != 0;
	return pass == CIRCUIT_PROBE ? SERVICE_PROBE : SERVICE_GO;
}

void service_end_probe(struct service *s)
{
	if (s->circuit)
		circuit_end_probe(s->circuit);
}

void service_leave(struct service *s, bool was_probe)
{
	if (was_probe)
		service_end_probe(s);
	/* After a reload that took the limit away, or brought one, it is those that count. */
	if (s->counted == 0)
		return;
	s->counted--;
	circuit_leave(s->circuit);
	/* Not at once: this is amid the end of a request. */
	if (!list_empty(&s->pending))
		loop_defer(s->worker->loop, &s->serve);
}

/* As many as there are places; who gets none puts himself back in front. */
static void serve_pending(struct loop_task *task)
{
	struct service *s = container_of(task, struct service, serve);

	service_get(s); /* the last one's end may be its own */
	while (!list_empty(&s->pending) && !(s->circuit && s->max_concurrent &&
					     circuit_is_full(s->circuit, s->max_concurrent))) {
		struct service_waiter *waiter = container_of(s->pending.next, struct service_waiter,
							     node);

		list_remove(&waiter->node);
		waiter->on_known(waiter);
	}
	if (!list_empty(&s->pending))
		loop_timer_start(s->worker->loop, &s->look_out, LOOK_OUT_MS);
	service_put(s);
}

static void on_look_out(struct loop_timer *timer)
{
	serve_pending(&container_of(timer, struct service, look_out)->serve);
}

bool service_wait(struct service *s, struct service_waiter *waiter)
{
	/* One that had no luck keeps its place in the line. */
	if (waiter->circuit) {
		list_add_head(&s->pending, &waiter->node);
		return true;
	}
	if (!s->circuit || !s->max_pending || !circuit_wait(s->circuit, s->max_pending))
		return false;
	waiter->circuit = circuit_get(s->circuit);
	list_add_tail(&s->pending, &waiter->node);
	loop_timer_start(s->worker->loop, &s->look_out, LOOK_OUT_MS);
	return true;
}

void service_end_wait(struct service_waiter *waiter)
{
	list_remove(&waiter->node);
	if (waiter->circuit)
		circuit_end_wait(waiter->circuit);
	circuit_put(&waiter->circuit);
}

/* --- learning ------------------------------------------------------------------------------ */

/* A slow answer counts at once, a fast one only over time: an instance that stalls is avoided
 * quickly. */
static void learn_latency(struct service *s, struct endpoint *e, uint64_t us)
{
	uint64_t now = loop_now_ms(s->worker->loop);
	uint64_t elapsed = MIN(now - e->latency_at_ms + 1, (uint64_t)LATENCY_WINDOW_MS);

	us = MAX(us, (uint64_t)1);
	if (us >= e->latency_us)
		e->latency_us = us;
	else
		e->latency_us -= (e->latency_us - us) * elapsed / LATENCY_WINDOW_MS;
	e->latency_at_ms = now;
	e->mean_us = e->mean_us ? (e->mean_us * 15 + us) / 16 : us;
	s->latency_us = s->latency_us ? (s->latency_us * 15 + us) / 16 : us;
}

void endpoint_tell(const struct service *s, struct endpoint *e, const char *trouble)
{
	uint64_t now = loop_now_ms(s->worker->loop);
	char address[NET_ADDR_LEN];

	if (e->told_ms && now - e->told_ms < TELL_EVERY_MS)
		return;
	e->told_ms = now;
	log_warn("service=%.*s instance=%s: %s", STR_ARG(s->name), net_format(address, &e->addr),
		 trouble);
}

/* Never more than a part (half) of the pool at a time: the others would drown. */
static bool may_eject(const struct service *s, uint64_t now_ms)
{
	size_t ejected = 1;

	for (size_t i = 0; i < s->count; i++)
		ejected += endpoint_is_ejected(s->endpoints[i], now_ms);
	return ejected * 100 <= s->count * s->ejection.max_percent;
}

static void learn_failure(struct service *s, struct endpoint *e)
{
	uint64_t now = loop_now_ms(s->worker->loop);
	uint64_t pause = (uint64_t)s->ejection.base_ms << MIN(e->ejections, 16U);

	metrics_inc(&e->errors, 1);
	if (++e->failures < s->ejection.failures || s->ejection.failures == 0 ||
	    endpoint_is_ejected(e, now) || !may_eject(s, now))
		return;
	e->ejected_until_ms = now + MIN(pause, (uint64_t)s->ejection.max_ms);
	e->ejections++;
	/* After the pause one failure more is enough. */
	e->failures = s->ejection.failures - 1;
	begin_cold(s, e, e->ejected_until_ms);
}

void endpoint_finish(struct service *s, struct endpoint *e, enum endpoint_outcome outcome,
		     uint64_t latency_us)
{
	e->in_flight--;
	s->in_flight--;
	if (e->counted) {
		e->counted--;
		circuit_leave(e->circuit);
	}
	if (outcome != ENDPOINT_ABANDONED && s->breaker.failure_percent && s->circuit &&
	    circuit_record(s->circuit, &s->breaker, outcome != ENDPOINT_OK,
			   loop_now_ms(s->worker->loop)))
		log_warn("service=%.*s: too much of it fails: left alone for %u ms",
			 STR_ARG(s->name), s->breaker.open_ms);
	switch (outcome) {
	case ENDPOINT_OK:
		e->failures = e->ejections = 0;
		e->is_unproven = false;
		learn_latency(s, e, latency_us);
		break;
	case ENDPOINT_ERROR:
	case ENDPOINT_FAILED:
		learn_failure(s, e);
		break;
	case ENDPOINT_ABANDONED:
		break;
	}
	endpoint_put(e);
}

void service_earn_retry(struct service *s)
{
	s->retry_budget = MIN(s->retry_budget + RETRY_EARNED, (uint64_t)RETRY_MAX);
}

bool service_take_retry(struct service *s)
{
	if (s->retry_budget < RETRY_COST)
		return false;
	s->retry_budget -= RETRY_COST;
	return true;
}
