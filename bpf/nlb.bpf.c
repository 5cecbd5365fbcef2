/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The load balancer's fast path: an XDP program that gives every connection to a virtual IP to one
 * gateway and sends its packets there in a tunnel. The gateway answers the client directly.
 *
 * One packet, in order: parse, find the VIP, keep unwanted sources out, hash, find the ring slot,
 * ask the flow table where the slot has moved, encapsulate, send. Whole TCP and UDP packets take
 * the way through handle(), made anew for each family; VLAN tags, fragments, ICMP and IPv6
 * extension headers take handle_rare(), which reads the packet again from its beginning.
 */
#include "bpf/answer.h"
#include "bpf/encap.h"
#include "bpf/filter.h"
#include "bpf/flow.h"
#include "bpf/fragment.h"
#include "bpf/headers.h"
#include "bpf/icmp.h"
#include "bpf/maps.h"
#include "bpf/packet.h"
#include "bpf/parse.h"
#include "bpf/ring.h"
#include "bpf/vip.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct nlb_config *config_get(void)
{
	__u32 zero = 0;
	struct nlb_config *cfg = bpf_map_lookup_elem(&config, &zero);

	return cfg && (cfg->flags & NLB_CONFIG_READY) ? cfg : NULL;
}

/* Whether the source may send to this address at all. */
static __always_inline int admit(const struct packet *p, const struct nlb_config *cfg, bool is_ipv6)
{
	if (is_same_address(p->source, p->destination, is_ipv6))
		return NLB_REASON_SPOOFED;
	if (is_blocked(cfg, p, is_ipv6))
		return NLB_REASON_BLOCKED;
	return CONTINUE;
}

/* --- VLAN tags, fragments, ICMP, extension headers ---------------------------------------------
 */

static __always_inline int route_connection(struct packet *p, const struct nlb_config *cfg,
					    const struct extensions *x, struct route *r,
					    bool is_ipv6)
{
	struct cursor c = { frame_at(p->ctx, p->l3_offset + p->l4_offset, 0),
			    (void *)(long)p->ctx->data_end };
	int reason = c.pos ? parse_l4(p, &c, x->is_fragment) : NLB_REASON_TRUNCATED;
	struct nlb_vip *vip;

	if (reason != CONTINUE)
		return reason;
	vip = vip_find(cfg, p, is_ipv6);
	if (!vip)
		return NLB_REASON_NO_SERVICE;
	if (!is_allowed(vip, p, is_ipv6))
		return NLB_REASON_NOT_ALLOWED;
	reason = choose(p, cfg, vip, r, is_ipv6, false);
	if (reason == CONTINUE && x->is_fragment) {
		__u64 key = fragment_key(cfg, p, is_ipv6);

		fragment_remember(key, r);
		r->hash = key; /* so that all of them take one path through the network */
	}
	return reason;
}

static __always_inline int route_icmp_error(struct packet *p, const struct nlb_config *cfg,
					    struct route *r, bool is_ipv6)
{
	struct nlb_vip *vip;

	p->is_unanswerable = true;
	if (!parse_quote(p, is_ipv6))
		return NLB_REASON_ICMP_UNRELATED;
	vip = vip_find(cfg, p, is_ipv6);
	if (!vip)
		return NLB_REASON_ICMP_UNRELATED;
	return choose(p, cfg, vip, r, is_ipv6, true);
}

static __always_inline int route_icmp(struct packet *p, const struct nlb_config *cfg,
				      const struct extensions *x, struct route *r, bool is_ipv6)
{
	struct icmp_header *icmp = frame_at(p->ctx, p->l3_offset + p->l4_offset, sizeof(*icmp));

	if (x->is_fragment)
		return NLB_REASON_FRAGMENT;
	if (!icmp || p->l4_offset + sizeof(*icmp) > p->len)
		return NLB_REASON_TRUNCATED;
	if (is_icmp_error(icmp->type, is_ipv6))
		return route_icmp_error(p, cfg, r, is_ipv6);
	if (!is_echo_request(icmp->type, icmp->code, is_ipv6))
		return NLB_REASON_ICMP_OTHER;
	return is_ipv6 ? answer_echo6(p->ctx, p->l3_offset, p->l4_offset)
		       : answer_echo4(p->ctx, p->l3_offset, p->l4_offset);
}

/* Extension headers, and what IPv4 says of fragments in its own header. */
static __always_inline int parse_extensions(struct packet *p, struct extensions *x, bool is_ipv6)
{
	int reason;

	if (!is_ipv6) {
		x->is_fragment = p->fragment & bpf_htons(IPV4_FRAGMENT_BITS);
		x->is_later = p->fragment & bpf_htons(IPV4_FRAGMENT_OFFSET);
		return CONTINUE;
	}
	reason = ipv6_walk(p->ctx, p->l3_offset + p->l4_offset, p->protocol, x);
	if (reason != CONTINUE)
		return reason;
	p->l4_offset = x->l4_offset - p->l3_offset;
	p->protocol = x->protocol;
	p->fragment_id = x->fragment_id;
	return p->l4_offset > p->len ? NLB_REASON_TRUNCATED : CONTINUE;
}

