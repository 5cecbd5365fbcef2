/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gateway host's half: takes the load balancer's outer headers off and hands the client's
 * packet to the kernel, which has the virtual IP on `lo`. No tunnel device is needed.
 *
 * Nothing else gets in this way: the outer source must be a configured load balancer or a gateway
 * of the pool, the inner destination a virtual IP of this host.
 */
#include "bpf/link.h"
#include "bpf/nlb_abi.h"
#include "bpf/parse.h"

#define ECN_MASK 3
#define ECN_CE   3

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct decap_source_key);
	__type(value, __u32);
} decap_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct decap_vip_key);
	__type(value, __u32);
} decap_vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} decap_reasons SEC(".maps");

static __always_inline int finish(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&decap_reasons, &reason);

	if (count)
		(*count)++;

#define DECAP_VERDICT(id, name, verdict, help) \
	case DECAP_REASON_##id:                \
		return XDP_##verdict;
	switch (reason) {
		DECAP_REASONS(DECAP_VERDICT)
	}
	return XDP_DROP;
}

static __always_inline void map_ipv4(__u8 out[16], __be32 address)
{
	__builtin_memset(out, 0, 10);
	out[10] = 0xff;
	out[11] = 0xff;
	__builtin_memcpy(out + 12, &address, sizeof(address));
}

static __always_inline bool is_allowed_source(__be32 address)
{
	struct decap_source_key key = { .prefix_len = 128 };

	map_ipv4(key.address, address);
	return bpf_map_lookup_elem(&decap_sources, &key) != NULL;
}

static __always_inline bool is_local_vip(__be32 address)
{
	struct decap_vip_key key;

	map_ipv4(key.address, address);
	return bpf_map_lookup_elem(&decap_vips, &key) != NULL;
}

/* The tunnel's headers, from the outer IP header on. */
struct tunnel {
	__u32 header_len; /* all that has to go */
	__u32 ended_at;   /* where the outer packet ends, counted from its first byte */
	__u32 reason;     /* DECAP_REASON_IPIP or _GUE: what it is; any other: its end */
	__u8 tos;
};

static __always_inline void parse_gue(struct tunnel *t, struct cursor *c)
{
	struct nlb_gue *gue = cursor_take(c, sizeof(*gue));

	if (!gue) {
		t->reason = DECAP_REASON_MALFORMED;
		return;
	}
	/* Version 0 and no control message; flagged fields would have lengths that we do not know.
	 */
	if ((gue->version_hlen & 0xe0) || gue->flags || gue->protocol != IPPROTO_IPIP) {
		t->reason = DECAP_REASON_UNSUPPORTED;
		return;
	}
	t->header_len += sizeof(struct udphdr) + sizeof(*gue) + (gue->version_hlen & 0x1fUL) * 4;
	t->reason = DECAP_REASON_GUE;
}

static __always_inline void parse_outer_ipv4(struct tunnel *t, struct cursor *c)
{
	void *start = c->pos;
	struct iphdr *ip = cursor_take(c, sizeof(*ip));
	struct udphdr *udp;

	t->reason = DECAP_REASON_NOT_TUNNEL;
	if (!ip || ip->version != 4 || ip->ihl < 5)
		return;
	if (ip->protocol != IPPROTO_IPIP && ip->protocol != IPPROTO_UDP)
		return;

	t->header_len = ip->ihl * 4U;
	t->ended_at = bpf_ntohs(ip->tot_len);
	t->tos = ip->tos;
	c->pos = start + t->header_len;
	if (ip->protocol == IPPROTO_UDP) {
		if (ip->frag_off & bpf_htons(0x1fff))
			return; /* no ports in here; its first fragment is dropped below */
		udp = cursor_take(c, sizeof(*udp));
		if (!udp || udp->dest != bpf_htons(NLB_GUE_PORT))
			return;
	}

	/* A tunnel's packet from here on: it is decapsulated or dropped. */
	if (!is_allowed_source(ip->saddr))
		t->reason = DECAP_REASON_STRANGER;
	else if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_BITS))
		t->reason = DECAP_REASON_FRAGMENT;
	else if (start + t->ended_at > c->end)
		t->reason = DECAP_REASON_MALFORMED;
	else if (ip->protocol == IPPROTO_UDP)
		parse_gue(t, c);
	else
		t->reason = DECAP_REASON_IPIP;
}

/*
 * Congestion seen inside the tunnel reaches the client's connection (RFC 6040): an outer
 * "congestion experienced" goes over to an inner packet that understands it.
 */
static __always_inline void carry_congestion(struct iphdr *inner, __u8 outer_tos)
{
	__u8 ecn = inner->tos & ECN_MASK;
	__u32 sum;

	if ((outer_tos & ECN_MASK) != ECN_CE || ecn == 0 || ecn == ECN_CE)
		return;
	/* The mark adds to the second byte of the header's first word (RFC 1624). */
	sum = (__u32)bpf_ntohs(inner->check) + ecn + (0xffffU - ECN_CE);
	sum = (sum & 0xffff) + (sum >> 16);
	inner->check = bpf_htons((__u16)((sum & 0xffff) + (sum >> 16)));
	inner->tos |= ECN_CE;
}

static __always_inline __u32 check_inner_ipv4(const struct tunnel *t, struct iphdr *inner)
{
	__u32 header_len = inner->ihl * 4U;
	__u32 len = bpf_ntohs(inner->tot_len);

	if (inner->version != 4 || header_len < sizeof(*inner) || len < header_len)
		return DECAP_REASON_MALFORMED;
	if (t->header_len + len > t->ended_at)
		return DECAP_REASON_MALFORMED;
	if (!is_local_vip(inner->daddr))
		return DECAP_REASON_NOT_LOCAL;
	return t->reason;
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	struct cursor c = { data, (void *)(long)ctx->data_end };
	struct tunnel t = { 0 };
	struct link_header link;
	struct iphdr *inner;
	__u32 l3_offset = 0;
	__u32 reason;

	if (parse_ethernet(&c, &l3_offset) != bpf_htons(ETH_P_IP))
		return finish(DECAP_REASON_NOT_TUNNEL);

	parse_outer_ipv4(&t, &c);
	if (t.reason != DECAP_REASON_IPIP && t.reason != DECAP_REASON_GUE)
		return finish(t.reason);

	c.pos = data + l3_offset + t.header_len;
	inner = cursor_take(&c, sizeof(*inner));
	if (!inner)
		return finish(DECAP_REASON_MALFORMED);
	reason = check_inner_ipv4(&t, inner);
	if (reason != t.reason)
		return finish(reason);
	carry_congestion(inner, t.tos);

	if (!link_save(ctx, l3_offset, &link) ||
	    !link_move(ctx, l3_offset, (int)t.header_len, sizeof(*inner), &link))
		return finish(DECAP_REASON_MALFORMED);
	return finish(reason);
}
