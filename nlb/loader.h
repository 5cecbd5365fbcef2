/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarding program and its maps, loaded and pinned. What is pinned outlives nlbd on purpose:
 * packets are forwarded while it is down, and the next nlbd takes everything over.
 */
#pragma once

#include <stdint.h>

#include "bpf/nlb_abi.h"
#include "lib/err.h"
#include "nlb/conf.h"
#include "nlb/pins.h"

struct nlb_bpf;

/* Descriptors and mapped memory of the maps. */
struct nlb_maps {
	int config, vips4, vips6, blocked, allowed, gateway_stats, reasons, rings;
	struct nlb_gateway *gateways;  /* mapped, NLB_MAX_GATEWAYS */
	struct nlb_flow_bucket *flows; /* mapped */
	uint32_t flow_buckets;         /* of all CPUs */
	uint32_t flow_buckets_per_cpu;
	bool has_source[2]; /* an outer source address of each family: [0] IPv4, [1] IPv6 */
	uint32_t hz;
	int cpus;
};

struct loader {
	struct pins pins;
	int former_fd; /* link of the former program, while that goes on with its own maps */
	int lock_fd;   /* of the pins; below 0 while it is not held */
	struct nlb_bpf *skel;
	struct nlb_maps maps;
	enum pins_mode mode;                    /* that was taken */
	struct pins others[NLB_INTERFACES_MAX]; /* interfaces beside the first */
	enum pins_mode other_modes[NLB_INTERFACES_MAX];
	int other_former_fds[NLB_INTERFACES_MAX]; /* as former_fd */
	size_t other_count;
	uint32_t mtu;             /* of the interface */
	struct nlb_config config; /* as it is in the map */
};

/* Loads; packets are not touched yet. Returns 0, or -errno with the sentence in err and nothing
 * left behind. */
int loader_open(struct loader *l, const struct nlb_conf *conf, struct err *err);
/* Writes the global part of the configuration. */
int loader_configure(struct loader *l, const struct nlb_conf *conf, struct err *err);
/*
 * The last step of a start: from here on packets are forwarded. Where the maps had to be made anew
 * and our former program is attached, that one goes on until loader_replace_former.
 */
int loader_attach(struct loader *l, const struct nlb_conf *conf, struct err *err);
bool loader_is_waiting(const struct loader *l);
int loader_replace_former(struct loader *l, struct err *err);
/* Logs how much memory of the kernel the maps take, with rings for so many VIPs. */
void loader_tell_memory(const struct loader *l, size_t vips);
/* Leaves everything pinned and attached. */
void loader_close(struct loader *l);
/* Instead of _close, when the start failed: nothing new stays behind. */
void loader_abort(struct loader *l);

/* Sets or clears one of NLB_CONFIG_* in the map; loader_configure leaves it so. */
void loader_set_flag(struct loader *l, uint32_t flag, bool on);

/* The kernel's tick now, as blocks are timed, and its lower half, as flow entries are stamped. */
uint64_t loader_clock(const struct loader *l);
uint32_t loader_ticks(const struct loader *l);
