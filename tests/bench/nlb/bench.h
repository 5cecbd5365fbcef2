/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of all cases in turns, and what came of them. */
#pragma once

#include "tests/bench/nlb/peer.h"

#define ROUNDS_MAX 101
#define CASES_MAX  64
/* Fewer than what a peer records in a second, so that all new connections of a run are recorded. */
#define PACKETS 100000U

struct result {
	double median, low, high;
};

struct bench {
	struct world world;
	struct peer peers[PEERS_MAX];
	size_t peer_count;
	int rounds;
	uint32_t next_flow[CASES_MAX][2]; /* where each case goes on: [0] ours, [1] the peer's */
	double ns[CASES_MAX][ROUNDS_MAX];
	double peer_ns[CASES_MAX][ROUNDS_MAX];
};

/* All cases; ends the program when one is not what its name says. */
void bench_run(struct bench *b);
/* The peer that this case is run on as well, or NULL. */
struct peer *bench_peer(struct bench *b, const struct bench_case *c);

/* Net of the harness, round by round. */
struct result bench_result(const struct bench *b, size_t c);
struct result bench_peer_result(const struct bench *b, size_t c);
/* Our time over the peer's, round by round. */
struct result bench_peer_ratio(const struct bench *b, size_t c);

/* Of `count` values, which are sorted. */
struct result result_of(double *values, size_t count);

/* What this thread really got: others may be running on the same core. */
uint64_t thread_cpu_ns(void);

/* Prints one JSON object. */
void bench_print_json(struct bench *b);
void bench_print_table(struct bench *b);

/*
 * Packets per second through a native program on one end of a veth pair, with 64 k connections,
 * everything on this core: generator, forwarding, and the end of what comes back.
 */
int veth_main(struct bench *b, const char *interfaces);
/* Memory at the limits, and the time of a pool change. */
int scale_main(int rounds);
