/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/checker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/http_client.h"
#include "lib/tls_client.h"

#define FIRST_WITHIN_MS 100
#define HOP_RETRY_MS    20
#define ANSWER_MAX      65536

/* --- plans -------------------------------------------------------------------------------------
 */

static void copy_text(char *out, size_t size, struct str s)
{
	size_t len = MIN(s.len, size - 1);

	if (len)
		memcpy(out, s.p, len);
	out[len] = '\0';
}

struct check_plan *check_plan_new(const struct nlb_conf_vip *conf, struct err *err)
{
	const struct nlb_conf_health *health = conf->health;
	struct tls_client_options options = { .verify = health->verify,
					      .ca_file = health->ca_file.p };
	struct check_plan *plan = calloc(1, sizeof(*plan));

	if (!plan) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	plan->type = health->type;
	plan->port = health->port;
	plan->interval_ms = health->interval_ms;
	plan->timeout_ms = health->timeout_ms;
	plan->rise = health->rise;
	plan->fall = health->fall;
	plan->status = health->status;
	plan->tunnel = health->tunnel;
	/* A VIP that takes every port need not have the checked one among them: there any answer
	 * proves the tunnel. */
	plan->accepts_reset = !conf->port;
	plan->vip = conf->address;
	plan->vip.in.sin_port = htons(conf->port ? conf->port : health->port);
	plan->encap = (enum nlb_encap)(conf->encap + 1);
	copy_text(plan->path, sizeof(plan->path), health->path.p ? health->path : STR("/"));
	copy_text(plan->host, sizeof(plan->host), health->host);
	copy_text(plan->body, sizeof(plan->body), health->body);
	if (health->type != NLB_HEALTH_HTTPS)
		return plan;
	plan->tls = tls_client_new(&options, err);
	if (!plan->tls)
		check_plan_free(&plan);
	return plan;
}

void check_plan_free(struct check_plan **planp)
{
	struct check_plan *plan = TAKE_PTR(*planp);

	if (!plan)
		return;
	tls_client_free(&plan->tls);
	free(plan);
}

/* --- results -----------------------------------------------------------------------------------
 */

static void let_go(struct check *c)
{
	struct loop *loop = c->tools->loop;

	loop_timer_stop(loop, &c->timeout);
	loop_timer_stop(loop, &c->hop_retry);
	http_call_cancel(&c->call);
	probe_give_up(&c->probe);
	if (c->io.fd >= 0) {
		loop_io_remove(loop, &c->io);
		close(TAKE_FD(c->io.fd));
	}
	c->step = CHECK_IDLE;
}

/*
 * Ends what is under way and plans the next check. The interval counts from begin to begin, so that
 * a gateway that hangs is found out as soon as one that refuses; a tenth more or less, so that many
 * checks of one gateway spread instead of marching in step.
 */
static void finish(struct check *c, const char *why)
{
	uint64_t interval_ms = c->plan->interval_ms, tenth = interval_ms / 10;
	uint64_t wait_ms = interval_ms - tenth + (tenth ? random_fast() % (2 * tenth + 1) : 0);
	uint64_t took_ms = loop_now_ms(c->tools->loop) - c->started_ms;

	let_go(c);
	loop_timer_start(c->tools->loop, &c->interval, wait_ms > took_ms ? wait_ms - took_ms : 1);
	if (why)
		c->failed++;
	else
		c->passed++;
	c->on_result(c, why);
}

static void on_timeout(struct loop_timer *timer)
{
	struct check *c = container_of(timer, struct check, timeout);

	if (c->step == CHECK_TUNNEL)
		finish(c, "tunnel: no answer from the VIP (decapsulation attached? VIP on lo?)");
	else if (c->step == CHECK_HOP)
		finish(c, "tunnel: no MAC address for the next hop");
	else
		finish(c, "timed out");
}

/* --- through the tunnel ------------------------------------------------------------------------
 */

static void on_probe_answer(struct probe *probe, enum probe_result result)
{
	struct check *c = container_of(probe, struct check, probe);

	c->has_answered = true;
	if (result == PROBE_REFUSED && !c->plan->accepts_reset)
		finish(c, "tunnel: nothing listens on the VIP's port");
	else
		finish(c, NULL);
}

static void start_tunnel(struct check *c)
{
	char why[64];
	int rc;

	/* The answer that just came proves the next hop, but its MAC address may still be on its
	 * way from the kernel to us. */
	if (!c->hop->is_resolved) {
		c->step = CHECK_HOP;
		loop_timer_start(c->tools->loop, &c->hop_retry, HOP_RETRY_MS);
		return;
	}
	c->step = CHECK_TUNNEL;
	c->probe.vip = c->plan->vip;
	c->probe.gateway = c->to;
	c->probe.hop = c->hop;
	c->probe.encap = c->plan->encap;
	c->probe.on_answer = on_probe_answer;
	rc = probe_send(&c->probe, c->tools->prober);
	if (rc == 0)
		return;
	/* A host without an address of the VIP's family cannot ask. That says nothing of the
	 * gateway. */
	if (rc == -EADDRNOTAVAIL) {
		finish(c, NULL);
		return;
	}
	snprintf(why, sizeof(why), "tunnel: cannot send: %s", strerror(-rc));
	finish(c, why);
}

