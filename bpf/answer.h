/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Answers of the program's own, sent back the way the packet came: echo replies, and "too big" with
 * the size that would fit. All rare, so none of it is inlined.
 */
#pragma once

#include "bpf/guard.h"
#include "bpf/headers.h"
#include "bpf/link.h"

/* The first eight bytes of every ICMP and ICMPv6 message (linux/icmp.h wants a C library). */
struct icmp_header {
	__u8 type, code;
	__u16 checksum;
	__be32 rest;
};
enum { ICMP4_ECHO_REPLY = 0, ICMP4_UNREACHABLE = 3, ICMP4_ECHO_REQUEST = 8 };
enum { ICMP4_TIME_EXCEEDED = 11, ICMP4_PARAMETER_PROBLEM = 12 };
enum { ICMP4_CODE_FRAGMENTATION_NEEDED = 4 };
enum { ICMP6_UNREACHABLE = 1, ICMP6_TOO_BIG = 2, ICMP6_PARAMETER_PROBLEM = 4 };
enum { ICMP6_ECHO_REQUEST = 128, ICMP6_ECHO_REPLY = 129 };

#define ANSWER_TTL 64

/*
 * How much of the offending packet goes back: as much as keeps the answer within 576 bytes (RFC
 * 1812 4.3.2.3) and within 1,280 (RFC 4443 2.4 c).
 */
#define QUOTE4 (576 - (int)(sizeof(struct iphdr) + sizeof(struct icmp_header)))
#define QUOTE6 (1280 - (int)(sizeof(struct ipv6hdr) + sizeof(struct icmp_header)))

#define CSUM_MAX 512 /* what the kernel's helper sums up at once */

static __always_inline __u16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* RFC 1624, of one 16-bit word as it lies in the packet. */
static __always_inline void csum_replace(__u16 *check, __u16 from, __u16 to)
{
	*check = csum_fold((__u64)(__u16) ~*check + (__u16)~from + to);
}

/* Nobody is answered who is not one host (RFC 1122 3.2.2, RFC 4443 2.4 e). */
static __always_inline bool is_answerable4(__be32 address)
{
	__u8 first = (__u8)address;

	return first != 0 && first != 127 && first < 224;
}

static __always_inline bool is_answerable6(const __be32 *a)
{
	if ((__u8)a[0] == 0xff)
		return false;
	return a[0] || a[1] || a[2] || bpf_ntohl(a[3]) > 1;
}

static __always_inline bool answer_guard_allows(void)
{
	__u32 zero = 0;
	struct nlb_config *cfg = bpf_map_lookup_elem(&config, &zero);

	return cfg && guard_allows(bpf_map_lookup_elem(&icmp_guard, &zero), cfg->icmp_per_tick,
				   bpf_jiffies64());
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 to[ETH_ALEN];

	__builtin_memcpy(to, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, to, ETH_ALEN);
}

/*
 * Turns an echo request into its reply, in place. Checksums change by what changes: a swap of
 * addresses is none. A request that was damaged on its way is so still as a reply. Returns a
 * reason.
 */
static __noinline int answer_echo4(struct xdp_md *ctx, __u32 l3_offset, __u32 l4_offset)
{
	struct ethhdr *eth = frame_at(ctx, 0, sizeof(*eth));
	struct iphdr *ip = frame_at(ctx, l3_offset, sizeof(*ip));
	struct icmp_header *icmp = frame_at(ctx, l3_offset + l4_offset, sizeof(*icmp));
	__u16 before, after;
	__be32 source;

	if (!eth || !ip || !icmp)
		return NLB_REASON_TRUNCATED;
	if (!is_answerable4(ip->saddr))
		return NLB_REASON_SPOOFED;
	if (!answer_guard_allows())
		return NLB_REASON_ICMP_RATE;

	swap_macs(eth);
	source = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = source;
	before = *(__u16 *)&ip->ttl;
	ip->ttl = ANSWER_TTL;
	after = *(__u16 *)&ip->ttl;
	csum_replace(&ip->check, before, after);
	icmp->type = ICMP4_ECHO_REPLY;
	csum_replace(&icmp->checksum, ICMP4_ECHO_REQUEST, ICMP4_ECHO_REPLY);
	return NLB_REASON_ECHO_REPLY;
}

static __noinline int answer_echo6(struct xdp_md *ctx, __u32 l3_offset, __u32 l4_offset)
{
	struct ethhdr *eth = frame_at(ctx, 0, sizeof(*eth));
	struct ipv6hdr *ip = frame_at(ctx, l3_offset, sizeof(*ip));
	struct icmp_header *icmp = frame_at(ctx, l3_offset + l4_offset, sizeof(*icmp));
	struct in6_addr source;

	if (!eth || !ip || !icmp)
		return NLB_REASON_TRUNCATED;
	if (!is_answerable6(ip->saddr.in6_u.u6_addr32))
		return NLB_REASON_SPOOFED;
	if (!answer_guard_allows())
		return NLB_REASON_ICMP_RATE;

	swap_macs(eth);
	source = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = source;
	ip->hop_limit = ANSWER_TTL;
	icmp->type = ICMP6_ECHO_REPLY;
	csum_replace(&icmp->checksum, ICMP6_ECHO_REQUEST, ICMP6_ECHO_REPLY);
	return NLB_REASON_ECHO_REPLY;
}

