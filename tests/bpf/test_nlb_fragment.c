/* SPDX-License-Identifier: Apache-2.0 */
/* Fragments follow their first one. */
#include "tests/bpf/world.h"

/* First and later ones of a datagram: IPv4 counts offsets by eight, IPv6 leaves three bits below.
 */
static struct shape first(uint32_t vip, bool is_ipv6, bool is_udp)
{
	return (struct shape) { .vip = vip,
				.is_ipv6 = is_ipv6,
				.is_udp = is_udp,
				.frag = is_ipv6 ? 1 : 0x2000,
				.has_fragment_header = is_ipv6,
				.payload_len = 64 };
}

static struct shape later(struct shape s, bool is_last)
{
	s.frag = s.is_ipv6 ? 80U | (is_last ? 0 : 1) : 10U | (is_last ? 0 : 0x2000);
	s.payload_len = 40;
	return s;
}

/* The encapsulation of a later fragment is that of its gateway. */
static void set_encap(uint32_t gateway, uint8_t encap)
{
	struct nlb_gateway gw = gateway_entry(gateway);

	gw.encap = encap;
	set_gateway_entry(gateway, &gw);
}

static void fragments_follow_their_first(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < 8 * VIPS * 3; i++) {
		struct shape f = first(i / 8 % VIPS, i & 1, i & 2), l;
		bool is_outer6 = f.vip >= VIP_IPIP6;
		uint32_t gateway = is_outer6 ? GW_A6 : GW_A, other = is_outer6 ? GW_B6 : GW_B;
		char why[64];

		snprintf(why, sizeof(why), "case %u", i);
		f.frag_id = 1000 + i;
		f.vlan_tags = i / (8 * VIPS);
		f.options_len = i & 4 && !f.is_ipv6 ? 8 : 0;
		if (i & 4 && f.is_ipv6)
			f.extensions[0] = IPPROTO_ROUTING;
		set_encap(gateway, encap_of(f.vip));
		set_ring(f.vip, (struct nlb_slot) { .gateway = (uint16_t)gateway });
		l = later(f, false);
		assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "later one comes first");
		assert_sent(frame(&f), encapsulated(&f, gateway, NULL, 0), gateway, why);

		set_ring(f.vip, (struct nlb_slot) { .gateway = (uint16_t)other });
		assert_sent(frame(&l), encapsulated(&l, gateway, NULL, 0), gateway, why);
		l = later(f, true);
		assert_sent(frame(&l), encapsulated(&l, gateway, NULL, 0), gateway, why);
	}
}

/* Each of these makes it another datagram. */
static void fragments_of_other_datagrams_are_dropped(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < 2; i++) {
		struct shape f = first(VIP_IPIP, i, true), l = later(f, true);
		struct bytes out;

		run(&f, &out);
		assert_int_equal(run(&l, &out), XDP_TX);
		l.frag_id = 9;
		assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "identifier");
		l.frag_id = 0;
		l.source = 12345;
		assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "source");
		l.source = 0;
		l.vip = VIP_GUE;
		assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "destination");
		l.vip = VIP_IPIP;
		l.is_udp = false;
		/* IPv6 has one space of identifiers for all protocols. */
		if (!l.is_ipv6)
			assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "protocol");
		l.vip = 90;
		assert_ends(frame(&l), NLB_REASON_NO_VIP, XDP_PASS, "not for a virtual IP");
	}
}

static void fragments_of_a_gateway_that_is_gone_are_dropped(void **state)
{
	struct shape f = first(VIP_IPIP, false, true), l = later(f, true);
	struct bytes out;

	fresh_world();
	run(&f, &out);
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED, 1, MTU);
	assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "gone");
	set_gateway(GW_A, NLB_GATEWAY_USABLE, 1, MTU);
	assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "no MAC address");
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED | NLB_GATEWAY_USABLE, 2, MTU);
	assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "identifier used anew");
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED | NLB_GATEWAY_USABLE, 1, MTU);
	assert_int_equal(run(&l, &out), XDP_TX);
}

static void fragments_are_forgotten_after_half_a_minute(void **state)
{
	struct shape f = first(VIP_IPIP, false, true), l = later(f, true);
	struct nlb_fragment entry;
	struct bytes out;
	uint64_t key;

	fresh_world();
	run(&f, &out);
	assert_int_equal(bpf_map_get_next_key(bpf_map__fd(skel->maps.fragments), NULL, &key), 0);
	bpf_map_lookup_elem(bpf_map__fd(skel->maps.fragments), &key, &entry);
	assert_int_equal(entry.gateway, GW_A);
	entry.seen = (uint32_t)ticks() - 29 * conf.hz;
	map_set(skel->maps.fragments, &key, &entry);
	assert_int_equal(run(&l, &out), XDP_TX);
	entry.seen = (uint32_t)ticks() - 31 * conf.hz;
	map_set(skel->maps.fragments, &key, &entry);
	assert_ends(frame(&l), NLB_REASON_FRAGMENT, XDP_DROP, "too old");
}

