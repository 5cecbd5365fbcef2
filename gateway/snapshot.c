/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/conf/check.h"
#include "gateway/transcode/table.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

/* A snapshot being built, with the place for its mistakes. */
struct build {
	struct snapshot *s;
	struct arena *a;
	struct conf_errors *errors;
};

/* --- keys and issuers ---------------------------------------------------------------------- */

static uint64_t mix_str(uint64_t h, struct str s)
{
	return hash_mix64(h ^ hash_str(s)) + s.len + 1;
}

uint64_t snapshot_auth_fingerprint(const struct snapshot_auth *auth, const struct auth_view *view)
{
	uint64_t h = auth->fingerprint;

	if (view->jwks)
		h = hash_mix64(h ^ view->jwks->fingerprint);
	return h;
}

/* Differs as soon as anything differs that decides whether a token is good and what it says. */
static uint64_t auth_fingerprint(const struct snapshot_auth *auth)
{
	const struct jwt_rules *r = &auth->rules;
	uint64_t h = mix_str(0, auth->conf->name);
	const uint64_t numbers[] = { r->algorithms, (uint64_t)r->leeway_s,
				     (uint64_t)r->max_lifetime_s };

	h = mix_str(mix_str(h, r->issuer), r->user_claim);
	h = mix_str(h, str_of((const char *)numbers, sizeof(numbers)));
	for (size_t i = 0; i < r->audience_count; i++)
		h = mix_str(h, r->audiences[i]);
	h = mix_str(h, STR("forward"));
	for (size_t i = 0; i < r->forward_count; i++)
		h = mix_str(h, r->forward[i]);
	for (size_t i = 0; i < auth->conf->allow_count; i++)
		h = mix_str(h, auth->conf->allow[i]);
	return h;
}

/* The keys that stand in files. Returns false when out of memory. */
static bool build_keys(struct build *b, struct snapshot_auth *auth)
{
	const struct gw_auth *conf = auth->conf;
	struct api_keys *api_keys = NULL;
	struct jwks *jwks = NULL;
	char path[160];
	struct err err;
	int rc = 0;

	if (conf->type == GW_AUTH_MTLS)
		return true;
	auth->keys = auth_keys_new();
	if (!auth->keys)
		return false;
	if (conf->type == GW_AUTH_API_KEY)
		rc = api_keys_load_file(&api_keys, conf->keys_file.p, conf->user_claim, &err);
	else if (conf->jwks.file.p)
		rc = jwks_load_file(&jwks, conf->jwks.file.p, &err);
	else
		return true; /* from a URL, by whoever runs the gateway */
	if (rc < 0) {
		snprintf(path, sizeof(path), "auth.%.64s.%s", conf->name.p,
			 conf->type == GW_AUTH_JWT ? "jwks.file" : "keys_file");
		conf_errors_add(b->errors, path, "%s", err.text);
		return true;
	}
	auth_keys_set(auth->keys, jwks, api_keys);
	return true;
}

static bool build_auth(struct build *b, struct snapshot_auth *auth)
{
	const struct gw_auth *conf = auth->conf;
	struct str *forward = arena_array(b->a, struct str, conf->forward_count + 1);
	char *challenge;

	for (size_t i = 0; forward && i < conf->forward_count; i++)
		forward[i] = conf->forward[i].name;
	auth->rules = (struct jwt_rules) {
		.issuer = conf->issuer,
		.audiences = conf->audiences,
		.audience_count = conf->audiences_count,
		.algorithms = conf->algorithms,
		.leeway_s = conf->leeway_s,
		.max_lifetime_s = conf->max_lifetime_s,
		.user_claim = conf->user_claim,
		.forward = forward,
		.forward_count = conf->forward_count,
	};
	if (!forward)
		return false;
	if (conf->type != GW_AUTH_MTLS) {
		challenge = arena_printf(b->a, "%s realm=\"%s\"",
					 conf->type == GW_AUTH_JWT ? "Bearer" : "ApiKey",
					 conf->realm.p);
		if (!challenge)
			return false;
		auth->challenge = str_from(challenge);
	}
	auth->fingerprint = auth_fingerprint(auth);
	return build_keys(b, auth);
}

