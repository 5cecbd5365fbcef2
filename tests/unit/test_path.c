/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/path.h"

#include <errno.h>

#include "tests/unit/unit.h"

static struct arena arena;

static int normalise(const char *path, size_t len, unsigned allow, struct str *out)
{
	const char *problem = NULL;
	int rc = path_normalise(out, str_of(path, len), allow, &arena, &problem);

	assert_int_equal(rc == -EINVAL, problem != NULL);
	return rc;
}

static void writes_one_form_of_each_path(void **state)
{
	static const struct {
		const char *path, *want;
		unsigned allow;
	} cases[] = {
		{ "/", "/", 0 },
		{ "/a/b", "/a/b", 0 },
		{ "/a/b/", "/a/b/", 0 },
		{ "//admin", "/admin", 0 },
		{ "/a///b//", "/a/b/", 0 },
		{ "/a/./b", "/a/b", 0 },
		{ "/a/../b", "/b", 0 },
		{ "/a/b/..", "/a/", 0 },
		{ "/a/b/../", "/a/", 0 },
		{ "/a/b/.", "/a/b/", 0 },
		{ "/..", "/", 0 },
		{ "/../../x", "/x", 0 },
		{ "/a//../b", "/b", 0 }, /* the slashes are merged first */
		{ "/a/%2e%2e/b", "/b", 0 },
		{ "/a/.%2E/b", "/b", 0 },
		{ "/a/%2e/b", "/a/b", 0 },
		{ "/.well-known/x", "/.well-known/x", 0 },
		{ "/...", "/...", 0 },
		{ "/a/..b/c..", "/a/..b/c..", 0 },
		{ "/%61dmin", "/admin", 0 },
		{ "/%7euser", "/~user", 0 },
		{ "/%2561", "/%2561", 0 }, /* never decoded twice */
		{ "/%252e%252e/x", "/%252e%252e/x", 0 },
		{ "/a%3fb", "/a%3Fb", 0 }, /* no query appears */
		{ "/a%c3%a9", "/a%C3%A9", 0 },
		{ "/a\xc3\xa9", "/a%C3%A9", 0 },
		{ "/a%20b", "/a%20b", 0 },
		{ "/a{b}", "/a%7Bb%7D", 0 },
		{ "/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,=", 0 },
		{ "/a%3bb", "/a%3Bb", 0 },
		{ "/a%2fb", "/a%2Fb", PATH_ALLOW_ENCODED_SLASH },
		{ "/public/..%2fadmin", "/public/..%2Fadmin", PATH_ALLOW_ENCODED_SLASH },
		{ "/a\\b%5cc", "/a%5Cb%5Cc", PATH_ALLOW_BACKSLASH },
		{ "/a;v=1/b", "/a;v=1/b", PATH_ALLOW_PARAMETERS },
		{ "/a/..;v=1/b", "/b", PATH_ALLOW_PARAMETERS },
		{ "/a/.;/b", "/a/b", PATH_ALLOW_PARAMETERS },
		{ "/a%00", "/a%00", PATH_ALLOW_NUL },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct str out = { 0 }, again = { 0 };

		assert_int_equal(
			normalise(cases[i].path, strlen(cases[i].path), cases[i].allow, &out), 0);
		if (!str_eqz(out, cases[i].want))
			fail_msg("%s: got %.*s, want %s", cases[i].path, STR_ARG(out),
				 cases[i].want);
		assert_int_equal(normalise(out.p, out.len, cases[i].allow, &again), 0);
		assert_true(str_eq(out, again));
	}
}

static void refuses_what_services_read_differently(void **state)
{
	static const char *const cases[] = {
		"",         "a",      "*",      "?x",    "/public/..%2fadmin",
		"/a%2Fb",   "/a%5cb", "/a%5Cb", "/a\\b", "/admin;x",
		"/a/..;/b", "/a%00",  "/a%",    "/a%4",  "/a%4g",
		"/a%g4",    "/a%%41", "/a b",   "/a#b",  "/a\tb",
		"/a\x7f",   "/a\rb",  "/a?b",
	};
	struct str out = { 0 };

	for (size_t i = 0; i < CASES(cases); i++) {
		if (normalise(cases[i], strlen(cases[i]), 0, &out) != -EINVAL)
			fail_msg("%s was not refused", cases[i]);
	}
	assert_int_equal(normalise("/a\0b", 4, 0, &out), -EINVAL);
	assert_null(out.p); /* a refusal leaves its output alone */
}

static void leaves_a_clean_path_where_it_is(void **state)
{
	static const char path[] = "/api/v1/user/profile.json";
	struct str out;

	assert_int_equal(normalise(path, sizeof(path) - 1, 0, &out), 0);
	assert_ptr_equal(out.p, path);
}

/* Whatever the bytes, the result is a fixed point without dots or doubled slashes. */
static void any_bytes_come_out_normal(void **state)
{
	static const char alphabet[] = "/./..%2e%2F;ab%5c//";
	uint32_t seed = 1;

	for (int i = 0; i < 200000; i++) {
		char path[24] = "/";
		size_t len = 1 + i % 20;
		struct str out, again;

		for (size_t j = 1; j < len; j++) {
			seed = seed * 1664525 + 1013904223;
			path[j] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
		}
		if (normalise(path, len, 0xf, &out) < 0)
			continue;
		assert_true(out.len > 0 && out.p[0] == '/');
		assert_int_equal(normalise(out.p, out.len, 0xf, &again), 0);
		assert_true(str_eq(out, again));
		for (size_t j = 1; j < out.len; j++)
			assert_false(out.p[j - 1] == '/' && out.p[j] == '/');
		if (i % 100 == 0)
			arena_reset(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_one_form_of_each_path),
		cmocka_unit_test(refuses_what_services_read_differently),
		cmocka_unit_test(leaves_a_clean_path_where_it_is),
		cmocka_unit_test(any_bytes_come_out_normal),
	};
	int rc;

	arena_init(&arena, 4096, 0);
	rc = cmocka_run_group_tests_name("path", tests, NULL, NULL);
	arena_fini(&arena);
	return rc;
}
