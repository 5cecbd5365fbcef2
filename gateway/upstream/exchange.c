/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/exchange.h"

#include <errno.h>

#include "gateway/http/grpc.h"
#include "gateway/pipeline.h"
#include "gateway/problem.h"
#include "gateway/routing/request_key.h"
#include "gateway/snapshot.h"
#include "gateway/upstream/exchange_impl.h"
#include "gateway/upstream/tunnel.h"
#include "gateway/upstream/upconn.h"
#include "lib/clock.h"

#define REPLAY_MAX (64UL * 1024) /* request bodies up to this can be sent again */

static void exchange_attempt(struct exchange *x);

static struct exchange *exchange_of(struct request *r)
{
	return r->sink_state;
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

void exchange_set_phase(struct exchange *x, enum exchange_phase phase, uint64_t timeout_ms)
{
	x->phase = phase;
	x->phase_deadline_ms = timeout_ms ? loop_now_ms(x->r->worker->loop) + timeout_ms
					  : UINT64_MAX;
	arm(x);
}

void exchange_moved(struct exchange *x, enum exchange_phase phase)
{
	const struct gw_service *conf = x->r->service;
	uint64_t timeout_ms = conf->response_timeout_ms;

	/* A pause of a gRPC stream between two messages may be as long as its deadline allows;
	 * whether the service still lives is asked with PING. */
	if (phase == PHASE_BODY)
		timeout_ms = x->is_grpc ? 0 : conf->stream_idle_timeout_ms;
	exchange_set_phase(x, phase, timeout_ms);
}

/* --- the end of an attempt and of the exchange
 * -------------------------------------------------------------------------------- */

static void end_attempt(struct exchange *x, enum endpoint_outcome outcome)
{
	x->wire->close(x);
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
	service_end_wait(&x->waiter);
	loop_timer_stop(x->r->worker->loop, &x->timer);
	for (unsigned i = 0; i < x->tried_count; i++)
		endpoint_put(x->tried[i]);
	x->tried_count = 0;
	buf_fini(&x->body);
	buf_fini(&x->h1.trailers);
	if (x->is_entered)
		service_leave(x->service, x->is_probe);
	service_put(x->service);
	x->r->sink = NULL;
}

void exchange_give_up(struct exchange *x, unsigned status, enum request_reason reason,
		      const char *detail)
{
	struct request *r = x->r;

	/* What we lack says nothing about the instance. */
	end_attempt(x, reason == REASON_INTERNAL || reason == REASON_SERVICE_BUSY ||
				       (reason == REASON_REQUEST_TIMEOUT && x->is_client_deadline)
			       ? ENDPOINT_ABANDONED
			       : ENDPOINT_FAILED);
	detach(x);
	if (status == 503)
		problem_retry_after(r, x->retry_ms ? x->retry_ms : MSEC_PER_SEC);
	problem_send(r, status, reason, detail);
}

/* Besides the one that is being asked and those that were. */
static bool has_another(const struct exchange *x)
{
	return x->service->count > x->tried_count + 1 && x->tried_count < EXCHANGE_TRIED_MAX;
}

/*
 * An attempt failed. Another instance is tried when nothing can have been done twice: no connection
 * was made, or the method is idempotent and no byte of an answer came; the body must still be here,
 * and retries must not be more than a fifth of all requests, or they would finish a service that is
 * already overloaded.
 */
void exchange_attempt_failed(struct exchange *x, unsigned status, enum request_reason reason,
			     const char *detail)
{
	struct request *r = x->r;
	bool is_safe = !x->was_sent || http_is_idempotent(r->method_id);
	/*
	 * A kept connection that the service closed meanwhile: not a failure of the service, and
	 * not held against the budget. Once a request, which then gets a connection of its own: a
	 * service that hangs or resets everything would otherwise get free copies of it.
	 */
	bool is_stale = x->is_reused && !x->has_answer && !x->was_stale &&
			reason == REASON_SERVICE_RESET;

	x->failure.status = status;
	x->failure.reason = reason;
	x->failure.detail = detail;
	if (x->has_answer || !is_safe || !x->can_replay || (!is_stale && x->retries_left == 0)) {
		exchange_give_up(x, status, reason, detail);
		return;
	}
	if (!is_stale && (!has_another(x) || !service_take_retry(x->service))) {
		exchange_give_up(x, status, reason, detail);
		return;
	}
	if (is_stale) {
		x->was_stale = true;
		upconn_close_idle(x->endpoint); /* its neighbours in the pool are as old */
	} else {
		x->retries_left--;
		if (x->tried_count < EXCHANGE_TRIED_MAX)
			x->tried[x->tried_count++] = endpoint_get(x->endpoint);
	}
	end_attempt(x, is_stale ? ENDPOINT_ABANDONED : ENDPOINT_FAILED);
	metrics_inc(&r->worker->counters.upstream_retries, 1);
	exchange_attempt(x);
}

/* An answer that is as good as none (`retry_on`). It is the client's unless another instance can be
 * asked. */
static bool is_tried_elsewhere(struct exchange *x, unsigned status)
{
	struct request *r = x->r;

	if (!gw_statuses_have(&r->service->retry_on, status) || !x->can_replay ||
	    x->retries_left == 0 || !http_is_idempotent(r->method_id) || !has_another(x) ||
	    !service_take_retry(x->service))
		return false;
	x->retries_left--;
	x->tried[x->tried_count++] = endpoint_get(x->endpoint);
	x->has_answer = false;
	x->failure.status = 502;
	x->failure.reason = REASON_CONNECT_FAILED;
	x->failure.detail = "no instance of the service could be reached";
	end_attempt(x, status >= 500 ? ENDPOINT_ERROR : ENDPOINT_OK);
	metrics_inc(&r->worker->counters.upstream_retries, 1);
	exchange_attempt(x);
	return true;
}

/*
 * The instance ends, or has too much to do. Once a request this is no failure and costs nothing, so
 * that restarts of instances are not seen by anybody; after that it is as any other failure, but
 * for what may be repeated.
 */
void exchange_refused(struct exchange *x)
{
	x->was_sent = x->is_reused = false; /* a connection that refuses is not stale */
	if (x->was_refused || x->has_answer || !x->can_replay) {
		exchange_attempt_failed(x, 502, REASON_SERVICE_RESET,
					"the service refused the request");
		return;
	}
	x->was_refused = true;
	x->failure.status = 502;
	x->failure.reason = REASON_SERVICE_RESET;
	x->failure.detail = "the service refused the request";
	if (x->service->count > 1 && x->tried_count < EXCHANGE_TRIED_MAX)
		x->tried[x->tried_count++] = endpoint_get(x->endpoint);
	end_attempt(x, ENDPOINT_ABANDONED);
	metrics_inc(&x->r->worker->counters.upstream_retries, 1);
	exchange_attempt(x);
}

static bool is_error(const struct request *r)
{
	return r->response.status >= 500 || (r->has_grpc_status && grpc_is_fault(r->grpc_status));
}

void exchange_finish(struct exchange *x)
{
	struct request *r = x->r;

	x->wire->finish(x);
	end_attempt(x, is_error(r) ? ENDPOINT_ERROR : ENDPOINT_OK);
	detach(x);
	r->down->end(r);
}

/* --- the request body
 * --------------------------------------------------------------------------------------------------------------------
 */

void exchange_body_moved(struct exchange *x)
{
	if (!x->can_replay && x->body_sent) {
		buf_consume(&x->body, x->body_sent);
		x->body_sent = 0;
	}
	if (!x->body_complete && exchange_body_left(x) < EXCHANGE_BODY_HIGH / 2)
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
		exchange_give_up(x, 503, REASON_INTERNAL, "out of memory");
		return false;
	}
	if (x->phase >= PHASE_RESPONSE)
		x->wire->send(x);
	return !x->is_done && exchange_body_left(x) < EXCHANGE_BODY_HIGH;
}