/* Fills `r`, or returns why the packet ends here. */
static __always_inline int route_rare(struct packet *p, const struct nlb_config *cfg,
				      const struct extensions *x, struct route *r, bool is_ipv6)
{
	if (x->is_later) {
		p->is_unanswerable = true;
		return fragment_find(cfg, fragment_key(cfg, p, is_ipv6), r) ? CONTINUE
									    : NLB_REASON_FRAGMENT;
	}
	if (p->protocol == (is_ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return route_icmp(p, cfg, x, r, is_ipv6);
	return route_connection(p, cfg, x, r, is_ipv6);
}

static __always_inline int handle_rare(struct xdp_md *ctx, __u32 l3_offset, bool is_ipv6)
{
	struct cursor c = { frame_at(ctx, l3_offset, 0), (void *)(long)ctx->data_end };
	struct packet p = { .ctx = ctx, .l3_offset = l3_offset };
	struct extensions x = { 0 };
	struct route r = { 0 };
	struct nlb_config *cfg;
	int reason;

	if (!c.pos)
		return finish(NLB_REASON_NOT_IP);
	reason = is_ipv6 ? parse_ipv6(&p, &c) : parse_ipv4(&p, &c);
	if (reason == CONTINUE)
		reason = parse_extensions(&p, &x, is_ipv6);
	if (reason == NLB_REASON_NO_VIP || !vip_lookup(p.destination, 0, 0, is_ipv6))
		return finish(NLB_REASON_NO_VIP);
	cfg = config_get();
	if (reason == CONTINUE && !cfg)
		reason = NLB_REASON_NO_CONFIG;
	if (reason == CONTINUE)
		reason = admit(&p, cfg, is_ipv6);
	if (reason == CONTINUE)
		reason = route_rare(&p, cfg, &x, &r, is_ipv6);
	/* An answer that the program gives itself has a reason and no gateway. */
	if (reason != CONTINUE || !r.gateway)
		return finish((__u32)reason);
	return deliver(&p, cfg, &r, is_ipv6);
}

/* Not static: the kernel then verifies them by themselves, once. */
__noinline int handle_rare4(struct xdp_md *ctx, __u32 l3_offset)
{
	return handle_rare(ctx, l3_offset, false);
}

__noinline int handle_rare6(struct xdp_md *ctx, __u32 l3_offset)
{
	return handle_rare(ctx, l3_offset, true);
}

/* --- the usual way -----------------------------------------------------------------------------
 */

/* IPv4 options are usual enough. */
static __always_inline bool is_plain(const struct packet *p, bool is_ipv6)
{
	if (!is_ipv6 && (p->fragment & bpf_htons(IPV4_FRAGMENT_BITS)))
		return false;
	return p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP;
}

static __always_inline int balance(const struct packet *p, const struct nlb_config *cfg,
				   const struct nlb_vip *vip, bool is_ipv6)
{
	struct route r = { 0 };
	int reason = choose(p, cfg, vip, &r, is_ipv6, false);

	return reason == CONTINUE ? deliver(p, cfg, &r, is_ipv6) : finish((__u32)reason);
}

static __always_inline int handle(struct packet *p, struct cursor *c, bool is_ipv6)
{
	int reason = is_ipv6 ? parse_ipv6(p, c) : parse_ipv4(p, c);
	struct nlb_config *cfg;
	struct nlb_vip *vip;

	if (reason != CONTINUE)
		return finish((__u32)unless_other_host(p, reason, is_ipv6));
	cfg = config_get();
	if (cfg && !may_be_vip(cfg, p, is_ipv6))
		return finish(NLB_REASON_NO_VIP);
	if (!is_plain(p, is_ipv6))
		return is_ipv6 ? handle_rare6(p->ctx, p->l3_offset)
			       : handle_rare4(p->ctx, p->l3_offset);
	reason = parse_l4(p, c, false);
	if (reason != CONTINUE)
		return finish((__u32)unless_other_host(p, reason, is_ipv6));
	if (!cfg)
		return finish(NLB_REASON_NO_CONFIG);

	vip = vip_find(cfg, p, is_ipv6);
	if (!vip)
		return finish((__u32)unless_other_host(p, NLB_REASON_NO_SERVICE, is_ipv6));
	reason = admit(p, cfg, is_ipv6);
	if (reason != CONTINUE)
		return finish((__u32)reason);
	if (!is_allowed(vip, p, is_ipv6))
		return finish(NLB_REASON_NOT_ALLOWED);
	return balance(p, cfg, vip, is_ipv6);
}

SEC("xdp")
int nlb(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct cursor c = { data, (void *)(long)ctx->data_end };
	struct packet p = { .ctx = ctx, .l3_offset = sizeof(struct ethhdr) };
	__u32 l3_offset = 0;
	__be16 type = parse_ethernet(&c, &l3_offset);
	bool is_tagged = l3_offset != sizeof(struct ethhdr);

	if (type == bpf_htons(ETH_P_IP))
		return is_tagged ? handle_rare4(ctx, l3_offset) : handle(&p, &c, false);
	if (type == bpf_htons(ETH_P_IPV6))
		return is_tagged ? handle_rare6(ctx, l3_offset) : handle(&p, &c, true);
	return finish(NLB_REASON_NOT_IP);
}

/* Lets the daemon read the kernel's tick, which flow entries are stamped with. */
SEC("syscall")
int read_clock(__u64 *now)
{
	*now = bpf_jiffies64();
	return 0;
}
