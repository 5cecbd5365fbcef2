/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Moves the link header, VLAN tags included, when bytes are put before or taken from behind it. */
#pragma once

#include "bpf/parse.h"

struct link_header {
	struct ethhdr eth;
	struct vlan_tag tag[MAX_VLAN_TAGS];
};

/* False if the frame is too short. */
static __always_inline bool link_save(struct xdp_md *ctx, struct link_header *out)
{
	struct cursor c = { (void *)(long)ctx->data, (void *)(long)ctx->data_end };
	struct ethhdr *eth = cursor_take(&c, sizeof(*eth));
	/* An IP header is behind it, so there are always bytes for two tags, whether they are any.
	 */
	struct vlan_tag *tag = cursor_take(&c, sizeof(out->tag));

	if (!eth || !tag)
		return false;
	out->eth = *eth;
	__builtin_memcpy(out->tag, tag, sizeof(out->tag));
	return true;
}

/*
 * Moves the packet's head by `delta` (negative: grows) and writes the link header at the new front.
 * Returns the first byte behind it, with at least `room` bytes there, or NULL. All other pointers
 * into the packet are void afterwards.
 */
static __always_inline void *link_move(struct xdp_md *ctx, __u32 l3_offset, int delta, __u32 room,
				       const struct link_header *link)
{
	struct cursor c;
	struct ethhdr *eth;

	if (bpf_xdp_adjust_head(ctx, delta))
		return NULL;
	c.pos = (void *)(long)ctx->data;
	c.end = (void *)(long)ctx->data_end;
	eth = cursor_take(&c, sizeof(*eth));
	if (!eth)
		return NULL;
	*eth = link->eth;

#pragma unroll
	for (__u32 i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_tag *tag;

		if (l3_offset <= sizeof(*eth) + i * sizeof(*tag))
			break;
		tag = cursor_take(&c, sizeof(*tag));
		if (!tag)
			return NULL;
		*tag = link->tag[i];
	}
	return c.pos + room <= c.end ? c.pos : NULL;
}

/* What the link header says of the packet behind it: the last of its types. */
static __always_inline void link_set_type(struct link_header *link, __u32 l3_offset, __be16 type)
{
	if (l3_offset <= sizeof(link->eth))
		link->eth.h_proto = type;
	else if (l3_offset <= sizeof(link->eth) + sizeof(link->tag[0]))
		link->tag[0].type = type;
	else
		link->tag[1].type = type;
}
