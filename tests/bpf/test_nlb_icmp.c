/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP to virtual IPs: echo answered, errors delivered, "too big" told. */
#include "tests/bpf/world.h"

enum { ECHO4 = 8, ECHO4_REPLY = 0, ECHO6 = 128, ECHO6_REPLY = 129 };

/* A link header and an IP header of the client's (or a router's) in front of `message`. */
struct envelope {
	bool is_ipv6;
	uint32_t vip, vlan_tags, options_len, extension, source, frag, padding;
	uint8_t ttl, tos;
};

static void put_envelope(struct bytes *p, const struct envelope *e, const struct bytes *message)
{
	struct ipv4_options ip = { .source = e->source ? e->source : CLIENT,
				   .destination = VIP(e->vip),
				   .protocol = IPPROTO_ICMP,
				   .ttl = e->ttl ? e->ttl : 61,
				   .tos = e->tos,
				   .id = 77,
				   .frag = (uint16_t)e->frag,
				   .options_len = e->options_len };

	p->len = 0;
	put_link(p, MAC_NLB, MAC_ROUTER, e->vlan_tags, type_of(e->is_ipv6));
	if (e->is_ipv6) {
		put_ipv6(p, e->tos, 0x12345, message->len + (e->extension ? 8 : 0),
			 e->extension ? e->extension : (uint32_t)IPPROTO_ICMPV6, ip.ttl,
			 ip6(NET_CLIENT, e->source ? e->source : 7), ip6(NET_VIP, e->vip));
		if (e->extension) {
			put8(p, IPPROTO_ICMPV6);
			put8(p, 0);
			put_pattern(p, 6);
		}
	} else {
		put_ipv4(p, &ip, message->len);
	}
	put(p, message->b, message->len);
	put_padding(p, e->padding);
}

/* RFC 1071 over the message and, for IPv6, the pseudo header. */
static void set_icmp_checksum(struct bytes *message, bool is_ipv6, struct ip6 from, struct ip6 to)
{
	struct bytes sum = { .len = 0 };

	set16(message, 2, 0);
	if (is_ipv6) {
		put(&sum, &from, 16);
		put(&sum, &to, 16);
		put32(&sum, message->len);
		put32(&sum, IPPROTO_ICMPV6);
	}
	put(&sum, message->b, message->len);
	set16(message, 2, checksum(sum.b, sum.len));
}

static struct bytes echo(const struct envelope *e, uint32_t type, uint32_t payload_len)
{
	struct bytes m = { .len = 0 };

	put8(&m, type);
	put8(&m, 0);
	put16(&m, 0);
	put32(&m, 0xcafe0003);
	put_pattern(&m, payload_len);
	set_icmp_checksum(&m, e->is_ipv6, ip6(NET_CLIENT, 7), ip6(NET_VIP, e->vip));
	return m;
}

/* Everything swapped, time to live new, all checksums right. */
static void answers_echo_byte_for_byte(void **state)
{
	static const struct {
		struct envelope e;
		uint32_t payload_len;
	} cases[] = {
		{ { 0 }, 56 },
		{ { 0 }, 0 },
		{ { .vlan_tags = 1 }, 33 },
		{ { .vlan_tags = 2 }, 1 },
		{ { .options_len = 12 }, 56 },
		{ { .options_len = 40, .vlan_tags = 2 }, 1400 },
		{ { .tos = 0x2e, .ttl = 255, .frag = 0x4000 }, 8 },
		{ { .ttl = 1 }, 8 },
		{ { .ttl = 64, .padding = 10 }, 8 },
		{ { .is_ipv6 = true }, 56 },
		{ { .is_ipv6 = true }, 0 },
		{ { .is_ipv6 = true, .vlan_tags = 2 }, 33 },
		{ { .is_ipv6 = true, .extension = IPPROTO_DSTOPTS, .vlan_tags = 1 }, 8 },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct envelope e = cases[i].e;
		struct bytes request, reply, in = { .len = 0 }, want = { .len = 0 }, out;
		uint32_t l3 = 14 + 4 * e.vlan_tags;
		char why[32];

		snprintf(why, sizeof(why), "case %u", i);
		request = echo(&e, e.is_ipv6 ? ECHO6 : ECHO4, cases[i].payload_len);
		put_envelope(&in, &e, &request);
		reply = echo(&e, e.is_ipv6 ? ECHO6_REPLY : ECHO4_REPLY, cases[i].payload_len);
		e.ttl = 64;
		put_envelope(&want, &e, &reply);
		memcpy(want.b, MAC_ROUTER, 6);
		memcpy(want.b + 6, MAC_NLB, 6);
		if (e.is_ipv6) {
			memcpy(want.b + l3 + 8, in.b + l3 + 24, 16);
			memcpy(want.b + l3 + 24, in.b + l3 + 8, 16);
		} else {
			memcpy(want.b + l3 + 12, in.b + l3 + 16, 4);
			memcpy(want.b + l3 + 16, in.b + l3 + 12, 4);
			assert_int_equal(checksum(want.b + l3, 20 + e.options_len), 0);
		}
		assert_ends_as(&in, NLB_REASON_ECHO_REPLY, XDP_TX, &out, why);
		assert_bytes(&out, &want, why);
	}
}

