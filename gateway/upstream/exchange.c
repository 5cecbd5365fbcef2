/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/exchange.h"

#include <errno.h>
#include <inttypes.h>

#include "gateway/pipeline.h"
#include "gateway/problem.h"
#include "gateway/upstream/upconn.h"
#include "lib/clock.h"
#include "lib/http1.h"

#define BODY_HIGH   (64UL * 1024) /* unsent request body beyond this: the client waits */
#define REPLAY_MAX  (64UL * 1024) /* request bodies up to this can be sent again */
#define TRIED_MAX   8
#define INTERIM_MAX 16 /* 1xx responses before the final one */

enum phase {
	PHASE_LIST,
	/* for the service's instances */ PHASE_CONNECT,
	PHASE_RESPONSE,
	PHASE_BODY
};

struct exchange {
	struct request *r;
	struct service *service;
	struct endpoint *endpoint; /* in flight there */
	struct upconn *u;
	struct str head; /* of the request, in the arena: the same for every attempt */
	struct buf body; /* of the request as it goes on the wire */
	size_t head_sent, body_sent;
	uint64_t body_total; /* bytes ever put into `body` */
	struct http1_scan scan;
	struct http1_body decoder;         /* of the response */
	struct endpoint *tried[TRIED_MAX]; /* held */
	unsigned tried_count, retries_left, interim;
	struct service_waiter waiter; /* in PHASE_LIST */
	enum phase phase;
	struct loop_timer timer;
	uint64_t phase_deadline_ms, request_deadline_ms;
	uint64_t attempt_ns;
	bool is_chunked;     /* the request body goes in chunks */
	bool body_complete;  /* the client sent all of it */
	bool can_replay;     /* `body` still holds it from the first byte */
	bool has_answer;     /* at least a byte of the response came: too late to try elsewhere */
	bool response_keeps; /* the connection may be used again afterwards */
	bool is_paused;      /* the client is slow */
	bool was_stale;      /* an attempt met a kept connection that the service had closed */
	bool is_done;
};

static void exchange_attempt(struct exchange *x);

static struct exchange *exchange_of(struct request *r)
{
	return r->sink_state;
}

/* --- the request head
 * ---------------------------------------------------------------------------------------------------
 */

static void put(char **at, struct str s)
{
	if (s.len)
		memcpy(*at, s.p, s.len);
	*at += s.len;
}

/* Written anew, never copied: what the service reads is what was understood here. */
static bool build_head(struct exchange *x)
{
	struct request *r = x->r;
	struct str path = r->upstream_path;
	size_t size = r->method.len + path.len + r->query.len + r->authority.len + 128;
	char length[24];
	char *head, *at;

	for (size_t i = 0; i < r->headers.count; i++)
		size += r->headers.fields[i].name.len + r->headers.fields[i].value.len + 4;
	head = at = arena_alloc(&r->arena, size);
	if (!head)
		return false;
	put(&at, r->method);
	put(&at, STR(" "));
	put(&at, path);
	if (r->query.p) {
		put(&at, STR("?"));
		put(&at, r->query);
	}
	put(&at, STR(" HTTP/1.1\r\nHost: "));
	put(&at, r->authority);
	put(&at, STR("\r\n"));
	for (size_t i = 0; i < r->headers.count; i++) {
		const struct http_field *f = &r->headers.fields[i];

		switch (f->id) {
		case HTTP_HOST:
		case HTTP_CONTENT_LENGTH:
		case HTTP_TRANSFER_ENCODING:
		case HTTP_EXPECT: /* answered here, see downstream's read_body */
			continue;
		default:
			put(&at, f->name);
			put(&at, STR(": "));
			put(&at, f->value);
			put(&at, STR("\r\n"));
		}
	}
	if (r->has_length) {
		snprintf(length, sizeof(length), "%" PRIu64, r->length);
		put(&at, STR("Content-Length: "));
		put(&at, str_from(length));
		put(&at, STR("\r\n"));
	} else if (r->has_body) {
		put(&at, STR("Transfer-Encoding: chunked\r\n"));
		x->is_chunked = true;
	}
	put(&at, STR("\r\n"));
	x->head = str_of(head, (size_t)(at - head));
	return true;
}

/* --- deadlines
 * --------------------------------------------------------------------------------------------------------------
 */

static void arm(struct exchange *x)
{
	struct loop *loop = x->r->worker->loop;
	uint64_t due = MIN(x->phase_deadline_ms, x->request_deadline_ms);

	/* Like a connection's timer: too early is put off, only too late must move. */
	if (due != UINT64_MAX && (!loop_timer_is_pending(&x->timer) || x->timer.wheel.due > due))
		loop_timer_start(loop, &x->timer, due - MIN(due, loop_now_ms(loop)));
}

