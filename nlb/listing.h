/* SPDX-License-Identifier: Apache-2.0 */
/* What a source of gateways (the configuration, the registry) says of them, and what can be used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/net.h"
#include "lib/str.h"

/* One line of a pool's source. */
struct gateway_listing {
	struct str name;
	struct net_addr address;
	uint32_t weight;
	bool is_draining;
};

/*
 * Leaves those that can be gateways of this virtual IP, in their order; returns how many. Others
 * are left out and told of in the log: addresses of no host, the virtual IP itself, and those of
 * the address family that most do not have, since earlier owners are named in the tunnel by
 * addresses of one family. `told` remembers what was said, so that it is not said with every
 * change of the list; zero at first.
 */
size_t listing_filter(struct gateway_listing *list, size_t count, const char *vip,
		      const struct net_addr *vip_address, uint64_t *told);
