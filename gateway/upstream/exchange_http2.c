/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 towards a service: each attempt is a stream on a connection that others use as well. */
#include <errno.h>
#include <inttypes.h>

#include "gateway/http/grpc.h"
#include "gateway/snapshot.h"
#include "gateway/upstream/exchange_impl.h"

#define PSEUDO_FIELDS 4 /* and te, content-length */

static struct exchange *exchange_of_stream(struct h2stream *s)
{
	return container_of(s, struct exchange, h2.stream);
}

/* --- the request --------------------------------------------------------------------------- */

static nghttp2_nv nv_of(struct str name, struct str value)
{
	return (nghttp2_nv) {
		.name = (uint8_t *)(uintptr_t)name.p,
		.namelen = name.len,
		.value = (uint8_t *)(uintptr_t)value.p,
		.valuelen = value.len,
		/* They live in the request's arena or the configuration; nghttp2 makes its frames
		 * later, when these may be gone, so it must copy. */
		.flags = NGHTTP2_NV_FLAG_NONE,
	};
}

/* Field names are lower case (RFC 9113 8.2.1). p NULL: out of memory. */
static struct str lower(struct arena *a, struct str name)
{
	char *copy = arena_alloc(a, name.len + 1);

	if (!copy)
		return (struct str) { 0 };
	for (size_t i = 0; i < name.len; i++)
		copy[i] = (char)tolower((unsigned char)name.p[i]);
	return str_of(copy, name.len);
}

static bool put_fields(struct request *r, const struct headers *from, nghttp2_nv *nv, size_t *count)
{
	for (size_t i = 0; i < from->count; i++) {
		struct str name;

		switch (from->fields[i].id) {
		case HTTP_HOST:
		case HTTP_CONTENT_LENGTH:
		case HTTP_TRANSFER_ENCODING:
		case HTTP_EXPECT: /* answered here, see downstream's read_body */
		case HTTP_TE:
			continue;
		default:
			name = lower(&r->arena, from->fields[i].name);
			if (!name.p)
				return false;
			nv[(*count)++] = nv_of(name, from->fields[i].value);
		}
	}
	return true;
}

static struct str target_of(struct request *r)
{
	struct str path = r->upstream_path;
	char *target, *at;

	if (!r->query.p || r->transcode)
		return path;
	target = at = arena_alloc(&r->arena, path.len + r->query.len + 1);
	if (!target)
		return (struct str) { 0 };
	at = mempcpy(at, path.p, path.len);
	*at++ = '?';
	at = mempcpy(at, r->query.p, r->query.len);
	return str_of(target, (size_t)(at - target));
}

/* Written anew, never copied: what the service reads is what was understood here. */
static bool h2_prepare(struct exchange *x)
{
	struct request *r = x->r;
	struct exchange_http2 *h2 = &x->h2;
	struct str target = target_of(r);
	size_t n = 0;
	nghttp2_nv *nv = arena_alloc(&r->arena,
				     (r->headers.count + PSEUDO_FIELDS + 2) * sizeof(*nv));
	char *length;

	if (!nv || !target.p)
		return false;
	nv[n++] = nv_of(STR(":method"), r->transcode ? STR("POST") : r->method);
	nv[n++] = nv_of(STR(":scheme"), r->service->tls ? STR("https") : STR("http"));
	nv[n++] = nv_of(STR(":authority"), r->authority);
	nv[n++] = nv_of(STR(":path"), target);
	if (!put_fields(r, &r->headers, nv, &n))
		return false;
	if (r->has_length) {
		length = arena_printf(&r->arena, "%" PRIu64, r->length);
		if (!length)
			return false;
		nv[n++] = nv_of(STR("content-length"), str_from(length));
	}
	/* gRPC's services want to see that whoever asks can read a status behind the body. */
	if (r->accepts_trailers || x->is_grpc)
		nv[n++] = nv_of(STR("te"), STR("trailers"));
	h2->fields = nv;
	h2->field_count = n;
	return true;
}

