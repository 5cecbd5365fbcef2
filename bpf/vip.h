/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which virtual IP a packet is for. */
#pragma once

#include "bpf/packet.h"

static __always_inline struct nlb_vip *vip_lookup(const __be32 *address, __be16 port, __u8 protocol,
						  bool is_ipv6)
{
	if (is_ipv6) {
		struct nlb_vip6_key key = { .port = port, .protocol = protocol };

		copy_address((__be32 *)key.address, address, true);
		return bpf_map_lookup_elem(&vips6, &key);
	} else {
		struct nlb_vip4_key key = { .address = address[0],
					    .port = port,
					    .protocol = protocol };

		return bpf_map_lookup_elem(&vips4, &key);
	}
}

/* False: surely not. */
static __always_inline bool may_be_vip(const struct nlb_config *cfg, const struct packet *p,
				       bool is_ipv6)
{
	return !cfg->vip_filter || (cfg->vip_filter & nlb_vip_bit(p->destination, is_ipv6));
}

/* Says `reason` of a packet to a virtual IP; whatever is not for one belongs to the kernel. */
static __always_inline int unless_other_host(const struct packet *p, int reason, bool is_ipv6)
{
	return vip_lookup(p->destination, 0, 0, is_ipv6) ? reason : NLB_REASON_NO_VIP;
}

/* The service that the packet's destination port belongs to. */
static __always_inline struct nlb_vip *vip_find(const struct nlb_config *cfg,
						const struct packet *p, bool is_ipv6)
{
	/* The second half of both ports as they lie in the packet. */
	__be16 port = (__be16)(p->ports >> 16);
	struct nlb_vip *vip = vip_lookup(p->destination, port, p->protocol, is_ipv6);

	if (!vip && (cfg->flags & NLB_CONFIG_ANY_PORT))
		vip = vip_lookup(p->destination, 0, p->protocol, is_ipv6);
	return vip;
}
