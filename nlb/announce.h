/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts virtual IPs on a local interface while they can be served, and takes them off when they
 * cannot, for a routing daemon (or VRRP) to announce. Only touches addresses that it added itself,
 * also by an nlbd before this one.
 */
#pragma once

#include <stdbool.h>

#include "lib/err.h"
#include "lib/loop.h"
#include "lib/net.h"
#include "nlb/conf.h"

struct announcer;
struct vips;

enum announce_state {
	ANNOUNCE_NO,        /* the configuration does not want it */
	ANNOUNCE_WITHDRAWN, /* no gateway can be used, or withdrawn by hand */
	ANNOUNCE_UP,
	ANNOUNCE_FOREIGN, /* the address is there, but not ours: it stays, whatever happens */
	ANNOUNCE_FAILED,  /* the kernel refused it; tried again every few seconds */
};

/* Takes over what an earlier nlbd left. 0 or -errno with the sentence in err. */
int announcer_new(struct announcer **out, struct loop *loop, const struct nlb_conf *conf,
		  struct err *err);
/* `withdraws`: takes all our addresses off; otherwise they stay for the next nlbd. */
void announcer_free(struct announcer **a, bool withdraws);

/* Brings the interface in step with the VIPs and their gateways. */
void announcer_update(struct announcer *a, struct vips *vips);
/* By hand, until the opposite or the end of nlbd: withdraw everything. */
void announcer_hold(struct announcer *a, bool withdrawn);
bool announcer_is_held(const struct announcer *a);

enum announce_state announcer_state(const struct announcer *a, const struct net_addr *address);
const char *announce_state_name(enum announce_state state);
