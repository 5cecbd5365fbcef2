/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A cursor over packet bytes: hands out a header only when all of it is there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_FRAGMENT_BITS   0x3fff /* "more fragments" and the offset */
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_DONT_FRAGMENT   0x4000
#define MAX_VLAN_TAGS        2
#define FRAME_OFFSET_MAX     0x3fff

struct cursor {
	void *pos;
	void *end;
};

struct vlan_tag {
	__be16 control;
	__be16 type; /* of what follows */
};

static __always_inline void *cursor_take(struct cursor *c, __u32 len)
{
	void *p = c->pos;

	if (p + len > c->end)
		return NULL;
	c->pos = p + len;
	return p;
}

/*
 * The same at a computed offset of the frame. NULL also if that is further than the verifier
 * follows, which is further than any frame is long.
 */
static __always_inline void *frame_at(const struct xdp_md *ctx, __u32 offset, __u32 len)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	/* What is checked has to be the very register that is added. */
	asm volatile("" : "+r"(offset));
	if (offset > FRAME_OFFSET_MAX)
		return NULL;
	data += offset;
	return data + len <= end ? data : NULL;
}

/*
 * Steps over the Ethernet header and at most two VLAN tags. Returns the type of what follows in
 * network order, or 0 when the frame ends earlier. Their length is counted, since the verifier
 * knows nothing of the difference between two packet pointers.
 */
static __always_inline __be16 parse_ethernet(struct cursor *c, __u32 *l3_offset)
{
	struct ethhdr *eth = cursor_take(c, sizeof(*eth));
	__be16 type;

	if (!eth)
		return 0;
	type = eth->h_proto;
	*l3_offset = sizeof(*eth);

#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_tag *tag;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		tag = cursor_take(c, sizeof(*tag));
		if (!tag)
			return 0;
		type = tag->type;
		*l3_offset += sizeof(*tag);
	}
	return type;
}
