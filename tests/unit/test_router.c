/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/routing/media.h"
#include "tests/unit/unit.h"

/* A route written on one line: "GET,PUT host1,host2 /path" ("-" for none). */
static struct router_route route_of(const char *line)
{
	static struct str store[4096];
	static size_t used;
	struct router_route route = { 0 };
	struct str rest = str_from(line), word, item;

	for (int i = 0; i < 3; i++) {
		struct str *first = &store[used];
		size_t count = 0;

		assert_true(str_split(&rest, ' ', &word));
		if (i == 2) {
			route.path = word;
			break;
		}
		while (!str_eq(word, STR("-")) && str_split(&word, ',', &item)) {
			store[used++] = item;
			count++;
			if (!word.p)
				break;
		}
		if (i == 0) {
			route.methods = first;
			route.method_count = count;
		} else {
			route.hosts = first;
			route.host_count = count;
		}
	}
	return route;
}

static struct router *router_of(const char *const *lines, size_t count)
{
	struct router_route routes[64];
	struct router *r = NULL;
	struct err err = { "" };

	for (size_t i = 0; i < count; i++)
		routes[i] = route_of(lines[i]);
	if (router_new(&r, routes, count, &err) < 0)
		fail_msg("%s", err.text);
	return r;
}

static enum router_result match(const struct router *r, const char *method, const char *host,
				const char *path, struct router_match *m)
{
	struct router_request request = {
		.host = str_from(host),
		.path = str_from(path),
		.method = http_method_id(str_from(method)),
		.method_name = str_from(method),
	};

	return router_match(r, &request, m);
}

static void picks_the_most_specific_route(void **state)
{
	static const char *const lines[] = {
		/* 0 */ "- - /*",
		/* 1 */ "- - /x/*",
		/* 2 */ "- - /x/y",
		/* 3 */ "- - /users/{id}",
		/* 4 */ "- - /users/me",
		/* 5 */ "- - /users/{id}/*",
		/* 6 */ "- - /users/{id}/posts/{post}",
		/* 7 */ "- api.example.com /x/*",
		/* 8 */ "- *.example.com /x/y",
		/* 9 */ "- *.b.example.com /x/y",
		/* 10 */ "GET - /m",
		/* 11 */ "- - /m",
		/* 12 */ "- - /x/y/z/*",
		/* 13 */ "- - /slash/",
		/* 14 */ "- - /m",
		/* 15 */ "- - /caf\xc3\xa9/*",
		/* 16 */ "- - /",
		/* 17 */ "- [::1] /v6",
	};
	static const struct {
		const char *method, *host, *path;
		size_t want;
	} cases[] = {
		{ "GET", "", "/", 16 },
		{ "GET", "", "/other", 0 },
		{ "GET", "", "/x", 1 },
		{ "GET", "", "/x/", 1 },
		{ "GET", "", "/xy", 0 },
		{ "GET", "", "/x/y", 2 },
		{ "GET", "", "/x/y/", 1 },
		{ "GET", "", "/x/yy", 1 },
		{ "GET", "", "/x/y/z", 12 },
		{ "GET", "", "/x/y/z/deep/er", 12 },
		{ "GET", "", "/x/y/other", 1 }, /* back from the literal branch */
		{ "GET", "", "/users/me", 4 },
		{ "GET", "", "/users/42", 3 },
		{ "GET", "", "/users/42/", 5 },
		{ "GET", "", "/users/", 0 }, /* {id} is never empty */
		{ "GET", "", "/users/me/x", 5 },
		{ "GET", "", "/users/42/posts/7", 6 },
		{ "GET", "", "/users/42/posts", 5 },
		{ "GET", "", "/users/42/posts/7/8", 5 },
		{ "GET", "api.example.com", "/x/y", 7 }, /* host before path */
		{ "GET", "API.Example.com:8443", "/x/y", 7 },
		{ "GET", "api.example.com.", "/x/y", 7 },
		{ "GET", "api.example.com", "/users/me", 4 }, /* no route of that host fits */
		{ "GET", "a.example.com", "/x/y", 8 },
		{ "GET", "a.b.example.com", "/x/y", 9 }, /* longer suffix */
		{ "GET", "b.example.com", "/x/y", 8 },
		{ "GET", "example.com", "/x/y", 2 }, /* a suffix needs something before it */
		{ "GET", ".example.com", "/x/y", 2 },
		{ "GET", "evilexample.com", "/x/y", 2 },
		{ "GET", "", "/m", 10 },
		{ "HEAD", "", "/m", 10 }, /* GET brings HEAD */
		{ "POST", "", "/m", 11 }, /* ties in file order: not 14 */
		{ "PURGE", "", "/m", 11 },
		{ "GET", "", "/slash/", 13 },
		{ "GET", "", "/slash", 0 },
		{ "GET", "", "/caf%C3%A9/x", 15 }, /* as normalised paths are written */
		{ "GET", "[::1]:80", "/v6", 17 },
		{ "GET", "[::1]", "/v6", 17 },
	};
	struct router *r = router_of(lines, CASES(lines));

	for (size_t i = 0; i < CASES(cases); i++) {
		struct router_match m;

		if (match(r, cases[i].method, cases[i].host, cases[i].path, &m) != ROUTER_FOUND)
			fail_msg("%s %s%s: nothing found", cases[i].method, cases[i].host,
				 cases[i].path);
		if (m.route != cases[i].want)
			fail_msg("%s %s%s: route %zu, want %zu", cases[i].method, cases[i].host,
				 cases[i].path, m.route, cases[i].want);
	}
	router_free(&r);
}

