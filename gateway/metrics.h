/* SPDX-License-Identifier: Apache-2.0 */
/* What the gateway shows of itself in Prometheus' format, and the sums that it is made of. Main
 * thread. */
#pragma once

#include "gateway/gateway.h"
#include "lib/json.h"

void gateway_write_metrics(const struct gateway *g, struct buf *out);

/* Counters of one route, summed over the workers. */
struct route_sum {
	uint64_t status_class[6]; /* as in route_stats */
	uint64_t mirrored[MIRROR_RESULTS];
	struct metrics_histogram latency;
};

extern const struct str gateway_status_classes[6]; /* "none", "1xx" … */
void gateway_route_sum(const struct gateway *g, struct str name, struct route_sum *out);
/* Requests of the route that this one of its services got. */
uint64_t gateway_split_sum(const struct gateway *g, struct str route, struct str service);
/* Of the i-th route; requests without one are counted under the empty name, behind all others. */
struct str gateway_route_name(const struct snapshot *s, size_t i);
uint64_t gateway_count_connections(const struct gateway *g);
