/* SPDX-License-Identifier: Apache-2.0 */
/* Which gateway a packet goes to: ring, flow table, counters. */
#include "tests/bpf/world.h"

static void takes_the_slot_that_the_hash_names(void **state)
{
	struct bytes out;

	fresh_world();
	for (uint32_t port = 2000; port < 2200; port++) {
		struct shape t = { .vip = VIP_IPIP, .sport = port };

		set_slot(VIP_IPIP, nlb_hash_slot(hash_of(&t)),
			 (struct nlb_slot) { .gateway = GW_C });
		assert_int_equal(run(&t, &out), XDP_TX);
		assert_int_equal(gateway_of(&out), GW_C);
	}
}

static void spreads_flows_over_all_slots(void **state)
{
	enum { FLOWS = 20000, PARTS = 16 };
	uint32_t hits[PARTS] = { 0 };

	set_hash_keys();
	/* One client after the other, one port after the other: what real traffic looks like. */
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct shape t = { .sport = 32768 + i % 100, .source = CLIENT + i / 100 };

		hits[nlb_hash_slot(hash_of(&t)) * PARTS / NLB_RING_SLOTS]++;
	}
	/* Six standard deviations of a fair draw. */
	for (uint32_t i = 0; i < PARTS; i++)
		assert_in_range(hits[i], FLOWS / PARTS - 208, FLOWS / PARTS + 208);
}

static void established_connection_stays_when_its_slot_moves(void **state)
{
	struct shape syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_IPIP, .payload_len = 10 };
	struct shape other = { .vip = VIP_IPIP, .sport = 40001 };
	uint64_t hits, misses;
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	assert_int_equal(gateway_of(&out), GW_A);

	set_ring(VIP_IPIP, (struct nlb_slot) {
				   .gateway = GW_B, .earlier = { GW_A }, .flags = NLB_SLOT_MOVED });
	hits = STAT(GW_A, flow_hits);
	misses = STAT(GW_B, flow_misses);
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	assert_int_equal(STAT(GW_A, flow_hits), hits + 1);

	/* A connection this balancer has not seen begin can only follow the ring. */
	run(&other, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	assert_int_equal(STAT(GW_B, flow_misses), misses + 1);
}

/* Receive queues are bound anew, or there are none: packets of one flow on several CPUs. */
static void flow_is_found_from_another_cpu(void **state)
{
	struct shape syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_IPIP };
	cpu_set_t was, other;
	struct bytes out;
	int cpu = -1;

	fresh_world();
	assert_int_equal(sched_getaffinity(0, sizeof(was), &was), 0);
	for (int i = 0; i < NLB_FLOW_REGIONS && cpu < 0; i++) {
		CPU_ZERO(&other);
		CPU_SET(i, &other);
		if (!CPU_ISSET(i, &was) && sched_setaffinity(0, sizeof(other), &other) == 0)
			cpu = i;
	}
	if (cpu < 0) {
		print_message("SKIP: needs a second CPU\n");
		skip();
	}
	run(&syn, &out);
	sched_setaffinity(0, sizeof(was), &was);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);

	/* Found once, it is known here too. */
	conf.flow_regions = 0;
	set_config();
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
}

static void stable_slot_needs_no_flow_table(void **state)
{
	struct shape syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_IPIP };
	uint64_t hits, misses;
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	hits = STAT(GW_B, flow_hits);
	misses = STAT(GW_B, flow_misses);
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	assert_int_equal(STAT(GW_B, flow_hits) + STAT(GW_B, flow_misses), hits + misses);
}

static void new_connection_never_trusts_an_old_entry(void **state)
{
	struct shape syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_IPIP };
	uint64_t connections;
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	connections = STAT(GW_B, connections);
	run(&syn, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	assert_int_equal(STAT(GW_B, connections), connections + 1);

	/* ... and replaces it. */
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_C, .flags = NLB_SLOT_MOVED });
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void connection_of_a_gateway_that_is_gone_follows_the_ring(void **state)
{
	struct shape syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_IPIP };
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });

	set_gateway(GW_A, NLB_GATEWAY_RESOLVED, 1, 1500);
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_B);

	/* The identifier was given to another gateway since. */
	set_gateway(GW_A, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 2, 1500);
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_B);

	set_gateway(GW_A, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, 1500);
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
}

