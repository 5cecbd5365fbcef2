/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that are not for us, cannot be served, or cannot be. */
#include "tests/bpf/world.h"

static void leaves_everything_else_to_the_kernel(void **state)
{
	struct bytes p = { .len = 0 };
	struct ipv4_options icmp = {
		.source = CLIENT, .destination = VIP(0), .protocol = IPPROTO_ICMP, .ttl = 9
	};
	struct shape elsewhere = { .vip = 90 };

	fresh_world();
	put_ethernet(&p, MAC_NLB, MAC_ROUTER, 0x0806);
	for (int i = 0; i < 28; i++)
		put8(&p, 0);
	assert_ends(&p, NLB_REASON_NOT_IP, XDP_PASS, "ARP");
	set16(&p, 12, 0x86dd);
	assert_ends(&p, NLB_REASON_NO_VIP, XDP_PASS, "IPv6");

	assert_ends(frame(&elsewhere), NLB_REASON_NO_VIP, XDP_PASS, "another address");
	elsewhere.frag = 0x2000;
	assert_ends(frame(&elsewhere), NLB_REASON_NO_VIP, XDP_PASS, "fragment to another address");
	elsewhere.vlan_tags = 2;
	assert_ends(frame(&elsewhere), NLB_REASON_NO_VIP, XDP_PASS, "VLANs to another address");

	p.len = 0;
	put_ethernet(&p, MAC_NLB, MAC_ROUTER, 0x0800);
	put_ipv4(&p, &icmp, 8);
	put32(&p, 0x0d00f2ff);
	put32(&p, 0);
	assert_ends(&p, NLB_REASON_ICMP_OTHER, XDP_PASS, "timestamp request to a VIP");
}

static void drops_what_cannot_be_served(void **state)
{
	fresh_world();
	assert_ends(frame(&(struct shape) { .dport = 22 }), NLB_REASON_NO_SERVICE, XDP_DROP,
		    "other port");
	assert_ends(frame(&(struct shape) { .frag = 0x0010 }), NLB_REASON_FRAGMENT, XDP_DROP,
		    "later fragment");
	assert_ends(frame(&(struct shape) { .source = VIP(0) }), NLB_REASON_SPOOFED, XDP_DROP,
		    "from the VIP itself");

	set_ring(VIP_IPIP, (struct nlb_slot) { 0 });
	assert_ends(frame(&(struct shape) { 0 }), NLB_REASON_NO_GATEWAY, XDP_DROP, "empty ring");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = NLB_MAX_GATEWAYS });
	assert_ends(frame(&(struct shape) { 0 }), NLB_REASON_NO_GATEWAY, XDP_DROP,
		    "impossible gateway");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
	set_gateway(GW_A, NLB_GATEWAY_USABLE, 1, 1500);
	assert_ends(frame(&(struct shape) { 0 }), NLB_REASON_NO_NEIGHBOUR, XDP_DROP,
		    "no MAC address");

	conf.flags = 0;
	set_config();
	assert_ends(frame(&(struct shape) { 0 }), NLB_REASON_NO_CONFIG, XDP_PASS, "not configured");
}

static void leaves_ipv6_of_others_to_the_kernel(void **state)
{
	static const struct shape shapes[] = {
		{ .vip = 90 },
		{ .vip = 90, .is_udp = true },
		{ .vip = 90, .vlan_tags = 2 },
		{ .vip = 90, .extensions = { 255 } },
		{ .vip = 90, .has_fragment_header = true, .frag = 80 },
		{ .vip = 90, .extensions = { 60, 60, 60, 60, 60, 60, 60, 60, 60 } },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct shape s = shapes[i];
		struct bytes p;

		s.is_ipv6 = true;
		assert_ends(frame(&s), NLB_REASON_NO_VIP, XDP_PASS, "not for us");
		p = *frame(&s);
		p.len = 14 + 4 * s.vlan_tags + 40;
		assert_ends(&p, NLB_REASON_NO_VIP, XDP_PASS, "cut, not for us");
	}
}

