/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 towards a service: one request at a time on a connection of the pool. */
#include <errno.h>
#include <inttypes.h>

#include "gateway/upstream/exchange_impl.h"
#include "gateway/upstream/tunnel.h"
#include "gateway/upstream/upconn.h"

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
static bool h1_prepare(struct exchange *x)
{
	struct request *r = x->r;
	struct str path = r->upstream_path;
	size_t size = r->method.len + path.len + r->query.len + r->authority.len + 192;
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
	if (r->websocket_accept.p)
		put(&at, STR("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
	put(&at, STR("\r\n"));
	x->h1.head = str_of(head, (size_t)(at - head));
	return true;
}

/* --- sending ------------------------------------------------------------------------------- */

static void h1_send(struct exchange *x)
{
	struct upconn *u = x->h1.u;

	while (u->can_write) {
		struct str head = str_sub(x->h1.head, x->h1.head_sent, x->h1.head.len);
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
			x->h1.response_keeps = false;
			return;
		}
		x->body_sent += (size_t)n - MIN((size_t)n, head.len);
		x->h1.head_sent += MIN((size_t)n, head.len);
		x->was_sent = true;
		exchange_moved(x, x->phase);
	}
	exchange_body_moved(x);
}

/* --- receiving ----------------------------------------------------------------------------- */

static struct exchange_head describe(const struct http1_head *head)
{
	return (struct exchange_head) {
		.status = head->status,
		.fields = head->fields,
		.field_count = head->field_count,
		.has_body = head->framing != HTTP1_NO_BODY || head->status == 101,
		.has_length = head->has_content_length,
		.length = head->content_length,
	};
}

/* Whether a final or switching answer is one that this request can have. */
static bool is_possible(const struct request *r, const struct http1_head *head)
{
	if (head->status == 101)
		return tunnel_is_agreed(r, head);
	/* To the client of an extended CONNECT a 2xx would mean that its WebSocket is open. */
	return !r->is_connect || head->status < 200 || head->status > 299;
}

/* Reads the heads that are there: interim ones, which end here, and the final one. */
static void receive_head(struct exchange *x)
{
	static __thread struct http1_head head;
	struct request *r = x->r;
	struct upconn *u = x->h1.u;
	struct exchange_head told;
	long len;

	for (;;) {
		len = http1_parse_response(&head, &x->h1.scan, buf_str(&u->in),
					   &http1_default_limits, r->method_id);
		if (len == 0)
			return;
		if (len < 0 || !is_possible(r, &head)) {
			exchange_attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
						"the service sent an invalid response");
			return;
		}
		x->h1.scan = (struct http1_scan) { 0 };
		told = describe(&head);
		if (head.status == 101 || head.status >= 200)
			break;
		exchange_pass_interim(x, &told);
		buf_consume(&u->in, (size_t)len);
		if (++x->interim > EXCHANGE_INTERIM_MAX) {
			exchange_attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
						"the service sent too many interim responses");
			return;
		}
	}
	if (head.status == 101) {
		exchange_become_tunnel(x, &told, (size_t)len);
		return;
	}
	x->h1.response_keeps = head.keeps_alive && head.framing != HTTP1_UNTIL_CLOSE;
	if (!exchange_begin_response(x, &told))
		return;
	buf_consume(&u->in, (size_t)len);
	http1_body_init(&x->h1.decoder, &head);
	x->h1.decoder.trailers = &x->h1.trailers;
	exchange_moved(x, PHASE_BODY);
}

/* Body bytes straight from the socket into what the client will get. Returns false when the
 * ordinary way must be taken. */
static bool receive_direct(struct exchange *x)
{
	struct request *r = x->r;
	size_t want = (size_t)MIN(x->h1.decoder.left, (uint64_t)16384);
	size_t room;
	char *at;
	long n;

	if (x->h1.decoder.framing != HTTP1_LENGTH || x->h1.decoder.left == 0 ||
	    buf_len(&x->h1.u->in))
		return false;
	at = r->down->reserve(r, want, &room);
	if (!at)
		return false;
	n = upconn_read(x->h1.u, at, (size_t)MIN(x->h1.decoder.left, (uint64_t)room));
	if (n > 0) {
		x->h1.decoder.left -= (uint64_t)n;
		x->is_paused = !r->down->commit(r, (size_t)n);
		exchange_moved(x, PHASE_BODY);
	} else if (n != -EAGAIN && n != 0) {
		x->h1.u->has_eof = true;
	}
	return true;
}

