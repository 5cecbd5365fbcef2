/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/nlb/cases.h"

#include <linux/bpf.h>
#include <netinet/in.h>

#include "bpf/nlb_abi.h"

enum { ACK = 0x10, SYN = 0x02, TCP = IPPROTO_TCP, UDP = IPPROTO_UDP };
enum { IPIP = NLB_ENCAP_IPIP, GUE = NLB_ENCAP_GUE, L2 = NLB_ENCAP_L2 };
#define K64  (1U << 16)
#define K512 (1U << 19)
#define M1   (1U << 20)
#define NEW  (1U << 24)

const struct vip_spec vips[VIPS] = {
	[VIP_NONE] = { .family = 4, .protocol = TCP },
	[VIP_EMPTY] = { 4, 4, TCP, IPIP, .is_empty = true },
	[VIP_IPIP] = { 4, 4, TCP, IPIP },
	[VIP_IPIP_SYN] = { 4, 4, TCP, IPIP },
	[VIP_IPIP_MOVED] = { 4, 4, TCP, IPIP, .is_moved = true },
	[VIP_IPIP_UDP] = { 4, 4, UDP, IPIP },
	[VIP_GUE] = { 4, 4, TCP, GUE },
	[VIP_GUE_SYN] = { 4, 4, TCP, GUE, .has_earlier = true },
	[VIP_GUE_SECOND] = { 4, 4, TCP, GUE, .has_earlier = true },
	[VIP_GUE_MOVED] = { 4, 4, TCP, GUE, .has_earlier = true, .is_moved = true },
	[VIP_GUE_UDP] = { 4, 4, UDP, GUE, .has_earlier = true },
	[VIP_L2] = { 4, 4, TCP, L2 },
	[VIP_4IN6] = { 4, 6, TCP, IPIP },
	[VIP_6IN6] = { 6, 6, TCP, IPIP },
	[VIP_6IN4] = { 6, 4, TCP, IPIP },
	[VIP_GUE_6IN6] = { 6, 6, TCP, GUE, .has_earlier = true },
};

/* What a row leaves out is one flow, 64 bytes, sent on. */
#define NLB(vip_, flags_) \
	.subject = SUBJECT_NLB, .vip = (vip_), .size = 64, .flags = (flags_), .verdict = XDP_TX
#define DECAP(tunnel_, size_)                                                                     \
	.subject = SUBJECT_DECAP, .tunnel = (tunnel_), .flows = 1, .size = (size_), .flags = ACK, \
	.verdict = XDP_PASS

