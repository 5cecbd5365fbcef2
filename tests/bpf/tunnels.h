/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnel packets by hand, and the decapsulating program to put them through. An IPv4 address A is
 * 2001:db8::A in IPv6, so that one description makes packets of both families, outside and inside.
 */
#pragma once

#include "bpf/nlb_abi.h"
#include "decap.skel.h"
#include "tests/bpf/packets.h"

#define CLIENT IP(198, 51, 100, 7)
#define NLB    IP(10, 0, 0, 2)
#define SELF   IP(10, 0, 0, 21)
#define VIP    IP(203, 0, 113, 10)

static struct decap_bpf *skel;
static int load_error;

static inline int load_group(void **state)
{
	(void)state;
	libbpf_set_print(silent);
	skel = decap_bpf__open();
	if (!skel)
		return -1;
	load_error = decap_bpf__load(skel);
	if (load_error && !is_missing_right(load_error)) {
		print_error("loading the program: %s\n", strerror(-load_error));
		return -1;
	}
	return 0;
}

static inline int unload_group(void **state)
{
	(void)state;
	(void)state;
	decap_bpf__destroy(skel);
	return 0;
}

/* --- the world ---------------------------------------------------------------------------------
 */

static const uint8_t prefix6[12] = { 0x20, 0x01, 0x0d, 0xb8 };
static const uint8_t prefix4[12] = { [10] = 0xff, [11] = 0xff };

/* As the maps have it. */
static inline void map_address(uint8_t out[16], uint32_t address, bool is6)
{
	uint32_t word = htonl(address);

	memcpy(out, is6 ? prefix6 : prefix4, 12);
	memcpy(out + 12, &word, 4);
}

static inline void allow(uint32_t address, uint32_t len, bool is6)
{
	struct decap_source_key key = { .prefix_len = 96 + len };
	uint32_t one = 1;

	map_address(key.address, address, is6);
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.decap_sources), &key, &one, BPF_ANY), 0);
}

static inline void forbid(uint32_t address, uint32_t len, bool is6)
{
	struct decap_source_key key = { .prefix_len = 96 + len };

	map_address(key.address, address, is6);
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(skel->maps.decap_sources), &key), 0);
}

static inline void fresh_world(void)
{
	uint32_t one = 1;

	if (load_error) {
		print_message("SKIP: loading BPF programs needs root or CAP_BPF: %s\n",
			      strerror(-load_error));
		skip();
	}
	for (int is6 = 0; is6 < 2; is6++) {
		struct decap_vip_key vip;

		allow(NLB, 32, is6);
		map_address(vip.address, VIP, is6);
		assert_int_equal(bpf_map_update_elem(bpf_map__fd(skel->maps.decap_vips), &vip, &one,
						     BPF_ANY),
				 0);
	}
}

/* --- packets -----------------------------------------------------------------------------------
 */

/* Private data of GUE; `words` is how many there are, and what the header says. */
struct private_data {
	uint32_t words;
	uint8_t type, next, count, family;
	uint32_t hop[2];
	bool is_cut; /* no addresses are there */
};

/* What is zero stands for what is usual. */
struct tunnel_packet {
	bool is_gue, outer6, inner6;
	uint32_t source, self, client, destination; /* SELF is where the tunnel ends */
	uint32_t outer_options, inner_options, vlan_tags, payload_len, padding, port;
	uint16_t frag, udp_sum, inner_frag;
	uint8_t outer_tos, inner_tos, ttl;
	uint8_t gue_version, gue_protocol, gue_flags;
	uint8_t inner_protocol, flags;
	uint32_t client_port, ack; /* of the inner TCP packet */
	struct private_data private;
	const uint8_t *to, *from; /* MAC addresses */
};

static inline void put_address(struct bytes *p, uint32_t address, bool is6)
{
	if (is6)
		put(p, prefix6, sizeof(prefix6));
	put32(p, address);
}

static inline void put_ipv6_header(struct bytes *p, const struct ipv4_options *o,
				   uint32_t payload_len)
{
	put32(p, 6U << 28 | (uint32_t)o->tos << 20 | 0x12345);
	put16(p, payload_len);
	put8(p, o->protocol);
	put8(p, o->ttl);
	put_address(p, o->source, true);
	put_address(p, o->destination, true);
}

static inline void put_ip(struct bytes *p, bool is6, const struct ipv4_options *o,
			  uint32_t payload_len)
{
	if (is6)
		put_ipv6_header(p, o, payload_len);
	else
		put_ipv4(p, o, payload_len);
}

static inline void put_link(struct bytes *p, const struct tunnel_packet *t, bool is6)
{
	uint32_t type = is6 ? 0x86dd : 0x0800, tags = t->vlan_tags;

	put_ethernet(p, t->to ? t->to : MAC_NLB, t->from ? t->from : MAC_ROUTER,
		     tags == 2   ? 0x88a8
		     : tags == 1 ? 0x8100
				 : type);
	for (uint32_t i = tags; i > 0; i--) {
		put16(p, 100 + i);
		put16(p, i > 1 ? 0x8100 : type);
	}
}

static inline uint32_t inner_len(const struct tunnel_packet *t)
{
	return (t->inner6 ? 40 : 20 + t->inner_options) + 20 + t->payload_len;
}