static void set_phase(struct exchange *x, enum phase phase, uint64_t timeout_ms)
{
	x->phase = phase;
	x->phase_deadline_ms = timeout_ms ? loop_now_ms(x->r->worker->loop) + timeout_ms
					  : UINT64_MAX;
	arm(x);
}

/* --- the end of an attempt and of the exchange
 * -------------------------------------------------------------------------------- */

static void end_attempt(struct exchange *x, enum endpoint_outcome outcome)
{
	if (x->u) {
		upconn_close(x->u);
		x->u = NULL;
	}
	if (x->endpoint) {
		endpoint_finish(x->service, x->endpoint, outcome,
				(clock_mono_ns() - x->attempt_ns) / 1000);
		x->endpoint = NULL;
	}
}

/* Lets go of everything but the request, which may be freed right after. */
static void detach(struct exchange *x)
{
	x->is_done = true;
	list_remove(&x->waiter.node);
	loop_timer_stop(x->r->worker->loop, &x->timer);
	for (unsigned i = 0; i < x->tried_count; i++)
		endpoint_put(x->tried[i]);
	x->tried_count = 0;
	buf_fini(&x->body);
	service_put(x->service);
	x->r->sink = NULL;
}

static void give_up(struct exchange *x, unsigned status, enum request_reason reason,
		    const char *detail)
{
	struct request *r = x->r;

	/* What we lack says nothing about the instance. */
	end_attempt(x, reason == REASON_INTERNAL ? ENDPOINT_ABANDONED : ENDPOINT_FAILED);
	detach(x);
	if (status == 503)
		request_add_extra(r, STR("Retry-After"), STR("1"));
	problem_send(r, status, reason, detail);
}

/*
 * An attempt failed. Another instance is tried when nothing can have been done twice: no connection
 * was made, or the method is idempotent and no byte of an answer came; the body must still be here,
 * and retries must not be more than a fifth of all requests, or they would finish a service that is
 * already overloaded.
 */
static void attempt_failed(struct exchange *x, unsigned status, enum request_reason reason,
			   const char *detail)
{
	struct request *r = x->r;
	bool was_sent = x->head_sent > 0;
	bool is_safe = !was_sent || http_is_idempotent(r->method_id);
	/*
	 * A kept connection that the service closed meanwhile: not a failure of the service, and
	 * not held against the budget. Once a request, which then gets a connection of its own: a
	 * service that hangs or resets everything would otherwise get free copies of it.
	 */
	bool is_stale = x->u && x->u->is_reused && !x->has_answer && !x->was_stale &&
			reason == REASON_SERVICE_RESET;

	if (x->has_answer || !is_safe || !x->can_replay || (!is_stale && x->retries_left == 0)) {
		give_up(x, status, reason, detail);
		return;
	}
	if (!is_stale && !service_take_retry(x->service)) {
		give_up(x, status, reason, detail);
		return;
	}
	if (is_stale) {
		x->was_stale = true;
		upconn_close_idle(x->endpoint); /* its neighbours in the pool are as old */
	} else {
		x->retries_left--;
		if (x->tried_count < TRIED_MAX)
			x->tried[x->tried_count++] = endpoint_get(x->endpoint);
	}
	end_attempt(x, is_stale ? ENDPOINT_ABANDONED : ENDPOINT_FAILED);
	metrics_inc(&r->worker->counters.upstream_retries, 1);
	exchange_attempt(x);
}

/* The response is complete: the connection goes back if both sides are at a clean end. */
static void finish(struct exchange *x)
{
	struct request *r = x->r;
	struct upconn *u = x->u;
	bool was_sent = x->head_sent == x->head.len && x->body_complete &&
			x->body_sent == buf_len(&x->body);

	x->u = NULL;
	if (x->response_keeps && was_sent && buf_len(&u->in) == 0)
		upconn_give(u);
	else
		upconn_close(u);
	end_attempt(x, r->response.status >= 500 ? ENDPOINT_ERROR : ENDPOINT_OK);
	detach(x);
	r->down->end(r);
}

/* --- sending
 * --------------------------------------------------------------------------------------------------------------------
 */

