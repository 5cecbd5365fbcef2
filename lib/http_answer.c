/* SPDX-License-Identifier: Apache-2.0 */
/* What handlers call to answer, and how answers are written. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/http_server_impl.h"
#include "lib/json.h"

#define SMALL (64UL * 1024) /* answers up to this are given whatever waits */

/* --- writing answers ------------------------------------------------------------------------- */

static void out_date(struct http_server *s, struct buf *out)
{
	uint64_t now_s = loop_now_ms(s->loop) / MSEC_PER_SEC;

	if (now_s != s->date_s || !s->date[0]) {
		char text[CLOCK_HTTP_DATE_LEN + 1];

		clock_http_date(text, clock_wall_ms());
		snprintf(s->date, sizeof(s->date), "Date: %s\r\n", text);
		s->date_s = now_s;
	}
	buf_addz(out, s->date);
}

static void out_head(struct http_conn *c, unsigned status, const char *type, struct str headers)
{
	struct buf *out = &c->out;

	http_buf_borrow(c->server, out, HTTP_OUT_MAX);
	buf_append(out, "HTTP/1.1 ", 9);
	buf_u64(out, status);
	buf_putc(out, ' ');
	buf_addz(out, http_reason(status));
	buf_append(out, "\r\n", 2);
	out_date(c->server, out);
	if (type) {
		buf_append(out, "Content-Type: ", 14);
		buf_addz(out, type);
		buf_append(out, "\r\n", 2);
	}
	buf_add(out, headers);
	if (c->closes)
		buf_addz(out, "Connection: close\r\n");
	else if (c->is_http10)
		buf_addz(out, "Connection: keep-alive\r\n");
}

static void out_whole_head(struct http_conn *c, unsigned status, const char *type,
			   struct str headers, size_t length)
{
	out_head(c, status, type, headers);
	if (status != 204 && status != 304) {
		buf_append(&c->out, "Content-Length: ", 16);
		buf_u64(&c->out, length);
		buf_append(&c->out, "\r\n", 2);
	}
	buf_append(&c->out, "\r\n", 2);
}

static void out_answer(struct http_conn *c, unsigned status, const char *type, struct str headers,
		       struct str body)
{
	out_whole_head(c, status, type, headers, body.len);
	if (!c->is_head_request && status != 204 && status != 304)
		buf_add(&c->out, body);
}

static void problem_body(struct buf *out, unsigned status, const char *field, const char *detail)
{
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "type", "about:blank");
	json_addz(&w, "title", http_reason(status));
	json_add_u64(&w, "status", status);
	json_addz(&w, "detail", detail);
	if (field)
		json_addz(&w, "field", field);
	json_close(&w, '}');
}

/* Answers without a handler, and ends the connection: its framing is in doubt. */
void http_conn_refuse(struct http_conn *c, unsigned status, const char *detail)
{
	struct buf *scratch = &c->server->scratch;

	c->server->stats.bad_requests++;
	c->closes = c->is_refused = true;
	c->is_head_request = c->is_http10 = false;
	buf_reset(scratch, HTTP_SPARE_CAP_MAX);
	problem_body(scratch, status, NULL, detail);
	out_answer(c, status, "application/problem+json", str_of(NULL, 0), buf_str(scratch));
	c->has_head = false;
	http_buf_return(c->server, &c->in);
}

/* --- what handlers call ---------------------------------------------------------------------- */

static struct pending *pending_of(struct http_request *req)
{
	return container_of(req, struct pending, req);
}

struct buf *http_scratch(struct http_request *req)
{
	struct buf *b = &pending_of(req)->conn->server->scratch;

	buf_reset(b, 1UL << 20);
	return b;
}

void http_add_header(struct http_request *req, const char *name, struct str value)
{
	struct buf *headers = &pending_of(req)->headers;

	if (!http_is_field_value(value))
		return;
	buf_addz(headers, name);
	buf_append(headers, ": ", 2);
	buf_add(headers, value);
	buf_append(headers, "\r\n", 2);
}

void http_respond_shared(struct http_request *req, unsigned status, const char *type,
			 struct http_shared *body)
{
	struct pending *p = pending_of(req);
	struct http_conn *c = p->conn;

	assert(c->state == CONN_WAITING);
	if (c->server->is_stopping)
		c->closes = true;
	out_whole_head(c, status, type, buf_str(&p->headers), body->len);
	if (!c->is_head_request)
		http_conn_add_shared(c, body);
	http_conn_answered(c);
}

