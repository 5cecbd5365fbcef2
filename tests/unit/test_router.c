/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/router.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
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

/* Nanoseconds per match in a table of that many routes. */
static uint64_t time_matches(size_t count)
{
	struct router_route *routes = calloc(count, sizeof(*routes));
	char(*paths)[64] = calloc(count, sizeof(*paths));
	uint64_t best = UINT64_MAX;
	struct router_match m;
	struct router *r;
	struct err err;

	for (size_t i = 0; i < count; i++) {
		snprintf(paths[i], sizeof(paths[i]), "/api/v%zu/service%zu/%s", i % 3, i,
			 i % 2 ? "*" : "{id}");
		routes[i].path = str_from(paths[i]);
	}
	assert_int_equal(router_new(&r, routes, count, &err), 0);
	for (int round = 0; round < 20; round++) {
		uint64_t begin = clock_mono_ns();

		for (size_t i = 0; i < 1000; i++) {
			size_t at = i * 7919 % count;
			char path[64];
			struct router_request request = { .method = METHOD_GET };
			int len = snprintf(path, sizeof(path), "/api/v%zu/service%zu/x", at % 3,
					   at);

			request.path = str_of(path, (size_t)len);
			assert_int_equal(router_match(r, &request, &m), ROUTER_FOUND);
			assert_int_equal(m.route, at);
		}
		best = clock_mono_ns() - begin < best ? clock_mono_ns() - begin : best;
	}
	router_free(&r);
	free(routes);
	free(paths);
	return best / 1000;
}

static void ten_thousand_routes_are_no_slower_than_ten(void **state)
{
	uint64_t few = time_matches(10), many = time_matches(10000);

	print_message("ns per match: 10 routes %" PRIu64 ", 10,000 routes %" PRIu64 "\n", few,
		      many);
	/* Cache misses cost something; a scan of the table would cost a hundred times more. */
	assert_true(many < few * 8 + 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(picks_the_most_specific_route),
		cmocka_unit_test(says_404_and_405_apart),
		cmocka_unit_test(captures_variables_and_the_rest),
		cmocka_unit_test(matches_headers_cookies_and_queries),
		cmocka_unit_test(refuses_bad_patterns),
		cmocka_unit_test(ten_thousand_routes_are_no_slower_than_ten),
	};

	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
