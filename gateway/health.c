/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/health.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/hash.h"
#include "lib/http_client.h"
#include "lib/tls_client.h"

struct health_check {
	struct http_client *http;
	struct loop *loop;
	struct gw_health conf;
	struct net_addr addr;
	struct tls_client *tls; /* held; NULL: in clear */
	struct http_call *call;
	struct loop_timer timer;
	unsigned streak; /* results in a row that contradict is_up */
	bool is_up;
	void (*on_change)(struct health_check *check, bool is_up, const char *why, void *arg);
	void *arg;
};

/* A tenth of jitter: a thousand checks started together do not stay together. */
static uint64_t next_delay_ms(const struct health_check *c)
{
	uint64_t tenth = c->conf.interval_ms / 10;

	return c->conf.interval_ms - tenth + (tenth ? random_fast() % (2 * tenth) : 0);
}

static void on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct health_check *c = arg;
	bool is_good = !result->error && result->status >= 200 && result->status < 400;
	char why[64];

	(void)call;
	c->call = NULL;
	loop_timer_start(c->loop, &c->timer, next_delay_ms(c));
	if (is_good == c->is_up) {
		c->streak = 0;
		return;
	}
	if (++c->streak < (is_good ? c->conf.rise : c->conf.fall))
		return;
	c->streak = 0;
	c->is_up = is_good;
	snprintf(why, sizeof(why), "status %u", result->status);
	c->on_change(c, is_good, result->error ? result->problem : why, c->arg);
}

static void probe(struct loop_timer *timer)
{
	struct health_check *c = container_of(timer, struct health_check, timer);
	struct http_request_spec spec = {
		.addr = &c->addr,
		.tls = c->tls,
		.target = { c->conf.path },
		.max_body = 65536,
		.connect_timeout_ms = c->conf.timeout_ms,
		.response_timeout_ms = c->conf.timeout_ms,
		.total_timeout_ms = c->conf.timeout_ms,
		.on_done = on_done,
		.arg = c,
	};

	c->call = http_call_start(c->http, &spec);
	if (!c->call)
		loop_timer_start(c->loop, timer, next_delay_ms(c));
}

struct health_check *health_start(struct http_client *http, struct loop *loop,
				  const struct gw_health *conf, const struct net_addr *addr,
				  void (*on_change)(struct health_check *check, bool is_up,
						    const char *why, void *arg),
				  void *arg)
{
	struct health_check *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL; /* unchecked is better than unlisted */
	*c = (struct health_check) {
		.http = http,
		.loop = loop,
		.conf = *conf,
		.addr = *addr,
		.is_up = true,
		.on_change = on_change,
		.arg = arg,
	};
	c->timer.on_fire = probe;
	loop_timer_start(loop, &c->timer, random_fast() % (c->conf.interval_ms / 4 + 1));
	return c;
}

void health_adopt(struct health_check *c, const struct gw_health *conf, void *arg)
{
	c->conf = *conf;
	c->arg = arg;
}

void health_use_tls(struct health_check *c, struct tls_client *tls)
{
	if (c->tls == tls)
		return;
	if (c->call) {
		/* It borrows what goes away. */
		http_call_cancel(&c->call);
		loop_timer_start(c->loop, &c->timer, next_delay_ms(c));
	}
	tls_client_free(&c->tls);
	c->tls = tls ? tls_client_get(tls) : NULL;
}

void health_stop(struct health_check **cp)
{
	struct health_check *c = *cp;

	if (!c)
		return;
	*cp = NULL;
	http_call_cancel(&c->call);
	loop_timer_stop(c->loop, &c->timer);
	tls_client_free(&c->tls);
	free(c);
}

bool health_is_up(const struct health_check *c)
{
	return c->is_up;
}

const struct net_addr *health_address(const struct health_check *c)
{
	return &c->addr;
}
