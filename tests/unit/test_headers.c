/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/headers.h"

#include <stdio.h>

#include "tests/unit/unit.h"

static struct http_field store[64];
static struct arena arena;

/* "Name: value\nName: value". A line that begins with "!" was removed by somebody before. */
static struct headers headers_of(const char *text)
{
	struct headers h = { .fields = store, .max = CASES(store) };
	struct str rest = str_from(text), line;

	while (str_split(&rest, '\n', &line) && line.len) {
		ptrdiff_t at = str_chr(line, ':');

		headers_add(&h, str_sub(line, 0, (size_t)at),
			    str_trim(str_sub(line, (size_t)at + 1, line.len)));
		if (line.p[0] == '!')
			h.fields[h.count - 1].name.len = 0;
	}
	return h;
}

static void assert_headers(const struct headers *h, const char *want, const char *given)
{
	char got[2048] = "";
	size_t at = 0;

	for (size_t i = 0; i < h->count; i++) {
		assert_int_equal(h->fields[i].id, http_name_id(h->fields[i].name));
		at += (size_t)snprintf(got + at, sizeof(got) - at, "%s%.*s: %.*s", i ? "\n" : "",
				       STR_ARG(h->fields[i].name), STR_ARG(h->fields[i].value));
	}
	if (strcmp(got, want) != 0)
		fail_msg("of\n%s\nremained\n%s\nwant\n%s", given, got, want);
}

