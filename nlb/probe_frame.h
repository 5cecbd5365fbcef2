/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets of a probe through the tunnel, byte by byte: a TCP segment to the VIP, in the same
 * outer headers that the forwarding program gives to clients' packets. Pure: no sockets.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "bpf/nlb_abi.h"
#include "lib/net.h"

#define PROBE_FRAME_MAX 160 /* Ethernet 14, IPv6 40, UDP 8, GUE 4, IPv6 40, TCP 24 */

#define PROBE_SYN 0x02
#define PROBE_RST 0x04
#define PROBE_ACK 0x10

/* Where a frame goes. Inner and outer addresses may be of different families. */
struct probe_frame {
	uint8_t to_mac[6], from_mac[6];
	struct net_addr outer_source, gateway; /* unused with NLB_ENCAP_L2 */
	struct net_addr source, vip;           /* with their ports */
	enum nlb_encap encap;
	uint32_t sequence;
	uint16_t gue_port; /* outer UDP source port */
	uint8_t flags;
};

/* Returns the length of what it wrote. */
size_t probe_frame_write(uint8_t out[static PROBE_FRAME_MAX], const struct probe_frame *f);

/* What came back. */
struct probe_answer {
	struct net_addr from, to; /* with ports */
	uint32_t acknowledged;
	uint8_t flags;
};

/* Reads an IP packet. Returns 0, or -EBADMSG for what is no whole TCP header. */
int probe_answer_parse(struct probe_answer *out, const uint8_t *packet, size_t len);
