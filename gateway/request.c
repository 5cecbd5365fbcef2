/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/request.h"

#include "gateway/analytics/analytics.h"
#include "gateway/analytics/record.h"
#include "gateway/analytics/versions.h"
#include "gateway/http/cors.h"
#include "gateway/http/grpc.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/transcode/transcode.h"
#include "gateway/upstream/mirror.h"
#include "gateway/worker.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hex.h"

#define REQUEST_ARENA_CHUNK (4UL * 1024)
#define REQUEST_ARENA_MAX   (512UL * 1024)
#define REQUESTS_KEPT       1024

const char *const request_reasons[REQUEST_REASONS] = {
	[REASON_NONE] = "ok",
	[REASON_BAD_REQUEST] = "bad_request",
	[REASON_MISDIRECTED] = "misdirected",
	[REASON_NO_ROUTE] = "no_route",
	[REASON_METHOD] = "method_not_allowed",
	[REASON_VERSION_GONE] = "version_gone",
	[REASON_UNAUTHENTICATED] = "unauthenticated",
	[REASON_FORBIDDEN] = "forbidden",
	[REASON_NO_KEYS] = "no_keys",
	[REASON_REVOKED] = "revoked",
	[REASON_RATE_LIMITED] = "rate_limited",
	[REASON_OVERLOADED] = "overloaded",
	[REASON_TOO_LARGE] = "too_large",
	[REASON_FIXED] = "fixed_response",
	[REASON_PREFLIGHT] = "cors_preflight",
	[REASON_NO_INSTANCE] = "no_instance",
	[REASON_SERVICE_BUSY] = "service_busy",
	[REASON_CIRCUIT_OPEN] = "circuit_open",
	[REASON_CONNECT_FAILED] = "connect_failed",
	[REASON_CONNECT_TIMEOUT] = "connect_timeout",
	[REASON_SERVICE_RESET] = "service_reset",
	[REASON_SERVICE_GARBAGE] = "service_garbage",
	[REASON_RESPONSE_TIMEOUT] = "response_timeout",
	[REASON_REQUEST_TIMEOUT] = "request_timeout",
	[REASON_CLIENT_GONE] = "client_gone",
	[REASON_CLIENT_TIMEOUT] = "client_timeout",
	[REASON_TUNNEL_IDLE] = "websocket_idle",
	[REASON_INTERNAL] = "internal",
};

/* A request on the worker's free list. */
struct idle_request {
	struct request r; /* first: the same address */
	struct list node;
};

struct request *request_new(struct worker *w)
{
	struct idle_request *idle;
	struct arena arena;

	if (!list_empty(&w->idle_requests)) {
		idle = container_of(w->idle_requests.next, struct idle_request, node);
		list_remove(&idle->node);
		w->idle_request_count--;
	} else {
		idle = malloc(sizeof(*idle));
		if (!idle)
			return NULL;
		arena_init(&idle->r.arena, REQUEST_ARENA_CHUNK, REQUEST_ARENA_MAX);
	}
	arena = idle->r.arena;
	memset(&idle->r, 0, sizeof(idle->r));
	idle->r.arena = arena;
	idle->r.worker = w;
	idle->r.conf = worker_conf_get(w->conf);
	idle->r.begin_ns = loop_now_ns(w->loop);
	idle->r.wall_ms = clock_wall_ms();
	idle->r.protocol = idle->r.tls = "";
	return &idle->r;
}

/* Counts the request under its route and outcome. */
static void request_count(struct request *r)
{
	struct worker_stats *counters = &r->worker->counters;
	struct route_stats *stats =
		r->conf->routes[r->route ? r->route->index : r->conf->snapshot->route_count];
	unsigned class = r->reason == REASON_CLIENT_GONE ? 0 : r->response.status / 100;

	metrics_inc(&counters->requests, 1);
	metrics_inc(&counters->reasons[r->reason], 1);
	metrics_inc(&counters->bytes_in, r->bytes_in);
	metrics_inc(&counters->bytes_out, r->bytes_out);
	metrics_inc(&stats->status_class[class < 6 ? class : 0], 1);
	/* How long people keep a WebSocket open says nothing about latency; its handshake does. */
	metrics_observe_us(&stats->latency, r->is_tunnel ? (r->answered_ns - r->begin_ns) / 1000
							 : request_elapsed_us(r));
}

