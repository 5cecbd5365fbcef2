/* SPDX-License-Identifier: Apache-2.0 */
/* Pools from the registry: watches the apps that VIPs name and lists their instances as gateways.
 */
#pragma once

#include "lib/err.h"
#include "nlb/conf.h"

struct discover;
struct json_writer;
struct loop;
struct vips;

/* Returns NULL when out of memory. Starts nothing yet. */
struct discover *discover_new(struct loop *loop, struct vips *vips);
void discover_free(struct discover **d);
/* Watches what this configuration asks for, and nothing else. After vips_apply. */
int discover_apply(struct discover *d, const struct nlb_conf *conf, struct err *err);
/* Adds "registry": { … } or null. */
void discover_write_status(const struct discover *d, struct json_writer *w);
