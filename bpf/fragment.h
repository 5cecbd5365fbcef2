/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments follow their first one, which alone has ports. They have a table of their own, so that
 * a flood of them pushes out nothing but other fragments.
 */
#pragma once

#include <linux/in.h>
#include <linux/in6.h>

#include "bpf/ring.h"

#define FRAGMENT_LIFETIME_S 30 /* as long as the kernel waits for the rest */

static __always_inline __u64 fragment_key(const struct nlb_config *cfg, const struct packet *p,
					  bool is_ipv6)
{
	/* IPv6 identifiers are for all protocols, and only the first fragment says which it is. */
	return packet_hash(cfg, p, p->fragment_id, is_ipv6 ? IPPROTO_FRAGMENT : p->protocol,
			   is_ipv6);
}

static __always_inline void fragment_remember(__u64 key, const struct route *r)
{
	struct nlb_fragment fragment = { .gateway = (__u16)r->id,
					 .generation = r->gateway->generation,
					 .seen = (__u32)bpf_jiffies64() };

	bpf_map_update_elem(&fragments, &key, &fragment, BPF_ANY);
}

/* Fills `r` with where the first one went; false if none was seen or its gateway is gone. */
static __always_inline bool fragment_find(const struct nlb_config *cfg, __u64 key, struct route *r)
{
	struct nlb_fragment *first = bpf_map_lookup_elem(&fragments, &key);
	__u32 now = (__u32)bpf_jiffies64();

	if (!first || now - first->seen > FRAGMENT_LIFETIME_S * cfg->hz)
		return false;
	r->id = first->gateway;
	r->gateway = gateway_get(r->id);
	if (!r->gateway || r->gateway->generation != first->generation ||
	    !(r->gateway->flags & NLB_GATEWAY_USABLE) ||
	    !(r->gateway->flags & NLB_GATEWAY_RESOLVED))
		return false;
	r->encap = r->gateway->encap;
	r->hash = key;
	return true;
}
