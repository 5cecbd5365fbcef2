/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/http1.h"

#include "gateway/http/http2.h"
#include "gateway/pipeline.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "lib/http1.h"
#include "lib/tls.h"

/* An answered request whose body still comes: read and drop this much to keep the connection, else
 * close it. */
#define DRAIN_BYTES (64UL * 1024)
/* Slow bodies: at least 500 bytes a second over time, beyond body_timeout_ms of patience. */
#define BODY_MS_PER_BYTE 2
/* Pipelined requests and pieces of bodies; then the worker's other connections have their turn. */
#define STEPS_PER_ROUND 32

enum http1_wait {
	WAIT_NONE,
	WAIT_IDLE,
	WAIT_LAST, /* idle while the worker drains: for a request that is on its way */
	WAIT_HEAD,
	WAIT_BODY
};

struct http1 {
	struct conn *conn;
	struct request *r; /* NULL between requests */
	struct http1_scan scan;
	struct http1_body body; /* of the request, see http1_body_is_done */
	struct buf trailers;    /* behind it, as they came */
	enum http1_wait wait;
	uint64_t out_left;     /* of a response body with a length */
	uint64_t body_bytes;   /* of the request's body so far */
	uint64_t drained;      /* bytes of a body that nobody wanted any more */
	uint64_t wait_from_ms; /* when we began to wait for body bytes */
	int64_t body_credit_ms;
	uint64_t served;    /* requests of this connection */
	bool keeps_alive;   /* after the current response */
	bool is_old;        /* the client speaks HTTP/1.0 */
	bool wants_body;    /* the sink takes body bytes now */
	bool owes_continue; /* the client waits for 100 before it sends the body */
	bool is_chunked_out;
	bool is_cut;
	bool is_paused; /* the sink waits until the client took what is queued */
	bool out_ended; /* of a tunnel: the service sent its last byte */
	bool in_ended;  /* ... the client did */
};

static struct http1 *http1_of(struct request *r)
{
	return r->down_state;
}

/* --- responses
 * ------------------------------------------------------------------------------------------------------
 */

static void out_cut(struct http1 *h)
{
	h->is_cut = true;
	h->r->is_ended = true;
	conn_kick(h->conn);
}

static void put(char **at, struct str s)
{
	memcpy(*at, s.p, s.len);
	*at += s.len;
}

/* Bytes that a head with these fields takes at most. */
static size_t head_size(const struct request *r)
{
	size_t size = 256;

	for (size_t i = 0; i < r->response.headers.count; i++)
		size += r->response.headers.fields[i].name.len +
			r->response.headers.fields[i].value.len + 4;
	return size;
}

static void put_number(char **at, uint64_t v)
{
	char digits[20];
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	put(at, str_of(digits + i, sizeof(digits) - i));
}

static void put_framing(struct http1 *h, char **at)
{
	const struct response *response = &h->r->response;

	h->is_chunked_out = false;
	h->out_left = 0;
	if (response->has_length) {
		put(at, STR("Content-Length: "));
		put_number(at, response->length);
		put(at, STR("\r\n"));
		h->out_left = response->has_body ? response->length : 0;
	} else if (response->has_body && !h->is_old) {
		put(at, STR("Transfer-Encoding: chunked\r\n"));
		h->is_chunked_out = true;
	} else if (response->has_body) {
		h->keeps_alive =
			false; /* HTTP/1.0: the end of the connection is the end of the body */
	}
}

/* Status line and fields. */
static void put_head(const struct response *response, char **at)
{
	put(at, STR("HTTP/1.1 "));
	put_number(at, response->status);
	put(at, STR(" "));
	put(at, str_from(http_reason(response->status)));
	put(at, STR("\r\n"));
	for (size_t i = 0; i < response->headers.count; i++) {
		const struct http_field *f = &response->headers.fields[i];

		put(at, f->name);
		put(at, STR(": "));
		put(at, f->value);
		put(at, STR("\r\n"));
	}
}

