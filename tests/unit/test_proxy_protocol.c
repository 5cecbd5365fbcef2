/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/proxy_protocol.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/hash.h"
#include "tests/unit/unit.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"
/* 192.0.2.1:1000 to 198.51.100.2:443 */
#define TCP4 "\xc0\x00\x02\x01\xc6\x33\x64\x02\x03\xe8\x01\xbb"
/* [2001:db8::1]:1000 to [2001:db8::2]:443 */
#define TCP6                                                                                       \
	"\x20\x01\r\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\r\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x03\xe8" \
	"\x01\xbb"
#define ZERO16 "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define UNIX                                                                                       \
	ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 ZERO16 \
		"\0\0\0\0\0\0\0\0"

struct sample {
	const char *bytes;
	size_t len;
	const char *from, *to; /* NULL: local */
};
#define SAMPLE(text, from, to)                         \
	{                                              \
		(text), sizeof(text) - 1, (from), (to) \
	}

static const struct sample good[] = {
	SAMPLE("PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n", "192.0.2.1:1000",
	       "198.51.100.2:443"),
	SAMPLE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
	       "255.255.255.255:65535", "255.255.255.255:65535"),
	SAMPLE("PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n", "[2001:db8::1]:1000",
	       "[2001:db8::2]:443"),
	SAMPLE("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 0 443\r\n", "192.0.2.1:0",
	       "192.0.2.2:443"),
	SAMPLE("PROXY UNKNOWN\r\n", NULL, NULL),
	SAMPLE("PROXY UNKNOWN ffff::1 whatever  there is\r\n", NULL, NULL),
	SAMPLE(SIG "\x21\x11\x00\x0c" TCP4, "192.0.2.1:1000", "198.51.100.2:443"),
	SAMPLE(SIG "\x21\x21\x00\x24" TCP6, "[2001:db8::1]:1000", "[2001:db8::2]:443"),
	SAMPLE(SIG "\x21\x11\x00\x17" TCP4 "\x01\x00\x02h2\x04\x00\x03\x00\x00\x00",
	       "192.0.2.1:1000", "198.51.100.2:443"),
	SAMPLE(SIG "\x21\x11\x00\x13" TCP4 "\x03\x00\x04\x93\xf0\x0e\xb1", "192.0.2.1:1000",
	       "198.51.100.2:443"),
	SAMPLE(SIG "\x20\x00\x00\x00", NULL, NULL),
	SAMPLE(SIG "\x20\x11\x00\x0c" TCP4, NULL, NULL),
	SAMPLE(SIG "\x20\x00\x00\x03\xff\xff\xff", NULL, NULL),
	SAMPLE(SIG "\x21\x00\x00\x05"
		   "abcde",
	       NULL, NULL),
	SAMPLE(SIG "\x21\x31\x00\xd8" UNIX, NULL, NULL),
};

static long parse(struct proxy_header *out, const struct sample *s, size_t len)
{
	/* Of its own size, so that reading past the end is seen. */
	char *copy = malloc(len ? len : 1);
	long n;

	memcpy(copy, s->bytes, len);
	n = proxy_header_parse(out, copy, len);
	free(copy);
	return n;
}

static void reads_what_proxies_send(void **state)
{
	for (size_t i = 0; i < CASES(good); i++) {
		struct proxy_header h = { 0 };
		char from[NET_ADDR_LEN], to[NET_ADDR_LEN];
		long n = parse(&h, &good[i], good[i].len);

		if (n != (long)good[i].len)
			fail_msg("sample %zu: %ld, not %zu", i, n, good[i].len);
		assert_int_equal(h.is_local, !good[i].from);
		if (h.is_local) {
			assert_int_equal(h.from.len, 0);
			continue;
		}
		assert_string_equal(net_format(from, &h.from), good[i].from);
		assert_string_equal(net_format(to, &h.to), good[i].to);
	}
}

static void waits_for_the_last_byte_and_takes_no_more(void **state)
{
	for (size_t i = 0; i < CASES(good); i++) {
		struct proxy_header untouched = { .is_local = true }, h = untouched;
		char longer[512];

		for (size_t len = 0; len < good[i].len; len++) {
			if (parse(&h, &good[i], len) != -EAGAIN)
				fail_msg("sample %zu: decided after %zu bytes", i, len);
			assert_memory_equal(&h, &untouched, sizeof(h));
		}
		memcpy(longer, good[i].bytes, good[i].len);
		memcpy(longer + good[i].len, "GET / HTTP/1.1\r\n", 16);
		assert_int_equal(proxy_header_parse(&h, longer, good[i].len + 16), good[i].len);
	}
}

