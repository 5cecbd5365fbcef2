/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which gateway a connection belongs to: its slot of the ring, or what the flow table remembers. */
#pragma once

#include "bpf/filter.h"
#include "bpf/flow.h"
#include "bpf/packet.h"

#include <linux/in.h>

/* What was decided. */
struct route {
	__u64 hash; /* of the connection; outer headers are varied by it */
	struct nlb_gateway *gateway;
	__u32 id;
	__u16 earlier[2]; /* who else may know the connection */
	__u8 encap;
	bool is_new, is_hit, is_miss, is_unrecorded;
};

static __always_inline struct nlb_slot *ring_slot(__u32 ring, __u64 hash)
{
	void *slots = bpf_map_lookup_elem(&rings, &ring);
	__u32 index = nlb_hash_slot(hash);

	return slots ? bpf_map_lookup_elem(slots, &index) : NULL;
}

static __always_inline struct nlb_gateway *gateway_get(__u32 id)
{
	return id ? bpf_map_lookup_elem(&gateways, &id) : NULL;
}

static __always_inline bool is_usable(__u32 id)
{
	struct nlb_gateway *gw = gateway_get(id);

	return gw && (gw->flags & NLB_GATEWAY_USABLE);
}

/*
 * Whether a flow table entry still means a gateway that takes packets. The generation tells whether
 * the identifier is still that of the gateway that the flow was given to.
 */
static __always_inline bool is_gateway_of(__u32 id, __u16 generation)
{
	struct nlb_gateway *gw = gateway_get(id);

	return gw && gw->generation == generation && (gw->flags & NLB_GATEWAY_USABLE);
}

/*
 * The gateway that the flow table remembers, or 0: unknown flow, one too old, or one whose gateway
 * is gone. `is_away` says that another CPU had it, and this one should.
 */
static __always_inline __u32 remembered_gateway(const struct nlb_config *cfg, __u64 hash,
						__u32 age_max, bool asks_others, bool is_quote,
						bool *is_away)
{
	struct nlb_flow *flow = flow_find(cfg, hash, bpf_get_smp_processor_id());
	__u32 now = (__u32)bpf_jiffies64(), known;

	if (flow) {
		if (now - flow->used > age_max || !is_gateway_of(flow->gateway, flow->generation))
			return 0;
		if (flow->used != now && !is_quote)
			flow->used = now;
		return flow->gateway;
	}
	known = asks_others ? flow_find_elsewhere(hash, age_max) : 0;
	if (!known || !is_gateway_of(known >> 16, (__u16)known))
		return 0;
	*is_away = !is_quote;
	return known >> 16;
}

/*
 * Fills `r`, or returns why the packet ends here. TCP says where a connection begins, and a stable
 * slot is right about all others, so only a slot that moved needs the flow table. UDP says nothing,
 * so it always asks. With `is_quote` the packet is one that a connection sent and that came back
 * inside an ICMP error: it is looked for, but leaves no trace.
 */
static __always_inline int choose(const struct packet *p, const struct nlb_config *cfg,
				  const struct nlb_vip *vip, struct route *r, bool is_ipv6,
				  bool is_quote)
{
	bool is_udp = p->protocol == IPPROTO_UDP, is_moved, is_away = false;
	struct nlb_slot *slot;

	r->hash = packet_hash(cfg, p, p->ports, p->protocol, is_ipv6);
	r->encap = vip->encap;
	slot = ring_slot(vip->id, r->hash);
	if (!slot)
		return NLB_REASON_NO_GATEWAY;
	r->id = slot->gateway;
	r->is_new = p->is_syn;
	is_moved = slot->flags & NLB_SLOT_MOVED;
	if (!p->is_syn && (is_moved || is_udp)) {
		__u32 known = remembered_gateway(cfg, r->hash, is_udp ? cfg->udp_timeout : ~0U,
						 is_moved, is_quote, &is_away);

		r->is_hit = known != 0;
		r->is_miss = !known;
		r->is_new = is_udp && !known && !is_quote;
		if (known)
			r->id = known;
	}

	/* All drain, and this balancer has not seen the connection begin: who most likely has it
	 * may go on with it, or knows from the tunnel whom to ask next. */
	if (!r->id && !p->is_syn && !is_udp && is_usable(slot->earlier[0]))
		r->id = slot->earlier[0];
	r->gateway = gateway_get(r->id);
	if (!r->gateway)
		return NLB_REASON_NO_GATEWAY;
	if (!(r->gateway->flags & NLB_GATEWAY_RESOLVED))
		return NLB_REASON_NO_NEIGHBOUR;
	if (r->is_new && !is_within_rate(cfg, vip, p, is_ipv6))
		return NLB_REASON_SOURCE_RATE;

	if (r->is_new || is_away) {
		r->is_unrecorded = !flow_put(cfg, r->hash, (__u16)r->id, r->gateway->generation) &&
				   r->is_new;
	} else if (!r->is_hit && !is_udp) {
		r->earlier[0] = slot->earlier[0];
		r->earlier[1] = slot->earlier[1];
	}
	return CONTINUE;
}

/* Counts a packet that was sent. */
static __always_inline void route_count(const struct route *r, __u32 len)
{
	struct nlb_gateway_stats *stats = bpf_map_lookup_elem(&gateway_stats, &r->id);

	if (!stats)
		return;
	stats->packets++;
	stats->bytes += len;
	stats->connections += r->is_new;
	stats->flow_hits += r->is_hit;
	stats->flow_misses += r->is_miss;
	stats->unrecorded += r->is_unrecorded;
}
