/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/grpc.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_grpc_and_not_grpc_web),
		cmocka_unit_test(reads_timeouts),
		cmocka_unit_test(reads_statuses),
		cmocka_unit_test(encodes_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
