/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the configuration that says how gateways are checked. */
#pragma once

#include "lib/conf.h"

enum nlb_health_type { NLB_HEALTH_TCP, NLB_HEALTH_HTTP, NLB_HEALTH_HTTPS };

#define NLB_STATUS_RANGES 8

/* Answers that count as good; none given: 200 to 299. */
struct nlb_conf_statuses {
	struct {
		uint16_t from, to;
	} range[NLB_STATUS_RANGES];
	uint32_t count;
};

struct nlb_conf_health {
	int type;      /* enum nlb_health_type */
	uint16_t port; /* 0: the VIP's */
	struct str path, host, body, ca_file;
	struct nlb_conf_statuses status;
	bool verify;
	bool tunnel;          /* also ask the VIP through the tunnel */
	bool is_tunnel_given; /* ... and the file says so */
	uint32_t interval_ms, timeout_ms;
	uint32_t rise, fall;
};

#define NLB_HEALTH_PATH_MAX 511
#define NLB_HEALTH_HOST_MAX 127
#define NLB_HEALTH_BODY_MAX 255

extern const struct conf_object nlb_conf_health_object;

/* Rules that need the VIP: called by its own check. `port` is the VIP's. */
void nlb_conf_health_fit(struct conf *c, struct nlb_conf_health *health, uint16_t port,
			 bool is_tcp);
bool nlb_status_is_good(const struct nlb_conf_statuses *statuses, unsigned status);
