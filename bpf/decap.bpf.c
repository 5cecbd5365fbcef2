/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gateway host's half: takes the load balancer's outer headers off and hands the client's
 * packet to the kernel, which has the virtual IP on `lo`. No tunnel device is needed.
 *
 * Nothing else gets in this way: the outer source must be a configured load balancer or a gateway
 * of the pool, the inner destination a virtual IP of this host.
 *
 * One packet, in order: is it a tunnel's (tunnel.h), is what is inside for us, does somebody here
 * know the connection (second_chance.h), off with the outer headers.
 */
#include "bpf/decap_maps.h"
#include "bpf/ecn.h"
#include "bpf/link.h"
#include "bpf/second_chance.h"
#include "bpf/tunnel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u32 check_inner_ipv4(const struct tunnel *t, const struct iphdr *inner)
{
	__u32 header_len = inner->ihl * 4U;
	__u32 len = bpf_ntohs(inner->tot_len);

	if (inner->version != 4 || header_len < sizeof(*inner) || len < header_len)
		return DECAP_REASON_MALFORMED;
	if (t->inner_at + len > t->ended_at)
		return DECAP_REASON_MALFORMED;
	if (!is_local_vip4(inner->daddr))
		return DECAP_REASON_NOT_LOCAL;
	if (ecn_is_lost(inner->tos & ECN_MASK, t->ecn))
		return DECAP_REASON_CONGESTED;
	return t->reason;
}

static __always_inline __u32 check_inner_ipv6(const struct tunnel *t, const struct ipv6hdr *inner)
{
	__u32 len = (__u32)sizeof(*inner) + bpf_ntohs(inner->payload_len);

	if (inner->version != 6 || t->inner_at + len > t->ended_at)
		return DECAP_REASON_MALFORMED;
	if (!is_local_vip6(&inner->daddr))
		return DECAP_REASON_NOT_LOCAL;
	if (ecn_is_lost(ecn_get_ipv6(inner), t->ecn))
		return DECAP_REASON_CONGESTED;
	return t->reason;
}

static __always_inline int strip(struct xdp_md *ctx, __u32 l3_offset, const struct tunnel *t,
				 __be16 inner_type, __u32 reason)
{
	struct link_header link;

	if (!link_save(ctx, &link))
		return finish(DECAP_REASON_MALFORMED);
	link_set_type(&link, l3_offset, inner_type);
	if (!link_move(ctx, l3_offset, (int)t->inner_at, sizeof(struct iphdr), &link))
		return finish(DECAP_REASON_MALFORMED);
	return finish(reason);
}

static __always_inline int handle_inner_ipv4(struct xdp_md *ctx, __u32 l3_offset, struct tunnel *t,
					     struct cursor *c)
{
	struct iphdr *inner = cursor_take(c, sizeof(*inner));
	__u32 reason = inner ? check_inner_ipv4(t, inner) : DECAP_REASON_MALFORMED;

	if (reason != t->reason)
		return finish(reason);
	if (t->udp_at && is_unknown4(ctx, inner, c->end)) {
		int action = send_on(ctx, l3_offset, t);

		if (action != NO_SECOND)
			return action;
		reason = DECAP_REASON_LAST_CHANCE;
	}
	ecn_carry_ipv4(inner, t->ecn);
	return strip(ctx, l3_offset, t, bpf_htons(ETH_P_IP), reason);
}

static __always_inline int handle_inner_ipv6(struct xdp_md *ctx, __u32 l3_offset, struct tunnel *t,
					     struct cursor *c)
{
	struct ipv6hdr *inner = cursor_take(c, sizeof(*inner));
	__u32 reason = inner ? check_inner_ipv6(t, inner) : DECAP_REASON_MALFORMED;

	if (reason != t->reason)
		return finish(reason);
	if (t->udp_at && is_unknown6(ctx, inner, c->end)) {
		int action = send_on(ctx, l3_offset, t);

		if (action != NO_SECOND)
			return action;
		reason = DECAP_REASON_LAST_CHANCE;
	}
	ecn_carry_ipv6(inner, t->ecn);
	return strip(ctx, l3_offset, t, bpf_htons(ETH_P_IPV6), reason);
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct cursor c = { data, (void *)(long)ctx->data_end };
	struct tunnel t = { 0 };
	__u32 l3_offset = 0;
	__be16 type = parse_ethernet(&c, &l3_offset);

	if (type == bpf_htons(ETH_P_IP))
		t.reason = parse_outer_ipv4(&t, &c);
	else if (type == bpf_htons(ETH_P_IPV6))
		t.reason = parse_outer_ipv6(&t, &c);
	else
		t.reason = DECAP_REASON_NOT_TUNNEL;
	if (t.reason != DECAP_REASON_IPIP && t.reason != DECAP_REASON_GUE)
		return finish(t.reason);

	c.pos = data + l3_offset + (t.inner_at & TUNNEL_OFFSET_MASK);
	if (t.protocol == IPPROTO_IPIP)
		return handle_inner_ipv4(ctx, l3_offset, &t, &c);
	return handle_inner_ipv6(ctx, l3_offset, &t, &c);
}
