/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of a network interface, a route and a neighbour. Asks only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/net.h"

/* The interface's driver, "" when it cannot be told. */
#define LINK_DRIVER_LEN 32
const char *link_driver(const char *interface, char out[static LINK_DRIVER_LEN]);
/* Of a feature as `ethtool -k` knows it inside ("rx-lro", "rx-gro", "rx-gro-hw",
 * "tx-checksum-ip-generic"): 1 on, 0 off, -errno when it cannot be told. */
int link_feature(const char *interface, const char *feature);
/* 0 when it cannot be told. */
uint32_t link_mtu(const char *interface);
/* Whether packets can be redirected to it from XDP: 1, 0, or -errno (kernels before 6.3). */
int link_takes_xdp(uint32_t ifindex);
/* The values of net.ipv4.conf.all.NAME and of the interface; -1 where they cannot be read. */
void link_sysctl(const char *interface, const char *name, int *all, int *own);
/* Whether `lo` has the address. */
bool link_loopback_has(const struct net_addr *address);

struct link_route {
	uint32_t ifindex;
	struct net_addr via; /* the next hop: a router, or the address itself */
	uint32_t mtu;        /* of the route, 0: the interface's */
	uint32_t advmss;     /* of the route, 0: none */
	bool is_unicast;     /* false: the address is local, or packets to it are refused */
};
/* Returns 0, or -errno: -ENETUNREACH when there is no route. */
int link_route(const struct net_addr *to, struct link_route *out);

enum link_neighbour_state { LINK_NEIGHBOUR_UNKNOWN, LINK_NEIGHBOUR_FAILED, LINK_NEIGHBOUR_KNOWN };
enum link_neighbour_state link_neighbour(const struct net_addr *via, uint32_t ifindex,
					 uint8_t mac[static 6]);
