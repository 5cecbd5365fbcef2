/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http1.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

static struct http1_head head;

static long parse(struct str bytes)
{
	struct http1_scan scan = { 0 };

	return http1_parse_request(&head, &scan, bytes, &http1_default_limits);
}

/* Parses the bytes as they arrive one by one, each time from a fresh exact copy, so that ASan sees
 * an overread. */
static long parse_bytewise(struct str bytes)
{
	struct http1_scan scan = { 0 };

	for (size_t n = 0; n <= bytes.len; n++) {
		char *copy = malloc(n ? n : 1);
		long rc;

		memcpy(copy, bytes.p, n);
		rc = http1_parse_request(&head, &scan, str_of(copy, n), &http1_default_limits);
		free(copy);
		if (rc != 0)
			return rc;
	}
	return 0;
}

#define REQ(s) STR(s)
#define H      "Host: a.example\r\n"

static void refuses_what_can_be_read_two_ways(void **state)
{
	static const struct {
		struct str bytes;
		long want;
	} cases[] = {
		{ STR("GET / HTTP/1.1\r\n" H "\r\n"), 0 }, /* fine: any positive length */
		{ STR("POST / HTTP/1.1\r\n" H
		      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H
		      "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 5,5\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H
		      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
		  -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: ,chunked\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;x\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n"), -501 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n"), -501 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding: \r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n"), -400 },
		{ STR("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\x0b"
		      "chunked\r\n\r\n"),
		  -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\r\n\tc\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n A: b\r\n" H "\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A : b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H ": b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A@: b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\0c\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\rc\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\r\rB: c\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: b\nB: c\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\n" H "\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: \x01\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H "A: \x7f\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nA: b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\n" H H "\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.1\r\nHost:\r\n\r\n"), -400 },
		{ STR("GET http://b.example/ HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET http://A.example/ HTTP/1.1\r\n" H "\r\n"), 0 },
		{ STR("GET /#x HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET /\x80 HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET /a b HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET  / HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET a.example HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET * HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("OPTIONS * HTTP/1.1\r\n" H "\r\n"), 0 },
		{ STR("CONNECT a.example:443 HTTP/1.1\r\n" H "\r\n"), -501 },
		{ STR("BREW / HTTP/1.1\r\n" H "\r\n"), -501 },
		{ STR("get / HTTP/1.1\r\n" H "\r\n"), -501 },
		{ STR("G@T / HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET /\r\n\r\n"), -400 },
		{ STR("GET / HTTP/2.0\r\n" H "\r\n"), -505 },
		{ STR("GET / HTTP/1.2\r\n" H "\r\n"), -505 },
		{ STR("GET / HTTP/1.10\r\n" H "\r\n"), -400 },
		{ STR("GET / http/1.1\r\n" H "\r\n"), -400 },
		{ STR("GET / XTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("\r\nGET / HTTP/1.1\r\n" H "\r\n"), 0 },
		{ STR("\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"), -400 },
		{ STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), -400 },
		{ STR("GET / HTTP/1.0\r\n\r\n"), 0 },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		long whole = parse(cases[i].bytes);
		long bytewise = parse_bytewise(cases[i].bytes);
		bool is_505_or_400 = cases[i].want == -505 || cases[i].want == -400;

		if (whole != bytewise)
			fail_msg("%.*s: %ld in one piece, %ld byte by byte",
				 STR_ARG(cases[i].bytes), whole, bytewise);
		/* llhttp names some bad versions as bad constants: both statuses refuse. */
		if (is_505_or_400 && (whole == -400 || whole == -505))
			continue;
		if (cases[i].want ? whole != cases[i].want : whole <= 0)
			fail_msg("%.*s: got %ld, want %ld", STR_ARG(cases[i].bytes), whole,
				 cases[i].want);
	}
}

/* Lines are looked at in words. */
static void refuses_control_bytes_wherever_they_stand(void **state)
{
	static const char before[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
	char text[sizeof(before) + 64];

	for (unsigned c = 1; c < 256; c++) {
		bool is_good = c == '\t' || (c >= 0x20 && c != 0x7f);

		for (size_t at = 0; at < 20; at++) {
			long rc;
			int len = snprintf(text, sizeof(text), "%s%s\r\n\r\n", before,
					   "xxxxxxxxxxxxxxxxxxxxxxxxx");

			text[sizeof(before) - 1 + at] = (char)c;
			rc = parse(str_of(text, (size_t)len));
			if ((rc == len) != is_good)
				fail_msg("byte 0x%02x at %zu: %ld", c, at, rc);
		}
	}
}

static void gives_slices_of_the_head(void **state)
{
	struct str bytes = STR(
		"POST /a/b?c=d&e HTTP/1.1\r\nhOST: x.example:8080\r\nConnection: close, X-Y\r\n"
		"Content-Length: 12\r\nX-Y:  v w \t\r\nExpect: 100-Continue\r\n\r\nBODY");

	assert_int_equal(parse(bytes), bytes.len - 4);
	assert_true(str_eqz(head.method, "POST"));
	assert_int_equal(head.method_id, METHOD_POST);
	assert_true(str_eqz(head.path, "/a/b"));
	assert_true(str_eqz(head.query, "c=d&e"));
	assert_true(str_eqz(head.authority, "x.example:8080"));
	assert_int_equal(head.field_count, 5);
	assert_int_equal(head.fields[0].id, HTTP_HOST);
	assert_true(str_eqz(head.fields[3].value, "v w"));
	assert_int_equal(head.framing, HTTP1_LENGTH);
	assert_int_equal(head.content_length, 12);
	assert_false(head.keeps_alive);
	assert_true(head.expects_continue);
}

static void bounds_head_target_and_fields(void **state)
{
	static char big[70000];
	struct http1_limits tight = { .head_bytes = 1000, .target_bytes = 100, .fields = 3 };
	struct http1_scan scan = { 0 };
	struct str many = STR("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n");

	assert_int_equal(http1_parse_request(&head, &scan, many, &tight), -431);
	memset(big, 'a', sizeof(big));
	memcpy(big, "GET /", 5);
	scan = (struct http1_scan) { 0 };
	assert_int_equal(http1_parse_request(&head, &scan, str_of(big, 200), &tight), -414);
	memcpy(big, "GET / HTTP/1.1\r\nA: ", 19);
	scan = (struct http1_scan) { 0 };
	assert_int_equal(http1_parse_request(&head, &scan, str_of(big, 999), &tight), 0);
	assert_int_equal(http1_parse_request(&head, &scan, str_of(big, 1001), &tight), -431);
}

static void frames_responses_by_request_and_status(void **state)
{
	static const struct {
		struct str bytes;
		enum http_method method;
		long want_status; /* negative: refused */
		enum http1_framing framing;
		bool keeps_alive;
	} cases[] = {
		{ STR("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), METHOD_GET, 200,
		  HTTP1_LENGTH, true },
		{ STR("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), METHOD_HEAD, 200,
		  HTTP1_NO_BODY, true },
		{ STR("HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n"), METHOD_GET, 304,
		  HTTP1_NO_BODY, true },
		{ STR("HTTP/1.1 204 N\r\n\r\n"), METHOD_GET, 204, HTTP1_NO_BODY, true },
		{ STR("HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n"), METHOD_GET, -1, 0,
		  0 },
		{ STR("HTTP/1.1 200\r\n\r\n"), METHOD_GET, 200, HTTP1_UNTIL_CLOSE, false },
		{ STR("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n"), METHOD_GET, 200,
		  HTTP1_LENGTH, false },
		{ STR("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), METHOD_GET, 200,
		  HTTP1_CHUNKED, true },
		{ STR("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), METHOD_GET, -1, 0, 0 },
		{ STR("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
		  METHOD_GET, -1, 0, 0 },
		{ STR("HTTP/1.1 100 Continue\r\n\r\n"), METHOD_GET, 100, HTTP1_NO_BODY, true },
		{ STR("HTTP/1.1 2000 OK\r\n\r\n"), METHOD_GET, -1, 0, 0 },
		{ STR("HTTP/2 200 OK\r\n\r\n"), METHOD_GET, -1, 0, 0 },
		{ STR("\r\nHTTP/1.1 200 OK\r\n\r\n"), METHOD_GET, -1, 0, 0 },
		{ STR("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), METHOD_GET, -1, 0, 0 },
		{ STR("garbage\r\n\r\n"), METHOD_GET, -1, 0, 0 },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct http1_scan scan = { 0 };
		long rc = http1_parse_response(&head, &scan, cases[i].bytes, &http1_default_limits,
					       cases[i].method);

		if (cases[i].want_status < 0) {
			if (rc >= 0)
				fail_msg("%.*s: accepted", STR_ARG(cases[i].bytes));
			continue;
		}
		if (rc != (long)cases[i].bytes.len || head.status != cases[i].want_status ||
		    head.framing != cases[i].framing || head.keeps_alive != cases[i].keeps_alive)
			fail_msg("%.*s: rc %ld status %u framing %d keep %d",
				 STR_ARG(cases[i].bytes), rc, head.status, head.framing,
				 head.keeps_alive);
	}
}

/* Decodes `bytes` fed in pieces of `step`; the content goes to out. Returns the last result; *used:
 * bytes taken. */
static enum http1_body_result decode(struct str bytes, size_t step, char *out, size_t *out_len,
				     size_t *used)
{
	struct http1_head chunked = { .framing = HTTP1_CHUNKED };
	enum http1_body_result rc = HTTP1_BODY_MORE;
	struct http1_body body;

	http1_body_init(&body, &chunked);
	*out_len = *used = 0;
	for (size_t at = 0; at < bytes.len; at += step) {
		struct str piece = str_sub(bytes, at,
					   at + step < bytes.len ? at + step : bytes.len);

		for (;;) {
			size_t consumed;
			struct str data;

			rc = http1_body_next(&body, piece, &consumed, &data);
			*used += consumed;
			piece = str_sub(piece, consumed, piece.len);
			if (rc != HTTP1_BODY_DATA)
				break;
			memcpy(out + *out_len, data.p, data.len);
			*out_len += data.len;
		}
		if (rc != HTTP1_BODY_MORE)
			return rc;
	}
	return rc;
}

static void decodes_chunks_strictly(void **state)
{
	static const struct {
		struct str bytes;
		enum http1_body_result want;
		const char *content;
	} cases[] = {
		{ STR("5\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_END, "hello" },
		{ STR("5;a=b\r\nhello\r\n00\r\nX-T: v\r\n\r\n"), HTTP1_BODY_END, "hello" },
		{ STR("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), HTTP1_BODY_END,
		  "abc0123456789" },
		{ STR("5\r\nhel"), HTTP1_BODY_MORE, NULL },
		{ STR("0x5\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("+5\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR(" 5\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5 \r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5_0\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5\r\nhello\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5\r\nhelloX\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5\rXhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5;a\rb\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("5;a\nb\r\nhello\r\n0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("FFFFFFFFFFFFFFFFF\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("FFFFFFFFFFFFFFFF\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nContent-Length: 5\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nTransfer-Encoding: x\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nHOST: x\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nno colon\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nA : b\r\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nA: b\n\r\n"), HTTP1_BODY_BAD, NULL },
		{ STR("0\r\nA: \0\r\n\r\n"), HTTP1_BODY_BAD, NULL },
	};
	char out[256];
	size_t len, used;

	for (size_t i = 0; i < CASES(cases); i++) {
		for (size_t step = 1; step <= cases[i].bytes.len; step++) {
			enum http1_body_result rc = decode(cases[i].bytes, step, out, &len, &used);

			if (rc != cases[i].want)
				fail_msg("%.*s in steps of %zu: got %d, want %d",
					 STR_ARG(cases[i].bytes), step, rc, cases[i].want);
			if (cases[i].content && !str_eqz(str_of(out, len), cases[i].content))
				fail_msg("%.*s: wrong content %.*s", STR_ARG(cases[i].bytes),
					 (int)len, out);
		}
	}
}

static void leaves_the_next_message_alone(void **state)
{
	char out[256];
	size_t len, used;

	assert_int_equal(decode(STR("1\r\na\r\n0\r\n\r\nGET /"), 100, out, &len, &used),
			 HTTP1_BODY_END);
	assert_int_equal(used, 11);
}

static void bounds_extensions_and_trailers(void **state)
{
	static char bytes[20000];
	char out[256];
	size_t len, used;

	memset(bytes, 'x', sizeof(bytes));
	memcpy(bytes, "5;", 2);
	assert_int_equal(decode(str_of(bytes, 300), 300, out, &len, &used), HTTP1_BODY_BAD);
	memcpy(bytes, "0\r\nA: ", 6);
	assert_int_equal(decode(str_of(bytes, sizeof(bytes)), 7, out, &len, &used), HTTP1_BODY_BAD);
}

static void collects_trailers(void **state)
{
	static const char bytes[] = "1\r\na\r\n0\r\nX-A:  one \r\nX-B:\r\nX-A: a:b\r\n\r\n";
	static const char *const want[][2] = { { "X-A", "one" }, { "X-B", "" }, { "X-A", "a:b" } };

	(void)state;
	for (size_t step = 1; step < sizeof(bytes); step++) {
		struct http1_head chunked = { .framing = HTTP1_CHUNKED };
		struct str rest = str_from(bytes), lines, data;
		enum http1_body_result rc = HTTP1_BODY_MORE;
		struct http1_body body;
		struct http_field f;
		struct buf collected;
		size_t used;

		buf_init(&collected, 0);
		http1_body_init(&body, &chunked);
		body.trailers = &collected;
		while (rc != HTTP1_BODY_END) {
			assert_true(http1_body_left(&body));
			rc = http1_body_next(&body, str_sub(rest, 0, step), &used, &data);
			assert_int_not_equal(rc, HTTP1_BODY_BAD);
			rest = str_sub(rest, used, rest.len);
		}
		assert_false(http1_body_left(&body));
		lines = buf_str(&collected);
		for (size_t i = 0; i < CASES(want); i++) {
			assert_true(http1_next_trailer(&lines, &f));
			assert_true(str_eqz(f.name, want[i][0]));
			assert_true(str_eqz(f.value, want[i][1]));
		}
		assert_false(http1_next_trailer(&lines, &f));
		buf_fini(&collected);
	}
}

static void writes_chunk_heads(void **state)
{
	char out[HTTP1_CHUNK_HEAD_MAX];

	assert_int_equal(http1_chunk_head(out, 0x1a2b), 6);
	assert_memory_equal(out, "1a2b\r\n", 6);
	assert_int_equal(http1_chunk_head(out, SIZE_MAX), 18);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_what_can_be_read_two_ways),
		cmocka_unit_test(refuses_control_bytes_wherever_they_stand),
		cmocka_unit_test(gives_slices_of_the_head),
		cmocka_unit_test(bounds_head_target_and_fields),
		cmocka_unit_test(frames_responses_by_request_and_status),
		cmocka_unit_test(decodes_chunks_strictly),
		cmocka_unit_test(leaves_the_next_message_alone),
		cmocka_unit_test(bounds_extensions_and_trailers),
		cmocka_unit_test(collects_trailers),
		cmocka_unit_test(writes_chunk_heads),
	};

	return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
