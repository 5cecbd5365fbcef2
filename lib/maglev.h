/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maglev hashing (Eisenbud et al., NSDI 2016) with weights: which node owns each slot of a table,
 * so that shares are even and a change of nodes moves few slots. Also gives every slot its next
 * choices: who would own it if the ones before were not there. Pure arithmetic.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/hash.h"
#include "lib/str.h"

#define MAGLEV_NONE       UINT16_MAX
#define MAGLEV_WEIGHT_MAX 65535

struct maglev_node {
	struct str identity; /* distinct; the same on every machine that builds this table */
	uint32_t weight;     /* 0 .. MAGLEV_WEIGHT_MAX; 0 owns nothing */
};

/*
 * Fills choices[slot * depth + rank] with indices into `nodes`, rank 0 being the owner; MAGLEV_NONE
 * where there are fewer nodes than `depth`. `slots` is a prime. The order of `nodes` has no
 * influence on who owns what. Returns 0, -ENOMEM, or -EINVAL for a weight out of range or too many
 * nodes.
 */
int maglev_build(uint16_t *choices, uint32_t slots, uint32_t depth, const struct maglev_node *nodes,
		 size_t count, const struct hash_key *key);
