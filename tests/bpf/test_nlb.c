/* SPDX-License-Identifier: Apache-2.0 */
/* The forwarding program, packet by packet, through BPF_PROG_TEST_RUN. */
#include "bpf/nlb_abi.h"
#include "nlb.skel.h"
#include "tests/bpf/packets.h"

#include <sys/mman.h>

enum { LOOPBACK = 1 }; /* test runs come in on it */
enum { GW_A = 1, GW_B = 2, GW_C = 3 };
enum { VIP_IPIP = 0, VIP_GUE = 1, VIP_L2 = 2 };

#define CLIENT     IP(198, 51, 100, 7)
#define NLB        IP(10, 0, 0, 2)
#define VIP(n)     IP(203, 0, 113, 10 + (n))
#define GATEWAY(n) IP(10, 0, 0, 20 + (n))

static struct nlb_bpf *skel;
static int load_error;
static struct nlb_config conf;

static const uint8_t *gateway_mac(uint32_t id)
{
	static uint8_t mac[6];

	memcpy(mac, (const uint8_t[]) { 2, 0, 0, 0, 1, (uint8_t)id }, 6);
	return mac;
}

static void set_config(void)
{
	uint32_t zero = 0;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.config), &zero, &conf, BPF_ANY),
			 0);
}

static void set_gateway(uint32_t id, uint8_t flags, uint16_t generation, uint16_t mtu)
{
	struct nlb_gateway gw = { .ifindex = LOOPBACK,
				  .generation = generation,
				  .mtu = mtu,
				  .family = 4,
				  .flags = flags };
	uint32_t address = htonl(GATEWAY(id));

	memcpy(gw.address, &address, 4);
	memcpy(gw.next_hop_mac, gateway_mac(id), 6);
	memcpy(gw.source_mac, MAC_NLB, 6);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.gateways), &id, &gw, BPF_ANY),
			 0);
}

static void set_vip(uint32_t address, uint16_t port, uint8_t protocol, uint16_t id, uint8_t encap)
{
	struct nlb_vip4_key key = { .address = htonl(address),
				    .port = htons(port),
				    .protocol = protocol };
	struct nlb_vip vip = { .id = id, .encap = encap };

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.vips4), &key, &vip, BPF_ANY),
			 0);
}

static void set_ring(uint32_t id, struct nlb_slot slot)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ring", 4, sizeof(slot), NLB_RING_SLOTS, &opts);
	struct nlb_slot *slots;
	size_t size = NLB_RING_SLOTS * sizeof(slot);

	assert_true(fd >= 0);
	slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(slots != MAP_FAILED);
	for (uint32_t i = 0; i < NLB_RING_SLOTS; i++)
		slots[i] = slot;
	munmap(slots, size);
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.rings), &id, &fd, BPF_ANY), 0);
	close(fd);
}

static void set_slot(uint32_t id, uint32_t index, struct nlb_slot slot)
{
	uint32_t inner_id;
	int fd;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.rings), &id, &inner_id), 0);
	fd = bpf_map_get_fd_by_id(inner_id);
	assert_true(fd >= 0);
	assert_int_equal(bpf_map_update_elem(fd, &index, &slot, BPF_ANY), 0);
	close(fd);
}

static int load_group(void **state)
{
	int cpus = libbpf_num_possible_cpus();

	(void)state;
	libbpf_set_print(silent);
	skel = nlb_bpf__open();
	if (!skel)
		return -1;
	bpf_map__set_max_entries(skel->maps.flows, (uint32_t)cpus * 64);
	load_error = nlb_bpf__load(skel);
	if (load_error && !is_missing_right(load_error)) {
		print_error("loading the program: %s\n", strerror(-load_error));
		return -1;
	}
	if (!load_error)
		stay_on_this_cpu();
	return 0;
}

static int unload_group(void **state)
{
	(void)state;
	nlb_bpf__destroy(skel);
	return 0;
}

