/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a gateway for a TCP connection to the VIP, in the tunnel that clients' packets take: only a
 * gateway that takes the tunnel off, has the VIP and listens on it answers. Says what came back;
 * when and how often is checker.h's business.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/hmap.h"
#include "lib/loop.h"
#include "lib/net.h"
#include "nlb/loader.h"
#include "nlb/neigh.h"

/* Sockets and source addresses, shared by all probes. */
struct prober;

/* Opens what needs CAP_NET_RAW, so before privileges are dropped. 0 or -errno. */
int prober_new(struct prober **out, struct loop *loop, const struct loader *loader,
	       struct err *err);
/* All probes have to be stopped before. */
void prober_free(struct prober **p);

enum probe_result {
	PROBE_ACCEPTED, /* a SYN-ACK from the VIP */
	PROBE_REFUSED,  /* a RST from the VIP: the tunnel works, but nobody listens */
};

/* Answers to a few earlier attempts are recognised too, so that they can be ended in order. */
#define PROBE_PORTS 4

struct probe_attempt {
	struct hmap_node node; /* by sequence, while has_sequence */
	struct probe *probe;
	uint32_t sequence;
	bool has_sequence;
};

/* Embed it, zeroed. */
struct probe {
	struct prober *prober;
	struct probe_attempt attempt[PROBE_PORTS];
	unsigned latest;
	bool is_waiting;
	struct net_addr vip, gateway;
	const struct next_hop *hop; /* of the gateway; its owner keeps it up to date */
	enum nlb_encap encap;
	void (*on_answer)(struct probe *probe, enum probe_result result);
};

/*
 * Sends one; vip, gateway, hop, encap and on_answer have been set. Returns 0 (on_answer may
 * follow), -EADDRNOTAVAIL when this host has no address of the VIP's family that an answer could go
 * to, or what sending met.
 */
int probe_send(struct probe *probe, struct prober *prober);
/* No on_answer any more. */
void probe_give_up(struct probe *probe);
/* Forgets it altogether. */
void probe_stop(struct probe *probe);