static void drops_what_cannot_be_served_over_ipv6(void **state)
{
	struct shape s = { .is_ipv6 = true };
	struct bytes p;

	fresh_world();
	s.dport = 22;
	assert_ends(frame(&s), NLB_REASON_NO_SERVICE, XDP_DROP, "other port");
	s.vlan_tags = 1;
	assert_ends(frame(&s), NLB_REASON_NO_SERVICE, XDP_DROP, "other port, VLAN");
	s = (struct shape) { .is_ipv6 = true };
	for (uint32_t at = 14 + 24; at < 14 + 40; at += 4) {
		p = *frame(&s);
		memcpy(p.b + 14 + 8, p.b + 14 + 24, 16);
		assert_ends(&p, NLB_REASON_SPOOFED, XDP_DROP, "from the VIP itself");
		p.b[at - 16] ^= 0x10; /* the words one by one: not quite the VIP */
		assert_int_equal(run_frame(&p, &(struct bytes) { .len = 0 }), XDP_TX);
	}
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = NLB_MAX_GATEWAYS });
	assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "impossible gateway");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
	set_gateway(GW_A, NLB_GATEWAY_USABLE, 1, MTU);
	assert_ends(frame(&s), NLB_REASON_NO_NEIGHBOUR, XDP_DROP, "no MAC address");
	conf.flags = 0;
	set_config();
	assert_ends(frame(&s), NLB_REASON_NO_CONFIG, XDP_PASS, "not configured");
	s.vlan_tags = 1;
	assert_ends(frame(&s), NLB_REASON_NO_CONFIG, XDP_PASS, "not configured, VLAN");
}

static void a_third_vlan_tag_is_not_looked_behind(void **state)
{
	struct bytes p = *frame(&(struct shape) { .vlan_tags = 2 });

	fresh_world();
	set16(&p, 20, 0x8100);
	assert_ends(&p, NLB_REASON_NOT_IP, XDP_PASS, "third tag");
}

