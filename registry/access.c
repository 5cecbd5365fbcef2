/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base64.h"
#include "lib/cleanup.h"
#include "registry/instance.h"
#include "registry/watch.h"

#define DIGEST_LEN 32
#define BASIC_MAX  1024 /* of the encoded text */

struct reg_token {
	struct str name;
	unsigned char digest[DIGEST_LEN]; /* SHA-256 of the secret */
	const struct str *apps;           /* "*", "name", "prefix*" */
	size_t app_count;
	bool may_read, may_write;
};

struct reg_access {
	struct arena arena;
	struct reg_token *tokens;
	size_t count;
	bool has_open_reads;
	EVP_MD *sha256;
	EVP_MD_CTX *md;
	struct reg_access_stats stats;
};

/* --- what a request is about ----------------------------------------------------------------- */

/* The apps it names, or all of them. */
struct scope {
	bool is_public;  /* probes and the page itself */
	bool is_checked; /* by its handler */
	bool is_write;
	struct str apps[REG_WATCH_APPS_MAX]; /* in lower case */
	size_t count;                        /* 0: all */
};

static bool add_app(struct scope *s, struct str name, struct arena *a)
{
	char app[REG_APP_MAX + 1];
	struct str copy;

	if (s->count == ARRAY_SIZE(s->apps) || !reg_app_name(name, app))
		return false;
	copy = arena_str(a, str_from(app));
	if (!copy.p)
		return false;
	s->apps[s->count++] = copy;
	return true;
}

/* Anything odd is about all apps: the handler says what is wrong to those who may hear it. */
static void scope_of_list(struct scope *s, const struct http_request *req)
{
	struct str list, name;

	if (http_query(req, "apps", &list) < 0)
		return;
	while (str_split(&list, ',', &name)) {
		if (!add_app(s, name, req->arena)) {
			s->count = 0;
			return;
		}
	}
}

/* The one segment behind a prefix, decoded as the router does it. */
static void scope_of_segment(struct scope *s, struct str rest, struct arena *a)
{
	ptrdiff_t slash = str_chr(rest, '/');
	struct str name;

	if (slash >= 0)
		rest = str_sub(rest, 0, (size_t)slash);
	if (http_decode(a, rest, false, &name) < 0 || !add_app(s, name, a))
		s->count = 0;
}

static void scope_of_apps(struct scope *s, const struct http_request *req)
{
	static const struct str native = STR("/v1/apps/");
	static const struct str eureka[] = { STR("/eureka/v2/apps/"), STR("/eureka/apps/"),
					     STR("/v2/apps/") };
	struct str path = req->path;

	if (str_starts(path, native)) {
		scope_of_segment(s, str_sub(path, native.len, path.len), req->arena);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(eureka); i++) {
		struct str rest;

		if (!str_starts(path, eureka[i]))
			continue;
		rest = str_sub(path, eureka[i].len, path.len);
		if (str_ends(rest, STR("/")))
			rest.len--;
		/* No app: the changes of all. */
		if (!str_eq(rest, STR("delta")))
			scope_of_segment(s, rest, req->arena);
		return;
	}
}

static void scope_read(struct scope *s, const struct http_request *req)
{
	static const struct str public[] = { STR("/"), STR("/healthz"), STR("/readyz"),
					     STR("/favicon.ico") };

	*s = (struct scope) {
		.is_write = req->method_id != METHOD_GET && req->method_id != METHOD_HEAD &&
			    req->method_id != METHOD_OPTIONS,
	};
	for (size_t i = 0; i < ARRAY_SIZE(public); i++)
		s->is_public |= str_eq(req->path, public[i]);
	s->is_public |= req->method_id == METHOD_OPTIONS;
	s->is_checked = s->is_write && str_eq(req->path, STR("/v1/renew"));
	if (str_eq(req->path, STR("/v1/watch")))
		scope_of_list(s, req);
	else
		scope_of_apps(s, req);
}