/* Nothing comes behind a body that would not have been let through before it. */
static void strip_trailers(struct request *r)
{
	headers_strip_trailers(&r->trailers);
	headers_guard_strip(r->conf->snapshot->guard, &r->trailers,
			    r->conf->snapshot->conf.defaults.underscores_in_headers);
	headers_rules_strip(r->route->request, &r->trailers);
}

static void sink_end(struct request *r)
{
	struct exchange *x = exchange_of(r);

	x->body_complete = true;
	strip_trailers(r);
	if (x->is_chunked) {
		buf_append(&x->body, "0\r\n", 3);
		for (size_t i = 0; i < r->trailers.count; i++) {
			buf_add(&x->body, r->trailers.fields[i].name);
			buf_append(&x->body, ": ", 2);
			buf_add(&x->body, r->trailers.fields[i].value);
			buf_append(&x->body, "\r\n", 2);
		}
		buf_append(&x->body, "\r\n", 2);
	}
	if (x->phase >= PHASE_RESPONSE)
		x->wire->send(x);
}

/* --- the response
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

/* The fields of a head without those that belong to our connection. */
static bool copy_head(struct request *r, const struct exchange_head *head)
{
	struct headers *headers = &r->response.headers;
	size_t kept = 0;

	if (!response_init(r, head->status, head->fields, head->field_count))
		return false;
	headers_strip_hop_by_hop(headers);
	for (size_t i = 0; i < headers->count; i++) {
		if (!is_connection_field(headers->fields[i].id))
			headers->fields[kept++] = headers->fields[i];
	}
	headers->count = kept;
	return true;
}