static void send_more(struct exchange *x)
{
	struct upconn *u = x->u;

	while (u->can_write) {
		struct str head = str_sub(x->head, x->head_sent, x->head.len);
		struct str body = buf_str(&x->body);
		long n;

		body = str_sub(body, x->body_sent, body.len);
		if (head.len + body.len == 0)
			break;
		n = upconn_send(u, head, body);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			/* An early answer may be waiting in the socket: it counts more than our
			 * failure to send. */
			u->can_read = true;
			x->response_keeps = false;
			return;
		}
		x->body_sent += (size_t)n - MIN((size_t)n, head.len);
		x->head_sent += MIN((size_t)n, head.len);
		set_phase(x, x->phase, x->r->service->response_timeout_ms);
	}
	if (!x->can_replay && x->body_sent) {
		buf_consume(&x->body, x->body_sent);
		x->body_sent = 0;
	}
	if (!x->body_complete && buf_len(&x->body) - x->body_sent < BODY_HIGH / 2)
		x->r->down->read_body(x->r);
}

static bool sink_data(struct request *r, struct str data)
{
	struct exchange *x = exchange_of(r);

	if (x->can_replay && x->body_total + data.len > REPLAY_MAX && x->phase >= PHASE_RESPONSE) {
		/* Too long to keep for another attempt. */
		x->can_replay = false;
		buf_consume(&x->body, x->body_sent);
		x->body_sent = 0;
	}
	x->body_total += data.len;
	if (x->is_chunked) {
		char head[HTTP1_CHUNK_HEAD_MAX];

		buf_append(&x->body, head, http1_chunk_head(head, data.len));
		buf_add(&x->body, data);
		buf_append(&x->body, "\r\n", 2);
	} else {
		buf_add(&x->body, data);
	}
	if (buf_failed(&x->body)) {
		give_up(x, 503, REASON_INTERNAL, "out of memory");
		return false;
	}
	if (x->u && x->phase >= PHASE_RESPONSE)
		send_more(x);
	return !x->is_done && buf_len(&x->body) - x->body_sent < BODY_HIGH;
}

static void sink_end(struct request *r)
{
	struct exchange *x = exchange_of(r);

	x->body_complete = true;
	if (x->is_chunked)
		buf_append(&x->body, "0\r\n\r\n", 5);
	if (x->u && x->phase >= PHASE_RESPONSE)
		send_more(x);
}

/* --- receiving
 * --------------------------------------------------------------------------------------------------------------------
 */

/* Fields that describe our connection to the service, not the response. */
static bool is_connection_field(enum http_name id)
{
	switch (id) {
	case HTTP_CONTENT_LENGTH:
	case HTTP_TRANSFER_ENCODING:
		return true;
	default:
		return false;
	}
}

/* Turns the parsed head into the response. False: answered otherwise. */
static bool begin_response(struct exchange *x, const struct http1_head *head)
{
	struct request *r = x->r;
	struct headers *headers = &r->response.headers;
	size_t kept = 0;

	if (!response_init(r, head->status, head->fields, head->field_count)) {
		give_up(x, 503, REASON_INTERNAL, "out of memory");
		return false;
	}
	headers_strip_hop_by_hop(headers);
	for (size_t i = 0; i < headers->count; i++) {
		if (!is_connection_field(headers->fields[i].id))
			headers->fields[kept++] = headers->fields[i];
	}
	headers->count = kept;
	r->response.has_body = head->framing != HTTP1_NO_BODY;
	/* HEAD and 304 announce a length without sending it; 204 has none (RFC 9110 8.6). */
	r->response.has_length = head->has_content_length && head->status != 204;
	r->response.length = head->content_length;
	if (!r->response.has_length && !r->response.has_body && r->method_id != METHOD_HEAD &&
	    head->status >= 200 && head->status != 204 && head->status != 304) {
		r->response.has_length = true;
		r->response.length = 0;
	}
	if (!pipeline_response(r)) {
		give_up(x, 502, REASON_SERVICE_GARBAGE, "the service sent too many headers");
		return false;
	}
	response_send_head(r);
	return true;
}

/* Reads the heads that are there: interim ones, which end here, and the final one. */
static void receive_head(struct exchange *x)
{
	static __thread struct http1_head head;
	struct request *r = x->r;
	struct upconn *u = x->u;
	long len;

	for (;;) {
		len = http1_parse_response(&head, &x->scan, buf_str(&u->in), &http1_default_limits,
					   r->method_id);
		if (len == 0)
			return;
		if (len < 0 || head.status == 101) {
			attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
				       "the service sent an invalid response");
			return;
		}
		x->scan = (struct http1_scan) { 0 };
		if (head.status >= 200)
			break;
		buf_consume(&u->in, (size_t)len);
		if (++x->interim > INTERIM_MAX) {
			attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
				       "the service sent too many interim responses");
			return;
		}
	}
	r->answered_ns = clock_mono_ns();
	x->response_keeps = head.keeps_alive && head.framing != HTTP1_UNTIL_CLOSE;
	if (!begin_response(x, &head))
		return;
	buf_consume(&u->in, (size_t)len);
	http1_body_init(&x->decoder, &head);
	set_phase(x, PHASE_BODY, r->service->response_timeout_ms);
}

