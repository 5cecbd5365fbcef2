/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP to a virtual IP. An error of a router or a client quotes a packet that a gateway sent: the
 * gateway that owns that connection has to hear of it, or path MTU discovery fails.
 */
#pragma once

#include "bpf/answer.h"
#include "bpf/headers.h"

#define QUOTE_L4_LEN                                                                \
	8 /* of what is behind the quoted IP header, all that is promised (RFC 792) \
	   */

static __always_inline bool is_icmp_error(__u8 type, bool is_ipv6)
{
	if (is_ipv6)
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER_PROBLEM;
	return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED ||
	       type == ICMP4_PARAMETER_PROBLEM;
}

static __always_inline bool is_echo_request(__u8 type, __u8 code, bool is_ipv6)
{
	return type == (is_ipv6 ? ICMP6_ECHO_REQUEST : ICMP4_ECHO_REQUEST) && code == 0;
}

/*
 * Reads the IP header at `*offset` of the frame and moves behind it. Source and destination change
 * places: the quoted packet is one of those that our clients get. False also if it does not come
 * from the virtual IP that `p` is addressed to.
 */
static __always_inline bool quote_ipv4(struct packet *p, __u32 *offset)
{
	struct iphdr *ip = frame_at(p->ctx, *offset, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return false;
	if (!is_same_address(&ip->saddr, p->destination, false))
		return false;
	p->source[0] = ip->daddr;
	p->protocol = ip->protocol;
	*offset += ip->ihl * 4U;
	return !(ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET));
}

static __always_inline bool quote_ipv6(struct packet *p, __u32 *offset)
{
	struct ipv6hdr *ip = frame_at(p->ctx, *offset, sizeof(*ip));
	struct extensions x = { 0 };

	if (!ip || ip->version != 6)
		return false;
	if (!is_same_address(ip->saddr.in6_u.u6_addr32, p->destination, true))
		return false;
	copy_address(p->source, ip->daddr.in6_u.u6_addr32, true);
	if (ipv6_walk(p->ctx, *offset + sizeof(*ip), ip->nexthdr, &x) != CONTINUE)
		return false;
	p->protocol = x.protocol;
	*offset = x.l4_offset;
	return !x.is_later;
}

/*
 * Gives `p` the tuple, as the client sends it, of the connection that the error behind its ICMP
 * header is about; what is said of its length and place stays. False if it is none of this virtual
 * IP.
 */
static __always_inline bool parse_quote(struct packet *p, bool is_ipv6)
{
	__u32 offset = p->l3_offset + p->l4_offset + sizeof(struct icmp_header);
	__u32 *ports;

	if (!(is_ipv6 ? quote_ipv6(p, &offset) : quote_ipv4(p, &offset)))
		return false;
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return false;
	ports = frame_at(p->ctx, offset, QUOTE_L4_LEN);
	if (!ports || offset + QUOTE_L4_LEN > p->l3_offset + p->len)
		return false;
	p->ports = *ports >> 16 | *ports << 16;
	return true;
}