static void answers_echo_for_virtual_ips_only(void **state)
{
	static const struct {
		struct envelope e;
		uint32_t type, code;
		uint32_t reason, action;
		const char *why;
	} cases[] = {
		{ { .vip = 90 }, ECHO4, 0, NLB_REASON_NO_VIP, XDP_PASS, "another address" },
		{ { .vip = 90, .is_ipv6 = true }, ECHO6, 0, NLB_REASON_NO_VIP, XDP_PASS, "IPv6" },
		{ { .vip = 90, .vlan_tags = 2 }, ECHO4, 0, NLB_REASON_NO_VIP, XDP_PASS, "VLAN" },
		{ { 0 }, ECHO4, 1, NLB_REASON_ICMP_OTHER, XDP_PASS, "a code that means nothing" },
		{ { 0 }, ECHO4_REPLY, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "a reply" },
		{ { 0 }, 13, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "timestamp request" },
		{ { 0 }, 5, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "redirect" },
		{ { 0 }, ECHO6, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "IPv6's number" },
		{ { .is_ipv6 = true }, ECHO4, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "IPv4's" },
		{ { .is_ipv6 = true }, ECHO6_REPLY, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "reply" },
		{ { .is_ipv6 = true }, 135, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "neighbours" },
		{ { .is_ipv6 = true }, 0, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "type 0" },
		{ { .is_ipv6 = true }, 5, 0, NLB_REASON_ICMP_OTHER, XDP_PASS, "type 5" },
		{ { .source = VIP(0) }, ECHO4, 0, NLB_REASON_SPOOFED, XDP_DROP, "from itself" },
		{ { .source = IP(0, 1, 2, 3) }, ECHO4, 0, NLB_REASON_SPOOFED, XDP_DROP, "net 0" },
		{ { .source = IP(127, 0, 0, 1) }, ECHO4, 0, NLB_REASON_SPOOFED, XDP_DROP, "lo" },
		{ { .source = IP(224, 0, 0, 1) }, ECHO4, 0, NLB_REASON_SPOOFED, XDP_DROP, "group" },
		{ { .source = UINT32_MAX }, ECHO4, 0, NLB_REASON_SPOOFED, XDP_DROP, "broadcast" },
		{ { .frag = 0x2000 }, ECHO4, 0, NLB_REASON_FRAGMENT, XDP_DROP, "first fragment" },
		{ { .frag = 0x0010 }, ECHO4, 0, NLB_REASON_FRAGMENT, XDP_DROP, "later fragment" },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes m = echo(&cases[i].e, cases[i].type, 8), p = { .len = 0 };

		m.b[1] = (uint8_t)cases[i].code;
		put_envelope(&p, &cases[i].e, &m);
		assert_ends(&p, cases[i].reason, cases[i].action, cases[i].why);
	}
}

static void answers_no_ipv6_source_that_is_no_host(void **state)
{
	static const uint8_t sources[][16] = { { 0 }, { [15] = 1 }, { 0xff, 0x02, [15] = 1 } };
	struct envelope e = { .is_ipv6 = true };
	struct bytes m, p = { .len = 0 }, out;

	fresh_world();
	m = echo(&e, ECHO6, 8);
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		put_envelope(&p, &e, &m);
		memcpy(p.b + 14 + 8, sources[i], 16);
		assert_ends(&p, NLB_REASON_SPOOFED, XDP_DROP, "no host");
	}
	p.b[14 + 8] = 0xfe; /* any word makes it one */
	assert_ends_as(&p, NLB_REASON_ECHO_REPLY, XDP_TX, &out, "a host");
	for (uint32_t at = 14 + 8 + 3; at < 14 + 24; at += 4) {
		put_envelope(&p, &e, &m);
		memset(p.b + 14 + 8, 0, 16);
		p.b[at] = 2;
		assert_ends_as(&p, NLB_REASON_ECHO_REPLY, XDP_TX, &out, "a host");
	}
	put_envelope(&p, &e, &m);
	memcpy(p.b + 14 + 8, p.b + 14 + 24, 16);
	assert_ends(&p, NLB_REASON_SPOOFED, XDP_DROP, "itself");
}

