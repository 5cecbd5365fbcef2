/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/checker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/http_client.h"

#define FIRST_WITHIN_MS 100
#define ANSWER_MAX      65536

/*
 * Ends what is under way and plans the next check. The interval counts from begin to begin, so that
 * a gateway that hangs is found out as soon as one that refuses; a tenth more or less, so that many
 * checks of one gateway spread instead of marching in step.
 */
static void finish(struct check *c, const char *why)
{
	uint64_t tenth = c->interval_ms / 10;
	uint64_t wait_ms = c->interval_ms - tenth + (tenth ? random_fast() % (2 * tenth + 1) : 0);
	uint64_t took_ms = loop_now_ms(c->loop) - c->started_ms;

	loop_timer_stop(c->loop, &c->timeout);
	if (c->io.fd >= 0) {
		loop_io_remove(c->loop, &c->io);
		close(c->io.fd);
		c->io.fd = -1;
	}
	loop_timer_start(c->loop, &c->interval, wait_ms > took_ms ? wait_ms - took_ms : 1);
	c->on_result(c, why);
}

static void on_timeout(struct loop_timer *timer)
{
	struct check *c = container_of(timer, struct check, timeout);

	http_call_cancel(&c->call);
	finish(c, "timed out");
}

static void on_connected(struct loop_io *io, uint32_t events)
{
	struct check *c = container_of(io, struct check, io);
	int rc = net_socket_error(io->fd);

	(void)events;
	finish(c, rc ? strerror(-rc) : NULL);
}

static void on_answer(struct http_call *call, const struct http_result *result, void *arg)
{
	struct check *c = arg;
	char why[64];

	(void)call;
	c->call = NULL;
	if (result->error) {
		finish(c, result->problem);
	} else if (result->status < 200 || result->status > 299) {
		c->has_answered = true;
		snprintf(why, sizeof(why), "answered %u", result->status);
		finish(c, why);
	} else {
		finish(c, NULL);
	}
}

static void start_tcp(struct check *c)
{
	int rc;

	c->io.fd = net_connect(&c->to);
	if (c->io.fd < 0) {
		rc = c->io.fd;
		c->io.fd = -1;
		finish(c, strerror(-rc));
		return;
	}
	rc = loop_io_add(c->loop, &c->io, EPOLLOUT);
	if (rc) {
		close(c->io.fd);
		c->io.fd = -1;
		finish(c, strerror(-rc));
	}
}

static void start_http(struct check *c)
{
	struct http_request_spec spec = {
		.addr = &c->to,
		.method = METHOD_GET,
		.host = str_from(c->host),
		.target = { str_from(c->path) },
		.closes = true, /* whether a new connection is taken is half of the question */
		.max_body = ANSWER_MAX,
		.connect_timeout_ms = c->timeout_ms,
		.response_timeout_ms = c->timeout_ms,
		.idle_timeout_ms = c->timeout_ms,
		.total_timeout_ms = c->timeout_ms,
		.on_done = on_answer,
		.arg = c,
	};

	c->call = http_call_start(c->client, &spec);
	if (!c->call)
		finish(c, "out of memory");
}

static void on_interval(struct loop_timer *timer)
{
	struct check *c = container_of(timer, struct check, interval);

	c->has_answered = false;
	c->started_ms = loop_now_ms(c->loop);
	loop_timer_start(c->loop, &c->timeout, c->timeout_ms);
	if (c->type == NLB_HEALTH_HTTP)
		start_http(c);
	else
		start_tcp(c);
}

void check_start(struct check *c, struct loop *loop, struct http_client *client,
		 const struct nlb_conf_health *conf, const struct net_addr *gateway)
{
	bool was_running = c->is_running;

	c->loop = loop;
	c->client = client;
	c->to = *gateway;
	c->to.in.sin_port = htons(conf->port);
	c->type = conf->type;
	c->interval_ms = conf->interval_ms;
	c->timeout_ms = conf->timeout_ms;
	snprintf(c->path, sizeof(c->path), "%s", conf->path.p ? conf->path.p : "/");
	snprintf(c->host, sizeof(c->host), "%s", conf->host.p ? conf->host.p : "");
	if (was_running)
		return;
	c->is_running = true;
	c->io = (struct loop_io) { .on_event = on_connected, .fd = -1 };
	c->interval.on_fire = on_interval;
	c->timeout.on_fire = on_timeout;
	loop_timer_start(loop, &c->interval, random_fast() % FIRST_WITHIN_MS);
}

void check_stop(struct check *c)
{
	if (!c->is_running)
		return;
	loop_timer_stop(c->loop, &c->interval);
	loop_timer_stop(c->loop, &c->timeout);
	http_call_cancel(&c->call);
	if (c->io.fd >= 0) {
		loop_io_remove(c->loop, &c->io);
		close(c->io.fd);
		c->io.fd = -1;
	}
	c->is_running = false;
}
