/* SPDX-License-Identifier: Apache-2.0 */
/* The decapsulating program on gateway hosts: puts it on an interface and says what it counted. */
#pragma once

#include <stdint.h>

#include "bpf/nlb_abi.h"
#include "lib/err.h"
#include "lib/net.h"
#include "nlb/decap_host.h"
#include "nlb/pins.h"

#define DECAP_LIST_MAX 1024

struct decap_settings {
	struct net_prefix sources[DECAP_LIST_MAX]; /* load balancers, and gateways of the pool */
	size_t source_count;
	struct net_prefix vips[DECAP_LIST_MAX]; /* single addresses of this host */
	size_t vip_count;
	struct decap_config config;
};

/*
 * Attaches, or replaces our own program and its settings without a gap. `*mode`: asked for, then
 * taken. Returns 0 or -errno with the sentence in err.
 */
int decap_attach(const char *pin_directory, const char *interface,
		 const struct decap_settings *settings, enum pins_mode *mode, struct err *err);
int decap_detach(const char *pin_directory, const char *interface, struct err *err);

struct decap_status {
	struct decap_settings settings;
	struct decap_host host;
	uint64_t reasons[DECAP_REASON_COUNT];
};
/* -ENOENT when it is not attached there. */
int decap_status(const char *pin_directory, const char *interface, struct decap_status *out,
		 struct err *err);

extern const char *const decap_reason_names[DECAP_REASON_COUNT];

/* Adds the addresses of `lo` that others can reach (not 127.0.0.0/8, ::1 or link-local ones): where
 * virtual IPs sit on a gateway. */
int decap_find_vips(struct decap_settings *settings);
