/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs and user space agree on: map entries, wire formats of our own, and the list
 * of named ends a packet can come to. The only header that both worlds include.
 *
 * All structures have explicit padding that must be zero. Addresses are 16 bytes everywhere, IPv4
 * in the first four, so that one layout serves both families.
 */
#pragma once

#include <linux/types.h>

#define NLB_RING_SLOTS \
	65537 /* prime, so that every skip of a Maglev permutation visits all slots */
#define NLB_MAX_VIPS     512
#define NLB_MAX_GATEWAYS 4096 /* member identifiers 1 .. 4095; 0 means "none" */
#define NLB_GUE_PORT     6080
#define NLB_FLOW_WAYS    4
#define NLB_FLOW_REGIONS 16

/*
 * Raise it when an entry of the forwarding program's maps changes its meaning but not its size:
 * what is pinned was written by an nlbd of another version, which this one must not take over then.
 */
#define NLB_ABI_VERSION 1

/* --- where packets end ---------------------------------------------------------------------- */

/*
 * X(identifier, metric name, verdict, help). Every packet that is not forwarded ends in exactly one
 * of these, counted per CPU in the map `reasons`; forwarded ones count at their gateway. The order
 * is part of the ABI: a pinned map outlives the daemon that made it, so append only.
 */
#define NLB_REASONS(X)                                                                            \
	X(NOT_IP, "not_ip", PASS, "neither IPv4 nor IPv6")                                        \
	X(NO_VIP, "no_vip", PASS, "not addressed to a virtual IP")                                \
	X(NO_CONFIG, "no_config", PASS, "the program has not been configured yet")                \
	X(ICMP_OTHER, "icmp_other", PASS, "ICMP to a virtual IP, neither echo nor an error")      \
	X(ECHO_REPLY, "echo_reply", TX, "echo request to a virtual IP, answered")                 \
	X(TOLD_TOO_BIG, "told_too_big", TX, "too big once encapsulated, and the sender told so")  \
	X(TRUNCATED, "truncated", DROP, "shorter than its headers say")                           \
	X(MALFORMED, "malformed", DROP, "impossible header lengths or version")                   \
	X(EXTENSIONS, "extensions", DROP, "more IPv6 extension headers than are followed")        \
	X(FRAGMENT, "fragment", DROP, "fragment whose first one was not seen")                    \
	X(NO_SERVICE, "no_service", DROP, "virtual IP, but no such port or protocol there")       \
	X(SPOOFED, "spoofed", DROP, "source address is the virtual IP itself, or no host's")      \
	X(BLOCKED, "blocked", DROP, "source address is on the block list")                        \
	X(NOT_ALLOWED, "not_allowed", DROP, "source address is not on the allow list")            \
	X(SOURCE_RATE, "source_rate", DROP, "too many new connections from one source address")   \
	X(ICMP_RATE, "icmp_rate", DROP, "more ICMP to answer than the limit allows")              \
	X(ICMP_UNRELATED, "icmp_unrelated", DROP, "ICMP error that quotes no connection of ours") \
	X(NO_GATEWAY, "no_gateway", DROP, "the virtual IP has no gateway at all")                 \
	X(NO_NEIGHBOUR, "no_neighbour", DROP, "next-hop MAC address of the gateway is unknown")   \
	X(TOO_BIG, "too_big", DROP, "too big once encapsulated, and may be fragmented")           \
	X(NO_HEADROOM, "no_headroom", DROP, "the driver left no room for the outer header")

#define NLB_REASON_ENUM(id, name, verdict, help) NLB_REASON_##id,
enum nlb_reason { NLB_REASONS(NLB_REASON_ENUM) NLB_REASON_COUNT };

