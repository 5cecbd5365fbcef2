/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small world around the forwarding program, the same before every test: six virtual IPs (three
 * encapsulations, gateways of either family) with an IPv4 and an IPv6 address and TCP and UDP on
 * port 443 each, and six gateways. Client packets are described by a `struct shape`; what has to
 * come out is put together from the same shape, without the headers under test.
 */
#pragma once

#include "bpf/nlb_abi.h"
#include "nlb.skel.h"
#include "tests/bpf/packets.h"

#include <sys/mman.h>

enum { LOOPBACK = 1 }; /* test runs come in on it */
enum { GW_A = 1, GW_B = 2, GW_C = 3, GW_A6 = 4, GW_B6 = 5, GW_C6 = 6 };
enum { VIP_IPIP, VIP_GUE, VIP_L2, VIP_IPIP6, VIP_GUE6, VIP_L2_6, VIPS };
enum { MTU = 1500 };

#define CLIENT     IP(198, 51, 100, 7)
#define NLB        IP(10, 0, 0, 2)
#define VIP(n)     IP(203, 0, 113, 10 + (n))
#define GATEWAY(n) IP(10, 0, 0, 20 + (n))

/* IPv6 addresses: a network for each role, and a number in it. */
enum network { NET_CLIENT = 0x100, NET_VIP = 0x200, NET_GATEWAY = 0x300, NET_NLB = 0x400 };

struct ip6 {
	uint8_t b[16];
};

static inline struct ip6 ip6(enum network net, uint32_t n)
{
	struct ip6 a = { { 0x20, 0x01, 0x0d, 0xb8, (uint8_t)(net >> 8) } };

	a.b[12] = (uint8_t)(n >> 24);
	a.b[13] = (uint8_t)(n >> 16);
	a.b[14] = (uint8_t)(n >> 8);
	a.b[15] = (uint8_t)n;
	return a;
}

static struct nlb_bpf *skel;
static int load_error;
static struct nlb_config conf;

/* --- the maps -------------------------------------------------------------------------------- */

static inline void map_set(const struct bpf_map *map, const void *key, const void *value)
{
	assert_int_equal(bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY), 0);
}

static inline void set_config(void)
{
	uint32_t zero = 0;

	map_set(skel->maps.config, &zero, &conf);
}

static inline const uint8_t *gateway_mac(uint32_t id)
{
	static uint8_t mac[6];

	memcpy(mac, (const uint8_t[]) { 2, 0, 0, 0, 1, (uint8_t)id }, 6);
	return mac;
}

static inline bool is_gateway6(uint32_t id)
{
	return id >= GW_A6;
}

/* Its usual entry, to be changed and written. */
static inline struct nlb_gateway gateway_entry(uint32_t id)
{
	struct nlb_gateway gw = { .ifindex = LOOPBACK,
				  .generation = 1,
				  .mtu = MTU,
				  .family = is_gateway6(id) ? 6 : 4,
				  .flags = NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED,
				  .encap = NLB_ENCAP_IPIP };
	struct ip6 address6 = ip6(NET_GATEWAY, id);
	uint32_t address = htonl(GATEWAY(id));

	if (is_gateway6(id))
		memcpy(gw.address, &address6, 16);
	else
		memcpy(gw.address, &address, 4);
	memcpy(gw.next_hop_mac, gateway_mac(id), 6);
	memcpy(gw.source_mac, MAC_NLB, 6);
	return gw;
}

static inline void set_gateway_entry(uint32_t id, const struct nlb_gateway *gw)
{
	map_set(skel->maps.gateways, &id, gw);
}

static inline void set_gateway(uint32_t id, uint8_t flags, uint16_t generation, uint16_t mtu)
{
	struct nlb_gateway gw = gateway_entry(id);

	gw.flags = flags;
	gw.generation = generation;
	gw.mtu = mtu;
	set_gateway_entry(id, &gw);
}

static inline uint8_t encap_of(uint32_t vip)
{
	return (uint8_t)(NLB_ENCAP_IPIP + vip % 3);
}

static inline struct nlb_vip vip_entry(uint32_t vip)
{
	return (struct nlb_vip) { .id = (uint16_t)vip, .encap = encap_of(vip) };
}

