/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place where credentials are checked. A route without `auth` is anonymous; on all others
 * an invalid or missing one is answered with 401 at once (RFC 6750 3) and no service hears of the
 * request.
 */
#include "gateway/gateway.h"
#include "gateway/identity/credentials.h"
#include "gateway/identity/names.h"
#include "gateway/identity/token_cache.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"

/* What came of one way to prove an identity. */
enum outcome {
	OUTCOME_ABSENT, /* the request brings nothing for it */
	OUTCOME_OK,
	OUTCOME_REFUSED,
	OUTCOME_UNAVAILABLE, /* there are no keys to check it with yet */
	OUTCOME_FAILED,      /* out of memory */
};

struct attempt {
	const struct snapshot_auth *auth;
	enum outcome outcome;
	enum auth_refusal refusal;
	const char *detail;
};

static struct attempt refused(const struct snapshot_auth *auth, enum auth_refusal refusal,
			      const char *detail)
{
	return (struct attempt) { auth, OUTCOME_REFUSED, refusal, detail };
}

static int64_t now_of(const struct request *r)
{
	return (int64_t)(r->wall_ms / 1000);
}

/* --- tokens -------------------------------------------------------------------------------- */

static enum jwt_result verify(struct request *r, const struct snapshot_auth *auth,
			      struct worker_auth *own, struct str token)
{
	struct token_cache *cache = r->worker->gateway->token_cache;
	struct token_key key = token_cache_key(cache, own->fingerprint, token);
	enum jwt_result result;

	r->identity = token_cache_get(cache, &key, now_of(r));
	if (r->identity) {
		metrics_inc(&r->worker->counters.auth_cached, 1);
		return JWT_OK;
	}
	/* One route, several issuers: who did not issue it need not look at the signature. */
	if (r->route->auth_count > 1 && !jwt_is_by(token, auth->rules.issuer))
		return JWT_WRONG_ISSUER;
	if (!own->view.jwks)
		return JWT_NO_KEYS;
	if (!own->verifier)
		own->verifier = jwt_verifier_new();
	if (!own->verifier)
		return JWT_INTERNAL;
	result = jwt_verify(own->verifier, &auth->rules, own->view.jwks, token, now_of(r),
			    &r->identity);
	if (result == JWT_OK)
		token_cache_put(cache, &key, r->identity, now_of(r));
	return result;
}

static struct attempt try_jwt(struct request *r, const struct snapshot_auth *auth)
{
	struct worker_auth *own = worker_conf_auth(r->conf, auth);
	enum jwt_result result = JWT_OK;
	struct str token;

	switch (credential_find(r, auth->conf, &token)) {
	case CREDENTIAL_ABSENT:
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_ABSENT };
	case CREDENTIAL_TWICE:
		result = JWT_MALFORMED;
		break;
	case CREDENTIAL_FOUND:
		result = token.len > JWT_MAX_BYTES ? JWT_TOO_LONG : verify(r, auth, own, token);
	}
	if (result == JWT_OK)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_OK };
	if (result == JWT_INTERNAL)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_FAILED };
	if (result == JWT_NO_KEYS)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_UNAVAILABLE };
	if (result == JWT_UNKNOWN_KEY)
		auth_keys_want(auth->keys);
	return refused(auth, (enum auth_refusal)result, jwt_result_text(result));
}

/* --- API keys ------------------------------------------------------------------------------ */

static struct attempt try_api_key(struct request *r, const struct snapshot_auth *auth)
{
	static const enum auth_refusal refusals[] = {
		[API_KEY_UNKNOWN] = AUTH_KEY_UNKNOWN,
		[API_KEY_EXPIRED] = AUTH_KEY_EXPIRED,
		[API_KEY_NOT_YET_VALID] = AUTH_KEY_NOT_YET_VALID,
		[API_KEY_DISABLED] = AUTH_KEY_DISABLED,
	};
	const struct worker_auth *own = worker_conf_auth(r->conf, auth);
	enum api_key_result result;
	struct str key;

	switch (credential_find(r, auth->conf, &key)) {
	case CREDENTIAL_ABSENT:
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_ABSENT };
	case CREDENTIAL_TWICE:
		return refused(auth, AUTH_KEY_UNKNOWN, "there are several API keys");
	case CREDENTIAL_FOUND:
		break;
	}
	if (!own->view.api_keys)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_UNAVAILABLE };
	result = api_keys_check(own->view.api_keys, key, now_of(r), &r->identity);
	if (result == API_KEY_OK)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_OK };
	return refused(auth, refusals[result], api_key_result_text(result));
}