/* The same for the decapsulating program on gateway hosts, counted in its map `decap_reasons`. */
#define DECAP_REASONS(X)                                                                         \
	X(NOT_TUNNEL, "not_tunnel", PASS, "no packet of a tunnel")                               \
	X(IPIP, "ipip", PASS, "decapsulated from IP in IP")                                      \
	X(GUE, "gue", PASS, "decapsulated from GUE")                                             \
	X(SECOND_CHANCE, "second_chance", TX, "no socket here: sent on to an earlier owner")     \
	X(LAST_CHANCE, "last_chance", PASS, "no socket here, and no other gateway left to ask")  \
	X(STRANGER, "stranger", DROP, "tunnel packet from a source that is not allowed")         \
	X(NOT_LOCAL, "not_local", DROP, "inner destination is no virtual IP of this host")       \
	X(MALFORMED, "malformed", DROP, "impossible or truncated headers in a tunnel packet")    \
	X(FRAGMENT, "fragment", DROP, "fragmented tunnel packet")                                \
	X(UNSUPPORTED, "unsupported", DROP, "GUE version, control message or protocol not ours") \
	X(NO_NEXT_HOP, "no_next_hop", DROP, "second chance without a route or MAC address")      \
	X(REFLECTED, "reflected", TX, "sent on by way of the host it came from: no MAC address") \
	X(CONGESTED, "congested", DROP, "marked congested, and the inner packet takes no marks")

#define DECAP_REASON_ENUM(id, name, verdict, help) DECAP_REASON_##id,
enum decap_reason { DECAP_REASONS(DECAP_REASON_ENUM) DECAP_REASON_COUNT };

/* --- map entries ---------------------------------------------------------------------------- */

enum nlb_encap { NLB_ENCAP_IPIP = 1, NLB_ENCAP_GUE = 2, NLB_ENCAP_L2 = 3 };

#define NLB_HASH_KEYS \
	11 /* one constant, one for the protocol and ports each, eight address words */

/* Map `config`, one entry. */
struct nlb_config {
	__u64 hash_key[NLB_HASH_KEYS]; /* equal on every NLB of a group: derived from hash_seed */
	__u8 source[2][16];            /* outer source address: [0] IPv4, [1] IPv6 */
	__be32 source_vary[2];         /* last four bytes' bits that follow the flow, for ECMP */
	__u32 flow_bucket_mask;        /* buckets per CPU - 1; a power of two of them */
	__u32 new_flows_per_tick;      /* above it new connections are not recorded */
	__u32 hz;                      /* kernel ticks per second */
	__u32 flags;                   /* NLB_CONFIG_* */
	__u32 flow_regions;  /* CPUs whose regions are searched; at most NLB_FLOW_REGIONS */
	__u32 udp_timeout;   /* ticks without a packet after which a UDP flow is forgotten */
	__u32 icmp_per_tick; /* answers of the program's own (echo, too big), per CPU */
	__u32 vip_filter;    /* the bits of all VIPs' addresses (nlb_vip_bit); 0: not told */
};
#define NLB_CONFIG_READY    1U
#define NLB_CONFIG_ANY_PORT 2U /* at least one VIP takes every port: look again with port 0 */
#define NLB_CONFIG_BLOCKED  4U /* the block list is not empty: look sources up there */
_Static_assert(sizeof(struct nlb_config) == 88 + 32 + 8 + 32, "nlb_config has no hidden padding");

/*
 * Key of the map `vips6`. Besides its services every virtual IP has an entry with port 0 and
 * protocol 0, which only says that the address is one (for fragments, ICMP and ports without a
 * service).
 */
struct nlb_vip6_key {
	__u8 address[16];
	__be16 port; /* 0: any port of the protocol */
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct nlb_vip6_key) == 20, "nlb_vip6_key has no hidden padding");

/* IPv4 has a map of its own, `vips4`: an 8-byte key is hashed in half the time. */
struct nlb_vip4_key {
	__be32 address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct nlb_vip4_key) == 8, "nlb_vip4_key has no hidden padding");

struct nlb_vip {
	__u16 id; /* index into the map `rings` */
	__u8 encap;
	__u8 flags; /* NLB_VIP_* */
	/* New connections of one source address, with NLB_VIP_RATE, in ticks * 2^16: time that
	 * earns one, and time's worth of them that may come at once (GCRA). */
	__u32 source_interval, source_burst;
	__u32 pad;
};
#define NLB_VIP_ALLOW 1U /* only sources that the map `allowed` lists for it */
#define NLB_VIP_RATE  2U /* new connections are limited for each source address */
_Static_assert(sizeof(struct nlb_vip) == 16, "nlb_vip has no hidden padding");

/* Key of the longest-prefix map `blocked`; IPv4 as ::ffff:a.b.c.d. */
struct nlb_prefix_key {
	__u32 prefix_len;
	__u8 address[16];
};
_Static_assert(sizeof(struct nlb_prefix_key) == 20, "nlb_prefix_key has no hidden padding");