/* Every test starts from the same world, whatever the one before did. */
static void fresh_world(void)
{
	struct nlb_flow_bucket empty = { 0 };
	uint32_t n;

	if (load_error) {
		print_message("SKIP: loading BPF programs needs root or CAP_BPF: %s\n",
			      strerror(-load_error));
		skip();
	}

	conf = (struct nlb_config) { .flow_bucket_mask = 63,
				     .new_flows_per_tick = UINT32_MAX,
				     .hz = 250,
				     .flow_regions = NLB_FLOW_REGIONS,
				     .flags = NLB_CONFIG_READY };
	for (uint32_t i = 0; i < NLB_HASH_KEYS; i++)
		conf.hash_key[i] = 0x9e3779b97f4a7c15ULL * (2 * i + 1) | 1;
	conf.source[0][0] = 10;
	conf.source[0][3] = 2;
	set_config();

	for (uint32_t id = GW_A; id <= GW_C; id++)
		set_gateway(id, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, 1500);
	for (uint32_t v = VIP_IPIP; v <= VIP_L2; v++) {
		set_vip(VIP(v), 443, IPPROTO_TCP, (uint16_t)v, (uint8_t)(NLB_ENCAP_IPIP + v));
		set_vip(VIP(v), 0, 0, (uint16_t)v, 0);
		set_ring(v, (struct nlb_slot) { .gateway = GW_A });
	}
	n = bpf_map__max_entries(skel->maps.flows);
	for (uint32_t i = 0; i < n; i++)
		bpf_map_update_elem(bpf_map__fd(skel->maps.flows), &i, &empty, BPF_ANY);
}

/* --- what the tests say ---------------------------------------------------------------------- */

struct tcp_packet {
	uint32_t vip, sport, dport, flags, payload_len, options_len, vlan_tags, padding;
	uint32_t source;
	uint16_t frag;
	uint8_t tos;
};

static void put_link(struct bytes *p, const uint8_t *to, const uint8_t *from, uint32_t tags)
{
	put_ethernet(p, to, from, tags == 2 ? 0x88a8 : tags == 1 ? 0x8100 : 0x0800);
	for (uint32_t i = tags; i > 0; i--) {
		put16(p, 100 + i);
		put16(p, i > 1 ? 0x8100 : 0x0800);
	}
}

static void put_inner(struct bytes *p, const struct tcp_packet *t)
{
	struct ipv4_options ip = { .source = t->source ? t->source : CLIENT,
				   .destination = VIP(t->vip),
				   .protocol = IPPROTO_TCP,
				   .ttl = 61,
				   .id = 0x1234,
				   .tos = t->tos,
				   .frag = t->frag ? t->frag : 0x4000,
				   .options_len = t->options_len };

	put_ipv4(p, &ip, 20 + t->payload_len);
	put_tcp(p, t->sport ? t->sport : 40000, t->dport ? t->dport : 443,
		t->flags ? t->flags : TCP_ACK);
	for (uint32_t i = 0; i < t->payload_len; i++)
		put8(p, i);
}

static struct bytes *frame(const struct tcp_packet *t)
{
	static struct bytes p;

	p.len = 0;
	put_link(&p, MAC_NLB, MAC_ROUTER, t->vlan_tags);
	put_inner(&p, t);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&p, 0);
	return &p;
}

static uint32_t run(const struct tcp_packet *t, struct bytes *out)
{
	return run_program(bpf_program__fd(skel->progs.nlb), frame(t), out);
}

static uint64_t hash_of(const struct tcp_packet *t)
{
	uint16_t ports[2] = { htons((uint16_t)(t->sport ? t->sport : 40000)),
			      htons((uint16_t)(t->dport ? t->dport : 443)) };
	uint32_t both;

	memcpy(&both, ports, 4);
	return nlb_hash4(conf.hash_key, htonl(t->source ? t->source : CLIENT), htonl(VIP(t->vip)),
			 both, IPPROTO_TCP);
}

