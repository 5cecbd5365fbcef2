/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what the program counted, summed over CPUs. */
#pragma once

#include "nlb/loader.h"

void stats_gateway(const struct nlb_maps *maps, uint16_t id, struct nlb_gateway_stats *out);
void stats_add(struct nlb_gateway_stats *to, const struct nlb_gateway_stats *from);
void stats_reasons(const struct nlb_maps *maps, uint64_t out[NLB_REASON_COUNT]);

extern const char *const stats_reason_names[NLB_REASON_COUNT];
extern const char *const stats_reason_helps[NLB_REASON_COUNT];
/* What becomes of a packet with this end: the kernel has it, nobody, or the sender gets an answer.
 */
enum stats_verdict { STATS_PASS, STATS_DROP, STATS_TX, STATS_VERDICTS };
enum stats_verdict stats_reason_verdict(uint32_t reason);

/* The flow table as it is now; entries of gateways that are gone are not counted. */
struct stats_flows {
	uint64_t capacity, used;
	uint32_t count[NLB_MAX_GATEWAYS];  /* by identifier */
	uint32_t recent[NLB_MAX_GATEWAYS]; /* seen begin, or asked for, in the last minute */
};
void stats_flows(const struct loader *l, struct stats_flows *out);
