/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/grpc.h"

#include "tests/unit/unit.h"

static void takes_grpc_and_not_grpc_web(void **state)
{
	(void)state;
	assert_true(grpc_is_content_type(STR("application/grpc")));
	assert_true(grpc_is_content_type(STR("Application/gRPC+proto")));
	assert_true(grpc_is_content_type(STR("application/grpc; x=y")));
	assert_false(grpc_is_content_type(STR("application/grpc-web")));
	assert_false(grpc_is_content_type(STR("application/grp")));
	assert_false(grpc_is_content_type(STR("text/application/grpc")));
}

static void reads_timeouts(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {
		{ "1S", 1000 },
		{ "0S", 0 },
		{ "2M", 120000 },
		{ "1H", 3600000 },
		{ "300m", 300 },
		{ "1u", 1 },
		{ "1001u", 2 },
		{ "1n", 1 },
		{ "99999999n", 100 },
		{ "00000001S", 1000 },
		{ "99999999H", 99999999UL * 3600000 },
	};
	static const char *const bad[] = { "", "S", "1", "1x", "-1S", "1.5S", "123456789S", "1 S" };
	uint64_t ms;

	(void)state;
	for (size_t i = 0; i < CASES(good); i++) {
		ms = 77;
		assert_true(grpc_parse_timeout(str_from(good[i].text), &ms));
		assert_int_equal(ms, good[i].ms);
	}
	for (size_t i = 0; i < CASES(bad); i++) {
		ms = 77;
		assert_false(grpc_parse_timeout(str_from(bad[i]), &ms));
		assert_int_equal(ms, 77);
	}
}

static void reads_statuses(void **state)
{
	unsigned status = 77;

	(void)state;
	assert_true(grpc_parse_status(STR("0"), &status));
	assert_int_equal(status, 0);
	assert_true(grpc_parse_status(STR("16"), &status));
	assert_int_equal(status, 16);
	assert_false(grpc_parse_status(STR(""), &status));
	assert_false(grpc_parse_status(STR("01"), &status));
	assert_false(grpc_parse_status(STR("-1"), &status));
	assert_false(grpc_parse_status(STR("1234"), &status));
	assert_int_equal(status, 16);
	assert_true(grpc_is_fault(GRPC_UNAVAILABLE));
	assert_false(grpc_is_fault(GRPC_CANCELLED));
}

static void encodes_messages(void **state)
{
	struct arena a;

	(void)state;
	arena_init(&a, 256, 0);
	assert_true(str_eq(grpc_message(&a, STR("100% \xc3\xbc\n")), STR("100%25 %C3%BC%0A")));
	assert_true(str_eq(grpc_message(&a, STR("")), STR("")));
	arena_fini(&a);
}

static void maps_statuses(void **state)
{
	(void)state;
	assert_int_equal(grpc_http_status(GRPC_OK), 200);
	assert_int_equal(grpc_http_status(5), 404);
	assert_int_equal(grpc_http_status(GRPC_UNAUTHENTICATED), 401);
	assert_int_equal(grpc_http_status(17), 500);
	assert_string_equal(grpc_status_name(5), "NOT_FOUND");
	assert_string_equal(grpc_status_name(1000), "UNKNOWN");
}

static void decodes_messages_and_binary_fields(void **state)
{
	static const struct {
		const char *text, *out;
	} messages[] = {
		{ "", "" },         { "a%20b", "a b" }, { "%C3%BC", "\u00fc" },
		{ "100%", "100%" }, { "%4", "%4" },     { "%zz", "%zz" },
	};
	struct arena a;
	struct str out;

	(void)state;
	arena_init(&a, 1024, 0);
	for (size_t i = 0; i < CASES(messages); i++)
		assert_true(str_eqz(grpc_decode_message(&a, str_from(messages[i].text)),
				    messages[i].out));
	out = grpc_decode_binary(&a, STR("AP/+"));
	assert_true(str_eq(out, str_of("\x00\xff\xfe", 3)));
	assert_true(str_eq(grpc_decode_binary(&a, STR("AP8=")), str_of("\x00\xff", 2)));
	assert_true(str_eq(grpc_decode_binary(&a, STR("AP8")), str_of("\x00\xff", 2)));
	assert_null(grpc_decode_binary(&a, STR("A*")).p);
	arena_fini(&a);
}

static void frames_have_their_length(void **state)
{
	static const size_t lengths[] = { 0, 1, 255, 256, 65536, 0xffffffff };
	char head[GRPC_FRAME_HEAD] = { 0 };

	(void)state;
	for (size_t i = 0; i < CASES(lengths); i++) {
		grpc_put_length(head, lengths[i]);
		assert_int_equal(head[0], 0);
		assert_int_equal(grpc_get_length(head), lengths[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_grpc_and_not_grpc_web),
		cmocka_unit_test(reads_timeouts),
		cmocka_unit_test(reads_statuses),
		cmocka_unit_test(encodes_messages),
		cmocka_unit_test(maps_statuses),
		cmocka_unit_test(decodes_messages_and_binary_fields),
		cmocka_unit_test(frames_have_their_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
