/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of nlbd: what the file says, checked, and nothing else. */
#pragma once

#include "bpf/nlb_abi.h"
#include "lib/conf.h"
#include "lib/maglev.h"
#include "lib/net.h"
#include "lib/str.h"
#include "nlb/conf_filter.h"
#include "nlb/conf_health.h"

#define NLB_WEIGHT_MAX     1000
#define NLB_INTERFACES_MAX 15 /* beside the first one */

enum nlb_xdp_mode { NLB_XDP_AUTO, NLB_XDP_NATIVE, NLB_XDP_GENERIC };

struct nlb_conf_gateway {
	struct str name; /* the address when none is given */
	struct net_addr address;
	uint32_t weight;
};

struct nlb_conf_vip {
	struct str name;
	struct net_addr address; /* with the port */
	uint16_t port;           /* 0: every port of the protocol */
	int protocol;            /* index of nlb_protocol_names */
	int encap;               /* index of nlb_encap_names; enum nlb_encap is one more */
	struct str discover;
	struct nlb_conf_gateway *gateways;
	size_t gateways_count;
	bool announce;                  /* on announce_interface while it can be served */
	struct nlb_conf_health *health; /* NULL: every gateway counts as healthy */
	uint32_t slow_start_s;
	struct net_prefix *allow; /* none: every source */
	size_t allow_count;
	struct nlb_conf_source_rate *source_rate; /* NULL: no limit */
};

struct nlb_conf {
	struct str interface;
	struct str *interfaces; /* more of them */
	size_t interfaces_count;
	int xdp_mode; /* enum nlb_xdp_mode */
	/* By family as in the ABI: [0] IPv4, [1] IPv6. Several addresses: the source follows the
	 * flow. */
	struct net_prefix source[2];
	bool has_source[2];
	struct str *registry_urls;
	size_t registry_urls_count;
	struct str registry_cache;
	struct str registry_token;
	struct str registry_ca, registry_certificate, registry_key; /* files, for "https:" */
	struct net_addr admin_bind;
	struct str admin_socket;
	uint32_t flows_per_cpu;
	uint32_t new_flows_per_cpu_s;
	uint32_t settle_s;
	uint32_t udp_timeout_s;
	uint32_t icmp_per_cpu_s;
	struct str hash_seed;
	struct str pin_directory;
	struct str announce_interface;
	struct nlb_conf_vip *vips;
	size_t vips_count;
};

extern const struct conf_object nlb_conf_object;
extern const char *const nlb_encap_names[];
extern const char *const nlb_protocol_names[];

/* Neither multicast nor loopback nor "any"; no IPv6 address that says nothing without its link. */
bool nlb_conf_is_host(const struct net_addr *a);
const char *nlb_conf_family_name(const struct net_addr *a); /* "IPv4" or "IPv6" */
/* 4 or 6: of the gateways in its list; 0: they come from the registry, which says it. */
uint8_t nlb_conf_vip_family(const struct nlb_conf_vip *vip);
/* The longest outer headers of this VIP's packets to gateways of that family. */
uint32_t nlb_conf_vip_overhead(const struct nlb_conf_vip *vip, uint8_t family);
/* What has to fit inside a tunnel by all means: the least MTU that its clients may count on. */
uint32_t nlb_conf_vip_mtu_min(const struct nlb_conf_vip *vip);

/* `rings`: keys the Maglev tables; `flows`: keys the packet hash. Both the same on every NLB with
 * this seed. */
void nlb_conf_hash_keys(const struct nlb_conf *conf, struct hash_key *rings,
			uint64_t flows[NLB_HASH_KEYS]);