/* Cuts the packet down to `quote` bytes and puts room for an answer before it. */
static __always_inline void *answer_open(struct xdp_md *ctx, __u32 l3_offset, __u32 len,
					 __u32 header_len, int quote)
{
	struct link_header link;

	if (!link_save(ctx, &link) || bpf_xdp_adjust_tail(ctx, quote - (int)len))
		return NULL;
	swap_macs(&link.eth);
	return link_move(ctx, l3_offset, -(int)header_len, header_len + (__u32)quote, &link);
}

/*
 * "Fragmentation needed" (RFC 792, RFC 1191), if the sender forbade us to fragment. The advice is
 * the same for all packets of a connection. A packet shorter than what we would quote meets a path
 * that is narrower than any that we support.
 */
__noinline int tell_too_big4(struct xdp_md *ctx, __u32 l3_offset, __u32 mtu)
{
	struct {
		struct iphdr ip;
		struct icmp_header icmp;
		struct iphdr quoted;
	} * out;
	struct iphdr *ip;
	__u32 len;
	__s64 sum;

	ip = frame_at(ctx, l3_offset, sizeof(*ip));
	if (!ip)
		return finish(NLB_REASON_TRUNCATED);
	len = bpf_ntohs(ip->tot_len);
	if (!(ip->frag_off & bpf_htons(IPV4_DONT_FRAGMENT)) || len < QUOTE4 ||
	    !is_answerable4(ip->saddr))
		return finish(NLB_REASON_TOO_BIG);
	if (!answer_guard_allows())
		return finish(NLB_REASON_ICMP_RATE);
	out = answer_open(ctx, l3_offset, len, offsetof(typeof(*out), quoted), QUOTE4);
	if (!out)
		return finish(NLB_REASON_NO_HEADROOM);

	out->ip =
		(struct iphdr) { .version = 4,
				 .ihl = 5,
				 .tot_len = bpf_htons(sizeof(out->ip) + sizeof(out->icmp) + QUOTE4),
				 .frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
				 .ttl = ANSWER_TTL,
				 .protocol = IPPROTO_ICMP,
				 .saddr = out->quoted.daddr,
				 .daddr = out->quoted.saddr };
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&out->ip, sizeof(out->ip), 0);
	out->ip.check = csum_fold((__u64)sum);

	out->icmp = (struct icmp_header) { .type = ICMP4_UNREACHABLE,
					   .code = ICMP4_CODE_FRAGMENTATION_NEEDED,
					   .rest = bpf_htonl(mtu & 0xffff) };
	_Static_assert(sizeof(out->icmp) + QUOTE4 - CSUM_MAX <= CSUM_MAX, "two pieces");
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&out->icmp, CSUM_MAX, 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&out->icmp + CSUM_MAX,
			    sizeof(out->icmp) + QUOTE4 - CSUM_MAX, (__wsum)sum);
	out->icmp.checksum = csum_fold((__u64)sum);
	return finish(NLB_REASON_TOLD_TOO_BIG);
}

/* "Packet too big" (RFC 4443 3.2). Less than 1,280 is not for IPv6 to be told (RFC 8200 5). */
__noinline int tell_too_big6(struct xdp_md *ctx, __u32 l3_offset, __u32 mtu)
{
	struct {
		struct ipv6hdr ip;
		struct icmp_header icmp;
		struct ipv6hdr quoted;
	} * out;
	struct ipv6hdr *ip;
	__u32 len;
	__s64 sum;

	ip = frame_at(ctx, l3_offset, sizeof(*ip));
	if (!ip)
		return finish(NLB_REASON_TRUNCATED);
	len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (len <= IPV6_MTU_MIN || !is_answerable6(ip->saddr.in6_u.u6_addr32))
		return finish(NLB_REASON_TOO_BIG);
	if (!answer_guard_allows())
		return finish(NLB_REASON_ICMP_RATE);
	out = answer_open(ctx, l3_offset, len, offsetof(typeof(*out), quoted), QUOTE6);
	if (!out)
		return finish(NLB_REASON_NO_HEADROOM);

	out->ip = (struct ipv6hdr) { .version = 6,
				     .payload_len = bpf_htons(sizeof(out->icmp) + QUOTE6),
				     .nexthdr = IPPROTO_ICMPV6,
				     .hop_limit = ANSWER_TTL,
				     .saddr = out->quoted.daddr,
				     .daddr = out->quoted.saddr };
	out->icmp = (struct icmp_header) {
		.type = ICMP6_TOO_BIG, .rest = bpf_htonl(mtu > IPV6_MTU_MIN ? mtu : IPV6_MTU_MIN)
	};
	_Static_assert(sizeof(out->icmp) + QUOTE6 - 2 * CSUM_MAX <= CSUM_MAX, "three pieces");
	/* The pseudo header: both addresses, the length, the protocol. */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&out->ip.saddr, 2 * sizeof(struct in6_addr),
			    bpf_htonl(sizeof(out->icmp) + QUOTE6 + IPPROTO_ICMPV6));
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&out->icmp, CSUM_MAX, (__wsum)sum);
	sum = bpf_csum_diff(NULL, 0, (void *)&out->icmp + CSUM_MAX, CSUM_MAX, (__wsum)sum);
	sum = bpf_csum_diff(NULL, 0, (void *)&out->icmp + 2 * CSUM_MAX,
			    sizeof(out->icmp) + QUOTE6 - 2 * CSUM_MAX, (__wsum)sum);
	out->icmp.checksum = csum_fold((__u64)sum);
	return finish(NLB_REASON_TOLD_TOO_BIG);
}
