/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the decapsulating program, and the questions it asks them. */
#pragma once

#include "bpf/nlb_abi.h"

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <linux/in6.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct decap_source_key);
	__type(value, __u32);
} decap_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct decap_vip_key);
	__type(value, __u32);
} decap_vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct decap_config);
} decap_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} decap_reasons SEC(".maps");

static __always_inline int finish(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&decap_reasons, &reason);

	if (count)
		(*count)++;

#define DECAP_VERDICT(id, name, verdict, help) \
	case DECAP_REASON_##id:                \
		return XDP_##verdict;
	switch (reason) {
		DECAP_REASONS(DECAP_VERDICT)
	}
	return XDP_DROP;
}

static __always_inline void map_ipv4(__u8 out[16], __be32 address)
{
	__builtin_memset(out, 0, 10);
	out[10] = 0xff;
	out[11] = 0xff;
	__builtin_memcpy(out + 12, &address, sizeof(address));
}

static __always_inline bool is_source4(__be32 address)
{
	struct decap_source_key key = { .prefix_len = 128 };

	map_ipv4(key.address, address);
	return bpf_map_lookup_elem(&decap_sources, &key) != NULL;
}

static __always_inline bool is_source6(const struct in6_addr *address)
{
	struct decap_source_key key = { .prefix_len = 128 };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&decap_sources, &key) != NULL;
}

static __always_inline bool is_local_vip4(__be32 address)
{
	struct decap_vip_key key;

	map_ipv4(key.address, address);
	return bpf_map_lookup_elem(&decap_vips, &key) != NULL;
}

static __always_inline bool is_local_vip6(const struct in6_addr *address)
{
	struct decap_vip_key key;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&decap_vips, &key) != NULL;
}
