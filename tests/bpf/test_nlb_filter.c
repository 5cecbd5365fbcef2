/* SPDX-License-Identifier: Apache-2.0 */
/* Sources that are kept out: block list, allow lists, rate of new connections. */
#include "tests/bpf/world.h"

/* The client's own address or network, as both lists have it. */
static void map_client(uint8_t out[16], const struct shape *s)
{
	struct ip6 address = client6(s);
	uint32_t v4 = htonl(client4(s));

	if (s->is_ipv6) {
		memcpy(out, &address, 16);
		return;
	}
	memset(out, 0, 10);
	memset(out + 10, 0xff, 2);
	memcpy(out + 12, &v4, 4);
}

static void block(const struct shape *s, uint32_t bits, uint64_t until)
{
	struct nlb_prefix_key key = { .prefix_len = bits };
	struct nlb_block value = { .until = until };

	map_client(key.address, s);
	map_set(skel->maps.blocked, &key, &value);
}

static void unblock(const struct shape *s, uint32_t bits)
{
	struct nlb_prefix_key key = { .prefix_len = bits };

	map_client(key.address, s);
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(skel->maps.blocked), &key), 0);
}

static uint64_t dropped(const struct shape *s, uint32_t bits)
{
	struct nlb_prefix_key key = { .prefix_len = bits };
	struct nlb_block value = { 0 };

	map_client(key.address, s);
	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.blocked), &key, &value), 0);
	return value.dropped;
}