/* A byte of the frame falsified. VLAN tags lead the other way through the program. */
static void drops_impossible_headers(void **state)
{
	static const struct {
		struct shape shape;
		uint32_t at, value; /* counted from the IP header */
		uint32_t reason;
		const char *why;
	} cases[] = {
		{ { 0 }, 0, 0x55, NLB_REASON_MALFORMED, "version 5" },
		{ { 0 }, 0, 0x05, NLB_REASON_MALFORMED, "version 0" },
		{ { 0 }, 0, 0x65, NLB_REASON_MALFORMED, "version 6" },
		{ { 0 }, 0, 0x44, NLB_REASON_MALFORMED, "IP header shorter than an IP header" },
		{ { 0 }, 0, 0x40, NLB_REASON_MALFORMED, "no IP header length" },
		{ { 0 }, 0, 0x4f, NLB_REASON_TRUNCATED, "IP header longer than the packet" },
		{ { 0 }, 3, 19, NLB_REASON_TRUNCATED, "total length shorter than the IP header" },
		{ { 0 }, 3, 20, NLB_REASON_TRUNCATED, "no room for TCP" },
		{ { 0 }, 3, 39, NLB_REASON_TRUNCATED, "TCP header cut by the total length" },
		{ { 0 }, 3, 41, NLB_REASON_TRUNCATED, "total length longer than the frame" },
		{ { 0 }, 2, 0xff, NLB_REASON_TRUNCATED, "total length far beyond the frame" },
		{ { 0 }, 32, 0x40, NLB_REASON_MALFORMED, "TCP header shorter than a TCP header" },
		{ { 0 }, 32, 0x00, NLB_REASON_MALFORMED, "no TCP header length" },
		{ { 0 }, 32, 0x60, NLB_REASON_TRUNCATED, "TCP options past the end" },
		{ { 0 }, 9, 47, NLB_REASON_NO_SERVICE, "a protocol that nobody serves" },
		{ { 0 }, 9, IPPROTO_ICMPV6, NLB_REASON_NO_SERVICE, "ICMPv6 over IPv4" },
		{ { .is_udp = true }, 25, 7, NLB_REASON_MALFORMED, "UDP shorter than its header" },
		{ { .is_udp = true }, 25, 0, NLB_REASON_MALFORMED, "no UDP length" },
		{ { .is_udp = true }, 25, 9, NLB_REASON_TRUNCATED, "UDP longer than the packet" },
		{ { .is_udp = true }, 3, 27, NLB_REASON_TRUNCATED, "UDP header cut" },
		{ { .is_udp = true }, 3, 20, NLB_REASON_TRUNCATED, "no room for UDP" },
		{ { .is_ipv6 = true }, 0, 0x45, NLB_REASON_MALFORMED, "version 4" },
		{ { .is_ipv6 = true }, 0, 0x70, NLB_REASON_MALFORMED, "version 7" },
		{ { .is_ipv6 = true }, 5, 21, NLB_REASON_TRUNCATED, "longer than the frame" },
		{ { .is_ipv6 = true }, 4, 0xff, NLB_REASON_TRUNCATED, "far longer" },
		{ { .is_ipv6 = true }, 5, 19, NLB_REASON_TRUNCATED, "TCP header cut" },
		{ { .is_ipv6 = true }, 5, 0, NLB_REASON_TRUNCATED, "jumbo payload" },
		{ { .is_ipv6 = true }, 52, 0x40, NLB_REASON_MALFORMED, "short TCP header" },
		{ { .is_ipv6 = true }, 52, 0xf0, NLB_REASON_TRUNCATED, "TCP options past the end" },
		{ { .is_ipv6 = true }, 6, 50, NLB_REASON_NO_SERVICE, "ESP" },
		{ { .is_ipv6 = true }, 6, 59, NLB_REASON_NO_SERVICE, "no next header" },
		{ { .is_ipv6 = true }, 6, 1, NLB_REASON_NO_SERVICE, "ICMP over IPv6" },
		{ { .is_ipv6 = true, .is_udp = true }, 45, 7, NLB_REASON_MALFORMED, "short UDP" },
		{ { .is_ipv6 = true, .is_udp = true }, 45, 9, NLB_REASON_TRUNCATED, "long UDP" },
		{ { .is_ipv6 = true, .is_udp = true }, 5, 7, NLB_REASON_TRUNCATED, "cut UDP" },
		{ { .is_ipv6 = true, .extensions = { 60 } },
		  41,
		  2,
		  NLB_REASON_TRUNCATED,
		  "extension longer than the packet by little" },
		{ { .is_ipv6 = true, .extensions = { 60 } },
		  41,
		  0xff,
		  NLB_REASON_TRUNCATED,
		  "extension longer than the packet by far" },
		{ { .is_ipv6 = true, .extensions = { 60 } },
		  5,
		  7,
		  NLB_REASON_TRUNCATED,
		  "extension cut by the payload length" },
		{ { .is_ipv6 = true, .extensions = { 60 } },
		  5,
		  27,
		  NLB_REASON_TRUNCATED,
		  "TCP behind an extension cut" },
		{ { .is_ipv6 = true, .has_fragment_header = true },
		  5,
		  7,
		  NLB_REASON_TRUNCATED,
		  "fragment header cut by the payload length" },
	};

	fresh_world();
	for (uint32_t i = 0; i < 3 * sizeof(cases) / sizeof(cases[0]); i++) {
		struct shape s = cases[i / 3].shape;
		uint32_t l3;
		struct bytes p;

		s.vlan_tags = i % 3;
		l3 = 14 + 4 * s.vlan_tags;
		p = *frame(&s);
		p.b[l3 + cases[i / 3].at] = (uint8_t)cases[i / 3].value;
		assert_ends(&p, cases[i / 3].reason, XDP_DROP, cases[i / 3].why);
	}
}

