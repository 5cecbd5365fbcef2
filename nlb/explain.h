/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the forwarding program does with the packets of one connection, worked out from the maps by
 * the same rules: for people who ask why. Counts nothing and changes nothing.
 */
#pragma once

#include "nlb/view.h"

struct explain_flow {
	struct net_addr source, destination; /* with ports */
	uint8_t protocol;
};

/* What the flow table of one CPU remembers. */
struct explain_entry {
	int cpu;
	uint16_t gateway;
	uint32_t age_ticks; /* since its last use */
	bool is_former;     /* the gateway is gone, or the identifier is another's now */
	bool is_expired;    /* UDP, unused for too long */
};

enum explain_why { EXPLAIN_RING, EXPLAIN_TABLE, EXPLAIN_EARLIER };

/* The end of a packet. */
struct explain_verdict {
	uint32_t reason; /* NLB_REASON_*; NLB_REASON_COUNT: forwarded */
	enum explain_why why;
	uint16_t gateway;  /* 0: none was chosen */
	uint16_t named[2]; /* earlier owners in the tunnel header */
	uint16_t room;     /* largest inner packet that fits, when forwarded */
};

struct explanation {
	bool is_vip;      /* the address is one */
	bool has_service; /* ... and has this port and protocol */
	bool takes_any_port;
	struct nlb_vip vip;

	bool is_listed; /* on the block list */
	struct view_block block;
	bool is_block_over;  /* its time has run out */
	bool is_allowed;     /* on the VIP's allow list */
	uint32_t wait_ticks; /* until this source may open a connection; 0: now */

	uint64_t hash;
	uint32_t index;
	bool has_ring;
	struct nlb_slot slot;
	bool has_moved;
	uint32_t moved_minutes_ago;

	struct explain_entry entries[NLB_FLOW_REGIONS];
	size_t entry_count;

	struct explain_verdict fresh; /* the first packet */
	struct explain_verdict known; /* a packet of a connection that goes on */
};

/* `now_min` are minutes of CLOCK_BOOTTIME. */
void explain(const struct view *v, const struct explain_flow *flow, uint64_t now_min,
	     struct explanation *out);

/* Bytes of the longest outer headers with so many addresses in them. */
uint32_t explain_overhead(uint8_t encap, uint8_t outer_family, unsigned named);
