/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/checks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/http_client.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/tls_client.h"
#include "registry/check.h"
#include "registry/check_grpc.h"

struct probe {
	struct reg_checks *all;
	struct hmap_node node;
	struct list waiting;     /* in all->waiting: its turn has come, but too many run */
	struct loop_timer timer; /* the next turn; while it runs, the end of a TCP connection */
	struct reg_check check;
	struct net_addr addr;
	bool is_secure;
	uint64_t due_ms;
	unsigned passes, failures; /* in a row */
	bool is_running;
	struct http_call *http;
	struct grpc_probe *grpc;
	struct loop_io tcp; /* fd -1: none */
	size_t app_len, id_len, text_len;
	char text[]; /* app, id, the check's text */
};

struct reg_checks {
	struct loop *loop;
	struct reg_store *store;
	struct reg_writer *writer;
	struct http_client *http;
	struct tls_client *tls; /* made for the first that wants it */
	struct hmap probes;
	struct list waiting;
	struct loop_task next;
	unsigned at_once;
	struct reg_checks_stats stats;
};

static struct str probe_app(const struct probe *p)
{
	return str_of(p->text, p->app_len);
}

static struct str probe_id(const struct probe *p)
{
	return str_of(p->text + p->app_len, p->id_len);
}

static struct str probe_text(const struct probe *p)
{
	return str_of(p->text + p->app_len + p->id_len, p->text_len);
}

static uint64_t key_hash(struct str app, struct str id)
{
	return hash_str(app) * 31 ^ hash_str(id);
}

static struct probe *probe_find(const struct reg_checks *c, struct str app, struct str id)
{
	uint64_t hash = key_hash(app, id);

	for (struct hmap_node *n = hmap_first(&c->probes, hash); n; n = hmap_next(n)) {
		struct probe *p = container_of(n, struct probe, node);

		if (str_eq(probe_app(p), app) && str_eq(probe_id(p), id))
			return p;
	}
	return NULL;
}

/* --- results --------------------------------------------------------------------------------- */

/* Nine to eleven tenths, so that what began together does not stay so. */
static void probe_schedule(struct probe *p)
{
	uint64_t interval_ms = p->check.interval_ms;
	uint64_t delay_ms = interval_ms * 9 / 10 + random_fast() % (interval_ms / 5 + 1);

	p->due_ms = loop_now_ms(p->all->loop) + delay_ms;
	loop_timer_start(p->all->loop, &p->timer, delay_ms);
}

/* What the instance says of itself as long as no check has spoken stays; and OUT_OF_SERVICE. */
static void probe_apply(struct probe *p)
{
	struct reg_checks *c = p->all;
	const struct reg_entry *e = reg_store_find(c->store, probe_app(p), probe_id(p));
	enum reg_status status = REG_NO_STATUS;
	struct reg_instance i;

	if (!e)
		return;
	reg_entry_get(e, &i);
	if (p->passes >= p->check.rise)
		status = REG_UP;
	else if (p->failures >= p->check.fall)
		status = REG_DOWN;
	if (p->passes)
		reg_writer_renew(c->writer, probe_app(p), probe_id(p));
	if (status == REG_NO_STATUS || status == i.status || i.status == REG_OUT_OF_SERVICE)
		return;
	reg_writer_report(c->writer, probe_app(p), probe_id(p), status);
}

static void probe_ended(struct probe *p)
{
	struct reg_checks *c = p->all;

	if (!p->is_running)
		return;
	p->is_running = false;
	c->stats.running--;
	if (!list_empty(&c->waiting))
		loop_defer(c->loop, &c->next);
}

static void probe_result(struct probe *p, bool passed)
{
	struct reg_checks *c = p->all;

	probe_ended(p);
	p->passes = passed ? p->passes + 1 : 0;
	p->failures = passed ? 0 : p->failures + 1;
	if (passed)
		c->stats.passed++;
	else
		c->stats.failed++;
	probe_schedule(p);
	probe_apply(p);
}

/* --- the three kinds ------------------------------------------------------------------------- */

