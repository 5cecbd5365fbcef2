/* SPDX-License-Identifier: Apache-2.0 */
/* The entries of VIPs in the maps that packets are looked up in: one map for each address family.
 */
#pragma once

#include <stddef.h>
#include <string.h>

#include "bpf/nlb_abi.h"
#include "lib/net.h"
#include "nlb/conf.h"
#include "nlb/loader.h"

/* A VIP of either family. Without a protocol it is the entry that only says "this is a VIP". */
struct vip_key {
	uint8_t address[16];
	__be16 port;
	uint8_t protocol;
	uint8_t family; /* 4 or 6 */
};
_Static_assert(sizeof(struct vip_key) == 20, "compared by its bytes");

#define VIPMAP_MAX ((size_t)4 * NLB_MAX_VIPS)

/* An address as the maps have it: IPv4 in the first four bytes. Returns 4 or 6. */
static inline uint8_t vipmap_address(uint8_t out[16], const struct net_addr *a)
{
	memset(out, 0, 16);
	if (a->sa.sa_family == AF_INET6) {
		memcpy(out, &a->in6.sin6_addr, 16);
		return 6;
	}
	memcpy(out, &a->in.sin_addr, 4);
	return 4;
}

static inline bool vip_key_eq(const struct vip_key *a, const struct vip_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

struct vip_key vip_key_of(const struct nlb_conf_vip *conf);
struct vip_key vip_key_address(const struct vip_key *key);

/* 0 or -errno */
int vipmap_get(const struct nlb_maps *maps, const struct vip_key *key, struct nlb_vip *out);
int vipmap_put(const struct nlb_maps *maps, const struct vip_key *key, const struct nlb_vip *value);
void vipmap_delete(const struct nlb_maps *maps, const struct vip_key *key);
/* All keys of both maps, at most VIPMAP_MAX; returns how many. */
size_t vipmap_list(const struct nlb_maps *maps, struct vip_key *out);