/* The frame that has to come out: `hops` of them named in the GUE header. */
static struct bytes *encapsulated(const struct tcp_packet *t, uint32_t gateway,
				  const uint32_t *hops, uint32_t hop_count)
{
	static struct bytes p;
	uint32_t inner_len = 20 + t->options_len + 20 + t->payload_len;
	struct ipv4_options outer = { .source = NLB,
				      .destination = GATEWAY(gateway),
				      .ttl = 64,
				      .frag = 0x4000,
				      .tos = t->tos };

	p.len = 0;
	put_link(&p, gateway_mac(gateway), MAC_NLB, t->vlan_tags);
	if (t->vip == VIP_IPIP) {
		outer.protocol = IPPROTO_IPIP;
		put_ipv4(&p, &outer, inner_len);
	} else if (t->vip == VIP_GUE) {
		uint32_t gue_len = 4 + (hop_count ? 4 + 4 * hop_count : 0);

		outer.protocol = IPPROTO_UDP;
		put_ipv4(&p, &outer, 8 + gue_len + inner_len);
		put16(&p, 0xc000 + ((hash_of(t) >> 8) & 0x3fff));
		put16(&p, 6080);
		put16(&p, 8 + gue_len + inner_len);
		put16(&p, 0);
		put8(&p, (gue_len - 4) / 4);
		put8(&p, IPPROTO_IPIP);
		put16(&p, 0);
		if (hop_count) {
			put8(&p, 1);
			put8(&p, 0);
			put8(&p, hop_count);
			put8(&p, 4);
			for (uint32_t i = 0; i < hop_count; i++)
				put32(&p, GATEWAY(hops[i]));
		}
	}
	put_inner(&p, t);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&p, 0);
	return &p;
}

static uint64_t reason_count(uint32_t reason)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.reasons), reason, 0, sizeof(uint64_t));
}

static uint64_t all_reasons(void)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < NLB_REASON_COUNT; r++)
		sum += reason_count(r);
	return sum;
}

static uint64_t stat(uint32_t gateway, size_t offset)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.gateway_stats), gateway, offset,
			      sizeof(struct nlb_gateway_stats));
}
#define STAT(gateway, field) stat(gateway, offsetof(struct nlb_gateway_stats, field))

/* The packet ends here, for this one reason, and nothing of it is changed. */
static void assert_ends(const struct bytes *in, uint32_t reason, uint32_t action, const char *why)
{
	struct bytes copy = *in;
	uint64_t before = reason_count(reason), all = all_reasons();
	struct bytes out;
	uint32_t got = run_program(bpf_program__fd(skel->progs.nlb), &copy, &out);

	if (got != action)
		fail_msg("%s: action %u, want %u", why, got, action);
	if (reason_count(reason) != before + 1 || all_reasons() != all + 1)
		fail_msg("%s: not counted under its one reason (%" PRIu64 " -> %" PRIu64
			 ", all %" PRIu64 " -> %" PRIu64 ")",
			 why, before, reason_count(reason), all, all_reasons());
	assert_bytes(&out, in, why);
}

static uint32_t gateway_of(const struct bytes *out)
{
	return out->b[5]; /* last byte of the next hop's MAC address */
}

/* --- encapsulation --------------------------------------------------------------------------- */

