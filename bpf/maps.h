/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the forwarding program. Each is pinned by its name and survives nlbd. */
#pragma once

#include "bpf/nlb_abi.h"

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlb_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * NLB_MAX_VIPS);
	__type(key, struct nlb_vip4_key);
	__type(value, struct nlb_vip);
} vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * NLB_MAX_VIPS);
	__type(key, struct nlb_vip6_key);
	__type(value, struct nlb_vip);
} vips6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nlb_prefix_key);
	__type(value, struct nlb_block);
} blocked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nlb_allow_key);
	__type(value, __u32);
} allowed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NLB_RATE_BUCKETS);
	__uint(map_flags, BPF_F_MMAPABLE); /* page-aligned, so a bucket is one cache line */
	__type(key, __u32);
	__type(value, struct nlb_rate_bucket);
} source_rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct nlb_fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NLB_MAX_GATEWAYS);
	__uint(map_flags, BPF_F_MMAPABLE); /* page-aligned, so an entry is one cache line */
	__type(key, __u32);
	__type(value, struct nlb_gateway);
} gateways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NLB_MAX_GATEWAYS);
	__type(key, __u32);
	__type(value, struct nlb_gateway_stats);
} gateway_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NLB_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

/* A ring is replaced whole: nlbd fills a new inner map and puts it here with one update. */
struct ring_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NLB_RING_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	/* Sizes, not types: clang keeps only a forward declaration of what an inner map points at.
	 */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct nlb_slot));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, NLB_MAX_VIPS);
	__type(key, __u32);
	__array(values, struct ring_map);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load: buckets per CPU times possible CPUs */
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct nlb_flow_bucket);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlb_flow_guard);
} flow_guard SEC(".maps");

/* The same for answers of the program's own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nlb_flow_guard);
} icmp_guard SEC(".maps");