bool exchange_begin_response(struct exchange *x, const struct exchange_head *head)
{
	struct request *r = x->r;

	if (is_tried_elsewhere(x, head->status))
		return false;
	r->answered_ns = clock_mono_ns();
	if (!copy_head(r, head)) {
		exchange_give_up(x, 503, REASON_INTERNAL, "out of memory");
		return false;
	}
	r->is_tunnel = head->status == 101;
	r->response.has_body = head->has_body;
	/* HEAD and 304 announce a length without sending it; 204 has none (RFC 9110 8.6). */
	r->response.has_length = head->has_length && head->status != 204;
	r->response.length = head->length;
	if (!r->response.has_length && !r->response.has_body && !x->is_grpc &&
	    r->method_id != METHOD_HEAD && head->status >= 200 && head->status != 204 &&
	    head->status != 304) {
		r->response.has_length = true;
		r->response.length = 0;
	}
	if (!pipeline_response(r)) {
		exchange_give_up(x, 502, REASON_SERVICE_GARBAGE,
				 "the service sent too many headers");
		return false;
	}
	response_send_head(r);
	return true;
}

void exchange_take_trailers(struct exchange *x, const struct headers *trailers)
{
	struct request *r = x->r;
	struct headers *h = &r->response.trailers;

	h->fields = arena_alloc(&r->arena, (trailers->count + 1) * sizeof(*h->fields));
	if (!h->fields)
		return;
	h->count = h->max = trailers->count;
	if (h->count)
		memcpy(h->fields, trailers->fields, h->count * sizeof(*h->fields));
	headers_strip_trailers(h);
	headers_rules_strip(r->route->response, h);
}

/*
 * To the client as RFC 9110 15.2 has it, but for 100: it was told to continue by us, if it asked at
 * all. One for which there is no room is left out, they are only hints.
 */
void exchange_pass_interim(struct exchange *x, const struct exchange_head *head)
{
	struct request *r = x->r;

	if (head->status == 100 || !copy_head(r, head) || !pipeline_response(r))
		return;
	r->down->interim(r);
}

void exchange_become_tunnel(struct exchange *x, const struct exchange_head *head, size_t len)
{
	struct request *r = x->r;
	struct service *service = service_get(x->service);
	struct endpoint *endpoint = x->endpoint;
	struct upconn *u = x->h1.u;
	uint64_t latency_us = (clock_mono_ns() - x->attempt_ns) / 1000;

	if (!exchange_begin_response(x, head)) {
		service_put(service);
		return;
	}
	buf_consume(&u->in, len);
	x->h1.u = NULL;
	x->endpoint = NULL;
	/* The tunnel keeps the place; that it was agreed on is what the probe was for. */
	if (x->is_probe)
		service_end_probe(service);
	x->is_entered = false;
	detach(x);
	tunnel_start(r, u, service, endpoint, latency_us);
}