static void encapsulates_byte_for_byte(void **state)
{
	static const struct {
		struct tcp_packet packet;
		const char *what;
	} cases[] = {
		{ { .vip = VIP_IPIP }, "plain acknowledgement" },
		{ { .vip = VIP_IPIP, .flags = TCP_SYN }, "first packet" },
		{ { .vip = VIP_IPIP, .payload_len = 1 }, "odd length" },
		{ { .vip = VIP_IPIP, .payload_len = 1400 }, "large" },
		{ { .vip = VIP_IPIP, .options_len = 4 }, "IP options" },
		{ { .vip = VIP_IPIP, .options_len = 40 }, "as many IP options as there can be" },
		{ { .vip = VIP_IPIP, .tos = 0xb9 }, "traffic class and congestion bits" },
		{ { .vip = VIP_IPIP, .vlan_tags = 1 }, "VLAN tag" },
		{ { .vip = VIP_IPIP, .vlan_tags = 2, .payload_len = 33 }, "two VLAN tags" },
		{ { .vip = VIP_IPIP, .padding = 6 }, "Ethernet padding stays outside" },
		{ { .vip = VIP_GUE }, "GUE" },
		{ { .vip = VIP_GUE, .flags = TCP_SYN, .tos = 0x2e }, "GUE, first packet" },
		{ { .vip = VIP_GUE, .payload_len = 1399, .vlan_tags = 1 }, "GUE, VLAN" },
		{ { .vip = VIP_GUE, .vlan_tags = 2, .options_len = 8 }, "GUE, two VLANs, options" },
		{ { .vip = VIP_L2, .payload_len = 5 }, "same segment" },
		{ { .vip = VIP_L2, .vlan_tags = 1 }, "same segment, VLAN" },
	};
	struct bytes out;

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ended = all_reasons();
		uint32_t action = run(&cases[i].packet, &out);

		if (action != XDP_TX)
			fail_msg("%s: action %u", cases[i].what, action);
		assert_bytes(&out, encapsulated(&cases[i].packet, GW_A, NULL, 0), cases[i].what);
		assert_int_equal(all_reasons(), ended);
	}
}

static void names_second_choices_in_the_gue_header(void **state)
{
	struct tcp_packet t = { .vip = VIP_GUE, .payload_len = 3 };
	struct bytes out;

	(void)state;
	fresh_world();
	set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B, .earlier = { GW_A, GW_C } });
	assert_int_equal(run(&t, &out), XDP_TX);
	assert_bytes(&out, encapsulated(&t, GW_B, (const uint32_t[]) { GW_A, GW_C }, 2), "two");

	set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B, .earlier = { GW_C } });
	assert_int_equal(run(&t, &out), XDP_TX);
	assert_bytes(&out, encapsulated(&t, GW_B, (const uint32_t[]) { GW_C }, 1), "one");

	/* One that is gone is not named; the next moves up. */
	set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B, .earlier = { GW_A, GW_C } });
	set_gateway(GW_A, NLB_GATEWAY_RESOLVED, 1, 1500);
	assert_int_equal(run(&t, &out), XDP_TX);
	assert_bytes(&out, encapsulated(&t, GW_B, (const uint32_t[]) { GW_C }, 1), "one");

	/* A new connection belongs to nobody else. */
	t.flags = TCP_SYN;
	assert_int_equal(run(&t, &out), XDP_TX);
	assert_bytes(&out, encapsulated(&t, GW_B, NULL, 0), "SYN");
}

static void varies_the_source_by_flow_where_allowed(void **state)
{
	bool seen[256] = { false };
	uint32_t distinct = 0;
	struct bytes out, again;

	(void)state;
	fresh_world();
	conf.source[0][3] = 0;
	conf.source_vary[0] = htonl(0xff);
	set_config();
	for (uint32_t port = 1024; port < 1324; port++) {
		struct tcp_packet t = { .vip = VIP_IPIP, .sport = port };

		assert_int_equal(run(&t, &out), XDP_TX);
		assert_memory_equal(out.b + 26, ((const uint8_t[]) { 10, 0, 0 }), 3);
		assert_int_equal(checksum(out.b + 14, 20), 0);
		distinct += !seen[out.b[29]];
		seen[out.b[29]] = true;
		run(&t, &again);
		assert_int_equal(again.b[29], out.b[29]); /* one flow, one path */
	}
	assert_true(distinct > 100);
}

/* --- where packets go ------------------------------------------------------------------------ */