/* Both addresses of the virtual IP. */
static inline void set_service(uint32_t vip, uint16_t port, uint8_t protocol,
			       const struct nlb_vip *value)
{
	struct nlb_vip4_key key = { .address = htonl(VIP(vip)),
				    .port = htons(port),
				    .protocol = protocol };
	struct nlb_vip6_key key6 = { .port = htons(port), .protocol = protocol };
	struct ip6 address = ip6(NET_VIP, vip);

	memcpy(key6.address, &address, 16);
	map_set(skel->maps.vips4, &key, value);
	map_set(skel->maps.vips6, &key6, value);
}

static inline void remove_service(uint32_t vip, uint16_t port, uint8_t protocol)
{
	struct nlb_vip4_key key = { .address = htonl(VIP(vip)),
				    .port = htons(port),
				    .protocol = protocol };
	struct nlb_vip6_key key6 = { .port = htons(port), .protocol = protocol };
	struct ip6 address = ip6(NET_VIP, vip);

	memcpy(key6.address, &address, 16);
	bpf_map_delete_elem(bpf_map__fd(skel->maps.vips4), &key);
	bpf_map_delete_elem(bpf_map__fd(skel->maps.vips6), &key6);
}

static inline void set_ring(uint32_t id, struct nlb_slot slot)
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
	map_set(skel->maps.rings, &id, &fd);
	close(fd);
}

static inline void set_slot(uint32_t id, uint32_t index, struct nlb_slot slot)
{
	uint32_t inner_id;
	int fd;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.rings), &id, &inner_id), 0);
	fd = bpf_map_get_fd_by_id(inner_id);
	assert_true(fd >= 0);
	assert_int_equal(bpf_map_update_elem(fd, &index, &slot, BPF_ANY), 0);
	close(fd);
}

static inline uint64_t ticks(void)
{
	uint64_t now = 0;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &now, .ctx_size_in = sizeof(now));

	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(skel->progs.read_clock), &opts), 0);
	return now;
}

/* Another object than the one built in, for mutate.py. */
static inline void take_object(const char *path)
{
	static char object[1 << 20];
	FILE *f = path ? fopen(path, "re") : NULL;

	if (!f)
		return;
	skel->skeleton->data_sz = fread(object, 1, sizeof(object), f);
	skel->skeleton->data = object;
	fclose(f);
}

static inline int load_group(void **state)
{
	int cpus = libbpf_num_possible_cpus();

	(void)state;
	libbpf_set_print(silent);
	skel = calloc(1, sizeof(*skel));
	if (!skel || nlb_bpf__create_skeleton(skel) != 0)
		return -1;
	take_object(getenv("NLB_BPF_OBJECT"));
	if (bpf_object__open_skeleton(skel->skeleton, NULL) != 0)
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

static inline int unload_group(void **state)
{
	(void)state;
	nlb_bpf__destroy(skel);
	return 0;
}

/*
 * Keys without a pattern (splitmix64): where they are multiples of each other, addresses that
 * differ by the same steps have the same hash.
 */
static inline void set_hash_keys(void)
{
	uint64_t state = 1;

	for (uint32_t i = 0; i < NLB_HASH_KEYS; i++) {
		uint64_t z = state += 0x9e3779b97f4a7c15ULL;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
		z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
		conf.hash_key[i] = z ^ z >> 31;
	}
}

/* Every test starts from the same world, whatever the one before did. */
static inline void fresh_world(void)
{
	struct nlb_flow_bucket empty = { 0 };
	struct ip6 source = ip6(NET_NLB, 2);
	uint64_t key;
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
				     .udp_timeout = 30 * 250,
				     .icmp_per_tick = UINT32_MAX,
				     .flags = NLB_CONFIG_READY };
	set_hash_keys();
	conf.source[0][0] = 10;
	conf.source[0][3] = 2;
	memcpy(conf.source[1], &source, 16);
	set_config();

	for (uint32_t id = GW_A; id <= GW_C6; id++)
		set_gateway(id, NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED, 1, MTU);
	for (uint32_t v = 0; v < VIPS; v++) {
		struct nlb_vip vip = vip_entry(v), none = { 0 };

		set_service(v, 443, IPPROTO_TCP, &vip);
		set_service(v, 443, IPPROTO_UDP, &vip);
		set_service(v, 0, 0, &none);
		remove_service(v, 0, IPPROTO_TCP);
		remove_service(v, 0, IPPROTO_UDP);
		set_ring(v, (struct nlb_slot) { .gateway = v < VIP_IPIP6 ? GW_A : GW_A6 });
	}
	n = bpf_map__max_entries(skel->maps.flows);
	for (uint32_t i = 0; i < n; i++)
		bpf_map_update_elem(bpf_map__fd(skel->maps.flows), &i, &empty, BPF_ANY);
	while (bpf_map_get_next_key(bpf_map__fd(skel->maps.fragments), NULL, &key) == 0)
		bpf_map_delete_elem(bpf_map__fd(skel->maps.fragments), &key);
}

