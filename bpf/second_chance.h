/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Second chance: a packet of a connection that this host does not know is sent on to the next
 * gateway that its GUE header names, instead of being answered with a reset. So connections outlive
 * a change of the pool also where the packet came by a load balancer that has never seen them.
 *
 * Packets cannot go round: the index into the list of gateways only grows.
 */
#pragma once

#include "bpf/tunnel.h"

#define OUTER_TTL      64
#define LOOPBACK_INDEX 1 /* of `lo`, in every network namespace */
#define NO_SECOND      (-1)

/* An inner TCP packet's headers, and who talks to whom. */
struct tcp_packet {
	void *ip;
	struct tcphdr *tcp;
	struct bpf_sock_tuple tuple;
};

/*
 * Whether a socket here takes the packet. A listener does only for the last packet of a handshake
 * with a SYN cookie, which is the one case of a connection that has no socket yet (a handshake
 * without has a request socket). Lengths are arguments, for the verifier to see that they are
 * constant: clang 19 puts members of a structure on the stack, where 32 bits lose their value.
 */
static __always_inline bool has_socket(struct xdp_md *ctx, struct tcp_packet *p, __u32 ip_len,
				       __u32 tuple_len)
{
	__u32 zero = 0;
	struct decap_config *cfg = bpf_map_lookup_elem(&decap_config, &zero);
	__u64 netns = (__u64)BPF_F_CURRENT_NETNS;
	struct bpf_sock *sk;
	bool is_ours;

	if (cfg && (cfg->flags & DECAP_CONFIG_NETNS))
		netns = cfg->socket_netns;
	sk = bpf_skc_lookup_tcp(ctx, &p->tuple, tuple_len, netns, 0);
	if (!sk)
		return false;
	is_ours = sk->state != BPF_TCP_LISTEN ||
		  bpf_tcp_check_syncookie(sk, p->ip, ip_len, p->tcp, sizeof(*p->tcp)) == 0;
	bpf_sk_release(sk);
	return is_ours;
}

/* The TCP header of a packet whose gateway matters; a SYN, fragments and the rest go to the kernel.
 */
static __always_inline bool take_tcp(struct tcp_packet *p, struct cursor *c, __u32 l4_len)
{
	p->tcp = cursor_take(c, sizeof(*p->tcp));
	return p->tcp && l4_len >= sizeof(*p->tcp) && (!p->tcp->syn || p->tcp->ack);
}

static __always_inline bool is_unknown4(struct xdp_md *ctx, struct iphdr *ip, void *end)
{
	__u32 header_len = ip->ihl * 4U;
	struct cursor c = { (void *)ip + header_len, end };
	struct tcp_packet p = { .ip = ip };

	if (ip->protocol != IPPROTO_TCP || (ip->frag_off & bpf_htons(IPV4_FRAGMENT_BITS)) ||
	    !take_tcp(&p, &c, bpf_ntohs(ip->tot_len) - header_len))
		return false;
	p.tuple.ipv4.saddr = ip->saddr;
	p.tuple.ipv4.daddr = ip->daddr;
	p.tuple.ipv4.sport = p.tcp->source;
	p.tuple.ipv4.dport = p.tcp->dest;
	return !has_socket(ctx, &p, sizeof(*ip), sizeof(p.tuple.ipv4));
}

static __always_inline bool is_unknown6(struct xdp_md *ctx, struct ipv6hdr *ip, void *end)
{
	struct cursor c = { ip + 1, end };
	struct tcp_packet p = { .ip = ip };

	if (ip->nexthdr != IPPROTO_TCP || !take_tcp(&p, &c, bpf_ntohs(ip->payload_len)))
		return false;
	__builtin_memcpy(p.tuple.ipv6.saddr, &ip->saddr, sizeof(p.tuple.ipv6.saddr));
	__builtin_memcpy(p.tuple.ipv6.daddr, &ip->daddr, sizeof(p.tuple.ipv6.daddr));
	p.tuple.ipv6.sport = p.tcp->source;
	p.tuple.ipv6.dport = p.tcp->dest;
	return !has_socket(ctx, &p, sizeof(*ip), sizeof(p.tuple.ipv6));
}

/* --- sending on --------------------------------------------------------------------------------
 */

/* The outer packet's parts that change. Exactly one of ip4 and ip6 is there. */
struct outer {
	struct ethhdr *eth;
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	struct udphdr *udp;
	struct nlb_gue_private *private;
	__u8 *hop;
};

/* One test for each pointer: of several in one expression clang 19 makes an OR of pointers, which
 * the verifier refuses. */
static __always_inline bool outer_find(struct outer *o, struct xdp_md *ctx, __u32 l3_offset,
				       const struct tunnel *t)
{
	void *data = (void *)(long)ctx->data;
	void *l3 = data + l3_offset;
	struct cursor c = { data, (void *)(long)ctx->data_end };

	o->eth = cursor_take(&c, sizeof(*o->eth));
	if (!o->eth)
		return false;
	c.pos = l3;
	if (t->is_ipv6) {
		o->ip6 = cursor_take(&c, sizeof(*o->ip6));
		if (!o->ip6)
			return false;
	} else {
		o->ip4 = cursor_take(&c, sizeof(*o->ip4));
		if (!o->ip4)
			return false;
	}
	c.pos = l3 + (t->udp_at & TUNNEL_OFFSET_MASK);
	o->udp = cursor_take(&c, sizeof(*o->udp));
	if (!o->udp || !cursor_take(&c, sizeof(struct nlb_gue)))
		return false;
	o->private = cursor_take(&c, sizeof(*o->private));
	if (!o->private)
		return false;
	c.pos = l3 + (t->hop_at & TUNNEL_OFFSET_MASK);
	o->hop = cursor_take(&c, t->is_ipv6 ? 16 : 4);
	return o->hop != NULL;
}

