/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual IPs and their gateways: who is listed, who is healthy, and the maps kept in step with
 * both. Whoever changes something here only says so; rings are rebuilt at the end of the loop's
 * round, once.
 */
#pragma once

#include "lib/list.h"
#include "lib/loop.h"
#include "nlb/checker.h"
#include "nlb/conf.h"
#include "nlb/health.h"
#include "nlb/loader.h"
#include "nlb/neigh.h"

struct http_client;
struct vips;

#define NLB_NAME_MAX 264 /* an identifier of the registry has at most 256 bytes */

enum gateway_state {
	GATEWAY_UP,         /* takes new connections */
	GATEWAY_DRAINING,   /* keeps its connections, takes no new ones */
	GATEWAY_UNKNOWN,    /* not checked yet */
	GATEWAY_UNRESOLVED, /* no MAC address for its next hop */
	GATEWAY_DOWN,       /* fails its checks */
	GATEWAY_STATES,
};

struct vip;

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
	struct check check;
	char why[96]; /* the last check failed because … */
	struct next_hop hop;
	enum gateway_state state;
	uint32_t slots; /* of the ring */
};

struct vip {
	struct list node;
	struct vips *all;
	const struct nlb_conf_vip *conf;
	char name[NLB_NAME_MAX];
	struct nlb_vip4_key key;
	uint16_t id;
	struct list gateways;
	bool is_waiting; /* for the first listing from the registry; what is pinned goes on */
	bool is_panicking;
	bool is_dirty;
	int ring_fd;                     /* -1: none */
	struct nlb_slot *ring;           /* mapped */
	uint64_t ring_input;             /* hash of what the ring was built from */
	struct nlb_gateway_stats former; /* what gateways counted that have left */
};

/* One line of a pool's source. */
struct gateway_listing {
	struct str name;
	struct net_addr address;
	uint32_t weight;
	bool is_draining;
};

/* Takes over what an earlier nlbd left in the maps. NULL when out of memory. */
struct vips *vips_new(struct loop *loop, struct loader *loader, struct http_client *client,
		      struct err *err);
/* Leaves the maps as they are. */
void vips_free(struct vips **v);

/* Makes the set of VIPs what the configuration says; `conf` must stay valid until the next one. */
int vips_apply(struct vips *v, const struct nlb_conf *conf, struct err *err);
/* Brings all maps up to date at once, instead of at the end of the round. */
void vips_flush(struct vips *v);

/* The gateways of a VIP with "discover", all of them. Listings with a bad address are left out. */
void vip_list(struct vip *vip, const struct gateway_listing *list, size_t count);

/* Returns 0, -EALREADY, or -ENOENT with the sentence in err. */
int vips_drain(struct vips *v, struct str vip, struct str gateway, bool drained, struct err *err);

struct list *vips_list(struct vips *v);
struct vip *vips_find(struct vips *v, struct str name);
const char *gateway_state_name(enum gateway_state state);
/* Whether each VIP has a gateway for new connections. */
bool vips_are_ready(struct vips *v, struct err *why);

#define vips_for_each(pos, v)                                                                    \
	for (struct list *pos##_n_ = vips_list(v)->next;                                         \
	     pos##_n_ != vips_list(v) && (pos = container_of(pos##_n_, struct vip, node), true); \
	     pos##_n_ = pos##_n_->next)
#define gateways_for_each(pos, vip)                                      \
	for (struct list *pos##_n_ = (vip)->gateways.next;               \
	     pos##_n_ != &(vip)->gateways &&                             \
	     (pos = container_of(pos##_n_, struct gateway, node), true); \
	     pos##_n_ = pos##_n_->next)