static void on_http(struct http_call *call, const struct http_result *result, void *arg)
{
	struct probe *p = arg;

	(void)call;
	p->http = NULL;
	probe_result(p, !result->error && result->status >= 200 && result->status < 300);
}

/* Whether it works is asked, not who it is. */
static struct tls_client *checks_tls(struct reg_checks *c)
{
	const struct tls_client_options options = { .verify = false, .alpn = "http/1.1" };
	struct err err;

	if (!c->tls)
		c->tls = tls_client_new(&options, &err);
	return c->tls;
}

static bool probe_http(struct probe *p)
{
	const struct http_request_spec spec = {
		.addr = &p->addr,
		.tls = p->is_secure ? checks_tls(p->all) : NULL,
		.target = { str_from(p->check.name) },
		.headers = STR("User-Agent: gatehouse-registry\r\n"),
		.closes = true,
		.connect_timeout_ms = p->check.timeout_ms,
		.response_timeout_ms = p->check.timeout_ms,
		.idle_timeout_ms = p->check.timeout_ms,
		.total_timeout_ms = p->check.timeout_ms,
		.on_done = on_http,
		.arg = p,
	};

	if (p->is_secure && !spec.tls)
		return false;
	p->http = http_call_start(p->all->http, &spec);
	return p->http != NULL;
}

static void on_grpc(bool serves, void *arg)
{
	struct probe *p = arg;

	p->grpc = NULL;
	probe_result(p, serves);
}

static void tcp_end(struct probe *p)
{
	if (p->tcp.fd < 0)
		return;
	loop_io_remove(p->all->loop, &p->tcp);
	close(TAKE_FD(p->tcp.fd));
}

static void on_tcp(struct loop_io *io, uint32_t events)
{
	struct probe *p = container_of(io, struct probe, tcp);
	bool is_there = net_socket_error(io->fd) == 0 && !(events & (EPOLLHUP | EPOLLERR));

	tcp_end(p);
	probe_result(p, is_there);
}

static bool probe_tcp(struct probe *p)
{
	p->tcp.fd = net_connect(&p->addr);
	if (p->tcp.fd >= 0 && loop_io_add(p->all->loop, &p->tcp, EPOLLOUT) < 0)
		close(TAKE_FD(p->tcp.fd));
	if (p->tcp.fd < 0)
		return false;
	loop_timer_start(p->all->loop, &p->timer, p->check.timeout_ms);
	return true;
}

/* --- turns ----------------------------------------------------------------------------------- */

static bool probe_begin(struct probe *p)
{
	switch (p->check.type) {
	case REG_CHECK_HTTP:
		return probe_http(p);
	case REG_CHECK_TCP:
		return probe_tcp(p);
	case REG_CHECK_GRPC:
		p->grpc = grpc_probe_start(p->all->loop, &p->addr, p->check.name,
					   p->check.timeout_ms, on_grpc, p);
		return p->grpc != NULL;
	}
	return false;
}

static void probe_run(struct probe *p)
{
	struct reg_checks *c = p->all;

	if (loop_now_ms(c->loop) > p->due_ms + p->check.interval_ms)
		c->stats.late++;
	p->is_running = true;
	c->stats.running++;
	if (!probe_begin(p))
		probe_result(p, false);
}

/* Its turn, or the end of a TCP connection's time. */
static void probe_on_timer(struct loop_timer *timer)
{
	struct probe *p = container_of(timer, struct probe, timer);
	struct reg_checks *c = p->all;

	if (p->is_running) {
		tcp_end(p);
		probe_result(p, false);
	} else if (!c->writer->is_checker) {
		/* Another registry does. */
		p->passes = p->failures = 0;
		probe_schedule(p);
	} else if (c->stats.running < c->at_once) {
		probe_run(p);
	} else {
		list_add_tail(&c->waiting, &p->waiting);
	}
}

static void checks_on_next(struct loop_task *task)
{
	struct reg_checks *c = container_of(task, struct reg_checks, next);

	while (c->stats.running < c->at_once && !list_empty(&c->waiting)) {
		struct probe *p = container_of(c->waiting.next, struct probe, waiting);

		list_remove(&p->waiting);
		probe_run(p);
	}
}

