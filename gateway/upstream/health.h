/* SPDX-License-Identifier: Apache-2.0 */
/* Active health checks of one instance, by HTTP of the service's version, gRPC or just a
 * connection: `fall` failures in a row make it unhealthy, `rise` successes healthy again. */
#pragma once

#include "gateway/conf/conf.h"
#include "lib/loop.h"
#include "lib/net.h"

struct health_check;
struct http_client;
struct tls_client;

/* Begins as healthy: an instance that is just listed is used at once. on_change borrows; `why` is
 * for the log. */
struct health_check *health_start(struct http_client *http, struct loop *loop,
				  const struct gw_health *conf, const struct net_addr *addr,
				  void (*on_change)(struct health_check *check, bool is_up,
						    const char *why, void *arg),
				  void *arg);
/* After a reload: goes on with what it knows, by another configuration (copied but for its strings)
 * and for another owner. */
void health_adopt(struct health_check *check, const struct gw_health *conf, void *arg);
/* Checks by TLS from now on (a reference is taken), or in clear with NULL. */
void health_use_tls(struct health_check *check, struct tls_client *tls);
/* NULL inside is fine. */
void health_stop(struct health_check **check);
bool health_is_up(const struct health_check *check);
const struct net_addr *health_address(const struct health_check *check);
