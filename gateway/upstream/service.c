/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/service.h"

#include "gateway/upstream/h2conn.h"
#include "gateway/upstream/upconn.h"
#include "lib/hash.h"
#include "lib/tls_client.h"

#define EJECT_AFTER       5     /* consecutive failures */
#define EJECT_BASE_MS     1000  /* doubled with each consecutive ejection ... */
#define EJECT_MAX_MS      30000 /* ... up to this, as Ribbon's circuit */
#define LATENCY_WINDOW_MS 10000 /* over which an old latency fades */
#define RETRY_EARNED      200   /* thousandths per request: 20 % */
#define RETRY_COST        1000UL
#define RETRY_MAX         (100 * RETRY_COST)
#define RETRY_START       (10 * RETRY_COST)

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
	list_init(&s->waiters);
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
	change_tls(s, tls);
	s->balance = conf->balance;
	s->idle_timeout_ms = conf->idle_timeout_ms;
	s->max_idle = conf->max_idle_connections;
	s->ping_after_ms = conf->ping_after_ms;
	s->ping_timeout_ms = conf->ping_timeout_ms;
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
	free(e);
}

static struct endpoint *endpoint_new(const struct service_member *m)
{
	struct endpoint *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->refs = 1;
	e->addr = m->addr;
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

void service_set_members(struct service *s, const struct service_member *members, size_t count)
{
	struct endpoint **fresh = calloc(count ? count : 1, sizeof(struct endpoint *));
	size_t n = 0;

	if (!fresh)
		return; /* the old list stays: better than none */
	for (size_t i = 0; i < count; i++) {
		struct endpoint *e = find_endpoint(s, &members[i].addr);

		e = e ? endpoint_get(e) : endpoint_new(&members[i]);
		if (!e)
			continue;
		e->weight = members[i].weight ? members[i].weight : 1;
		e->is_failing = members[i].is_failing;
		fresh[n++] = e;
	}
	for (size_t i = 0; i < s->count; i++)
		s->endpoints[i]->is_gone = true;
	for (size_t i = 0; i < n; i++)
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
	s->count = n;
	s->is_known = true;
	while (!list_empty(&s->waiters)) {
		struct service_waiter *waiter = container_of(s->waiters.next, struct service_waiter,
							     node);

		list_remove(&waiter->node);
		waiter->on_known(waiter);
	}
}

/* --- choosing
 * ---------------------------------------------------------------------------------------------------------
 */

bool endpoint_is_ejected(const struct endpoint *e, uint64_t now_ms)
{
	return e->is_failing || e->ejected_until_ms > now_ms;
}

static bool was_tried(const struct endpoint *e, struct endpoint *const *tried, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (tried[i] == e)
			return true;
	}
	return false;
}

struct choice {
	const struct service *s;
	struct endpoint *const *tried;
	unsigned tried_count;
	uint64_t now_ms;
	bool takes_ejected; /* panic: nothing healthy is left */
};

static bool is_usable(const struct choice *c, const struct endpoint *e)
{
	return (c->takes_ejected || !endpoint_is_ejected(e, c->now_ms)) &&
	       !was_tried(e, c->tried, c->tried_count);
}

/* A usable instance at random; NULL when there is none. */
static struct endpoint *random_usable(const struct choice *c)
{
	size_t at = 0;

	/* Throwing again, not stepping to the neighbour, so that the neighbour of an ejected one
	 * does not get its load. */
	for (int i = 0; i < 4; i++) {
		at = random_fast() % c->s->count;
		if (is_usable(c, c->s->endpoints[at]))
			return c->s->endpoints[at];
	}
	for (size_t i = 0; i < c->s->count; i++) {
		struct endpoint *e = c->s->endpoints[(at + i) % c->s->count];

		if (is_usable(c, e))
			return e;
	}
	return NULL;
}

/* Expected wait: what is in flight there, times how long each takes, by weight. */
static double cost(const struct service *s, const struct endpoint *e)
{
	uint64_t latency = e->latency_us ? e->latency_us : s->latency_us;

	return (double)(e->in_flight + 1) * (double)(latency ? latency : 1) / (double)e->weight;
}

