/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's own API. On the TCP port only reading: /healthz, /readyz, /metrics, /status. On the
 * unix socket also what changes something: POST /reload, /drain, /upgrade, /handover; the socket's
 * file permissions are the access control.
 */
#pragma once

#include "gateway/gateway.h"

#define ADMIN_LISTENERS_MAX 2

/* Opens what g->inherited does not hold. */
struct admin *admin_new(struct gateway *g, struct err *err);
void admin_free(struct admin **a);
/* Begins to answer on the sockets that were inherited: what is asked there is asked of the one that
 * serves. */
int admin_accept(struct admin *a, struct err *err);
/* The listening sockets, still the admin's; returns how many. */
size_t admin_listeners(const struct admin *a, int out[static ADMIN_LISTENERS_MAX]);
/* Another process goes on with them. */
void admin_let_go(struct admin *a);