static void on_hop_retry(struct loop_timer *timer)
{
	start_tunnel(container_of(timer, struct check, hop_retry));
}

/* --- directly ----------------------------------------------------------------------------------
 */

/* The gateway's own address answered as it should. */
static void pass_direct(struct check *c)
{
	if (c->io.fd >= 0) {
		loop_io_remove(c->tools->loop, &c->io);
		close(TAKE_FD(c->io.fd));
	}
	if (c->plan->tunnel && c->tools->prober)
		start_tunnel(c);
	else
		finish(c, NULL);
}

static void on_connected(struct loop_io *io, uint32_t events)
{
	struct check *c = container_of(io, struct check, io);
	int rc = net_socket_error(io->fd);

	(void)events;
	if (rc)
		finish(c, strerror(-rc));
	else
		pass_direct(c);
}

static void on_answer(struct http_call *call, const struct http_result *result, void *arg)
{
	struct check *c = arg;
	char why[NLB_HEALTH_BODY_MAX + 64];

	(void)call;
	c->call = NULL;
	if (result->error == -EMSGSIZE && !*c->plan->body &&
	    nlb_status_is_good(&c->plan->status, result->status)) {
		pass_direct(c); /* nobody wanted to know the body */
	} else if (result->error) {
		finish(c, result->problem);
	} else if (!nlb_status_is_good(&c->plan->status, result->status)) {
		c->has_answered = true;
		snprintf(why, sizeof(why), "answered %u", result->status);
		finish(c, why);
	} else if (*c->plan->body && !memmem(result->body.p, result->body.len, c->plan->body,
					     strlen(c->plan->body))) {
		c->has_answered = true;
		snprintf(why, sizeof(why), "answered %u without \"%s\"", result->status,
			 c->plan->body);
		finish(c, why);
	} else {
		pass_direct(c);
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
	rc = loop_io_add(c->tools->loop, &c->io, EPOLLOUT);
	if (rc) {
		close(TAKE_FD(c->io.fd));
		finish(c, strerror(-rc));
	}
}

static void start_http(struct check *c)
{
	const struct check_plan *plan = c->plan;
	struct http_request_spec spec = {
		.addr = &c->to,
		.tls = plan->tls,
		.tls_name = str_from(plan->host),
		.method = METHOD_GET,
		.host = str_from(plan->host),
		.target = { str_from(plan->path) },
		.closes = true, /* whether a new connection is taken is half of the question */
		.max_body = ANSWER_MAX,
		.connect_timeout_ms = plan->timeout_ms,
		.response_timeout_ms = plan->timeout_ms,
		.idle_timeout_ms = plan->timeout_ms,
		.total_timeout_ms = plan->timeout_ms,
		.on_done = on_answer,
		.arg = c,
	};

	c->call = http_call_start(c->tools->client, &spec);
	if (!c->call)
		finish(c, "out of memory");
}

static void on_interval(struct loop_timer *timer)
{
	struct check *c = container_of(timer, struct check, interval);

	c->has_answered = false;
	c->step = CHECK_DIRECT;
	c->to.in.sin_port = htons(c->plan->port);
	c->started_ms = loop_now_ms(c->tools->loop);
	loop_timer_start(c->tools->loop, &c->timeout, c->plan->timeout_ms);
	if (c->plan->type == NLB_HEALTH_TCP)
		start_tcp(c);
	else
		start_http(c);
}

/* --- start and end -----------------------------------------------------------------------------
 */

void check_start(struct check *c, const struct check_tools *tools, const struct check_plan *plan,
		 const struct net_addr *gateway, const struct next_hop *hop)
{
	bool was_running = c->is_running;

	c->tools = tools;
	c->plan = plan;
	c->to = *gateway;
	c->hop = hop;
	if (was_running)
		return;
	c->is_running = true;
	c->io = (struct loop_io) { .on_event = on_connected, .fd = -1 };
	c->interval.on_fire = on_interval;
	c->timeout.on_fire = on_timeout;
	c->hop_retry.on_fire = on_hop_retry;
	loop_timer_start(tools->loop, &c->interval, random_fast() % FIRST_WITHIN_MS);
}

void check_stop(struct check *c)
{
	if (!c->is_running)
		return;
	loop_timer_stop(c->tools->loop, &c->interval);
	let_go(c);
	probe_stop(&c->probe);
	c->is_running = false;
}