static void takes_the_slot_that_the_hash_names(void **state)
{
	struct bytes out;

	(void)state;
	fresh_world();
	for (uint32_t port = 2000; port < 2200; port++) {
		struct tcp_packet t = { .vip = VIP_IPIP, .sport = port };

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

	(void)state;
	conf.hash_key[0] = 1;
	for (uint32_t i = 0; i < NLB_HASH_KEYS; i++)
		conf.hash_key[i] = 0x9e3779b97f4a7c15ULL * (2 * i + 1) | 1;
	/* One client after the other, one port after the other: what real traffic looks like. */
	for (uint32_t i = 0; i < FLOWS; i++) {
		struct tcp_packet t = { .sport = 32768 + i % 100, .source = CLIENT + i / 100 };

		hits[nlb_hash_slot(hash_of(&t)) * PARTS / NLB_RING_SLOTS]++;
	}
	/* Six standard deviations of a fair draw. */
	for (uint32_t i = 0; i < PARTS; i++)
		assert_in_range(hits[i], FLOWS / PARTS - 208, FLOWS / PARTS + 208);
}

static void established_connection_stays_when_its_slot_moves(void **state)
{
	struct tcp_packet syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_IPIP, .payload_len = 10 };
	struct tcp_packet other = { .vip = VIP_IPIP, .sport = 40001 };
	uint64_t hits, misses;
	struct bytes out;

	(void)state;
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
	struct tcp_packet syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_IPIP };
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
	struct tcp_packet syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_IPIP };
	uint64_t hits, misses;
	struct bytes out;

	(void)state;
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
	struct tcp_packet syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_IPIP };
	uint64_t connections;
	struct bytes out;

	(void)state;
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
	struct tcp_packet syn = { .vip = VIP_IPIP, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_IPIP };
	struct bytes out;

	(void)state;
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
	struct tcp_packet data = { .vip = VIP_IPIP };
	struct bytes out;

	(void)state;
	fresh_world();
	conf.flow_bucket_mask = 0; /* all flows of a CPU meet in one bucket */
	set_config();
	for (uint32_t i = 0; i < NLB_FLOW_WAYS; i++) {
		run(&(struct tcp_packet) { .vip = VIP_IPIP, .sport = 3000 + i, .flags = TCP_SYN },
		    &out);
		usleep(12000); /* more than a tick at 100 Hz */
	}
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	data.sport = 3000; /* the oldest is used again ... */
	run(&data, &out);
	assert_int_equal(gateway_of(&out), GW_A);
	run(&(struct tcp_packet) { .vip = VIP_IPIP, .sport = 3100, .flags = TCP_SYN }, &out);

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

	(void)state;
	fresh_world();
	conf.new_flows_per_tick = 0;
	set_config();
	unrecorded = STAT(GW_A, unrecorded);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(run(&(struct tcp_packet) { .vip = VIP_IPIP,
							    .sport = 5000 + i,
							    .flags = TCP_SYN },
				     &out),
				 XDP_TX);
	assert_int_equal(STAT(GW_A, unrecorded), unrecorded + 10);
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&(struct tcp_packet) { .vip = VIP_IPIP, .sport = 5000 }, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void counts_packets_bytes_and_connections_per_gateway(void **state)
{
	struct tcp_packet syn = { .vip = VIP_GUE, .flags = TCP_SYN };
	struct tcp_packet data = { .vip = VIP_GUE, .payload_len = 100, .padding = 4 };
	uint64_t packets, bytes, connections;
	struct bytes out;

	(void)state;
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

	(void)state;
	fresh_world();
	connections = STAT(GW_A, connections);
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		assert_int_equal(
			run(&(struct tcp_packet) { .vip = VIP_IPIP, .flags = flags[i] }, &out),
			XDP_TX);
	assert_int_equal(STAT(GW_A, connections), connections);

	/* ... so nothing was written down either. */
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_B, .flags = NLB_SLOT_MOVED });
	run(&(struct tcp_packet) { .vip = VIP_IPIP }, &out);
	assert_int_equal(gateway_of(&out), GW_B);
}