/* Shapes that take every way through the program. */
static const struct shape shapes[] = {
	{ .flags = TCP_ACK },
	{ .flags = TCP_SYN },
	{ .is_udp = true },
	{ .vlan_tags = 1 },
	{ .frag = 0x2000, .is_udp = true },
	{ .is_ipv6 = true },
	{ .is_ipv6 = true, .is_udp = true },
	{ .is_ipv6 = true, .extensions = { IPPROTO_DSTOPTS } },
	{ .is_ipv6 = true, .has_fragment_header = true, .frag = 1 },
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void blocked_sources_are_dropped(void **state)
{
	struct bytes out;

	fresh_world();
	for (size_t i = 0; i < SHAPES; i++) {
		const struct shape *s = &shapes[i];
		struct shape other = *s;

		block(s, 128, 0);
		assert_int_equal(run(s, &out), XDP_TX); /* nobody said that the list is in use */
		conf.flags |= NLB_CONFIG_BLOCKED;
		set_config();
		assert_ends(frame(s), NLB_REASON_BLOCKED, XDP_DROP, "blocked");
		assert_int_equal(dropped(s, 128), 1);
		other.source = (s->is_ipv6 ? 7 : CLIENT) + 1;
		assert_int_equal(run(&other, &out), XDP_TX);
		other.vip = 90;
		other.source = s->source;
		assert_ends(frame(&other), NLB_REASON_NO_VIP, XDP_PASS, "none of our business");
		unblock(s, 128);
		assert_int_equal(run(s, &out), XDP_TX);
		conf.flags &= ~NLB_CONFIG_BLOCKED;
		set_config();
	}
}

static void block_ends_with_its_time(void **state)
{
	struct bytes out;

	fresh_world();
	conf.flags |= NLB_CONFIG_BLOCKED;
	set_config();
	for (size_t i = 0; i < SHAPES; i++) {
		const struct shape *s = &shapes[i];

		block(s, 128, ticks() + 100000);
		assert_ends(frame(s), NLB_REASON_BLOCKED, XDP_DROP, "still");
		block(s, 128, ticks());
		assert_int_equal(run(s, &out), XDP_TX);
		unblock(s, 128);
	}
}

static void whole_networks_are_blocked(void **state)
{
	struct shape s = { .source = IP(198, 51, 100, 200) }, s6 = { .is_ipv6 = true };
	struct bytes out;

	fresh_world();
	conf.flags |= NLB_CONFIG_BLOCKED;
	set_config();
	block(&s, 96 + 24, 0);
	s.source = CLIENT;
	assert_ends(frame(&s), NLB_REASON_BLOCKED, XDP_DROP, "in the network");
	s.source = IP(198, 51, 101, 7);
	assert_int_equal(run(&s, &out), XDP_TX);
	assert_int_equal(run(&s6, &out), XDP_TX);
	block(&s6, 64, 0);
	s6.source = 0x12345678;
	assert_ends(frame(&s6), NLB_REASON_BLOCKED, XDP_DROP, "in the IPv6 network");
	unblock(&s6, 64);
	s.source = CLIENT;
	unblock(&s, 96 + 24);
}

/* Also what needs no service: echo requests, errors, later fragments. */
static void blocked_sources_are_dropped_whatever_they_send(void **state)
{
	struct shape later = { .frag = 0x0010, .is_udp = true };
	struct ipv4_options ip = {
		.source = CLIENT, .destination = VIP(0), .protocol = 1, .ttl = 9
	};
	struct bytes p = { .len = 0 };

	fresh_world();
	block(&later, 128, 0);
	conf.flags |= NLB_CONFIG_BLOCKED;
	set_config();
	assert_ends(frame(&later), NLB_REASON_BLOCKED, XDP_DROP, "later fragment");
	put_ethernet(&p, MAC_NLB, MAC_ROUTER, 0x0800);
	put_ipv4(&p, &ip, 8);
	put32(&p, 0x0800f7ff);
	put32(&p, 0);
	assert_ends(&p, NLB_REASON_BLOCKED, XDP_DROP, "echo request");
	p.b[34] = 3;
	assert_ends(&p, NLB_REASON_BLOCKED, XDP_DROP, "error");
	unblock(&later, 128);
}

/* --- allow lists ------------------------------------------------------------------------------ */

static void allow(uint32_t vip, const struct shape *s, uint32_t bits, bool on)
{
	struct nlb_allow_key key = { .prefix_len = 32 + bits, .vip = vip };
	uint32_t value = 1;

	map_client(key.address, s);
	if (on)
		map_set(skel->maps.allowed, &key, &value);
	else
		bpf_map_delete_elem(bpf_map__fd(skel->maps.allowed), &key);
}

static void only_allowed_sources_are_served(void **state)
{
	struct bytes out;

	fresh_world();
	for (size_t i = 0; i < SHAPES; i++) {
		struct shape s = shapes[i], other = s;
		struct nlb_vip vip = vip_entry(VIP_IPIP);

		vip.flags = NLB_VIP_ALLOW;
		allow(VIP_GUE, &s, 128, true); /* another one's list */
		set_service(VIP_IPIP, 443, (uint8_t)shape_protocol(&s), &vip);
		assert_ends(frame(&s), NLB_REASON_NOT_ALLOWED, XDP_DROP, "empty list");
		allow(VIP_IPIP, &s, s.is_ipv6 ? 64 : 96 + 28, true);
		assert_int_equal(run(&s, &out), XDP_TX);
		other.source = s.is_ipv6 ? 77 : CLIENT + 100;
		assert_int_equal(run(&other, &out) == XDP_TX, other.is_ipv6);
		allow(VIP_IPIP, &s, s.is_ipv6 ? 64 : 96 + 28, false);
		assert_ends(frame(&s), NLB_REASON_NOT_ALLOWED, XDP_DROP, "no longer");

		vip.flags = 0;
		set_service(VIP_IPIP, 443, (uint8_t)shape_protocol(&s), &vip);
		assert_int_equal(run(&s, &out), XDP_TX);
		allow(VIP_GUE, &s, 128, false);
	}
}

/* --- rate of new connections ------------------------------------------------------------------ */

#define TICK 65536U

static void limit(uint32_t id, uint32_t interval_ticks, uint32_t count)
{
	struct nlb_vip vip = vip_entry(VIP_IPIP);

	vip.id = (uint16_t)id;
	vip.flags = NLB_VIP_RATE;
	vip.source_interval = interval_ticks * TICK;
	vip.source_burst = count * interval_ticks * TICK;
	set_service(VIP_IPIP, 443, IPPROTO_TCP, &vip);
	set_service(VIP_IPIP, 443, IPPROTO_UDP, &vip);
}

static void forget_sources(void)
{
	struct nlb_rate_bucket empty = { 0 };

	for (uint32_t i = 0; i < NLB_RATE_BUCKETS; i++)
		map_set(skel->maps.source_rates, &i, &empty);
}

/* As many at once as the burst says, then one for each interval; an interval is very long here. */
static void source_opens_a_burst_of_connections(void **state)
{
	fresh_world();
	forget_sources();
	limit(VIP_IPIP, 60000, 1);
	for (uint32_t i = 0; i < 4; i++) {
		struct shape s = { .flags = TCP_SYN, .is_ipv6 = i & 1, .vlan_tags = i & 2 };
		struct bytes out;

		forget_sources();
		limit(VIP_IPIP, 20000, 3);
		for (s.sport = 1000; s.sport < 1003; s.sport++)
			assert_int_equal(run(&s, &out), XDP_TX);
		assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "the fourth");
		s.flags = TCP_ACK;
		assert_int_equal(run(&s, &out), XDP_TX); /* no new connection */
		s.flags = TCP_SYN | TCP_ACK;
		assert_int_equal(run(&s, &out), XDP_TX);
		s.flags = TCP_SYN;
		s.source = s.is_ipv6 ? 99 : CLIENT + 1;
		if (s.is_ipv6) /* the same network of 64 bits: the same source */
			assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "its network");
		else
			assert_int_equal(run(&s, &out), XDP_TX);
	}
}