/* Body bytes straight from the socket into what the client will get. Returns false when the
 * ordinary way must be taken. */
static bool receive_direct(struct exchange *x)
{
	struct request *r = x->r;
	size_t want = (size_t)MIN(x->decoder.left, (uint64_t)16384);
	size_t room;
	char *at;
	long n;

	if (x->decoder.framing != HTTP1_LENGTH || x->decoder.left == 0 || buf_len(&x->u->in))
		return false;
	at = r->down->reserve(r, want, &room);
	if (!at)
		return false;
	n = upconn_read(x->u, at, (size_t)MIN(x->decoder.left, (uint64_t)room));
	if (n > 0) {
		x->decoder.left -= (uint64_t)n;
		x->is_paused = !r->down->commit(r, (size_t)n);
		set_phase(x, PHASE_BODY, r->service->response_timeout_ms);
	} else if (n != -EAGAIN && n != 0) {
		x->u->has_eof = true;
	}
	return true;
}

static void receive_body(struct exchange *x)
{
	struct request *r = x->r;
	struct upconn *u = x->u;
	size_t consumed;
	struct str data;

	switch (http1_body_next(&x->decoder, buf_str(&u->in), &consumed, &data)) {
	case HTTP1_BODY_DATA:
		x->is_paused = !r->down->data(r, data);
		buf_consume(&u->in, consumed);
		break;
	case HTTP1_BODY_MORE:
		buf_consume(&u->in, consumed);
		break;
	case HTTP1_BODY_END:
		buf_consume(&u->in, consumed);
		finish(x);
		break;
	case HTTP1_BODY_BAD:
		give_up(x, 502, REASON_SERVICE_GARBAGE, "the service sent a malformed body");
		break;
	}
}

/* The service closed its side. */
static void receive_eof(struct exchange *x)
{
	if (x->phase == PHASE_BODY && x->decoder.framing == HTTP1_UNTIL_CLOSE) {
		finish(x);
		return;
	}
	attempt_failed(x, 502, REASON_SERVICE_RESET,
		       "the service closed the connection before its response was complete");
}

static void receive_more(struct exchange *x)
{
	while (!x->is_done && x->u && !x->is_paused) {
		struct upconn *u = x->u;
		long n;

		if (x->phase == PHASE_BODY &&
		    (buf_len(&u->in) || x->decoder.framing == HTTP1_NO_BODY ||
		     (x->decoder.framing == HTTP1_LENGTH && x->decoder.left == 0))) {
			receive_body(x);
			continue;
		}
		if (u->has_eof) {
			receive_eof(x);
			return;
		}
		if (!u->can_read)
			return;
		if (x->phase == PHASE_BODY && receive_direct(x))
			continue;
		n = upconn_fill(u);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			attempt_failed(x, 502, REASON_SERVICE_RESET,
				       "the service reset the connection");
			return;
		}
		if (n == 0)
			continue;
		x->has_answer = true;
		if (x->phase == PHASE_RESPONSE)
			receive_head(x);
		else
			set_phase(x, PHASE_BODY, x->r->service->response_timeout_ms);
	}
}

static void sink_resume(struct request *r)
{
	struct exchange *x = exchange_of(r);

	x->is_paused = false;
	receive_more(x);
}

static void sink_cancel(struct request *r)
{
	struct exchange *x = exchange_of(r);

	end_attempt(x, ENDPOINT_ABANDONED);
	detach(x);
}

static const struct sink_ops exchange_sink = {
	.data = sink_data,
	.end = sink_end,
	.resume = sink_resume,
	.cancel = sink_cancel,
};

/* --- attempts
 * ----------------------------------------------------------------------------------------------------------------------
 */

static void on_connected(struct exchange *x)
{
	x->u->is_connected = true;
	x->u->can_write = true;
	x->r->connected_ns = clock_mono_ns();
	set_phase(x, PHASE_RESPONSE, x->r->service->response_timeout_ms);
}