static void vip_of_any_port_takes_what_has_no_port_of_its_own(void **state)
{
	struct bytes out;

	(void)state;
	fresh_world();
	set_vip(VIP(VIP_IPIP), 0, IPPROTO_TCP, VIP_GUE, NLB_ENCAP_IPIP);
	set_ring(VIP_GUE, (struct nlb_slot) { .gateway = GW_B });
	conf.flags |= NLB_CONFIG_ANY_PORT;
	set_config();
	assert_int_equal(run(&(struct tcp_packet) { .vip = VIP_IPIP, .dport = 22 }, &out), XDP_TX);
	assert_int_equal(gateway_of(&out), GW_B);
	assert_int_equal(run(&(struct tcp_packet) { .vip = VIP_IPIP }, &out), XDP_TX);
	assert_int_equal(gateway_of(&out), GW_A);

	struct nlb_vip4_key any = { .address = htonl(VIP(VIP_IPIP)), .protocol = IPPROTO_TCP };

	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(skel->maps.vips4), &any), 0);
}

/* --- where packets end ----------------------------------------------------------------------- */

static void leaves_everything_else_to_the_kernel(void **state)
{
	struct bytes p = { .len = 0 };
	struct ipv4_options icmp = {
		.source = CLIENT, .destination = VIP(0), .protocol = IPPROTO_ICMP, .ttl = 9
	};
	struct tcp_packet elsewhere = { .vip = 90 };

	(void)state;
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
	(void)state;
	fresh_world();
	assert_ends(frame(&(struct tcp_packet) { .dport = 22 }), NLB_REASON_NO_SERVICE, XDP_DROP,
		    "other port");
	assert_ends(frame(&(struct tcp_packet) { .frag = 0x0010 }), NLB_REASON_FRAGMENT, XDP_DROP,
		    "later fragment");
	assert_ends(frame(&(struct tcp_packet) { .source = VIP(0) }), NLB_REASON_SPOOFED, XDP_DROP,
		    "from the VIP itself");

	set_ring(VIP_IPIP, (struct nlb_slot) { 0 });
	assert_ends(frame(&(struct tcp_packet) { 0 }), NLB_REASON_NO_GATEWAY, XDP_DROP,
		    "empty ring");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = NLB_MAX_GATEWAYS });
	assert_ends(frame(&(struct tcp_packet) { 0 }), NLB_REASON_NO_GATEWAY, XDP_DROP,
		    "impossible gateway");
	set_ring(VIP_IPIP, (struct nlb_slot) { .gateway = GW_A });
	set_gateway(GW_A, NLB_GATEWAY_USABLE, 1, 1500);
	assert_ends(frame(&(struct tcp_packet) { 0 }), NLB_REASON_NO_NEIGHBOUR, XDP_DROP,
		    "no MAC address");

	conf.flags = 0;
	set_config();
	assert_ends(frame(&(struct tcp_packet) { 0 }), NLB_REASON_NO_CONFIG, XDP_PASS,
		    "not configured");
}

static void drops_what_would_not_fit_the_path(void **state)
{
	static const struct {
		uint32_t vip, fits;
	} cases[] = { { VIP_IPIP, 1500 - 20 - 40 }, { VIP_GUE, 1500 - 20 - 8 - 4 - 40 } };
	struct bytes out;

	(void)state;
	fresh_world();
	for (size_t i = 0; i < 2; i++) {
		struct tcp_packet t = { .vip = cases[i].vip, .payload_len = cases[i].fits };

		assert_int_equal(run(&t, &out), XDP_TX);
		assert_int_equal(out.len, 14 + 1500);
		t.payload_len++;
		t.frag = 0x8000; /* a reserved bit, so that "don't fragment" is not set */
		assert_ends(frame(&t), NLB_REASON_TOO_BIG, XDP_DROP, "one byte too many");
	}
}

