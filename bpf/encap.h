/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Outer headers: puts them in front of the packet and sends it to the gateway's next hop. */
#pragma once

#include "bpf/answer.h"
#include "bpf/link.h"
#include "bpf/packet.h"
#include "bpf/ring.h"

#define OUTER_TTL      64
#define GUE_PORT_BASE  0xc000 /* source ports 49152 .. 65535 */
#define GUE_PORT_RANGE 0x3fff
#define GUE_MAX_HOPS   2
#define FLOW_LABEL     0xfffff

/*
 * Headers are put together in registers and written a word at a time: byte after byte, as the
 * compiler does for packed structures, takes several times as long. Little-endian only, like every
 * platform we support.
 */
typedef __u64 __attribute__((may_alias)) word64;
typedef __u32 __attribute__((may_alias)) word32;
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are put together low byte first");

static __always_inline __u64 two_words(__u32 first, __u32 second)
{
	return first | (__u64)second << 32;
}

/* Who else may know this connection: other owners of its slot that still serve. */
struct second_choice {
	const struct nlb_gateway *hop[GUE_MAX_HOPS];
	__u32 count;
};

static __always_inline void add_second_choice(struct second_choice *second, __u32 id,
					      const struct route *r)
{
	struct nlb_gateway *gw = id == r->id ? NULL : gateway_get(id);

	/* One of the other family cannot be named: all addresses are of the outer header's. */
	if (!gw || !(gw->flags & NLB_GATEWAY_USABLE) || gw->family != r->gateway->family)
		return;
	if (second->count == 0)
		second->hop[0] = gw;
	else
		second->hop[1] = gw;
	second->count++;
}

static __always_inline __u32 gue_len(const struct second_choice *second, bool is_outer6)
{
	__u32 len = sizeof(struct udphdr) + sizeof(struct nlb_gue);

	if (second->count)
		len += sizeof(struct nlb_gue_private) +
		       second->count * (is_outer6 ? sizeof(struct in6_addr) : sizeof(__be32));
	return len;
}

/* Bits that follow the flow; of the hash those that choose neither slot nor bucket alone. */
static __always_inline __u32 flow_bits(const struct route *r)
{
	return (__u32)(r->hash >> 8);
}

/*
 * The type of service goes over whole: congestion marks must survive the tunnel (RFC 6040). Never
 * fragmented, so it needs no identifier (RFC 6864). The checksum's words are summed up before they
 * are written, 32 bits at a time, which is the same sum.
 */
static __always_inline void write_outer_ipv4(void *at, const struct packet *p,
					     const struct nlb_config *cfg, const struct route *r,
					     __u8 protocol, __u32 len)
{
	__u32 first = 0x45U | (__u32)p->tos << 8 | (__u32)bpf_htons((__u16)len) << 16;
	__u32 fragment = (__u32)bpf_htons(IPV4_DONT_FRAGMENT) << 16;
	__u32 third = OUTER_TTL | (__u32)protocol << 8;
	__u32 source = *(const word32 *)cfg->source[0] | (flow_bits(r) & cfg->source_vary[0]);
	__u32 destination = *(const word32 *)r->gateway->address;
	__u64 sum = (__u64)first + fragment + third + source + destination;

	third |= (__u32)csum_fold(sum) << 16;
	((word64 *)at)[0] = two_words(first, fragment);
	((word64 *)at)[1] = two_words(third, source);
	((word32 *)at)[4] = destination;
}

/* The flow label lets routers tell flows apart without looking for ports (RFC 6438). */
static __always_inline void write_outer_ipv6(void *at, const struct packet *p,
					     const struct nlb_config *cfg, const struct route *r,
					     __u8 protocol, __u32 payload_len)
{
	__u32 first = 6U << 28 | (__u32)p->tos << 20 | (flow_bits(r) & FLOW_LABEL);
	__u32 second = bpf_htons((__u16)payload_len) | (__u32)protocol << 16 |
		       (__u32)OUTER_TTL << 24;
	const word64 *source = (const word64 *)cfg->source[1];
	const word64 *destination = (const word64 *)r->gateway->address;
	word64 *out = at;

	out[0] = two_words(bpf_htonl(first), second);
	out[1] = source[0];
	out[2] = source[1] | two_words(0, flow_bits(r) & cfg->source_vary[1]);
	out[3] = destination[0];
	out[4] = destination[1];
}

