/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/explain.h"

#include <string.h>

#include "lib/cleanup.h"

#define IPV4_LEN 20
#define IPV6_LEN 40
#define UDP_LEN  8

/* --- hash, slot, flow table -------------------------------------------------------------------
 */

static uint64_t flow_hash(const struct nlb_config *cfg, const struct explain_flow *flow)
{
	uint64_t key[NLB_HASH_KEYS];
	uint16_t ports[2];
	uint32_t both;

	memcpy(key, cfg->hash_key, sizeof(key));
	if (flow->source.sa.sa_family == AF_INET) {
		ports[0] = flow->source.in.sin_port;
		ports[1] = flow->destination.in.sin_port;
		memcpy(&both, ports, sizeof(both));
		return nlb_hash4((const __u64 *)key, flow->source.in.sin_addr.s_addr,
				 flow->destination.in.sin_addr.s_addr, both, flow->protocol);
	}
	ports[0] = flow->source.in6.sin6_port;
	ports[1] = flow->destination.in6.sin6_port;
	memcpy(&both, ports, sizeof(both));
	return nlb_hash6((const __u64 *)key, flow->source.in6.sin6_addr.s6_addr32,
			 flow->destination.in6.sin6_addr.s6_addr32, both, flow->protocol);
}

static void find_slot(const struct view *v, uint64_t now_min, struct explanation *e)
{
	e->index = nlb_hash_slot(e->hash);
	e->has_ring = view_slot(v, e->vip.id, e->index, &e->slot);
	e->has_moved = e->has_ring && (e->slot.flags & NLB_SLOT_MOVED);
	if (e->has_moved)
		e->moved_minutes_ago = (uint32_t)((now_min - (e->slot.flags & NLB_SLOT_TIME_MASK)) &
						  NLB_SLOT_TIME_MASK);
}

static bool is_usable(const struct view *v, uint16_t id, struct nlb_gateway *gw)
{
	return view_gateway(v, id, gw) && (gw->flags & NLB_GATEWAY_USABLE);
}

static void find_entries(const struct view *v, uint8_t protocol, struct explanation *e)
{
	uint64_t tag = e->hash ? e->hash : 1; /* zero marks a free entry */

	for (int cpu = 0; cpu < v->cpus && cpu < NLB_FLOW_REGIONS; cpu++) {
		struct nlb_flow_bucket bucket;

		if (!view_flow_bucket(v, cpu, e->hash, &bucket))
			continue;
		for (unsigned w = 0; w < NLB_FLOW_WAYS; w++) {
			const struct nlb_flow *flow = &bucket.way[w];
			struct explain_entry *entry = &e->entries[e->entry_count];
			struct nlb_gateway gw;

			if (flow->tag != tag)
				continue;
			*entry = (struct explain_entry) {
				.cpu = cpu,
				.gateway = flow->gateway,
				.age_ticks = (uint32_t)v->now - flow->used,
			};
			entry->is_former = !is_usable(v, flow->gateway, &gw) ||
					   gw.generation != flow->generation;
			entry->is_expired = protocol == IPPROTO_UDP &&
					    entry->age_ticks > v->config.udp_timeout;
			e->entry_count++;
			break;
		}
	}
}

/* Of several CPUs' entries the latest used is right; 0 when none is good. */
static uint16_t remembered(const struct explanation *e)
{
	const struct explain_entry *best = NULL;

	for (size_t i = 0; i < e->entry_count; i++) {
		const struct explain_entry *entry = &e->entries[i];

		if (!entry->is_expired && (!best || entry->age_ticks < best->age_ticks))
			best = entry;
	}
	return best && !best->is_former ? best->gateway : 0;
}

/* --- filters ----------------------------------------------------------------------------------
 */

static bool is_same_address(const struct explain_flow *flow)
{
	uint8_t source[16], destination[16];

	view_mapped(source, &flow->source);
	view_mapped(destination, &flow->destination);
	return memcmp(source, destination, sizeof(source)) == 0;
}

/* The reason that ends packets of this source, before a gateway is looked for; or
 * NLB_REASON_COUNT. */
static uint32_t filter(const struct view *v, const struct explain_flow *flow, struct explanation *e)
{
	e->is_listed = (v->config.flags & NLB_CONFIG_BLOCKED) &&
		       view_blocked(v, &flow->source, &e->block);
	e->is_block_over = e->is_listed && e->block.value.until && e->block.value.until <= v->now;
	if (is_same_address(flow))
		return NLB_REASON_SPOOFED;
	if (e->is_listed && !e->is_block_over)
		return NLB_REASON_BLOCKED;
	if (e->vip.flags & NLB_VIP_ALLOW) {
		e->is_allowed = view_allowed(v, e->vip.id, &flow->source);
		if (!e->is_allowed)
			return NLB_REASON_NOT_ALLOWED;
	}
	return NLB_REASON_COUNT;
}

/* A source is an IPv4 address or an IPv6 network of 64 bits. */
static uint64_t rate_tag(const struct view *v, const struct explain_flow *flow, uint16_t vip)
{
	uint32_t network[4] = { 0 }, target[4] = { vip };
	uint64_t key[NLB_HASH_KEYS], tag;

	memcpy(key, v->config.hash_key, sizeof(key));
	if (flow->source.sa.sa_family == AF_INET) {
		tag = nlb_hash4((const __u64 *)key, flow->source.in.sin_addr.s_addr, vip, 0, 0);
	} else {
		memcpy(network, &flow->source.in6.sin6_addr, 8);
		tag = nlb_hash6((const __u64 *)key, network, target, 0, 1);
	}
	return tag;
}

