/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single addresses (/32, /128) on a network interface: adds, removes and lists them, with a mark
 * that tells whose they are. By netlink; changing needs CAP_NET_ADMIN.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/net.h"

/*
 * Who added an address: IPv4 ones have a label, IPv6 ones a protocol number, which kernels before
 * 5.18 do not keep; there none is taken for ours.
 */
struct address_mark {
	char label[16];
	uint8_t protocol;
};

/* 0, -EEXIST when it is there already, or another -errno. */
int address_add(uint32_t ifindex, const struct net_addr *address, const struct address_mark *mark);
int address_remove(uint32_t ifindex, const struct net_addr *address);

/* Calls for every address of every interface. Returns 0 or -errno. */
int address_list(void (*each)(uint32_t ifindex, const struct net_addr *address, bool is_ours,
			      void *arg),
		 const struct address_mark *mark, void *arg);