/* --- what clients send ----------------------------------------------------------------------- */

struct shape {
	uint32_t vip, sport, dport, flags, payload_len, vlan_tags, padding;
	uint32_t source;         /* IPv4 address, or number in the clients' IPv6 network */
	uint32_t options_len;    /* IPv4 */
	uint32_t frag;           /* IPv4: flags and offset; IPv6: fragment header's, 16 bits */
	uint32_t frag_id;        /* IPv4: 16 bits; IPv6: 32 */
	uint8_t extensions[10];  /* IPv6, in order, before the fragment header if there is one */
	uint8_t extension_words; /* of 8 bytes, beyond the first, in each of them */
	uint8_t tos;
	bool is_ipv6, is_udp;
	bool has_fragment_header; /* IPv6; also if `frag` is 0 */
};

static inline uint32_t shape_protocol(const struct shape *s)
{
	return s->is_udp ? IPPROTO_UDP : IPPROTO_TCP;
}

static inline uint32_t shape_sport(const struct shape *s)
{
	return s->sport ? s->sport : 40000;
}

static inline uint32_t shape_dport(const struct shape *s)
{
	return s->dport ? s->dport : 443;
}

static inline uint32_t shape_id(const struct shape *s)
{
	return s->frag_id ? s->frag_id : 0x1234;
}

static inline uint32_t client4(const struct shape *s)
{
	return s->source ? s->source : CLIENT;
}

static inline struct ip6 client6(const struct shape *s)
{
	return ip6(NET_CLIENT, s->source ? s->source : 7);
}

static inline bool is_later_fragment(const struct shape *s)
{
	return s->frag & (s->is_ipv6 ? 0xfff8 : 0x1fff);
}

static inline bool is_fragment(const struct shape *s)
{
	return s->frag & (s->is_ipv6 ? 0xfff9 : 0x3fff);
}

/* `types` are those of the tags from the outside; the last is that of the packet. */
static inline void put_link(struct bytes *p, const uint8_t *to, const uint8_t *from, uint32_t tags,
			    uint32_t type)
{
	put_ethernet(p, to, from, tags == 2 ? 0x88a8 : tags == 1 ? 0x8100 : type);
	for (uint32_t i = tags; i > 0; i--) {
		put16(p, 100 + i);
		put16(p, i > 1 ? 0x8100 : type);
	}
}

static inline void put_ipv6(struct bytes *p, uint32_t tos, uint32_t label, uint32_t payload_len,
			    uint32_t next, uint32_t hops, struct ip6 source, struct ip6 destination)
{
	put32(p, 6U << 28 | tos << 20 | label);
	put16(p, payload_len);
	put8(p, next);
	put8(p, hops);
	put(p, &source, 16);
	put(p, &destination, 16);
}

static inline void put_pattern(struct bytes *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		put8(p, i * 7 + 3);
}

static inline void put_l4(struct bytes *p, const struct shape *s)
{
	if (is_later_fragment(s)) {
		put_pattern(p, s->payload_len);
		return;
	}
	if (s->is_udp) {
		put16(p, shape_sport(s));
		put16(p, shape_dport(s));
		/* A fragmented datagram is longer than what is here. */
		put16(p, 8 + s->payload_len + (is_fragment(s) ? 1000 : 0));
		put16(p, 0xbeef);
	} else {
		put_tcp(p, shape_sport(s), shape_dport(s), s->flags ? s->flags : TCP_ACK);
	}
	put_pattern(p, s->payload_len);
}

static inline void put_extensions(struct bytes *p, const struct shape *s)
{
	uint32_t count = 0;

	while (s->extensions[count])
		count++;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t next = i + 1 < count ? s->extensions[i + 1] : 0;

		if (!next)
			next = s->has_fragment_header ? IPPROTO_FRAGMENT : shape_protocol(s);
		/* Zero means "none" in the array, so hop-by-hop options are written as 255. */
		put8(p, next == 255 ? IPPROTO_HOPOPTS : next);
		put8(p, s->extension_words);
		put_pattern(p, 6 + 8U * s->extension_words);
	}
	if (s->has_fragment_header) {
		put8(p, shape_protocol(s));
		put8(p, 0);
		put16(p, s->frag);
		put32(p, shape_id(s));
	}
}

