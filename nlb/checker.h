/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks of one gateway: connects or asks at intervals with jitter and reports each result.
 * What the results mean is health.h's business.
 */
#pragma once

#include <stdbool.h>

#include "lib/loop.h"
#include "lib/net.h"
#include "nlb/conf.h"

struct http_call;
struct http_client;

#define CHECK_HOST_MAX 128
#define CHECK_PATH_MAX 512

/* Embed it, zeroed. The configuration is copied. */
struct check {
	struct loop *loop;
	struct http_client *client;
	struct net_addr to;
	int type;
	uint32_t interval_ms, timeout_ms;
	char path[CHECK_PATH_MAX], host[CHECK_HOST_MAX];
	struct loop_timer interval; /* to the next check */
	struct loop_timer timeout;
	struct loop_io io; /* fd is -1 unless a connection is tried */
	struct http_call *call;
	uint64_t started_ms; /* the check under way or the last one */
	bool is_running;
	bool has_answered; /* the last check failed, but there is somebody who said so */
	/* `why`: the sentence for a failure, NULL for a success; valid only during the call. */
	void (*on_result)(struct check *c, const char *why);
};

/* Begins; the first check comes within a tenth of a second. On a running check: takes over the new
 * configuration. */
void check_start(struct check *c, struct loop *loop, struct http_client *client,
		 const struct nlb_conf_health *conf, const struct net_addr *gateway);
void check_stop(struct check *c);