struct nlb_block {
	__u64 until;   /* kernel ticks (64 bits); 0: for good */
	__u64 dropped; /* packets, not exact: CPUs count without a lock */
};

/* Key of the longest-prefix map `allowed`: the lists of all VIPs, each below its identifier. */
struct nlb_allow_key {
	__u32 prefix_len; /* of identifier and address together: 32 and more */
	__u32 vip;
	__u8 address[16]; /* as above */
};
_Static_assert(sizeof(struct nlb_allow_key) == 24, "nlb_allow_key has no hidden padding");

/*
 * Map `source_rates`: when each source address of a VIP may open the next connection. Set
 * associative like the flow table, but one for all CPUs, since a source's connections are spread
 * over them; two that write at once may let one connection too many through.
 */
struct nlb_source_rate {
	__u64 tag; /* keyed hash of VIP and source; 0 means free */
	__u64 at;  /* theoretical arrival time of GCRA, in ticks * 2^16 */
};
#define NLB_RATE_BUCKETS 16384 /* of 4: 65,536 sources in a megabyte */
struct nlb_rate_bucket {
	struct nlb_source_rate way[4];
};

/* Value of the map `fragments`, keyed by the hash of {addresses, protocol, IP id}. */
struct nlb_fragment {
	__u16 gateway;
	__u16 generation;
	__u32 seen; /* kernel ticks, lower half */
};

/* One slot of a ring. Its flags carry the time of the last move, so that history outlives nlbd. */
struct nlb_slot {
	__u16 gateway;    /* who takes new connections */
	__u16 earlier[2]; /* who may hold older ones, likeliest first; 0: nobody */
	__u16 flags;
};
#define NLB_SLOT_MOVED     0x8000U /* changed its owner lately: the flow table knows better */
#define NLB_SLOT_TIME_MASK 0x7fffU /* minutes of CLOCK_BOOTTIME, modulo 2^15, of the last move */
_Static_assert(sizeof(struct nlb_slot) == 8, "nlb_slot fills an array element");

/*
 * A member of a VIP's pool: gateway and VIP together, so that state and counters are per VIP.
 * Exactly one cache line.
 */
struct nlb_gateway {
	__u8 address[16];
	__u8 next_hop_mac[6];
	__u8 source_mac[6];
	__u32 ifindex;
	__u16 generation; /* tells stale flow entries from ones made for this use of the identifier
			   */
	__u16 vip;
	__u16 mtu; /* of the path to the gateway */
	__u8 family;
	__u8 flags; /* NLB_GATEWAY_* */
	__u8 encap; /* of its VIP */
	__u8 pad[23];
};
#define NLB_GATEWAY_USABLE   1U /* takes packets of connections that it has */
#define NLB_GATEWAY_RESOLVED 2U /* the MAC addresses and the interface are known */
_Static_assert(sizeof(struct nlb_gateway) == 64, "nlb_gateway is one cache line");

/* Per CPU, same index as `gateways`. A VIP's figures are the sums over its members. */
struct nlb_gateway_stats {
	__u64 packets;
	__u64 bytes;       /* of the inner packet, without link header */
	__u64 connections; /* first packets sent here: SYNs, UDP packets of no known flow */
	__u64 flow_hits;   /* packets whose gateway came from the flow table */
	__u64 flow_misses; /* looked up there in vain, so the ring decided */
	__u64 unrecorded;  /* first packets not written to the flow table for their rate */
};

/*
 * The flow table: one array, buckets of one cache line, a region of flow_bucket_mask + 1 buckets
 * for every possible CPU. No locks, because only its CPU writes to a region, and a flow stays on
 * the CPU that its receive queue is bound to. Where it does not, the other regions are read.
 */
struct nlb_flow {
	__u64 tag; /* the whole keyed hash; 0 means free */
	__u16 gateway;
	__u16 generation;
	__u32 used; /* kernel ticks, lower half */
};
struct nlb_flow_bucket {
	struct nlb_flow way[NLB_FLOW_WAYS];
};
_Static_assert(sizeof(struct nlb_flow_bucket) == 64, "a bucket is one cache line");

/* Per CPU: how many connections were recorded in this tick. */
struct nlb_flow_guard {
	__u64 tick;
	__u64 count;
};

/* --- on the wire ---------------------------------------------------------------------------- */

