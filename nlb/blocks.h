/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block list: sources whose packets are dropped, each for good or for a while. It lives in the
 * pinned map `blocked`, so it survives nlbd, which alone writes there. An entry whose time is over
 * is ignored by the forwarding program at once and removed here soon after.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/net.h"

struct blocks;
struct json_writer;
struct loader;
struct loop;

#define BLOCKS_FOR_MAX_S (366ULL * 86400)

/* Takes over what is in the map. NULL when out of memory. */
struct blocks *blocks_new(struct loop *loop, struct loader *loader);
/* Leaves the map as it is. */
void blocks_free(struct blocks **b);

/*
 * Blocks a prefix for `for_s` seconds, 0: until it is removed. One that is there already keeps its
 * count and gets the new time. Returns 0, or -errno with the sentence in err.
 */
int blocks_add(struct blocks *b, const struct net_prefix *prefix, uint64_t for_s, struct err *err);
/* Exactly this prefix: 0, or -ENOENT with the sentence in err. */
int blocks_remove(struct blocks *b, const struct net_prefix *prefix, struct err *err);

/* An array of { "cidr", "left_s" (null: for good), "dropped" }. */
void blocks_write(struct blocks *b, struct json_writer *w, const char *key);
size_t blocks_count(const struct blocks *b);