static void says_404_and_405_apart(void **state)
{
	static const char *const lines[] = {
		"GET,PUT - /a",
		"DELETE - /a/*",
		"PURGE,REPORT h.example /a",
		"POST - /b",
	};
	static const struct {
		const char *method, *host, *path;
		enum router_result want;
		const char *allow;
	} cases[] = {
		{ "GET", "", "/a", ROUTER_FOUND, "" },
		{ "DELETE", "", "/a", ROUTER_FOUND, "" }, /* by the prefix */
		{ "POST", "", "/a", ROUTER_NO_METHOD, "GET, HEAD, PUT, DELETE" },
		{ "POST", "h.example", "/a", ROUTER_NO_METHOD,
		  "GET, HEAD, PUT, DELETE, PURGE, REPORT" },
		{ "PURGE", "h.example", "/a", ROUTER_FOUND, "" },
		{ "PURGE", "", "/b", ROUTER_NO_METHOD, "POST" },
		{ "GET", "", "/c", ROUTER_NO_ROUTE, "" },
		{ "get", "", "/a", ROUTER_NO_METHOD, "GET, HEAD, PUT, DELETE" },
		{ "GET", "", "*", ROUTER_NO_ROUTE, "" },
		{ "GET", "", "", ROUTER_NO_ROUTE, "" },
	};
	struct router *r = router_of(lines, CASES(lines));

	for (size_t i = 0; i < CASES(cases); i++) {
		struct router_match m;
		struct buf b;

		buf_init(&b, 0);
		if (match(r, cases[i].method, cases[i].host, cases[i].path, &m) != cases[i].want)
			fail_msg("%s %s%s", cases[i].method, cases[i].host, cases[i].path);
		router_write_allow(r, m.allow, &b);
		if (!str_eqz(buf_str(&b), cases[i].allow))
			fail_msg("%s %s: Allow: %.*s", cases[i].method, cases[i].path,
				 STR_ARG(buf_str(&b)));
		buf_fini(&b);
	}
	router_free(&r);
}