static void full_bucket_gives_up_the_flow_unused_for_longest(void **state)
{
	struct shape data = { .vip = VIP_IPIP };
	struct bytes out;

	fresh_world();
	conf.flow_bucket_mask = 0; /* all flows of a CPU meet in one bucket */
	set_config();
	for (uint32_t i = 0; i < NLB_FLOW_WAYS; i++) {
		run(&(struct shape) { .vip = VIP_IPIP, .sport = 3000 + i, .flags = TCP_SYN }, &out);
		usleep(12000); /* more than a tick at 100 Hz */
	}
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	data.sport = 3000; /* the oldest is used again ... */
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	run(&(struct shape) { .vip = VIP_IPIP, .sport = 3100, .flags = TCP_SYN }, &out);

	for (uint32_t i = 0; i < NLB_FLOW_WAYS; i++) {
		data.sport = 3000 + i;
		run(&data, &out); /* ... so the second oldest made room */
		assert_int_equal(gateway_of(&out), i == 1 ? GW_B : GW_A);
	}
}

static void flood_of_new_connections_is_not_recorded(void **state)
{
	uint64_t unrecorded;
	struct bytes out;

	fresh_world();
	conf.new_flows_per_tick = 0;
	set_config();
	unrecorded = STAT(GW_A, unrecorded);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(run(&(struct shape) { .vip = VIP_IPIP,
						       .sport = 5000 + i,
						       .flags = TCP_SYN },
				     &out),
				 XDP_TX);
	assert_int_equal(STAT(GW_A, unrecorded), unrecorded + 10);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&(struct shape) { .vip = VIP_IPIP, .sport = 5000 }, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void counts_packets_bytes_and_connections_per_gateway(void **state)
{
	struct shape syn = { .vip = VIP_GUE, .flags = TCP_SYN };
	struct shape data = { .vip = VIP_GUE, .payload_len = 100, .padding = 4 };
	uint64_t packets, bytes, connections;
	struct bytes out;

	fresh_world();
	packets = STAT(GW_A, packets);
	bytes = STAT(GW_A, bytes);
	connections = STAT(GW_A, connections);
	run(&syn, &out);
	run(&data, &out);
	run(&data, &out);
	assert_int_equal(STAT(GW_A, packets), packets + 3);
	assert_int_equal(STAT(GW_A, bytes), bytes + 40 + 140 + 140);
	assert_int_equal(STAT(GW_A, connections), connections + 1);
}

static void only_a_bare_syn_begins_a_connection(void **state)
{
	static const uint32_t flags[] = { TCP_SYN | TCP_ACK, TCP_RST, TCP_FIN, TCP_FIN | TCP_ACK,
					  8 };
	uint64_t connections;
	struct bytes out;

	fresh_world();
	connections = STAT(GW_A, connections);
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		assert_int_equal(run(&(struct shape) { .vip = VIP_IPIP, .flags = flags[i] }, &out),
				 XDP_TX);
	assert_int_equal(STAT(GW_A, connections), connections);

	/* ... so nothing was written down either. */
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&(struct shape) { .vip = VIP_IPIP }, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void vip_of_any_port_takes_what_has_no_port_of_its_own(void **state)
{
	fresh_world();
	for (uint32_t i = 0; i < 4; i++) {
		struct nlb_vip vip = { .id = VIP_GUE, .encap = NLB_ENCAP_IPIP };
		struct shape s = { .is_ipv6 = i & 1, .is_udp = i & 2, .dport = 22 };
		struct bytes out;

		set_service(VIP_IPIP, 0, (uint8_t)shape_protocol(&s), &vip);
		set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B });
		conf.flags &= ~NLB_CONFIG_ANY_PORT;
		set_config();
		assert_ends(frame(&s), NLB_REASON_NO_SERVICE, XDP_DROP, "nobody said any port");
		conf.flags |= NLB_CONFIG_ANY_PORT;
		set_config();
		assert_int_equal(run(&s, &out), XDP_TX);
		assert_int_equal(gateway_of(&out), GW_B);
		s.dport = 443;
		assert_int_equal(run(&s, &out), XDP_TX);
		assert_int_equal(gateway_of(&out), GW_A);
		remove_service(VIP_IPIP, 0, (uint8_t)shape_protocol(&s));
		s.dport = 22;
		assert_ends(frame(&s), NLB_REASON_NO_SERVICE, XDP_DROP, "the other protocol only");
	}
}