static void take_trailers(struct exchange *x)
{
	struct headers trailers;

	/* Without memory for them they are missing, which nobody may rely on not to happen. */
	if (buf_len(&x->h1.trailers) &&
	    headers_read_trailers(&trailers, &x->r->arena, buf_str(&x->h1.trailers)))
		exchange_take_trailers(x, &trailers);
}

static void receive_body(struct exchange *x)
{
	struct request *r = x->r;
	struct upconn *u = x->h1.u;
	size_t consumed;
	struct str data;

	switch (http1_body_next(&x->h1.decoder, buf_str(&u->in), &consumed, &data)) {
	case HTTP1_BODY_DATA:
		x->is_paused = !r->down->data(r, data);
		buf_consume(&u->in, consumed);
		break;
	case HTTP1_BODY_MORE:
		buf_consume(&u->in, consumed);
		break;
	case HTTP1_BODY_END:
		buf_consume(&u->in, consumed);
		take_trailers(x);
		exchange_finish(x);
		break;
	case HTTP1_BODY_BAD:
		exchange_give_up(x, 502, REASON_SERVICE_GARBAGE,
				 "the service sent a malformed body");
		break;
	}
}

/* The service closed its side. */
static void receive_eof(struct exchange *x)
{
	if (x->phase == PHASE_BODY && x->h1.decoder.framing == HTTP1_UNTIL_CLOSE) {
		exchange_finish(x);
		return;
	}
	exchange_attempt_failed(
		x, 502, REASON_SERVICE_RESET,
		"the service closed the connection before its response was complete");
}

static void h1_receive(struct exchange *x)
{
	while (!x->is_done && x->h1.u && !x->is_paused) {
		struct upconn *u = x->h1.u;
		long n;

		if (x->phase == PHASE_BODY &&
		    (buf_len(&u->in) || x->h1.decoder.framing == HTTP1_NO_BODY ||
		     (x->h1.decoder.framing == HTTP1_LENGTH && x->h1.decoder.left == 0))) {
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
			exchange_attempt_failed(x, 502, REASON_SERVICE_RESET,
						"the service reset the connection");
			return;
		}
		if (n == 0)
			continue;
		x->has_answer = true;
		if (x->phase == PHASE_RESPONSE)
			receive_head(x);
		else
			exchange_moved(x, PHASE_BODY);
	}
}

/* --- the connection ------------------------------------------------------------------------ */

static void on_upconn(struct upconn *u, void *arg)
{
	struct exchange *x = arg;

	if (x->phase == PHASE_CONNECT) {
		int rc = upconn_connect(u);

		if (rc == -EAGAIN)
			return;
		if (rc < 0) {
			exchange_attempt_failed(x, 502, REASON_CONNECT_FAILED,
						"no connection to the service");
			return;
		}
		exchange_connected(x);
	}
	h1_send(x);
	if (!x->is_done && x->h1.u == u)
		h1_receive(x);
}

static enum upconn_choice choose_connection(const struct exchange *x)
{
	if (x->was_stale)
		return UPCONN_FRESH;
	return http_is_idempotent(x->r->method_id) ? UPCONN_ANY : UPCONN_CHECKED;
}

static int h1_open(struct exchange *x)
{
	struct upconn *u;
	int rc = upconn_take(&u, x->service, x->endpoint, choose_connection(x));

	if (rc < 0)
		return rc;
	u->on_event = on_upconn;
	u->arg = x;
	x->h1.u = u;
	x->h1.head_sent = 0;
	x->h1.scan = (struct http1_scan) { 0 };
	buf_reset(&x->h1.trailers, 0);
	x->is_reused = u->is_reused;
	if (!u->is_reused) {
		exchange_set_phase(x, PHASE_CONNECT, x->r->service->connect_timeout_ms);
		return 0;
	}
	u->can_write = true;
	exchange_connected(x);
	h1_send(x);
	if (!x->is_done && x->h1.u && x->h1.u->can_read)
		h1_receive(x);
	return 0;
}

static void h1_close(struct exchange *x)
{
	if (x->h1.u)
		upconn_close(x->h1.u);
	x->h1.u = NULL;
}

/* The connection goes back if both sides are at a clean end. */
static void h1_finish(struct exchange *x)
{
	struct upconn *u = x->h1.u;
	bool was_sent = x->h1.head_sent == x->h1.head.len && x->body_complete &&
			exchange_body_left(x) == 0;

	x->h1.u = NULL;
	if (x->h1.response_keeps && was_sent && buf_len(&u->in) == 0)
		upconn_give(u);
	else
		upconn_close(u);
}

const struct upstream_ops upstream_http1 = {
	.prepare = h1_prepare,
	.open = h1_open,
	.send = h1_send,
	.receive = h1_receive,
	.close = h1_close,
	.finish = h1_finish,
};