static void captures_variables_and_the_rest(void **state)
{
	static const char *const lines[] = { "- - /u/{id}/p/{post}", "- - /u/{user}/*", "- - /*",
					     "- - /v/{id}/a", "- - /v/*" };
	struct router *r = router_of(lines, CASES(lines));
	struct router_match m;

	assert_int_equal(match(r, "GET", "", "/u/4%202/p/x", &m), ROUTER_FOUND);
	assert_int_equal(m.var_count, 2);
	assert_true(str_eqz(m.vars[0], "4%202") && str_eqz(m.vars[1], "x"));
	assert_true(str_eqz(router_var_name(r, 0, 0), "id"));
	assert_true(str_eqz(router_var_name(r, 0, 1), "post"));
	assert_int_equal(m.rest_at, strlen("/u/4%202/p/x"));

	/* The branch of the first route was tried and left no variable behind. */
	assert_int_equal(match(r, "GET", "", "/u/7/p/", &m), ROUTER_FOUND);
	assert_int_equal(m.route, 1);
	assert_int_equal(m.var_count, 1);
	assert_int_equal(m.rest_at, 4);

	assert_int_equal(match(r, "GET", "", "/u/7", &m), ROUTER_FOUND);
	assert_int_equal(m.rest_at, 4);
	assert_int_equal(match(r, "GET", "", "/z", &m), ROUTER_FOUND);
	assert_int_equal(m.route, 2);
	assert_int_equal(m.var_count, 0);
	assert_int_equal(m.rest_at, 0);

	/* Tried, left again: the variable is not there. */
	assert_int_equal(match(r, "GET", "", "/v/7/b", &m), ROUTER_FOUND);
	assert_int_equal(m.route, 4);
	assert_int_equal(m.var_count, 0);
	router_free(&r);
}

#define FIELD(n, v)                             \
	{                                       \
		.name = STR(n), .value = STR(v) \
	}

static void matches_headers_cookies_and_queries(void **state)
{
	static const struct conf_pair beta[] = { { STR("X-Beta"), STR("*") } };
	static const struct conf_pair blue[] = { { STR("x-beta"), STR("blue") },
						 { STR("Accept"), STR("text/*") } };
	static const struct conf_pair cookie[] = { { STR("lane"), STR("b*") } };
	static const struct conf_pair query[] = { { STR("q p"), STR("1 2") } };
	const struct router_route routes[] = {
		{ .path = STR("/a") },
		{ .path = STR("/a"), .headers = beta, .header_count = 1 },
		{ .path = STR("/a"), .headers = blue, .header_count = 2 },
		{ .path = STR("/c"), .cookies = cookie, .cookie_count = 1 },
		{ .path = STR("/q"), .queries = query, .query_count = 1 },
	};
	struct http_field fields[] = {
		FIELD("Cookie", "a=b; lane=blue"),
		FIELD("X-BETA", "red"),
		FIELD("accept", "text/html"),
		FIELD("X-Beta", "blue"),
	};
	struct router_request request = { .path = STR("/a"),
					  .method = METHOD_GET,
					  .fields = fields };
	struct router_match m;
	struct router *r;
	struct err err;

	for (size_t i = 0; i < CASES(fields); i++)
		fields[i].id = http_name_id(fields[i].name);
	assert_int_equal(router_new(&r, routes, CASES(routes), &err), 0);
	assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
	assert_int_equal(m.route, 0);
	request.field_count = 2;
	assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
	assert_int_equal(m.route, 1);
	request.field_count = 4;
	assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
	assert_int_equal(m.route, 2); /* any of several fields counts */

	request.path = STR("/c");
	assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
	fields[0].value = STR("lane=red; xlane=blue");
	/* A matcher that does not fit is no matter of methods: 404. */
	assert_int_equal(router_match(r, &request, &m), ROUTER_NO_ROUTE);

	request.path = STR("/q");
	request.query = STR("x=1&q%20p=1+2");
	assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
	request.query = STR("q+p=12");
	assert_int_equal(router_match(r, &request, &m), ROUTER_NO_ROUTE);
	request.query = STR("");
	assert_int_equal(router_match(r, &request, &m), ROUTER_NO_ROUTE);
	router_free(&r);
}

