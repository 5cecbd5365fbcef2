/* SPDX-License-Identifier: Apache-2.0 */
/* Outer headers, byte for byte. */
#include "tests/bpf/world.h"

/* Every client family, protocol, encapsulation and gateway family, in every shape. */
static void encapsulates_byte_for_byte(void **state)
{
	static const struct {
		struct shape shape;
		const char *what;
	} cases[] = {
		{ { 0 }, "plain" },
		{ { .flags = TCP_SYN }, "first packet" },
		{ { .payload_len = 1 }, "odd length" },
		{ { .payload_len = 1350 }, "large" },
		{ { .options_len = 4 }, "IP options" },
		{ { .options_len = 40 }, "as many IP options as there can be" },
		{ { .tos = 0xb9 }, "traffic class and congestion bits" },
		{ { .vlan_tags = 1 }, "VLAN tag" },
		{ { .vlan_tags = 2, .payload_len = 33 }, "two VLAN tags" },
		{ { .vlan_tags = 2, .options_len = 8, .tos = 3 }, "two VLAN tags, options" },
		{ { .padding = 6 }, "Ethernet padding stays outside" },
		{ { .vlan_tags = 1, .padding = 3 }, "padding behind a VLAN tag" },
		{ { .extensions = { IPPROTO_DSTOPTS } }, "destination options" },
		{ { .extensions = { 255, IPPROTO_ROUTING }, .extension_words = 2 }, "extensions" },
		{ { .has_fragment_header = true, .vlan_tags = 1 }, "fragment of itself alone" },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]) * 4 * VIPS; i++) {
		struct shape s = cases[i / (4 * VIPS)].shape;
		char why[128];

		s.vip = i / 4 % VIPS;
		s.is_udp = i & 1;
		s.is_ipv6 = i & 2;
		if (s.is_ipv6 ? s.options_len : s.extensions[0] || s.has_fragment_header)
			continue;
		snprintf(why, sizeof(why), "%s, VIP %u, %s over IPv%d", cases[i / (4 * VIPS)].what,
			 s.vip, s.is_udp ? "UDP" : "TCP", s.is_ipv6 ? 6 : 4);
		assert_sent(frame(&s), encapsulated(&s, s.vip < VIP_IPIP6 ? GW_A : GW_A6, NULL, 0),
			    s.vip < VIP_IPIP6 ? GW_A : GW_A6, why);
	}
}

static void names_second_choices_in_the_gue_header(void **state)
{
	static const struct {
		uint32_t vip, a, b, c, other; /* the other family's */
	} cases[] = { { VIP_GUE, GW_A, GW_B, GW_C, GW_B6 },
		      { VIP_GUE6, GW_A6, GW_B6, GW_C6, GW_B } };

	fresh_world();
	for (size_t i = 0; i < 8; i++) {
		uint16_t a = (uint16_t)cases[i & 1].a, b = (uint16_t)cases[i & 1].b;
		uint16_t c = (uint16_t)cases[i & 1].c, other = (uint16_t)cases[i & 1].other;
		struct shape s = { .vip = cases[i & 1].vip,
				   .is_ipv6 = i & 2,
				   .vlan_tags = i & 4 ? 2 : 0,
				   .payload_len = 3 };

		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { a, c } });
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { a, c }, 2), b,
			    "two");

		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { c } });
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { c }, 1), b, "one");
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { 0, c } });
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { c }, 1), b,
			    "second");
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { b, c } });
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { c }, 1), b,
			    "itself");

		/* One that is gone is not named; the next moves up. */
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { a, c } });
		set_gateway(a, NLB_GATEWAY_RESOLVED, 1, MTU);
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { c }, 1), b, "gone");
		set_gateway(a, NLB_GATEWAY_RESOLVED | NLB_GATEWAY_USABLE, 1, MTU);

		/* An address of the other family has no place in it. */
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { other, c } });
		assert_sent(frame(&s), encapsulated(&s, b, (const uint32_t[]) { c }, 1), b,
			    "family");
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { other } });
		assert_sent(frame(&s), encapsulated(&s, b, NULL, 0), b, "other family only");

		/* A new connection belongs to nobody else; UDP has no second chance. */
		set_ring(s.vip, (struct nlb_slot) { .gateway = b, .earlier = { a, c } });
		s.flags = TCP_SYN;
		assert_sent(frame(&s), encapsulated(&s, b, NULL, 0), b, "SYN");
		s.is_udp = true;
		assert_sent(frame(&s), encapsulated(&s, b, NULL, 0), b, "UDP");
	}
}

/* What the flow table knows is certain. */
static void names_no_second_choice_beside_a_remembered_gateway(void **state)
{
	struct shape s = { .vip = VIP_GUE, .flags = TCP_SYN };
	struct bytes out;

	fresh_world();
	run(&s, &out);
	s.flags = TCP_ACK;
	set_ring(VIP_GUE, (struct nlb_slot) {
				  .gateway = GW_B, .earlier = { GW_C }, .flags = NLB_SLOT_MOVED });
	assert_sent(frame(&s), encapsulated(&s, GW_A, NULL, 0), GW_A, "remembered");
}

/* One flow keeps one path; many flows take many. */
static void varies_the_source_by_flow_where_allowed(void **state)
{
	fresh_world();
	conf.source[0][3] = 0;
	conf.source[1][15] = 0;
	conf.source_vary[0] = htonl(0xff);
	conf.source_vary[1] = htonl(0xff);
	set_config();
	for (uint32_t vip = VIP_IPIP; vip <= VIP_IPIP6; vip += VIP_IPIP6) {
		bool is_outer6 = vip == VIP_IPIP6, seen[256] = { false };
		uint32_t distinct = 0, at = is_outer6 ? 14 + 23 : 14 + 15;
		struct ip6 source = ip6(NET_NLB, 0);
		struct bytes out, again;

		for (uint32_t port = 1024; port < 1324; port++) {
			struct shape s = { .vip = vip, .sport = port };

			assert_int_equal(run(&s, &out), XDP_TX);
			if (is_outer6) {
				assert_memory_equal(out.b + 14 + 8, source.b, 15);
			} else {
				assert_memory_equal(out.b + 26, ((const uint8_t[]) { 10, 0, 0 }),
						    3);
				assert_int_equal(checksum(out.b + 14, 20), 0);
			}
			distinct += !seen[out.b[at]];
			seen[out.b[at]] = true;
			run(&s, &again);
			assert_int_equal(again.b[at], out.b[at]);
		}
		assert_true(distinct > 100);
	}
}

static void redirects_to_another_interface(void **state)
{
	struct nlb_gateway gw = gateway_entry(GW_A);
	struct shape s = { 0 };
	struct bytes out;

	fresh_world();
	gw.ifindex = LOOPBACK + 1;
	set_gateway_entry(GW_A, &gw);
	for (s.vip = VIP_IPIP; s.vip <= VIP_L2; s.vip++) {
		assert_int_equal(run(&s, &out), XDP_REDIRECT);
		assert_bytes(&out, encapsulated(&s, GW_A, NULL, 0), "redirected");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encapsulates_byte_for_byte),
		cmocka_unit_test(names_second_choices_in_the_gue_header),
		cmocka_unit_test(names_no_second_choice_beside_a_remembered_gateway),
		cmocka_unit_test(varies_the_source_by_flow_where_allowed),
		cmocka_unit_test(redirects_to_another_interface),
	};

	return cmocka_run_group_tests_name("nlb_encap", tests, load_group, unload_group);
}