/* --- IPv6 ------------------------------------------------------------------------------------ */

/* Whatever differs between two flows, of 256 of them at most a few share a slot. */
static void every_bit_of_an_ipv6_flow_counts(void **state)
{
	uint32_t words[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	uint64_t seen[8 * 32 + 1];
	uint32_t count = 0;

	fresh_world();
	seen[count++] = nlb_hash6(conf.hash_key, words, words + 4, 9, IPPROTO_TCP);
	for (uint32_t bit = 0; bit < 8 * 32; bit++) {
		words[bit / 32] ^= 1U << bit % 32;
		seen[count] = nlb_hash6(conf.hash_key, words, words + 4, 9, IPPROTO_TCP);
		words[bit / 32] ^= 1U << bit % 32;
		for (uint32_t i = 0; i < count; i++)
			assert_true(seen[i] != seen[count]);
		count++;
	}
	assert_true(nlb_hash6(conf.hash_key, words, words + 4, 9, IPPROTO_UDP) != seen[0]);
	assert_true(nlb_hash6(conf.hash_key, words, words + 4, 8, IPPROTO_TCP) != seen[0]);
}

static void ipv6_takes_the_slot_that_the_hash_names(void **state)
{
	struct bytes out;

	fresh_world();
	for (uint32_t port = 2000; port < 2100; port++) {
		struct shape s = { .vip = VIP_GUE6, .sport = port, .is_ipv6 = true };

		set_slot(VIP_GUE6, nlb_hash_slot(hash_of(&s)),
			 (struct nlb_slot) { .gateway = GW_C6 });
		assert_int_equal(run(&s, &out), XDP_TX);
		assert_int_equal(gateway_of(&out), GW_C6);
	}
}

static void ipv6_connection_stays_when_its_slot_moves(void **state)
{
	struct shape syn = { .flags = TCP_SYN, .is_ipv6 = true };
	struct shape data = { .payload_len = 10, .is_ipv6 = true };
	struct shape other = { .source = 8, .is_ipv6 = true };
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	run(&other, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

/* --- UDP ------------------------------------------------------------------------------------- */

/* Nothing marks a beginning, so the table is asked in stable slots too. */
static void udp_flow_stays_in_any_slot(void **state)
{
	struct shape s = { .is_udp = true };
	uint64_t connections, hits, misses;
	struct bytes out;

	fresh_world();
	for (uint32_t i = 0; i < 2; i++) {
		s.is_ipv6 = i;
		set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
		connections = STAT(GW_A, connections);
		hits = STAT(GW_A, flow_hits);
		misses = STAT(GW_A, flow_misses);
		run(&s, &out);
		assert_int_equal(gateway_of(&out), GW_A);
		assert_int_equal(STAT(GW_A, connections), connections + 1);
		assert_int_equal(STAT(GW_A, flow_misses), misses + 1);

		set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
		run(&s, &out);
		assert_int_equal(gateway_of(&out), GW_A);
		set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
		run(&s, &out);
		assert_int_equal(gateway_of(&out), GW_A);
		assert_int_equal(STAT(GW_A, connections), connections + 1);
		assert_int_equal(STAT(GW_A, flow_hits), hits + 2);
	}
}

/* Sets when every entry of the table was last used. */
static void age_flows(uint32_t ticks_ago)
{
	uint32_t n = bpf_map__max_entries(skel->maps.flows), now = (uint32_t)ticks();
	struct nlb_flow_bucket bucket;

	for (uint32_t i = 0; i < n; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.flows), &i, &bucket);
		for (uint32_t w = 0; w < NLB_FLOW_WAYS; w++)
			bucket.way[w].used = now - ticks_ago;
		map_set(skel->maps.flows, &i, &bucket);
	}
}

static void udp_flow_is_forgotten_after_its_time(void **state)
{
	struct shape s = { .is_udp = true };
	struct bytes out;

	fresh_world();
	conf.udp_timeout = 100000;
	set_config();
	run(&s, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	age_flows(90000);
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	age_flows(90000); /* it was used since, or it would be too old in a moment */
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	age_flows(100100);
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_C });
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B); /* ... and was recorded anew */
}

