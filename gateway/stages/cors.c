/* SPDX-License-Identifier: Apache-2.0 */
/* Preflights: a browser asks, without any identity, whether a page may send what it wants to. */
#include "gateway/http/cors.h"

#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"

bool cors_find_preflight(struct request *r, const struct router_request *query)
{
	const struct snapshot *s = r->conf->snapshot;
	const struct http_field *fields = r->headers.fields, *method, *asked;
	struct router_request q = *query;
	struct router_match match;

	if (!r->origin.len || r->method_id != METHOD_OPTIONS)
		return false;
	method = http_find_name(fields, r->headers.count, STR("Access-Control-Request-Method"));
	if (!method || !http_is_token(method->value))
		return false;
	asked = http_find_name(fields, r->headers.count, STR("Access-Control-Request-Headers"));
	q.method = http_method_id(method->value);
	q.method_name = method->value;
	q.preflight = ROUTER_PREFLIGHT;
	q.asked_headers = asked ? asked->value : STR("");
	if (router_match(s->router, &q, &match) != ROUTER_FOUND) {
		q.preflight = ROUTER_PREFLIGHT_LAX;
		if (router_match(s->router, &q, &match) != ROUTER_FOUND)
			return false;
	}
	if (!s->routes[match.route].cors)
		return false;
	r->match = match;
	r->route = &s->routes[match.route];
	r->is_preflight = true;
	return true;
}

enum stage_result stage_preflight(struct request *r)
{
	if (!r->is_preflight)
		return STAGE_NEXT;
	r->reason = REASON_PREFLIGHT;
	response_send(r, 204, STR(""), STR(""));
	return STAGE_RESPONDED;
}