static void answers_only_so_many_in_a_tick(void **state)
{
	enum { PER_TICK = 3, REQUESTS = 200 };
	struct envelope e = { 0 };
	struct bytes m, p = { .len = 0 }, out;
	uint64_t before, after, begin, end, limited;

	fresh_world();
	m = echo(&e, ECHO4, 8);
	put_envelope(&p, &e, &m);
	conf.icmp_per_tick = 0;
	set_config();
	assert_ends(&p, NLB_REASON_ICMP_RATE, XDP_DROP, "none at all");

	conf.icmp_per_tick = PER_TICK;
	set_config();
	before = reason_count(NLB_REASON_ECHO_REPLY);
	limited = reason_count(NLB_REASON_ICMP_RATE);
	begin = ticks();
	for (uint32_t i = 0; i < REQUESTS; i++)
		run_frame(&p, &out);
	end = ticks();
	after = reason_count(NLB_REASON_ECHO_REPLY);
	limited = reason_count(NLB_REASON_ICMP_RATE) - limited;
	assert_in_range(after - before, PER_TICK, PER_TICK * (end - begin + 1));
	assert_int_equal(after - before + limited, REQUESTS);
}

/* --- errors about our connections ------------------------------------------------------------- */

/* An error message that quotes the gateways' packet of the connection, `quoted_len` bytes of it. */
struct error {
	struct envelope e;
	uint32_t type, code;
	uint32_t vip, sport; /* of the connection */
	uint32_t inner_options_len, inner_extension, l4_len;
	bool is_udp;
};

static struct bytes error_message(const struct error *x)
{
	struct bytes m = { .len = 0 };
	struct ipv4_options ip = { .source = VIP(x->vip),
				   .destination = CLIENT,
				   .protocol = x->is_udp ? IPPROTO_UDP : IPPROTO_TCP,
				   .ttl = 1,
				   .frag = 0x4000,
				   .options_len = x->inner_options_len };
	uint32_t l4_len = x->l4_len ? x->l4_len : 8;

	put8(&m, x->type);
	put8(&m, x->code);
	put16(&m, 0xbeef);
	put32(&m, 1280);
	/* What is quoted says how long it was, not how much of it is here. */
	if (x->e.is_ipv6) {
		put_ipv6(&m, 0, 0, 1400, x->inner_extension ? x->inner_extension : ip.protocol, 1,
			 ip6(NET_VIP, x->vip), ip6(NET_CLIENT, 7));
		if (x->inner_extension) {
			put8(&m, ip.protocol);
			put8(&m, 1);
			put_pattern(&m, 14);
		}
	} else {
		put_ipv4(&m, &ip, 1400);
	}
	put16(&m, 443);
	put16(&m, x->sport ? x->sport : 40000);
	put_pattern(&m, l4_len - 4);
	return m;
}

static struct bytes error_frame(const struct error *x)
{
	struct bytes p = { .len = 0 }, m = error_message(x);
	struct error copy = *x;

	/* A router on the way sent it. */
	if (!copy.e.source)
		copy.e.source = copy.e.is_ipv6 ? 0x7777 : IP(192, 0, 2, 99);
	copy.e.vip = x->vip;
	put_envelope(&p, &copy.e, &m);
	return p;
}

static struct shape connection_of(const struct error *x)
{
	return (struct shape) { .vip = x->vip,
				.sport = x->sport,
				.is_ipv6 = x->e.is_ipv6,
				.is_udp = x->is_udp,
				.flags = TCP_SYN };
}

