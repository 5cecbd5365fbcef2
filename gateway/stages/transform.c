/* SPDX-License-Identifier: Apache-2.0 */
/* What the service will see of the request, and the client of the response. */
#include <errno.h>

#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"

/* Fields that only we may write towards a service. */
static bool is_ours(const struct request *r, const struct http_field *f)
{
	switch (f->id) {
	case HTTP_FORWARDED:
	case HTTP_TRACEPARENT:
	case HTTP_X_FORWARDED_CLIENT_CERT:
	case HTTP_X_FORWARDED_FOR:
	case HTTP_X_FORWARDED_HOST:
	case HTTP_X_FORWARDED_PROTO:
	case HTTP_X_REAL_IP:
	case HTTP_X_REQUEST_ID:
		return true;
	case HTTP_OTHER:
		/* -Port, -Prefix, -Server …: of those in front who are believed. */
		return !r->is_from_proxy && headers_is_forwarding(f->name);
	default:
		return false;
	}
}

/* The whole list of proxies when the peer is one that we believe, else the client alone. */
static struct str forwarded_for(struct request *r)
{
	const struct headers *h = &r->headers;
	size_t size = r->peer_ip.len;
	char *list, *at;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].id == HTTP_X_FORWARDED_FOR)
			size += h->fields[i].value.len + 2;
	}
	if (!r->is_from_proxy || size == r->peer_ip.len)
		return r->client_ip;
	list = at = arena_alloc(&r->arena, size);
	if (!list)
		return r->client_ip;
	/* All lines are one list (RFC 9110 5.3): a proxy may add its own line below the client's,
	 * and the first alone would be the client's word. */
	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].id != HTTP_X_FORWARDED_FOR)
			continue;
		at = mempcpy(at, h->fields[i].value.p, h->fields[i].value.len);
		at = mempcpy(at, ", ", 2);
	}
	memcpy(at, r->peer_ip.p, r->peer_ip.len);
	return str_of(list, size);
}

static bool add_identity(struct request *r)
{
	const struct gw_auth *auth = r->auth->conf;
	bool ok = true;

	for (size_t i = 0; i < auth->forward_count; i++) {
		const struct claim *claim = identity_claim(r->identity, auth->forward[i].name);

		if (claim && claim_is_safe(claim))
			ok &= headers_add(&r->headers, auth->forward[i].value, claim->text);
	}
	return ok;
}

/* False: answered. */
static bool make_path(struct request *r)
{
	int rc = 0;

	if (r->route->rewrite) {
		rc = template_expand(&r->upstream_path, r->route->rewrite, r);
	} else {
		r->upstream_path = snapshot_rewrite_path(r->route, r->path, &r->match, &r->arena);
		rc = r->upstream_path.p ? 0 : -ENOMEM;
	}
	if (rc == -ENOMEM)
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
	else if (rc < 0)
		problem_send(r, 400, REASON_BAD_REQUEST,
			     "the request lacks something of the path for the service");
	return rc == 0;
}

enum stage_result stage_transform(struct request *r)
{
	struct headers *h = &r->headers;
	struct str list = forwarded_for(r), trace = identify_traceparent(r);
	size_t kept = 0;
	bool ok;

	for (size_t i = 0; i < h->count; i++)
		r->accepts_trailers |= h->fields[i].id == HTTP_TE &&
				       http_list_has(h->fields[i].value, STR("trailers"));
	headers_strip_hop_by_hop(h);
	headers_guard_strip(r->conf->snapshot->guard, h,
			    r->conf->snapshot->conf.defaults.underscores_in_headers);
	for (size_t i = 0; i < h->count; i++) {
		if (!is_ours(r, &h->fields[i]))
			h->fields[kept++] = h->fields[i];
	}
	h->count = kept;
	ok = headers_rules_apply(r->route->request, h, r);
	ok &= headers_add(h, STR("X-Request-Id"), r->request_id);
	ok &= headers_add(h, STR("X-Forwarded-For"), list);
	ok &= headers_add(h, STR("X-Forwarded-Proto"), r->scheme);
	ok &= headers_add(h, STR("X-Forwarded-Host"), r->authority);
	ok &= headers_add(h, STR("Traceparent"), trace);
	if (r->client_certificate.len)
		ok &= headers_add(h, STR("X-Forwarded-Client-Cert"), r->client_certificate);
	if (r->identity)
		ok &= add_identity(r);
	if (!ok) {
		problem_send(r, 431, REASON_BAD_REQUEST, "too many header fields");
		return STAGE_RESPONDED;
	}
	return make_path(r) ? STAGE_NEXT : STAGE_RESPONDED;
}

bool stage_transform_response(struct request *r)
{
	return headers_rules_apply(r->route->response, &r->response.headers, r);
}
