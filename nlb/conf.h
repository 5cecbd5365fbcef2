/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of nlbd: what the file says, checked, and nothing else. */
#pragma once

#include "bpf/nlb_abi.h"
#include "lib/conf.h"
#include "lib/maglev.h"
#include "lib/net.h"
#include "lib/str.h"
#include "nlb/conf_health.h"

enum nlb_xdp_mode { NLB_XDP_AUTO, NLB_XDP_NATIVE, NLB_XDP_GENERIC };

struct nlb_conf_gateway {
	struct str name; /* the address when none is given */
	struct net_addr address;
	uint32_t weight;
};

struct nlb_conf_vip {
	struct str name;
	struct net_addr address; /* with the port */
	uint16_t port;
	int protocol; /* index of nlb_protocol_names */
	int encap;    /* index of nlb_encap_names; enum nlb_encap is one more */
	struct str discover;
	struct nlb_conf_gateway *gateways;
	size_t gateways_count;
	struct nlb_conf_health *health; /* NULL: every gateway counts as healthy */
};

struct nlb_conf {
	struct str interface;
	int xdp_mode; /* enum nlb_xdp_mode */
	struct {
		struct net_prefix ipv4; /* several addresses: the source follows the flow */
		struct str ipv6;
		bool has_ipv4;
	} source;
	struct str *registry_urls;
	size_t registry_urls_count;
	struct net_addr admin_bind;
	struct str admin_socket;
	uint32_t flows_per_cpu;
	uint32_t new_flows_per_cpu_s;
	uint32_t settle_s;
	struct str hash_seed;
	struct str pin_directory;
	struct nlb_conf_vip *vips;
	size_t vips_count;
};

extern const struct conf_object nlb_conf_object;
extern const char *const nlb_encap_names[];
extern const char *const nlb_protocol_names[];

/* The longest outer headers of this VIP's packets. */
uint32_t nlb_conf_vip_overhead(const struct nlb_conf_vip *vip);

/* `rings`: keys the Maglev tables; `flows`: keys the packet hash. Both the same on every NLB with
 * this seed. */
void nlb_conf_hash_keys(const struct nlb_conf *conf, struct hash_key *rings,
			uint64_t flows[NLB_HASH_KEYS]);
