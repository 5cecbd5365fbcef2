/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What any program of the kind must cost: the packet sent back, bare, and a constant outer header.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What the harness itself costs. */
SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

SEC("xdp")
int swap_macs(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 *eth = data, word;

	if (data + sizeof(struct ethhdr) > end)
		return XDP_DROP;
#pragma unroll
	for (int i = 0; i < 3; i++) {
		word = eth[i];
		eth[i] = eth[i + 3];
		eth[i + 3] = word;
	}
	return XDP_TX;
}

SEC("xdp")
int push_ipip(struct xdp_md *ctx)
{
	struct ethhdr *eth;
	struct iphdr *ip;
	void *data, *end;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*ip)))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	eth = data;
	ip = data + sizeof(*eth);
	if ((void *)(ip + 1) > end)
		return XDP_DROP;
	__builtin_memset(eth, 2, 2UL * ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IP);
	*(__be32 *)ip = bpf_htonl(0x45000000 | 60);
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->protocol = IPPROTO_IPIP;
	ip->check = 0x1234;
	ip->saddr = bpf_htonl(0x0a000002);
	ip->daddr = bpf_htonl(0x0a000015);
	return XDP_TX;
}