static void ipv6_networks_are_sources_of_their_own(void **state)
{
	struct shape s = { .flags = TCP_SYN, .is_ipv6 = true };
	struct bytes p, out;

	fresh_world();
	forget_sources();
	limit(VIP_IPIP, 20000, 1);
	assert_int_equal(run(&s, &out), XDP_TX);
	for (uint32_t at = 14 + 8; at < 14 + 8 + 8; at++) {
		p = *frame(&s);
		p.b[at] ^= 1;
		assert_int_equal(run_frame(&p, &out), XDP_TX);
		assert_ends(&p, NLB_REASON_SOURCE_RATE, XDP_DROP, "again");
	}
}

static void limits_of_two_vips_are_apart(void **state)
{
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;

	fresh_world();
	forget_sources();
	limit(VIP_IPIP, 20000, 1);
	assert_int_equal(run(&s, &out), XDP_TX);
	assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "the second");
	limit(VIP_GUE, 20000, 1);
	assert_int_equal(run(&s, &out), XDP_TX);
	assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "the second");
}

static void limit_needs_its_flag(void **state)
{
	struct nlb_vip vip = vip_entry(VIP_IPIP);
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;

	fresh_world();
	forget_sources();
	vip.source_interval = 1000 * TICK;
	set_service(VIP_IPIP, 443, IPPROTO_TCP, &vip);
	for (s.sport = 1; s.sport < 20; s.sport++) {
		s.is_ipv6 = s.sport & 1;
		assert_int_equal(run(&s, &out), XDP_TX);
	}
}

static void interval_earns_another_connection(void **state)
{
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;
	uint64_t begin;

	fresh_world();
	forget_sources();
	begin = ticks();
	limit(VIP_IPIP, 5, 2);
	assert_int_equal(run(&s, &out), XDP_TX);
	assert_int_equal(run(&s, &out), XDP_TX);
	if (run(&s, &out) != XDP_DROP)
		assert_true(ticks() - begin >= 5); /* a slow machine: it was earned already */
	while (ticks() - begin < 6)
		usleep(1000);
	assert_int_equal(run(&s, &out), XDP_TX);
}

/* A refusal costs nothing, or who keeps trying would never get in. */
static void refusals_are_not_charged(void **state)
{
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;
	uint64_t begin;

	fresh_world();
	forget_sources();
	limit(VIP_IPIP, 50, 1);
	begin = ticks();
	assert_int_equal(run(&s, &out), XDP_TX);
	for (uint32_t i = 0; i < 20; i++)
		run(&s, &out);
	while (ticks() - begin < 52)
		usleep(1000);
	assert_int_equal(run(&s, &out), XDP_TX);
}

static void udp_flows_count_as_connections(void **state)
{
	struct shape s = { .is_udp = true };
	struct bytes out;

	fresh_world();
	forget_sources();
	limit(VIP_IPIP, 20000, 1);
	assert_int_equal(run(&s, &out), XDP_TX);
	assert_int_equal(run(&s, &out), XDP_TX); /* the same flow */
	s.sport = 555;
	assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "another flow");
	limit(VIP_IPIP, 20000, 2);
	assert_int_equal(run(&s, &out), XDP_TX); /* ... of which nothing was written down */
	assert_int_equal(STAT(GW_A, flow_hits) > 0, true);
}