/* The whole message, in a tunnel with the entropy of the connection. */
static void assert_delivered(const struct error *x, uint32_t gateway, const uint32_t *hops,
			     uint32_t hop_count, const char *why)
{
	struct shape s = connection_of(x);
	struct bytes in = error_frame(x), inner = { .len = 0 }, want = { .len = 0 };
	uint32_t l3 = 14 + 4 * x->e.vlan_tags;
	bool is_l2 = encap_of(x->vip) == NLB_ENCAP_L2;

	put(&inner, in.b + l3, in.len - l3);
	put_link(&want, gateway_mac(gateway), MAC_NLB, x->e.vlan_tags,
		 type_of(is_l2 ? x->e.is_ipv6 : is_gateway6(gateway)));
	put_tunnelled(&want, &inner, encap_of(x->vip), x->e.is_ipv6, x->e.tos, hash_of(&s), gateway,
		      hops, hop_count);
	assert_sent(&in, &want, gateway, why);
}

static const struct {
	uint32_t type, code;
	bool is_ipv6;
} error_types[] = {
	{ 3, 4, false }, { 3, 1, false }, { 11, 0, false }, { 12, 0, false },
	{ 1, 4, true },  { 2, 0, true },  { 3, 0, true },   { 4, 1, true },
};

static void errors_reach_the_owner_of_the_connection(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < 2 * VIPS * 8; i++) {
		struct error x = { .e.is_ipv6 = error_types[i & 7].is_ipv6,
				   .type = error_types[i & 7].type,
				   .code = error_types[i & 7].code,
				   .vip = (i >> 3) % VIPS,
				   .sport = 30000 + i,
				   .is_udp = (i >> 3) >= VIPS };
		bool is_outer6 = x.vip >= VIP_IPIP6;
		uint32_t owner = is_outer6 ? GW_C6 : GW_C, other = is_outer6 ? GW_B6 : GW_B;
		struct shape s = connection_of(&x);
		struct bytes out;
		char why[64];

		snprintf(why, sizeof(why), "type %u to VIP %u, %s", x.type, x.vip,
			 x.is_udp ? "UDP" : "TCP");
		set_ring(x.vip, (struct nlb_slot) { .gateway = (uint16_t)owner });
		run(&s, &out);
		assert_delivered(&x, owner, NULL, 0, why);
		set_ring(x.vip,
			 (struct nlb_slot) { .gateway = (uint16_t)other, .flags = NLB_SLOT_MOVED });
		assert_delivered(&x, owner, NULL, 0, why);
	}
}

static void errors_come_in_every_shape(void **state)
{
	static const struct error cases[] = {
		{ .e.vlan_tags = 1 },
		{ .e.vlan_tags = 2, .e.options_len = 40 },
		{ .e.options_len = 8, .inner_options_len = 12 },
		{ .inner_options_len = 40 },
		{ .l4_len = 20 },
		{ .l4_len = 500 },
		{ .e.tos = 0xff },
		{ .e.is_ipv6 = true, .e.vlan_tags = 2 },
		{ .e.is_ipv6 = true, .e.extension = IPPROTO_DSTOPTS },
		{ .e.is_ipv6 = true, .inner_extension = IPPROTO_DSTOPTS },
		{ .e.is_ipv6 = true, .inner_extension = IPPROTO_ROUTING, .e.vlan_tags = 1 },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error x = cases[i];
		char why[32];

		snprintf(why, sizeof(why), "case %u", i);
		x.type = x.e.is_ipv6 ? 2 : 3;
		x.code = x.e.is_ipv6 ? 0 : 4;
		x.vip = VIP_IPIP;
		assert_delivered(&x, GW_A, NULL, 0, why);
		x.vip = VIP_GUE6;
		assert_delivered(&x, GW_A6, NULL, 0, why);
	}
}

/* On a balancer that has not seen the connection, earlier owners are named as for its packets. */
static void errors_have_second_choices_too(void **state)
{
	struct error x = { .type = 3, .code = 4, .vip = VIP_GUE };

	fresh_world();
	set_ring(VIP_GUE, (struct nlb_slot) {
				  .gateway = GW_B, .earlier = { GW_A }, .flags = NLB_SLOT_MOVED });
	assert_delivered(&x, GW_B, (const uint32_t[]) { GW_A }, 1, "TCP");
	x.is_udp = true;
	assert_delivered(&x, GW_B, NULL, 0, "UDP");
}