const struct bench_case cases[] = {
	[CASE_HARNESS4] = { "harness", SUBJECT_HARNESS, VIP_IPIP, 1, 64, ACK, XDP_TX },
	[CASE_HARNESS6] = { "harness, IPv6", SUBJECT_HARNESS, VIP_6IN6, 1, 84, ACK, XDP_TX },
	[CASE_HARNESS_TUNNEL] = { "harness, tunnel's packet", SUBJECT_HARNESS, VIP_IPIP, 1, 84, ACK,
				  XDP_TX, .tunnel = TUNNEL_IPIP },
	[CASE_TX] = { "XDP_TX, swapped MACs", SUBJECT_SWAP, VIP_IPIP, 1, 64, ACK, XDP_TX },
	[CASE_PUSH] = { "bare ipip push", SUBJECT_PUSH, VIP_IPIP, 1, 64, ACK, XDP_TX },

	{ "no VIP (pass)", SUBJECT_NLB, VIP_NONE, 1, 64, ACK, XDP_PASS, PEER_IPIP, .goal = 0.7 },
	{ "no VIP, but bit of one (pass)", SUBJECT_NLB, VIP_NONE, 1, 64, ACK, XDP_PASS, PEER_IPIP,
	  .is_unfiltered = true },
	{ "no VIP, 64 k flows (pass)", SUBJECT_NLB, VIP_NONE, K64, 64, ACK, XDP_PASS, PEER_IPIP },
	{ "VIP without gateways (drop)", SUBJECT_NLB, VIP_EMPTY, 1, 64, ACK, XDP_DROP },
	{ "blocked source (drop)", SUBJECT_NLB, VIP_IPIP, 1, 64, ACK, XDP_DROP, .has_blocks = true,
	  .is_blocked = true },
	{ "l2", NLB(VIP_L2, ACK), .flows = 1 },
	{ "ipip", NLB(VIP_IPIP, ACK), .flows = 1, .peer = PEER_IPIP, .goal = 0.7 },
	{ "ipip, 1,400 bytes", SUBJECT_NLB, VIP_IPIP, 1, 1400, ACK, XDP_TX, PEER_IPIP },
	{ "ipip, past a block list", NLB(VIP_IPIP, ACK), .flows = 1, .has_blocks = true },
	{ "ipip, slot moved: table hit", NLB(VIP_IPIP_MOVED, ACK), .flows = 1, .peer = PEER_IPIP },
	{ "gue", NLB(VIP_GUE, ACK), .flows = 1, .peer = PEER_GUE, .goal = 0.5 },
	{ "gue, two second choices", NLB(VIP_GUE_SECOND, ACK), .flows = 1, .peer = PEER_GUE,
	  .goal = 0.5 },
	{ "gue, slot moved: table hit", NLB(VIP_GUE_MOVED, ACK), .flows = 1, .peer = PEER_GUE },

	{ "ipip, 64 k flows", NLB(VIP_IPIP, ACK), .flows = K64, .peer = PEER_IPIP, .goal = 0.2 },
	{ "ipip, 64 k flows, table hits", NLB(VIP_IPIP_MOVED, ACK), .flows = K64,
	  .peer = PEER_IPIP },
	{ "gue, 64 k flows", NLB(VIP_GUE_SECOND, ACK), .flows = K64, .peer = PEER_GUE,
	  .goal = 0.2 },
	{ "ipip, 1 M flows", NLB(VIP_IPIP, ACK), .flows = M1, .peer = PEER_IPIP, .goal = 0.2 },
	{ "ipip, 512 k flows, table hits", NLB(VIP_IPIP_MOVED, ACK), .flows = K512,
	  .peer = PEER_IPIP },
	{ "gue, 1 M flows", NLB(VIP_GUE_SECOND, ACK), .flows = M1, .peer = PEER_GUE, .goal = 0.2 },

	{ "ipip, new connections (SYN)", NLB(VIP_IPIP_SYN, SYN), .flows = NEW, .in_order = true,
	  .peer = PEER_IPIP, .goal = 0.2 },
	{ "gue, new connections (SYN)", NLB(VIP_GUE_SYN, SYN), .flows = NEW, .in_order = true,
	  .peer = PEER_GUE, .goal = 0.2 },
	{ "ipip, SYN flood, guarded", NLB(VIP_IPIP_SYN, SYN), .flows = NEW, .in_order = true,
	  .is_flood = true, .peer = PEER_IPIP },

	{ "ipip, UDP", NLB(VIP_IPIP_UDP, 0), .flows = 1, .peer = PEER_IPIP, .goal = 0.5 },
	{ "ipip, UDP, 64 k flows", NLB(VIP_IPIP_UDP, 0), .flows = K64, .peer = PEER_IPIP,
	  .goal = 0.5 },
	{ "gue, UDP", NLB(VIP_GUE_UDP, 0), .flows = 1, .peer = PEER_GUE, .goal = 0.5 },
	{ "gue, UDP, 64 k flows", NLB(VIP_GUE_UDP, 0), .flows = K64, .peer = PEER_GUE,
	  .goal = 0.5 },

	{ "IPv6 in IPv6, ipip", SUBJECT_NLB, VIP_6IN6, 1, 84, ACK, XDP_TX, PEER_IPIP },
	{ "IPv6 in IPv6, ipip, 64 k flows", SUBJECT_NLB, VIP_6IN6, K64, 84, ACK, XDP_TX,
	  PEER_IPIP },
	{ "IPv6 in IPv6, gue, two second choices", SUBJECT_NLB, VIP_GUE_6IN6, 1, 84, ACK, XDP_TX,
	  PEER_GUE },
	{ "IPv4 in IPv6, ipip", NLB(VIP_4IN6, ACK), .flows = 1, .peer = PEER_IPIP },
	{ "IPv6 in IPv4, ipip", SUBJECT_NLB, VIP_6IN4, 1, 84, ACK, XDP_TX },

	{ "gateway: off with ipip", DECAP(TUNNEL_IPIP, 84) },
	{ "gateway: off with gue", DECAP(TUNNEL_GUE, 96) },
	{ "gateway: off with gue, socket looked up", DECAP(TUNNEL_GUE_SECOND, 108) },
};
const size_t case_count = sizeof(cases) / sizeof(cases[0]);

size_t case_base(size_t c)
{
	if (cases[c].tunnel != TUNNEL_NONE)
		return CASE_HARNESS_TUNNEL;
	return vips[cases[c].vip].family == 6 ? CASE_HARNESS6 : CASE_HARNESS4;
}
