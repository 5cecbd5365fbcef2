/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/template.h"

#include <errno.h>

#include "gateway/http/path.h"
#include "gateway/request.h"
#include "gateway/routing/params.h"
#include "gateway/snapshot.h"
#include "gateway/worker.h"
#include "tests/unit/unit.h"

static const struct str route_path = STR("/users/{id}/posts/{post}/*");
static struct snapshot snapshot;
static struct worker_conf conf = { .snapshot = &snapshot };
static struct gw_version version = { .name = STR("v1") };
static struct gw_route route = { .name = STR("posts"), .version = &version };
static const struct snapshot_route compiled = { .conf = &route };
static struct http_field fields[] = {
	{ STR("X-Lang"), STR("de"), HTTP_OTHER },
	{ STR("Cookie"), STR("a=1; lane=blue/../x; dots=.."), HTTP_COOKIE },
	{ STR("X-Lang"), STR("fr"), HTTP_OTHER },
	{ STR("X-Empty"), STR(""), HTTP_OTHER },
};
static struct request r = {
	.conf = &conf,
	.route = &compiled,
	.client_ip = STR("192.0.2.7"),
	.request_id = STR("rid-1"),
	.method = STR("GET"),
	.scheme = STR("http"),
	.authority = STR("api.example.com:8080"),
	.path = STR("/users/a%20b/posts/7/x/y"),
	.query = STR("q=a+b%26c&evil=%2F%2Fevil.example&crlf=a%0d%0aB:%20c&nul=%00&dots=..&e=&"
		     "back=a%5cb&semi=..;x"),
	.headers = { .fields = fields, .count = CASES(fields), .max = CASES(fields) },
	.match = { .rest_at = 20, .vars = { STR("a%20b"), STR("7") }, .var_count = 2 },
};

static int setup(void **state)
{
	static const char claims[] =
		"{\"tenant\":\"acme\",\"level\":42,\"admin\":true,\"roles\":[\"a\"],\"o\":{},"
		"\"bad\":\"a\\r\\nB: c\",\"host\":\"evil.com/\",\"empty\":\"\"}";

	arena_init(&r.arena, 4096, 0);
	snapshot.conf.instance = STR("gw-1");
	r.identity = identity_new(str_from(claims), STR("sub"), INT64_MAX);
	return r.identity ? 0 : -1;
}

static int teardown(void **state)
{
	identity_put(&r.identity);
	arena_fini(&r.arena);
	return 0;
}

struct expansion {
	const char *text, *want; /* NULL: error */
	int error;
};

static void check_all(const struct expansion *cases, size_t count, enum template_use use)
{
	for (size_t i = 0; i < count; i++) {
		struct str text = str_from(cases[i].text), out = STR("untouched");
		struct template *t;
		int rc;

		if (template_check(text, use))
			fail_msg("%s: %s", cases[i].text, template_check(text, use));
		t = template_new(&r.arena, text, use, route_path);
		assert_non_null(t);
		rc = template_expand(&out, t, &r);
		if (rc != cases[i].error)
			fail_msg("%s: %d %.*s", cases[i].text, rc, STR_ARG(out));
		if (rc == 0 && !str_eqz(out, cases[i].want))
			fail_msg("%s: %.*s, want %s", cases[i].text, STR_ARG(out), cases[i].want);
	}
}

static void fills_in_headers(void **state)
{
	static const struct expansion cases[] = {
		{ "plain", "plain", 0 },
		{ "", "", 0 },
		{ "a${claim.tenant}-${claim.level}-${claim.admin}z", "aacme-42-truez", 0 },
		{ "$5 and $$ and $${claim.tenant} and $", "$5 and $ and ${claim.tenant} and $", 0 },
		{ "$$$${x}", "$${x}", 0 },
		{ "${path.id}|${path.post}", "a b|7", 0 },
		{ "${query.q}", "a b&c", 0 },
		{ "${query.e}", "", 0 },
		{ "${header.x-lang}", "de", 0 },
		{ "${header.X-Empty}", "", 0 },
		{ "${header.Host}", "api.example.com:8080", 0 },
		{ "${cookie.a}", "1", 0 },
		{ "${client.ip} ${request.id} ${request.method} ${request.scheme}",
		  "192.0.2.7 rid-1 GET http", 0 },
		{ "${request.host} ${request.path}", "api.example.com /users/a%20b/posts/7/x/y",
		  0 },
		{ "${request.rest} ${route.name} ${version.name} ${gateway.instance}",
		  "/x/y posts v1 gw-1", 0 },
		{ "  ${claim.empty}  ", "", 0 }, /* no white space at the ends */
		/* not there */
		{ "x${claim.nobody}", NULL, -ENOENT },
		{ "${claim.roles}", NULL, -ENOENT }, /* a list is no text */
		{ "${claim.o}", NULL, -ENOENT },
		{ "${query.Q}", NULL, -ENOENT },
		{ "${header.X-None}", NULL, -ENOENT },
		{ "${cookie.lan}", NULL, -ENOENT },
		{ "${path.other}", NULL, -ENOENT },
		/* what would end the header */
		{ "${query.crlf}", NULL, -EINVAL },
		{ "${query.nul}", NULL, -EINVAL },
		{ "${claim.bad}", NULL, -EINVAL },
	};

	check_all(cases, CASES(cases), TEMPLATE_HEADER);
}