/* Anybody can send an error: it neither begins a flow nor keeps one alive. */
static void errors_leave_no_trace(void **state)
{
	struct error x = { .type = 3, .code = 4, .vip = VIP_IPIP, .is_udp = true };
	uint32_t n = bpf_map__max_entries(skel->maps.flows);
	uint64_t connections;
	struct shape s = connection_of(&x);
	struct nlb_flow_bucket bucket;
	struct bytes out;

	fresh_world();
	connections = STAT(GW_A, connections);
	assert_delivered(&x, GW_A, NULL, 0, "no flow");
	assert_int_equal(STAT(GW_A, connections), connections);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B);

	for (uint32_t i = 0; i < n; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.flows), &i, &bucket);
		for (uint32_t w = 0; w < NLB_FLOW_WAYS; w++)
			bucket.way[w].used = (uint32_t)ticks() - 500;
		map_set(skel->maps.flows, &i, &bucket);
	}
	conf.udp_timeout = 1000;
	set_config();
	assert_delivered(&x, GW_B, NULL, 0, "flow");
	for (uint32_t i = 0; i < n; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.flows), &i, &bucket);
		for (uint32_t w = 0; w < NLB_FLOW_WAYS; w++)
			assert_true((uint32_t)ticks() - bucket.way[w].used >= 500);
	}
}

static void errors_about_nothing_of_ours_are_dropped(void **state)
{
	static const struct {
		uint32_t at, value; /* byte of the quoted IP header to falsify */
		bool is_ipv6;
		const char *why;
	} cases[] = {
		{ 15, 99, false, "quoted source is another address" },
		{ 0, 0x65, false, "quoted version 6" },
		{ 0, 0x44, false, "quoted header too short" },
		{ 0, 0x4f, false, "quoted header longer than what is here" },
		{ 9, IPPROTO_ICMP, false, "quoted ICMP" },
		{ 9, 47, false, "quoted GRE" },
		{ 7, 0x10, false, "quoted fragment without ports" },
		{ 6, 0x5f, false, "quoted fragment far behind" },
		{ 20, 9, false, "port that is no service" },
		{ 23, 99, true, "quoted source is another address" },
		{ 11, 99, true, "... in its first word" },
		{ 0, 0x45, true, "quoted version 4" },
		{ 6, IPPROTO_ICMPV6, true, "quoted ICMPv6" },
		{ 6, IPPROTO_HOPOPTS, true, "quoted extension that runs out" },
		{ 40, 9, true, "port that is no service" },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct error x = { .e.is_ipv6 = cases[i].is_ipv6,
				   .type = cases[i].is_ipv6 ? 1 : 3 };
		struct bytes p = error_frame(&x);

		p.b[14 + (cases[i].is_ipv6 ? 40 : 20) + 8 + cases[i].at] = (uint8_t)cases[i].value;
		assert_ends(&p, NLB_REASON_ICMP_UNRELATED, XDP_DROP, cases[i].why);
	}
}

/* Ports of a later fragment are no ports. */
static void errors_that_quote_later_ipv6_fragments_are_dropped(void **state)
{
	struct error x = { .e.is_ipv6 = true, .type = 3, .inner_extension = IPPROTO_FRAGMENT };
	struct bytes p = error_frame(&x);
	uint32_t at = 14 + 40 + 8 + 40;

	fresh_world();
	/* The second half of the 16 bytes becomes the ports. */
	set16(&p, at + 2, 1);
	set16(&p, at + 8, 443);
	set16(&p, at + 10, 40000);
	assert_int_equal(run_frame(&p, &(struct bytes) { .len = 0 }), XDP_TX);
	set16(&p, at + 2, 8);
	assert_ends(&p, NLB_REASON_ICMP_UNRELATED, XDP_DROP, "later fragment");
}

static void errors_for_an_empty_pool_are_dropped(void **state)
{
	struct error x = { .type = 3, .code = 1 };
	struct bytes p = error_frame(&x);

	fresh_world();
	set_ring(VIP_IPIP, (struct nlb_slot) { 0 });
	assert_ends(&p, NLB_REASON_NO_GATEWAY, XDP_DROP, "empty pool");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
	set_gateway(GW_A, NLB_GATEWAY_USABLE, 1, MTU);
	assert_ends(&p, NLB_REASON_NO_NEIGHBOUR, XDP_DROP, "no MAC address");
}

