/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/health.h"

#include <stdio.h>
#include <stdlib.h>

#include "gateway/upstream/probe.h"
#include "lib/hash.h"
#include "lib/http_client.h"
#include "lib/tls_client.h"

struct health_check {
	struct http_client *http;
	struct loop *loop;
	struct gw_health conf;
	struct net_addr addr;
	char address[NET_ADDR_LEN]; /* that is asked, as text */
	struct tls_client *tls;     /* held; NULL: in clear */
	struct http_call *call;     /* one of the two, while a check is under way */
	struct probe *probe;
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

/* `why` NULL: it is well. */
static void take_result(struct health_check *c, const char *why)
{
	bool is_good = !why;

	loop_timer_start(c->loop, &c->timer, next_delay_ms(c));
	if (is_good == c->is_up) {
		c->streak = 0;
		return;
	}
	if (++c->streak < (is_good ? c->conf.rise : c->conf.fall))
		return;
	c->streak = 0;
	c->is_up = is_good;
	c->on_change(c, is_good, why, c->arg);
}

static void take_status(struct health_check *c, unsigned status)
{
	char why[64];

	snprintf(why, sizeof(why), "status %u", status);
	take_result(c, gw_statuses_have(&c->conf.statuses, status) ? NULL : why);
}

static void on_answer(struct http_call *call, const struct http_result *result, void *arg)
{
	struct health_check *c = arg;

	(void)call;
	c->call = NULL;
	if (result->error)
		take_result(c, result->problem);
	else
		take_status(c, result->status);
}

static void on_probed(unsigned status, const char *why, void *arg)
{
	struct health_check *c = arg;

	c->probe = NULL;
	if (why || c->conf.type != GW_HEALTH_HTTP)
		take_result(c, why);
	else
		take_status(c, status);
}

static bool ask_http1(struct health_check *c, const struct net_addr *addr)
{
	struct http_request_spec spec = {
		.addr = addr,
		.tls = c->tls,
		.host = c->conf.host,
		.target = { c->conf.path },
		.max_body = 65536,
		.connect_timeout_ms = c->conf.timeout_ms,
		.response_timeout_ms = c->conf.timeout_ms,
		.total_timeout_ms = c->conf.timeout_ms,
		.on_done = on_answer,
		.arg = c,
	};

	c->call = http_call_start(c->http, &spec);
	return c->call;
}

static bool ask_otherwise(struct health_check *c, const struct net_addr *addr)
{
	struct probe_spec spec = {
		.kind = c->conf.type == GW_HEALTH_TCP
				? PROBE_CONNECT
				: (c->conf.type == GW_HEALTH_GRPC ? PROBE_GRPC : PROBE_HTTP2),
		.addr = *addr,
		.tls = c->tls,
		.authority = c->conf.host.p ? c->conf.host : str_from(c->address),
		.path = c->conf.path,
		.service = c->conf.service,
		.timeout_ms = c->conf.timeout_ms,
		.on_done = on_probed,
		.arg = c,
	};

	c->probe = probe_start(c->loop, &spec);
	return c->probe;
}

static void check(struct loop_timer *timer)
{
	struct health_check *c = container_of(timer, struct health_check, timer);
	bool is_http1 = c->conf.type == GW_HEALTH_HTTP && c->conf.protocol == GW_HTTP1;
	struct net_addr addr = c->addr;

	if (c->conf.port)
		net_set_port(&addr, c->conf.port);
	net_format(c->address, &addr);
	if (!(is_http1 ? ask_http1(c, &addr) : ask_otherwise(c, &addr)))
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
	c->timer.on_fire = check;
	loop_timer_start(loop, &c->timer, random_fast() % (c->conf.interval_ms / 4 + 1));
	return c;
}

/* What is under way borrows what goes away. */
static void begin_again(struct health_check *c)
{
	if (!c->call && !c->probe)
		return;
	http_call_cancel(&c->call);
	probe_cancel(&c->probe);
	loop_timer_start(c->loop, &c->timer, next_delay_ms(c));
}

void health_adopt(struct health_check *c, const struct gw_health *conf, void *arg)
{
	if (c->probe) /* reads what the configuration says as it goes */
		begin_again(c);
	c->conf = *conf;
	c->arg = arg;
}

void health_use_tls(struct health_check *c, struct tls_client *tls)
{
	if (c->tls == tls)
		return;
	begin_again(c);
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
	probe_cancel(&c->probe);
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