static bool build_auths(struct build *b)
{
	struct gw_conf *conf = &b->s->conf;

	b->s->auths = arena_array(b->a, struct snapshot_auth, conf->auth_count + 1);
	for (size_t i = 0; b->s->auths && i < conf->auth_count; i++) {
		struct snapshot_auth *auth = &b->s->auths[i];

		auth->conf = &conf->auth[i];
		auth->index = i;
		b->s->auth_count++;
		if (!build_auth(b, auth))
			return false;
	}
	return b->s->auths != NULL;
}

static bool build_guard(struct build *b)
{
	struct gw_conf *conf = &b->s->conf;
	size_t count = 0, at = 0;
	struct str *names;

	for (size_t i = 0; i < conf->auth_count; i++)
		count += conf->auth[i].forward_count;
	names = arena_array(b->a, struct str, count + 1);
	/* In which services look for the user whatever this configuration says. */
	if (names)
		names[at++] = STR("X-User-Id");
	for (size_t i = 0; names && i < conf->auth_count; i++) {
		for (size_t j = 0; j < conf->auth[i].forward_count; j++)
			names[at++] = conf->auth[i].forward[j].value;
	}
	b->s->guard = names ? headers_guard_new(b->a, names, at) : NULL;
	return b->s->guard != NULL;
}

/* --- limits -------------------------------------------------------------------------------- */

static bool build_rules(struct build *b)
{
	const struct gw_conf *conf = &b->s->conf;

	b->s->rules = arena_array(b->a, struct limits_rule, conf->rate_limits_count + 1);
	for (size_t i = 0; b->s->rules && i < conf->rate_limits_count; i++) {
		const struct gw_limit *l = &conf->rate_limits[i];

		/* The checks have seen to it that this is good. */
		limits_rule_init(&b->s->rules[i], l->name, &l->key, l->limit, l->window_s,
				 l->burst);
		b->s->rules[i].is_shadow = l->is_shadow;
		b->s->rule_count++;
	}
	return b->s->rules != NULL;
}

static const struct limits_rule *rule_find(const struct snapshot *s, struct str name)
{
	for (size_t i = 0; i < s->rule_count; i++) {
		if (str_eq(s->rules[i].name, name))
			return &s->rules[i];
	}
	return NULL;
}

/* Rules by name, those for one side of authentication, each once. */
struct rule_list {
	const struct limits_rule **rules;
	size_t count;
	bool needs_identity;
};

static void rule_list_add(struct rule_list *list, const struct snapshot *s, const struct str *names,
			  size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct limits_rule *rule = rule_find(s, names[i]);
		size_t at = 0;

		if (!rule || rule->needs_identity != list->needs_identity)
			continue;
		while (at < list->count && list->rules[at] != rule)
			at++;
		if (at == list->count)
			list->rules[list->count++] = rule;
	}
}

static bool rule_list_of(struct build *b, const struct gw_route *route, bool needs_identity,
			 struct rule_list *out)
{
	const struct gw_defaults *d = &b->s->conf.defaults;
	size_t room = d->limits_count + (route ? route->limits_count : 0);

	*out = (struct rule_list) { .needs_identity = needs_identity };
	out->rules = arena_array(b->a, const struct limits_rule *, room + 1);
	if (!out->rules)
		return false;
	rule_list_add(out, b->s, d->limits, d->limits_count);
	if (route)
		rule_list_add(out, b->s, route->limits, route->limits_count);
	return true;
}

static bool build_limits(struct build *b, struct snapshot_route *route)
{
	struct rule_list before, after;

	if (!rule_list_of(b, route->conf, false, &before) ||
	    !rule_list_of(b, route->conf, true, &after))
		return false;
	route->limits_before = before.rules;
	route->limits_before_count = before.count;
	route->limits_after = after.rules;
	route->limits_after_count = after.count;
	return true;
}

