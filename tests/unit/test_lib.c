/* SPDX-License-Identifier: Apache-2.0 */
/* The small value modules of lib/: str, arena, buf, hash, hmap, json, clock, metrics. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/json.h"
#include "lib/metrics.h"

#include "tests/unit/unit.h"

static void numbers_are_digits_only(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t value;
	} cases[] = {
		{ "0", true, 0 },    { "18446744073709551615", true, UINT64_MAX },
		{ "007", true, 7 },  { "18446744073709551616", false, 0 },
		{ "", false, 0 },    { "+1", false, 0 },
		{ " 1", false, 0 },  { "1 ", false, 0 },
		{ "-1", false, 0 },  { "0x1", false, 0 },
		{ "1e3", false, 0 }, { "000000000000000000001", false, 0 },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		uint64_t v = 0;

		if (str_u64(str_from(cases[i].text), &v) != cases[i].ok || v != cases[i].value)
			fail_msg("\"%s\" gives %" PRIu64, cases[i].text, v);
	}
}

static void splits_at_every_separator(void **state)
{
	struct str rest = STR("a,,b"), piece;

	assert_true(str_split(&rest, ',', &piece) && str_eqz(piece, "a"));
	assert_true(str_split(&rest, ',', &piece) && piece.len == 0);
	assert_true(str_split(&rest, ',', &piece) && str_eqz(piece, "b"));
	assert_false(str_split(&rest, ',', &piece));
}

static void an_arena_keeps_to_its_bound_and_its_chunk(void **state)
{
	struct arena a;
	void *first;

	arena_init(&a, 1024, 4096);
	first = arena_alloc(&a, 10);
	assert_non_null(first);
	assert_int_equal((uintptr_t)first % _Alignof(max_align_t), 0);
	assert_non_null(arena_alloc(&a, 3000));
	assert_null(arena_alloc(&a, 3000));
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_alloc(&a, SIZE_MAX - 8));
	arena_reset(&a);
	assert_ptr_equal(arena_alloc(&a, 10), first);
	assert_string_equal(arena_printf(&a, "%d-%s", 5, "x"), "5-x");
	arena_fini(&a);
}

static void a_buffer_fails_once_and_stays_failed(void **state)
{
	struct buf b;

	buf_init(&b, 1000);
	for (int i = 0; i < 100; i++)
		buf_append(&b, "0123456789", 10);
	assert_false(buf_failed(&b));
	buf_putc(&b, 'x');
	assert_true(buf_failed(&b));
	buf_consume(&b, 500);
	buf_putc(&b, 'x');
	assert_true(buf_failed(&b));
	assert_int_equal(buf_len(&b), 500);
	buf_reset(&b, 0);
	buf_printf(&b, "%s", "fine");
	assert_true(str_eqz(buf_str(&b), "fine"));
	buf_fini(&b);
}

static void a_buffer_keeps_its_bytes_in_order(void **state)
{
	struct buf b;
	uint8_t next_in = 0, next_out = 0;

	buf_init(&b, 0);
	for (int i = 0; i < 20000; i++) {
		uint8_t bytes[64];
		size_t n = (size_t)(i * 7 % 64);

		for (size_t j = 0; j < n; j++)
			bytes[j] = next_in++;
		buf_append(&b, bytes, n);
		n = MIN((size_t)(i * 5 % 67), buf_len(&b));
		for (size_t j = 0; j < n; j++)
			assert_int_equal((uint8_t)buf_data(&b)[j], next_out++);
		buf_consume(&b, n);
	}
	buf_fini(&b);
}

/* Appendix A of the SipHash paper has 2-4 only; this is 1-3 of the reference code with its key
 * 00..0f. */
static void hashes_depend_on_key_and_every_byte(void **state)
{
	struct hash_key key = { { 0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL } };
	struct hash_key other = { { 1, 2 } };
	uint8_t bytes[64];
	uint64_t seen[65];

	for (int i = 0; i < 64; i++)
		bytes[i] = (uint8_t)i;
	assert_true(hash_sip13(&key, bytes, 0) == 0xabac0158050fc4dcULL);
	for (size_t n = 0; n <= 64; n++) {
		seen[n] = hash_sip13(&key, bytes, n);
		for (size_t m = 0; m < n; m++)
			assert_true(seen[m] != seen[n]);
		assert_true(seen[n] != hash_sip13(&other, bytes, n));
	}
	for (size_t i = 0; i < 64; i++) {
		bytes[i] ^= 1;
		assert_true(hash_sip13(&key, bytes, 64) != seen[64]);
		bytes[i] ^= 1;
	}
}

