/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/h2guard.h"

#include <nghttp2/nghttp2.h>

#include "tests/unit/unit.h"

static uint32_t headers(struct h2guard *g, int32_t id, enum h2guard_stream state)
{
	return h2guard_check(g, id, true, state);
}

static uint32_t data(struct h2guard *g, int32_t id, enum h2guard_stream state)
{
	return h2guard_check(g, id, false, state);
}

static void takes_what_a_client_may_send(void **state)
{
	struct h2guard g = { 0 };

	(void)state;
	assert_int_equal(headers(&g, 1, H2GUARD_NONE), 0);
	assert_int_equal(data(&g, 1, H2GUARD_OPEN), 0);
	assert_int_equal(headers(&g, 1, H2GUARD_OPEN), 0); /* trailers */
	assert_int_equal(headers(&g, 7, H2GUARD_NONE), 0); /* ids may be skipped */
	assert_int_equal(data(&g, 9, H2GUARD_NONE), 0);    /* idle: nghttp2 refuses it */
	assert_int_equal(headers(&g, 2, H2GUARD_NONE), 0); /* even: nghttp2 refuses it */
}

static void names_the_error_of_each_state(void **state)
{
	struct h2guard g = { 0 };

	(void)state;
	headers(&g, 1, H2GUARD_NONE);
	assert_int_equal(data(&g, 1, H2GUARD_HALF), NGHTTP2_STREAM_CLOSED);
	assert_int_equal(headers(&g, 1, H2GUARD_HALF), NGHTTP2_STREAM_CLOSED);
	h2guard_closed(&g, 1, true);
	assert_int_equal(data(&g, 1, H2GUARD_NONE), NGHTTP2_STREAM_CLOSED);
	assert_int_equal(headers(&g, 1, H2GUARD_NONE), NGHTTP2_STREAM_CLOSED);
	headers(&g, 5, H2GUARD_NONE);
	assert_int_equal(headers(&g, 3, H2GUARD_NONE), NGHTTP2_PROTOCOL_ERROR);
	assert_int_equal(data(&g, 3, H2GUARD_NONE), NGHTTP2_STREAM_CLOSED);
}

static void forgives_what_was_on_its_way_when_we_cut(void **state)
{
	struct h2guard g = { 0 };

	(void)state;
	for (int32_t id = 1; id < 2 * H2GUARD_CUT; id += 2) {
		headers(&g, id, H2GUARD_NONE);
		h2guard_closed(&g, id, false);
	}
	assert_int_equal(data(&g, 1, H2GUARD_NONE), 0);
	assert_int_equal(headers(&g, 1, H2GUARD_NONE), 0);
	assert_int_equal(data(&g, 2 * H2GUARD_CUT - 1, H2GUARD_NONE), 0);
	/* One more than fits: what is forgotten is ignored from then on, too. */
	headers(&g, 1001, H2GUARD_NONE);
	h2guard_closed(&g, 1001, false);
	assert_int_equal(data(&g, 1, H2GUARD_NONE), 0);
	/* But not what the client itself ended. */
	headers(&g, 1003, H2GUARD_NONE);
	h2guard_closed(&g, 1003, true);
	assert_int_equal(data(&g, 1003, H2GUARD_NONE), NGHTTP2_STREAM_CLOSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_what_a_client_may_send),
		cmocka_unit_test(names_the_error_of_each_state),
		cmocka_unit_test(forgives_what_was_on_its_way_when_we_cut),
	};

	return cmocka_run_group_tests_name("h2guard", tests, NULL, NULL);
}