static void refuses_bad_patterns(void **state)
{
	static const char *const good[] = { "/",    "/*",       "/a",       "/a/",  "/a/*",
					    "/{x}", "/a/{x}/*", "/a.b/c-d", "/a..b" };
	static const char *const bad[] = { "",      "a",    "*",     "/a*",   "/a/*/b", "/a//b",
					   "/a//*", "/{",   "/{}",   "/x{y}", "/{a-b}", "/{a}{b}",
					   "/a?b",  "/a b", "/../a", "/./a",  "//",     "/a;b" };
	static const char *const bad_hosts[] = { "",     "*",   "*.",  "a.*.b",
						 "a:80", "a b", "a/b", "*a.b" };

	for (size_t i = 0; i < CASES(good); i++) {
		if (router_check_path(str_from(good[i])))
			fail_msg("%s: %s", good[i], router_check_path(str_from(good[i])));
	}
	for (size_t i = 0; i < CASES(bad); i++) {
		if (!router_check_path(str_from(bad[i])))
			fail_msg("%s is not refused", bad[i]);
	}
	for (size_t i = 0; i < CASES(bad_hosts); i++) {
		if (!router_check_host(str_from(bad_hosts[i])))
			fail_msg("%s is not refused", bad_hosts[i]);
	}
	assert_null(router_check_host(STR("api.example.com")));
	assert_null(router_check_host(STR("*.example.com")));
	assert_null(router_check_host(STR("[::1]")));
}

/* --- beside a matcher that is too simple to be wrong ----------------------------------------- */

/* What a random route is made of, so that the reference need not read it again. */
struct plain {
	const char *host;
	const char *segments[4];
	size_t count;
	bool is_prefix;
	struct router_route route;
	char path[64];
	struct str hosts[1], methods[2], accepts[2], types[1];
	struct conf_pair headers[2], cookies[1], queries[1];
};

static uint32_t seed = 1;

static uint32_t random_below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

#define ONE_OF(list) ((list)[random_below(CASES(list))])

static const char *const values[] = { "1", "12", "13", "2", "*", "1*", "" };

/* Crowded: all in one place. */
static void plain_random(struct plain *p, bool is_crowded)
{
	static const char *const hosts[] = { NULL,          NULL,        "a.example",
					     "b.a.example", "*.example", "*.a.example" };
	static const char *const segments[] = { "a", "b", "{x}", "{y}" };
	static const char *const methods[] = { "GET", "PUT", "PURGE", "HEAD" };
	static const char *const types[] = { "t/v1", "t/v2", "t/j;version=1", "t/j;version=2" };
	struct router_route *route = &p->route;
	size_t len = 0;

	*p = (struct plain) { .host = ONE_OF(hosts), .count = random_below(4) };
	p->is_prefix = random_below(2);
	if (is_crowded) {
		p->host = NULL;
		p->count = 1;
		p->is_prefix = random_below(8) == 0;
	}
	for (size_t i = 0; i < p->count; i++) {
		p->segments[i] = is_crowded ? "a" : ONE_OF(segments);
		len += (size_t)snprintf(p->path + len, sizeof(p->path) - len, "/%s",
					p->segments[i]);
	}
	if (!is_crowded && !p->is_prefix && (p->count == 0 || random_below(4) == 0)) {
		p->segments[p->count++] = ""; /* ends in a slash */
		len += (size_t)snprintf(p->path + len, sizeof(p->path) - len, "/");
	}
	if (p->is_prefix)
		snprintf(p->path + len, sizeof(p->path) - len, "/*");
	route->path = str_from(p->path);
	p->hosts[0] = str_from(p->host);
	route->hosts = p->hosts;
	route->host_count = p->host != NULL;
	route->methods = p->methods;
	route->method_count = random_below(3);
	for (size_t i = 0; i < 2; i++) {
		p->methods[i] = str_from(ONE_OF(methods));
		p->accepts[i] = str_from(ONE_OF(types));
		p->headers[i] = (struct conf_pair) { i ? STR("H2") : STR("H1"),
						     str_from(ONE_OF(values)) };
	}
	p->types[0] = str_from(ONE_OF(types));
	p->cookies[0] = (struct conf_pair) { STR("c"), str_from(ONE_OF(values)) };
	p->queries[0] = (struct conf_pair) { STR("q"), str_from(ONE_OF(values)) };
	route->headers = p->headers;
	route->header_count = random_below(4) && !is_crowded ? 0 : random_below(3);
	route->cookies = p->cookies;
	route->cookie_count = random_below(is_crowded ? 2 : 4) == 0;
	route->queries = p->queries;
	route->query_count = random_below(is_crowded ? 2 : 4) == 0;
	route->accepts = p->accepts;
	route->accept_count = random_below(4) ? 0 : 1 + random_below(2);
	route->content_types = p->types;
	route->content_type_count = random_below(6) == 0;
}