void request_free(struct request *r)
{
	struct idle_request *idle = container_of(r, struct idle_request, r);
	struct worker *w = r->worker;

	/* Only after a response that had to be cut: whoever still works for it must hear of it. */
	if (r->sink)
		r->sink->cancel(r);
	transcode_end(r);
	mirror_leave(r);
	if (!r->is_mirror) {
		request_count(r);
		if (w->records)
			record_request(w->records, r);
		analytics_note(w->analytics, r, request_elapsed_us(r));
		if (r->route && r->route->conf->version)
			versions_note(w->versions, r);
	}
	identity_put(&r->identity);
	worker_conf_put(r->conf);
	if (w->idle_request_count >= REQUESTS_KEPT) {
		arena_fini(&r->arena);
		free(idle);
		return;
	}
	arena_reset(&r->arena);
	list_add_head(&w->idle_requests, &idle->node);
	w->idle_request_count++;
}

void request_free_idle(struct worker *w)
{
	while (!list_empty(&w->idle_requests)) {
		struct idle_request *idle = container_of(w->idle_requests.next, struct idle_request,
							 node);

		list_remove(&idle->node);
		arena_fini(&idle->r.arena);
		free(idle);
	}
}

bool request_is_grpc(const struct request *r)
{
	const struct http_field *type;

	if (strcmp(r->protocol, "HTTP/2") != 0 || r->transcode)
		return false;
	type = http_find(r->headers.fields, r->headers.count, HTTP_CONTENT_TYPE);
	return type && grpc_is_content_type(type->value);
}

/* A random UUID, RFC 9562 5.4. */
void request_make_id(struct request *r)
{
	char *id = arena_alloc(&r->arena, 36);
	unsigned char bytes[16];
	char *at = id;

	if (!id)
		return;
	random_bytes(bytes, sizeof(bytes));
	bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
	bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
	hex_put(&at, bytes, 4);
	for (int i = 4; i < 10; i += 2) {
		*at++ = '-';
		hex_put(&at, bytes + i, 2);
	}
	*at++ = '-';
	hex_put(&at, bytes + 10, 6);
	r->request_id = str_of(id, 36);
}

void request_add_extra(struct request *r, struct str name, struct str value)
{
	if (r->extra_count < REQUEST_EXTRA_FIELDS)
		r->extra[r->extra_count++] = (struct http_field) { name, value,
								   http_name_id(name) };
}

struct str request_host(const struct request *r)
{
	struct str host = r->authority;
	ptrdiff_t colon;

	if (host.len && host.p[0] == '[') {
		ptrdiff_t end = str_chr(host, ']');

		return end < 0 ? host : str_sub(host, 0, (size_t)end + 1);
	}
	colon = str_chr(host, ':');
	return colon < 0 ? host : str_sub(host, 0, (size_t)colon);
}

uint64_t request_elapsed_us(const struct request *r)
{
	return (clock_mono_ns() - r->begin_ns) / 1000;
}

/* Room for what rules and stages add. */
#define RESPONSE_SPARE_FIELDS 24

bool response_init(struct request *r, unsigned status, const struct http_field *copy, size_t count)
{
	struct response *response = &r->response;

	*response = (struct response) { .status = status };
	response->headers.max = count + RESPONSE_SPARE_FIELDS;
	response->headers.fields = arena_alloc(&r->arena,
					       response->headers.max * sizeof(struct http_field));
	if (!response->headers.fields)
		return false;
	if (count)
		memcpy(response->headers.fields, copy, count * sizeof(*copy));
	response->headers.count = count;
	return true;
}

void response_send_head(struct request *r)
{
	limit_add_fields(r);
	for (size_t i = 0; i < r->extra_count; i++)
		headers_set(&r->response.headers, r->extra[i].name, r->extra[i].value);
	cors_finish(r);
	r->has_head = true;
	r->down->head(r);
}

void response_send_fixed(struct request *r, unsigned status, const struct headers_rules *rules,
			 struct str content_type, struct str body)
{
	if (!response_init(r, status, NULL, 0)) {
		r->reason = REASON_INTERNAL;
		r->down->abort(r);
		return;
	}
	/* What has no room is left out, as it is with those of request_add_extra. */
	headers_rules_apply(r->route ? r->route->response : r->conf->snapshot->default_response,
			    &r->response.headers, r);
	if (content_type.len)
		headers_set(&r->response.headers, STR("Content-Type"), content_type);
	headers_rules_apply(rules, &r->response.headers, r);
	/* RFC 9110 8.6: none in a 204; in a 304 it would be that of a 200. */
	r->response.has_length = status != 204 && status != 304;
	r->response.length = body.len;
	r->response.has_body = body.len > 0 && r->method_id != METHOD_HEAD;
	response_send_head(r);
	if (r->response.has_body)
		r->down->data(r, body);
	r->down->end(r);
}

void response_send(struct request *r, unsigned status, struct str content_type, struct str body)
{
	response_send_fixed(r, status, NULL, content_type, body);
}