/* --- routes -------------------------------------------------------------------------------- */

static struct headers_spec spec_of(const struct gw_transform *t)
{
	return (struct headers_spec) {
		.set = t->set,
		.set_count = t->set_count,
		.add = t->add,
		.add_count = t->add_count,
		.remove = t->remove,
		.remove_count = t->remove_count,
	};
}

static const struct headers_rules *rules_of(struct build *b, const struct gw_transform *defaults,
					    const struct gw_transform *route, struct str path)
{
	struct headers_spec first = spec_of(defaults), second = spec_of(route);
	const struct headers_spec *const specs[] = { &first, &second };

	return headers_rules_new(b->a, specs, 2, path);
}

/* A star at the end of rewrite_path is the rest behind the prefix. */
static struct str rewrite_text(struct build *b, struct str path)
{
	char *text;

	if (!str_ends(path, STR("/*")))
		return path;
	text = arena_printf(b->a, "%.*s${request.rest}", (int)path.len - 2, path.p);
	return str_from(text);
}

static bool build_templates(struct build *b, struct snapshot_route *route)
{
	const struct gw_route *c = route->conf;
	struct headers_spec spec = { 0 };
	const struct headers_spec *const specs[] = { &spec };
	struct str text;

	if (c->rewrite_path.p) {
		text = rewrite_text(b, c->rewrite_path);
		if (text.p)
			route->rewrite = template_new(b->a, text, TEMPLATE_PATH, c->match.path);
		if (!route->rewrite)
			return false;
	}
	if (c->redirect) {
		route->location = template_new(b->a, c->redirect->location, TEMPLATE_LOCATION,
					       c->match.path);
		if (!route->location)
			return false;
	}
	if (c->respond) {
		spec.add = c->respond->headers;
		spec.add_count = c->respond->headers_count;
		route->respond = headers_rules_new(b->a, specs, 1, c->match.path);
		if (!route->respond)
			return false;
	}
	return true;
}

static struct str version_text(struct build *b, const char *text)
{
	return arena_str(b->a, str_from(text));
}

static bool build_version(struct build *b, struct snapshot_route *route)
{
	const struct gw_version *conf = route->conf->version;
	struct snapshot_version *v = arena_new(b->a, struct snapshot_version);
	char date[CLOCK_HTTP_DATE_LEN + 1], number[24];

	if (!v)
		return false;
	v->gone_after_ms = UINT64_MAX;
	if (conf->deprecated_ms) {
		/* RFC 9745 2.1: a structured date. */
		snprintf(number, sizeof(number), "@%llu",
			 (unsigned long long)(conf->deprecated_ms / MSEC_PER_SEC));
		v->deprecation = version_text(b, number);
	}
	if (conf->sunset_ms) {
		clock_http_date(date, conf->sunset_ms);
		v->sunset = version_text(b, date);
	}
	if (conf->successor.p) {
		char *link = arena_printf(b->a, "<%s>; rel=\"successor-version\"",
					  conf->successor.p);

		if (!link)
			return false;
		v->link = str_from(link);
	}
	if (conf->enforce_sunset)
		v->gone_after_ms = conf->sunset_ms;
	route->version = v;
	return (!conf->deprecated_ms || v->deprecation.p) && (!conf->sunset_ms || v->sunset.p);
}

static bool build_route_auths(struct build *b, struct snapshot_route *route)
{
	const struct gw_auth_names *names = &route->conf->auth;
	const struct snapshot_auth **auths = arena_array(b->a, const struct snapshot_auth *,
							 names->count + 1);

	for (size_t i = 0; auths && i < names->count; i++)
		auths[i] = &b->s->auths[names->to[i] - b->s->conf.auth];
	route->auths = auths;
	route->auth_count = names->count;
	return auths != NULL;
}