/* --- client certificates ------------------------------------------------------------------- */

static struct identity *identity_of_names(const struct request *r, const struct gw_auth *conf,
					  struct str user)
{
	struct identity *id;
	struct buf claims;

	buf_init(&claims, CLAIMS_MAX_BYTES);
	names_write_claims(r->client_names, user, &claims);
	id = buf_failed(&claims)
		     ? NULL
		     : identity_new(buf_str(&claims), conf->user_claim, r->client_until_s);
	buf_fini(&claims);
	return id;
}

/* The handshake has seen to it that the certificate is good. */
static struct attempt try_mtls(struct request *r, const struct snapshot_auth *auth)
{
	struct token_cache *cache = r->worker->gateway->token_cache;
	const struct worker_auth *own = worker_conf_auth(r->conf, auth);
	struct token_key key;
	struct str user;

	if (!r->client_names.p)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_ABSENT };
	/* A connection may outlive its certificate. */
	if (r->client_until_s <= now_of(r))
		return refused(auth, AUTH_CERTIFICATE, "the client certificate has expired");
	key = token_cache_key(cache, own->fingerprint + (uint64_t)r->client_until_s,
			      r->client_names);
	r->identity = token_cache_get(cache, &key, now_of(r));
	if (r->identity)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_OK };
	user = names_find(r->client_names, auth->conf->allow, auth->conf->allow_count);
	if (!user.p)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_ABSENT };
	r->identity = identity_of_names(r, auth->conf, user);
	if (!r->identity)
		return (struct attempt) { .auth = auth, .outcome = OUTCOME_FAILED };
	token_cache_put(cache, &key, r->identity, now_of(r));
	return (struct attempt) { .auth = auth, .outcome = OUTCOME_OK };
}

/* --- all ----------------------------------------------------------------------------------- */

static struct attempt try_one(struct request *r, const struct snapshot_auth *auth)
{
	struct attempt a;

	if (auth->conf->type == GW_AUTH_JWT)
		a = try_jwt(r, auth);
	else if (auth->conf->type == GW_AUTH_API_KEY)
		a = try_api_key(r, auth);
	else
		a = try_mtls(r, auth);
	if (a.outcome != OUTCOME_OK ||
	    !revoked_has(r->worker->gateway->revoked, r->identity, auth->conf->name, now_of(r)))
		return a;
	identity_put(&r->identity);
	return refused(auth, AUTH_REVOKED, "the credentials were revoked");
}

/* Whether the later attempt says more about what was sent than the one before. */
static bool says_more(const struct attempt *later, const struct attempt *before)
{
	if (later->outcome == OUTCOME_ABSENT)
		return false;
	return before->outcome == OUTCOME_ABSENT || later->outcome == OUTCOME_OK ||
	       (before->outcome == OUTCOME_REFUSED &&
		before->refusal == (enum auth_refusal)JWT_WRONG_ISSUER);
}

/*
 * In the order of the route. The first for which the request brings something decides; a token that
 * it refuses may be another issuer's, but nothing of another kind makes up for a bad one.
 */
static struct attempt try_all(struct request *r)
{
	struct attempt best = { .outcome = OUTCOME_ABSENT };

	for (size_t i = 0; i < r->route->auth_count && best.outcome != OUTCOME_OK; i++) {
		const struct snapshot_auth *auth = r->route->auths[i];
		struct attempt a;

		if (best.outcome != OUTCOME_ABSENT && auth->conf->type != best.auth->conf->type)
			continue;
		a = try_one(r, auth);
		if (says_more(&a, &best))
			best = a;
	}
	return best;
}

/* --- answers ------------------------------------------------------------------------------- */

/* All challenges as one list (RFC 9110 11.6.1); the one that was tried says what was wrong. */
static void add_challenges(struct request *r, const struct attempt *a, const char *error)
{
	char *list = NULL;

	for (size_t i = 0; i < r->route->auth_count; i++) {
		const struct snapshot_auth *auth = r->route->auths[i];
		bool has_error = error && auth == a->auth, is_there = false;

		if (!auth->challenge.p)
			continue;
		for (size_t j = 0; j < i; j++)
			is_there |= r->route->auths[j]->challenge.p &&
				    str_eq(r->route->auths[j]->challenge, auth->challenge);
		if (is_there && !has_error)
			continue;
		list = arena_printf(&r->arena, "%s%s%.*s%s%s%s%s%s", list ? list : "",
				    list ? ", " : "", STR_ARG(auth->challenge),
				    has_error ? ", error=\"" : "", has_error ? error : "",
				    has_error ? "\", error_description=\"" : "",
				    has_error ? a->detail : "", has_error ? "\"" : "");
		if (!list)
			return;
	}
	if (list)
		request_add_extra(r, STR("WWW-Authenticate"), str_from(list));
}

