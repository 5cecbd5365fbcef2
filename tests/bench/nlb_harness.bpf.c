/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lets a program run again and again on one packet. The kernel's test run does not undo between
 * rounds what the program did to the packet, so an encapsulating one would grow it without end:
 * this restores the packet at the beginning of each round, makes it one of another flow, and
 * tail-calls the program. It does the same work whatever the program did, so that its own cost can
 * be measured and taken off.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u32 flow_mask;   /* number of flows - 1; a power of two of them */
__u32 flow_step;   /* 0: at random, 1: one after the other */
__u32 flow_state;  /* of the generator */
__u32 source;      /* the first client's address, or the last four bytes of it */
__u32 packet_size; /* before the program under test */
__u32 link_type;   /* of the link header, as it lies there */
__u64 outer[8];    /* the first bytes of a tunnel's packet */
__u64 received;    /* packets that came back */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} under_test SEC(".maps");

static __always_inline __u32 next_flow(void)
{
	if (flow_step)
		return flow_state++ & flow_mask;
	/* A linear congruential generator; its upper bits are the better ones. */
	flow_state = flow_state * 1664525U + 1013904223U;
	return (flow_state >> 8) & flow_mask;
}

/* Returns the packet as it was, or NULL when it cannot be restored. */
static __always_inline struct ethhdr *restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth;
	__s64 len = end - data;

	/* Kept apart: clang would subtract in 32 bits, which is not allowed of packet pointers. */
	asm volatile("" : "+r"(len));
	if (bpf_xdp_adjust_head(ctx, (int)(len - packet_size)))
		return NULL;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return NULL;
	__builtin_memset(eth, 2, 2UL * ETH_ALEN);
	eth->h_proto = (__be16)link_type;
	return eth;
}

/* TCP and UDP begin with the source port. */
static __always_inline bool next_packet4(struct xdp_md *ctx)
{
	struct ethhdr *eth = restore(ctx);
	__u32 flow = next_flow();
	struct iphdr *ip;
	__be16 *port;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	port = (void *)(ip + 1);
	if ((void *)(port + 1) > (void *)(long)ctx->data_end)
		return false;
	ip->saddr = bpf_htonl(source + (flow >> 15));
	*port = bpf_htons((__u16)(1024 + (flow & 0x7fff)));
	return true;
}

static __always_inline bool next_packet6(struct xdp_md *ctx)
{
	struct ethhdr *eth = restore(ctx);
	__u32 flow = next_flow();
	struct ipv6hdr *ip;
	__be16 *port;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	port = (void *)(ip + 1);
	if ((void *)(port + 1) > (void *)(long)ctx->data_end)
		return false;
	ip->saddr.in6_u.u6_addr32[3] = bpf_htonl(source + (flow >> 15));
	*port = bpf_htons((__u16)(1024 + (flow & 0x7fff)));
	return true;
}

SEC("xdp")
int harness4(struct xdp_md *ctx)
{
	if (next_packet4(ctx))
		bpf_tail_call(ctx, &under_test, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int harness6(struct xdp_md *ctx)
{
	if (next_packet6(ctx))
		bpf_tail_call(ctx, &under_test, 0);
	return XDP_ABORTED;
}

/* A tunnel's packet, whose outer headers are gone after each round. */
SEC("xdp")
int harness_tunnel(struct xdp_md *ctx)
{
	__u64 *words = (void *)restore(ctx);

	if (!words || (void *)(words + 8) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < 8; i++)
		words[i] = outer[i];
	bpf_tail_call(ctx, &under_test, 0);
	return XDP_ABORTED;
}

/* For live frames: out of the interface that they are said to have come in by. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	return next_packet4(ctx) ? XDP_TX : XDP_ABORTED;
}

/* What comes back ends here. */
SEC("xdp")
int receive(struct xdp_md *ctx)
{
	(void)ctx;
	received++;
	return XDP_DROP;
}
