/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random and mutated packets. Whatever they are: one verdict, one counter, and who is forwarded
 * goes whole and unchanged to a gateway of the virtual IP that it is addressed to.
 *
 * NLB_FUZZ_SEED and NLB_FUZZ_PACKETS choose another run; a failure prints the packet.
 */
#include "tests/bpf/world.h"

#define SEED    20240607
#define PACKETS 20000

static uint64_t state_of_chance;

static uint32_t chance(uint32_t below)
{
	state_of_chance ^= state_of_chance << 13;
	state_of_chance ^= state_of_chance >> 7;
	state_of_chance ^= state_of_chance << 17;
	return (uint32_t)(state_of_chance >> 20) % below;
}

static uint64_t number_from(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Every virtual IP has a gateway of its own, so it shows whose packet went where. */
static uint32_t gateway_of_vip(uint32_t vip)
{
	return vip < VIP_IPIP6 ? GW_A + vip : GW_A6 + (vip - VIP_IPIP6);
}

static void world_of_pools(void)
{
	fresh_world();
	for (uint32_t v = 0; v < VIPS; v++) {
		struct nlb_gateway gw = gateway_entry(gateway_of_vip(v));

		gw.encap = encap_of(v);
		gw.vip = (uint16_t)v;
		set_gateway_entry(gateway_of_vip(v), &gw);
		set_ring(v, (struct nlb_slot) { .gateway = (uint16_t)gateway_of_vip(v),
						.flags = v & 1 ? NLB_SLOT_MOVED : 0 });
	}
}

/* --- packets to begin with ---------------------------------------------------------------------
 */

static void put_icmp(struct bytes *p, bool is_ipv6)
{
	static const uint8_t types[2][5] = { { 8, 3, 11, 12, 0 }, { 128, 1, 2, 3, 135 } };
	uint32_t vip = chance(VIPS), protocol = chance(2) ? IPPROTO_TCP : IPPROTO_UDP;
	struct bytes m = { .len = 0 };
	struct ipv4_options ip = { .source = CLIENT,
				   .destination = VIP(vip),
				   .protocol = IPPROTO_ICMP,
				   .ttl = 9,
				   .options_len = 4 * chance(3) };

	put8(&m, types[is_ipv6][chance(5)]);
	put8(&m, chance(3) ? 0 : 4);
	put32(&m, chance(65536));
	put16(&m, 1280);
	if (is_ipv6) {
		put_ipv6(&m, 0, 0, 1000, protocol, 1, ip6(NET_VIP, vip), ip6(NET_CLIENT, 7));
	} else {
		struct ipv4_options quoted = { .source = VIP(vip),
					       .destination = CLIENT,
					       .protocol = (uint8_t)protocol,
					       .ttl = 1,
					       .options_len = 4 * chance(3) };

		put_ipv4(&m, &quoted, 1000);
	}
	put16(&m, 443);
	put16(&m, 40000);
	put_pattern(&m, 4 + chance(60));

	put_link(p, MAC_NLB, MAC_ROUTER, chance(3), type_of(is_ipv6));
	if (is_ipv6)
		put_ipv6(p, 0, 0, m.len, IPPROTO_ICMPV6, 9, ip6(NET_CLIENT, 7), ip6(NET_VIP, vip));
	else
		put_ipv4(p, &ip, m.len);
	put(p, m.b, m.len);
}

static void put_shape(struct bytes *p)
{
	static const uint8_t extensions[] = { 255, IPPROTO_ROUTING, IPPROTO_DSTOPTS };
	struct shape s = { .vip = chance(VIPS + 1),
			   .sport = 1 + chance(40000),
			   .dport = chance(4) ? 443 : 1 + chance(1000),
			   .flags = 1U << chance(5),
			   .payload_len = chance(3) ? chance(64) : chance(1500),
			   .vlan_tags = chance(3),
			   .padding = chance(8),
			   .tos = (uint8_t)chance(256),
			   .is_ipv6 = chance(2),
			   .is_udp = chance(2),
			   .options_len = chance(2) ? 0 : 4 * chance(11),
			   .frag_id = 1 + chance(4) };

	if (s.is_ipv6) {
		for (uint32_t i = chance(2) ? 0 : chance(9), n = 0; n < i; n++)
			s.extensions[n] = extensions[n ? 1 + chance(2) : chance(3)];
		s.extension_words = (uint8_t)(chance(2) ? 0 : chance(3));
		s.has_fragment_header = chance(3) == 0;
		s.frag = s.has_fragment_header && chance(2) ? chance(16) : 0;
	} else if (chance(3) == 0) {
		s.frag = chance(2) ? 0x2000 : 8 + chance(4);
	}
	*p = *frame(&s);
}

static void mutate(struct bytes *p)
{
	static const uint8_t telling[] = { 0,  1,  4,    6,    17,   43,   44,   58,
					   59, 60, 0x3f, 0x45, 0x60, 0x7f, 0x80, 0xff };

	for (uint32_t n = chance(5); n > 0; n--) {
		uint32_t at = chance(3) ? 12 + chance(70) : chance(p->len);

		if (at >= p->len)
			continue;
		switch (chance(6)) {
		case 0:
			p->b[at] ^= (uint8_t)(1U << chance(8));
			break;
		case 1:
			p->b[at] = (uint8_t)chance(256);
			break;
		case 2:
			p->b[at] = telling[chance(sizeof(telling))];
			break;
		case 3: /* shorter */
			p->len = 14 + chance(p->len - 13);
			break;
		case 4: /* longer */
			put_pattern(p, chance(40));
			break;
		default: /* a piece of itself somewhere else */
			memmove(p->b + at, p->b + chance(p->len),
				chance(p->len - at < 20 ? p->len - at : 20));
		}
	}
	if (p->len < 14)
		p->len = 14;
}

static void make_packet(struct bytes *p)
{
	p->len = 0;
	switch (chance(8)) {
	case 0: /* noise behind a plausible beginning */
		put_shape(p);
		for (uint32_t at = 14 + chance(40); at < p->len; at++)
			p->b[at] = (uint8_t)chance(256);
		break;
	case 1:
	case 2:
		put_icmp(p, chance(2));
		break;
	default:
		put_shape(p);
	}
	mutate(p);
}

/* --- what must hold ----------------------------------------------------------------------------
 */

struct counts {
	uint64_t reason[NLB_REASON_COUNT], sent[GW_C6 + 1];
};

static void count(struct counts *c)
{
	for (uint32_t r = 0; r < NLB_REASON_COUNT; r++)
		c->reason[r] = reason_count(r);
	for (uint32_t id = GW_A; id <= GW_C6; id++)
		c->sent[id] = STAT(id, packets);
}

static uint32_t verdict_of(uint32_t reason)
{
#define VERDICT(id, name, verdict, help) XDP_##verdict,
	static const uint32_t verdicts[] = { NLB_REASONS(VERDICT) };

	return verdicts[reason];
}

static uint32_t l3_of(const struct bytes *p)
{
	uint32_t l3 = 14;

	while (l3 < 22 && ((p->b[l3 - 2] == 0x81 && p->b[l3 - 1] == 0) ||
			   (p->b[l3 - 2] == 0x88 && p->b[l3 - 1] == 0xa8)))
		l3 += 4;
	return l3;
}

/* The virtual IP that the IP packet at `ip` is addressed to; VIPS if none. */
static uint32_t vip_of(const uint8_t *ip, bool is_ipv6)
{
	for (uint32_t v = 0; v < VIPS; v++) {
		struct ip6 address6 = ip6(NET_VIP, v);
		uint32_t address = htonl(VIP(v));

		if (is_ipv6 ? memcmp(ip + 24, &address6, 16) == 0
			    : memcmp(ip + 16, &address, 4) == 0)
			return v;
	}
	return VIPS;
}

static const char *check_forwarded(const struct bytes *in, const struct bytes *out,
				   uint32_t gateway)
{
	uint32_t l3 = l3_of(in), grown = out->len - in->len, outer6 = is_gateway6(gateway);
	bool is_ipv6 = in->b[l3 - 2] == 0x86;
	uint32_t vip = vip_of(in->b + l3, is_ipv6);
	struct bytes address = { .len = 0 };

	if (vip == VIPS || gateway_of_vip(vip) != gateway)
		return "another virtual IP's gateway";
	if (out->len < in->len || memcmp(out->b + l3 + grown, in->b + l3, in->len - l3) != 0)
		return "the inner packet is changed";
	if (memcmp(out->b, gateway_mac(gateway), 6) != 0 || memcmp(out->b + 6, MAC_NLB, 6) != 0)
		return "wrong MAC addresses";
	if (encap_of(vip) == NLB_ENCAP_L2)
		return grown || memcmp(out->b + 12, in->b + 12, l3 - 12) != 0
			       ? "L2 packet is changed"
			       : NULL;
	put_gateway_address(&address, gateway);
	if (memcmp(out->b + l3 + (outer6 ? 24 : 16), address.b, address.len) != 0)
		return "wrong outer destination";
	if (!outer6 && checksum(out->b + l3, 20) != 0)
		return "wrong outer checksum";
	if (l3_of(out) != l3 || out->b[l3 - 2] != (outer6 ? 0x86 : 0x08))
		return "link header and outer header do not agree";
	return NULL;
}

static const char *check_verdict(const struct bytes *in, const struct bytes *out, uint32_t action,
				 const struct counts *before, const struct counts *after)
{
	uint32_t reason = NLB_REASON_COUNT, gateway = 0, moved = 0;

	for (uint32_t r = 0; r < NLB_REASON_COUNT; r++) {
		moved += (uint32_t)(after->reason[r] - before->reason[r]);
		if (after->reason[r] != before->reason[r])
			reason = r;
	}
	for (uint32_t id = GW_A; id <= GW_C6; id++) {
		moved += (uint32_t)(after->sent[id] - before->sent[id]);
		if (after->sent[id] != before->sent[id])
			gateway = id;
	}
	if (moved != 1)
		return "not exactly one counter moved";
	if (gateway)
		return action == XDP_TX ? check_forwarded(in, out, gateway)
					: "forwarded, but not sent";
	if (action != verdict_of(reason))
		return "another verdict than the reason's";
	if (action != XDP_TX && (out->len != in->len || memcmp(out->b, in->b, in->len) != 0))
		return "changed without being sent";
	return NULL;
}

static void holds_for_random_packets(void **state)
{
	uint64_t seed = number_from("NLB_FUZZ_SEED", SEED);
	uint64_t packets = number_from("NLB_FUZZ_PACKETS", PACKETS), sent = 0;
	struct counts counts[2], begin;
	struct bytes in = { .len = 0 }, out;

	world_of_pools();
	state_of_chance = seed | 1;
	count(&counts[0]);
	begin = counts[0];
	for (uint64_t i = 0; i < packets; i++) {
		struct counts *before = &counts[i & 1], *after = &counts[~i & 1];
		const char *wrong;
		uint32_t action;

		make_packet(&in);
		action = run_frame(&in, &out);
		count(after);
		wrong = check_verdict(&in, &out, action, before, after);
		if (wrong) {
			print_bytes("in", &in);
			print_bytes("out", &out);
			fail_msg("seed %" PRIu64 ", packet %" PRIu64 ": action %u: %s", seed, i,
				 action, wrong);
		}
	}
	/* A fuzzer whose packets all end at the first check finds nothing. */
	for (uint32_t id = GW_A; id <= GW_C6; id++)
		sent += counts[packets & 1].sent[id] - begin.sent[id];
	assert_true(sent > packets / 10);
	for (uint32_t r = 0; r < NLB_REASON_COUNT && packets >= PACKETS; r++) {
		bool can_happen = r != NLB_REASON_NO_CONFIG && r != NLB_REASON_BLOCKED &&
				  r != NLB_REASON_NOT_ALLOWED && r != NLB_REASON_SOURCE_RATE &&
				  r != NLB_REASON_ICMP_RATE && r != NLB_REASON_NO_GATEWAY &&
				  r != NLB_REASON_NO_NEIGHBOUR && r != NLB_REASON_NO_HEADROOM &&
				  r != NLB_REASON_SPOOFED;

		if (can_happen && counts[packets & 1].reason[r] == begin.reason[r])
			fail_msg("no packet met reason %u", r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_for_random_packets),
	};

	return cmocka_run_group_tests_name("nlb_fuzz", tests, load_group, unload_group);
}