/*
 * The outer UDP checksum is zero, which IPv4 allows, and IPv6 for tunnels (RFC 6935, RFC 6936): the
 * inner packet has checksums of its own, and computing one here costs more than all the rest of the
 * encapsulation. Returns the first byte behind it.
 */
static __always_inline void *write_gue(void *at, const struct route *r, __u32 len,
				       const struct second_choice *second, bool is_ipv6,
				       bool is_outer6)
{
	__u32 port = GUE_PORT_BASE + (flow_bits(r) & GUE_PORT_RANGE);
	__u32 hop_words = is_outer6 ? 4 : 1;
	__u32 words = second->count ? 1 + second->count * hop_words : 0;

	*(word64 *)at = two_words(bpf_htons((__u16)port) | (__u32)bpf_htons(NLB_GUE_PORT) << 16,
				  bpf_htons((__u16)len));
	((word32 *)at)[2] = words | (is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP) << 8;
	if (second->count)
		((word32 *)at)[3] = NLB_GUE_PRIVATE_TYPE | second->count << 16 |
				    (is_outer6 ? 6U : 4U) << 24;
	return at + sizeof(struct udphdr) + sizeof(struct nlb_gue);
}

static __always_inline void write_hop(void *at, const struct nlb_gateway *gw, bool is_outer6)
{
	if (is_outer6) {
		((word64 *)at)[0] = ((const word64 *)gw->address)[0];
		((word64 *)at)[1] = ((const word64 *)gw->address)[1];
	} else {
		*(word32 *)at = *(const word32 *)gw->address;
	}
}

/* Addresses only: destination and source follow each other in the entry as they do in the header.
 */
static __always_inline void write_macs(void *eth, const struct nlb_gateway *gw)
{
	_Static_assert(offsetof(struct nlb_gateway, source_mac) ==
			       offsetof(struct nlb_gateway, next_hop_mac) + ETH_ALEN,
		       "copied as one");
	*(word64 *)eth = *(const word64 *)gw->next_hop_mac;
	*(word32 *)(eth + 8) = *(const word32 *)(gw->next_hop_mac + 8);
}

static __always_inline int transmit(const struct packet *p, const struct route *r)
{
	route_count(r, p->len);
	if (r->gateway->ifindex == p->ctx->ingress_ifindex)
		return XDP_TX;
	return (int)bpf_redirect(r->gateway->ifindex, 0);
}

/*
 * Makes `overhead` bytes of room and writes the link header before them, VLAN tags as they came.
 * Returns where the outer header goes.
 */
static __always_inline void *open_outer(const struct packet *p, const struct route *r,
					__u32 overhead, __u32 room, bool is_outer6)
{
	__be16 type = is_outer6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	struct link_header link;
	struct cursor c;
	struct ethhdr *eth;

	if (p->l3_offset > sizeof(*eth)) {
		if (!link_save(p->ctx, &link))
			return NULL;
		link_set_type(&link, p->l3_offset, type);
		write_macs(&link.eth, r->gateway);
		return link_move(p->ctx, p->l3_offset, -(int)overhead, room, &link);
	}
	if (bpf_xdp_adjust_head(p->ctx, -(int)overhead))
		return NULL;
	c.pos = (void *)(long)p->ctx->data;
	c.end = (void *)(long)p->ctx->data_end;
	eth = cursor_take(&c, sizeof(*eth));
	if (!eth || c.pos + room > c.end)
		return NULL;
	write_macs(eth, r->gateway);
	eth->h_proto = type;
	return c.pos;
}

