/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sources that are kept out: blocked, not allowed, or too eager. */
#pragma once

#include "bpf/packet.h"

#define RATE_WAYS 4

/* Kept out of line, so that the usual way does not carry their code. */
static __noinline bool is_in_block_list(struct nlb_prefix_key *key)
{
	struct nlb_block *block = bpf_map_lookup_elem(&blocked, key);

	if (!block || (block->until && bpf_jiffies64() >= block->until))
		return false;
	block->dropped++;
	return true;
}

static __noinline bool is_in_allow_list(struct nlb_allow_key *key)
{
	return bpf_map_lookup_elem(&allowed, key) != NULL;
}

static __always_inline bool is_blocked(const struct nlb_config *cfg, const struct packet *p,
				       bool is_ipv6)
{
	struct nlb_prefix_key key = { .prefix_len = 128 };

	if (!(cfg->flags & NLB_CONFIG_BLOCKED))
		return false;
	map_address(key.address, p->source, is_ipv6);
	return is_in_block_list(&key);
}

static __always_inline bool is_allowed(const struct nlb_vip *vip, const struct packet *p,
				       bool is_ipv6)
{
	struct nlb_allow_key key = { .prefix_len = 32 + 128, .vip = vip->id };

	if (!(vip->flags & NLB_VIP_ALLOW))
		return true;
	map_address(key.address, p->source, is_ipv6);
	return is_in_allow_list(&key);
}

/*
 * GCRA: `at` is when the source will have paid for all its connections so far, at one interval
 * each. It may be ahead of now by the burst. Takes, in this order: the source's own entry, the one
 * that is paid longest (a free one has always been).
 */
static __noinline bool rate_allows(__u64 tag, __u32 interval, __u32 burst)
{
	__u32 index = (__u32)tag & (NLB_RATE_BUCKETS - 1);
	struct nlb_rate_bucket *bucket = bpf_map_lookup_elem(&source_rates, &index);
	__u64 now = bpf_jiffies64() << 16;
	struct nlb_source_rate *source;
	__u64 at;

	if (!bucket)
		return true;
	tag = tag ? tag : 1;
	source = &bucket->way[0];
#pragma unroll
	for (int i = 1; i < RATE_WAYS; i++) {
		struct nlb_source_rate *way = &bucket->way[i];

		if (source->tag != tag && (way->tag == tag || way->at < source->at))
			source = way;
	}
	at = source->tag == tag && source->at > now ? source->at : now;
	if (at + interval > now + burst)
		return false;
	source->tag = tag;
	source->at = at + interval;
	return true;
}

/* A source is an IPv4 address or an IPv6 network of 64 bits: whoever has one address there has all.
 */
static __always_inline bool is_within_rate(const struct nlb_config *cfg, const struct nlb_vip *vip,
					   const struct packet *p, bool is_ipv6)
{
	__be32 network[4] = { p->source[0] }, target[4] = { vip->id };

	if (!(vip->flags & NLB_VIP_RATE))
		return true;
	if (!is_ipv6)
		return rate_allows(nlb_hash4(cfg->hash_key, network[0], target[0], 0, 0),
				   vip->source_interval, vip->source_burst);
	network[1] = p->source[1];
	return rate_allows(nlb_hash6(cfg->hash_key, network, target, 0, 1), vip->source_interval,
			   vip->source_burst);
}