static void fills_in_paths(void **state)
{
	static const struct expansion cases[] = {
		{ "/v2/people/{id}", "/v2/people/a%20b", 0 },
		{ "/v2/p-${path.post}/{id}x", "/v2/p-7/a%20bx", 0 },
		{ "/t/${claim.tenant}/${claim.level}", "/t/acme/42", 0 },
		{ "/t/${claim.host}", NULL, -EINVAL }, /* an encoded slash, as in any path */
		{ "/t/${claim.bad}", "/t/a%0D%0AB%3A%20c", 0 },
		{ "/t/${query.q}/", "/t/a%20b%26c/", 0 },
		{ "/c/${cookie.lane}", NULL, -EINVAL },
		{ "/c/${query.back}", NULL, -EINVAL },
		{ "/c/${query.nul}", NULL, -EINVAL },
		{ "/c/${query.semi}", "/c/..%3Bx", 0 },
		{ "/v2/{id}${request.rest}", "/v2/a%20b/x/y", 0 },
		{ "/v2/${request.rest}", "/v2/x/y", 0 },
		{ "/$$/caf\xc3\xa9/${version.name}", "/$/caf%C3%A9/v1", 0 },
		{ "/", "/", 0 },
		{ "/c/${cookie.dots}", NULL, -EINVAL },
		{ "/c/.${query.e}./x", NULL, -EINVAL },
		{ "/c/${query.dots}/x", NULL, -EINVAL },
		{ "/c/${query.e}/x", NULL, -EINVAL },
		{ "/c/${claim.none}", NULL, -ENOENT },
	};

	static const struct expansion kept[] = {
		{ "/t/${claim.host}", "/t/evil.com%2F", 0 },
		{ "/c/${cookie.lane}", "/c/blue%2F..%2Fx", 0 },
		{ "/c/${query.back}", "/c/a%5Cb", 0 },
		{ "/c/${query.nul}", "/c/%00", 0 },
	};

	check_all(cases, CASES(cases), TEMPLATE_PATH);
	snapshot.conf.path_allow = PATH_ALLOW_NUL | PATH_ALLOW_ENCODED_SLASH | PATH_ALLOW_BACKSLASH;
	check_all(kept, CASES(kept), TEMPLATE_PATH);
	snapshot.conf.path_allow = 0;
}

