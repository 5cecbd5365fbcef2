/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Outer headers: puts them in front of the packet and sends it to the gateway's next hop. */
#pragma once

#include "bpf/link.h"
#include "bpf/packet.h"
#include "bpf/parse.h"

#define OUTER_TTL      64
#define GUE_PORT_BASE  0xc000 /* source ports 49152 .. 65535 */
#define GUE_PORT_RANGE 0x3fff
#define GUE_MAX_HOPS   2
#define OUTER_MAX      52 /* IPv4, UDP, GUE and its private data with two addresses */

/* Who else may know this connection: other owners of its slot that still serve. */
struct second_choice {
	__be32 address[GUE_MAX_HOPS];
	__u32 count;
};

static __always_inline __u32 gue_len(const struct second_choice *second)
{
	__u32 len = sizeof(struct udphdr) + sizeof(struct nlb_gue);

	if (second->count)
		len += sizeof(struct nlb_gue_private) + second->count * sizeof(__be32);
	return len;
}

static __always_inline __u16 ipv4_header_sum(const struct iphdr *ip)
{
	const __u16 *word = (const __u16 *)ip;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline void write_outer_ipv4(struct iphdr *ip, const struct packet *p,
					     const struct nlb_config *cfg,
					     const struct nlb_gateway *gw, __u64 hash,
					     __u8 protocol, __u32 len)
{
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = p->tos; /* the whole byte: congestion marks must survive the tunnel (RFC 6040) */
	ip->tot_len = bpf_htons((__u16)len);
	ip->id = 0; /* never fragmented, so it needs no identifier (RFC 6864) */
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = OUTER_TTL;
	ip->protocol = protocol;
	ip->check = 0;
	ip->saddr = *(const __be32 *)cfg->source[0] | ((__be32)(hash >> 8) & cfg->source_vary[0]);
	ip->daddr = *(const __be32 *)gw->address;
	ip->check = ipv4_header_sum(ip);
}

/*
 * The outer UDP checksum is zero, which IPv4 allows: the inner packet has checksums of its own, and
 * computing one here costs more than all the rest of the encapsulation.
 */
static __always_inline void write_gue(struct udphdr *udp, __u64 hash, __u32 len,
				      const struct second_choice *second)
{
	struct nlb_gue *gue = (struct nlb_gue *)(udp + 1);
	struct nlb_gue_private *private = (struct nlb_gue_private *)(gue + 1);
	__be32 *hop = (__be32 *)(private + 1);

	udp->source = bpf_htons((__u16)(GUE_PORT_BASE + ((hash >> 8) & GUE_PORT_RANGE)));
	udp->dest = bpf_htons(NLB_GUE_PORT);
	udp->len = bpf_htons((__u16)len);
	udp->check = 0;

	gue->version_hlen = second->count ? (__u8)(1 + second->count) : 0;
	gue->protocol = IPPROTO_IPIP;
	gue->flags = 0;
	if (!second->count)
		return;

	private->type = NLB_GUE_PRIVATE_TYPE;
	private->next = 0;
	private->count = (__u8)second->count;
	private->family = 4;
	hop[0] = second->address[0];
	if (second->count > 1)
		hop[1] = second->address[1];
}

/* Addresses only; types and VLAN tags stay, since the packet leaves as it came. */
static __always_inline void write_macs(struct ethhdr *eth, const struct nlb_gateway *gw)
{
	__builtin_memcpy(eth->h_dest, gw->next_hop_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, gw->source_mac, ETH_ALEN);
}

static __always_inline int transmit(const struct packet *p, const struct nlb_gateway *gw)
{
	if (gw->ifindex == p->ctx->ingress_ifindex)
		return XDP_TX;
	return (int)bpf_redirect(gw->ifindex, 0);
}

/* Encapsulates for the gateway and sends. Returns an XDP action; counts the reason if it cannot. */
static __always_inline int encap_ipv4(const struct packet *p, const struct nlb_config *cfg,
				      const struct nlb_gateway *gw, __u8 encap, __u64 hash,
				      const struct second_choice *second)
{
	__u32 overhead = sizeof(struct iphdr);
	struct link_header link;
	struct iphdr *outer;

	if (encap == NLB_ENCAP_GUE)
		overhead += gue_len(second);
	if (p->len + overhead > gw->mtu)
		return finish(NLB_REASON_TOO_BIG);

	/* The inner packet has at least 40 bytes, so room for the longest header is always there.
	 */
	if (!link_save(p->ctx, p->l3_offset, &link))
		return finish(NLB_REASON_TRUNCATED);
	write_macs(&link.eth, gw);
	outer = link_move(p->ctx, p->l3_offset, -(int)overhead, OUTER_MAX, &link);
	if (!outer)
		return finish(NLB_REASON_NO_HEADROOM);

	if (encap == NLB_ENCAP_GUE) {
		write_outer_ipv4(outer, p, cfg, gw, hash, IPPROTO_UDP, p->len + overhead);
		write_gue((struct udphdr *)(outer + 1), hash, p->len + gue_len(second), second);
	} else {
		write_outer_ipv4(outer, p, cfg, gw, hash, IPPROTO_IPIP, p->len + overhead);
	}
	return transmit(p, gw);
}

/* For gateways on the same segment: the packet itself is not touched. */
static __always_inline int forward_l2(const struct packet *p, const struct nlb_gateway *gw)
{
	struct cursor c = { (void *)(long)p->ctx->data, (void *)(long)p->ctx->data_end };
	struct ethhdr *eth = cursor_take(&c, sizeof(*eth));

	if (!eth)
		return finish(NLB_REASON_TRUNCATED);
	write_macs(eth, gw);
	return transmit(p, gw);
}