struct question {
	const char *host, *method;
	char path[64];
	const char *segments[5];
	size_t count;
	const char *h1, *h1_too, *h2, *c, *q, *accept, *type; /* NULL: not there */
	struct http_field fields[8];
	char cookie[64], query[64];
	struct router_request request;
};

static void question_add(struct question *q, const char *name, const char *value)
{
	if (value)
		q->fields[q->request.field_count++] = (struct http_field) {
			str_from(name), str_from(value), http_name_id(str_from(name))
		};
}

static void question_random(struct question *q)
{
	static const char *const hosts[] = {
		"", "a.example", "b.a.example", "c.b.a.example", "x.example", "other"
	};
	static const char *const segments[] = { "a", "b", "c" };
	static const char *const methods[] = { "GET", "HEAD", "PUT", "POST", "PURGE", "REPORT" };
	static const char *const is[] = { NULL, NULL, "1", "12", "13", "2", "" };
	static const char *const accepts[] = {
		NULL,
		"*/*",
		"t/v1",
		"t/v2, t/v1;q=0.5",
		"t/v1;q=0, T/V2;q=0.2",
		"t/j;version=\"2\";x=y",
		"t/j;version=1;q=0.3,t/v1;q=0.2",
		"t/*;q=0.1",
		"u/*, t/j",
	};
	static const char *const types[] = { NULL, NULL, "t/v1", "t/j; version=1", "t/j", "*/*" };
	size_t len = 0;

	*q = (struct question) { .host = ONE_OF(hosts),
				 .method = ONE_OF(methods),
				 .count = 1 + random_below(4),
				 .h1 = ONE_OF(is),
				 .h1_too = ONE_OF(is),
				 .h2 = ONE_OF(is),
				 .c = ONE_OF(is),
				 .q = ONE_OF(is),
				 .accept = ONE_OF(accepts),
				 .type = ONE_OF(types) };
	for (size_t i = 0; i < q->count; i++) {
		q->segments[i] = ONE_OF(segments);
		if (i + 1 == q->count && random_below(3) == 0)
			q->segments[i] = "";
		len += (size_t)snprintf(q->path + len, sizeof(q->path) - len, "/%s",
					q->segments[i]);
	}
	question_add(q, "h1", q->h1);
	question_add(q, "H2", q->h2);
	question_add(q, "H1", q->h1_too);
	snprintf(q->cookie, sizeof(q->cookie), "d=1; c=%s", q->c ? q->c : "");
	question_add(q, "Cookie", q->c ? q->cookie : "d=1");
	question_add(q, "Accept", q->accept);
	question_add(q, "Content-Type", q->type);
	snprintf(q->query, sizeof(q->query), "p=1&%%71=%s", q->q ? q->q : "");
	q->request.query = q->q ? str_from(q->query) : STR("p");
	q->request.fields = q->fields;
	q->request.host = str_from(q->host);
	q->request.path = str_from(q->path);
	q->request.method = http_method_id(str_from(q->method));
	q->request.method_name = str_from(q->method);
}

static bool plain_value(const char *is, struct str pattern)
{
	if (!is)
		return false;
	if (pattern.len && pattern.p[pattern.len - 1] == '*')
		return strncmp(is, pattern.p, pattern.len - 1) == 0;
	return str_eqz(pattern, is);
}

/* 0: none; else the higher the more specific. */
static size_t plain_host(const struct plain *p, const char *host)
{
	size_t len = strlen(host), suffix;

	if (!p->host)
		return 1;
	if (p->host[0] != '*')
		return strcmp(p->host, host) == 0 ? 100 : 0;
	suffix = strlen(p->host) - 1;
	return len > suffix && strcmp(host + len - suffix, p->host + 1) == 0 ? suffix : 0;
}

