/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transcode/answer.h"

#include <openssl/evp.h>

#include "gateway/http/grpc.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/transcode/transcode_impl.h"
#include "gateway/upstream/exchange.h"
#include "gateway/worker.h"
#include "lib/clock.h"

#define PIECE_BYTES 16384UL

/* How the messages of a stream are written one behind another. */
struct transcode_stream_format {
	const char *content_type;
	const char *begin, *before, *between, *after, *end;
};

static const struct transcode_stream_format formats[] = {
	{ "application/json", "[", "", ",", "", "]" },
	{ "application/x-ndjson", "", "", "", "\n", "" },
	{ "text/event-stream", "", "data: ", "", "\n\n", "" },
};

static const struct transcode_stream_format *choose_format(const struct request *r)
{
	const struct headers *h = &r->headers;

	for (size_t i = 0; i < h->count; i++) {
		struct str rest = h->fields[i].value, one;

		if (h->fields[i].id != HTTP_ACCEPT)
			continue;
		while (str_split(&rest, ',', &one)) {
			ptrdiff_t parameters = str_chr(one, ';');

			one = str_trim(parameters < 0 ? one : str_sub(one, 0, (size_t)parameters));
			for (size_t f = 0; f < ARRAY_SIZE(formats); f++) {
				if (str_ieq(one, str_from(formats[f].content_type)))
					return &formats[f];
			}
		}
	}
	return &formats[0];
}

static const struct sink_ops answer_sink;

/* --- heads --------------------------------------------------------------------------------- */

static bool is_grpc_field(struct str name)
{
	return str_istarts(name, STR("grpc-"));
}

/* What the service's head and, where there is room, its trailers told beside gRPC's own fields. */
static void make_head(struct request *r, unsigned status, const char *content_type)
{
	struct headers *h = &r->response.headers;
	const struct headers *trailers = &r->response.trailers;
	size_t kept = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].id != HTTP_CONTENT_TYPE && !is_grpc_field(h->fields[i].name))
			h->fields[kept++] = h->fields[i];
	}
	h->count = kept;
	headers_add(h, STR("Content-Type"), str_from(content_type));
	for (size_t i = 0; i < trailers->count; i++) {
		if (!is_grpc_field(trailers->fields[i].name))
			headers_add(h, trailers->fields[i].name, trailers->fields[i].value);
	}
	r->response.trailers = (struct headers) { 0 };
	r->response.status = status;
	r->response.has_body = r->method_id != METHOD_HEAD;
	r->response.has_length = false;
}

/* --- what the client takes ------------------------------------------------------------------ */

/* Hands JSON on as fast as the client takes it. Returns whether all of it went. */
static bool flush(struct transcode *t)
{
	struct request *r = t->r;
	struct str piece;

	if (!r->response.has_body)
		buf_reset(&t->answer, 0);
	while (buf_len(&t->answer) && !t->is_blocked && !r->is_ended) {
		piece = str_of(buf_data(&t->answer), MIN(buf_len(&t->answer), PIECE_BYTES));
		t->is_blocked = !t->down->data(r, piece);
		buf_consume(&t->answer, piece.len);
	}
	return buf_len(&t->answer) == 0 && !t->is_blocked;
}

/* All that the client will get is in `answer`: ends the response when it has gone. */
static void finish(struct transcode *t)
{
	struct request *r = t->r;

	t->is_over = true;
	r->down = t->down;
	flush(t);
	if (buf_len(&t->answer) && !r->is_ended) {
		r->sink = &answer_sink;
		return;
	}
	r->sink = NULL;
	if (!r->is_ended)
		r->down->end(r);
}

static bool sink_data(struct request *r, struct str data)
{
	(void)r;
	(void)data;
	return false; /* the client's body ended before there was anything to answer */
}

static void sink_end(struct request *r)
{
	(void)r;
}

static void sink_resume(struct request *r)
{
	struct transcode *t = r->transcode;

	t->is_blocked = false;
	if (t->is_over)
		finish(t);
	else if (flush(t))
		t->service->resume(r);
}

static void sink_cancel(struct request *r)
{
	struct transcode *t = r->transcode;

	r->sink = NULL;
	if (!t->is_over)
		t->service->cancel(r);
}

/* In front of the exchange's, and alone when that has ended. */
static const struct sink_ops answer_sink = {
	.data = sink_data,
	.end = sink_end,
	.resume = sink_resume,
	.cancel = sink_cancel,
};

/* A whole answer. Fields of the gateway's own are in the head already, it came by
 * response_send_head. */
static void send_answer(struct transcode *t, unsigned status, const char *content_type)
{
	struct request *r = t->r;

	r->down = t->down;
	make_head(r, status, content_type);
	r->response.has_length = true;
	r->response.length = buf_len(&t->answer);
	r->response.has_body &= buf_len(&t->answer) > 0;
	r->has_head = true;
	r->down->head(r);
	finish(t);
}