/* A head without a body: 1xx, of which 101 says what the connection is from now on. */
static bool put_interim(struct http1 *h, struct str more)
{
	size_t room;
	char *head = conn_reserve(h->conn, head_size(h->r), &room);
	char *at = head;

	if (!head) {
		out_cut(h);
		return false;
	}
	put_head(&h->r->response, &at);
	put(&at, more);
	put(&at, STR("\r\n"));
	buf_commit(&h->conn->out, (size_t)(at - head));
	conn_kick(h->conn);
	return true;
}

static void down_interim(struct request *r)
{
	struct http1 *h = http1_of(r);

	/* HTTP/1.0 knows no interim answers (RFC 9110 15.2). */
	if (!h->is_old && !r->is_ended)
		put_interim(h, STR(""));
}

static void down_head(struct request *r)
{
	struct http1 *h = http1_of(r);
	const struct response *response = &r->response;
	size_t size = head_size(r), room;
	char *head, *at;

	if (r->is_tunnel) {
		h->keeps_alive = h->is_chunked_out = false;
		put_interim(h, STR("Upgrade: websocket\r\nConnection: Upgrade\r\n"));
		return;
	}
	head = at = conn_reserve(h->conn, size, &room);
	if (!head) {
		out_cut(h);
		return;
	}
	if (h->conn->worker->is_draining)
		h->keeps_alive = false;
	put_head(response, &at);
	if (!http_find(response->headers.fields, response->headers.count, HTTP_DATE)) {
		put(&at, STR("Date: "));
		put(&at, worker_http_date(h->conn->worker));
		put(&at, STR("\r\n"));
	}
	put_framing(h, &at);
	/* What will not be kept is said; what is kept is said only to HTTP/1.0, where it is not the
	 * default. */
	if (!h->keeps_alive)
		put(&at, STR("Connection: close\r\n"));
	else if (h->is_old)
		put(&at, STR("Connection: keep-alive\r\n"));
	put(&at, STR("\r\n"));
	buf_commit(&h->conn->out, (size_t)(at - head));
	conn_kick(h->conn);
}

/* After more output was queued: whether the producer may go on. */
static bool keep_going(struct http1 *h)
{
	h->is_paused = conn_is_congested(h->conn);
	conn_kick(h->conn);
	return !h->is_paused;
}

static bool down_commit(struct request *r, size_t len)
{
	struct http1 *h = http1_of(r);

	if (!h->is_chunked_out && r->response.has_length) {
		if (len > h->out_left) {
			out_cut(h);
			return false;
		}
		h->out_left -= len;
	}
	buf_commit(&h->conn->out, len);
	r->bytes_out += len;
	return keep_going(h);
}

static char *down_reserve(struct request *r, size_t want, size_t *room)
{
	struct http1 *h = http1_of(r);
	size_t queued = buf_len(&h->conn->out);
	char *at;

	if (h->is_chunked_out || r->is_ended)
		return NULL;
	at = conn_reserve(h->conn, want, room);
	/* Up to where the producer pauses and no further: what is flushed then are whole TLS
	 * records, without a small one behind them each time. */
	if (at && queued < CONN_OUT_HIGH)
		*room = MIN(*room, CONN_OUT_HIGH - queued);
	return at;
}

static bool down_data(struct request *r, struct str data)
{
	struct http1 *h = http1_of(r);
	size_t room;
	char *at;

	if (data.len == 0 || r->is_ended)
		return true;
	at = conn_reserve(h->conn, data.len + HTTP1_CHUNK_HEAD_MAX + 2, &room);
	if (!at) {
		out_cut(h);
		return false;
	}
	if (h->is_chunked_out) {
		size_t head = http1_chunk_head(at, data.len);

		memcpy(at + head, data.p, data.len);
		memcpy(at + head + data.len, "\r\n", 2);
		r->bytes_out += data.len;
		buf_commit(&h->conn->out, head + data.len + 2);
		return keep_going(h);
	}
	memcpy(at, data.p, data.len);
	return down_commit(r, data.len);
}

