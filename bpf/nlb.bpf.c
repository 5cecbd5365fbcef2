/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The load balancer's fast path: an XDP program that gives every connection to a virtual IP to one
 * gateway and sends its packets there in a tunnel. The gateway answers the client directly.
 *
 * One packet, in order: parse, find the VIP, hash, find the ring slot, ask the flow table where the
 * slot has moved, encapsulate, send.
 */
#include "bpf/encap.h"
#include "bpf/flow.h"
#include "bpf/maps.h"
#include "bpf/packet.h"
#include "bpf/parse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct nlb_vip *vip4_find(__be32 address, __be16 port, __u8 protocol)
{
	struct nlb_vip4_key key = { .address = address, .port = port, .protocol = protocol };

	return bpf_map_lookup_elem(&vips4, &key);
}

/* Says `reason` of a packet to a virtual IP; whatever is not for one belongs to the kernel. */
static __always_inline int unless_other_host(__be32 destination, int reason)
{
	return vip4_find(destination, 0, 0) ? reason : NLB_REASON_NO_VIP;
}

static __always_inline int parse_tcp(struct packet *p, struct cursor *c, __u32 l4_len)
{
	struct tcphdr *tcp = cursor_take(c, sizeof(*tcp));

	if (!tcp || l4_len < sizeof(*tcp))
		return NLB_REASON_TRUNCATED;
	if (tcp->doff < 5)
		return NLB_REASON_MALFORMED;
	if (tcp->doff * 4U > l4_len)
		return NLB_REASON_TRUNCATED;

	p->ports = *(__u32 *)tcp;
	p->destination_port = tcp->dest;
	p->is_syn = tcp->syn && !tcp->ack;
	return CONTINUE;
}

static __always_inline int parse_ipv4(struct packet *p, struct cursor *c)
{
	void *start = c->pos;
	struct iphdr *ip = cursor_take(c, sizeof(*ip));
	__u32 header_len;
	int reason;

	if (!ip)
		return NLB_REASON_NO_VIP;
	p->source = ip->saddr;
	p->destination = ip->daddr;
	p->protocol = ip->protocol;
	p->tos = ip->tos;
	p->len = bpf_ntohs(ip->tot_len);
	header_len = ip->ihl * 4U;

	if (ip->version != 4 || header_len < sizeof(*ip))
		return unless_other_host(ip->daddr, NLB_REASON_MALFORMED);
	if (p->len < header_len || start + p->len > c->end)
		return unless_other_host(ip->daddr, NLB_REASON_TRUNCATED);
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_BITS))
		return unless_other_host(ip->daddr, NLB_REASON_FRAGMENT);
	if (ip->protocol == IPPROTO_ICMP)
		return unless_other_host(ip->daddr, NLB_REASON_ICMP_OTHER);
	if (ip->protocol != IPPROTO_TCP)
		return unless_other_host(ip->daddr, NLB_REASON_NO_SERVICE);

	c->pos = start + header_len;
	reason = parse_tcp(p, c, p->len - header_len);
	return reason == CONTINUE ? CONTINUE : unless_other_host(p->destination, reason);
}

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

/*
 * Whether a flow table entry still means a gateway that takes packets. The generation tells whether
 * the identifier is still that of the gateway that the flow was given to.
 */
static __always_inline bool is_gateway_of(__u32 id, __u16 generation)
{
	struct nlb_gateway *gw = gateway_get(id);

	return gw && gw->generation == generation && (gw->flags & NLB_GATEWAY_USABLE);
}

/* The gateway that the flow table remembers, or 0: unknown flow, or one whose gateway is gone. */
static __always_inline __u32 remembered_gateway(const struct nlb_config *cfg, __u64 hash)
{
	struct nlb_flow *flow = flow_find(cfg, hash, bpf_get_smp_processor_id());
	__u32 known;

	if (flow) {
		flow->used = (__u32)bpf_jiffies64();
		return is_gateway_of(flow->gateway, flow->generation) ? flow->gateway : 0;
	}
	known = flow_find_elsewhere(hash);
	if (!known || !is_gateway_of(known >> 16, (__u16)known))
		return 0;
	flow_put(cfg, hash, (__u16)(known >> 16), (__u16)known);
	return known >> 16;
}