struct nlb_gue {
	__u8 version_hlen; /* version (2 bits), control (1), words that follow the first (5) */
	__u8 protocol;     /* of what is inside: 4 or 41 */
	__be16 flags;
};
_Static_assert(sizeof(struct nlb_gue) == 4, "the first word of a GUE header");

/* Private data of a GUE header: who else may know the connection. Addresses follow, likeliest
 * first. */
struct nlb_gue_private {
	__u8 type;   /* NLB_GUE_PRIVATE_TYPE */
	__u8 next;   /* index of the address to try next; = count: nobody is left */
	__u8 count;  /* 1 or 2 */
	__u8 family; /* 4: addresses of 4 bytes, 6: of 16 */
};
#define NLB_GUE_PRIVATE_TYPE 1
_Static_assert(sizeof(struct nlb_gue_private) == 4, "one word");

/* Key of the decapsulating program's longest-prefix map `decap_sources`; IPv4 as ::ffff:a.b.c.d. */
struct decap_source_key {
	__u32 prefix_len;
	__u8 address[16];
};
_Static_assert(sizeof(struct decap_source_key) == 20, "decap_source_key has no hidden padding");

/* Key of `decap_vips`. */
struct decap_vip_key {
	__u8 address[16]; /* as above */
};

/* Map `decap_config`, one entry. All zeroes: sockets are those of the interface's namespace. */
struct decap_config {
	__u32 flags;        /* DECAP_CONFIG_* */
	__u32 socket_netns; /* namespace identifier, as the interface's namespace counts them */
};
#define DECAP_CONFIG_NETNS 1U /* look sockets up in socket_netns */
_Static_assert(sizeof(struct decap_config) == 8, "decap_config has no hidden padding");

/* The most that an encapsulation adds, with two second choices, for a gateway of family 4 or 6. */
static inline __attribute__((always_inline)) __u32 nlb_overhead_max(__u8 encap, __u8 family)
{
	__u32 address = family == 6 ? 16 : 4, header = family == 6 ? 40 : 20;
	__u32 gue = 8 + sizeof(struct nlb_gue) + sizeof(struct nlb_gue_private);

	if (encap == NLB_ENCAP_L2)
		return 0;
	if (encap == NLB_ENCAP_IPIP)
		return header;
	return header + gue + 2 * address;
}

/*
 * One of 32 bits for an address. Where few addresses are VIPs, most of what is not for one is known
 * by its bit, without a look-up.
 */
static inline __attribute__((always_inline)) __u32 nlb_vip_bit(const __be32 *address, __u8 is_ipv6)
{
	__u32 word = address[0];

	if (is_ipv6)
		word ^= address[1] ^ address[2] ^ address[3];
	return 1U << ((word * 0x9e3779b1U) >> 27);
}

/* --- the flow hash -------------------------------------------------------------------------- */

/*
 * Keyed multilinear hash with a mixer behind it. Universal: without the key nobody can choose
 * addresses and ports that meet in one slot or one bucket. Words are taken as they lie in memory.
 */
static inline __attribute__((always_inline)) __u64 nlb_hash_mix(__u64 h)
{
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ULL;
	h ^= h >> 29;
	h *= 0xd6e8feb86659fd93ULL;
	h ^= h >> 32;
	return h;
}

static inline __attribute__((always_inline)) __u64
nlb_hash4(const __u64 *key, __be32 source, __be32 destination, __u32 ports, __u8 protocol)
{
	return nlb_hash_mix(key[0] + key[1] * protocol + key[2] * ports + key[3] * source +
			    key[4] * destination);
}

static inline __attribute__((always_inline)) __u64 nlb_hash6(const __u64 *key, const __be32 *source,
							     const __be32 *destination, __u32 ports,
							     __u8 protocol)
{
	__u64 h = key[0] + key[1] * protocol + key[2] * ports;

	h += key[3] * source[0] + key[4] * source[1] + key[5] * source[2] + key[6] * source[3];
	h += key[7] * destination[0] + key[8] * destination[1] + key[9] * destination[2] +
	     key[10] * destination[3];
	return nlb_hash_mix(h);
}

static inline __attribute__((always_inline)) __u32 nlb_hash_slot(__u64 hash)
{
	return (__u32)(((hash >> 32) * NLB_RING_SLOTS) >> 32);
}