static void fills_in_locations(void **state)
{
	static const struct expansion cases[] = {
		{ "/b", "/b", 0 },
		{ "https://new.example.com/u/${path.id}?from=${path.id}",
		  "https://new.example.com/u/a%20b?from=a%20b", 0 },
		{ "${request.scheme}://${request.host}:8443${request.path}",
		  "http://api.example.com:8443/users/a%20b/posts/7/x/y", 0 },
		{ "${request.path}?${request.query}",
		  "/users/a%20b/posts/7/x/y?q=a+b%26c&evil=%2F%2Fevil.example&crlf=a%0d%0aB:%20c&"
		  "nul=%00&dots=..&e=&back=a%5cb&semi=..;x",
		  0 },
		/* A slash in front of a path that begins with one must not make a host of it. */
		{ "/${request.path}", "/users/a%20b/posts/7/x/y", 0 },
		{ "/${request.rest}", "/x/y", 0 },
		{ "/go/${query.evil}", "/go/%2F%2Fevil.example", 0 },
		{ "/${query.evil}", "/%2F%2Fevil.example", 0 },
		{ "/${query.crlf}", "/a%0D%0AB%3A%20c", 0 },
		{ "/login?next=${request.path}&x=${query.none}&c=${cookie.lane}",
		  "/login?next=%2Fusers%2Fa%2520b%2Fposts%2F7%2Fx%2Fy&x=&c=blue%2F..%2Fx", 0 },
		{ "https://${claim.tenant}.example.com/", "https://acme.example.com/", 0 },
		{ "rider://open?id=${path.post}", "rider://open?id=7", 0 },
		{ "https://${claim.host}.example.com/", NULL, -EINVAL },
		{ "https://${claim.empty}.example.com/", NULL, -EINVAL },
		{ "/${query.e}/evil.example", NULL, -EINVAL },
		{ "/u/${query.none}", NULL, -ENOENT },
	};
	struct request none = r;
	struct template *t;
	struct str out;

	check_all(cases, CASES(cases), TEMPLATE_LOCATION);
	none.query = (struct str) { 0 };
	none.arena = (struct arena) { 0 };
	arena_init(&none.arena, 4096, 0);
	t = template_new(&r.arena, STR("/x?${request.query}"), TEMPLATE_LOCATION, STR(""));
	assert_int_equal(template_expand(&out, t, &none), 0);
	assert_true(str_eqz(out, "/x"));
	t = template_new(&r.arena, STR("/x?a=1&${request.query}"), TEMPLATE_LOCATION, STR(""));
	assert_int_equal(template_expand(&out, t, &none), 0);
	assert_true(str_eqz(out, "/x?a=1"));
	arena_fini(&none.arena);
}

static void refuses_what_it_cannot_mean(void **state)
{
	static const struct {
		enum template_use use;
		const char *text;
	} bad[] = {
		{ TEMPLATE_HEADER, "${" },
		{ TEMPLATE_HEADER, "${}" },
		{ TEMPLATE_HEADER, "${claim.}" },
		{ TEMPLATE_HEADER, "${claim}" },
		{ TEMPLATE_HEADER, "${request.nothing}" },
		{ TEMPLATE_HEADER, "${client.ipx}" },
		{ TEMPLATE_HEADER, "${header.a b}" },
		{ TEMPLATE_HEADER, "a\r\nB: c" },
		{ TEMPLATE_HEADER, "${claim.a\nb" },
		{ TEMPLATE_PATH, "" },
		{ TEMPLATE_PATH, "x" },
		{ TEMPLATE_PATH, "/a?b" },
		{ TEMPLATE_PATH, "/a//b" },
		{ TEMPLATE_PATH, "/a/../b" },
		{ TEMPLATE_PATH, "/a/{id" },
		{ TEMPLATE_PATH, "/a/{}" },
		{ TEMPLATE_PATH, "/a/*" },
		{ TEMPLATE_PATH, "/a b" },
		{ TEMPLATE_PATH, "/${request.path}" },
		{ TEMPLATE_PATH, "${path.id}" },
		{ TEMPLATE_PATH, "/a${request.rest}/b" },
		{ TEMPLATE_LOCATION, "" },
		{ TEMPLATE_LOCATION, "//evil.example/" },
		{ TEMPLATE_LOCATION, "/\\evil.example/" },
		{ TEMPLATE_LOCATION, "/a b" },
		{ TEMPLATE_LOCATION, "/a\r\nB: c" },
		{ TEMPLATE_LOCATION, "x" },
		{ TEMPLATE_LOCATION, "${query.next}" },
		{ TEMPLATE_LOCATION, "${request.scheme}" },
		{ TEMPLATE_LOCATION, "${request.scheme}/x" },
		{ TEMPLATE_LOCATION, "https://${query.host}/" },
		{ TEMPLATE_LOCATION, "https://example.com${path.id}" },
		{ TEMPLATE_LOCATION, "https://${header.X-Lang}.example.com/" },
		{ TEMPLATE_LOCATION, "/x${request.query}" },
	};
	struct str name;

	for (size_t i = 0; i < CASES(bad); i++) {
		if (!template_check(str_from(bad[i].text), bad[i].use))
			fail_msg("%s is not refused", bad[i].text);
	}
	assert_true(
		template_finds(STR("/{id}/{x}"), TEMPLATE_PATH, STR("path"), route_path, &name));
	assert_true(str_eqz(name, "x"));
	assert_false(
		template_finds(STR("/{id}/{post}"), TEMPLATE_PATH, STR("path"), route_path, &name));
	assert_true(
		template_finds(STR("a${claim.b}"), TEMPLATE_HEADER, STR("claim"), STR(""), &name));
}