/* --- which there are ------------------------------------------------------------------------- */

static void probe_free(struct probe *p)
{
	struct reg_checks *c = p->all;

	loop_timer_stop(c->loop, &p->timer);
	http_call_cancel(&p->http);
	grpc_probe_cancel(&p->grpc);
	tcp_end(p);
	list_remove(&p->waiting);
	probe_ended(p);
	hmap_remove(&c->probes, &p->node);
	c->stats.count--;
	free(p);
}

/* The same as before: nothing but status or weight has changed. */
static bool probe_is(const struct probe *p, const struct reg_instance *i)
{
	struct net_addr addr;

	reg_instance_addr(i, &addr);
	if (p->check.port)
		net_set_port(&addr, p->check.port);
	return str_eq(probe_text(p), i->check) && net_addr_eq(&p->addr, &addr) &&
	       p->is_secure == i->is_secure;
}

static void probe_add(struct reg_checks *c, struct str app, const struct reg_instance *i)
{
	struct probe *p = calloc(1, sizeof(*p) + app.len + i->id.len + i->check.len);

	if (!p || !reg_check_parse(&p->check, i->check)) {
		free(p);
		return;
	}
	p->all = c;
	p->app_len = app.len;
	p->id_len = i->id.len;
	p->text_len = i->check.len;
	memcpy(p->text, app.p, app.len);
	memcpy(p->text + app.len, i->id.p, i->id.len);
	memcpy(p->text + app.len + i->id.len, i->check.p, i->check.len);
	p->is_secure = i->is_secure;
	reg_instance_addr(i, &p->addr);
	if (p->check.port)
		net_set_port(&p->addr, p->check.port);
	p->tcp = (struct loop_io) { .fd = -1, .on_event = on_tcp };
	p->timer.on_fire = probe_on_timer;
	list_init(&p->waiting);
	if (hmap_insert(&c->probes, &p->node, key_hash(app, i->id)) < 0) {
		free(p);
		return;
	}
	c->stats.count++;
	/* Soon, but not all of a snapshot in one moment. */
	p->due_ms = loop_now_ms(c->loop);
	loop_timer_start(c->loop, &p->timer,
			 random_fast() % MIN(p->check.interval_ms, (uint32_t)1000));
}

void reg_checks_on_change(struct reg_checks *c, const struct reg_entry *entry,
			  enum reg_change change)
{
	struct str app = str_from(reg_entry_app(entry));
	struct reg_instance i;
	struct probe *p;

	reg_entry_get(entry, &i);
	if (!i.check.len && !c->stats.count)
		return;
	p = probe_find(c, app, i.id);
	if (change == REG_DELETE || !i.check.len) {
		if (p)
			probe_free(p);
		return;
	}
	if (p && probe_is(p, &i))
		return;
	if (p)
		probe_free(p);
	probe_add(c, app, &i);
}

void reg_checks_set_at_once(struct reg_checks *c, unsigned at_once)
{
	c->at_once = at_once;
	loop_defer(c->loop, &c->next);
}

const struct reg_checks_stats *reg_checks_stats(const struct reg_checks *c)
{
	return &c->stats;
}

struct reg_checks *reg_checks_new(struct loop *loop, struct reg_store *store,
				  struct reg_writer *writer, unsigned at_once)
{
	struct reg_checks *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->loop = loop;
	c->store = store;
	c->writer = writer;
	c->at_once = at_once;
	c->next.run = checks_on_next;
	list_init(&c->next.node);
	list_init(&c->waiting);
	c->http = http_client_new(loop, 0);
	if (!c->http)
		reg_checks_free(&c);
	return c;
}

void reg_checks_free(struct reg_checks **cp)
{
	struct reg_checks *c = TAKE_PTR(*cp);

	if (!c)
		return;
	hmap_for_each (node, &c->probes)
		probe_free(container_of(node, struct probe, node));
	loop_cancel(&c->next);
	http_client_free(&c->http);
	tls_client_free(&c->tls);
	hmap_fini(&c->probes);
	free(c);
}
