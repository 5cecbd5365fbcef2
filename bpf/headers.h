/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv4, IPv6, TCP and UDP headers: what they say, and whether that can be. */
#pragma once

#include "bpf/packet.h"
#include "bpf/parse.h"

#include <linux/ipv6.h>

#define IPV6_MTU_MIN         1280
#define IPV6_MAX_EXTENSIONS  8
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_FRAGMENT_MORE   0x0001

/*
 * The reason of a packet that is not understood. Its destination is known, unless the reason is
 * that it belongs to nobody.
 */
static __always_inline int parse_ipv4(struct packet *p, struct cursor *c)
{
	void *start = c->pos;
	struct iphdr *ip = cursor_take(c, sizeof(*ip));

	if (!ip)
		return NLB_REASON_NO_VIP;
	p->source[0] = ip->saddr;
	p->destination[0] = ip->daddr;
	p->protocol = ip->protocol;
	p->tos = ip->tos;
	p->fragment = ip->frag_off;
	p->fragment_id = ip->id;
	p->len = bpf_ntohs(ip->tot_len);
	p->l4_offset = ip->ihl * 4U;

	if (ip->version != 4 || p->l4_offset < sizeof(*ip))
		return NLB_REASON_MALFORMED;
	if (p->len < p->l4_offset || start + p->len > c->end)
		return NLB_REASON_TRUNCATED;
	c->pos = start + p->l4_offset;
	return CONTINUE;
}

/* The fixed header; `protocol` may be that of an extension header. */
static __always_inline int parse_ipv6(struct packet *p, struct cursor *c)
{
	void *start = c->pos;
	struct ipv6hdr *ip = cursor_take(c, sizeof(*ip));

	if (!ip)
		return NLB_REASON_NO_VIP;
	copy_address(p->source, ip->saddr.in6_u.u6_addr32, true);
	copy_address(p->destination, ip->daddr.in6_u.u6_addr32, true);
	p->protocol = ip->nexthdr;
	p->tos = (__u8)(ip->priority << 4 | ip->flow_lbl[0] >> 4);
	p->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	p->l4_offset = sizeof(*ip);

	if (ip->version != 6)
		return NLB_REASON_MALFORMED;
	if (start + p->len > c->end)
		return NLB_REASON_TRUNCATED;
	return CONTINUE;
}

static __always_inline int parse_tcp(struct packet *p, struct cursor *c, __u32 l4_len)
{
	struct tcphdr *tcp = cursor_take(c, sizeof(*tcp));

	if (!tcp || l4_len < sizeof(*tcp))
		return NLB_REASON_TRUNCATED;
	if (tcp->doff < 5)
		return NLB_REASON_MALFORMED;
	if (tcp->doff * 4U > l4_len)
		return NLB_REASON_TRUNCATED;

	p->ports = *(__u32 *)tcp;
	p->is_syn = tcp->syn && !tcp->ack;
	return CONTINUE;
}

/* The length of a fragmented datagram goes beyond its first fragment. */
static __always_inline int parse_udp(struct packet *p, struct cursor *c, __u32 l4_len,
				     bool is_fragment)
{
	struct udphdr *udp = cursor_take(c, sizeof(*udp));

	if (!udp || l4_len < sizeof(*udp))
		return NLB_REASON_TRUNCATED;
	if (bpf_ntohs(udp->len) < sizeof(*udp))
		return NLB_REASON_MALFORMED;
	if (bpf_ntohs(udp->len) > l4_len && !is_fragment)
		return NLB_REASON_TRUNCATED;

	p->ports = *(__u32 *)udp;
	return CONTINUE;
}

static __always_inline int parse_l4(struct packet *p, struct cursor *c, bool is_fragment)
{
	__u32 l4_len = p->len - p->l4_offset;

	if (p->protocol == IPPROTO_TCP)
		return parse_tcp(p, c, l4_len);
	if (p->protocol == IPPROTO_UDP)
		return parse_udp(p, c, l4_len, is_fragment);
	return NLB_REASON_NO_SERVICE;
}

/* What a walk along IPv6 extension headers found. */
struct extensions {
	__u32 l4_offset;   /* from the start of the frame */
	__u32 fragment_id; /* as it lies in the packet */
	bool is_fragment;  /* one of several: a single one is none (RFC 6946) */
	bool is_later;     /* not the first of them: the rest cannot be read */
	__u8 protocol;
};

/*
 * From `offset` on, where a header of type `next` begins. Offsets rather than pointers are carried
 * along, so that the verifier has one state for each header, not one for each path. A quoted packet
 * may end early, and is then cut off in a header, not between them.
 */
static __noinline int ipv6_walk(struct xdp_md *ctx, __u32 offset, __u8 next, struct extensions *x)
{
#pragma unroll
	for (int i = 0; i <= IPV6_MAX_EXTENSIONS; i++) {
		struct {
			__u8 next, len;
			__be16 fragment;
			__u32 fragment_id;
		} * header;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT) {
			x->l4_offset = offset;
			x->protocol = next;
			return CONTINUE;
		}
		if (i == IPV6_MAX_EXTENSIONS)
			break;
		header = frame_at(ctx, offset, sizeof(*header));
		if (!header)
			return NLB_REASON_TRUNCATED;
		if (next == IPPROTO_FRAGMENT) {
			__u16 place = bpf_ntohs(header->fragment);

			x->is_fragment = place & (IPV6_FRAGMENT_OFFSET | IPV6_FRAGMENT_MORE);
			x->fragment_id = header->fragment_id;
			offset += sizeof(*header);
			if (place & IPV6_FRAGMENT_OFFSET) {
				x->is_later = true;
				x->l4_offset = offset;
				x->protocol = IPPROTO_FRAGMENT;
				return CONTINUE;
			}
		} else {
			offset += (header->len + 1U) * 8;
		}
		next = header->next;
	}
	return NLB_REASON_EXTENSIONS;
}