/*
 * Asks the routes as for a packet of the host's own, which is what `lo` as the incoming interface
 * means. From the real one it would only be answered where the host forwards packets, which a
 * gateway has no reason to; `lo` forwarding concerns nobody else (`nlbctl decap attach` sets it).
 */
static __always_inline long find_route4(struct xdp_md *ctx, struct bpf_fib_lookup *fib,
					__be32 source, __be32 destination)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = 2; /* AF_INET */
	fib->l4_protocol = IPPROTO_UDP;
	fib->ifindex = LOOPBACK_INDEX;
	fib->ipv4_src = source;
	fib->ipv4_dst = destination;
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

static __always_inline long find_route6(struct xdp_md *ctx, struct bpf_fib_lookup *fib,
					const void *source, const void *destination)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = 10; /* AF_INET6 */
	fib->l4_protocol = IPPROTO_UDP;
	fib->ifindex = LOOPBACK_INDEX;
	if (source)
		__builtin_memcpy(fib->ipv6_src, source, sizeof(fib->ipv6_src));
	__builtin_memcpy(fib->ipv6_dst, destination, sizeof(fib->ipv6_dst));
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/*
 * From this gateway to the next: a source that the next one's list knows, a fresh time to live.
 * The sum changes by what changes and keeps a fault that was in it; the own address stays in it.
 */
static __always_inline void readdress4(struct iphdr *ip, const __u8 *hop)
{
	__be32 own = ip->daddr, next;
	__u32 sum = (__u16)~ip->check;

	__builtin_memcpy(&next, hop, sizeof(next));
	sum += (__u16)~ip->saddr;
	sum += (__u16) ~(ip->saddr >> 16);
	sum += (__u16)next;
	sum += next >> 16;
	sum += (__u16)~bpf_htons((__u16)(ip->ttl << 8));
	sum += bpf_htons(OUTER_TTL << 8);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = (__u16)~sum;
	ip->saddr = own;
	ip->daddr = next;
	ip->ttl = OUTER_TTL;
}

static __always_inline void readdress6(struct ipv6hdr *ip, const __u8 *hop)
{
	ip->saddr = ip->daddr;
	__builtin_memcpy(&ip->daddr, hop, sizeof(ip->daddr));
	ip->hop_limit = OUTER_TTL;
}

static __always_inline int transmit(struct xdp_md *ctx, const struct outer *o, __u32 l3_offset,
				    const struct bpf_fib_lookup *fib)
{
	__builtin_memcpy(o->eth->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(o->eth->h_source, fib->smac, ETH_ALEN);
	finish(DECAP_REASON_SECOND_CHANCE);
	/* A route of a VLAN names its virtual interface, which takes no frames from here; with its
	 * tag kept, the frame goes back out of the real one below. */
	if (fib->ifindex == ctx->ingress_ifindex || l3_offset > sizeof(struct ethhdr))
		return XDP_TX;
	return (int)bpf_redirect(fib->ifindex, 0);
}

/*
 * Back to where it came from, with the next gateway's address on it. Was that a router, as it is in
 * routed networks, it knows the way; was it the load balancer itself on the same segment, it
 * forwards or drops: nothing is lost that would not be lost otherwise. (The kernel is no help: it
 * takes no packet from outside that has a source address of its own.)
 */
static __always_inline int reflect(const struct outer *o)
{
	__u8 own[ETH_ALEN];

	__builtin_memcpy(own, o->eth->h_dest, ETH_ALEN);
	__builtin_memcpy(o->eth->h_dest, o->eth->h_source, ETH_ALEN);
	__builtin_memcpy(o->eth->h_source, own, ETH_ALEN);
	return finish(DECAP_REASON_REFLECTED);
}

/*
 * Sends the packet, as it came in its tunnel, on to the next gateway. Returns the XDP action, or
 * NO_SECOND: there is nobody to send it to, so it is this host's to answer.
 */
static __always_inline int send_on(struct xdp_md *ctx, __u32 l3_offset, const struct tunnel *t)
{
	struct bpf_fib_lookup fib;
	struct outer o = { 0 };
	long found;

	if (!t->hop_at || !outer_find(&o, ctx, l3_offset, t))
		return NO_SECOND;
	/* Addressed to this host? Where a switch floods and this interface listens to everything (a
	 * capture runs), it may be another's, who deals with it; here the kernel ignores it. */
	if (t->is_ipv6)
		found = find_route6(ctx, &fib, NULL, &o.ip6->daddr);
	else
		found = find_route4(ctx, &fib, 0, o.ip4->daddr);
	if (found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return NO_SECOND;

	if (t->is_ipv6)
		found = find_route6(ctx, &fib, &o.ip6->daddr, o.hop);
	else
		found = find_route4(ctx, &fib, o.ip4->daddr, *(__be32 *)o.hop);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return finish(DECAP_REASON_NO_NEXT_HOP);

	if (t->is_ipv6)
		readdress6(o.ip6, o.hop);
	else
		readdress4(o.ip4, o.hop);
	o.udp->check = 0; /* allowed for tunnels, also over IPv6 (RFC 6935) */
	o.private->next++;
	if (found == BPF_FIB_LKUP_RET_NO_NEIGH)
		return reflect(&o);
	return transmit(ctx, &o, l3_offset, &fib);
}