static bool plain_path(const struct plain *p, const struct question *q)
{
	if (p->is_prefix ? q->count < p->count : q->count != p->count)
		return false;
	for (size_t i = 0; i < p->count; i++) {
		if (p->segments[i][0] == '{' ? q->segments[i][0] == '\0'
					     : strcmp(p->segments[i], q->segments[i]) != 0)
			return false;
	}
	return true;
}

static bool plain_method(const struct router_route *route, const char *method)
{
	for (size_t i = 0; i < route->method_count; i++) {
		if (str_eqz(route->methods[i], method) ||
		    (str_eqz(route->methods[i], "GET") && strcmp(method, "HEAD") == 0))
			return true;
	}
	return route->method_count == 0;
}

/* The qualities of the few values of Accept there are, as a table. */
static unsigned plain_quality(const char *list, struct str type, bool wildcards)
{
	static const struct {
		const char *list, *type;
		unsigned quality;
	} table[] = {
		{ "t/v1", "t/v1", 1000 },
		{ "t/v2, t/v1;q=0.5", "t/v1", 500 },
		{ "t/v2, t/v1;q=0.5", "t/v2", 1000 },
		{ "t/v1;q=0, T/V2;q=0.2", "t/v2", 200 },
		{ "t/j;version=\"2\";x=y", "t/j;version=2", 1000 },
		{ "t/j;version=1;q=0.3,t/v1;q=0.2", "t/j;version=1", 300 },
		{ "t/j;version=1;q=0.3,t/v1;q=0.2", "t/v1", 200 },
		{ "t/j; version=1", "t/j;version=1", 1000 },
	};

	if (wildcards && (!list || strcmp(list, "*/*") == 0))
		return 1000;
	if (wildcards && strcmp(list, "t/*;q=0.1") == 0)
		return 100;
	for (size_t i = 0; list && i < CASES(table); i++) {
		if (strcmp(table[i].list, list) == 0 && str_eqz(type, table[i].type))
			return table[i].quality;
	}
	return 0;
}

static unsigned plain_accept(const struct router_route *route, const struct question *q,
			     bool wildcards)
{
	unsigned best = route->accept_count ? 0 : 1000;

	for (size_t i = 0; i < route->accept_count; i++) {
		unsigned quality = plain_quality(q->accept, route->accepts[i], wildcards);

		best = quality > best ? quality : best;
	}
	return best;
}

static bool plain_matchers(const struct router_route *route, const struct question *q)
{
	return (route->header_count < 1 || plain_value(q->h1, route->headers[0].value) ||
		plain_value(q->h1_too, route->headers[0].value)) &&
	       (route->header_count < 2 || plain_value(q->h2, route->headers[1].value)) &&
	       (!route->cookie_count || plain_value(q->c, route->cookies[0].value)) &&
	       (!route->query_count || plain_value(q->q, route->queries[0].value));
}

static size_t plain_rank(const struct router_route *route)
{
	return 2 * (route->header_count + route->cookie_count + route->query_count +
		    (route->accept_count > 0) + (route->content_type_count > 0)) +
	       (route->method_count > 0);
}

/* Whether `a` is more specific than `b`, which stands earlier in the file; both match. */
static bool plain_beats(const struct plain *a, const struct plain *b, const struct question *q,
			bool wildcards)
{
	size_t host_a = plain_host(a, q->host), host_b = plain_host(b, q->host);
	size_t rank_a = plain_rank(&a->route), rank_b = plain_rank(&b->route);

	if (host_a != host_b)
		return host_a > host_b;
	for (size_t i = 0; i < 5; i++) {
		/* literal, {name}, and what ends here */
		int kind_a = i >= a->count ? 0 : a->segments[i][0] == '{' ? 1 : 2;
		int kind_b = i >= b->count ? 0 : b->segments[i][0] == '{' ? 1 : 2;

		if (kind_a != kind_b)
			return kind_a > kind_b;
	}
	if (a->is_prefix != b->is_prefix)
		return b->is_prefix;
	if (rank_a != rank_b)
		return rank_a > rank_b;
	return plain_accept(&a->route, q, wildcards) > plain_accept(&b->route, q, wildcards);
}

