/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Explicit congestion notification at the end of a tunnel (RFC 6040, section 4.2). */
#pragma once

#include <stdbool.h>

#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum ecn { ECN_NONE = 0, ECN_CAPABLE_1 = 1, ECN_CAPABLE_0 = 2, ECN_CONGESTED = 3 };
#define ECN_MASK 3

/*
 * What the inner packet has to say when it leaves the tunnel: the graver of the two marks. A packet
 * that takes no marks keeps none; were it marked outside, it has to be dropped, which is the only
 * sign of congestion that its connection understands.
 */
static __always_inline __u8 ecn_leave(__u8 inner, __u8 outer)
{
	if (inner == ECN_NONE || inner == ECN_CONGESTED)
		return inner;
	if (outer == ECN_CONGESTED || outer == ECN_CAPABLE_1)
		return outer;
	return inner;
}

static __always_inline bool ecn_is_lost(__u8 inner, __u8 outer)
{
	return inner == ECN_NONE && outer == ECN_CONGESTED;
}

static __always_inline void ecn_carry_ipv4(struct iphdr *ip, __u8 outer)
{
	__u8 old = ip->tos & ECN_MASK;
	__u8 ecn = ecn_leave(old, outer);
	__u32 sum;

	if (ecn == old)
		return;
	/* The field is part of the header's first word (RFC 1624). */
	sum = (__u32)bpf_ntohs(ip->check) + old + (0xffffU - ecn);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = bpf_htons((__u16)((sum & 0xffff) + (sum >> 16)));
	ip->tos = (__u8)((ip->tos & ~ECN_MASK) | ecn);
}

static __always_inline __u8 ecn_get_ipv6(const struct ipv6hdr *ip)
{
	return (ip->flow_lbl[0] >> 4) & ECN_MASK;
}

static __always_inline void ecn_carry_ipv6(struct ipv6hdr *ip, __u8 outer)
{
	__u8 ecn = ecn_leave(ecn_get_ipv6(ip), outer);

	ip->flow_lbl[0] = (__u8)((ip->flow_lbl[0] & ~(ECN_MASK << 4)) | ecn << 4);
}
