/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured: the virtual IPs of the benchmark and the packets that are sent to them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GATEWAYS 10 /* of each family; identifiers 1 .. 10 are IPv4, 11 .. 20 IPv6 */

/* Each has an address of its own, so that no two cases share what is remembered of them. */
enum vip {
	VIP_NONE, /* no such VIP */
	VIP_EMPTY,
	VIP_IPIP,
	VIP_IPIP_SYN, /* whose connections are all new */
	VIP_IPIP_MOVED,
	VIP_IPIP_UDP,
	VIP_GUE,
	VIP_GUE_SYN,
	VIP_GUE_SECOND,
	VIP_GUE_MOVED,
	VIP_GUE_UDP,
	VIP_L2,
	VIP_4IN6,
	VIP_6IN6,
	VIP_6IN4,
	VIP_GUE_6IN6,
	VIPS
};

struct vip_spec {
	uint8_t family, gateway_family;
	uint8_t protocol;
	uint8_t encap; /* 0: there is no such VIP */
	bool is_empty;
	bool has_earlier; /* each slot names two other gateways */
	bool is_moved;    /* the flow table decides */
};
extern const struct vip_spec vips[VIPS];

/* Which program a case puts the packet through. */
enum subject { SUBJECT_HARNESS, SUBJECT_SWAP, SUBJECT_PUSH, SUBJECT_NLB, SUBJECT_DECAP, SUBJECTS };

/* Whose packets a gateway's half takes off. */
enum tunnel { TUNNEL_NONE, TUNNEL_IPIP, TUNNEL_GUE, TUNNEL_GUE_SECOND };

/* With which kind of peer a case is compared; both count as having `ipip` for "no VIP". */
enum peer_kind { PEER_NONE, PEER_IPIP, PEER_GUE };

struct bench_case {
	const char *name;
	enum subject subject;
	enum vip vip;
	uint32_t flows; /* a power of two */
	uint32_t size;  /* of the frame */
	uint8_t flags;  /* of the TCP header */
	uint32_t verdict;
	enum peer_kind peer;
	double goal;        /* at most so many times the peer's time; 0: none */
	bool in_order;      /* flows one after the other: each is new, there are so many */
	bool is_flood;      /* more new connections than the guard lets into the table */
	bool is_blocked;    /* the source is on the block list */
	bool has_blocks;    /* the block list has entries, which these sources are not in */
	bool is_unfiltered; /* addresses are not told from those of VIPs by their bits */
	enum tunnel tunnel;
};
extern const struct bench_case cases[];
extern const size_t case_count;

/* The first cases: the harness alone, for each family and for tunnels; the floors. */
enum { CASE_HARNESS4, CASE_HARNESS6, CASE_HARNESS_TUNNEL, CASE_TX, CASE_PUSH };
/* The case of the harness to take off from this one. */
size_t case_base(size_t c);
