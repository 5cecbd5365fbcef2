/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/cors.h"

#include "tests/unit/unit.h"

static void origins_are_checked(void **state)
{
	static const struct {
		const char *origin, *complaint; /* what it begins with; NULL: good */
	} cases[] = {
		{ "*", NULL },
		{ "https://app.example.com", NULL },
		{ "https://*.example.com", NULL },
		{ "http://localhost:3000", NULL },
		{ "http://127.0.0.1:8080", NULL },
		{ "https://[2001:db8::1]:8443", NULL },
		{ "capacitor://localhost", NULL },
		{ "null", "must not be \"null\"" },
		{ "example.com", "must be \"*\"" },
		{ "https://", "must be \"*\"" },
		{ "://x", "must be \"*\"" },
		{ "https:x", "must be \"*\"" },
		{ "HTTPS://x", "must be \"*\"" },
		{ "https://*.", "must be \"*\"" },
		{ "https://App.example.com", "must be scheme" },
		{ "https://app.example.com/", "must be scheme" },
		{ "https://user@app.example.com", "must be scheme" },
		{ "https://*", "may have a star" },
		{ "https://app.*.com", "may have a star" },
		{ "https://*app.example.com", "may have a star" },
		{ "https://[x]", "must have an IPv6" },
		{ "https://app.example.com:", "must have a number" },
		{ "https://app.example.com:*", "must have a number" },
		{ "https://app.example.com:65536", "must have a number" },
		{ "https://app.example.com:443", "must not name" },
		{ "http://app.example.com:80", "must not name" },
		{ "http://app.example.com:443", NULL },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		const char *got = cors_check_origin(str_from(cases[i].origin));

		if (cases[i].complaint ? !got || strncmp(got, cases[i].complaint,
							 strlen(cases[i].complaint)) != 0
				       : got != NULL)
			fail_msg("%s: \"%s\"", cases[i].origin, got ? got : "good");
	}
}

static void only_configured_origins_may(void **state)
{
	static struct str listed[] = { STR("https://app.example.com"), STR("http://localhost:3000"),
				       STR("https://*.shop.example.com"),
				       STR("https://*.dev.example.com:8443") };
	static struct str star[] = { STR("*") };
	static const struct {
		const char *origin;
		bool may;
	} cases[] = {
		{ "https://app.example.com", true },
		{ "http://localhost:3000", true },
		{ "https://a.shop.example.com", true },
		{ "https://a.b.shop.example.com", true },
		{ "https://x.dev.example.com:8443", true },
		{ "http://app.example.com", false },
		{ "https://app.example.com:444", false },
		{ "https://app.example.com.evil.com", false },
		{ "https://evilapp.example.com", false },
		{ "https://app.example.com/", false },
		{ "https://app.example.co", false },
		{ "https://app.example.comm", false },
		{ "http://localhost", false },
		{ "http://localhost:30000", false },
		{ "https://shop.example.com", false },
		{ "https://.shop.example.com", false },
		{ "https://evilshop.example.com", false },
		{ "http://a.shop.example.com", false },
		{ "https://a.shop.example.com:8443", false },
		{ "https://x.dev.example.com", false },
		{ "https://evil.com/.shop.example.com", false },
		{ "https://evil.com:1.shop.example.com", false },
		{ "https://evil.com#.shop.example.com", false },
		{ "https://evil.com?.shop.example.com", false },
		{ "https://u@.shop.example.com", false },
		{ "https://evil.com\\.shop.example.com", false },
		{ "https://a.shop.example.com.", false },
		{ "https://A.shop.example.com", false },
		{ "https://*.shop.example.com", false },
		{ "null", false },
		{ "*", false },
		{ "", false },
	};
	struct gw_cors few = { .origins = listed, .origins_count = CASES(listed) };
	struct gw_cors all = { .origins = star, .origins_count = 1 };
	struct gw_cors nobody = { 0 };
	struct arena arena;
	struct cors *cors;

	arena_init(&arena, 4096, 0);
	cors = cors_new(&arena, &few, NULL, 0);
	assert_non_null(cors);
	for (size_t i = 0; i < CASES(cases); i++) {
		if (cors_allows(cors, str_from(cases[i].origin)) != cases[i].may)
			fail_msg("%s: not %d", cases[i].origin, cases[i].may);
	}
	assert_true(cors_allows(cors_new(&arena, &all, NULL, 0), STR("https://any.where")));
	assert_false(cors_allows(cors_new(&arena, &nobody, NULL, 0), STR("https://any.where")));
	arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(origins_are_checked),
		cmocka_unit_test(only_configured_origins_may),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