static inline void put_inner(struct bytes *p, const struct tunnel_packet *t, uint8_t tos)
{
	struct ipv4_options ip = { .source = t->client ? t->client : CLIENT,
				   .destination = t->destination ? t->destination : VIP,
				   .protocol = t->inner_protocol ? t->inner_protocol : IPPROTO_TCP,
				   .ttl = 61,
				   .tos = tos,
				   .id = 7,
				   .frag = t->inner_frag ? t->inner_frag : 0x4000,
				   .options_len = t->inner_options };
	uint32_t at;

	put_ip(p, t->inner6, &ip, 20 + t->payload_len);
	at = p->len;
	put_tcp(p, t->client_port ? t->client_port : 40000, 443, t->flags ? t->flags : TCP_ACK);
	if (t->ack) {
		set16(p, at + 8, t->ack >> 16);
		set16(p, at + 10, t->ack & 0xffff);
	}
	for (uint32_t i = 0; i < t->payload_len; i++)
		put8(p, i);
}

static inline void put_private(struct bytes *p, const struct private_data *d)
{
	uint32_t end = p->len + 4 * d->words;

	if (!d->words)
		return;
	put8(p, d->type);
	put8(p, d->next);
	put8(p, d->count);
	put8(p, d->family);
	for (uint32_t i = 0; i < d->count && i < 2 && !d->is_cut; i++)
		put_address(p, d->hop[i], d->family == 6);
	while (p->len < end)
		put8(p, 0x5a);
	assert_int_equal(p->len, end);
}

static inline void put_gue(struct bytes *p, const struct tunnel_packet *t)
{
	put16(p, 50000);
	put16(p, t->port ? t->port : 6080);
	put16(p, 8 + 4 + 4 * t->private.words + inner_len(t));
	put16(p, t->udp_sum);
	put8(p, t->gue_version | t->private.words);
	put8(p, t->gue_protocol ? t->gue_protocol : t->inner6 ? 41 : 4);
	put16(p, t->gue_flags);
	put_private(p, &t->private);
}

static inline struct bytes *tunnelled(const struct tunnel_packet *t)
{
	static struct bytes p;
	uint32_t gue_len = t->is_gue ? 8 + 4 + 4 * t->private.words : 0;
	struct ipv4_options outer = { .source = t->source ? t->source : NLB,
				      .destination = t->self ? t->self : SELF,
				      .protocol = t->is_gue   ? IPPROTO_UDP
						  : t->inner6 ? 41
							      : 4,
				      .ttl = t->ttl ? t->ttl : 64,
				      .tos = t->outer_tos,
				      .frag = t->frag ? t->frag : 0x4000,
				      .options_len = t->outer_options };

	p.len = 0;
	put_link(&p, t, t->outer6);
	put_ip(&p, t->outer6, &outer, gue_len + inner_len(t));
	if (t->is_gue)
		put_gue(&p, t);
	put_inner(&p, t, t->inner_tos);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&p, 0);
	return &p;
}

/* Where the outer IP header begins, and what is behind it. */
static inline uint32_t outer_at(const struct tunnel_packet *t)
{
	return 14 + 4 * t->vlan_tags;
}

static inline uint32_t l4_at(const struct tunnel_packet *t)
{
	return outer_at(t) + (t->outer6 ? 40 : 20 + t->outer_options);
}

/* --- running -----------------------------------------------------------------------------------
 */

static inline uint64_t reason_count(uint32_t reason)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.decap_reasons), reason, 0, sizeof(uint64_t));
}

static inline uint64_t all_reasons(void)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < DECAP_REASON_COUNT; r++)
		sum += reason_count(r);
	return sum;
}

static uint32_t ingress; /* 0: the interface `lo` of the namespace that the test is in */

static inline uint32_t run(const struct bytes *in, struct bytes *out)
{
	struct xdp_md context = { .data_end = in->len, .ingress_ifindex = ingress };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->b, .data_size_in = in->len,
		    .data_out = out->b, .data_size_out = PACKET_MAX, .repeat = 1,
		    .ctx_in = &context, .ctx_size_in = ingress ? sizeof(context) : 0);
	int err;

	if (!ingress)
		opts.ctx_in = NULL;
	memset(out->b, 0, sizeof(out->b));
	err = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.decap), &opts);
	if (err)
		fail_msg("test run of %u bytes: %s", in->len, strerror(-err));
	out->len = opts.data_size_out;
	return opts.retval;
}

/* The packet ends like that, counted once, and is `want` afterwards. */
static inline void assert_becomes(const struct bytes *in, const struct bytes *want, uint32_t reason,
				  uint32_t action, const char *why)
{
	uint64_t before = reason_count(reason), all = all_reasons();
	struct bytes copy = *in, out;
	uint32_t got = run(&copy, &out);

	if (reason_count(reason) != before + 1 || all_reasons() != all + 1)
		fail_msg("%s: not counted under its one reason (action %u)", why, got);
	if (got != action)
		fail_msg("%s: action %u, want %u", why, got, action);
	assert_bytes(&out, want, why);
}

static inline void assert_ends(const struct bytes *in, uint32_t reason, uint32_t action,
			       const char *why)
{
	assert_becomes(in, in, reason, action, why);
}

/* The inner packet, behind the link header it came with. */
static inline void assert_passed(const struct tunnel_packet *t, uint8_t tos, uint32_t reason,
				 const char *why)
{
	struct bytes want = { .len = 0 };

	put_link(&want, t, t->inner6);
	put_inner(&want, t, tos);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&want, 0);
	assert_becomes(tunnelled(t), &want, reason, XDP_PASS, why);
}

static inline void assert_decapsulated(const struct tunnel_packet *t, uint8_t tos, const char *why)
{
	assert_passed(t, tos, t->is_gue ? DECAP_REASON_GUE : DECAP_REASON_IPIP, why);
}
