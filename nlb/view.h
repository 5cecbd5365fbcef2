/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pinned maps, read only: what packets really see, whether nlbd runs or not. For the commands
 * that explain; nothing is ever written through it.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/nlb_abi.h"
#include "lib/err.h"
#include "lib/net.h"

struct view {
	char interface[16];
	char dir[PATH_MAX - 64];
	struct nlb_config config;
	int vips4, vips6, rings, gateways, gateway_stats, reasons, flows, blocked, allowed;
	int source_rates;
	int cpus;
	uint64_t now; /* kernel ticks */
};

#define VIEW_INTERFACES_MAX 16
/* The interfaces below `pin_directory` that have a forwarding program. Returns how many. */
size_t view_interfaces(const char *pin_directory, char out[VIEW_INTERFACES_MAX][16]);

/*
 * `interface` NULL: the only one there is. Returns 0 or -errno with the sentence in err: -ENOENT
 * when nothing forwards here, -EPERM without the rights, -EPROTO when the maps are of another
 * version.
 */
int view_open(struct view *v, const char *pin_directory, const char *interface, struct err *err);
void view_close(struct view *v);

/* What `vips4` or `vips6` say of an address, port (0: any) and protocol (0: the address at all). */
bool view_vip(const struct view *v, const struct net_addr *address, uint16_t port, uint8_t protocol,
	      struct nlb_vip *out);
/* The slot of a VIP's ring; false when the VIP has no ring. */
bool view_slot(const struct view *v, uint16_t vip, uint32_t index, struct nlb_slot *out);
bool view_gateway(const struct view *v, uint16_t id, struct nlb_gateway *out);
/* Sums over all CPUs. */
void view_gateway_stats(const struct view *v, uint16_t id, struct nlb_gateway_stats *out);
void view_reasons(const struct view *v, uint64_t out[NLB_REASON_COUNT]);
bool view_flow_bucket(const struct view *v, int cpu, uint64_t hash, struct nlb_flow_bucket *out);
bool view_rate_bucket(const struct view *v, uint64_t tag, struct nlb_rate_bucket *out);

/* The entry of the block list that a source meets, which may have run out (`until`). */
struct view_block {
	struct nlb_prefix_key key;
	struct nlb_block value;
};
bool view_blocked(const struct view *v, const struct net_addr *source, struct view_block *out);
bool view_allowed(const struct view *v, uint16_t vip, const struct net_addr *source);

/* All services of all VIPs. Stops when `each` returns false. */
struct view_service {
	struct net_addr address; /* with the port; 0: any */
	uint8_t protocol;
	struct nlb_vip vip;
};
void view_services(const struct view *v,
		   bool (*each)(const struct view_service *service, void *arg), void *arg);

/* The address of a gateway as the maps hold it. */
void view_gateway_address(const struct nlb_gateway *gw, struct net_addr *out);
/* IPv4 as ::ffff:a.b.c.d, as in the maps of prefixes. */
void view_mapped(uint8_t out[static 16], const struct net_addr *a);