static void on_ready(struct h2stream *s)
{
	struct exchange *x = exchange_of_stream(s);
	int rc;

	x->is_reused = s->is_reused;
	exchange_connected(x);
	rc = h2stream_submit(s, x->h2.fields, x->h2.field_count, x->r->has_body);
	if (rc < 0) {
		exchange_give_up(x, 503, REASON_INTERNAL, "the request could not be sent");
		return;
	}
	x->was_sent = true;
	exchange_body_moved(x);
}

static size_t on_body(struct h2stream *s, size_t max, bool *is_last)
{
	struct exchange *x = exchange_of_stream(s);
	size_t n = MIN(exchange_body_left(x), max);

	*is_last = x->body_complete && n == exchange_body_left(x);
	return n;
}

static void on_take(struct h2stream *s, char *to, size_t len)
{
	struct exchange *x = exchange_of_stream(s);

	memcpy(to, buf_data(&x->body) + x->body_sent, len);
	x->body_sent += len;
	exchange_moved(x, x->phase);
	exchange_body_moved(x);
}

static size_t on_trailers(struct h2stream *s, const nghttp2_nv **out)
{
	struct exchange *x = exchange_of_stream(s);
	const struct headers *trailers = &x->r->trailers;
	size_t n = 0;
	nghttp2_nv *nv;

	if (trailers->count == 0)
		return 0;
	nv = arena_alloc(&x->r->arena, trailers->count * sizeof(*nv));
	if (!nv || !put_fields(x->r, trailers, nv, &n))
		return 0;
	*out = nv;
	return n;
}

/* --- the response -------------------------------------------------------------------------- */

/* What nghttp2 leaves to us; it has seen to pseudo-headers, lower case, and fields of HTTP/1's
 * connections. */
static bool is_valid_field(struct str name, struct str value)
{
	return http_is_token(name) && http_is_field_value(value);
}

static bool on_field(struct h2stream *s, struct str name, struct str value)
{
	struct exchange *x = exchange_of_stream(s);
	struct exchange_http2 *h2 = &x->h2;
	struct arena *a = &x->r->arena;
	struct headers *h = &h2->answer;
	uint64_t status;

	h2->answer_bytes += name.len + value.len + 32;
	if (h2->answer_bytes > http1_default_limits.head_bytes)
		return false;
	if (str_eq(name, STR(":status"))) {
		if (!str_u64(value, &status) || status < 100 || status > 599)
			return false;
		h2->status = (unsigned)status;
		return true;
	}
	if (!is_valid_field(name, value))
		return false;
	if (!h->fields) {
		h->max = http1_default_limits.fields;
		h->fields = arena_alloc(a, h->max * sizeof(*h->fields));
	}
	name = arena_str(a, name);
	value = arena_str(a, str_trim(value));
	return h->fields && name.p && value.p && headers_add(h, name, value);
}

static void note_grpc_status(struct exchange *x, const struct headers *h)
{
	const struct http_field *f = http_find_name(h->fields, h->count, STR("grpc-status"));

	if (f && x->is_grpc)
		x->r->has_grpc_status = grpc_parse_status(f->value, &x->r->grpc_status);
}

static void take_head(struct exchange *x, bool is_last)
{
	struct exchange_http2 *h2 = &x->h2;
	struct headers *h = &h2->answer;
	struct exchange_head head = {
		.status = h2->status,
		.fields = h->fields,
		.field_count = h->count,
		.has_body = !is_last,
	};
	const struct http_field *length = http_find(h->fields, h->count, HTTP_CONTENT_LENGTH);

	if (length && !str_u64(length->value, &head.length)) {
		exchange_attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
					"the service sent an invalid response");
		return;
	}
	head.has_length = length != NULL;
	/* gRPC's trailers that are all of the response. */
	if (is_last)
		note_grpc_status(x, h);
	if (!exchange_begin_response(x, &head))
		return;
	h2->has_head = true;
	exchange_moved(x, PHASE_BODY);
}

