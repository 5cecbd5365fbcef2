/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/problem.h"

#include "gateway/http/grpc.h"
#include "lib/clock.h"
#include "lib/json.h"

/*
 * For gRPC: HTTP's status is 200 and the fields that would follow a body are the head (its
 * "trailers-only" answer), or they end what has begun: a status other than OK says that messages
 * are missing.
 */
static void grpc_problem(struct request *r, unsigned status, const char *detail)
{
	enum grpc_status code = grpc_status_of(status);
	char *number = arena_printf(&r->arena, "%u", (unsigned)code);
	struct str message = grpc_message(&r->arena, str_from(detail));
	struct http_field fields[] = {
		{ STR("grpc-status"), str_from(number ? number : "2"), HTTP_OTHER },
		{ STR("grpc-message"), message.p ? message : STR(""), HTTP_OTHER },
		{ STR("Content-Type"), STR("application/grpc"), HTTP_CONTENT_TYPE },
	};
	struct headers *trailers = &r->response.trailers;

	r->has_grpc_status = true;
	r->grpc_status = code;
	if (!r->has_head) {
		if (!response_init(r, 200, fields, ARRAY_SIZE(fields))) {
			r->down->abort(r);
			return;
		}
		response_send_head(r);
		r->down->end(r);
		return;
	}
	trailers->fields = arena_alloc(&r->arena, 2 * sizeof(*fields));
	if (!trailers->fields || !r->response.has_body) {
		r->down->abort(r);
		return;
	}
	memcpy(trailers->fields, fields, 2 * sizeof(*fields));
	trailers->count = trailers->max = 2;
	r->down->end(r);
}

void problem_send(struct request *r, unsigned status, enum request_reason reason,
		  const char *detail)
{
	struct json_writer w;
	struct buf body;

	r->reason = reason;
	if (request_is_grpc(r)) {
		grpc_problem(r, status, detail);
		return;
	}
	if (r->has_head) {
		r->down->abort(r);
		return;
	}
	/* Heads that could not be read never came to the stage that names requests. */
	if (!r->request_id.len)
		request_make_id(r);
	buf_init(&body, 4096);
	w = json_writer(&body);
	json_open(&w, NULL, '{');
	json_addz(&w, "type", "about:blank");
	json_add_u64(&w, "status", status);
	json_addz(&w, "title", http_reason(status));
	json_addz(&w, "detail", detail);
	if (r->request_id.len)
		json_add_str(&w, "request_id", r->request_id);
	json_close(&w, '}');
	request_add_extra(r, STR("Cache-Control"), STR("no-store"));
	response_send(r, status, STR("application/problem+json"), buf_str(&body));
	buf_fini(&body);
}

void problem_retry_after(struct request *r, uint64_t ms)
{
	char *seconds = arena_printf(&r->arena, "%llu",
				     (unsigned long long)((ms + MSEC_PER_SEC - 1) / MSEC_PER_SEC));

	if (seconds)
		request_add_extra(r, STR("Retry-After"), str_from(seconds));
}