static void hop_by_hop_fields_stay_on_their_hop(void **state)
{
	static const struct {
		const char *given, *want;
	} cases[] = {
		{ "Host: a\nConnection: close\nAccept: */*", "Host: a\nAccept: */*" },
		{ "Connection: keep-alive, X-Hop , x-other\nX-Hop: 1\nX-OTHER: 2\nX-Stay: 3",
		  "X-Stay: 3" },
		{ "X-Hop: 1\nConnection: a\nA: 1\nconnection: X-Hop\nB: 2", "B: 2" },
		{ "Keep-Alive: 5\nProxy-Connection: x\nTE: trailers\nTrailer: T\n"
		  "Transfer-Encoding: chunked\nUpgrade: h2c\nHTTP2-Settings: x\n"
		  "Proxy-Authorization: x\nProxy-Authenticate: x",
		  "" },
		/* Whoever is in front cannot make these go. */
		{ "Connection: Host, Cookie, Authorization, X-Forwarded-For, Content-Length, "
		  "Content-Type\nHost: a\nCookie: c\nAuthorization: z\nX-Forwarded-For: 1\n"
		  "Content-Length: 3\nContent-Type: t",
		  "Host: a\nCookie: c\nAuthorization: z\nX-Forwarded-For: 1\nContent-Length: 3\n"
		  "Content-Type: t" },
		{ "Connection: connection, ,,\nA: 1", "A: 1" },
		{ "!Gone: 1\nA: 1", "A: 1" },
		{ "", "" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct headers h = headers_of(cases[i].given);

		headers_strip_hop_by_hop(&h);
		assert_headers(&h, cases[i].want, cases[i].given);
	}
}

static void clients_cannot_set_identity_in_any_spelling(void **state)
{
	static const struct str names[] = { STR("X-User-Id"), STR("X-Tenant"), STR("") };
	static const struct {
		const char *given, *want;
		bool keep_underscores;
	} cases[] = {
		{ "X-User-Id: 1\nA: 1", "A: 1", false },
		{ "x-user-id: 1\nX-USER-ID: 2\nX-TENANT: t\nA: 1", "A: 1", false },
		{ "X_User_Id: 1\nx-user_id: 2\nX-USER_ID: 3\nA: 1", "A: 1", true },
		{ "X_User_Id: 1\nA_b: 1", "", false },
		{ "A_b: 1", "A_b: 1", true },
		{ "X-User-Idx: 1\nX-User: 2\nXX-User-Id: 3",
		  "X-User-Idx: 1\nX-User: 2\nXX-User-Id: 3", false },
		{ "X_Forwarded_For: 1\nContent_Length: 3\nTransfer_Encoding: chunked\n"
		  "x_request_id: 1\nTraceparent: 1\nX-Forwarded-For: 2",
		  "Traceparent: 1\nX-Forwarded-For: 2", true },
		{ "!Gone: 1\nA: 1", "A: 1", false },
	};
	const struct headers_guard *g = headers_guard_new(&arena, names, CASES(names));

	assert_non_null(g);
	for (size_t i = 0; i < CASES(cases); i++) {
		struct headers h = headers_of(cases[i].given);

		headers_guard_strip(g, &h, cases[i].keep_underscores);
		assert_headers(&h, cases[i].want, cases[i].given);
	}
}

static void rules_remove_then_set_then_add(void **state)
{
	static const struct conf_pair default_set[] = { { STR("X-Env"), STR("prod") },
							{ STR("Cache-Control"), STR("private") } };
	static const struct str default_remove[] = { STR("X-Internal-*"), STR("Server"),
						     STR("X-Powered-By") };
	static const struct conf_pair route_set[] = { { STR("cache-control"), STR("no-store") } };
	static const struct conf_pair route_add[] = { { STR("Vary"), STR("Origin") },
						      { STR("Server"), STR("gw") } };
	static const struct headers_spec defaults = {
		.set = default_set, .set_count = 2, .remove = default_remove, .remove_count = 3
	};
	static const struct headers_spec route = {
		.set = route_set, .set_count = 1, .add = route_add, .add_count = 2
	};
	static const struct headers_spec *const specs[] = { &defaults, &route };
	static const char given[] =
		"server: s\nX-INTERNAL-Server: 1\nx_internal_x: 2\nX-Internal: 3\n"
		"Vary: Accept\nCache-Control: public\nCACHE_CONTROL: x\nA: 1";
	const struct headers_rules *rules = headers_rules_new(&arena, specs, 2, STR(""));
	struct headers h = headers_of(given);

	assert_non_null(rules);
	assert_true(headers_rules_apply(rules, &h, NULL));
	assert_headers(&h,
		       "X-Internal: 3\nVary: Accept\nA: 1\nX-Env: prod\ncache-control: no-store\n"
		       "Vary: Origin\nServer: gw",
		       given);
	h = headers_of("A: 1");
	assert_true(headers_rules_apply(NULL, &h, NULL));
	h.max = 2;
	assert_false(headers_rules_apply(rules, &h, NULL));
}

static void set_replaces_every_spelling(void **state)
{
	struct headers h = headers_of("x-user-id: 1\nA: 1\nX_USER_ID: 2");

	assert_true(headers_set(&h, STR("X-User-Id"), STR("7")));
	assert_headers(&h, "A: 1\nX-User-Id: 7", "");
	h.max = h.count;
	assert_false(headers_add(&h, STR("B"), STR("1")));
	h = headers_of("Date: 1\nA: 1\ndate: 2");
	headers_remove_id(&h, HTTP_DATE);
	assert_headers(&h, "A: 1", "");
}

static void checks_what_a_configuration_says(void **state)
{
	assert_null(headers_check_name(STR("X-Client")));
	assert_null(headers_check_pattern(STR("X-Internal-*")));
	assert_null(headers_check_pattern(STR("Server")));
	assert_null(headers_check_value(STR("caf\xc3\xa9 $HOME")));
	assert_non_null(headers_check_name(STR("")));
	assert_non_null(headers_check_name(STR("a b")));
	assert_non_null(headers_check_name(STR("Host")));
	assert_non_null(headers_check_name(STR("transfer-encoding")));
	assert_non_null(headers_check_pattern(STR("*")));
	assert_non_null(headers_check_pattern(STR("X-*-Y")));
	assert_non_null(headers_check_pattern(STR("")));
	assert_non_null(headers_check_value(STR("a\r\nB: c")));
	assert_null(headers_check_value(STR("${claim.tenant}")));
	assert_non_null(headers_check_value(STR("${tenant}")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hop_by_hop_fields_stay_on_their_hop),
		cmocka_unit_test(clients_cannot_set_identity_in_any_spelling),
		cmocka_unit_test(rules_remove_then_set_then_add),
		cmocka_unit_test(set_replaces_every_spelling),
		cmocka_unit_test(checks_what_a_configuration_says),
	};
	int rc;

	arena_init(&arena, 4096, 0);
	rc = cmocka_run_group_tests_name("headers", tests, NULL, NULL);
	arena_fini(&arena);
	return rc;
}
