/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/stats.h"

#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"

#define RECENT_S 60

#define REASON_NAME(id, name, verdict, help)    name,
#define REASON_HELP(id, name, verdict, help)    help,
#define REASON_VERDICT(id, name, verdict, help) STATS_##verdict,

const char *const stats_reason_names[NLB_REASON_COUNT] = { NLB_REASONS(REASON_NAME) };
const char *const stats_reason_helps[NLB_REASON_COUNT] = { NLB_REASONS(REASON_HELP) };

enum stats_verdict stats_reason_verdict(uint32_t reason)
{
	static const uint8_t verdicts[NLB_REASON_COUNT] = { NLB_REASONS(REASON_VERDICT) };

	return (enum stats_verdict)verdicts[reason];
}

void stats_add(struct nlb_gateway_stats *to, const struct nlb_gateway_stats *from)
{
	to->packets += from->packets;
	to->bytes += from->bytes;
	to->connections += from->connections;
	to->flow_hits += from->flow_hits;
	to->flow_misses += from->flow_misses;
	to->unrecorded += from->unrecorded;
}

void stats_gateway(const struct nlb_maps *maps, uint16_t id, struct nlb_gateway_stats *out)
{
	CLEANUP(cleanup_free)
	struct nlb_gateway_stats *values = calloc((size_t)maps->cpus, sizeof(*values));
	__u32 key = id;

	*out = (struct nlb_gateway_stats) { 0 };
	if (!values || bpf_map_lookup_elem(maps->gateway_stats, &key, values) != 0)
		return;
	for (int cpu = 0; cpu < maps->cpus; cpu++)
		stats_add(out, &values[cpu]);
}

void stats_reasons(const struct nlb_maps *maps, uint64_t out[NLB_REASON_COUNT])
{
	CLEANUP(cleanup_free) uint64_t *values = calloc((size_t)maps->cpus, sizeof(*values));

	memset(out, 0, sizeof(*out) * NLB_REASON_COUNT);
	for (__u32 r = 0; values && r < NLB_REASON_COUNT; r++) {
		if (bpf_map_lookup_elem(maps->reasons, &r, values) != 0)
			continue;
		for (int cpu = 0; cpu < maps->cpus; cpu++)
			out[r] += values[cpu];
	}
}

void stats_flows(const struct loader *l, struct stats_flows *out)
{
	const struct nlb_maps *maps = &l->maps;
	uint32_t now = loader_ticks(l);

	memset(out, 0, sizeof(*out));
	out->capacity = (uint64_t)maps->flow_buckets * NLB_FLOW_WAYS;
	for (uint32_t b = 0; b < maps->flow_buckets; b++) {
		for (unsigned w = 0; w < NLB_FLOW_WAYS; w++) {
			struct nlb_flow flow = maps->flows[b].way[w];

			if (!flow.tag || flow.gateway >= NLB_MAX_GATEWAYS ||
			    maps->gateways[flow.gateway].generation != flow.generation)
				continue;
			out->used++;
			out->count[flow.gateway]++;
			if (now - flow.used <= RECENT_S * maps->hz)
				out->recent[flow.gateway]++;
		}
	}
}