struct item {
	struct hmap_node node;
	unsigned value;
};

static void a_map_finds_what_it_holds(void **state)
{
	static struct item items[1000];
	struct hmap m = { 0 };
	unsigned count = 0;

	for (unsigned i = 0; i < 1000; i++) {
		items[i].value = i;
		/* Few different hashes: chains of equal ones. */
		assert_int_equal(hmap_insert(&m, &items[i].node, hash_mix64(i % 300)), 0);
	}
	for (unsigned i = 0; i < 1000; i += 2)
		hmap_remove(&m, &items[i].node);
	assert_int_equal(m.count, 500);
	for (unsigned i = 0; i < 1000; i++) {
		bool found = false;

		for (struct hmap_node *n = hmap_first(&m, hash_mix64(i % 300)); n; n = hmap_next(n))
			found |= container_of(n, struct item, node)->value == i;
		assert_int_equal(found, i % 2 == 1);
	}
	hmap_for_each (n, &m) {
		count++;
		hmap_remove(&m, n);
	}
	assert_int_equal(count, 500);
	assert_int_equal(m.count, 0);
	hmap_fini(&m);
}

static void json_is_escaped_and_valid_utf8(void **state)
{
	static const struct {
		struct str in;
		const char *want;
	} cases[] = {
		{ STR("plain"), "\"plain\"" },
		{ STR("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\n\\u0001\"" },
		{ STR("\xc3\xa9"), "\"\xc3\xa9\"" },
		{ STR("\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\"" },
		{ STR("\xff"), "\"\\ufffd\"" },
		{ STR("\xc3"), "\"\\ufffd\"" },                       /* cut off */
		{ STR("\xc0\xaf"), "\"\\ufffd\\ufffd\"" },            /* overlong */
		{ STR("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"" }, /* surrogate */
		{ STR("\x7f"), "\"\\u007f\"" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct buf out;

		buf_init(&out, 0);
		json_quote(&out, cases[i].in);
		if (!str_eqz(buf_str(&out), cases[i].want))
			fail_msg("got %.*s, want %s", STR_ARG(buf_str(&out)), cases[i].want);
		buf_fini(&out);
	}
}

/* Texts are looked at in words: whatever must be escaped is seen at every place of one. */
static void json_escapes_wherever_it_stands(void **state)
{
	struct buf out;
	char text[24];

	buf_init(&out, 0);
	for (unsigned c = 0; c < 256; c++) {
		bool is_plain = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';

		for (size_t at = 0; at < sizeof(text); at++) {
			memset(text, 'x', sizeof(text));
			text[at] = (char)c;
			buf_reset(&out, SIZE_MAX);
			json_quote(&out, str_of(text, sizeof(text)));
			if ((buf_len(&out) == sizeof(text) + 2) != is_plain)
				fail_msg("byte 0x%02x at %zu: %.*s", c, at, STR_ARG(buf_str(&out)));
		}
	}
	buf_fini(&out);
}

static void json_puts_its_commas(void **state)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 0);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	json_add_u64(&w, "a", 1);
	json_open(&w, "b", '[');
	json_add_i64(&w, NULL, -2);
	json_add_bool(&w, NULL, true);
	json_close(&w, ']');
	json_open(&w, "c", '{');
	json_close(&w, '}');
	json_add_null(&w, "d");
	json_add_double(&w, "e", 0.5);
	json_add_thousandths(&w, "f", 12034);
	json_add_thousandths(&w, "g", 7);
	json_close(&w, '}');
	assert_true(str_eqz(buf_str(&out), "{\"a\":1,\"b\":[-2,true],\"c\":{},\"d\":null,\"e\":0.5,"
					   "\"f\":12.034,\"g\":0.007}"));
	buf_fini(&out);
}

static void times_are_read_and_written(void **state)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t ms;
	} cases[] = {
		{ "2026-06-01T00:00:00Z", 0, 1780272000000ULL },
		{ "2026-06-01T02:00:00+02:00", 0, 1780272000000ULL },
		{ "2026-05-31T23:30:00.25-00:30", 0, 1780272000250ULL },
		{ "2026-06-01", -EINVAL, 0 },
		{ "2026-06-01T00:00:00", -EINVAL, 0 },
		{ "2026-06-01T00:00:00Zx", -EINVAL, 0 },
		{ "2026-06-01T00:00:00.Z", -EINVAL, 0 },
		{ "2026-13-01T00:00:00Z", -EINVAL, 0 },
		{ "2026-06-01T00:00:00+2:00", -EINVAL, 0 },
	};
	char text[CLOCK_RFC3339_LEN + 1], date[CLOCK_HTTP_DATE_LEN + 1];

	for (size_t i = 0; i < CASES(cases); i++) {
		uint64_t ms = 0;

		if (clock_parse_rfc3339(cases[i].text, &ms) != cases[i].rc || ms != cases[i].ms)
			fail_msg("%s gives %" PRIu64, cases[i].text, ms);
	}
	clock_rfc3339(text, 784111777034ULL);
	assert_string_equal(text, "1994-11-06T08:49:37.034Z");
	clock_http_date(date, 784111777034ULL);
	assert_string_equal(date, "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void histograms_are_cumulative(void **state)
{
	struct metrics_histogram h = { 0 };
	struct buf out;

	metrics_observe_us(&h, 50);
	metrics_observe_us(&h, 51);
	metrics_observe_us(&h, 61000000);
	buf_init(&out, 0);
	metrics_write_histogram(&out, "x", METRICS_LABELS({ "r", STR("a\"b") }), &h);
	buf_putc(&out, '\0');
	assert_non_null(strstr(buf_data(&out), "x_bucket{r=\"a\\\"b\",le=\"5e-05\"} 1\n"));
	assert_non_null(strstr(buf_data(&out), "x_bucket{r=\"a\\\"b\",le=\"0.0001\"} 2\n"));
	assert_non_null(strstr(buf_data(&out), "x_bucket{r=\"a\\\"b\",le=\"60\"} 2\n"));
	assert_non_null(strstr(buf_data(&out), "x_bucket{r=\"a\\\"b\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(buf_data(&out), "x_sum{r=\"a\\\"b\"} 61.000101\n"));
	buf_fini(&out);
}

/* Of the process, to the millisecond; not of whoever looked first. */
static void start_time_is_that_of_the_process(void **state)
{
	const char name[] = "\nprocess_start_time_seconds ", *at;
	uint64_t now_ms = clock_wall_ms();
	char again[64];
	struct buf out;
	double start;

	while (clock_wall_ms() <= now_ms + 2)
		usleep(1000);
	buf_init(&out, 0);
	metrics_process(&out, "x");
	buf_putc(&out, '\0');
	at = strstr(buf_data(&out), name);
	assert_non_null(at);
	start = strtod(at + strlen(name), NULL);
	assert_true(start * 1e3 <= (double)now_ms);
	buf_reset(&out, 0);
	metrics_double(&out, "x", NULL, 1795710546.123);
	snprintf(again, sizeof(again), "%.*s", STR_ARG(buf_str(&out)));
	assert_string_equal(again, "x 1795710546.123\n");
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_digits_only),
		cmocka_unit_test(splits_at_every_separator),
		cmocka_unit_test(an_arena_keeps_to_its_bound_and_its_chunk),
		cmocka_unit_test(a_buffer_fails_once_and_stays_failed),
		cmocka_unit_test(a_buffer_keeps_its_bytes_in_order),
		cmocka_unit_test(hashes_depend_on_key_and_every_byte),
		cmocka_unit_test(a_map_finds_what_it_holds),
		cmocka_unit_test(json_is_escaped_and_valid_utf8),
		cmocka_unit_test(json_escapes_wherever_it_stands),
		cmocka_unit_test(json_puts_its_commas),
		cmocka_unit_test(times_are_read_and_written),
		cmocka_unit_test(histograms_are_cumulative),
		cmocka_unit_test(start_time_is_that_of_the_process),
	};

	return cmocka_run_group_tests_name("lib", tests, NULL, NULL);
}