/* Identifiers come again; the newest first fragment is meant. */
static void first_fragment_replaces_an_older_one(void **state)
{
	struct shape f = first(VIP_IPIP, false, true), l = later(f, true), g = f;
	struct bytes out;

	fresh_world();
	run(&f, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	g.sport = 41000;
	run(&g, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	run(&l, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void whole_packets_are_not_remembered_as_fragments(void **state)
{
	struct shape s = { .is_udp = true };
	struct bytes out;
	uint64_t key;

	fresh_world();
	run(&s, &out);
	s.is_ipv6 = true;
	s.has_fragment_header = true; /* one of one */
	run(&s, &out);
	assert_int_equal(bpf_map_get_next_key(bpf_map__fd(skel->maps.fragments), NULL, &key),
			 -ENOENT);
}

/* Its first fragment is looked for as any packet of the connection. */
static void first_fragment_follows_the_flow_table(void **state)
{
	struct shape syn = { .flags = TCP_SYN }, f = first(VIP_IPIP, false, false);
	struct shape l = later(f, true);
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	assert_sent(frame(&f), encapsulated(&f, GW_A, NULL, 0), GW_A, "first");
	assert_sent(frame(&l), encapsulated(&l, GW_A, NULL, 0), GW_A, "later");
}

static void flood_of_fragments_leaves_connections_alone(void **state)
{
	struct shape syn = { .flags = TCP_SYN }, f = first(VIP_IPIP, false, false);
	struct nlb_flow_bucket before, after;
	uint32_t n = bpf_map__max_entries(skel->maps.flows);
	uint64_t changed = 0;
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	for (uint32_t i = 0; i < 40000; i++) {
		f.frag_id = i + 1;
		f.source = CLIENT + i / 60000;
		run(&f, &out);
	}
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	syn.flags = TCP_ACK;
	run(&syn, &out);
	assert_int_equal(gateway_of(&out), GW_A);

	memset(&before, 0, sizeof(before));
	for (uint32_t i = 0; i < n; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.flows), &i, &after);
		for (uint32_t w = 0; w < NLB_FLOW_WAYS; w++)
			changed += after.way[w].tag != 0;
	}
	assert_int_equal(changed, 1);
}

static void fragments_too_big_for_the_path_end(void **state)
{
	struct shape f = first(VIP_IPIP, false, true), l;
	struct bytes out;

	fresh_world();
	run(&f, &out);
	l = later(f, false);
	l.payload_len = 1480;
	assert_ends(frame(&l), NLB_REASON_TOO_BIG, XDP_DROP, "later");
	l.frag |= 0x4000;
	assert_ends(frame(&l), NLB_REASON_TOO_BIG, XDP_DROP, "later, don't fragment");
	f.payload_len = 1472;
	assert_ends(frame(&f), NLB_REASON_TOO_BIG, XDP_DROP, "first");
	f.frag |= 0x4000;
	assert_ends_as(frame(&f), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "first, don't fragment");

	f = first(VIP_IPIP, true, true);
	run(&f, &out);
	l = later(f, false);
	l.payload_len = 1448;
	assert_ends(frame(&l), NLB_REASON_TOO_BIG, XDP_DROP, "IPv6, later");
	f.payload_len = 1440;
	assert_ends_as(frame(&f), NLB_REASON_TOLD_TOO_BIG, XDP_TX, &out, "IPv6, first");
}

static void first_fragment_needs_its_ports(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < 4; i++) {
		struct shape f = first(VIP_IPIP, i & 1, i & 2);
		struct bytes p = *frame(&f);
		uint32_t header_len = f.is_ipv6 ? 48 : 20, l4_len = f.is_udp ? 8 : 20;

		for (uint32_t len = 0; len < l4_len; len++) {
			if (f.is_ipv6)
				set16(&p, 18, 8 + len);
			else
				set16(&p, 16, 20 + len);
			p.len = 14 + header_len + len;
			assert_ends(&p, NLB_REASON_TRUNCATED, XDP_DROP, "no ports");
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fragments_follow_their_first),
		cmocka_unit_test(fragments_of_other_datagrams_are_dropped),
		cmocka_unit_test(fragments_of_a_gateway_that_is_gone_are_dropped),
		cmocka_unit_test(fragments_are_forgotten_after_half_a_minute),
		cmocka_unit_test(first_fragment_replaces_an_older_one),
		cmocka_unit_test(whole_packets_are_not_remembered_as_fragments),
		cmocka_unit_test(first_fragment_follows_the_flow_table),
		cmocka_unit_test(flood_of_fragments_leaves_connections_alone),
		cmocka_unit_test(fragments_too_big_for_the_path_end),
		cmocka_unit_test(first_fragment_needs_its_ports),
	};

	return cmocka_run_group_tests_name("nlb_fragment", tests, load_group, unload_group);
}
