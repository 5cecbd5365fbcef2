/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the program knows of the packet in hand, and the ends it can come to. */
#pragma once

#include "bpf/maps.h"

/* Lives in registers: every function that takes it is inlined. */
struct packet {
	struct xdp_md *ctx;
	__u32 l3_offset; /* from the start of the frame */
	__u32 len;       /* of the IP packet, as its header says */
	__u32 ports;     /* source and destination as they lie in the packet */
	__be32 source;
	__be32 destination;
	__be16 destination_port;
	__u8 protocol;
	__u8 tos;
	bool is_syn;
};

#define CONTINUE (-1) /* no verdict yet; others are an enum nlb_reason */

static __always_inline int finish(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&reasons, &reason);

	if (count)
		(*count)++;

#define NLB_VERDICT(id, name, verdict, help) \
	case NLB_REASON_##id:                \
		return XDP_##verdict;
	switch (reason) {
		NLB_REASONS(NLB_VERDICT)
	}
	return XDP_DROP;
}