static void on_upconn(struct upconn *u, void *arg)
{
	struct exchange *x = arg;

	if (x->phase == PHASE_CONNECT) {
		if (net_socket_error(u->io.fd) < 0) {
			attempt_failed(x, 502, REASON_CONNECT_FAILED,
				       "no connection to the service");
			return;
		}
		if (!u->can_write)
			return;
		on_connected(x);
	}
	send_more(x);
	if (!x->is_done && x->u == u)
		receive_more(x);
}

static void on_timer(struct loop_timer *timer)
{
	struct exchange *x = container_of(timer, struct exchange, timer);
	uint64_t now = loop_now_ms(x->r->worker->loop);

	if (now >= x->request_deadline_ms) {
		give_up(x, 504, REASON_REQUEST_TIMEOUT, "the request took too long");
	} else if (now < x->phase_deadline_ms) {
		arm(x);
	} else if (x->phase == PHASE_LIST) {
		give_up(x, 503, REASON_NO_INSTANCE,
			"the instances of the service are not known yet");
	} else if (x->phase == PHASE_CONNECT) {
		attempt_failed(x, 504, REASON_CONNECT_TIMEOUT,
			       "no connection to the service in time");
	} else if (x->is_paused || (!x->body_complete && x->body_sent == buf_len(&x->body))) {
		/* The client holds things up, not the service; its own deadlines watch it. */
		set_phase(x, x->phase, x->r->service->response_timeout_ms);
	} else {
		attempt_failed(x, 504, REASON_RESPONSE_TIMEOUT,
			       "the service did not answer in time");
	}
}

static void on_known(struct service_waiter *waiter)
{
	exchange_attempt(container_of(waiter, struct exchange, waiter));
}

/* Our own shortage: another instance would not help, and none is to blame. */
static bool is_shortage(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

static enum upconn_choice choose_connection(const struct exchange *x)
{
	if (x->was_stale)
		return UPCONN_FRESH;
	return http_is_idempotent(x->r->method_id) ? UPCONN_ANY : UPCONN_CHECKED;
}

static void exchange_attempt(struct exchange *x)
{
	struct request *r = x->r;
	int rc;

	x->head_sent = x->body_sent = 0;
	x->scan = (struct http1_scan) { 0 };
	x->interim = 0;
	if (!x->service->is_known) {
		/* Just named by a reload, or we just started: its list is on its way. */
		list_add_tail(&x->service->waiters, &x->waiter.node);
		set_phase(x, PHASE_LIST, r->service->connect_timeout_ms);
		return;
	}
	x->endpoint = service_choose(x->service, x->tried, x->tried_count);
	if (!x->endpoint) {
		if (x->tried_count)
			give_up(x, 502, REASON_CONNECT_FAILED,
				"no instance of the service could be reached");
		else
			give_up(x, 503, REASON_NO_INSTANCE,
				"no instance of the service is available");
		return;
	}
	r->attempts++;
	r->upstream = x->endpoint->addr;
	x->attempt_ns = clock_mono_ns();
	if (!r->forward_ns)
		r->forward_ns = x->attempt_ns;
	rc = upconn_take(&x->u, x->service, x->endpoint, choose_connection(x));
	if (is_shortage(rc)) {
		give_up(x, 503, REASON_INTERNAL, "no descriptors or memory left for a connection");
		return;
	}
	if (rc < 0) {
		attempt_failed(x, 502, REASON_CONNECT_FAILED, "no connection to the service");
		return;
	}
	x->u->on_event = on_upconn;
	x->u->arg = x;
	if (x->u->is_reused) {
		on_connected(x);
		send_more(x);
		if (!x->is_done && x->u && x->u->can_read)
			receive_more(x);
	} else {
		set_phase(x, PHASE_CONNECT, r->service->connect_timeout_ms);
	}
}

void exchange_start(struct request *r, struct service *s)
{
	struct exchange *x = arena_new(&r->arena, struct exchange);

	if (!x) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	x->r = r;
	if (!build_head(x)) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	x->service = service_get(s);
	x->retries_left = r->service->retries;
	x->can_replay = true;
	x->body_complete = !r->has_body;
	x->timer.on_fire = on_timer;
	x->waiter.on_known = on_known;
	list_init(&x->waiter.node);
	x->phase_deadline_ms = UINT64_MAX;
	x->request_deadline_ms = r->service->request_timeout_ms
					 ? r->begin_ns / NSEC_PER_MSEC +
						   r->service->request_timeout_ms
					 : UINT64_MAX;
	buf_init(&x->body, 16 * BODY_HIGH);
	r->sink = &exchange_sink;
	r->sink_state = x;
	service_earn_retry(s);
	exchange_attempt(x);
	if (!x->is_done && r->has_body)
		r->down->read_body(r);
}
