/* SPDX-License-Identifier: Apache-2.0 */
/* The members "rate_limits" and "rate_limit_store" of gatewayd's configuration. */
#pragma once

#include "lib/conf.h"

extern const struct conf_object gw_limit_object;       /* struct gw_limit */
extern const struct conf_object gw_limit_store_object; /* struct gw_limit_store */

/* A struct redis_url. */
void gw_parse_redis_url(struct conf *c, void *field, const json_t *value);