/* `overhead` is what the longest header of this kind adds: the advice is the same for all packets.
 */
static __always_inline int too_big(const struct packet *p, const struct route *r, __u32 overhead,
				   bool is_ipv6)
{
	__u32 mtu = r->gateway->mtu;

	mtu = mtu > overhead ? mtu - overhead : 0;
	if (p->is_unanswerable)
		return finish(NLB_REASON_TOO_BIG);
	return is_ipv6 ? tell_too_big6(p->ctx, p->l3_offset, mtu)
		       : tell_too_big4(p->ctx, p->l3_offset, mtu);
}

static __always_inline int send_tunnelled(const struct packet *p, const struct nlb_config *cfg,
					  const struct route *r, bool is_ipv6, bool is_outer6)
{
	__u8 inner = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u32 header_len = is_outer6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u32 hop_len = is_outer6 ? sizeof(struct in6_addr) : sizeof(__be32);
	bool is_gue = r->encap == NLB_ENCAP_GUE;
	struct second_choice second = { 0 };
	__u32 len = p->len;
	void *outer, *hop, *end;

	if (is_gue) {
		if (r->earlier[0])
			add_second_choice(&second, r->earlier[0], r);
		if (r->earlier[1])
			add_second_choice(&second, r->earlier[1], r);
		len += gue_len(&second, is_outer6);
	}
	if (len + header_len > r->gateway->mtu)
		return too_big(p, r, nlb_overhead_max(r->encap, is_outer6 ? 6 : 4), is_ipv6);
	/* The inner packet has at least 28 bytes: there is room for all but the addresses. */
	outer = open_outer(p, r, len + header_len - p->len,
			   header_len + sizeof(struct udphdr) + sizeof(struct nlb_gue) +
				   sizeof(struct nlb_gue_private),
			   is_outer6);
	if (!outer)
		return finish(NLB_REASON_NO_HEADROOM);

	if (is_outer6)
		write_outer_ipv6(outer, p, cfg, r, is_gue ? IPPROTO_UDP : inner, len);
	else
		write_outer_ipv4(outer, p, cfg, r, is_gue ? IPPROTO_UDP : inner, len + header_len);
	if (!is_gue)
		return transmit(p, r);

	hop = write_gue(outer + header_len, r, len, &second, is_ipv6, is_outer6);
	if (!second.count)
		return transmit(p, r);
	hop += sizeof(struct nlb_gue_private);
	end = (void *)(long)p->ctx->data_end;
	if (hop + hop_len > end)
		return finish(NLB_REASON_NO_HEADROOM);
	write_hop(hop, second.hop[0], is_outer6);
	if (second.count > 1) {
		if (hop + 2 * hop_len > end)
			return finish(NLB_REASON_NO_HEADROOM);
		write_hop(hop + hop_len, second.hop[1], is_outer6);
	}
	return transmit(p, r);
}

/* For gateways on the same segment: the packet itself is not touched. */
static __always_inline int send_l2(const struct packet *p, const struct route *r, bool is_ipv6)
{
	struct cursor c = { (void *)(long)p->ctx->data, (void *)(long)p->ctx->data_end };
	struct ethhdr *eth = cursor_take(&c, sizeof(*eth));

	if (!eth)
		return finish(NLB_REASON_TRUNCATED);
	if (p->len > r->gateway->mtu)
		return too_big(p, r, 0, is_ipv6);
	write_macs(eth, r->gateway);
	return transmit(p, r);
}

/* Sends the packet where `r` says. Returns an XDP action; counts the reason if it cannot. */
static __always_inline int deliver(const struct packet *p, const struct nlb_config *cfg,
				   const struct route *r, bool is_ipv6)
{
	if (r->encap == NLB_ENCAP_L2)
		return send_l2(p, r, is_ipv6);
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): the verifier knows better */
	if (r->gateway->family == 6)
		return send_tunnelled(p, cfg, r, is_ipv6, true);
	return send_tunnelled(p, cfg, r, is_ipv6, false);
}