static void using_a_flow_keeps_it_young(void **state)
{
	struct shape s = { .is_udp = true };
	struct nlb_flow_bucket bucket;
	struct bytes out;
	bool is_young = false;
	uint32_t n;

	fresh_world();
	conf.udp_timeout = 100000;
	set_config();
	run(&s, &out);
	age_flows(90000);
	run(&s, &out);
	n = bpf_map__max_entries(skel->maps.flows);
	for (uint32_t i = 0; i < n; i++) {
		bpf_map_lookup_elem(bpf_map__fd(skel->maps.flows), &i, &bucket);
		for (uint32_t w = 0; w < NLB_FLOW_WAYS; w++)
			is_young |= bucket.way[w].tag &&
				    (uint32_t)ticks() - bucket.way[w].used < 9000;
	}
	assert_true(is_young);
}

static void tcp_connection_is_never_too_old(void **state)
{
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;

	fresh_world();
	run(&s, &out);
	age_flows(10000000);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	s.flags = TCP_ACK;
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_A);
}

static void udp_flood_is_not_recorded(void **state)
{
	struct shape s = { .is_udp = true };
	uint64_t unrecorded;
	struct bytes out;

	fresh_world();
	conf.new_flows_per_tick = 0;
	set_config();
	unrecorded = STAT(GW_A, unrecorded);
	run(&s, &out);
	assert_int_equal(STAT(GW_A, unrecorded), unrecorded + 1);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void udp_flow_of_a_gateway_that_is_gone_follows_the_ring(void **state)
{
	struct shape s = { .is_udp = true };
	struct bytes out;

	fresh_world();
	run(&s, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B });
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED, 1, MTU);
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED | NLB_GATEWAY_USABLE, 1, MTU);
	run(&s, &out);
	assert_int_equal(gateway_of(&out), GW_B); /* where it has gone since */
}

/* TCP and UDP of the same ports are two flows. */
static void protocols_have_flows_of_their_own(void **state)
{
	struct shape syn = { .flags = TCP_SYN }, udp = { .is_udp = true };
	struct bytes out;

	fresh_world();
	run(&syn, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&udp, &out);
	assert_int_equal(gateway_of(&out), GW_B);
	syn.flags = TCP_ACK;
	run(&syn, &out);
	assert_int_equal(gateway_of(&out), GW_A);
}

/* --- nobody is there ------------------------------------------------------------------------- */

/* Whatever came before, an empty pool gets nothing to an old gateway. */
static void empty_pool_drops_everything(void **state)
{
	static const uint32_t flags[] = { TCP_SYN, TCP_ACK, TCP_RST, TCP_RST | TCP_ACK, TCP_FIN };
	struct bytes out;

	fresh_world();
	for (uint32_t moved = 0; moved < 2; moved++) {
		for (uint32_t i = 0; i < 4 * sizeof(flags) / sizeof(flags[0]); i++) {
			struct shape s = { .is_ipv6 = i & 1, .is_udp = i & 2, .flags = TCP_SYN };

			set_gateway(GW_A, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, MTU);
			set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
			assert_int_equal(run(&s, &out), XDP_TX);
			set_gateway(GW_A, 0, 1, MTU);
			set_ring(VIP_IPIP,
				 (struct nlb_slot) { .earlier = { GW_A, GW_B },
						     .flags = moved ? NLB_SLOT_MOVED : 0 });
			s.flags = flags[i / 4];
			assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "empty pool");
		}
	}
}

