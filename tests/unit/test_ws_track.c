/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/ws_track.h"

#include <stdio.h>

#include "lib/cleanup.h"
#include "tests/unit/unit.h"

#define BYTES(text) STR(text)

static void frames_are_found_however_they_are_cut(void **state)
{
	/* "Hi"; a ping; 126 bytes; an empty frame; 65536 bytes */
	static char stream[70000];
	static const size_t ends[] = { 4, 7, 137, 139, 65685 };
	size_t len = 0;

	memcpy(stream, "\x81\x02Hi\x89\x01x\x82\x7e\x00\x7e", 11);
	len = 11 + 126;
	memcpy(stream + len, "\x80\x00\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 12);
	len += 12 + 65536;
	assert_int_equal(len, 65685);
	for (size_t cut = 0; cut <= 200; cut++) {
		struct ws_track t = { 0 };
		size_t first = ws_track_pass(&t, str_of(stream, cut));
		size_t second, want = 0;
		bool is_between = cut == 0;

		for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
			want = ends[i] <= cut ? ends[i] : want;
			is_between = is_between || ends[i] == cut;
		}
		assert_int_equal(first, want);
		assert_int_equal(ws_track_is_between(&t), is_between);
		second = ws_track_pass(&t, str_of(stream + cut, len - cut));
		assert_int_equal(second, len - cut);
		assert_true(ws_track_is_between(&t));
		assert_false(t.has_closed);
	}
}

static void masks_belong_to_the_head(void **state)
{
	struct ws_track t = { .is_masked = true };

	assert_int_equal(ws_track_pass(&t, BYTES("\x81\x82kkkk")), 0);
	assert_false(ws_track_is_between(&t));
	assert_int_equal(ws_track_pass(&t, BYTES("Hi\x88\x80kkkk\x81")), 8);
	assert_true(t.has_closed);
	assert_false(ws_track_is_between(&t));
}

static void what_is_no_websocket_has_no_frames(void **state)
{
	static const struct {
		struct str bytes;
		bool is_masked;
		const char *why;
	} cases[] = {
		{ BYTES("\x81\x82"), false, "a service that masks" },
		{ BYTES("\x81\x02"), true, "a client that does not" },
		{ BYTES("\x83\x00"), false, "an opcode that nobody uses" },
		{ BYTES("\x8b\x00"), false, "a control opcode that nobody uses" },
		{ BYTES("\x08\x00"), false, "a control frame in pieces" },
		{ BYTES("\x89\x7e"), false, "a long control frame" },
		{ BYTES("\x82\x7f\xff\x00\x00\x00\x00\x00\x00\x00"), false, "a negative length" },
		{ BYTES("still here"), true, "text" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ws_track t = { .is_masked = cases[i].is_masked };

		if (ws_track_pass(&t, cases[i].bytes) || !t.is_broken || ws_track_is_between(&t))
			fail_msg("%s", cases[i].why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_found_however_they_are_cut),
		cmocka_unit_test(masks_belong_to_the_head),
		cmocka_unit_test(what_is_no_websocket_has_no_frames),
	};

	return cmocka_run_group_tests_name("ws_track", tests, NULL, NULL);
}
