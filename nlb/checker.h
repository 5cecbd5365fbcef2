/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks of one gateway: asks it directly, and then the VIP through the tunnel, at intervals
 * with jitter, and reports each result. What the results mean is health.h's business.
 */
#pragma once

#include <stdbool.h>

#include "lib/loop.h"
#include "lib/net.h"
#include "nlb/conf.h"
#include "nlb/probe.h"

struct http_call;
struct http_client;
struct tls_client;

/* How the gateways of one VIP are checked: a copy of the configuration, which a reload may free. */
struct check_plan {
	int type; /* enum nlb_health_type */
	uint16_t port;
	uint32_t interval_ms, timeout_ms, rise, fall;
	char path[NLB_HEALTH_PATH_MAX + 1], host[NLB_HEALTH_HOST_MAX + 1];
	char body[NLB_HEALTH_BODY_MAX + 1]; /* "": any */
	struct nlb_conf_statuses status;
	struct tls_client *tls; /* https */
	bool tunnel, accepts_reset;
	struct net_addr vip; /* and the port that a probe through the tunnel asks for */
	enum nlb_encap encap;
};

/* The VIP must have "health". NULL with the sentence in err. */
struct check_plan *check_plan_new(const struct nlb_conf_vip *conf, struct err *err);
void check_plan_free(struct check_plan **plan);

/* What all checks share. */
struct check_tools {
	struct loop *loop;
	struct http_client *client;
	struct prober *prober; /* NULL: no plan has a tunnel */
};

enum check_step { CHECK_IDLE, CHECK_DIRECT, CHECK_HOP, CHECK_TUNNEL };

/* Embed it, zeroed. */
struct check {
	const struct check_tools *tools;
	const struct check_plan *plan;
	struct net_addr to;
	const struct next_hop *hop;
	enum check_step step;
	struct loop_timer interval; /* to the next check */
	struct loop_timer timeout;
	struct loop_timer hop_retry;
	struct loop_io io; /* fd is -1 unless a connection is tried */
	struct http_call *call;
	struct probe probe;
	uint64_t started_ms; /* the check under way or the last one */
	uint64_t passed, failed;
	bool is_running;
	bool has_answered; /* the last check failed, but there is somebody who said so */
	/* `why`: the sentence for a failure, NULL for a success; valid only during the call. */
	void (*on_result)(struct check *c, const char *why);
};

/*
 * Begins; the first check comes within a tenth of a second. On a running check: takes over the new
 * plan. `plan` and `hop` are borrowed.
 */
void check_start(struct check *c, const struct check_tools *tools, const struct check_plan *plan,
		 const struct net_addr *gateway, const struct next_hop *hop);
void check_stop(struct check *c);