static void refuses_lies(void **state)
{
	static const struct {
		struct sample s;
		const char *why;
	} cases[] = {
		{ SAMPLE("GET / HTTP/1.1\r\n\r\n", 0, 0), "no header" },
		{ SAMPLE("\x16\x03\x01\x02\x00", 0, 0), "a TLS hello" },
		{ SAMPLE("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 0, 0), "small letters" },
		{ SAMPLE("PROXY \r\n", 0, 0), "nothing said" },
		{ SAMPLE("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", 0, 0), "unknown family" },
		{ SAMPLE("PROXY UNKNOWNS\r\n", 0, 0), "nearly UNKNOWN" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", 0, 0), "bare LF" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", 0, 0), "space at the end" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", 0, 0), "a word too many" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", 0, 0), "a word too few" },
		{ SAMPLE("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", 0, 0), "two spaces" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", 0, 0), "port too high" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", 0, 0), "port with a zero" },
		{ SAMPLE("PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n", 0, 0), "negative port" },
		{ SAMPLE("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", 0, 0), "no address" },
		{ SAMPLE("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n", 0, 0), "NUL" },
		{ SAMPLE("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", 0, 0), "IPv6 as TCP4" },
		{ SAMPLE("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", 0, 0), "IPv4 as TCP6" },
		{ SAMPLE(SIG "\x31\x11\x00\x0c" TCP4, 0, 0), "version 3" },
		{ SAMPLE(SIG "\x22\x11\x00\x0c" TCP4, 0, 0), "unknown command" },
		{ SAMPLE(SIG "\x21\x12\x00\x0c" TCP4, 0, 0), "UDP" },
		{ SAMPLE(SIG "\x21\x41\x00\x0c" TCP4, 0, 0), "unknown family" },
		{ SAMPLE(SIG "\x21\x10\x00\x0c" TCP4, 0, 0), "IPv4 without a protocol" },
		{ SAMPLE(SIG "\x21\x11\x00\x0b" TCP4, 0, 0), "address cut short" },
		{ SAMPLE(SIG "\x21\x21\x00\x0c" TCP4, 0, 0), "IPv4 as IPv6" },
		{ SAMPLE(SIG "\x21\x11\x00\x0e" TCP4 "\x01\x00", 0, 0), "half a TLV head" },
		{ SAMPLE(SIG "\x21\x11\x00\x10" TCP4 "\x01\x00\x02h", 0, 0), "TLV too long" },
		{ SAMPLE(SIG "\x21\x11\x00\x13" TCP4 "\x03\x00\x04\x93\xf0\x0e\xb0", 0, 0),
		  "wrong checksum" },
		{ SAMPLE(SIG "\x21\x11\x00\x12" TCP4 "\x03\x00\x03\0\0\0", 0, 0),
		  "checksum of three bytes" },
		{ SAMPLE(SIG "\x21\x11\xff\xff" TCP4, 0, 0), "longer than we take" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct proxy_header h;
		long n = parse(&h, &cases[i].s, cases[i].s.len);

		if (n != -EPROTO)
			fail_msg("%s: %ld", cases[i].why, n);
	}
}

static void gives_up_on_a_line_without_end(void **state)
{
	char line[200];
	struct proxy_header h;

	memset(line, 'x', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	assert_int_equal(proxy_header_parse(&h, line, 106), -EAGAIN);
	assert_int_equal(proxy_header_parse(&h, line, 107), -EPROTO);
	line[105] = '\r';
	line[106] = '\n';
	assert_int_equal(proxy_header_parse(&h, line, 150), 107);
}

/* Whatever changes on the way: an answer, never a crash or a length beyond the input. */
static void survives_any_change(void **state)
{
	for (int round = 0; round < 20000; round++) {
		const struct sample *s = &good[random_fast() % CASES(good)];
		char bytes[300];
		struct proxy_header h;
		long n;

		memcpy(bytes, s->bytes, s->len);
		for (int i = 0; i < 3; i++)
			bytes[random_fast() % s->len] = (char)random_fast();
		n = proxy_header_parse(&h, bytes, s->len);
		assert_true(n == -EAGAIN || n == -EPROTO || (n > 0 && n <= (long)s->len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_proxies_send),
		cmocka_unit_test(waits_for_the_last_byte_and_takes_no_more),
		cmocka_unit_test(refuses_lies),
		cmocka_unit_test(gives_up_on_a_line_without_end),
		cmocka_unit_test(survives_any_change),
	};

	return cmocka_run_group_tests_name("proxy_protocol", tests, NULL, NULL);
}
