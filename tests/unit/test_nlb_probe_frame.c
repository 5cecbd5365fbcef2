/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/probe_frame.h"

#include <errno.h>

#include "tests/unit/unit.h"

static struct net_addr address(const char *text, uint16_t port)
{
	struct net_addr a = { 0 };

	assert_int_equal(net_parse_ip(&a, str_from(text), port), 0);
	return a;
}

static struct probe_frame frame(const char *source, const char *vip, const char *outer,
				const char *gateway, enum nlb_encap encap)
{
	return (struct probe_frame) {
		.to_mac = { 2, 0, 0, 0, 0, 1 },
		.from_mac = { 2, 0, 0, 0, 0, 2 },
		.outer_source = address(outer, 0),
		.gateway = address(gateway, 0),
		.source = address(source, 40000),
		.vip = address(vip, 443),
		.encap = encap,
		.sequence = 0x01020304,
		.gue_port = 0xc123,
		.flags = PROBE_SYN,
	};
}

/* A one's complement sum over what a checksum covers, itself included, is all ones. */
static uint32_t fold(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void check_ipv4(const uint8_t *ip, size_t len, uint8_t protocol)
{
	assert_int_equal(ip[0], 0x45);
	assert_int_equal(ip[2] << 8 | ip[3], len);
	assert_int_equal(ip[9], protocol);
	assert_int_equal(fold(0, ip, 20), 0xffff);
}

static void check_ipv6(const uint8_t *ip, size_t len, uint8_t protocol)
{
	assert_int_equal(ip[0] >> 4, 6);
	assert_int_equal((ip[4] << 8 | ip[5]) + 40, len);
	assert_int_equal(ip[6], protocol);
}

static void check_syn(const uint8_t *tcp, size_t len, const uint8_t *addresses, size_t bytes)
{
	assert_int_equal(len, 24);
	assert_int_equal(tcp[0] << 8 | tcp[1], 40000);
	assert_int_equal(tcp[2] << 8 | tcp[3], 443);
	assert_memory_equal(tcp + 4, "\1\2\3\4", 4);
	assert_int_equal(tcp[12], 0x60);
	assert_int_equal(tcp[13], PROBE_SYN);
	assert_int_equal(fold(fold((uint32_t)(6 + len), addresses, bytes), tcp, len), 0xffff);
}

static void gue_over_ipv4_to_an_ipv4_vip(void **state)
{
	struct probe_frame f = frame("10.0.0.2", "203.0.113.10", "10.9.0.7", "10.0.0.11",
				     NLB_ENCAP_GUE);
	uint8_t out[PROBE_FRAME_MAX];
	size_t len = probe_frame_write(out, &f);

	assert_int_equal(len, 14 + 20 + 8 + 4 + 20 + 24);
	assert_memory_equal(out, "\2\0\0\0\0\1\2\0\0\0\0\2\x08\0", 14);
	check_ipv4(out + 14, len - 14, 17);
	assert_memory_equal(out + 14 + 12, "\x0a\x09\0\x07\x0a\0\0\x0b", 8);
	assert_memory_equal(out + 34, "\xc1\x23\x17\xc0\0\x38\0\0\0\4\0\0", 12);
	check_ipv4(out + 46, len - 46, 6);
	check_syn(out + 66, len - 66, out + 46 + 12, 8);
}

static void every_pair_of_families_and_tunnels(void **state)
{
	static const struct {
		const char *source, *vip, *outer, *gateway;
		uint8_t inner;
	} cases[] = {
		{ "10.0.0.2", "203.0.113.10", "10.0.0.2", "10.0.0.11", 4 },
		{ "2001:db8::2", "2001:db8:1::10", "10.0.0.2", "10.0.0.11", 41 },
		{ "10.0.0.2", "203.0.113.10", "2001:db8::2", "2001:db8::11", 4 },
		{ "2001:db8::2", "2001:db8:1::10", "2001:db8::2", "2001:db8::11", 41 },
	};
	uint8_t out[PROBE_FRAME_MAX];

	for (size_t i = 0; i < CASES(cases); i++) {
		bool inner6 = cases[i].inner == 41, outer6 = strchr(cases[i].gateway, ':');
		size_t outer_len = outer6 ? 40 : 20, inner_len = inner6 ? 40 : 20, len;
		struct probe_frame f = frame(cases[i].source, cases[i].vip, cases[i].outer,
					     cases[i].gateway, NLB_ENCAP_IPIP);
		const uint8_t *inner;

		len = probe_frame_write(out, &f);
		assert_int_equal(len, 14 + outer_len + inner_len + 24);
		assert_int_equal(out[12] << 8 | out[13], outer6 ? 0x86dd : 0x0800);
		(outer6 ? check_ipv6 : check_ipv4)(out + 14, len - 14, cases[i].inner);
		inner = out + 14 + outer_len;
		(inner6 ? check_ipv6 : check_ipv4)(inner, inner_len + 24, 6);
		check_syn(inner + inner_len, 24, inner + (inner6 ? 8 : 12), inner6 ? 32 : 8);

		f.encap = NLB_ENCAP_GUE;
		len = probe_frame_write(out, &f);
		assert_int_equal(len, 14 + outer_len + 12 + inner_len + 24);
		(outer6 ? check_ipv6 : check_ipv4)(out + 14, len - 14, 17);
		assert_int_equal(out[14 + outer_len + 9], cases[i].inner);

		f.encap = NLB_ENCAP_L2;
		len = probe_frame_write(out, &f);
		assert_int_equal(len, 14 + inner_len + 24);
		assert_int_equal(out[12] << 8 | out[13], inner6 ? 0x86dd : 0x0800);
		(inner6 ? check_ipv6 : check_ipv4)(out + 14, len - 14, 6);
	}
}

static void reset_has_no_options(void **state)
{
	struct probe_frame f = frame("10.0.0.2", "203.0.113.10", "10.0.0.2", "10.0.0.11",
				     NLB_ENCAP_L2);
	uint8_t out[PROBE_FRAME_MAX];

	f.flags = PROBE_RST;
	assert_int_equal(probe_frame_write(out, &f), 14 + 20 + 20);
	assert_int_equal(out[14 + 20 + 12], 0x50);
	assert_int_equal(out[14 + 20 + 13], PROBE_RST);
}

/* What is written can be read; every shorter piece of it is refused. */
static void reads_answers(void **state)
{
	static const char *const vips[] = { "203.0.113.10", "2001:db8:1::10" };
	static const char *const sources[] = { "10.0.0.2", "2001:db8::2" };

	for (size_t i = 0; i < 2; i++) {
		struct probe_frame f = frame(sources[i], vips[i], "10.0.0.2", "10.0.0.11",
					     NLB_ENCAP_L2);
		uint8_t out[PROBE_FRAME_MAX];
		struct probe_answer a;
		size_t len;

		f.flags = PROBE_RST;
		len = probe_frame_write(out, &f) - 14;
		out[14 + len - 20 + 13] |= PROBE_ACK;
		memcpy(out + 14 + len - 20 + 8, "\1\2\3\5", 4);
		assert_int_equal(probe_answer_parse(&a, out + 14, len), 0);
		assert_true(net_addr_eq(&a.to, &f.vip));
		assert_true(net_addr_eq(&a.from, &f.source));
		assert_int_equal(a.acknowledged, 0x01020305);
		assert_int_equal(a.flags, PROBE_RST | PROBE_ACK);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(probe_answer_parse(&a, out + 14, cut), -EBADMSG);
		out[14 + (i ? 6 : 9)] = 17;
		assert_int_equal(probe_answer_parse(&a, out + 14, len), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gue_over_ipv4_to_an_ipv4_vip),
		cmocka_unit_test(every_pair_of_families_and_tunnels),
		cmocka_unit_test(reset_has_no_options),
		cmocka_unit_test(reads_answers),
	};

	return cmocka_run_group_tests_name("nlb_probe_frame", tests, NULL, NULL);
}
