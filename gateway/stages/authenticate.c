/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place where tokens are checked. A route without `auth` is anonymous; on all others an
 * invalid or missing token is answered with 401 at once (RFC 6750 3) and no service hears of the
 * request.
 */
#include "gateway/gateway.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/token_cache.h"
#include "gateway/worker.h"

static enum stage_result refuse(struct request *r, unsigned status, const char *error,
				const char *detail)
{
	const struct snapshot_auth *auth = r->route->auth;
	char *challenge = NULL;

	metrics_inc(&r->worker->counters.auth_refused, 1);
	if (error)
		challenge = arena_printf(&r->arena, "%.*s, error=\"%s\", error_description=\"%s\"",
					 STR_ARG(auth->challenge), error, detail);
	request_add_extra(r, STR("WWW-Authenticate"),
			  challenge ? str_from(challenge) : auth->challenge);
	problem_send(r, status, status == 403 ? REASON_FORBIDDEN : REASON_UNAUTHENTICATED, detail);
	return STAGE_RESPONDED;
}

/* The token of the one Authorization field. */
static enum jwt_result find_token(const struct request *r, struct str *token)
{
	const struct http_field *found = NULL;

	for (size_t i = 0; i < r->headers.count; i++) {
		if (r->headers.fields[i].id != HTTP_AUTHORIZATION)
			continue;
		/* Which of two would the service believe? */
		if (found)
			return JWT_MALFORMED;
		found = &r->headers.fields[i];
	}
	if (!found || !jwt_bearer(found->value, token))
		return JWT_MISSING;
	return JWT_OK;
}

static enum jwt_result verify(struct request *r, struct str token)
{
	const struct snapshot_auth *auth = r->route->auth;
	struct token_cache *cache = r->worker->gateway->token_cache;
	int64_t now_s = (int64_t)(r->wall_ms / 1000);
	struct jwt_verifier *verifier;
	enum jwt_result result;
	struct token_key key;

	if (token.len > JWT_MAX_BYTES)
		return JWT_TOO_LONG;
	key = token_cache_key(cache, auth->fingerprint, token);
	r->identity = token_cache_get(cache, &key, now_s);
	if (r->identity) {
		metrics_inc(&r->worker->counters.auth_cached, 1);
		return JWT_OK;
	}
	verifier = worker_conf_verifier(r->conf, auth->index);
	if (!verifier)
		return JWT_INTERNAL;
	result = jwt_verify(verifier, &auth->rules, auth->keys, token, now_s, &r->identity);
	if (result == JWT_OK)
		token_cache_put(cache, &key, r->identity, now_s);
	return result;
}

enum stage_result stage_authenticate(struct request *r)
{
	enum jwt_result result;
	struct str token, claim;

	if (!r->route->auth)
		return STAGE_NEXT;
	result = find_token(r, &token);
	if (result == JWT_OK)
		result = verify(r, token);
	switch (result) {
	case JWT_OK:
		break;
	case JWT_MISSING:
		return refuse(r, 401, NULL, jwt_result_text(result));
	case JWT_INTERNAL:
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return STAGE_RESPONDED;
	default:
		return refuse(r, 401, "invalid_token", jwt_result_text(result));
	}
	metrics_inc(&r->worker->counters.auth_ok, 1);
	if (!snapshot_fulfils(r->route, r->identity, &claim))
		return refuse(r, 403, "insufficient_scope",
			      "the token does not grant what this route requires");
	return STAGE_NEXT;
}