static void follows_eight_extension_headers_and_no_more(void **state)
{
	struct shape s = { .is_ipv6 = true,
			   .extensions = { 255, 60, 43, 60, 60, 60, 60, 60 },
			   .extension_words = 1 };

	fresh_world();
	assert_sent(frame(&s), encapsulated(&s, GW_A, NULL, 0), GW_A, "eight");
	s.extensions[8] = 60;
	assert_ends(frame(&s), NLB_REASON_EXTENSIONS, XDP_DROP, "nine");
	s.extensions[7] = s.extensions[8] = 0;
	s.has_fragment_header = true;
	assert_sent(frame(&s), encapsulated(&s, GW_A, NULL, 0), GW_A, "seven and a fragment's");
	s.extensions[7] = 60;
	assert_ends(frame(&s), NLB_REASON_EXTENSIONS, XDP_DROP, "eight and a fragment's");
}

/* Cut at every byte: never forwarded, always counted once. */
static void survives_truncation_at_every_byte(void **state)
{
	static const struct shape shapes[] = {
		{ .vip = VIP_IPIP, .payload_len = 4 },
		{ .vip = VIP_GUE, .flags = TCP_SYN },
		{ .vip = VIP_IPIP, .options_len = 12 },
		{ .vip = VIP_IPIP, .vlan_tags = 1 },
		{ .vip = VIP_GUE, .vlan_tags = 2, .options_len = 40 },
		{ .vip = VIP_L2, .is_udp = true, .payload_len = 9 },
		{ .vip = VIP_GUE6, .is_udp = true, .vlan_tags = 2 },
		{ .vip = VIP_IPIP, .is_ipv6 = true, .payload_len = 4 },
		{ .vip = VIP_GUE6, .is_ipv6 = true, .is_udp = true },
		{ .vip = VIP_GUE6, .is_ipv6 = true, .vlan_tags = 2 },
		{ .vip = VIP_IPIP, .is_ipv6 = true, .extensions = { 255, 43, 60 } },
		{ .vip = VIP_L2_6, .is_ipv6 = true, .extensions = { 60 }, .extension_words = 3 },
		{ .vip = VIP_IPIP, .is_ipv6 = true, .has_fragment_header = true, .frag = 1 },
		{ .vip = VIP_IPIP, .frag = 0x2000, .is_udp = true },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct bytes whole = *frame(&shapes[i]);
		uint32_t l3 = 14 + 4 * shapes[i].vlan_tags;

		for (uint32_t len = 14; len < whole.len; len++) {
			struct bytes p = whole, out;
			uint64_t all = all_reasons(), sent = all_forwarded();
			uint32_t action, want;

			p.len = len;
			memset(p.b + len, 0xee, sizeof(p.b) - len);
			action = run_frame(&p, &out);
			/* Before the destination is known the packet is none of our business. */
			want = len < l3 + (shapes[i].is_ipv6 ? 40 : 20) ? XDP_PASS : XDP_DROP;
			if (action != want || all_reasons() != all + 1 || all_forwarded() != sent)
				fail_msg("shape %zu cut to %u bytes: action %u", i, len, action);
			assert_int_equal(out.len, len);
		}
		assert_int_equal(run_frame(&whole, &(struct bytes) { .len = 0 }), XDP_TX);
	}
}

static void metric_names_are_distinct(void **state)
{
#define NAME(id, name, verdict, help) name,
	static const char *const names[] = { NLB_REASONS(NAME) };

	for (size_t i = 0; i < NLB_REASON_COUNT; i++) {
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_everything_else_to_the_kernel),
		cmocka_unit_test(drops_what_cannot_be_served),
		cmocka_unit_test(leaves_ipv6_of_others_to_the_kernel),
		cmocka_unit_test(drops_what_cannot_be_served_over_ipv6),
		cmocka_unit_test(a_third_vlan_tag_is_not_looked_behind),
		cmocka_unit_test(drops_impossible_headers),
		cmocka_unit_test(follows_eight_extension_headers_and_no_more),
		cmocka_unit_test(survives_truncation_at_every_byte),
		cmocka_unit_test(metric_names_are_distinct),
	};

	return cmocka_run_group_tests_name("nlb_malformed", tests, load_group, unload_group);
}
