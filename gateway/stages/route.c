/* SPDX-License-Identifier: Apache-2.0 */
/* From the path to the route, its version, its bounds, and routes that answer by themselves. */
#include <errno.h>
#include <stdio.h>

#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"

/* Plain listeners that exist to send browsers to https. */
enum stage_result stage_redirect(struct request *r)
{
	const struct gw_listener *l = &r->conf->snapshot->conf.listeners[r->listener];
	struct str host = request_host(r);
	struct str path = str_eq(r->raw_path, STR("*")) ? STR("/") : r->raw_path;
	char port[8] = "";
	char *location;

	if (!l->redirect_to_https)
		return STAGE_NEXT;
	r->reason = REASON_FIXED;
	if (!host.len) {
		problem_send(r, 400, REASON_BAD_REQUEST, "no Host: nowhere to redirect to");
		return STAGE_RESPONDED;
	}
	if (l->https_port != 443)
		snprintf(port, sizeof(port), ":%u", l->https_port);
	/* "*" is no path: OPTIONS for the server as a whole. */
	location = arena_printf(&r->arena, "https://%.*s%s%.*s%s%.*s", STR_ARG(host), port,
				STR_ARG(path), r->query.p ? "?" : "", STR_ARG(r->query));
	if (location)
		request_add_extra(r, STR("Location"), str_from(location));
	/* 308 keeps the method and the body (RFC 9110 15.4.9). */
	response_send(r, 308, STR(""), STR(""));
	return STAGE_RESPONDED;
}

enum stage_result stage_path(struct request *r)
{
	const char *problem = NULL;

	if (str_eq(r->raw_path, STR("*"))) {
		r->path = r->raw_path;
		return STAGE_NEXT;
	}
	if (path_normalise(&r->path, r->raw_path, r->conf->snapshot->conf.path_allow, &r->arena,
			   &problem) < 0) {
		problem_send(r, problem ? 400 : 503, problem ? REASON_BAD_REQUEST : REASON_INTERNAL,
			     problem ? problem : "out of memory");
		return STAGE_RESPONDED;
	}
	return STAGE_NEXT;
}

static void refuse_method(struct request *r)
{
	struct buf allow;
	struct str copy;

	buf_init(&allow, 1024);
	router_write_allow(r->conf->snapshot->router, r->match.allow, &allow);
	copy = arena_str(&r->arena, buf_str(&allow));
	buf_fini(&allow);
	if (copy.p)
		request_add_extra(r, STR("Allow"), copy);
	problem_send(r, 405, REASON_METHOD, "this path is not served for this method");
}

enum stage_result stage_route(struct request *r)
{
	const struct snapshot *s = r->conf->snapshot;
	struct router_request q = {
		.host = r->authority,
		.path = r->path,
		.method = r->method_id,
		.method_name = r->method,
		.query = r->query,
		.fields = r->headers.fields,
		.field_count = r->headers.count,
	};
	enum router_result result;

	if (cors_find_preflight(r, &q))
		return STAGE_NEXT;
	result = router_match(s->router, &q, &r->match);
	if (result == ROUTER_FOUND) {
		r->route = &s->routes[r->match.route];
		return STAGE_NEXT;
	}
	/* Guessing paths is limited like everything else. */
	if (stage_limit_address(r) == STAGE_RESPONDED)
		return STAGE_RESPONDED;
	switch (result) {
	case ROUTER_NO_METHOD:
		refuse_method(r);
		break;
	case ROUTER_NO_CONTENT_TYPE:
		problem_send(r, 415, REASON_NO_ROUTE, "this path takes bodies of other types");
		break;
	case ROUTER_NOT_ACCEPTABLE:
		problem_send(r, 406, REASON_NO_ROUTE,
			     "this path has no answer of an acceptable type");
		break;
	case ROUTER_FOUND:
	case ROUTER_NO_ROUTE:
	default:
		problem_send(r, 404, REASON_NO_ROUTE, "no route for this host and path");
	}
	return STAGE_RESPONDED;
}

enum stage_result stage_version(struct request *r)
{
	const struct snapshot_version *v = r->route->version;

	if (!v)
		return STAGE_NEXT;
	if (v->deprecation.len)
		request_add_extra(r, STR("Deprecation"), v->deprecation);
	if (v->sunset.len)
		request_add_extra(r, STR("Sunset"), v->sunset);
	if (v->link.len)
		request_add_extra(r, STR("Link"), v->link);
	if (r->wall_ms < v->gone_after_ms)
		return STAGE_NEXT;
	problem_send(r, 410, REASON_VERSION_GONE, "this version of the API was switched off");
	return STAGE_RESPONDED;
}

/* RFC 9110 10.1.1: there is one expectation, and HTTP/1.0 has not even that one. */
static bool expects_the_unknown(const struct request *r)
{
	for (size_t i = 0; i < r->headers.count; i++) {
		if (r->headers.fields[i].id == HTTP_EXPECT &&
		    !str_ieq(r->headers.fields[i].value, STR("100-continue")))
			return strcmp(r->protocol, "HTTP/1.0") != 0;
	}
	return false;
}

enum stage_result stage_body_size(struct request *r)
{
	if (expects_the_unknown(r)) {
		problem_send(r, 417, REASON_BAD_REQUEST,
			     "nothing but 100-continue can be expected");
		return STAGE_RESPONDED;
	}
	r->max_body = r->route->max_body_bytes;
	if (!r->max_body || !r->has_length || r->length <= r->max_body)
		return STAGE_NEXT;
	problem_send(r, 413, REASON_TOO_LARGE,
		     "the request body is larger than this service allows");
	return STAGE_RESPONDED;
}

/* Nothing that the client sent can make it lead elsewhere than the configuration says. */
static void redirect(struct request *r, const struct gw_redirect *redirect)
{
	struct str location;
	int rc = template_expand(&location, r->route->location, r);

	if (rc < 0) {
		problem_send(r, rc == -ENOMEM ? 503 : 400,
			     rc == -ENOMEM ? REASON_INTERNAL : REASON_BAD_REQUEST,
			     rc == -ENOMEM ? "out of memory"
					   : "the request lacks something of the address to which "
					     "it would be redirected");
		return;
	}
	request_add_extra(r, STR("Location"), location);
	response_send(r, redirect->status, STR(""), STR(""));
}

enum stage_result stage_answer(struct request *r)
{
	const struct gw_respond *respond = r->route->conf->respond;

	if (!respond && !r->route->conf->redirect)
		return STAGE_NEXT;
	r->reason = REASON_FIXED;
	if (r->route->conf->redirect)
		redirect(r, r->route->conf->redirect);
	else
		response_send_fixed(r, respond->status, r->route->respond,
				    respond->body.len ? respond->content_type : STR(""),
				    respond->body);
	return STAGE_RESPONDED;
}
