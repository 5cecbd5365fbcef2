/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many instances each client has registered: a client is a token, or an address (of IPv6 a
 * /64). Kept as long as it has any.
 */
#pragma once

#include <stddef.h>

#include "lib/net.h"
#include "lib/str.h"

struct reg_quotas;
struct reg_quota;

/* NULL when out of memory. All that was taken is given back before reg_quotas_free. */
struct reg_quotas *reg_quotas_new(void);
void reg_quotas_free(struct reg_quotas **quotas);

/* The client of a request, until reg_quotas_done: by its token's name, or if that has a NULL p by
 * its address. NULL when out of memory. */
struct reg_quota *reg_quotas_use(struct reg_quotas *q, struct str token,
				 const struct net_addr *peer);
void reg_quotas_done(struct reg_quotas *q);

size_t reg_quota_count(const struct reg_quota *quota);
/* One instance more, one less. NULL is fine: nobody is known to have registered it. */
void reg_quota_take(struct reg_quota *quota);
void reg_quota_give(struct reg_quota *quota);