/* Ticks until the source may open a connection to the VIP. */
static uint32_t rate_wait(const struct view *v, const struct explain_flow *flow,
			  const struct nlb_vip *vip)
{
	uint64_t tag = rate_tag(v, flow, vip->id), now = v->now << 16, at = now;
	struct nlb_rate_bucket bucket;

	if (!(vip->flags & NLB_VIP_RATE) || !view_rate_bucket(v, tag, &bucket))
		return 0;
	for (unsigned w = 0; w < ARRAY_SIZE(bucket.way); w++) {
		if (bucket.way[w].tag == (tag ? tag : 1))
			at = MAX(bucket.way[w].at, now);
	}
	at += vip->source_interval;
	now += vip->source_burst;
	return at > now ? (uint32_t)((at - now + 0xffff) >> 16) : 0;
}

/* --- verdicts ---------------------------------------------------------------------------------
 */

uint32_t explain_overhead(uint8_t encap, uint8_t outer_family, unsigned named)
{
	uint32_t address = outer_family == 6 ? 16 : 4;
	uint32_t len = outer_family == 6 ? IPV6_LEN : IPV4_LEN;

	if (encap == NLB_ENCAP_L2)
		return 0;
	if (encap == NLB_ENCAP_IPIP)
		return len;
	len += UDP_LEN + (uint32_t)sizeof(struct nlb_gue);
	if (named)
		len += (uint32_t)sizeof(struct nlb_gue_private) + named * address;
	return len;
}

/* Only those of the outer header's own family can be named in it. */
static void name_earlier(const struct view *v, const struct explanation *e, uint8_t family,
			 struct explain_verdict *verdict)
{
	unsigned count = 0;

	for (unsigned i = 0; i < 2; i++) {
		uint16_t id = e->slot.earlier[i];
		struct nlb_gateway gw;

		if (id && id != verdict->gateway && is_usable(v, id, &gw) && gw.family == family)
			verdict->named[count++] = id;
	}
}

/* Where a packet goes that the filters have let through. */
static void choose(const struct view *v, const struct explanation *e, bool is_fresh, bool is_udp,
		   struct explain_verdict *verdict)
{
	bool asks_table = is_udp || (!is_fresh && e->has_moved);
	uint16_t known = asks_table ? remembered(e) : 0;
	struct nlb_gateway gw;
	unsigned named;

	verdict->reason = NLB_REASON_NO_GATEWAY;
	if (!e->has_ring)
		return;
	verdict->gateway = known ? known : e->slot.gateway;
	verdict->why = known ? EXPLAIN_TABLE : EXPLAIN_RING;
	if (!verdict->gateway && !is_fresh && !is_udp && is_usable(v, e->slot.earlier[0], &gw)) {
		verdict->gateway = e->slot.earlier[0];
		verdict->why = EXPLAIN_EARLIER;
	}
	if (!verdict->gateway || !view_gateway(v, verdict->gateway, &gw))
		return;
	verdict->reason = NLB_REASON_NO_NEIGHBOUR;
	if (!(gw.flags & NLB_GATEWAY_RESOLVED))
		return;
	if (!is_fresh && !is_udp && !known && e->vip.encap == NLB_ENCAP_GUE)
		name_earlier(v, e, gw.family, verdict);
	named = !!verdict->named[0] + !!verdict->named[1];
	verdict->reason = NLB_REASON_COUNT;
	if (e->wait_ticks && (is_udp ? !known : is_fresh))
		verdict->reason = NLB_REASON_SOURCE_RATE;
	verdict->room =
		(uint16_t)(gw.mtu - MIN(gw.mtu, explain_overhead(e->vip.encap, gw.family, named)));
}

void explain(const struct view *v, const struct explain_flow *flow, uint64_t now_min,
	     struct explanation *e)
{
	bool is_udp = flow->protocol == IPPROTO_UDP;
	struct nlb_vip unused;
	uint32_t reason;

	*e = (struct explanation) { 0 };
	e->is_vip = view_vip(v, &flow->destination, 0, 0, &unused);
	e->has_service = view_vip(v, &flow->destination, net_port(&flow->destination),
				  flow->protocol, &e->vip);
	if (!e->has_service && (v->config.flags & NLB_CONFIG_ANY_PORT)) {
		e->has_service = view_vip(v, &flow->destination, 0, flow->protocol, &e->vip);
		e->takes_any_port = e->has_service;
	}
	if (!e->has_service) {
		e->fresh.reason = e->is_vip ? NLB_REASON_NO_SERVICE : NLB_REASON_NO_VIP;
		e->known.reason = e->fresh.reason;
		return;
	}
	reason = filter(v, flow, e);
	e->hash = flow_hash(&v->config, flow);
	find_slot(v, now_min, e);
	find_entries(v, flow->protocol, e);
	e->wait_ticks = rate_wait(v, flow, &e->vip);
	choose(v, e, true, is_udp, &e->fresh);
	choose(v, e, false, is_udp, &e->known);
	if (reason != NLB_REASON_COUNT)
		e->fresh.reason = e->known.reason = reason;
}
