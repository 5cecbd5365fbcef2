/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allow lists: the prefixes of all VIPs in one map, each below its VIP's identifier. A list changes
 * in three steps, so that no source that is in both is refused meanwhile: allow_add, then the VIP's
 * own entry (whose flag says that it has a list), then allow_sweep.
 */
#pragma once

#include <stddef.h>

#include "nlb/loader.h"

/* Adds what the list of the VIP with this identifier has; 0 or -errno. */
int allow_add(const struct nlb_maps *maps, uint16_t vip, const struct nlb_conf_vip *conf);

/* A list that stays. */
struct allow_list {
	uint16_t vip;
	const struct nlb_conf_vip *conf;
};
/* Removes all entries that none of these lists has. */
void allow_sweep(const struct nlb_maps *maps, const struct allow_list *lists, size_t count);