struct answer {
	enum router_result result;
	size_t route;
	bool allow[6]; /* by method of check_allow */
	bool lacks_type, lacks_accept;
};

static const char *const all_methods[] = { "GET", "HEAD", "PUT", "POST", "PURGE", "REPORT" };

static bool plain_pass(const struct plain *plains, size_t count, const struct question *q,
		       bool wildcards, struct answer *out)
{
	const struct plain *best = NULL;

	for (size_t i = 0; i < count; i++) {
		const struct router_route *route = &plains[i].route;
		bool has_method = plain_method(route, q->method);

		if (!plain_host(&plains[i], q->host) || !plain_path(&plains[i], q) ||
		    !plain_matchers(route, q))
			continue;
		if (route->content_type_count &&
		    !plain_quality(q->type, route->content_types[0], false) &&
		    !(q->type && str_eqz(route->content_types[0], q->type)))
			out->lacks_type |= has_method;
		else if (!plain_accept(route, q, wildcards))
			out->lacks_accept |= has_method;
		else if (!has_method)
			for (size_t m = 0; m < CASES(all_methods); m++)
				out->allow[m] |= plain_method(route, all_methods[m]);
		else if (!best || plain_beats(&plains[i], best, q, wildcards))
			best = &plains[i];
	}
	if (best)
		out->route = (size_t)(best - plains);
	return best != NULL;
}

static struct answer plain_match(const struct plain *plains, size_t count, const struct question *q)
{
	struct answer a = { .result = ROUTER_FOUND };

	if (plain_pass(plains, count, q, false, &a) ||
	    (a.lacks_accept && plain_pass(plains, count, q, true, &a)))
		return a;
	a.result = a.lacks_accept ? ROUTER_NOT_ACCEPTABLE : ROUTER_NO_ROUTE;
	if (a.lacks_type)
		a.result = ROUTER_NO_CONTENT_TYPE;
	for (size_t m = 0; m < CASES(all_methods); m++) {
		if (a.allow[m])
			a.result = ROUTER_NO_METHOD;
	}
	return a;
}

static void check_found(const struct plain *p, const struct question *q,
			const struct router_match *m)
{
	size_t vars = 0, rest_at = 0;

	for (size_t i = 0; i < p->count; i++) {
		rest_at += 1 + strlen(q->segments[i]);
		if (p->segments[i][0] == '{')
			assert_true(str_eqz(m->vars[vars++], q->segments[i]));
	}
	assert_int_equal(m->var_count, vars);
	assert_int_equal(m->rest_at, rest_at);
}

static void check_allow(const struct router *r, const struct answer *want,
			const struct router_match *m)
{
	struct str rest, word;
	size_t found = 0, wanted = 0;
	struct buf b;

	buf_init(&b, 0);
	router_write_allow(r, m->allow, &b);
	rest = buf_str(&b);
	while (str_split(&rest, ',', &word)) {
		for (size_t i = 0; i < CASES(all_methods); i++)
			found += want->allow[i] && str_eqz(str_trim(word), all_methods[i]);
	}
	for (size_t i = 0; i < CASES(all_methods); i++)
		wanted += want->allow[i];
	assert_int_equal(found, wanted);
	buf_fini(&b);
}

