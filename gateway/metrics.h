/* SPDX-License-Identifier: Apache-2.0 */
/* What the gateway shows of itself: Prometheus metrics, and the status document of gatewayctl. Main
 * thread. */
#pragma once

#include "gateway/gateway.h"
#include "lib/json.h"

void gateway_write_metrics(const struct gateway *g, struct buf *out);
void gateway_write_status(const struct gateway *g, struct buf *out);