/* The route's own, or the defaults'. */
static bool build_cors(struct build *b, struct snapshot_route *route)
{
	const struct gw_match *m = &route->conf->match;
	const struct gw_cors *conf = route->conf->cors ? route->conf->cors
						       : b->s->conf.defaults.cors;

	if (!conf)
		return true;
	b->s->has_cors = true;
	route->cors = cors_new(b->a, conf, m->methods, m->methods_count);
	return route->cors != NULL;
}

static bool build_route(struct build *b, struct snapshot_route *route)
{
	const struct gw_conf *conf = &b->s->conf;
	const struct gw_route *c = route->conf;

	if (!build_route_auths(b, route))
		return false;
	route->max_body_bytes = c->max_body_bytes ? c->max_body_bytes
						  : conf->defaults.max_body_bytes;
	route->split_at = b->s->split_count;
	b->s->split_count += c->split_count;
	route->request = rules_of(b, &conf->defaults.request, &c->request, c->match.path);
	route->response = rules_of(b, &conf->defaults.response, &c->response, c->match.path);
	return route->request && route->response && build_templates(b, route) &&
	       build_limits(b, route) && build_cors(b, route) &&
	       (!c->version || build_version(b, route));
}

static void complain(void *ctx, const char *sentence)
{
	conf_errors_add(ctx, "services", "%s", sentence);
}

/* Types and bindings of the services that have them. */
static bool build_transcoders(struct build *b)
{
	const struct gw_conf *conf = &b->s->conf;

	b->s->transcoders = arena_array(b->a, struct transcode_table *, conf->services_count + 1);
	for (size_t i = 0; b->s->transcoders && i < conf->services_count; i++) {
		const struct gw_service *service = &conf->services[i];

		if (service->descriptor_set.p)
			b->s->transcoders[service->index] = transcode_table_load(
				service->descriptor_set.p, complain, b->errors);
	}
	return b->s->transcoders != NULL;
}

static struct router_route router_route_of(const struct gw_match *m)
{
	return (struct router_route) {
		.hosts = m->hosts,
		.host_count = m->hosts_count,
		.path = m->path,
		.methods = m->methods,
		.method_count = m->methods_count,
		.headers = m->headers,
		.header_count = m->headers_count,
		.cookies = m->cookies,
		.cookie_count = m->cookies_count,
		.queries = m->query,
		.query_count = m->query_count,
		.accepts = m->accept,
		.accept_count = m->accept_count,
		.content_types = m->content_type,
		.content_type_count = m->content_type_count,
	};
}

static bool build_routes(struct build *b)
{
	struct gw_conf *conf = &b->s->conf;
	struct router_route *matches = arena_array(b->a, struct router_route,
						   conf->routes_count + 1);
	static const struct gw_transform none;
	struct rule_list defaults;
	struct err err;
	int rc;

	b->s->routes = arena_array(b->a, struct snapshot_route, conf->routes_count + 1);
	if (!matches || !b->s->routes || !rule_list_of(b, NULL, false, &defaults))
		return false;
	b->s->default_limits = defaults.rules;
	b->s->default_limit_count = defaults.count;
	b->s->default_response = rules_of(b, &conf->defaults.response, &none, STR(""));
	if (!b->s->default_response)
		return false;
	if (conf->defaults.cors) {
		b->s->has_cors = true;
		b->s->default_cors = cors_new(b->a, conf->defaults.cors, NULL, 0);
		if (!b->s->default_cors)
			return false;
	}
	for (size_t i = 0; i < conf->routes_count; i++) {
		struct snapshot_route *route = &b->s->routes[i];

		route->conf = &conf->routes[i];
		route->index = i;
		b->s->route_count++;
		matches[i] = router_route_of(&conf->routes[i].match);
		if (!build_route(b, route))
			return false;
	}
	rc = router_new(&b->s->router, matches, conf->routes_count, &err);
	if (rc == -EINVAL)
		conf_errors_add(b->errors, "routes", "%s", err.text);
	return rc != -ENOMEM;
}

/* --- files --------------------------------------------------------------------------------- */

static void check_with_files(struct conf *c, void *object)
{
	gw_check_conf(c, object);
	gw_check_files(c, object);
}

