/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of virtual IPs: what the configuration asks for, what an earlier nlbd left in the maps,
 * and the one brought in step with the other. The gateways of each are pool.h's business.
 */
#pragma once

#include "nlb/pool.h"

struct vips;

/* Takes over what an earlier nlbd left in the maps. NULL when out of memory. */
struct vips *vips_new(struct loop *loop, struct loader *loader, struct http_client *client,
		      struct err *err);
/* Leaves the maps as they are. */
void vips_free(struct vips **v);

/*
 * Makes what vips_apply() needs and may not be had for a reason that lies in the configuration.
 * Changes nothing yet; 0 or -errno with the sentence.
 */
int vips_prepare(struct vips *v, const struct nlb_conf *conf, struct err *err);
/*
 * Makes the set of VIPs what the prepared configuration says; `conf` must stay valid until the next
 * one. After a failure it is in use too, as far as that went, and no former one is.
 */
int vips_apply(struct vips *v, const struct nlb_conf *conf, struct err *err);
/* Called after each time that maps were brought up to date. NULL: nobody. */
void vips_observe(struct vips *v, void (*on_change)(void *arg), void *arg);
/* Brings all maps up to date at once, instead of at the end of the round. */
void vips_flush(struct vips *v);

/* Returns 0, -EALREADY, or -ENOENT with the sentence in err. */
int vips_drain(struct vips *v, struct str vip, struct str gateway, bool drained, struct err *err);

struct list *vips_list(struct vips *v);
struct vip *vips_find(struct vips *v, struct str name);
/* Whether all is known that decides who gets packets: listings, and a first check of everybody. */
bool vips_are_settled(struct vips *v);
/* Whether each VIP has a gateway for new connections. */
bool vips_are_ready(struct vips *v, struct err *why);

#define vips_for_each(pos, v)                                                                    \
	for (struct list *pos##_n_ = vips_list(v)->next;                                         \
	     pos##_n_ != vips_list(v) && (pos = container_of(pos##_n_, struct vip, node), true); \
	     pos##_n_ = pos##_n_->next)