/* More sources than a bucket holds: whoever has been quiet for longest makes room. */
static void full_bucket_forgets_who_is_paid_up(void **state)
{
	struct nlb_rate_bucket full;
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;
	uint64_t now;

	fresh_world();
	limit(VIP_IPIP, 20000, 1);
	for (uint32_t quiet = 0; quiet < 4; quiet++) {
		struct nlb_rate_bucket after;
		uint32_t replaced = 0;

		now = ticks() << 16;
		for (uint32_t w = 0; w < 4; w++)
			full.way[w] = (struct nlb_source_rate) { .tag = 77 + w,
								 .at = now + 30000ULL * TICK };
		full.way[quiet].at = now - TICK;
		for (uint32_t i = 0; i < NLB_RATE_BUCKETS; i++)
			map_set(skel->maps.source_rates, &i, &full);
		assert_int_equal(run(&s, &out), XDP_TX);
		assert_ends(frame(&s), NLB_REASON_SOURCE_RATE, XDP_DROP, "remembered");
		for (uint32_t i = 0; i < NLB_RATE_BUCKETS; i++) {
			bpf_map_lookup_elem(bpf_map__fd(skel->maps.source_rates), &i, &after);
			for (uint32_t w = 0; w < 4; w++) {
				if (after.way[w].tag == 77 + w)
					continue;
				assert_int_equal(w, quiet);
				replaced++;
			}
		}
		assert_int_equal(replaced, 1);
	}
	forget_sources();
}

/* --- which addresses are worth a look-up -------------------------------------------------------
 */

/* The bit that nlbd sets for this VIP. */
static uint32_t bit_of(const struct shape *s)
{
	struct ip6 address6 = ip6(NET_VIP, s->vip);
	__be32 address[4] = { htonl(VIP(s->vip)) };

	if (s->is_ipv6)
		memcpy(address, &address6, sizeof(address));
	return nlb_vip_bit(address, s->is_ipv6);
}

static void other_addresses_are_passed_by_their_bit(void **state)
{
	static const struct shape plain[] = {
		{ .flags = TCP_ACK },
		{ .flags = TCP_SYN, .vip = VIP_GUE },
		{ .is_udp = true },
		{ .is_ipv6 = true },
		{ .is_ipv6 = true, .is_udp = true, .vip = VIP_GUE },
	};
	struct bytes out;

	fresh_world();
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		for (uint32_t bit = 1; bit; bit <<= 1) {
			conf.vip_filter = bit;
			set_config();
			if (bit == bit_of(&plain[i]))
				assert_int_equal(run(&plain[i], &out), XDP_TX);
			else
				assert_ends(frame(&plain[i]), NLB_REASON_NO_VIP, XDP_PASS, "bit");
		}
		conf.vip_filter = 0; /* an nlbd that does not know of it */
		set_config();
		assert_int_equal(run(&plain[i], &out), XDP_TX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocked_sources_are_dropped),
		cmocka_unit_test(block_ends_with_its_time),
		cmocka_unit_test(whole_networks_are_blocked),
		cmocka_unit_test(blocked_sources_are_dropped_whatever_they_send),
		cmocka_unit_test(only_allowed_sources_are_served),
		cmocka_unit_test(source_opens_a_burst_of_connections),
		cmocka_unit_test(ipv6_networks_are_sources_of_their_own),
		cmocka_unit_test(limits_of_two_vips_are_apart),
		cmocka_unit_test(limit_needs_its_flag),
		cmocka_unit_test(interval_earns_another_connection),
		cmocka_unit_test(refusals_are_not_charged),
		cmocka_unit_test(udp_flows_count_as_connections),
		cmocka_unit_test(full_bucket_forgets_who_is_paid_up),
		cmocka_unit_test(other_addresses_are_passed_by_their_bit),
	};

	return cmocka_run_group_tests_name("nlb_filter", tests, load_group, unload_group);
}