/* Cut at every byte, with and without the IP header saying so. */
static void errors_survive_truncation(void **state)
{
	static const struct error shapes[] = {
		{ .type = 3, .code = 4, .e.options_len = 8, .inner_options_len = 8 },
		{ .type = 2, .e.is_ipv6 = true, .inner_extension = IPPROTO_DSTOPTS },
		{ .type = 1, .e.is_ipv6 = true, .e.vlan_tags = 2, .e.extension = IPPROTO_ROUTING },
	};

	fresh_world();
	for (uint32_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct bytes whole = error_frame(&shapes[i]);
		uint32_t l3 = 14 + 4 * shapes[i].e.vlan_tags;
		uint32_t header_len = shapes[i].e.is_ipv6 ? 40 : 20;

		for (uint32_t len = l3 + header_len; len < whole.len; len++) {
			struct bytes p = whole;

			p.len = len;
			assert_ends(&p, NLB_REASON_TRUNCATED, XDP_DROP, "shorter than it says");
			if (shapes[i].e.is_ipv6)
				set16(&p, l3 + 4, len - l3 - 40);
			else
				set16(&p, l3 + 2, len - l3);
			for (uint32_t padding = 0; padding < 64; padding += 63) {
				uint64_t ended = all_reasons(), sent = all_forwarded();
				struct bytes out;

				/* The missing bytes, behind the end of the IP packet. */
				p.len = len + padding < whole.len ? len + padding : whole.len;
				if (run_frame(&p, &out) != XDP_DROP || out.len != p.len)
					fail_msg("shape %u cut to %u bytes was not dropped", i,
						 len);
				assert_int_equal(all_reasons(), ended + 1);
				assert_int_equal(all_forwarded(), sent);
			}
		}
	}
}

/* --- too big -----------------------------------------------------------------------------------
 */

/* The longest that fits, and the advice: with two second choices at worst. */
static const struct {
	uint32_t vip, overhead, worst;
} tunnels[VIPS] = {
	{ VIP_IPIP, 20, 20 },  { VIP_GUE, 20 + 8 + 4, 20 + 8 + 4 + 4 + 8 },   { VIP_L2, 0, 0 },
	{ VIP_IPIP6, 40, 40 }, { VIP_GUE6, 40 + 8 + 4, 40 + 8 + 4 + 4 + 32 }, { VIP_L2_6, 0, 0 },
};

static struct bytes too_big_answer(const struct shape *s, uint32_t mtu)
{
	struct bytes in = *frame(s), m = { .len = 0 }, p = { .len = 0 };
	uint32_t l3 = 14 + 4 * s->vlan_tags;
	struct ipv4_options ip = { .source = VIP(s->vip),
				   .destination = client4(s),
				   .protocol = IPPROTO_ICMP,
				   .ttl = 64,
				   .frag = 0x4000 };

	put8(&m, s->is_ipv6 ? 2 : 3);
	put8(&m, s->is_ipv6 ? 0 : 4);
	put16(&m, 0);
	put32(&m, mtu);
	put(&m, in.b + l3, s->is_ipv6 ? 1280 - 40 - 8 : 576 - 20 - 8);
	set_icmp_checksum(&m, s->is_ipv6, ip6(NET_VIP, s->vip), client6(s));

	put_link(&p, MAC_ROUTER, MAC_NLB, s->vlan_tags, type_of(s->is_ipv6));
	if (s->is_ipv6)
		put_ipv6(&p, 0, 0, m.len, IPPROTO_ICMPV6, 64, ip6(NET_VIP, s->vip), client6(s));
	else
		put_ipv4(&p, &ip, m.len);
	put(&p, m.b, m.len);
	return p;
}

static void tells_what_would_fit(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < VIPS * 12; i++) {
		uint32_t header = (i & 1 ? 40 : 20) + (i & 2 ? 8 : 20);
		struct shape s = { .vip = tunnels[i / 12].vip,
				   .is_ipv6 = i & 1,
				   .is_udp = i & 2,
				   .vlan_tags = i / 4 % 3,
				   .payload_len = MTU - tunnels[i / 12].overhead - header };
		uint32_t gateway = s.vip < VIP_IPIP6 ? GW_A : GW_A6;
		struct bytes want, out;
		char why[64];

		snprintf(why, sizeof(why), "VIP %u, case %u", s.vip, i % 12);
		assert_sent(frame(&s), encapsulated(&s, gateway, NULL, 0), gateway, why);
		s.payload_len++;
		want = too_big_answer(&s, MTU - tunnels[i / 12].worst);
		assert_ends_as(frame(&s), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, why);
		assert_bytes(&out, &want, why);
	}
}

