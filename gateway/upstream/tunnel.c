/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/tunnel.h"

#include <errno.h>
#include <sys/socket.h>

#include "gateway/conf.h"
#include "lib/http1.h"

#define OUT_HIGH (64UL * 1024) /* unsent bytes of the client beyond this: it waits */
#define READ_MAX 16384UL

struct tunnel {
	struct request *r;
	struct upconn *u;
	struct service *service;   /* held */
	struct endpoint *endpoint; /* in flight there */
	uint64_t latency_us;       /* of the handshake */
	struct buf out;            /* from the client, not sent yet */
	struct loop_timer timer;
	uint64_t idle_until_ms;
	bool client_ended;  /* the client sent its last byte */
	bool has_shut;      /* ... and the service knows */
	bool service_ended; /* the service sent its last byte, and the client was told */
	bool is_paused;     /* the client is slow */
	bool is_over;
};

bool tunnel_is_agreed(const struct request *r, const struct http1_head *head)
{
	const struct http_field *upgrade, *accept;

	if (!r->websocket_accept.p || !head->asks_upgrade || head->has_content_length)
		return false;
	upgrade = http_find(head->fields, head->field_count, HTTP_UPGRADE);
	accept = http_find_name(head->fields, head->field_count, STR("Sec-WebSocket-Accept"));
	return upgrade && str_ieq(upgrade->value, STR("websocket")) && accept &&
	       str_eq(accept->value, r->websocket_accept);
}

/* Lets go of everything but the request. */
static void tunnel_close(struct tunnel *t)
{
	t->is_over = true;
	loop_timer_stop(t->r->worker->loop, &t->timer);
	upconn_close(t->u);
	endpoint_finish(t->service, t->endpoint, ENDPOINT_OK, t->latency_us);
	buf_fini(&t->out);
	service_leave(t->service, false);
	service_put(t->service);
	t->r->sink = NULL;
}

static void tunnel_break(struct tunnel *t, enum request_reason reason)
{
	struct request *r = t->r;

	if (r->reason == REASON_NONE)
		r->reason = reason;
	tunnel_close(t);
	r->down->abort(r);
}

static void tunnel_moved(struct tunnel *t)
{
	t->idle_until_ms = loop_now_ms(t->r->worker->loop) +
			   t->r->service->websocket_idle_timeout_ms;
}

static void on_timer(struct loop_timer *timer)
{
	struct tunnel *t = container_of(timer, struct tunnel, timer);
	struct request *r = t->r;
	uint64_t now = loop_now_ms(r->worker->loop);

	if (now < t->idle_until_ms) {
		loop_timer_start(r->worker->loop, &t->timer, t->idle_until_ms - now);
		return;
	}
	r->reason = REASON_TUNNEL_IDLE;
	tunnel_close(t);
	r->down->end(r);
}

/* Both directions are over: so is the request. Otherwise the client hears of the service's end. */
static void tunnel_ended(struct tunnel *t)
{
	struct request *r = t->r;

	if (t->service_ended && t->has_shut)
		tunnel_close(t);
	if (t->service_ended)
		r->down->end(r);
}

static void tunnel_send(struct tunnel *t)
{
	struct upconn *u = t->u;

	while (u->can_write && buf_len(&t->out)) {
		long n = upconn_send(u, STR(""), buf_str(&t->out));

		if (n == -EAGAIN)
			return;
		if (n < 0) {
			tunnel_break(t, REASON_SERVICE_RESET);
			return;
		}
		buf_consume(&t->out, (size_t)n);
		tunnel_moved(t);
	}
	if (t->has_shut)
		return;
	if (t->client_ended && buf_len(&t->out) == 0) {
		t->has_shut = true;
		shutdown(u->io.fd, SHUT_WR);
		tunnel_ended(t);
	} else if (!t->client_ended && buf_len(&t->out) < OUT_HIGH / 2) {
		t->r->down->read_body(t->r);
	}
}

/* From the service's socket straight into what the client will get. */
static long tunnel_receive_some(struct tunnel *t)
{
	struct request *r = t->r;
	size_t room;
	char *at = r->down->reserve(r, READ_MAX, &room);
	long n;

	if (!at)
		return -ENOBUFS;
	n = upconn_read(t->u, at, room);
	if (n > 0) {
		t->is_paused = !r->down->commit(r, (size_t)n);
		tunnel_moved(t);
	}
	return n;
}

static void tunnel_receive(struct tunnel *t)
{
	struct request *r = t->r;
	struct upconn *u = t->u;

	/* What came in one piece with the head. */
	if (buf_len(&u->in) && !r->is_ended) {
		t->is_paused = !r->down->data(r, buf_str(&u->in));
		buf_consume(&u->in, buf_len(&u->in));
	}
	while (!t->is_over && !t->is_paused && !t->service_ended && !r->is_ended) {
		long n;

		if (u->has_eof) {
			t->service_ended = true;
			tunnel_ended(t);
			return;
		}
		if (!u->can_read)
			return;
		n = tunnel_receive_some(t);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			tunnel_break(t, n == -ENOBUFS ? REASON_INTERNAL : REASON_SERVICE_RESET);
			return;
		}
	}
}

static void on_upconn(struct upconn *u, void *arg)
{
	struct tunnel *t = arg;

	(void)u;
	tunnel_send(t);
	if (!t->is_over)
		tunnel_receive(t);
}

static bool sink_data(struct request *r, struct str data)
{
	struct tunnel *t = r->sink_state;

	buf_add(&t->out, data);
	if (buf_failed(&t->out)) {
		tunnel_break(t, REASON_INTERNAL);
		return false;
	}
	tunnel_moved(t);
	tunnel_send(t);
	return !t->is_over && buf_len(&t->out) < OUT_HIGH;
}

static void sink_end(struct request *r)
{
	struct tunnel *t = r->sink_state;

	t->client_ended = true;
	tunnel_send(t);
}

static void sink_resume(struct request *r)
{
	struct tunnel *t = r->sink_state;

	t->is_paused = false;
	tunnel_receive(t);
}

static void sink_cancel(struct request *r)
{
	tunnel_close(r->sink_state);
}

static const struct sink_ops tunnel_sink = {
	.data = sink_data,
	.end = sink_end,
	.resume = sink_resume,
	.cancel = sink_cancel,
};

void tunnel_start(struct request *r, struct upconn *u, struct service *service,
		  struct endpoint *endpoint, uint64_t latency_us)
{
	struct tunnel *t = arena_new(&r->arena, struct tunnel);

	if (!t) {
		upconn_close(u);
		endpoint_finish(service, endpoint, ENDPOINT_ABANDONED, latency_us);
		service_leave(service, false);
		service_put(service);
		r->reason = REASON_INTERNAL;
		r->down->abort(r);
		return;
	}
	t->r = r;
	t->u = u;
	t->service = service;
	t->endpoint = endpoint;
	t->latency_us = latency_us;
	t->timer.on_fire = on_timer;
	buf_init(&t->out, 16 * OUT_HIGH);
	r->sink = &tunnel_sink;
	r->sink_state = t;
	u->on_event = on_upconn;
	u->arg = t;
	tunnel_moved(t);
	loop_timer_start(r->worker->loop, &t->timer, r->service->websocket_idle_timeout_ms);
	r->down->read_body(r);
	tunnel_receive(t);
}
