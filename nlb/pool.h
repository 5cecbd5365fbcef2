/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of one VIP: its gateways, who of them takes what, and the maps that packets see kept in
 * step. Whoever changes something says so with vip_mark; the maps follow at the end of the loop's
 * round, once.
 */
#pragma once

#include "lib/list.h"
#include "lib/loop.h"
#include "nlb/checker.h"
#include "nlb/conf.h"
#include "nlb/health.h"
#include "nlb/listing.h"
#include "nlb/loader.h"
#include "nlb/neigh.h"
#include "nlb/ramp.h"
#include "nlb/ringmap.h"
#include "nlb/vipmap.h"

struct http_client;

#define NLB_NAME_MAX 264 /* an identifier of the registry has at most 256 bytes */

enum gateway_state {
	GATEWAY_UP,         /* takes new connections, as its weight says */
	GATEWAY_DRAINING,   /* keeps its connections, takes no new ones */
	GATEWAY_UNKNOWN,    /* not checked yet */
	GATEWAY_UNRESOLVED, /* no MAC address for its next hop */
	GATEWAY_DOWN,       /* fails its checks */
	GATEWAY_STATES,
};

struct gateway;

/* What the pools of all VIPs share. */
struct pools {
	struct loop *loop;
	struct nlb_maps *maps;
	struct check_tools tools;
	struct err no_prober; /* why tools.prober is NULL */
	struct neigh *neigh;
	struct loop_task flush; /* at the end of the round */
	struct hash_key ring_key;
	struct gateway *by_id[NLB_MAX_GATEWAYS];
	uint16_t next_id;
};

/* A gateway as a member of one VIP's pool. */
struct gateway {
	struct list node; /* in vip->gateways */
	struct vip *vip;
	uint16_t id, generation;
	char name[NLB_NAME_MAX], ip[NET_ADDR_LEN];
	struct net_addr address;
	uint32_t weight;
	bool is_listed;          /* by the source of the pool, in its latest listing */
	bool is_listed_draining; /* ... which wants no new connections there */
	bool is_drained;         /* by nlbctl */
	bool was_usable;         /* according to an earlier nlbd: holds until the first check */
	struct health health;
	struct health presence; /* the same, but any answer of HTTP will do */
	struct check check;
	uint64_t transitions; /* of health, up to down or back */
	char why[160];        /* the last check failed because … */
	struct next_hop hop;
	enum gateway_state state;
	bool ramps; /* when it comes up next, it does so in steps */
	struct ramp ramp;
	uint32_t share; /* of its weight, 1 .. RAMP_STEPS */
	uint32_t slots; /* of the ring */
};

struct vip {
	struct list node;
	struct pools *pools;
	const struct nlb_conf_vip *conf;
	struct check_plan *plan; /* NULL: no checks */
	char name[NLB_NAME_MAX];
	struct vip_key key;
	uint16_t id;
	struct list gateways;
	bool is_waiting; /* for the first listing from the registry; what is pinned goes on */
	/* Without a ring of an earlier nlbd, until all gateways of the first listing were asked. */
	uint64_t begins_until_ms;
	bool was_listed; /* at all: the gateways of the first listing start at their full share */
	bool is_panicking;
	bool is_dirty;
	uint64_t changed_ns;    /* since when packets do not see the latest change */
	struct loop_timer ramp; /* to the next step of a gateway's slow start */
	struct ring ring;
	uint64_t ring_input;             /* hash of what the ring was built from */
	struct nlb_gateway_stats former; /* what gateways counted that have left */
	uint64_t told_left_out;          /* see listing_filter() */
	size_t without_id;               /* gateways that are too many */
};

/* The checks that the configuration wants of a VIP, NULL for none; 0 or -errno with the sentence.
 */
int vip_plan(const struct pools *v, const struct nlb_conf_vip *conf, struct check_plan **out,
	     struct err *err);
/* Takes over what the configuration says of the VIP, and its plan. */
void vip_configure(struct vip *vip, const struct nlb_conf_vip *conf, struct check_plan *plan);
/* Says that something changed. */
void vip_mark(struct vip *vip);
/* Brings its maps up to date now. */
void vip_flush(struct vip *vip);
/* All gateways of the VIP as its source names them now; see listing_filter() for who is left out.
 */
void vip_list(struct vip *vip, struct gateway_listing *list, size_t count);
/* Asks for the next hops of its gateways again. */
void vip_resolve(struct vip *vip);
/* Takes every gateway out and off the maps, or (end of nlbd) only lets go of the memory. */
void vip_clear(struct vip *vip, bool keeps_maps);

void vip_set_name(char out[static NLB_NAME_MAX], struct str name);
const char *gateway_state_name(enum gateway_state state);
/* Whether new connections go there: one with weight 0 only keeps those that it has. */
bool gateway_takes_new(const struct gateway *gw);

#define gateways_for_each(pos, vip)                                      \
	for (struct list *pos##_n_ = (vip)->gateways.next;               \
	     pos##_n_ != &(vip)->gateways &&                             \
	     (pos = container_of(pos##_n_, struct gateway, node), true); \
	     pos##_n_ = pos##_n_->next)
