/* SPDX-License-Identifier: Apache-2.0 */
/* The table of rate limits as the configuration wants it, and who shares it. */
#pragma once

#include "gateway/gateway.h"
#include "registry/client.h"

/* Fills g->limits and g->limit_store. Returns 0 or -errno with the sentence in err. */
int limit_setup(struct gateway *g, const struct gw_conf *conf, struct err *err);
/* The app under which this gateway and those beside it are registered, if it matters how many they
 * are; p is NULL otherwise. */
struct str limit_peers_app(const struct gateway *g, const struct gw_conf *conf);
/* These are the instances of that app. */
void limit_use_peers(struct gateway *g, const struct reg_list *list);