/* --- tokens ---------------------------------------------------------------------------------- */

static bool token_covers(const struct reg_token *t, struct str app)
{
	for (size_t i = 0; i < t->app_count; i++) {
		struct str pattern = t->apps[i];

		if (!str_ends(pattern, STR("*"))) {
			if (str_ieq(app, pattern))
				return true;
			continue;
		}
		pattern.len--;
		if (str_istarts(app, pattern))
			return true;
	}
	return false;
}

static bool token_covers_all(const struct reg_token *t)
{
	for (size_t i = 0; i < t->app_count; i++) {
		if (str_eq(t->apps[i], STR("*")))
			return true;
	}
	return false;
}

static bool token_allows(const struct reg_token *t, const struct scope *s)
{
	if (s->is_write ? !t->may_write : !t->may_read)
		return false;
	if (s->is_checked)
		return true;
	for (size_t i = 0; i < s->count; i++) {
		if (!token_covers(t, s->apps[i]))
			return false;
	}
	return s->count > 0 || token_covers_all(t);
}

/* Looks at every token, whichever it is: the time tells nothing. */
static const struct reg_token *token_find(const struct reg_access *a, struct str secret,
					  struct str name)
{
	const struct reg_token *found = NULL;
	unsigned char digest[DIGEST_LEN];

	if (!EVP_DigestInit_ex(a->md, a->sha256, NULL) ||
	    !EVP_DigestUpdate(a->md, secret.p, secret.len) ||
	    !EVP_DigestFinal_ex(a->md, digest, NULL))
		return NULL;
	for (size_t i = 0; i < a->count; i++) {
		const struct reg_token *t = &a->tokens[i];

		if (CRYPTO_memcmp(t->digest, digest, DIGEST_LEN) == 0)
			found = t;
	}
	/* The name is no secret. */
	if (found && name.p && !str_eq(found->name, name))
		return NULL;
	return found;
}

/* "user:password" of a URL, as Eureka's clients send it: name and secret of a token. */
static const struct reg_token *token_of_basic(const struct reg_access *a, struct str text)
{
	char plain[BASIC_MAX], decoded[BASE64URL_DECODED_MAX(BASIC_MAX)];
	struct str both;
	ptrdiff_t colon;
	long len;

	while (str_ends(text, STR("=")))
		text.len--;
	if (text.len > sizeof(plain))
		return NULL;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (c == '-' || c == '_')
			return NULL;
		plain[i] = c == '+' ? '-' : (c == '/' ? '_' : c);
	}
	len = base64url_decode(decoded, str_of(plain, text.len));
	if (len < 0)
		return NULL;
	both = str_of(decoded, (size_t)len);
	colon = str_chr(both, ':');
	if (colon < 0)
		return NULL;
	return token_find(a, str_sub(both, (size_t)colon + 1, both.len),
			  str_sub(both, 0, (size_t)colon));
}

/* NULL for a header that names no token of ours. */
static const struct reg_token *token_read(const struct reg_access *a, struct str header)
{
	static const struct str bearer = STR("Bearer "), basic = STR("Basic ");

	if (str_istarts(header, bearer))
		return token_find(a, str_sub(header, bearer.len, header.len), (struct str) { 0 });
	if (str_istarts(header, basic))
		return token_of_basic(a, str_sub(header, basic.len, header.len));
	return NULL;
}

/* --- the check ------------------------------------------------------------------------------- */

static bool answer_unauthorized(struct http_request *req, const char *detail)
{
	http_add_header(req, "WWW-Authenticate", STR("Bearer realm=\"gatehouse registry\""));
	http_problem(req, 401, "%s", detail);
	return false;
}

