/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/tunnel.h"

#include <errno.h>
#include <sys/socket.h>

#include "gateway/conf/conf.h"
#include "gateway/gateway.h"
#include "gateway/snapshot.h"
#include "gateway/upstream/ws_track.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/http1.h"

#define OUT_HIGH        (64UL * 1024) /* unsent bytes of the client beyond this: it waits */
#define READ_MAX        16384UL
#define REVOKED_LOOK_MS 5000

struct tunnel {
	struct list node; /* in the worker's tunnels */
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
	struct ws_track from_client, from_service;
	bool says_goodbye; /* the gateway ends: wherever a frame ends, a Close of ours goes behind
			    */
	bool told_client, told_service; /* it did: nothing that comes is handed on any more */
};

/* 1001, "going away" (RFC 6455 7.4.1). */
#define CLOSE_TO_CLIENT STR("\x88\x02\x03\xe9")

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
	list_remove(&t->node);
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

/* Who opened it may have been shut out since. */
static bool is_revoked(const struct request *r)
{
	return r->identity &&
	       revoked_has(r->worker->gateway->revoked, r->identity, r->auth->conf->name,
			   (int64_t)(clock_wall_ms() / MSEC_PER_SEC));
}

static uint64_t until_look(const struct tunnel *t, uint64_t now)
{
	uint64_t left = t->idle_until_ms - now;

	return t->r->identity ? MIN(left, (uint64_t)REVOKED_LOOK_MS) : left;
}

static void on_timer(struct loop_timer *timer)
{
	struct tunnel *t = container_of(timer, struct tunnel, timer);
	struct request *r = t->r;
	uint64_t now = loop_now_ms(r->worker->loop);

	if (is_revoked(r)) {
		tunnel_break(t, REASON_REVOKED);
		return;
	}
	if (now < t->idle_until_ms) {
		loop_timer_start(r->worker->loop, &t->timer, until_look(t, now));
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

/* --- goodbye ------------------------------------------------------------------------------- */

static bool may_tell(const struct tunnel *t, const struct ws_track *track, bool was_told)
{
	return t->says_goodbye && !was_told && !track->has_closed && !track->is_broken;
}

static void tell_client(struct tunnel *t)
{
	t->told_client = true;
	t->is_paused = !t->r->down->data(t->r, CLOSE_TO_CLIENT);
}

static void tell_service(struct tunnel *t)
{
	uint8_t frame[8] = { 0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9 };

	random_bytes(frame + 2, 4);
	frame[6] ^= frame[2];
	frame[7] ^= frame[3];
	t->told_service = true;
	buf_append(&t->out, frame, sizeof(frame));
}

static void tunnel_say_goodbye(struct tunnel *t)
{
	t->says_goodbye = true;
	if (may_tell(t, &t->from_service, t->told_client) && !t->service_ended &&
	    ws_track_is_between(&t->from_service) && !t->r->is_ended)
		tell_client(t);
	if (may_tell(t, &t->from_client, t->told_service) && !t->client_ended &&
	    ws_track_is_between(&t->from_client)) {
		tell_service(t);
		tunnel_send(t);
	}
}

void tunnels_say_goodbye(struct worker *w)
{
	list_for_each_safe (node, &w->tunnels)
		tunnel_say_goodbye(container_of(node, struct tunnel, node));
}

/* --- what the service sends ---------------------------------------------------------------- */

/* How much of it goes to the client: all, but for what is behind a Close of ours. */
static size_t pass_to_client(struct tunnel *t, struct str data, bool *is_last)
{
	size_t end = ws_track_pass(&t->from_service, data);

	*is_last = end && may_tell(t, &t->from_service, t->told_client);
	return *is_last ? end : data.len;
}

static long discard_some(struct tunnel *t)
{
	char nowhere[4096];

	return upconn_read(t->u, nowhere, sizeof(nowhere));
}

/* From the service's socket straight into what the client will get. */
static long tunnel_receive_some(struct tunnel *t)
{
	struct request *r = t->r;
	bool is_last;
	size_t room;
	char *at;
	long n;

	if (t->told_client)
		return discard_some(t);
	at = r->down->reserve(r, READ_MAX, &room);
	if (!at)
		return -ENOBUFS;
	n = upconn_read(t->u, at, room);
	if (n <= 0)
		return n;
	t->is_paused = !r->down->commit(r, pass_to_client(t, str_of(at, (size_t)n), &is_last));
	if (is_last)
		tell_client(t);
	tunnel_moved(t);
	return n;
}

/* What came in one piece with the head. */
static void receive_first(struct tunnel *t)
{
	struct buf *in = &t->u->in;
	bool is_last;
	size_t n;

	if (buf_len(in) == 0 || t->r->is_ended)
		return;
	n = pass_to_client(t, buf_str(in), &is_last);
	t->is_paused = !t->r->down->data(t->r, str_sub(buf_str(in), 0, n));
	buf_consume(in, buf_len(in));
}

static void tunnel_receive(struct tunnel *t)
{
	struct request *r = t->r;
	struct upconn *u = t->u;

	receive_first(t);
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

/* The service has our Close; of the client only its own is waited for. */
static bool discard_data(struct tunnel *t, struct str data)
{
	ws_track_pass(&t->from_client, data);
	if (t->from_client.has_closed) {
		t->client_ended = true;
		tunnel_send(t);
	}
	return !t->is_over;
}

static bool sink_data(struct request *r, struct str data)
{
	struct tunnel *t = r->sink_state;
	size_t end;

	if (t->told_service)
		return discard_data(t, data);
	end = ws_track_pass(&t->from_client, data);
	if (end && may_tell(t, &t->from_client, t->told_service)) {
		buf_add(&t->out, str_sub(data, 0, end));
		tell_service(t);
	} else {
		buf_add(&t->out, data);
	}
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
	t->from_client.is_masked = true;
	list_add_tail(&r->worker->tunnels, &t->node);
	buf_init(&t->out, 16 * OUT_HIGH);
	r->sink = &tunnel_sink;
	r->sink_state = t;
	u->on_event = on_upconn;
	u->arg = t;
	tunnel_moved(t);
	loop_timer_start(r->worker->loop, &t->timer, until_look(t, loop_now_ms(r->worker->loop)));
	r->down->read_body(r);
	tunnel_receive(t);
	if (!t->is_over && r->worker->says_goodbye)
		tunnel_say_goodbye(t);
}
