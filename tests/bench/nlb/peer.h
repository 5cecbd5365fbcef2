/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another balancer's object file, given by the user, in the same world: the same VIPs and gateways.
 * Its maps have to be filled, so it must be one whose maps are known here: those of Katran, by
 * their public names and layouts.
 */
#pragma once

#include "tests/bench/nlb/world.h"

#define PEERS_MAX 4

struct peer {
	char name[64]; /* of the file, without its suffix */
	struct bpf_object *object;
	int program;
	enum peer_kind kind; /* which of our encapsulations it is to be compared with */
	uint32_t vips_max;
};

/*
 * `spec` is OBJECT or OBJECT:PROGRAM, where PROGRAM names a function or its section. Ends the
 * program with a sentence where that cannot be.
 */
void peer_open(struct peer *p, const char *spec);
/* Before each run: the new connections of a run are either all recorded, or a flood. */
void peer_prepare(struct peer *p, bool is_flood);
/* How many TCP packets it found no connection for, apart from SYNs. */
uint64_t peer_misses(struct peer *p);