bool reg_access_check(struct reg_access *a, struct http_request *req, struct reg_grant *grant)
{
	const struct reg_token *token = NULL;
	struct scope scope;
	struct str header;

	*grant = (struct reg_grant) { .is_unlimited = a->count == 0 || req->is_local };
	if (grant->is_unlimited)
		return true;
	scope_read(&scope, req);
	if (scope.is_public)
		return true;
	header = http_header(req, "Authorization");
	if (header.p) {
		token = token_read(a, header);
		if (!token) {
			a->stats.bad_token++;
			return answer_unauthorized(req, "the token is not one of this registry's");
		}
	}
	grant->token = token;
	if (!scope.is_write && a->has_open_reads)
		return true;
	if (!token) {
		a->stats.no_token++;
		return answer_unauthorized(req, "needs a token: Authorization: Bearer …, or its "
						"name and itself as user and password");
	}
	if (token_allows(token, &scope))
		return true;
	a->stats.not_allowed++;
	http_problem(req, 403, "the token \"%.*s\" may not %s %s%s%s", STR_ARG(token->name),
		     scope.is_write ? "change" : "read", scope.count ? "app \"" : "all apps",
		     scope.count ? scope.apps[0].p : "", scope.count ? "\"" : "");
	return false;
}

bool reg_grant_may_write(const struct reg_grant *g, struct str app)
{
	return g->is_unlimited || (g->token && g->token->may_write && token_covers(g->token, app));
}

struct str reg_grant_name(const struct reg_grant *g)
{
	return g->token ? g->token->name : (struct str) { 0 };
}

/* --- making ---------------------------------------------------------------------------------- */

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);
}

static bool token_make(struct reg_access *a, struct reg_token *t, const struct reg_conf_token *conf)
{
	struct str *apps = arena_array(&a->arena, struct str, conf->apps_count);

	t->name = arena_str(&a->arena, conf->name);
	if (!apps || !t->name.p)
		return false;
	for (size_t i = 0; i < conf->apps_count; i++) {
		apps[i] = arena_str(&a->arena, conf->apps[i]);
		if (!apps[i].p)
			return false;
	}
	t->apps = apps;
	t->app_count = conf->apps_count;
	for (size_t i = 0; i < conf->rights_count; i++) {
		t->may_read |= str_eq(conf->rights[i], STR("read"));
		t->may_write |= str_eq(conf->rights[i], STR("write"));
	}
	if (!conf->sha256.p)
		return EVP_Digest(conf->token.p, conf->token.len, t->digest, NULL, a->sha256,
				  NULL) == 1;
	for (size_t i = 0; i < DIGEST_LEN; i++)
		t->digest[i] = (unsigned char)(hex_digit(conf->sha256.p[2 * i]) << 4 |
					       hex_digit(conf->sha256.p[2 * i + 1]));
	return true;
}

struct reg_access *reg_access_new(const struct reg_conf *conf)
{
	struct reg_access *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	arena_init(&a->arena, 1024, 0);
	a->has_open_reads = conf->open_reads;
	a->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	a->md = EVP_MD_CTX_new();
	a->tokens = arena_array(&a->arena, struct reg_token, MAX(conf->tokens_count, (size_t)1));
	if (!a->sha256 || !a->md || !a->tokens) {
		reg_access_free(&a);
		return NULL;
	}
	for (size_t i = 0; i < conf->tokens_count; i++) {
		a->tokens[i] = (struct reg_token) { 0 };
		if (!token_make(a, &a->tokens[i], &conf->tokens[i])) {
			reg_access_free(&a);
			return NULL;
		}
		a->count++;
	}
	return a;
}

void reg_access_free(struct reg_access **ap)
{
	struct reg_access *a = TAKE_PTR(*ap);

	if (!a)
		return;
	EVP_MD_free(a->sha256);
	EVP_MD_CTX_free(a->md);
	arena_fini(&a->arena);
	free(a);
}

const struct reg_access_stats *reg_access_stats(const struct reg_access *a)
{
	return &a->stats;
}

size_t reg_access_tokens(const struct reg_access *a)
{
	return a->count;
}
