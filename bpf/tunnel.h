/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The outer headers of a packet on a gateway host: is it a tunnel's, of which kind, from whom. */
#pragma once

#include <linux/in6.h>
#include <linux/ipv6.h>

#include "bpf/decap_maps.h"
#include "bpf/ecn.h"
#include "bpf/parse.h"

/* Offsets count from the first byte of the outer IP header; none is larger than TUNNEL_OFFSET_MASK,
 * which the verifier has to be told where they are used. */
#define GUE_LEN            ((__u32)(sizeof(struct udphdr) + sizeof(struct nlb_gue)))
#define TUNNEL_OFFSET_MASK 0xff /* 60 + 8 + 4 + 31 * 4 at most */
struct tunnel {
	__u32 inner_at; /* the inner IP header: all before it has to go */
	__u32 ended_at; /* where the outer packet ends */
	__u32 udp_at;   /* UDP, GUE and struct nlb_gue_private behind it; 0: it names nobody */
	__u32 hop_at;   /* address of the gateway to try next; 0: nobody is left */
	__u32 reason;   /* DECAP_REASON_IPIP or _GUE: what it is; any other: its end */
	__u8 protocol;  /* of what is inside: IPPROTO_IPIP or IPPROTO_IPV6 */
	__u8 ecn;
	bool is_ipv6;
};

static __always_inline bool is_ip(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6;
}

/*
 * Who else may know the connection. Private data of another type is not for us and ignored. What
 * contradicts itself is not forgiven: its sender is a load balancer of ours, and either it or the
 * network is broken. `udp_at`: where the UDP header before it is; `words`: its
 * length.
 */
static __always_inline __u32 parse_private(struct tunnel *t, struct cursor *c, __u32 udp_at,
					   __u32 words)
{
	struct nlb_gue_private *private = cursor_take(c, sizeof(*private));
	__u32 address_words;

	if (!private)
		return DECAP_REASON_MALFORMED;
	if (private->type != NLB_GUE_PRIVATE_TYPE)
		return DECAP_REASON_GUE;
	if (private->family != 4 && private->family != 6)
		return DECAP_REASON_MALFORMED;
	address_words = private->family == 6 ? 4 : 1;
	if (private->count < 1 || private->count > 2 || private->next > private->count ||
	    words < 1 + private->count * address_words)
		return DECAP_REASON_MALFORMED;

	t->udp_at = udp_at;
	/* The packet goes on as it is, so it cannot change over to the other family. */
	if (private->next < private->count && (private->family == 6) == t->is_ipv6)
		t->hop_at = udp_at + GUE_LEN + (__u32)sizeof(*private) +
			    private->next * address_words * 4;
	return DECAP_REASON_GUE;
}

static __always_inline __u32 parse_gue(struct tunnel *t, struct cursor *c)
{
	struct nlb_gue *gue = cursor_take(c, sizeof(*gue));
	__u32 udp_at = t->inner_at, words;

	if (!gue)
		return DECAP_REASON_MALFORMED;
	/* Version 0 and no control message; flagged fields would have lengths that we do not know.
	 */
	if ((gue->version_hlen & 0xe0) || gue->flags || !is_ip(gue->protocol))
		return DECAP_REASON_UNSUPPORTED;
	words = gue->version_hlen & 0x1fU;
	t->protocol = gue->protocol;
	t->inner_at += GUE_LEN + words * 4;
	return words ? parse_private(t, c, udp_at, words) : DECAP_REASON_GUE;
}

/*
 * From here on it is a tunnel's packet, decapsulated or dropped. `c` stands behind the UDP header
 * if there is one, and t->inner_at is the length of the IP header.
 */
static __always_inline __u32 parse_inside(struct tunnel *t, struct cursor *c, void *start,
					  const struct udphdr *udp)
{
	__u32 udp_len;

	if (start + t->ended_at > c->end)
		return DECAP_REASON_MALFORMED;
	if (!udp)
		return DECAP_REASON_IPIP;
	udp_len = bpf_ntohs(udp->len);
	if (t->inner_at + udp_len > t->ended_at)
		return DECAP_REASON_MALFORMED;
	t->ended_at = t->inner_at + udp_len;
	return parse_gue(t, c);
}

/* The UDP header of a tunnel's packet, or NULL: another port, or no whole header. */
static __always_inline struct udphdr *take_gue_udp(struct cursor *c)
{
	struct udphdr *udp = cursor_take(c, sizeof(*udp));

	return udp && udp->dest == bpf_htons(NLB_GUE_PORT) ? udp : NULL;
}

static __always_inline __u32 parse_outer_ipv4(struct tunnel *t, struct cursor *c)
{
	void *start = c->pos;
	struct iphdr *ip = cursor_take(c, sizeof(*ip));
	struct udphdr *udp = NULL;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return DECAP_REASON_NOT_TUNNEL;
	if (!is_ip(ip->protocol) && ip->protocol != IPPROTO_UDP)
		return DECAP_REASON_NOT_TUNNEL;

	t->inner_at = ip->ihl * 4U;
	t->ended_at = bpf_ntohs(ip->tot_len);
	t->ecn = ip->tos & ECN_MASK;
	t->protocol = ip->protocol;
	c->pos = start + t->inner_at;
	if (ip->protocol == IPPROTO_UDP) {
		/* A later fragment has no ports; its first one is dropped below. */
		if (ip->frag_off & bpf_htons(0x1fff))
			return DECAP_REASON_NOT_TUNNEL;
		udp = take_gue_udp(c);
		if (!udp)
			return DECAP_REASON_NOT_TUNNEL;
	}
	if (!is_source4(ip->saddr))
		return DECAP_REASON_STRANGER;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_BITS))
		return DECAP_REASON_FRAGMENT;
	return parse_inside(t, c, start, udp);
}

/* No load balancer of ours sends extension headers: a packet that has any is the kernel's. */
static __always_inline __u32 parse_outer_ipv6(struct tunnel *t, struct cursor *c)
{
	void *start = c->pos;
	struct ipv6hdr *ip = cursor_take(c, sizeof(*ip));
	struct udphdr *udp = NULL;

	if (!ip || ip->version != 6)
		return DECAP_REASON_NOT_TUNNEL;
	if (ip->nexthdr == IPPROTO_UDP) {
		udp = take_gue_udp(c);
		if (!udp)
			return DECAP_REASON_NOT_TUNNEL;
	} else if (!is_ip(ip->nexthdr)) {
		return DECAP_REASON_NOT_TUNNEL;
	}

	t->is_ipv6 = true;
	t->inner_at = sizeof(*ip);
	t->ended_at = (__u32)sizeof(*ip) + bpf_ntohs(ip->payload_len);
	t->ecn = ecn_get_ipv6(ip);
	t->protocol = ip->nexthdr;
	if (!is_source6(&ip->saddr))
		return DECAP_REASON_STRANGER;
	return parse_inside(t, c, start, udp);
}
