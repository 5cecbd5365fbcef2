/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks the name of a host up beside the event loop: the C library's resolver blocks for as long as
 * name servers are silent, so it runs in a thread of its own. For calls that happen now and then.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/net.h"
#include "lib/str.h"

struct loop;
struct resolve;

#define RESOLVE_ADDRESSES 4

/*
 * `on_done` runs in the loop, never before this returns: at most RESOLVE_ADDRESSES addresses in the
 * resolver's order, or none and the reason. An IP address needs no thread. The handle is freed
 * after on_done. NULL with errno set.
 */
struct resolve *resolve_start(struct loop *loop, struct str host, uint16_t port,
			      void (*on_done)(const struct net_addr *addrs, size_t count,
					      const char *problem, void *arg),
			      void *arg);
/* Ends it without on_done and clears the pointer; NULL inside is fine. */
void resolve_cancel(struct resolve **r);