/* The client's IP packet. */
static inline void put_inner(struct bytes *p, const struct shape *s)
{
	struct bytes rest = { .len = 0 };
	struct ipv4_options ip = { .source = client4(s),
				   .destination = VIP(s->vip),
				   .protocol = (uint8_t)shape_protocol(s),
				   .ttl = 61,
				   .id = (uint16_t)shape_id(s),
				   .tos = s->tos,
				   .frag = (uint16_t)(s->frag ? s->frag : 0x4000),
				   .options_len = s->options_len };
	uint32_t next = s->extensions[0]         ? s->extensions[0]
			: s->has_fragment_header ? (uint32_t)IPPROTO_FRAGMENT
						 : shape_protocol(s);

	if (s->is_ipv6)
		put_extensions(&rest, s);
	put_l4(&rest, s);
	if (s->is_ipv6)
		put_ipv6(p, s->tos, 0xabcde, rest.len, next == 255 ? IPPROTO_HOPOPTS : next, 61,
			 client6(s), ip6(NET_VIP, s->vip));
	else
		put_ipv4(p, &ip, rest.len);
	put(p, rest.b, rest.len);
}

static inline void put_padding(struct bytes *p, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		put8(p, 0);
}

static inline uint32_t type_of(bool is_ipv6)
{
	return is_ipv6 ? 0x86dd : 0x0800;
}

static inline struct bytes *frame(const struct shape *s)
{
	static struct bytes p;

	p.len = 0;
	put_link(&p, MAC_NLB, MAC_ROUTER, s->vlan_tags, type_of(s->is_ipv6));
	put_inner(&p, s);
	put_padding(&p, s->padding);
	return &p;
}

static inline uint32_t run_frame(const struct bytes *in, struct bytes *out)
{
	return run_program(bpf_program__fd(skel->progs.nlb), in, out);
}

static inline uint32_t run(const struct shape *s, struct bytes *out)
{
	return run_frame(frame(s), out);
}

/* --- what has to come out -------------------------------------------------------------------- */

static inline uint64_t hash_of(const struct shape *s)
{
	uint16_t halves[2] = { htons((uint16_t)shape_sport(s)), htons((uint16_t)shape_dport(s)) };
	struct ip6 source = client6(s), destination = ip6(NET_VIP, s->vip);
	uint32_t ports, words[2][4];
	uint8_t protocol = (uint8_t)shape_protocol(s);

	memcpy(&ports, halves, 4);
	if (is_fragment(s)) {
		ports = s->is_ipv6 ? htonl(shape_id(s)) : htons((uint16_t)shape_id(s));
		protocol = s->is_ipv6 ? IPPROTO_FRAGMENT : protocol;
	}
	if (!s->is_ipv6)
		return nlb_hash4(conf.hash_key, htonl(client4(s)), htonl(VIP(s->vip)), ports,
				 protocol);
	memcpy(words[0], &source, 16);
	memcpy(words[1], &destination, 16);
	return nlb_hash6(conf.hash_key, words[0], words[1], ports, protocol);
}

static inline void put_gateway_address(struct bytes *p, uint32_t gateway)
{
	struct ip6 address = ip6(NET_GATEWAY, gateway);

	if (is_gateway6(gateway))
		put(p, &address, 16);
	else
		put32(p, GATEWAY(gateway));
}

/* `inner` as it comes out for `gateway`, `hops` of them named in a GUE header. */
static inline void put_tunnelled(struct bytes *p, const struct bytes *inner, uint8_t encap,
				 bool is_ipv6, uint8_t tos, uint64_t hash, uint32_t gateway,
				 const uint32_t *hops, uint32_t hop_count)
{
	struct ipv4_options outer = { .source = NLB,
				      .destination = GATEWAY(gateway),
				      .ttl = 64,
				      .frag = 0x4000,
				      .tos = tos };
	uint32_t hop_words = is_gateway6(gateway) ? 4 : 1;
	uint32_t private_len = hop_count ? 4 + 4 * hop_words * hop_count : 0;
	bool is_gue = encap == NLB_ENCAP_GUE;
	uint32_t gue_len = is_gue ? 8 + 4 + private_len : 0;
	uint8_t protocol = is_gue ? IPPROTO_UDP : is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;

	if (encap == NLB_ENCAP_L2) {
		put(p, inner->b, inner->len);
		return;
	}
	outer.protocol = protocol;
	if (is_gateway6(gateway))
		put_ipv6(p, tos, (hash >> 8) & 0xfffff, gue_len + inner->len, protocol, 64,
			 ip6(NET_NLB, 2), ip6(NET_GATEWAY, gateway));
	else
		put_ipv4(p, &outer, gue_len + inner->len);
	if (is_gue) {
		put16(p, 0xc000 + ((hash >> 8) & 0x3fff));
		put16(p, 6080);
		put16(p, gue_len + inner->len);
		put16(p, 0);
		put8(p, private_len / 4);
		put8(p, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP);
		put16(p, 0);
	}
	if (is_gue && hop_count) {
		put8(p, 1);
		put8(p, 0);
		put8(p, hop_count);
		put8(p, is_gateway6(gateway) ? 6 : 4);
		for (uint32_t i = 0; i < hop_count; i++)
			put_gateway_address(p, hops[i]);
	}
	put(p, inner->b, inner->len);
}

