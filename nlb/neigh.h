/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Next hops: which interface and MAC addresses a packet to a gateway needs, asked from the kernel's
 * routes and neighbours, so that the fast path looks up neither.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/loop.h"
#include "lib/net.h"

struct neigh;

struct next_hop {
	uint32_t ifindex;
	uint8_t mac[6];
	uint8_t source_mac[6];
	uint16_t mtu; /* of the link, or of the route if that has a smaller one */
	bool is_resolved;
	const char *problem; /* why not; NULL when resolved */
};

/*
 * Calls on_change, in the loop, soon after any change of routes, neighbours or links (many changes
 * in a row: once), and every few seconds to be sure. Returns 0 or -errno.
 */
int neigh_new(struct neigh **out, struct loop *loop, void (*on_change)(void *arg), void *arg,
	      struct err *err);
void neigh_free(struct neigh **n);

/*
 * Asks the kernel (once in a round of the loop for each address), which answers at once; if the MAC
 * address is not known the kernel is told to find it, and on_change follows. The addresses of an
 * unresolved hop keep what was found before.
 */
void neigh_resolve(struct neigh *n, const struct net_addr *to, struct next_hop *hop);
