/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Lets a program run again and again on one packet. The kernel's test run does not undo between
 * rounds what the program did to the packet, so an encapsulating one would grow it without end:
 * this restores the packet at the beginning of each round, makes it one of another flow, and
 * tail-calls the program.
 */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u32 flow_mask;   /* number of flows - 1; a power of two of them */
__u32 flow_step;   /* 0: at random, 1: one after the other */
__u32 flow_state;  /* of the generator */
__u32 packet_size; /* before the program under test */

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
	return (flow_state >> 11) & flow_mask;
}

/* False when the packet cannot be restored. */
static __always_inline bool restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth;
	__s64 len = end - data;

	/* Kept apart: clang would subtract in 32 bits, which is not allowed of packet pointers. */
	asm volatile("" : "+r"(len));
	if (len == packet_size)
		return true;
	if (bpf_xdp_adjust_head(ctx, (int)(len - packet_size)))
		return false;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memset(eth, 2, 2UL * ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IP);
	return true;
}

SEC("xdp")
int harness(struct xdp_md *ctx)
{
	__u32 flow = next_flow();
	struct tcphdr *tcp;
	struct iphdr *ip;

	if (!restore(ctx))
		return XDP_ABORTED;
	ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	ip->saddr = bpf_htonl(0xc6336400U + (flow >> 15));
	tcp->source = bpf_htons((__u16)(1024 + (flow & 0x7fff)));
	bpf_tail_call(ctx, &under_test, 0);
	return XDP_ABORTED;
}
