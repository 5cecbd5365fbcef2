/* SPDX-License-Identifier: Apache-2.0 */
/* Our programs, loaded, with the benchmark's VIPs and gateways in their maps. */
#pragma once

#include "tests/bench/nlb/packet.h"

#include <stdnoreturn.h>

#define FLOW_BUCKETS_LOG 19 /* of four: 2 M connections per CPU */

/* Says what failed and ends the program. */
noreturn void die(const char *what, int err);
/* A negative result ends the program. */
int must(int rc, const char *what);

struct nlb_bpf;
struct decap_bpf;
struct nlb_harness_bpf;
struct nlb_floor_bpf;

struct world {
	struct nlb_harness_bpf *harness;
	struct nlb_floor_bpf *floor;
	struct nlb_bpf *nlb;
	struct decap_bpf *decap;
	struct local_connection local;
	int program[SUBJECTS];
	uint32_t ifindex;
};

/* `ifindex` is where packets come in and go out. */
void world_open(struct world *w, uint32_t ifindex);
/* Before each case: what of the configuration depends on it. */
void world_prepare(struct world *w, const struct bench_case *c);
/* From now on all slots of the VIP have moved, and each to another gateway. */
void world_move(struct world *w, enum vip vip);
/* Packets whose gateway came from the flow table, and those looked up there in vain. */
void world_hits(struct world *w, uint64_t *hits, uint64_t *misses);