/* The exchange, which may end at any call. NULL: it has. */
static const struct sink_ops *service_of(const struct transcode *t)
{
	return t->r->sink == &answer_sink ? t->service : t->r->sink;
}

/* --- errors -------------------------------------------------------------------------------- */

static const struct http_field *find_status_field(const struct request *r, const char *name)
{
	const struct headers *head = &r->response.headers, *trailers = &r->response.trailers;
	const struct http_field *f = http_find_name(trailers->fields, trailers->count,
						    str_from(name));

	return f ? f : http_find_name(head->fields, head->count, str_from(name));
}

static void add_details(struct transcode *t, struct json_writer *w)
{
	const struct http_field *f = find_status_field(t->r, "grpc-status-details-bin");
	struct str bytes = f ? grpc_decode_binary(&t->r->arena, f->value) : (struct str) { 0 };
	struct buf json;

	if (!bytes.p)
		return;
	buf_init(&json, TRANSCODE_MESSAGE_MAX);
	if (proto_status_details(transcode_table_set(t->table), bytes, &json) == 0)
		json_add_raw(w, "details", buf_str(&json));
	buf_fini(&json);
}

/* The service's status other than OK, as RFC 9457 has errors. */
static void send_error(struct transcode *t)
{
	struct request *r = t->r;
	unsigned status = grpc_http_status(r->grpc_status);
	const struct http_field *message = find_status_field(r, "grpc-message");
	struct json_writer w;

	buf_reset(&t->answer, 0);
	w = json_writer(&t->answer);
	json_open(&w, NULL, '{');
	json_addz(&w, "type", "about:blank");
	json_add_u64(&w, "status", status);
	json_addz(&w, "title", status == 499 ? "Client Closed Request" : http_reason(status));
	json_add_str(&w, "detail",
		     message ? grpc_decode_message(&r->arena, message->value) : STR(""));
	json_addz(&w, "code", grpc_status_name(r->grpc_status));
	add_details(t, &w);
	if (r->request_id.len)
		json_add_str(&w, "request_id", r->request_id);
	json_close(&w, '}');
	send_answer(t, status, "application/problem+json");
}

/* Nothing can be made of the service's answer. */
static void send_failure(struct transcode *t)
{
	struct request *r = t->r;

	r->down = t->down;
	if (t->is_too_much)
		problem_retry_after(r, MSEC_PER_SEC);
	problem_send(r, t->is_too_much ? 503 : 502,
		     t->is_too_much ? REASON_OVERLOADED : REASON_SERVICE_GARBAGE, t->failure);
}

/* The exchange cannot be stopped from within its own call: a moment later. */
static void on_failed(struct loop_timer *timer)
{
	struct transcode *t = container_of(timer, struct transcode, failed);

	/* The exchange failed on its own meanwhile, or the client left. */
	if (t->r->is_ended)
		return;
	if (service_of(t))
		service_of(t)->cancel(t->r);
	t->r->sink = NULL;
	send_failure(t);
}

static void fail(struct transcode *t, const char *why)
{
	if (t->failure)
		return;
	t->failure = why;
	loop_timer_start(t->r->worker->loop, &t->failed, 0);
}

/* --- messages ------------------------------------------------------------------------------ */

static void begin_stream(struct transcode *t)
{
	struct request *r = t->r;

	make_head(r, 200, t->format->content_type);
	t->is_begun = r->has_head = true;
	t->down->head(r);
}

/* One message has come. */
static void take_message(struct transcode *t, struct str message)
{
	bool is_stream = t->binding->proto.method->server_streams;
	struct err err;
	int rc;

	if (!is_stream && t->messages) {
		fail(t, "the service sent more than one message");
		return;
	}
	if (is_stream) {
		buf_addz(&t->answer, t->messages ? t->format->between : t->format->begin);
		buf_addz(&t->answer, t->format->before);
	}
	rc = proto_response(&t->binding->proto, message, &t->answer, &err);
	if (is_stream)
		buf_addz(&t->answer, t->format->after);
	t->messages++;
	if (rc < 0 || buf_failed(&t->answer)) {
		fail(t, "the service sent a message that is not of its type");
		return;
	}
	if (!is_stream)
		return;
	if (!t->is_begun)
		begin_stream(t);
	flush(t);
}

static bool answer_data(struct request *r, struct str data)
{
	struct transcode *t = r->transcode;
	size_t len;

	if (t->failure)
		return true;
	buf_add(&t->frame, data);
	while (!t->failure && buf_len(&t->frame) >= GRPC_FRAME_HEAD) {
		if (*buf_data(&t->frame) != 0) {
			fail(t, "the service sent a compressed message");
			break;
		}
		len = grpc_get_length(buf_data(&t->frame));
		if (len > TRANSCODE_MESSAGE_MAX) {
			fail(t, "the service sent a message that is too large");
			break;
		}
		if (buf_len(&t->frame) - GRPC_FRAME_HEAD < len)
			break;
		take_message(t, str_of(buf_data(&t->frame) + GRPC_FRAME_HEAD, len));
		buf_consume(&t->frame, GRPC_FRAME_HEAD + len);
	}
	if (buf_failed(&t->frame))
		fail(t, "out of memory");
	if (!t->failure && !transcode_has_room(t)) {
		t->is_too_much = true;
		fail(t, TRANSCODE_TOO_MUCH);
	}
	return !t->is_blocked;
}