/* The end of a chunked body, with the trailers for clients that can read them. */
static bool put_last_chunk(struct http1 *h)
{
	const struct headers *trailers = &h->r->response.trailers;
	size_t count = h->r->accepts_trailers ? trailers->count : 0, size = 5, room;
	char *head, *at;

	for (size_t i = 0; i < count; i++)
		size += trailers->fields[i].name.len + trailers->fields[i].value.len + 4;
	head = at = conn_reserve(h->conn, size, &room);
	if (!at)
		return false;
	put(&at, STR("0\r\n"));
	for (size_t i = 0; i < count; i++) {
		put(&at, trailers->fields[i].name);
		put(&at, STR(": "));
		put(&at, trailers->fields[i].value);
		put(&at, STR("\r\n"));
	}
	put(&at, STR("\r\n"));
	buf_commit(&h->conn->out, (size_t)(at - head));
	return true;
}

static void down_end(struct request *r)
{
	struct http1 *h = http1_of(r);

	if (r->is_ended)
		return;
	if (r->is_tunnel) {
		h->out_ended = true;
		r->is_ended = !r->sink;
		conn_half_close(h->conn);
		return;
	}
	if (h->is_chunked_out) {
		if (!put_last_chunk(h)) {
			out_cut(h);
			return;
		}
	} else if (h->out_left) {
		out_cut(h); /* shorter than announced: the client must not take it for complete */
		return;
	}
	r->is_ended = true;
	conn_kick(h->conn);
}

static void down_abort(struct request *r)
{
	if (!r->is_ended)
		out_cut(http1_of(r));
}

static void down_read_body(struct request *r)
{
	struct http1 *h = http1_of(r);

	h->wants_body = true;
	if (h->owes_continue && buf_len(&h->conn->in) == 0) {
		size_t room;
		char *at = conn_reserve(h->conn, 25, &room);

		if (at) {
			memcpy(at, "HTTP/1.1 100 Continue\r\n\r\n", 25);
			buf_commit(&h->conn->out, 25);
		}
	}
	h->owes_continue = false;
	conn_kick(h->conn);
}

static const struct downstream_ops ops = {
	.head = down_head,
	.data = down_data,
	.reserve = down_reserve,
	.commit = down_commit,
	.end = down_end,
	.abort = down_abort,
	.read_body = down_read_body,
	.interim = down_interim,
};

/* --- deadlines
 * --------------------------------------------------------------------------------------------------------
 */

static void wait_for(struct http1 *h, enum http1_wait what)
{
	const struct gw_conf *conf = &h->conn->worker->conf->snapshot->conf;
	const struct gw_client *client = &conf->client;

	if (h->wait == what)
		return;
	h->wait = what;
	switch (what) {
	case WAIT_NONE:
		conn_clear_deadline(h->conn);
		break;
	case WAIT_IDLE:
		conn_set_deadline(h->conn, client->idle_timeout_ms);
		break;
	case WAIT_LAST:
		conn_set_deadline(h->conn, conf->drain_idle_ms);
		break;
	case WAIT_HEAD:
		conn_set_deadline(h->conn, client->head_timeout_ms);
		break;
	case WAIT_BODY:
		h->wait_from_ms = loop_now_ms(h->conn->worker->loop);
		conn_set_deadline(h->conn, (uint64_t)MAX(h->body_credit_ms, (int64_t)1));
		break;
	}
}

/* Bytes of the body came: time waited is paid, bytes earn time. */
static void body_progress(struct http1 *h, size_t bytes)
{
	int64_t waited;

	if (h->wait != WAIT_BODY)
		return;
	waited = (int64_t)(loop_now_ms(h->conn->worker->loop) - h->wait_from_ms);
	h->body_credit_ms += (int64_t)bytes * BODY_MS_PER_BYTE - waited;
	h->body_credit_ms =
		MIN(h->body_credit_ms,
		    (int64_t)h->conn->worker->conf->snapshot->conf.client.body_timeout_ms);
	wait_for(h, WAIT_NONE);
}

/* --- requests
 * -----------------------------------------------------------------------------------------------------------
 */

/* Moves the slices of a parsed head to where its bytes were copied. */
static void rebase(struct str *s, ptrdiff_t by)
{
	if (s->p)
		s->p += by;
}

/*
 * The head's bytes and fields move into the request's arena: the connection's buffer is needed for
 * the body and for pipelined requests, and may move.
 */