static void on_fields_end(struct h2stream *s, bool is_last)
{
	struct exchange *x = exchange_of_stream(s);
	struct exchange_http2 *h2 = &x->h2;

	x->has_answer = true;
	if (h2->has_head) {
		note_grpc_status(x, &h2->answer);
		exchange_take_trailers(x, &h2->answer);
		return;
	}
	if (h2->status < 200 && ++x->interim > EXCHANGE_INTERIM_MAX) {
		exchange_attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
					"the service sent too many interim responses");
		return;
	}
	if (h2->status >= 200)
		take_head(x, is_last);
	else
		exchange_pass_interim(x, &(struct exchange_head) {
						 .status = h2->status,
						 .fields = h2->answer.fields,
						 .field_count = h2->answer.count,
					 });
	h2->answer = (struct headers) { 0 };
	h2->answer_bytes = 0;
}

static void h2_receive(struct exchange *x)
{
	size_t owed = x->h2.owed;

	x->h2.owed = 0;
	h2stream_consume(&x->h2.stream, owed);
}

static void on_data(struct h2stream *s, struct str data)
{
	struct exchange *x = exchange_of_stream(s);

	if (data.len == 0)
		return;
	x->is_paused = !x->r->down->data(x->r, data);
	/* At most a window of it comes while the client is slow. */
	x->h2.owed += data.len;
	exchange_moved(x, PHASE_BODY);
	if (!x->is_paused)
		h2_receive(x);
}

static void on_end(struct h2stream *s)
{
	exchange_finish(exchange_of_stream(s));
}

/* --- the end of an attempt ----------------------------------------------------------------- */

static void on_failed(struct h2stream *s, enum h2_failure why, uint32_t code)
{
	struct exchange *x = exchange_of_stream(s);

	switch (why) {
	case H2_NO_CONNECTION:
		exchange_attempt_failed(x, 502, REASON_CONNECT_FAILED,
					"no connection to the service");
		break;
	case H2_REFUSED:
		exchange_refused(x);
		break;
	case H2_RESET:
		x->r->reset_code = code;
		x->is_reused = false; /* whoever resets a stream is not a stale connection */
		exchange_attempt_failed(x, 502, REASON_SERVICE_RESET,
					"the service reset the request");
		break;
	case H2_CLOSED:
		exchange_attempt_failed(x, 502, REASON_SERVICE_RESET,
					"the service closed the connection before its response "
					"was complete");
		break;
	case H2_GARBAGE:
		exchange_attempt_failed(x, 502, REASON_SERVICE_GARBAGE,
					"the service sent an invalid response");
		break;
	}
}

static const struct h2stream_ops stream_ops = {
	.ready = on_ready,
	.field = on_field,
	.fields_end = on_fields_end,
	.data = on_data,
	.end = on_end,
	.body = on_body,
	.take = on_take,
	.trailers = on_trailers,
	.failed = on_failed,
};

static int h2_open(struct exchange *x)
{
	struct exchange_http2 *h2 = &x->h2;

	h2->stream = (struct h2stream) { .ops = &stream_ops };
	h2->answer = (struct headers) { 0 };
	h2->answer_bytes = 0;
	h2->owed = 0;
	h2->has_head = false;
	exchange_set_phase(x, PHASE_CONNECT, x->r->service->connect_timeout_ms);
	return h2conn_attach(&h2->stream, x->service, x->endpoint);
}

static void h2_send(struct exchange *x)
{
	h2stream_more(&x->h2.stream);
}

static void h2_close(struct exchange *x)
{
	h2stream_cancel(&x->h2.stream, NGHTTP2_CANCEL);
}

const struct upstream_ops upstream_http2 = {
	.prepare = h2_prepare,
	.open = h2_open,
	.send = h2_send,
	.receive = h2_receive,
	.close = h2_close,
	.finish = h2_close, /* a response ahead of its request's end: the rest is not wanted */
};
