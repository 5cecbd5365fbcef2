/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table: remembers which gateway a connection was given, for the packets whose ring slot
 * has changed hands since. A set-associative array rather than a BPF hash, because one cache line
 * holds a whole bucket and no list is kept in order: finding and adding cost one memory access
 * each.
 */
#pragma once

#include "bpf/guard.h"
#include "bpf/maps.h"

static __always_inline struct nlb_flow_bucket *flow_bucket(const struct nlb_config *cfg, __u64 hash,
							   __u32 cpu)
{
	__u32 index = cpu * (cfg->flow_bucket_mask + 1) + ((__u32)hash & cfg->flow_bucket_mask);

	return bpf_map_lookup_elem(&flows, &index);
}

/* Zero marks a free entry, so the one flow in 2^64 that hashes to it is known as 1. */
static __always_inline __u64 flow_tag(__u64 hash)
{
	return hash ? hash : 1;
}

/*
 * 1 if x is zero, else 0. A bucket is mostly not in the cache, and a branch on what is in it would
 * have the processor wait for it or guess wrong; by arithmetic it goes on with the packet, and with
 * the next one, meanwhile. The barrier keeps clang from making a branch of it after all.
 */
static __always_inline __u64 is_zero(__u64 x)
{
	__u64 y = -x;

	asm volatile("" : "+r"(y));
	return ((x | y) >> 63) ^ 1;
}

static __always_inline __u64 max_u63(__u64 a, __u64 b)
{
	__s64 less = (__s64)(a - b) >> 63;

	asm volatile("" : "+r"(less));
	return a - ((a - b) & (__u64)less);
}

static __always_inline struct nlb_flow *flow_find(const struct nlb_config *cfg, __u64 hash,
						  __u32 cpu)
{
	struct nlb_flow_bucket *bucket = flow_bucket(cfg, hash, cpu);
	__u64 tag = flow_tag(hash), is_here = 0, index = 0;

	if (!bucket)
		return NULL;
#pragma unroll
	for (__u64 i = 0; i < NLB_FLOW_WAYS; i++) {
		__u64 is_it = is_zero(bucket->way[i].tag ^ tag);

		is_here |= is_it;
		index |= is_it * i;
	}
	if (!is_here)
		return NULL;
	/* clang knows the bounds of it and leaves the mask out; the verifier of 6.1 does not. */
	asm volatile("" : "+r"(index));
	return &bucket->way[index & (NLB_FLOW_WAYS - 1)];
}

/*
 * The same in the regions of other CPUs: receive queues may have been bound anew, and virtual
 * devices have none. Of several entries the latest used is right, unless it is too old. Not
 * inlined: it is the rare way, and a loop. Returns gateway and generation, or 0.
 */
static __noinline __u32 flow_find_elsewhere(__u64 hash, __u32 age_max)
{
	__u32 own = bpf_get_smp_processor_id(), zero = 0, found = 0, age = age_max;
	struct nlb_config *cfg = bpf_map_lookup_elem(&config, &zero);
	__u32 now = (__u32)bpf_jiffies64();

	if (!cfg)
		return 0;
	for (__u32 cpu = 0; cpu < NLB_FLOW_REGIONS; cpu++) {
		struct nlb_flow *flow;

		if (cpu >= cfg->flow_regions)
			break;
		flow = cpu == own ? NULL : flow_find(cfg, hash, cpu);
		if (flow && now - flow->used <= age) {
			found = (__u32)flow->gateway << 16 | flow->generation;
			age = now - flow->used;
		}
	}
	return found;
}

/*
 * Under a flood of new connections nothing more is recorded in this tick: otherwise the flood would
 * push every established connection out of the table.
 */
static __always_inline bool flow_guard_allows(const struct nlb_config *cfg, __u64 now)
{
	__u32 zero = 0;

	return guard_allows(bpf_map_lookup_elem(&flow_guard, &zero), cfg->new_flows_per_tick, now);
}

/* Takes, in this order: the flow's own old entry, a free one, the one unused for longest. */
static __always_inline bool flow_put(const struct nlb_config *cfg, __u64 hash, __u16 gateway,
				     __u16 generation)
{
	struct nlb_flow_bucket *bucket = flow_bucket(cfg, hash, bpf_get_smp_processor_id());
	__u64 now = bpf_jiffies64();
	__u64 tag = flow_tag(hash);
	struct nlb_flow *victim;
	__u64 best = 0;

	if (!bucket || !flow_guard_allows(cfg, now))
		return false;

#pragma unroll
	for (__u64 i = 0; i < NLB_FLOW_WAYS; i++) {
		struct nlb_flow *flow = &bucket->way[i];
		__u64 score = (__u32)now - flow->used;

		score |= is_zero(flow->tag) << 32 | is_zero(flow->tag ^ tag) << 33;
		best = max_u63(score << 2 | (NLB_FLOW_WAYS - 1 - i), best);
	}
	victim = &bucket->way[NLB_FLOW_WAYS - 1 - (best & (NLB_FLOW_WAYS - 1))];
	victim->tag = tag;
	victim->gateway = gateway;
	victim->generation = generation;
	victim->used = (__u32)now;
	return true;
}
