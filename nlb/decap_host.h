/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What second chance needs of a gateway host besides its program: that the kernel answers the
 * program's question for a route, knows the other gateways' MAC addresses, and knows the network
 * namespace whose sockets count.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/net.h"

/* Whether the kernel answers questions for a route of each family. */
struct decap_host {
	bool routes_ipv4, routes_ipv6;
};

/*
 * Lets programs ask for routes, which the kernel only answers for an interface that forwards: `lo`,
 * where that changes nothing else. What cannot be set shows in decap_host_read().
 */
void decap_host_allow_routing(void);
void decap_host_read(struct decap_host *out);

/*
 * Has the kernel keep the MAC address on the way to a single address known (a managed neighbour,
 * Linux 5.16; earlier ones only find it once), because packets that a program sends do not make it
 * look. Longer prefixes, addresses without a route and permanent neighbours are left alone.
 */
void decap_host_keep(const struct net_prefix *address);
/* The end of that; the neighbour stays known until it is forgotten like any other. */
void decap_host_release(const struct net_prefix *address);

/*
 * The identifier that this network namespace has for another, named as `ip netns` does or by a path
 * below /proc; one is assigned if there is none. Returns 0 or -errno with the sentence in err.
 */
int decap_host_netns(uint32_t *out, const char *name, struct err *err);
