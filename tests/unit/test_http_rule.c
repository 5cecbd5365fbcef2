/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transcode/http_rule.h"

#include <errno.h>

#include "lib/buf.h"
#include "tests/unit/unit.h"

static void refuses_broken_templates(void **state)
{
	static const char *const bad[] = {
		"",      "v1",    "/v1/",      "//v1",    "/{}",       "/{a",
		"/{a=",  "/{a=}", "/{a b}",    "/{1a}",   "/{a..b}",   "/{.a}",
		"/{a.}", "/**/x", "/{a=**}/x", "/**/**",  "/{a={b}}",  "/x{a}",
		"/{a}x", "/a*",   "/v1:",      "/v1:a/b", "/{a=x//y}", "/v1/{a=**}/{b=**}",
	};
	struct http_rule rule;
	struct err err;

	(void)state;
	for (size_t i = 0; i < CASES(bad); i++) {
		err.text[0] = '\0';
		assert_int_equal(http_rule_parse(&rule, str_from(bad[i]), &err), -EINVAL);
		assert_non_null(strstr(err.text, "path template"));
	}
}

static void refuses_what_is_too_long(void **state)
{
	struct buf segments, variables;
	struct http_rule rule;
	struct err err;

	(void)state;
	buf_init(&segments, 0);
	for (size_t i = 0; i <= HTTP_RULE_SEGMENTS_MAX; i++) {
		assert_int_equal(http_rule_parse(&rule, i ? buf_str(&segments) : STR("/"), &err),
				 0);
		buf_addz(&segments, "/s");
	}
	assert_int_equal(http_rule_parse(&rule, buf_str(&segments), &err), -EINVAL);
	buf_init(&variables, 0);
	for (size_t i = 0; i <= HTTP_RULE_VARIABLES_MAX; i++)
		buf_addz(&variables, "/{v}");
	assert_int_equal(http_rule_parse(&rule, buf_str(&variables), &err), -EINVAL);
	buf_fini(&segments);
	buf_fini(&variables);
}

/* Values as "field=value;…", or NULL when the path does not fit. */
static void check(const char *template, const char *path, const char *expected)
{
	struct http_rule_value values[HTTP_RULE_VARIABLES_MAX];
	struct http_rule rule;
	struct buf text;
	struct err err;

	assert_int_equal(http_rule_parse(&rule, str_from(template), &err), 0);
	if (!http_rule_match(&rule, str_from(path), values)) {
		assert_null(expected);
		return;
	}
	assert_non_null(expected);
	buf_init(&text, 0);
	for (size_t i = 0; i < rule.variable_count; i++) {
		buf_add(&text, values[i].field);
		buf_putc(&text, '=');
		buf_add(&text, values[i].value);
		buf_putc(&text, ';');
	}
	assert_true(str_eqz(buf_str(&text), expected));
	buf_fini(&text);
}

static void matches_paths(void **state)
{
	static const struct {
		const char *template, *path, *values;
	} cases[] = {
		{ "/", "/", "" },
		{ "/", "/x", NULL },
		{ "/v1/things", "/v1/things", "" },
		{ "/v1/things", "/v1/things/", NULL },
		{ "/v1/things", "/v1/thing", NULL },
		{ "/v1/things", "/v1", NULL },
		{ "/v1/*/x", "/v1/a/x", "" },
		{ "/v1/*/x", "/v1//x", NULL },
		{ "/v1/{a}", "/v1/7", "a=7;" },
		{ "/v1/{a}", "/v1/", NULL },
		{ "/v1/{a}", "/v1/7/8", NULL },
		{ "/v1/{a}/b/{c.d}", "/v1/7/b/x%20y", "a=7;c.d=x%20y;" },
		{ "/v1/{name=shelves/*/books/*}", "/v1/shelves/1/books/2",
		  "name=shelves/1/books/2;" },
		{ "/v1/{name=shelves/*}", "/v1/racks/1", NULL },
		{ "/v1/{name=shelves/*}/read", "/v1/shelves/1/read", "name=shelves/1;" },
		{ "/v1/{name=files/**}", "/v1/files/a/b/c", "name=files/a/b/c;" },
		{ "/v1/{name=files/**}", "/v1/files", "name=files;" },
		{ "/v1/{name=**}", "/v1/a", "name=a;" },
		{ "/v1/{name=**}", "/v1", "name=;" },
		{ "/v1/**", "/v1/a/b", "" },
		{ "/v1/{a}:stop", "/v1/7:stop", "a=7;" },
		{ "/v1/{a}:stop", "/v1/7", NULL },
		{ "/v1/{a}:stop", "/v1/:stop", NULL },
		{ "/v1/{a}", "/v1/7:stop", "a=7:stop;" },
		{ "/v1/{a=**}:stop", "/v1/7/8:stop", "a=7/8;" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++)
		check(cases[i].template, cases[i].path, cases[i].values);
}

static void prefers_what_is_more_specific(void **state)
{
	static const char *const order[] = { "/v1/a/b/c", "/v1/a/b",  "/v1/a/{x}:do",
					     "/v1/a/{x}", "/v1/a/**", "/v1/{x=**}" };
	struct http_rule first, second;

	(void)state;
	for (size_t i = 0; i < CASES(order); i++) {
		for (size_t j = i + 1; j < CASES(order); j++) {
			http_rule_parse(&first, str_from(order[i]), NULL);
			http_rule_parse(&second, str_from(order[j]), NULL);
			assert_true(http_rule_compare(&first, &second) < 0);
			assert_true(http_rule_compare(&second, &first) > 0);
		}
	}
}

static void decodes_values(void **state)
{
	static const struct {
		const char *text;
		bool is_long;
		const char *out;
	} cases[] = {
		{ "a%20b", false, "a b" },
		{ "a%2Fb", false, "a/b" },
		{ "a%2Fb/c%2fd", true, "a%2Fb/c%2Fd" },
		{ "%C3%A4", false, "\u00e4" },
		{ "a+b", false, "a+b" },
		{ "", false, "" },
		{ "%00", false, NULL },
		{ "%4", false, NULL },
		{ "%zz", false, NULL },
		{ "%FF", false, NULL },
		{ "%C3", false, NULL },
		{ "%ED%A0%80", false, NULL },
	};
	struct arena a;

	(void)state;
	arena_init(&a, 1024, 0);
	for (size_t i = 0; i < CASES(cases); i++) {
		struct http_rule_value value = { .value = str_from(cases[i].text),
						 .is_long = cases[i].is_long };
		struct str out = http_rule_decode(&a, &value);

		if (cases[i].out)
			assert_true(str_eqz(out, cases[i].out));
		else
			assert_null(out.p);
	}
	arena_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_broken_templates),
		cmocka_unit_test(refuses_what_is_too_long),
		cmocka_unit_test(matches_paths),
		cmocka_unit_test(prefers_what_is_more_specific),
		cmocka_unit_test(decodes_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
