/* SPDX-License-Identifier: Apache-2.0 */
/* One call of grpc.health.v1.Health/Check over HTTP/2 without TLS. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/net.h"

struct loop;
struct grpc_probe;

/* on_done comes once, from the loop, unless it is cancelled before; `serves` when the answer is
 * SERVING. NULL when out of memory. */
struct grpc_probe *grpc_probe_start(struct loop *loop, const struct net_addr *addr,
				    const char *service, uint32_t timeout_ms,
				    void (*on_done)(bool serves, void *arg), void *arg);
/* Clears the pointer; NULL inside is fine. */
void grpc_probe_cancel(struct grpc_probe **probe);