static enum stage_result refuse(struct request *r, const struct attempt *a, unsigned status,
				const char *error)
{
	struct worker_stats *counters = &r->worker->counters;

	metrics_inc(&counters->auth_refused, 1);
	metrics_inc(&counters->auth_refusals[a->refusal], 1);
	add_challenges(r, a, error);
	problem_send(r, status, status == 403 ? REASON_FORBIDDEN : REASON_UNAUTHENTICATED,
		     a->detail);
	return STAGE_RESPONDED;
}

static enum stage_result refuse_missing(struct request *r)
{
	struct attempt a = {
		.refusal = (enum auth_refusal)JWT_MISSING,
		.detail = jwt_result_text(JWT_MISSING),
	};
	bool has_challenge = false;

	for (size_t i = 0; i < r->route->auth_count; i++) {
		has_challenge |= r->route->auths[i]->challenge.p != NULL;
		if (r->route->auths[i]->conf->type == GW_AUTH_API_KEY)
			a.detail = r->route->auth_count > 1
					   ? "there is neither a token nor an API key"
					   : "there is no API key";
	}
	/* 401 asks for something in a header (RFC 9110 15.5.2); a certificate is shown elsewhere.
	 */
	if (!has_challenge) {
		a.refusal = AUTH_CERTIFICATE;
		a.detail = "a client certificate with an allowed name is needed";
	}
	return refuse(r, &a, has_challenge ? 401 : 403, NULL);
}

static enum stage_result refuse_unavailable(struct request *r, const struct attempt *a)
{
	uint64_t after_s = __atomic_load_n(&a->auth->keys->retry_after_s, __ATOMIC_RELAXED);
	char *seconds = arena_printf(&r->arena, "%llu", (unsigned long long)after_s);

	metrics_inc(&r->worker->counters.auth_refused, 1);
	metrics_inc(&r->worker->counters.auth_refusals[JWT_NO_KEYS], 1);
	if (seconds)
		request_add_extra(r, STR("Retry-After"), str_from(seconds));
	problem_send(r, 503, REASON_NO_KEYS, jwt_result_text(JWT_NO_KEYS));
	return STAGE_RESPONDED;
}

/* RFC 6750 3.1 knows the word for tokens only. */
static const char *error_of(const struct attempt *a, const char *word)
{
	return a->auth->conf->type == GW_AUTH_JWT ? word : NULL;
}

static enum stage_result admit(struct request *r, struct attempt *a)
{
	struct str claim;

	r->auth = a->auth;
	metrics_inc(&r->worker->counters.auth_ok, 1);
	if (snapshot_fulfils(r->route, r->identity, &claim))
		return STAGE_NEXT;
	a->refusal = AUTH_INSUFFICIENT;
	a->detail = a->auth->conf->type == GW_AUTH_JWT
			    ? "the token does not grant what this route requires"
			    : "the caller is not granted what this route requires";
	return refuse(r, a, 403, error_of(a, "insufficient_scope"));
}

enum stage_result stage_authenticate(struct request *r)
{
	enum stage_result result = STAGE_NEXT;
	struct attempt a;

	if (r->route->auth_count == 0)
		return STAGE_NEXT;
	a = try_all(r);
	switch (a.outcome) {
	case OUTCOME_OK:
		result = admit(r, &a);
		break;
	case OUTCOME_ABSENT:
		if (!r->route->conf->auth_optional)
			return refuse_missing(r);
		metrics_inc(&r->worker->counters.auth_anonymous, 1);
		break;
	case OUTCOME_REFUSED:
		return refuse(r, &a, a.auth->challenge.p ? 401 : 403,
			      error_of(&a, "invalid_token"));
	case OUTCOME_UNAVAILABLE:
		return refuse_unavailable(r, &a);
	case OUTCOME_FAILED:
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return STAGE_RESPONDED;
	}
	if (result == STAGE_NEXT && !credentials_strip(r)) {
		problem_send(r, 503, REASON_INTERNAL, "out of memory");
		return STAGE_RESPONDED;
	}
	return result;
}
