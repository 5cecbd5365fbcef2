/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transcode/transcode.h"

#include <errno.h>
#include <inttypes.h>

#include "gateway/http/grpc.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/transcode/answer.h"
#include "gateway/transcode/transcode_impl.h"
#include "gateway/worker.h"
#include "lib/clock.h"
#include "lib/http_server.h"

bool transcode_wanted(const struct request *r)
{
	return r->route->conf->grpc && !request_is_grpc(r);
}

static void refuse(struct request *r, unsigned status, const char *detail)
{
	problem_send(r, status, status == 413 ? REASON_TOO_LARGE : REASON_BAD_REQUEST, detail);
}

bool transcode_has_room(struct transcode *t)
{
	size_t now = t->json.cap + t->message.cap + t->frame.cap + t->answer.cap;
	struct worker *w = t->r->worker;

	w->transcode_bytes += now - t->counted;
	t->counted = now;
	return w->transcode_bytes <= TRANSCODE_TOTAL_MAX;
}

static void refuse_too_much(struct request *r)
{
	problem_retry_after(r, MSEC_PER_SEC);
	problem_send(r, 503, REASON_OVERLOADED, TRANSCODE_TOO_MUCH);
}

/* --- what path and query say --------------------------------------------------------------- */

static bool add_value(struct transcode *t, struct str field, struct str value)
{
	if (t->value_count >= TRANSCODE_VALUES_MAX)
		return false;
	t->values[t->value_count++] = (struct proto_value) { field, value };
	return true;
}

static bool read_path(struct transcode *t, const struct http_rule_value *values)
{
	for (size_t i = 0; i < t->binding->rule.variable_count; i++) {
		struct str value = http_rule_decode(&t->r->arena, &values[i]);

		if (!value.p || !add_value(t, values[i].field, value))
			return false;
	}
	return true;
}

static bool is_bound_by_path(const struct transcode *t, struct str field)
{
	for (size_t i = 0; i < t->binding->rule.variable_count; i++) {
		if (str_eq(t->binding->rule.variables[i].field, field))
			return true;
	}
	return false;
}

/* Fields that neither path nor body hold. NULL or what is wrong. */
static const char *read_query(struct transcode *t)
{
	struct str rest = t->r->query, one, name, value;

	while (str_split(&rest, '&', &one)) {
		ptrdiff_t eq = str_chr(one, '=');

		if (one.len == 0)
			continue;
		if (eq < 0)
			eq = (ptrdiff_t)one.len;
		if (http_decode(&t->r->arena, str_sub(one, 0, (size_t)eq), true, &name) < 0 ||
		    http_decode(&t->r->arena, str_sub(one, MIN((size_t)eq + 1, one.len), one.len),
				true, &value) < 0 ||
		    !json_is_text(name) || !json_is_text(value))
			return "the query is not properly encoded";
		if (str_eqz(t->binding->proto.body, "*"))
			return "the whole message is the body: this method takes no query";
		if (is_bound_by_path(t, name) || str_eq(name, t->binding->proto.body))
			return "the query repeats what path or body say";
		if (!add_value(t, name, value))
			return "too many parameters in the query";
	}
	return NULL;
}

/* --- what the service gets ----------------------------------------------------------------- */

/* Fields that speak of the JSON, or of gRPC's own matters, which are ours now. */
static bool is_dropped(const struct http_field *f)
{
	switch (f->id) {
	case HTTP_ACCEPT:
	case HTTP_ACCEPT_ENCODING:
	case HTTP_CONTENT_ENCODING:
	case HTTP_CONTENT_LENGTH:
	case HTTP_CONTENT_TYPE:
	case HTTP_EXPECT:
		return true;
	default:
		return str_istarts(f->name, STR("grpc-")) && !str_ieq(f->name, STR("grpc-timeout"));
	}
}

static bool rewrite_head(struct transcode *t)
{
	struct request *r = t->r;
	struct headers *h = &r->headers;
	size_t kept = 0;
	char *timeout;
	bool ok;

	for (size_t i = 0; i < h->count; i++) {
		if (!is_dropped(&h->fields[i]))
			h->fields[kept++] = h->fields[i];
	}
	h->count = kept;
	ok = headers_add(h, STR("Content-Type"), STR("application/grpc"));
	/* The service learns how long anybody waits for it. */
	if (ok && r->service->request_timeout_ms &&
	    !http_find_name(h->fields, h->count, STR("grpc-timeout"))) {
		timeout = arena_printf(&r->arena, "%" PRIu32 "m", r->service->request_timeout_ms);
		ok = timeout && headers_add(h, STR("grpc-timeout"), str_from(timeout));
	}
	r->upstream_path = t->binding->proto.method->path;
	r->has_body = true;
	r->has_length = false; /* gRPC frames by itself */
	return ok;
}

