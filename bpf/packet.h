/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the program knows of the packet in hand, and the ends it can come to. */
#pragma once

#include "bpf/maps.h"

#include <bpf/bpf_endian.h>

/*
 * On the usual way it lives in registers, since every function that takes it is inlined there. One
 * layout for both families: IPv4 leaves all but the first word of its addresses unused, and
 * functions are told by a constant `is_ipv6`, so that each family gets straight-line code.
 */
struct packet {
	struct xdp_md *ctx;
	__u32 l3_offset; /* from the start of the frame */
	__u32 l4_offset; /* from the start of the IP header */
	__u32 len;       /* of the IP packet, as its header says */
	__u32 ports;     /* source and destination as they lie in the packet */
	__be32 source[4];
	__be32 destination[4];
	__be16 fragment; /* IPv4: flags and offset */
	__u32 fragment_id;
	__u8 protocol;
	__u8 tos;
	bool is_syn;
	bool is_unanswerable; /* no ICMP error may be sent because of it */
};

#define CONTINUE (-1) /* no verdict yet; others are an enum nlb_reason */

static __always_inline int finish(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&reasons, &reason);

	if (count)
		(*count)++;

#define NLB_VERDICT(id, name, verdict, help) \
	case NLB_REASON_##id:                \
		return XDP_##verdict;
	switch (reason) {
		NLB_REASONS(NLB_VERDICT)
	}
	return XDP_DROP;
}

static __always_inline bool is_same_address(const __be32 *a, const __be32 *b, bool is_ipv6)
{
	if (!is_ipv6)
		return a[0] == b[0];
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

static __always_inline void copy_address(__be32 *to, const __be32 *from, bool is_ipv6)
{
	to[0] = from[0];
	if (is_ipv6) {
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
	}
}

/* 16 bytes for the maps that hold both families: IPv4 as ::ffff:a.b.c.d. */
static __always_inline void map_address(__u8 to[16], const __be32 *from, bool is_ipv6)
{
	__be32 *word = (__be32 *)to;

	word[0] = is_ipv6 ? from[0] : 0;
	word[1] = is_ipv6 ? from[1] : 0;
	word[2] = is_ipv6 ? from[2] : bpf_htonl(0xffff);
	word[3] = is_ipv6 ? from[3] : from[0];
}

static __always_inline __u64 packet_hash(const struct nlb_config *cfg, const struct packet *p,
					 __u32 ports, __u8 protocol, bool is_ipv6)
{
	if (is_ipv6)
		return nlb_hash6(cfg->hash_key, p->source, p->destination, ports, protocol);
	return nlb_hash4(cfg->hash_key, p->source[0], p->destination[0], ports, protocol);
}