/* --- as the exchange's downstream ---------------------------------------------------------- */

static void answer_head(struct request *r)
{
	struct transcode *t = r->transcode;
	const struct http_field *type;

	if (!r->sink) {
		/* An answer of the gateway's own: the exchange has let go. */
		r->down = t->down;
		r->down->head(r);
		return;
	}
	type = http_find(r->response.headers.fields, r->response.headers.count, HTTP_CONTENT_TYPE);
	if (r->response.status != 200 || !type || !grpc_is_content_type(type->value))
		fail(t, "the service did not answer in gRPC");
	/* Held until there is something to say: what failed meanwhile can still be told. */
	r->has_head = false;
}

static void answer_end(struct request *r)
{
	struct transcode *t = r->transcode;

	loop_timer_stop(r->worker->loop, &t->failed);
	if (!t->failure && !r->has_grpc_status)
		t->failure = "the service ended its answer without a status";
	if (!t->failure && r->grpc_status == GRPC_OK && buf_len(&t->frame))
		t->failure = "the service ended in the middle of a message";
	if (!t->failure && r->grpc_status == GRPC_OK && !t->binding->proto.method->server_streams &&
	    t->messages == 0)
		t->failure = "the service sent no message";
	if (t->failure) {
		send_failure(t);
		return;
	}
	if (r->grpc_status != GRPC_OK && t->is_begun) {
		/* Too late for a status: the client must see that something is missing. */
		r->down = t->down;
		r->down->abort(r);
		return;
	}
	if (r->grpc_status != GRPC_OK) {
		send_error(t);
		return;
	}
	if (!t->binding->proto.method->server_streams) {
		send_answer(t, 200, "application/json");
		return;
	}
	if (!t->is_begun) {
		begin_stream(t);
		buf_addz(&t->answer, t->format->begin);
	}
	r->response.trailers = (struct headers) { 0 };
	buf_addz(&t->answer, t->format->end);
	finish(t);
}

static void answer_abort(struct request *r)
{
	r->down = r->transcode->down;
	r->down->abort(r);
}

/* The exchange wants some of the body, perhaps again while it gets some. */
static void answer_read_body(struct request *r)
{
	struct transcode *t = r->transcode;
	bool takes_more = true;
	struct str piece;

	if (t->is_fed || t->is_feeding)
		return;
	t->is_feeding = true;
	while (takes_more && service_of(t) && buf_len(&t->message)) {
		piece = str_of(buf_data(&t->message), MIN(buf_len(&t->message), PIECE_BYTES));
		takes_more = service_of(t)->data(r, piece);
		buf_consume(&t->message, piece.len);
	}
	t->is_feeding = false;
	if (!service_of(t) || buf_len(&t->message))
		return;
	t->is_fed = true;
	buf_fini(&t->message);
	service_of(t)->end(r);
}

static void answer_interim(struct request *r)
{
	r->transcode->down->interim(r);
}

/* Bodies that go through unchanged: there is none here, services of gRPC speak HTTP/2. */
static char *answer_reserve(struct request *r, size_t want, size_t *room)
{
	(void)r;
	(void)want;
	*room = 0;
	return NULL;
}

static bool answer_commit(struct request *r, size_t len)
{
	(void)r;
	(void)len;
	return false;
}

static const struct downstream_ops answer_ops = {
	.head = answer_head,
	.data = answer_data,
	.reserve = answer_reserve,
	.commit = answer_commit,
	.end = answer_end,
	.abort = answer_abort,
	.read_body = answer_read_body,
	.interim = answer_interim,
};

void transcode_answer_start(struct transcode *t)
{
	struct request *r = t->r;

	t->failed.on_fire = on_failed;
	exchange_start(r, r->conf->services[r->service->index]);
	/* Unless it is over already: the client's readiness is for the JSON first. */
	if (r->sink && !t->is_over) {
		t->service = r->sink;
		r->sink = &answer_sink;
	}
}

void transcode_answer_init(struct transcode *t)
{
	t->format = choose_format(t->r);
	buf_init(&t->frame, TRANSCODE_MESSAGE_MAX + GRPC_FRAME_HEAD + (1UL << 20));
	/* JSON is longer than what it was made of; how much is up to the types. */
	buf_init(&t->answer, 4 * TRANSCODE_MESSAGE_MAX);
	t->down = t->r->down;
	t->r->down = &answer_ops;
}

void transcode_answer_fini(struct transcode *t)
{
	loop_timer_stop(t->r->worker->loop, &t->failed);
	buf_fini(&t->frame);
	buf_fini(&t->answer);
}
