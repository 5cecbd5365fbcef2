/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "tests/unit/unit.h"

static char seen[4096];
static int stop_after;

static void append(struct str s)
{
	size_t len = strlen(seen);

	memcpy(seen + len, s.p, s.len);
	seen[len + s.len] = '\0';
}

static bool on_event(struct str event, struct str id, struct str data, void *arg)
{
	(void)arg;
	append(event);
	append(STR("/"));
	append(id);
	append(STR("/"));
	append(data);
	append(STR("|"));
	return --stop_after != 0;
}

static void reads_events_split_anywhere(void **state)
{
	static const struct {
		const char *text, *want, *why;
	} cases[] = {
		{ "event: put\nid: 7\ndata: {}\n\n", "put/7/{}|", "the usual" },
		{ "data: a\ndata: b\n\n", "message//a\nb|", "several lines" },
		{ "data:a\n\n", "message//a|", "no space" },
		{ "data:  a\n\n", "message// a|", "only the first space goes" },
		{ ": comment\n\ndata: a\n\n", "message//a|", "comments are nothing" },
		{ "event: x\n\ndata: a\n\n", "message//a|", "an event without data is none" },
		{ "id: 1\ndata: a\n\ndata: b\n\n", "message/1/a|message/1/b|", "the id stays" },
		{ "event: x\r\ndata: a\r\n\r\n", "x//a|", "CR LF" },
		{ "data\n\n", "message//|", "a field without a value" },
		{ "other: x\ndata: a\n\n", "message//a|", "unknown fields" },
		{ "data: a\n", "", "not ended" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		size_t len = strlen(cases[c].text);

		for (size_t cut = 0; cut <= len; cut++) {
			struct sse s;

			sse_init(&s, 1024);
			seen[0] = '\0';
			stop_after = 0;
			assert_int_equal(sse_feed(&s, str_of(cases[c].text, cut), on_event, NULL),
					 0);
			assert_int_equal(sse_feed(&s, str_of(cases[c].text + cut, len - cut),
						  on_event, NULL),
					 0);
			if (strcmp(seen, cases[c].want) != 0)
				fail_msg("%s, cut at %zu: %s", cases[c].why, cut, seen);
			sse_fini(&s);
		}
	}
}

static void is_bounded(void **state)
{
	struct sse s;

	(void)state;
	sse_init(&s, 100);
	stop_after = 0;
	for (int i = 0; i < 10; i++)
		assert_int_equal(sse_feed(&s, STR("0123456789"), on_event, NULL), 0);
	assert_int_equal(sse_feed(&s, STR("x"), on_event, NULL), -EMSGSIZE);
	sse_fini(&s);
	/* In one piece, too. */
	sse_init(&s, 10);
	assert_int_equal(sse_feed(&s, STR(":123456789\n"), on_event, NULL), 0);
	assert_int_equal(sse_feed(&s, STR(":123456789x\n"), on_event, NULL), -EMSGSIZE);
	sse_fini(&s);
	sse_init(&s, 100);
	for (int i = 0; i < 9; i++)
		assert_int_equal(sse_feed(&s, STR("data: 0123456789\n"), on_event, NULL), 0);
	assert_int_equal(sse_feed(&s, STR("data: 0123456789\n"), on_event, NULL), -EMSGSIZE);
	sse_fini(&s);
}

static void stops_when_told(void **state)
{
	struct sse s;

	(void)state;
	sse_init(&s, 100);
	seen[0] = '\0';
	stop_after = 1;
	assert_int_equal(sse_feed(&s, STR("data: a\n\ndata: b\n\n"), on_event, NULL), -ECANCELED);
	assert_string_equal(seen, "message//a|");
	sse_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_events_split_anywhere),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(stops_when_told),
	};

	return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