/* Whatever stands in a request, the result is one header value, or a path with as many segments as
 * its template, or stays on its host. */
static void nothing_gets_out_of_its_place(void **state)
{
	static const char alphabet[] = "a/\\.%0dD2fFeE\r\n\t ?#&=;:@\xff$:{}+";
	struct template *header = template_new(&r.arena, STR("x${query.v}${cookie.c}"),
					       TEMPLATE_HEADER, STR(""));
	struct template *path = template_new(&r.arena, STR("/a/${query.v}/${cookie.c}x"),
					     TEMPLATE_PATH, STR(""));
	struct template *location = template_new(
		&r.arena, STR("/${query.v}${cookie.c}?a=${query.v}"), TEMPLATE_LOCATION, STR(""));
	unsigned seed = 1;

	for (int round = 0; round < 20000; round++) {
		char query[24] = "v=", cookie[24] = "c=";
		struct http_field field = { STR("Cookie"), { 0 }, HTTP_COOKIE };
		struct request one = r;
		struct str out, segment;
		size_t segments = 0;

		for (size_t i = 2; i < 12; i++) {
			seed = seed * 1103515245 + 12345;
			query[i] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
			seed = seed * 1103515245 + 12345;
			cookie[i] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
		}
		field.value = str_from(cookie);
		one.query = str_from(query);
		one.headers = (struct headers) { &field, 1, 1 };
		arena_init(&one.arena, 1024, 0);
		if (template_expand(&out, header, &one) == 0)
			assert_true(http_is_field_value(out));
		if (template_expand(&out, path, &one) == 0) {
			assert_true(http_is_field_value(out));
			while (str_split(&out, '/', &segment)) {
				segments++;
				assert_false(str_eqz(segment, "..") || str_eqz(segment, "."));
				assert_true(str_chr(segment, '?') < 0 && str_chr(segment, '#') < 0);
			}
			assert_int_equal(segments, 4);
		}
		if (template_expand(&out, location, &one) == 0) {
			assert_true(http_is_field_value(out));
			assert_true(out.p[0] == '/' && out.p[1] != '/' && out.p[1] != '\\');
			assert_int_equal(str_chr(out, '&'), -1);
			assert_int_equal(str_chr(out, '#'), -1);
		}
		arena_fini(&one.arena);
	}
}

static void finds_cookies_and_parameters(void **state)
{
	struct http_field two[] = {
		{ STR("Cookie"), STR("; a=1;b=2 ; c"), HTTP_COOKIE },
		{ STR("Other"), STR("d=9"), HTTP_OTHER },
		{ STR("Cookie"), STR("d=4; a=5; e==="), HTTP_COOKIE },
	};
	struct str value;

	assert_true(params_find_cookie(two, 3, STR("a"), &value) && str_eqz(value, "1"));
	assert_true(params_find_cookie(two, 3, STR("b"), &value) && str_eqz(value, "2"));
	assert_true(params_find_cookie(two, 3, STR("d"), &value) && str_eqz(value, "4"));
	assert_true(params_find_cookie(two, 3, STR("e"), &value) && str_eqz(value, "=="));
	assert_false(params_find_cookie(two, 3, STR("c"), &value));
	assert_false(params_find_cookie(two, 3, STR("A"), &value));

	assert_true(params_find_query(STR("&&a=1&b&c%3d=%41"), STR("b"), &value));
	assert_true(str_eqz(value, ""));
	assert_true(params_find_query(STR("a=1&c%3d=%41"), STR("c="), &value));
	assert_true(params_equal(value, STR("A")) && !params_equal(value, STR("AA")));
	assert_true(params_begins(STR("a%2"), STR("a%")) &&
		    !params_begins(STR("a%2"), STR("a%25")));
	assert_false(params_find_query(STR(""), STR(""), &value));
	assert_false(params_find_query((struct str) { 0 }, STR("a"), &value));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_in_headers),
		cmocka_unit_test(fills_in_paths),
		cmocka_unit_test(fills_in_locations),
		cmocka_unit_test(refuses_what_it_cannot_mean),
		cmocka_unit_test(nothing_gets_out_of_its_place),
		cmocka_unit_test(finds_cookies_and_parameters),
	};

	return cmocka_run_group_tests_name("template", tests, setup, teardown);
}