/* With the files that it names, so that all mistakes are found in one run. */
static int read_conf(struct gw_conf *out, const char *file, struct arena *a,
		     struct conf_errors *errors)
{
	struct conf_object root = gw_conf_object;

	root.check = check_with_files;
	return conf_load(out, &root, file, a, errors);
}

/* --- life ---------------------------------------------------------------------------------- */

static uint64_t next_generation(void)
{
	static uint64_t last;

	return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

int snapshot_load(struct snapshot **out, const char *file, struct conf_errors *errors)
{
	struct snapshot *s = calloc(1, sizeof(*s));
	struct build b = { .s = s, .errors = errors };
	size_t errors_before = errors->count;

	if (!s) {
		conf_errors_add(errors, "", "out of memory");
		return -EINVAL;
	}
	s->refs = 1;
	arena_init(&s->arena, 16384, 0);
	b.a = &s->arena;
	if (read_conf(&s->conf, file, &s->arena, errors) == 0) {
		if (!build_auths(&b) || !build_guard(&b) || !build_rules(&b) ||
		    !build_transcoders(&b) || !build_routes(&b))
			conf_errors_add(errors, "", "out of memory");
	}
	if (errors->count != errors_before) {
		snapshot_put(&s);
		return -EINVAL;
	}
	s->generation = next_generation();
	*out = s;
	return 0;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	__atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void snapshot_put(struct snapshot **s)
{
	struct snapshot *gone = *s;

	*s = NULL;
	if (!gone || __atomic_fetch_sub(&gone->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	for (size_t i = 0; i < gone->auth_count; i++)
		auth_keys_put(&gone->auths[i].keys);
	for (size_t i = 0; gone->transcoders && i < gone->conf.services_count; i++)
		transcode_table_free(gone->transcoders[i]);
	router_free(&gone->router);
	arena_fini(&gone->arena);
	free(gone);
}

/* --- use ----------------------------------------------------------------------------------- */

struct str snapshot_rewrite_path(const struct snapshot_route *route, struct str path,
				 const struct router_match *match, struct arena *a)
{
	struct str prefix = route->conf->rewrite_prefix;
	struct str rest = str_sub(path, MIN(match->rest_at, path.len), path.len);
	char *p;

	if (!prefix.p)
		return path;
	/* One slash between the two: "/user/" and "/user" mean the same. "/x" without more becomes
	 * the prefix as it is written. */
	if (rest.len && prefix.p[prefix.len - 1] == '/')
		rest = str_sub(rest, 1, rest.len);
	p = arena_alloc(a, prefix.len + rest.len + 1);
	if (!p)
		return (struct str) { 0 };
	memcpy(p, prefix.p, prefix.len);
	if (rest.len)
		memcpy(p + prefix.len, rest.p, rest.len);
	return str_of(p, prefix.len + rest.len);
}

static bool is_word(const struct claim *claim, const struct gw_word *word)
{
	return claim->kind != CLAIM_LIST && claim->kind != CLAIM_OTHER &&
	       (claim->kind == CLAIM_STRING) == word->is_string && str_eq(claim->text, word->text);
}

static bool is_fulfilled(const struct gw_require *r, const struct claim *claim)
{
	size_t has = 0;

	for (size_t i = 0; claim && i < r->words_count; i++)
		has += r->kind == GW_REQUIRE_IS ? is_word(claim, &r->words[i])
						: claim_has(claim, r->words[i].text);
	return r->kind == GW_REQUIRE_ALL ? has == r->words_count : has > 0;
}

bool snapshot_fulfils(const struct snapshot_route *route, const struct identity *identity,
		      struct str *claim)
{
	const struct gw_requires *require = &route->conf->require;

	for (size_t i = 0; i < require->count; i++) {
		const struct gw_require *r = &require->claims[i];

		if (!is_fulfilled(r, identity_claim(identity, r->claim))) {
			*claim = r->claim;
			return false;
		}
	}
	return true;
}