/* The body is here: makes the message and sends it. */
static void forward(struct transcode *t)
{
	struct request *r = t->r;
	char head[GRPC_FRAME_HEAD] = { 0 };
	struct err err;
	char *detail;
	int rc;

	buf_append(&t->message, head, sizeof(head));
	rc = proto_request(&t->binding->proto, buf_str(&t->json), t->values, t->value_count,
			   &t->message, &err);
	buf_fini(&t->json);
	if (rc == -EINVAL) {
		detail = arena_printf(&r->arena, "the request does not fit the method: %s",
				      err.text);
		refuse(r, 400, detail ? detail : "the request does not fit the method");
		return;
	}
	if (rc < 0 || buf_failed(&t->message)) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	if (!transcode_has_room(t)) {
		refuse_too_much(r);
		return;
	}
	grpc_put_length(buf_data(&t->message), buf_len(&t->message) - GRPC_FRAME_HEAD);
	transcode_answer_init(t);
	if (!rewrite_head(t)) {
		refuse(r, 431, "too many header fields");
		return;
	}
	transcode_answer_start(t);
}

/* --- the JSON of the client ---------------------------------------------------------------- */

static bool collect_data(struct request *r, struct str data)
{
	struct transcode *t = r->transcode;

	buf_add(&t->json, data);
	if (buf_failed(&t->json)) {
		r->sink = NULL;
		refuse(r, 413, "the body is larger than a message may be");
		return false;
	}
	/* Many clients at once may each have begun a large one. */
	if (!transcode_has_room(t)) {
		r->sink = NULL;
		buf_fini(&t->json);
		transcode_has_room(t);
		refuse_too_much(r);
		return false;
	}
	return true;
}

static void collect_end(struct request *r)
{
	r->sink = NULL;
	forward(r->transcode);
}

static void collect_resume(struct request *r)
{
	(void)r; /* nothing was sent that could have been too much */
}

static void collect_cancel(struct request *r)
{
	r->sink = NULL;
}

static const struct sink_ops collect = {
	.data = collect_data,
	.end = collect_end,
	.resume = collect_resume,
	.cancel = collect_cancel,
};

/* NULL or why it is not taken: 415. */
static const char *check_content(const struct request *r)
{
	const struct http_field *type = http_find(r->headers.fields, r->headers.count,
						  HTTP_CONTENT_TYPE);
	const struct http_field *encoding = http_find(r->headers.fields, r->headers.count,
						      HTTP_CONTENT_ENCODING);
	struct str media;
	ptrdiff_t end;

	if (encoding && !str_ieq(encoding->value, STR("identity")))
		return "the body must not be compressed";
	if (!type)
		return NULL;
	end = str_chr(type->value, ';');
	media = str_trim(end < 0 ? type->value : str_sub(type->value, 0, (size_t)end));
	if (str_ieq(media, STR("application/json")) ||
	    (media.len > 5 && str_ieq(str_sub(media, media.len - 5, media.len), STR("+json"))))
		return NULL;
	return "the body must be JSON (application/json)";
}

/* The binding, or an answer. */
static bool find_binding(struct transcode *t, struct http_rule_value *values)
{
	struct request *r = t->r;
	struct str allow;

	t->binding = transcode_table_match(t->table, r->method, r->upstream_path, values, &r->arena,
					   &allow);
	if (!t->binding && allow.len) {
		request_add_extra(r, STR("Allow"), allow);
		problem_send(r, 405, REASON_METHOD, "this method is not allowed here");
		return false;
	}
	if (!t->binding) {
		problem_send(r, 404, REASON_NO_ROUTE, "there is nothing here");
		return false;
	}
	if (t->binding->proto.method->client_streams) {
		refuse(r, 501, "a stream of requests needs a gRPC client");
		return false;
	}
	return true;
}

void transcode_start(struct request *r)
{
	struct http_rule_value values[HTTP_RULE_VARIABLES_MAX];
	struct transcode *t = arena_new(&r->arena, struct transcode);
	const char *problem;

	if (!t) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return;
	}
	t->r = r;
	t->table = r->conf->snapshot->transcoders[r->service->index];
	buf_init(&t->json, TRANSCODE_MESSAGE_MAX);
	buf_init(&t->message, TRANSCODE_MESSAGE_MAX + GRPC_FRAME_HEAD);
	r->transcode = t;
	if (!find_binding(t, values))
		return;
	if (!read_path(t, values)) {
		refuse(r, 400, "the path is not properly encoded");
		return;
	}
	problem = read_query(t);
	if (problem) {
		refuse(r, 400, problem);
		return;
	}
	problem = r->has_body ? check_content(r) : NULL;
	if (problem) {
		refuse(r, 415, problem);
		return;
	}
	if (!r->has_body) {
		forward(t);
		return;
	}
	r->sink = &collect;
	r->down->read_body(r);
}

void transcode_end(struct request *r)
{
	struct transcode *t = r->transcode;

	if (!t)
		return;
	r->transcode = NULL;
	buf_fini(&t->json);
	buf_fini(&t->message);
	transcode_answer_fini(t);
	transcode_has_room(t); /* none of it counts any more */
}