/* Second choices take room, the advice has counted on them. */
static void advice_is_the_same_for_every_packet(void **state)
{
	struct shape s = { .vip = VIP_GUE, .payload_len = MTU - 44 - 40 };
	struct bytes want, out;

	fresh_world();
	set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B, .earlier = { GW_A, GW_C } });
	assert_sent(frame(&s), encapsulated(&s, GW_B, (const uint32_t[]) { GW_A, GW_C }, 2), GW_B,
		    "as long as advised");
	s.payload_len++;
	want = too_big_answer(&s, MTU - 44);
	assert_ends_as(frame(&s), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "longer");
	assert_bytes(&out, &want, "longer");
}

static void too_big_is_not_told_to_everybody(void **state)
{
	struct shape s = { .payload_len = 1480 };
	struct error x = { .type = 3, .l4_len = 1460 };
	struct bytes p;

	fresh_world();
	s.frag = 0x8000; /* a reserved bit, so that "don't fragment" is not set */
	assert_ends(frame(&s), NLB_REASON_TOO_BIG, XDP_DROP, "may be fragmented");
	s.frag = 0;
	s.source = IP(224, 0, 0, 9);
	assert_ends(frame(&s), NLB_REASON_TOO_BIG, XDP_DROP, "a group");
	s.source = 0;

	p = error_frame(&x);
	set16(&p, 20, 0x4000);
	assert_ends(&p, NLB_REASON_TOO_BIG, XDP_DROP, "an error is never answered");
	x.e.is_ipv6 = true;
	x.type = 1;
	p = error_frame(&x);
	assert_ends(&p, NLB_REASON_TOO_BIG, XDP_DROP, "an error is never answered");

	s.is_ipv6 = true;
	p = *frame(&s);
	memset(p.b + 14 + 8, 0, 16);
	assert_ends(&p, NLB_REASON_TOO_BIG, XDP_DROP, "unspecified address");

	conf.icmp_per_tick = 0;
	set_config();
	assert_ends(frame(&s), NLB_REASON_ICMP_RATE, XDP_DROP, "IPv6, over the rate");
	s.is_ipv6 = false;
	assert_ends(frame(&s), NLB_REASON_ICMP_RATE, XDP_DROP, "IPv4, over the rate");
}

/* Paths narrower than anybody should have. */
static void narrow_path_is_told_the_least(void **state)
{
	struct shape s = { .payload_len = 600 };
	struct bytes want, out;

	fresh_world();
	set_gateway(GW_A, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, 600);
	want = too_big_answer(&s, 580);
	assert_ends_as(frame(&s), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "IPv4");
	assert_bytes(&out, &want, "IPv4");
	s.payload_len = 576 - 28 - 40;
	set_gateway(GW_A, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, 500);
	assert_ends_as(frame(&s), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "just what is quoted");
	s.payload_len--;
	assert_ends(frame(&s), NLB_REASON_TOO_BIG, XDP_DROP, "less than would be quoted");

	s.is_ipv6 = true;
	s.payload_len = 1280 - 40 - 20;
	assert_ends(frame(&s), NLB_REASON_TOO_BIG, XDP_DROP, "IPv6 cannot go below 1280");
	s.payload_len++;
	want = too_big_answer(&s, 1280);
	assert_ends_as(frame(&s), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "IPv6");
	assert_bytes(&out, &want, "IPv6");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_echo_byte_for_byte),
		cmocka_unit_test(answers_echo_for_virtual_ips_only),
		cmocka_unit_test(answers_no_ipv6_source_that_is_no_host),
		cmocka_unit_test(answers_only_so_many_in_a_tick),
		cmocka_unit_test(errors_reach_the_owner_of_the_connection),
		cmocka_unit_test(errors_come_in_every_shape),
		cmocka_unit_test(errors_have_second_choices_too),
		cmocka_unit_test(errors_leave_no_trace),
		cmocka_unit_test(errors_about_nothing_of_ours_are_dropped),
		cmocka_unit_test(errors_that_quote_later_ipv6_fragments_are_dropped),
		cmocka_unit_test(errors_for_an_empty_pool_are_dropped),
		cmocka_unit_test(errors_survive_truncation),
		cmocka_unit_test(tells_what_would_fit),
		cmocka_unit_test(advice_is_the_same_for_every_packet),
		cmocka_unit_test(too_big_is_not_told_to_everybody),
		cmocka_unit_test(narrow_path_is_told_the_least),
	};

	return cmocka_run_group_tests_name("nlb_icmp", tests, load_group, unload_group);
}
