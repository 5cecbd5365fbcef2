/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How people and programs speak to nlbd: the admin port, which only reads, and the unix socket of
 * nlbctl, which also changes things.
 */
#pragma once

#include "lib/err.h"
#include "nlb/conf.h"

struct announcer;
struct blocks;
struct ctl;
struct discover;
struct loader;
struct loop;
struct vips;

/* What the answers are made from. Filled in by the program after ctl_new, before the loop runs. */
struct ctl_sources {
	struct loader *loader;
	struct vips *vips;
	struct discover *discover;
	struct blocks *blocks;
	struct announcer *announcer;
	const char *config_file;
	/* Reloads the configuration: 0, or -errno with all that is wrong in `out`. */
	int (*reload)(void *arg, struct buf *out);
	void *arg;
};

/* Listens on both. NULL with the sentence in err. */
struct ctl *ctl_new(struct loop *loop, const struct nlb_conf *conf, struct ctl_sources *sources,
		    struct err *err);
void ctl_free(struct ctl **c);