static bool adopt_head(struct request *r, struct http1_head *head, struct str bytes)
{
	struct str copy = arena_str(&r->arena, bytes);
	ptrdiff_t by;

	r->headers.max = head->field_count + REQUEST_SPARE_FIELDS;
	r->headers.fields = arena_alloc(&r->arena, r->headers.max * sizeof(struct http_field));
	if (!copy.p || !r->headers.fields)
		return false;
	by = copy.p - bytes.p;
	r->headers.count = head->field_count;
	for (size_t i = 0; i < head->field_count; i++) {
		r->headers.fields[i] = head->fields[i];
		rebase(&r->headers.fields[i].name, by);
		rebase(&r->headers.fields[i].value, by);
	}
	r->method = head->method;
	r->method_id = head->method_id;
	r->authority = head->authority;
	r->raw_path = head->path;
	r->query = head->query;
	rebase(&r->method, by);
	rebase(&r->authority, by);
	/* An absolute target without a path stands for "/", a constant outside the head. */
	if (head->path.p >= bytes.p && head->path.p < bytes.p + bytes.len)
		rebase(&r->raw_path, by);
	rebase(&r->query, by);
	return true;
}

static struct request *begin_request(struct http1 *h)
{
	struct conn *c = h->conn;
	struct request *r = conn_request_new(c, "HTTP/1.1", &ops, h);

	if (!r)
		return NULL;
	h->r = r;
	h->is_paused = false;
	h->is_cut = h->is_chunked_out = h->wants_body = h->owes_continue = false;
	h->in_ended = h->out_ended = false;
	h->drained = h->body_bytes = 0;
	buf_reset(&h->trailers, 0);
	return r;
}

/* A head that cannot be trusted: answer and close, since nobody knows where the next message
 * begins. */
static void refuse_head(struct http1 *h, unsigned status, const char *problem)
{
	struct request *r = begin_request(h);

	if (!r) {
		conn_close(h->conn);
		return;
	}
	h->keeps_alive = false;
	h->is_old = false;
	h->body = (struct http1_body) { .framing = HTTP1_NO_BODY };
	problem_send(r, status, status == 413 ? REASON_TOO_LARGE : REASON_BAD_REQUEST, problem);
}

/* Parses a head from `in`. Returns true when a request began (or was refused). */
static bool read_head(struct http1 *h)
{
	static __thread struct http1_head head; /* 5 KiB: too much for every connection */
	struct conn *c = h->conn;
	const struct gw_client *client = &c->worker->conf->snapshot->conf.client;
	struct http1_limits limits = http1_default_limits;
	struct request *r;
	long len;

	limits.head_bytes = client->max_head_bytes;
	limits.fields = client->max_fields;
	len = http1_parse_request(&head, &h->scan, buf_str(&c->in), &limits);
	if (len == 0)
		return false;
	h->scan = (struct http1_scan) { 0 };
	wait_for(h, WAIT_NONE);
	if (len < 0) {
		refuse_head(h, (unsigned)-len, head.problem);
		return true;
	}
	r = begin_request(h);
	if (!r || !adopt_head(r, &head, str_of(buf_data(&c->in), (size_t)len))) {
		conn_close(c);
		return true;
	}
	r->bytes_in = (uint64_t)len;
	buf_consume(&c->in, (size_t)len);
	h->is_old = head.minor == 0;
	r->protocol = h->is_old ? "HTTP/1.0" : "HTTP/1.1";
	h->served++;
	h->keeps_alive = head.keeps_alive &&
			 (!client->max_requests || h->served < client->max_requests);
	h->owes_continue = head.expects_continue && head.framing != HTTP1_NO_BODY;
	h->body_credit_ms = client->body_timeout_ms;
	http1_body_init(&h->body, &head);
	h->body.trailers = &h->trailers;
	r->has_body = head.framing != HTTP1_NO_BODY;
	r->has_length = head.framing == HTTP1_LENGTH || (head.has_content_length && !r->has_body);
	r->length = head.content_length;
	r->has_connection = head.has_connection;
	if (head.asks_upgrade)
		r->upgrade = http_find(r->headers.fields, r->headers.count, HTTP_UPGRADE)->value;
	pipeline_run(r);
	return true;
}