static void drops_impossible_headers(void **state)
{
	static const struct {
		uint32_t at, value; /* byte of the frame to falsify */
		uint32_t reason;
		const char *why;
	} cases[] = {
		{ 14, 0x55, NLB_REASON_MALFORMED, "version 5" },
		{ 14, 0x05, NLB_REASON_MALFORMED, "version 0" },
		{ 14, 0x44, NLB_REASON_MALFORMED, "IP header shorter than an IP header" },
		{ 14, 0x40, NLB_REASON_MALFORMED, "no IP header length" },
		{ 14, 0x4f, NLB_REASON_TRUNCATED, "IP header longer than the packet" },
		{ 17, 19, NLB_REASON_TRUNCATED, "total length shorter than the IP header" },
		{ 17, 20, NLB_REASON_TRUNCATED, "no room for TCP" },
		{ 17, 39, NLB_REASON_TRUNCATED, "TCP header cut by the total length" },
		{ 17, 41, NLB_REASON_TRUNCATED, "total length longer than the frame" },
		{ 16, 0xff, NLB_REASON_TRUNCATED, "total length far longer than the frame" },
		{ 46, 0x40, NLB_REASON_MALFORMED, "TCP header shorter than a TCP header" },
		{ 46, 0x00, NLB_REASON_MALFORMED, "no TCP header length" },
		{ 46, 0x60, NLB_REASON_TRUNCATED, "TCP options past the end" },
		{ 23, 47, NLB_REASON_NO_SERVICE, "a protocol that nobody serves" },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes p = *frame(&(struct tcp_packet) { .vip = VIP_IPIP });

		p.b[cases[i].at] = (uint8_t)cases[i].value;
		assert_ends(&p, cases[i].reason, XDP_DROP, cases[i].why);
	}
}

/* Cut at every byte: never forwarded, always counted once. */
static void survives_truncation_at_every_byte(void **state)
{
	static const struct tcp_packet shapes[] = {
		{ .vip = VIP_IPIP, .payload_len = 4 },
		{ .vip = VIP_GUE, .flags = TCP_SYN },
		{ .vip = VIP_IPIP, .options_len = 12 },
		{ .vip = VIP_IPIP, .vlan_tags = 1 },
		{ .vip = VIP_GUE, .vlan_tags = 2, .options_len = 40 },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct bytes whole = *frame(&shapes[i]);
		uint32_t l3 = 14 + 4 * shapes[i].vlan_tags;

		for (uint32_t len = 14; len < whole.len; len++) {
			struct bytes p = whole, out;
			uint64_t all = all_reasons();
			uint32_t action, want;

			p.len = len;
			memset(p.b + len, 0xee, sizeof(p.b) - len);
			action = run_program(bpf_program__fd(skel->progs.nlb), &p, &out);
			/* Before the destination is known the packet is none of our business. */
			want = len < l3 + 20 ? XDP_PASS : XDP_DROP;
			if (action != want || all_reasons() != all + 1)
				fail_msg("shape %zu cut to %u bytes: action %u", i, len, action);
			assert_int_equal(out.len, len);
		}
	}
}

static void metric_names_are_distinct(void **state)
{
#define NAME(id, name, verdict, help) name,
	static const char *const names[] = { NLB_REASONS(NAME) };

	(void)state;
	for (size_t i = 0; i < NLB_REASON_COUNT; i++) {
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encapsulates_byte_for_byte),
		cmocka_unit_test(names_second_choices_in_the_gue_header),
		cmocka_unit_test(varies_the_source_by_flow_where_allowed),
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
		cmocka_unit_test(leaves_everything_else_to_the_kernel),
		cmocka_unit_test(drops_what_cannot_be_served),
		cmocka_unit_test(drops_what_would_not_fit_the_path),
		cmocka_unit_test(drops_impossible_headers),
		cmocka_unit_test(survives_truncation_at_every_byte),
		cmocka_unit_test(metric_names_are_distinct),
	};

	return cmocka_run_group_tests_name("nlb", tests, load_group, unload_group);
}