static void sink_resume(struct request *r)
{
	struct exchange *x = exchange_of(r);

	x->is_paused = false;
	if (x->phase >= PHASE_RESPONSE)
		x->wire->receive(x);
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

void exchange_connected(struct exchange *x)
{
	x->r->connected_ns = clock_mono_ns();
	exchange_moved(x, PHASE_RESPONSE);
}

static void on_timer(struct loop_timer *timer)
{
	struct exchange *x = container_of(timer, struct exchange, timer);
	uint64_t now = loop_now_ms(x->r->worker->loop);

	if (now >= x->request_deadline_ms) {
		exchange_give_up(x, 504, REASON_REQUEST_TIMEOUT, "the request took too long");
	} else if (now < x->phase_deadline_ms) {
		arm(x);
	} else if (x->phase == PHASE_PLACE) {
		circuit_count_busy(x->waiter.circuit);
		exchange_give_up(x, 503, REASON_SERVICE_BUSY,
				 "the service had enough to do for too long");
	} else if (x->phase == PHASE_LIST) {
		exchange_give_up(x, 503, REASON_NO_INSTANCE,
				 "the instances of the service are not known yet");
	} else if (x->phase == PHASE_CONNECT) {
		exchange_attempt_failed(x, 504, REASON_CONNECT_TIMEOUT,
					"no connection to the service in time");
	} else if (x->is_paused || (!x->body_complete && exchange_body_left(x) == 0)) {
		/* The client holds things up, not the service; its own deadlines watch it. */
		exchange_moved(x, x->phase);
	} else {
		exchange_attempt_failed(x, 504, REASON_RESPONSE_TIMEOUT,
					"the service did not answer in time");
	}
}

static bool enter(struct exchange *x, bool has_waited);

/* A place may be free, or the list is there. */
static void on_known(struct service_waiter *waiter)
{
	struct exchange *x = container_of(waiter, struct exchange, waiter);

	if (x->is_entered) {
		exchange_attempt(x);
		return;
	}
	if (!enter(x, true))
		return;
	service_end_wait(waiter);
	exchange_attempt(x);
}

/* Our own shortage: another instance would not help, and none is to blame. */
static bool is_shortage(int rc)
{
	return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS;
}

/* False: there is none, and the client knows. */
static bool choose(struct exchange *x)
{
	const struct gw_service *conf = x->r->service;
	struct pick_query q = { .tried = x->tried, .tried_count = x->tried_count };
	struct service *s = x->service;

	if (conf->hash_on.kind)
		q.key = request_key_hash(&conf->hash_on, x->r);
	x->endpoint = service_choose(s, &q);
	if (x->endpoint)
		return true;
	if (x->tried_count) {
		exchange_give_up(x, x->failure.status, x->failure.reason, x->failure.detail);
	} else if (s->count && s->max_concurrent_per_instance) {
		circuit_count_busy(s->circuit);
		exchange_give_up(x, 503, REASON_SERVICE_BUSY,
				 "all instances of the service have enough to do");
	} else {
		exchange_give_up(x, 503, REASON_NO_INSTANCE,
				 "no instance of the service is available");
	}
	return false;
}

static void exchange_attempt(struct exchange *x)
{
	struct request *r = x->r;
	int rc;

	x->phase = PHASE_CONNECT;
	x->body_sent = 0;
	x->interim = 0;
	x->was_sent = x->is_reused = false;
	if (!x->service->is_known) {
		/* Just named by a reload, or we just started: its list is on its way. */
		list_add_tail(&x->service->waiters, &x->waiter.node);
		exchange_set_phase(x, PHASE_LIST, r->service->connect_timeout_ms);
		return;
	}
	if (!choose(x))
		return;
	r->attempts++;
	r->upstream = x->endpoint->addr;
	x->attempt_ns = clock_mono_ns();
	if (!r->forward_ns)
		r->forward_ns = x->attempt_ns;
	rc = x->wire->open(x);
	if (rc == -EUSERS) {
		circuit_count_busy(x->service->circuit);
		exchange_give_up(x, 503, REASON_SERVICE_BUSY,
				 "the service has as many connections as it may have");
		return;
	}
	if (is_shortage(rc)) {
		exchange_give_up(x, 503, REASON_INTERNAL,
				 "no descriptors or memory left for a connection");
		return;
	}
	if (rc < 0)
		exchange_attempt_failed(x, 502, REASON_CONNECT_FAILED,
					"no connection to the service");
}

/* The service's time limit, or what a gRPC client asks for when that is less. */
static void set_deadline(struct exchange *x)
{
	const struct request *r = x->r;
	uint64_t begin_ms = r->begin_ns / NSEC_PER_MSEC, timeout_ms;
	const struct http_field *f = x->is_grpc
					     ? http_find_name(r->headers.fields, r->headers.count,
							      STR("grpc-timeout"))
					     : NULL;

	x->request_deadline_ms = r->service->request_timeout_ms
					 ? begin_ms + r->service->request_timeout_ms
					 : UINT64_MAX;
	if (!f || !grpc_parse_timeout(f->value, &timeout_ms) ||
	    timeout_ms >= x->request_deadline_ms - begin_ms)
		return;
	x->request_deadline_ms = begin_ms + timeout_ms;
	x->is_client_deadline = true;
}

/* Limits of the service as a whole, of all workers. False: it waits, or was refused. */
static bool enter(struct exchange *x, bool has_waited)
{
	struct service *s = x->service;
	uint64_t retry_ms = MSEC_PER_SEC;
	enum service_verdict verdict = service_enter(s, has_waited, &retry_ms);

	x->is_entered = verdict == SERVICE_GO || verdict == SERVICE_PROBE;
	x->is_probe = verdict == SERVICE_PROBE;
	if (x->is_entered) {
		if (!x->r->is_mirror)
			service_earn_retry(s);
		return true;
	}
	if (verdict == SERVICE_BUSY && service_wait(s, &x->waiter)) {
		/* All of the wait has one limit, however often it is in vain. */
		if (!has_waited)
			exchange_set_phase(x, PHASE_PLACE, x->r->service->pending_timeout_ms);
		return false;
	}
	if (verdict == SERVICE_BUSY)
		circuit_count_busy(s->circuit);
	x->retry_ms = retry_ms;
	exchange_give_up(x, 503,
			 verdict == SERVICE_BUSY ? REASON_SERVICE_BUSY : REASON_CIRCUIT_OPEN,
			 verdict == SERVICE_BUSY ? "the service has enough to do"
						 : "too much of the service fails at the moment");
	return false;
}

void exchange_start(struct request *r, struct service *s)
{
	struct exchange *x = arena_new(&r->arena, struct exchange);

	if (!x) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	x->r = r;
	x->wire = r->service->protocol == GW_HTTP1 ? &upstream_http1 : &upstream_http2;
	x->is_grpc = x->wire == &upstream_http2 && (request_is_grpc(r) || r->transcode);
	if (!x->wire->prepare(x)) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	x->service = service_get(s);
	x->retries_left = r->service->retries;
	x->can_replay = !r->is_mirror;
	x->body_complete = !r->has_body;
	x->timer.on_fire = on_timer;
	x->waiter.on_known = on_known;
	list_init(&x->waiter.node);
	x->phase_deadline_ms = UINT64_MAX;
	set_deadline(x);
	buf_init(&x->body, 16 * EXCHANGE_BODY_HIGH);
	r->sink = &exchange_sink;
	r->sink_state = x;
	if (enter(x, false))
		exchange_attempt(x);
	if (!x->is_done && r->has_body)
		r->down->read_body(r);
}
