/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's own API. On the TCP port only reading: /healthz, /readyz, /metrics, /status. On the
 * unix socket also what changes something: POST /reload, POST /drain; the socket's file permissions
 * are the access control.
 */
#pragma once

#include "gateway/gateway.h"

struct admin *admin_new(struct gateway *g, struct err *err);
void admin_free(struct admin **a);