static void body_failed(struct http1 *h, unsigned status, enum request_reason reason,
			const char *detail)
{
	struct request *r = h->r;

	h->keeps_alive = false;
	h->body.framing = HTTP1_NO_BODY;
	if (r->is_ended)
		return;
	if (r->sink) {
		r->sink->cancel(r);
		r->sink = NULL;
	}
	if (status)
		problem_send(r, status, reason, detail);
	else
		r->reason = reason;
}

/* Hands on what `in` holds of the body. Returns false when it has to wait. */
static bool pump_body(struct http1 *h)
{
	struct conn *c = h->conn;
	struct request *r = h->r;
	size_t consumed;
	struct str data;

	if (r->is_ended) {
		/* A client that was never told to continue may not send the body at all. */
		if (h->owes_continue || h->drained > DRAIN_BYTES) {
			body_failed(h, 0, r->reason, NULL);
			return true;
		}
	} else if (!r->sink || !h->wants_body) {
		return false;
	}
	/* The end of a body of known length is known without another byte. */
	if (http1_body_left(&h->body) && buf_len(&c->in) == 0 && !conn_fill(c)) {
		if (c->is_closed)
			return false;
		if (c->has_eof) {
			body_failed(h, 0, REASON_CLIENT_GONE, NULL);
			if (!r->is_ended)
				conn_close(c);
			return !c->is_closed;
		}
		wait_for(h, WAIT_BODY);
		return false;
	}
	body_progress(h, buf_len(&c->in));
	switch (http1_body_next(&h->body, buf_str(&c->in), &consumed, &data)) {
	case HTTP1_BODY_MORE:
		buf_consume(&c->in, consumed);
		return true;
	case HTTP1_BODY_DATA:
		r->bytes_in += data.len;
		h->body_bytes += data.len;
		if (r->is_ended)
			h->drained += data.len;
		else if (r->max_body && h->body_bytes > r->max_body)
			body_failed(h, 413, REASON_TOO_LARGE,
				    "the request body is larger than this service allows");
		else
			h->wants_body = r->sink->data(r, data);
		buf_consume(&c->in, consumed);
		return true;
	case HTTP1_BODY_END:
		buf_consume(&c->in, consumed);
		if (r->is_ended)
			return true;
		if (headers_read_trailers(&r->trailers, &r->arena, buf_str(&h->trailers)))
			r->sink->end(r);
		else
			body_failed(h, 503, REASON_INTERNAL, "out of memory");
		return true;
	case HTTP1_BODY_BAD:
		body_failed(h, 400, REASON_BAD_REQUEST, "the request body's chunks are malformed");
		return true;
	}
	return false;
}

/* Hands on what the client sends into a tunnel. Returns false when it has to wait. */
static bool pump_tunnel(struct http1 *h)
{
	struct conn *c = h->conn;
	struct request *r = h->r;
	struct str data;

	if (!h->wants_body || h->in_ended || !r->sink)
		return false;
	if (buf_len(&c->in) == 0 && !conn_fill(c)) {
		if (c->is_closed || !c->has_eof)
			return false;
		h->in_ended = true;
		r->sink->end(r);
		return true;
	}
	data = buf_str(&c->in);
	r->bytes_in += data.len;
	h->wants_body = r->sink->data(r, data);
	buf_consume(&c->in, data.len);
	return true;
}

/* The response is complete and the request read: on to the next one. */
static void finish_request(struct http1 *h)
{
	struct conn *c = h->conn;
	struct request *r = h->r;

	h->r = NULL;
	if (r->reason == REASON_NONE && h->is_cut)
		r->reason = REASON_INTERNAL;
	request_free(r);
	if (h->is_cut)
		conn_close(c);
	else if (!h->keeps_alive)
		conn_finish(c);
}

/*
 * HTTP/2 "with prior knowledge" (RFC 9113 3.3) on a plain connection: its first bytes are no
 * HTTP/1.1 request, on purpose. With TLS it is chosen by ALPN and nothing else.
 */