static __always_inline void add_second_choice(struct second_choice *second, __u32 id, __u32 chosen)
{
	struct nlb_gateway *gw = id == chosen ? NULL : gateway_get(id);

	if (!gw || !(gw->flags & NLB_GATEWAY_USABLE))
		return;
	if (second->count == 0)
		second->address[0] = *(__be32 *)gw->address;
	else
		second->address[1] = *(__be32 *)gw->address;
	second->count++;
}

static __always_inline int balance(const struct packet *p, const struct nlb_config *cfg,
				   const struct nlb_vip *vip)
{
	__u64 hash = nlb_hash4(cfg->hash_key, p->source, p->destination, p->ports, p->protocol);
	struct nlb_slot *slot = ring_slot(vip->id, hash);
	struct second_choice second = { 0 };
	struct nlb_gateway_stats *stats;
	struct nlb_gateway *gw;
	bool is_hit = false, is_miss = false, is_unrecorded = false;
	__u8 encap = vip->encap;
	__u32 id;

	if (!slot)
		return finish(NLB_REASON_NO_GATEWAY);
	id = slot->gateway;
	if (!p->is_syn && (slot->flags & NLB_SLOT_MOVED)) {
		__u32 known = remembered_gateway(cfg, hash);

		is_hit = known != 0;
		is_miss = !is_hit;
		if (is_hit)
			id = known;
	}

	gw = gateway_get(id);
	if (!gw)
		return finish(NLB_REASON_NO_GATEWAY);
	if (!(gw->flags & NLB_GATEWAY_RESOLVED))
		return finish(NLB_REASON_NO_NEIGHBOUR);

	if (p->is_syn) {
		is_unrecorded = !flow_put(cfg, hash, (__u16)id, gw->generation);
	} else if (!is_hit && encap == NLB_ENCAP_GUE) {
		add_second_choice(&second, slot->earlier[0], id);
		add_second_choice(&second, slot->earlier[1], id);
	}

	stats = bpf_map_lookup_elem(&gateway_stats, &id);
	if (stats) {
		stats->packets++;
		stats->bytes += p->len;
		stats->connections += p->is_syn;
		stats->flow_hits += is_hit;
		stats->flow_misses += is_miss;
		stats->unrecorded += is_unrecorded;
	}

	if (encap == NLB_ENCAP_L2)
		return forward_l2(p, gw);
	return encap_ipv4(p, cfg, gw, encap, hash, &second);
}

static __always_inline int handle_ipv4(struct packet *p, struct cursor *c)
{
	int reason = parse_ipv4(p, c);
	struct nlb_config *cfg;
	struct nlb_vip *vip;
	__u32 zero = 0;

	if (reason != CONTINUE)
		return finish((__u32)reason);

	cfg = bpf_map_lookup_elem(&config, &zero);
	if (!cfg || !(cfg->flags & NLB_CONFIG_READY))
		return finish(NLB_REASON_NO_CONFIG);

	vip = vip4_find(p->destination, p->destination_port, p->protocol);
	if (!vip && (cfg->flags & NLB_CONFIG_ANY_PORT))
		vip = vip4_find(p->destination, 0, p->protocol);
	if (!vip)
		return finish((__u32)unless_other_host(p->destination, NLB_REASON_NO_SERVICE));
	if (p->source == p->destination)
		return finish(NLB_REASON_SPOOFED);
	return balance(p, cfg, vip);
}

SEC("xdp")
int nlb(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct cursor c = { data, (void *)(long)ctx->data_end };
	struct packet p = { .ctx = ctx };
	__be16 type = parse_ethernet(&c, &p.l3_offset);

	if (type == bpf_htons(ETH_P_IP))
		return handle_ipv4(&p, &c);
	if (type == bpf_htons(ETH_P_IPV6))
		return finish(NLB_REASON_NO_VIP);
	return finish(NLB_REASON_NOT_IP);
}

/* Lets the daemon read the kernel's tick, which flow entries are stamped with. */
SEC("syscall")
int read_clock(__u64 *now)
{
	*now = bpf_jiffies64();
	return 0;
}