/* The frame that has to come out. */
static inline struct bytes *encapsulated(const struct shape *s, uint32_t gateway,
					 const uint32_t *hops, uint32_t hop_count)
{
	static struct bytes p;
	struct bytes inner = { .len = 0 };
	bool is_l2 = encap_of(s->vip) == NLB_ENCAP_L2;

	put_inner(&inner, s);
	p.len = 0;
	put_link(&p, gateway_mac(gateway), MAC_NLB, s->vlan_tags,
		 type_of(is_l2 ? s->is_ipv6 : is_gateway6(gateway)));
	put_tunnelled(&p, &inner, encap_of(s->vip), s->is_ipv6, s->tos, hash_of(s), gateway, hops,
		      hop_count);
	put_padding(&p, s->padding);
	return &p;
}

/* --- what was counted ------------------------------------------------------------------------ */

static inline uint64_t reason_count(uint32_t reason)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.reasons), reason, 0, sizeof(uint64_t));
}

static inline uint64_t all_reasons(void)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < NLB_REASON_COUNT; r++)
		sum += reason_count(r);
	return sum;
}

static inline uint64_t stat(uint32_t gateway, size_t offset)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.gateway_stats), gateway, offset,
			      sizeof(struct nlb_gateway_stats));
}
#define STAT(gateway, field) stat(gateway, offsetof(struct nlb_gateway_stats, field))

static inline uint64_t all_forwarded(void)
{
	uint64_t sum = 0;

	for (uint32_t id = GW_A; id <= GW_C6; id++)
		sum += STAT(id, packets);
	return sum;
}

/* The packet ends here, for this one reason; `out` is what became of it. */
static inline void assert_ends_as(const struct bytes *in, uint32_t reason, uint32_t action,
				  struct bytes *out, const char *why)
{
	uint64_t before = reason_count(reason), all = all_reasons(), sent = all_forwarded();
	uint32_t got = run_frame(in, out);

	if (reason_count(reason) != before + 1 || all_reasons() != all + 1 ||
	    all_forwarded() != sent) {
		for (uint32_t r = 0; r < NLB_REASON_COUNT; r++)
			print_message("reason %u: %" PRIu64 "\n", r, reason_count(r));
		fail_msg("%s: action %u, not counted under its one reason %u", why, got, reason);
	}
	if (got != action)
		fail_msg("%s: action %u, want %u", why, got, action);
}

/* ... and nothing of it is changed. */
static inline void assert_ends(const struct bytes *in, uint32_t reason, uint32_t action,
			       const char *why)
{
	struct bytes copy = *in, out;

	assert_ends_as(&copy, reason, action, &out, why);
	assert_bytes(&out, in, why);
}

/* The packet comes out like this, and only its gateway counts it. */
static inline void assert_sent(const struct bytes *in, const struct bytes *want, uint32_t gateway,
			       const char *why)
{
	struct bytes copy = *in, expected = *want, out;
	uint64_t packets = STAT(gateway, packets), sent = all_forwarded(), ended = all_reasons();
	uint32_t action = run_frame(&copy, &out);

	if (action != XDP_TX)
		fail_msg("%s: action %u", why, action);
	assert_bytes(&out, &expected, why);
	if (STAT(gateway, packets) != packets + 1 || all_forwarded() != sent + 1 ||
	    all_reasons() != ended)
		fail_msg("%s: not counted at its gateway alone", why);
}

static inline uint32_t gateway_of(const struct bytes *out)
{
	return out->b[5]; /* last byte of the next hop's MAC address */
}