void http_respond(struct http_request *req, unsigned status, const char *type, struct str body)
{
	struct pending *p = pending_of(req);
	struct http_conn *c = p->conn;

	assert(c->state == CONN_WAITING);
	if (c->server->is_stopping)
		c->closes = true;
	if (body.len > SMALL && !http_server_has_room(c->server, body.len)) {
		http_problem(req, 503, "too much waits for readers that are slow");
		return;
	}
	out_answer(c, status, type, buf_str(&p->headers), body);
	http_conn_charge(c);
	http_conn_answered(c);
}

void http_respond_json(struct http_request *req, unsigned status, struct str body)
{
	http_respond(req, status, "application/json", body);
}

__attribute__((format(printf, 4, 0))) static void respond_problem(struct http_request *req,
								  unsigned status,
								  const char *field,
								  const char *fmt, va_list ap)
{
	struct buf *body = http_scratch(req);
	CLEANUP(cleanup_free) char *detail = NULL; /* all mistakes of a file may be in it */

	if (vasprintf(&detail, fmt, ap) < 0)
		detail = NULL;
	problem_body(body, status, field, detail ? detail : http_reason(status));
	http_respond(req, status, "application/problem+json", buf_str(body));
}

void http_problem(struct http_request *req, unsigned status, const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	respond_problem(req, status, NULL, detail, ap);
	va_end(ap);
}

void http_problem_field(struct http_request *req, unsigned status, const char *field,
			const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	respond_problem(req, status, field, detail, ap);
	va_end(ap);
}

bool http_stream_start(struct http_request *req, unsigned status, const char *type)
{
	struct pending *p = pending_of(req);
	struct http_conn *c = p->conn;

	assert(c->state == CONN_WAITING);
	c->is_chunked = !c->is_http10;
	if (c->is_http10 || c->server->is_stopping)
		c->closes = true;
	out_head(c, status, type, buf_str(&p->headers));
	if (c->is_chunked)
		buf_addz(&c->out, "Transfer-Encoding: chunked\r\n");
	buf_addz(&c->out, "\r\n");
	if (c->is_head_request) {
		http_conn_answered(c);
		return false;
	}
	c->server->stats.waiting--;
	c->server->stats.streams++;
	c->state = CONN_STREAMING;
	c->has_streamed = false;
	http_conn_kick(c);
	return true;
}

bool http_stream_write(struct http_request *req, struct str data)
{
	struct http_conn *c = pending_of(req)->conn;
	char head[HTTP1_CHUNK_HEAD_MAX];

	assert(c->state == CONN_STREAMING);
	if (c->is_cut_off)
		return false;
	if (data.len == 0)
		return true;
	if (!c->has_streamed)
		c->stream_grace = data.len;
	else if (buf_len(&c->out) == 0)
		c->stream_grace = 0;
	c->has_streamed = true;
	if (buf_len(&c->out) + data.len > c->server->config.max_stream_queue + c->stream_grace ||
	    (buf_len(&c->out) + data.len > SMALL && !http_server_has_room(c->server, data.len))) {
		c->is_cut_off = true;
		c->server->stats.slow_readers++;
		http_buf_return(c->server, &c->out);
		/* At once: it makes room for the streams after it. */
		http_conn_charge(c);
		loop_defer(c->server->loop, &c->again);
		return false;
	}
	http_buf_borrow(c->server, &c->out, HTTP_OUT_MAX);
	if (c->is_chunked)
		buf_append(&c->out, head, http1_chunk_head(head, data.len));
	buf_add(&c->out, data);
	if (c->is_chunked)
		buf_append(&c->out, "\r\n", 2);
	http_conn_charge(c);
	http_conn_kick(c);
	return true;
}

bool http_stream_write_shared(struct http_request *req, struct http_shared *data)
{
	struct http_conn *c = pending_of(req)->conn;
	char head[HTTP1_CHUNK_HEAD_MAX];

	assert(c->state == CONN_STREAMING && !c->has_streamed);
	if (c->is_cut_off)
		return false;
	c->has_streamed = true;
	c->stream_grace = 0;
	http_buf_borrow(c->server, &c->out, HTTP_OUT_MAX);
	if (c->is_chunked)
		buf_append(&c->out, head, http1_chunk_head(head, data->len));
	http_conn_add_shared(c, data);
	if (c->is_chunked)
		buf_append(&c->out, "\r\n", 2);
	http_conn_kick(c);
	return true;
}

size_t http_stream_queued(const struct http_request *req)
{
	const struct pending *p = container_of((uintptr_t)req, const struct pending, req);

	return http_conn_unsent(p->conn);
}

void http_stream_end(struct http_request *req)
{
	struct http_conn *c = pending_of(req)->conn;

	assert(c->state == CONN_STREAMING);
	if (c->is_chunked) {
		http_buf_borrow(c->server, &c->out, HTTP_OUT_MAX);
		buf_addz(&c->out, "0\r\n\r\n");
	}
	http_conn_answered(c);
}