/* All are draining: who has a connection keeps it, others are turned away. */
static void draining_gateway_keeps_its_connections_and_gets_no_others(void **state)
{
	struct shape s = { .flags = TCP_SYN };
	struct bytes out;

	fresh_world();
	run(&s, &out);
	set_ring(VIP_IPIP, (struct nlb_slot) { .earlier = { GW_A }, .flags = NLB_SLOT_MOVED });
	s.flags = TCP_ACK;
	assert_sent(frame(&s), encapsulated(&s, GW_A, NULL, 0), GW_A, "established");
	s.flags = TCP_SYN;
	assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "new");
}

/* ... also those that began at another balancer: the latest owner is asked, then the next one. */
static void unknown_connection_goes_to_the_latest_owner_when_all_drain(void **state)
{
	fresh_world();
	for (uint32_t moved = 0; moved < 2; moved++) {
		struct nlb_slot slot = { .earlier = { GW_A, GW_B },
					 .flags = moved ? NLB_SLOT_MOVED : 0 };
		struct shape s = { .vip = VIP_GUE, .flags = TCP_ACK };

		set_ring(VIP_GUE, slot);
		assert_sent(frame(&s), encapsulated(&s, GW_A, (const uint32_t[]) { GW_B }, 1), GW_A,
			    "established");
		s.flags = TCP_RST;
		assert_sent(frame(&s), encapsulated(&s, GW_A, (const uint32_t[]) { GW_B }, 1), GW_A,
			    "RST");
		s.flags = TCP_SYN;
		assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "SYN");
		s.is_udp = true;
		assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "UDP");

		/* Who serves no longer cannot go on with it. */
		s = (struct shape) { .vip = VIP_GUE, .flags = TCP_ACK };
		set_gateway(GW_A, NLB_GATEWAY_RESOLVED, 1, MTU);
		assert_ends(frame(&s), NLB_REASON_NO_GATEWAY, XDP_DROP, "gone");
		set_gateway(GW_A, NLB_GATEWAY_RESOLVED | NLB_GATEWAY_USABLE, 1, MTU);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_the_slot_that_the_hash_names),
		cmocka_unit_test(spreads_flows_over_all_slots),
		cmocka_unit_test(established_connection_stays_when_its_slot_moves),
		cmocka_unit_test(flow_is_found_from_another_cpu),
		cmocka_unit_test(stable_slot_needs_no_flow_table),
		cmocka_unit_test(new_connection_never_trusts_an_old_entry),
		cmocka_unit_test(connection_of_a_gateway_that_is_gone_follows_the_ring),
		cmocka_unit_test(full_bucket_gives_up_the_flow_unused_for_longest),
		cmocka_unit_test(flood_of_new_connections_is_not_recorded),
		cmocka_unit_test(counts_packets_bytes_and_connections_per_gateway),
		cmocka_unit_test(only_a_bare_syn_begins_a_connection),
		cmocka_unit_test(vip_of_any_port_takes_what_has_no_port_of_its_own),
		cmocka_unit_test(every_bit_of_an_ipv6_flow_counts),
		cmocka_unit_test(ipv6_takes_the_slot_that_the_hash_names),
		cmocka_unit_test(ipv6_connection_stays_when_its_slot_moves),
		cmocka_unit_test(udp_flow_stays_in_any_slot),
		cmocka_unit_test(udp_flow_is_forgotten_after_its_time),
		cmocka_unit_test(using_a_flow_keeps_it_young),
		cmocka_unit_test(tcp_connection_is_never_too_old),
		cmocka_unit_test(udp_flood_is_not_recorded),
		cmocka_unit_test(udp_flow_of_a_gateway_that_is_gone_follows_the_ring),
		cmocka_unit_test(protocols_have_flows_of_their_own),
		cmocka_unit_test(empty_pool_drops_everything),
		cmocka_unit_test(draining_gateway_keeps_its_connections_and_gets_no_others),
		cmocka_unit_test(unknown_connection_goes_to_the_latest_owner_when_all_drain),
	};

	return cmocka_run_group_tests_name("nlb_flow", tests, load_group, unload_group);
}
