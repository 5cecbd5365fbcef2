/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the configuration that says which sources may use a VIP, and how eagerly. */
#pragma once

#include "lib/conf.h"

struct nlb_conf_vip;

/* New connections of one source address (IPv6: of one network of 64 bits). */
struct nlb_conf_source_rate {
	uint32_t per_s, burst;
};

/* Prefixes in the allow lists of all VIPs together. */
#define NLB_ALLOWED_MAX 65536

extern const struct conf_object nlb_conf_source_rate_object;

/* Rules that need the VIP: called by its own check. */
void nlb_conf_filter_fit(struct conf *c, struct nlb_conf_vip *vip);

/* The rate as the forwarding program counts it: time that earns a connection, and time's worth that
 * may come at once, in ticks * 2^16. */
void nlb_conf_source_rate_ticks(const struct nlb_conf_source_rate *rate, uint32_t hz,
				uint32_t *interval, uint32_t *burst);