static void agrees_with_a_naive_matcher(void **state)
{
	static struct plain plains[60];
	static struct router_route routes[CASES(plains)];
	size_t results[ROUTER_NOT_ACCEPTABLE + 1] = { 0 };

	for (int table = 0; table < 400; table++) {
		size_t count = 1 + random_below(CASES(plains));
		struct router *r;
		struct err err;

		for (size_t i = 0; i < count; i++) {
			plain_random(&plains[i], table % 2);
			routes[i] = plains[i].route;
		}
		if (router_new(&r, routes, count, &err) < 0)
			fail_msg("%s", err.text);
		for (int i = 0; i < 200; i++) {
			struct question q;
			struct answer want;
			struct router_match m;
			enum router_result got;

			question_random(&q);
			want = plain_match(plains, count, &q);
			got = router_match(r, &q.request, &m);
			results[got]++;
			if (got != want.result || (got == ROUTER_FOUND && m.route != want.route))
				fail_msg("%s %s%s: %d, route %zu (%s); want %d, route %zu (%s)",
					 q.method, q.host, q.path, (int)got, m.route,
					 got ? "" : plains[m.route].path, (int)want.result,
					 want.route, want.result ? "" : plains[want.route].path);
			if (got == ROUTER_FOUND)
				check_found(&plains[m.route], &q, &m);
			if (got == ROUTER_NO_METHOD)
				check_allow(r, &want, &m);
		}
		router_free(&r);
	}
	for (size_t i = 0; i < CASES(results); i++)
		assert_true(results[i] > 100); /* each outcome was tried */
}

static void reads_media_types(void **state)
{
	static const struct {
		const char *list, *type;
		unsigned quality, with_wildcards;
	} cases[] = {
		{ "application/json", "application/json", 1000, 1000 },
		{ "Application/JSON ; Version = 2", "application/json;version=2", 0, 0 },
		{ "Application/JSON ; Version=2", "application/json;version=2", 1000, 1000 },
		{ "application/json;version=\"2\"", "application/json;version=2", 1000, 1000 },
		{ "application/json;version=2;q=0.25", "application/json", 250, 250 },
		{ "application/json", "application/json;version=2", 0, 0 },
		{ "application/json;version=3", "application/json;version=2", 0, 0 },
		{ "a/b;x=\"q=0,a/c\", a/d", "a/c", 0, 0 },
		{ "a/b;x=\"\\\"a/c\", a/d", "a/d", 1000, 1000 },
		{ "a/b;q=0", "a/b", 0, 0 },
		{ "a/b;q=0.001", "a/b", 1, 1 },
		{ "a/b;q=1.0, a/b;q=0.1", "a/b", 1000, 1000 },
		{ "a/b;q=x", "a/b", 1000, 1000 },
		{ "a/b;q=", "a/b", 1000, 1000 },
		{ "a/b;q=7", "a/b", 1000, 1000 },
		{ "*/*;q=0.1", "a/b", 0, 100 },
		{ "a/*;q=0.2, */*;q=0.1", "a/b", 0, 200 },
		{ "ab/*", "a/b", 0, 0 },
		{ ", ,;, a/b", "a/b", 1000, 1000 },
		{ "", "a/b", 0, 0 },
		{ "\"", "a/b", 0, 0 },
		{ "\"\\", "a/b", 0, 0 },
	};
	static const char *const bad[] = { "",        "a",     "a/",       "/b",    "a/b/c",
					   "a/*",     "*/*",   "a/b;",     "a/b;c", "a/b;c=",
					   "a/b;q=1", "a b/c", "a/b, a/c", "a/b;=x" };

	for (size_t i = 0; i < CASES(cases); i++) {
		struct str list = str_from(cases[i].list), type = str_from(cases[i].type);
		unsigned plain = media_quality(list, type, false);
		unsigned wild = media_quality(list, type, true);

		if (plain != cases[i].quality || wild != cases[i].with_wildcards)
			fail_msg("%s for %s: %u, %u", cases[i].type, cases[i].list, plain, wild);
	}
	assert_null(media_check(STR("application/vnd.x.v2+json")));
	assert_null(media_check(STR("application/json; version=2")));
	for (size_t i = 0; i < CASES(bad); i++) {
		if (!media_check(str_from(bad[i])))
			fail_msg("%s is not refused", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(picks_the_most_specific_route),
		cmocka_unit_test(says_404_and_405_apart),
		cmocka_unit_test(captures_variables_and_the_rest),
		cmocka_unit_test(matches_headers_cookies_and_queries),
		cmocka_unit_test(refuses_bad_patterns),
		cmocka_unit_test(agrees_with_a_naive_matcher),
		cmocka_unit_test(reads_media_types),
	};

	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