static bool is_http2_preface(struct conn *c)
{
	const struct http1 *h = c->proto_state;
	size_t n;

	if (c->ssl || h->served || h->r)
		return false;
	if (buf_len(&c->in) < sizeof(HTTP2_PREFACE) - 1)
		conn_fill(c);
	n = MIN(buf_len(&c->in), sizeof(HTTP2_PREFACE) - 1);
	return !c->is_closed && n >= 4 && memcmp(buf_data(&c->in), HTTP2_PREFACE, n) == 0;
}

static void http1_on_work(struct conn *c)
{
	struct http1 *h = c->proto_state;
	unsigned steps = 0;

	if (h->is_paused && buf_len(&c->out) <= CONN_OUT_LOW) {
		h->is_paused = false;
		if (h->r && h->r->sink && !h->r->is_ended)
			h->r->sink->resume(h->r);
	}
	if (is_http2_preface(c)) {
		if (buf_len(&c->in) >= sizeof(HTTP2_PREFACE) - 1) {
			free(h);
			c->proto_state = NULL;
			http2_start(c);
			conn_kick(c);
			return;
		}
		if (conn_fill(c))
			conn_kick(c);
		else if (!c->is_closed)
			wait_for(h, WAIT_HEAD);
		/* No more of it will come: it is an unfinished head as any other. */
		if (!c->has_eof)
			return;
	}
	while (!c->is_closed && !c->is_finishing) {
		if (++steps > STEPS_PER_ROUND) {
			conn_kick(c);
			return;
		}
		if (h->r) {
			if (h->is_cut || (h->r->is_ended && http1_body_is_done(&h->body)))
				finish_request(h);
			else if (h->r->is_tunnel ? !pump_tunnel(h)
						 : http1_body_is_done(&h->body) || !pump_body(h))
				return;
			continue;
		}
		if (buf_len(&c->in) && read_head(h))
			continue;
		if (c->is_closed)
			return;
		/* Pipelined requests wait while their answers pile up. */
		if (conn_is_congested(c))
			return;
		if (conn_fill(c))
			continue;
		if (c->is_closed)
			return;
		if (c->has_eof) {
			conn_finish(c);
			return;
		}
		if (buf_len(&c->in))
			wait_for(h, WAIT_HEAD);
		else
			wait_for(h, c->worker->is_draining ? WAIT_LAST : WAIT_IDLE);
		return;
	}
}

static void http1_on_close(struct conn *c)
{
	struct http1 *h = c->proto_state;
	struct request *r = h->r;

	c->proto_state = NULL;
	if (r) {
		if (r->sink && !r->is_ended)
			r->sink->cancel(r);
		if (!r->is_ended && r->reason == REASON_NONE)
			r->reason = REASON_CLIENT_GONE;
		/* nginx's code for a client that left: there was no answer. */
		if (!r->has_head)
			r->response.status = 499;
		request_free(r);
	}
	buf_fini(&h->trailers);
	free(h);
}

static void http1_on_deadline(struct conn *c)
{
	struct http1 *h = c->proto_state;
	enum http1_wait waited = h->wait;

	h->wait = WAIT_NONE;
	switch (waited) {
	case WAIT_HEAD:
		refuse_head(h, 408, "the request head took too long");
		/* Out of memory it closes, and h is gone. */
		if (!c->is_closed && h->r)
			h->r->reason = REASON_CLIENT_TIMEOUT;
		break;
	case WAIT_BODY:
		body_failed(h, 408, REASON_CLIENT_TIMEOUT, "the request body comes too slowly");
		break;
	case WAIT_IDLE:
	case WAIT_LAST:
	case WAIT_NONE:
		conn_finish(c);
		return;
	}
	conn_kick(c);
}

static bool http1_will_answer(const struct conn *c)
{
	const struct http1 *h = c->proto_state;

	return h->r && !h->r->is_ended;
}

const struct conn_proto http1_proto = {
	.on_work = http1_on_work,
	.on_close = http1_on_close,
	.on_deadline = http1_on_deadline,
	.will_answer = http1_will_answer,
};

void http1_start(struct conn *c)
{
	struct http1 *h = calloc(1, sizeof(*h));

	if (!h) {
		conn_close(c);
		return;
	}
	h->conn = c;
	buf_init(&h->trailers, 0); /* the decoder has a bound */
	c->proto = &http1_proto;
	c->proto_state = h;
}