/* The power of two choices (Mitzenmacher 2001): herds less than the best of all, costs less, and is
 * nearly as good. */
static struct endpoint *choose_p2c(const struct choice *c)
{
	struct endpoint *a = random_usable(c);
	struct endpoint *b;

	if (!a || c->s->count == 1)
		return a;
	for (int i = 0; i < 3; i++) {
		b = random_usable(c);
		if (b && b != a)
			return cost(c->s, a) <= cost(c->s, b) ? a : b;
	}
	return a;
}

/* Smooth weighted round robin: each turn everyone earns his weight, the richest is taken and pays
 * all that was earned. */
static struct endpoint *choose_round_robin(const struct choice *c)
{
	struct endpoint *best = NULL;
	int64_t total = 0;

	for (size_t i = 0; i < c->s->count; i++) {
		struct endpoint *e = c->s->endpoints[i];

		if (!is_usable(c, e))
			continue;
		e->wrr_credit += e->weight;
		total += e->weight;
		if (!best || e->wrr_credit > best->wrr_credit)
			best = e;
	}
	if (best)
		best->wrr_credit -= total;
	return best;
}

static struct endpoint *choose_least_request(const struct choice *c)
{
	size_t from = random_fast() % c->s->count; /* ties go to anyone, not always to the first */
	struct endpoint *best = NULL;

	for (size_t i = 0; i < c->s->count; i++) {
		struct endpoint *e = c->s->endpoints[(from + i) % c->s->count];

		if (is_usable(c, e) && (!best || (uint64_t)e->in_flight * best->weight <
							 (uint64_t)best->in_flight * e->weight))
			best = e;
	}
	return best;
}

static struct endpoint *choose(const struct choice *c)
{
	switch (c->s->balance) {
	case GW_ROUND_ROBIN:
		return choose_round_robin(c);
	case GW_LEAST_REQUEST:
		return choose_least_request(c);
	default:
		return choose_p2c(c);
	}
}

struct endpoint *service_choose(struct service *s, struct endpoint *const *tried,
				unsigned tried_count)
{
	struct choice c = {
		.s = s,
		.tried = tried,
		.tried_count = tried_count,
		.now_ms = loop_now_ms(s->worker->loop),
	};
	struct endpoint *e;

	if (s->count == 0)
		return NULL;
	e = choose(&c);
	if (!e) {
		c.takes_ejected = true;
		e = choose(&c);
	}
	if (!e)
		return NULL;
	e->in_flight++;
	metrics_inc(&e->requests, 1);
	return endpoint_get(e);
}

/* --- learning
 * ----------------------------------------------------------------------------------------------------------
 */

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
	s->latency_us = s->latency_us ? (s->latency_us * 15 + us) / 16 : us;
}

/* Never more than half of the pool at a time: the others would drown. */
static bool may_eject(const struct service *s, uint64_t now_ms)
{
	size_t ejected = 1;

	for (size_t i = 0; i < s->count; i++)
		ejected += endpoint_is_ejected(s->endpoints[i], now_ms);
	return ejected * 2 <= s->count;
}

static void learn_failure(struct service *s, struct endpoint *e)
{
	uint64_t now = loop_now_ms(s->worker->loop);
	uint64_t pause = EJECT_BASE_MS << MIN(e->ejections, 5U);

	metrics_inc(&e->errors, 1);
	if (++e->failures < EJECT_AFTER || endpoint_is_ejected(e, now) || !may_eject(s, now))
		return;
	e->ejected_until_ms = now + MIN(pause, (uint64_t)EJECT_MAX_MS);
	e->ejections++;
	/* After the pause one failure more is enough. */
	e->failures = EJECT_AFTER - 1;
}

void endpoint_finish(struct service *s, struct endpoint *e, enum endpoint_outcome outcome,
		     uint64_t latency_us)
{
	e->in_flight--;
	switch (outcome) {
	case ENDPOINT_OK:
		e->failures = e->ejections = 0;
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
