/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing the process under way: a new one takes the listening sockets over from the one that
 * runs, by the admin socket. The old one goes on as if nothing was until the new one says that it
 * is ready, and then drains; no connection is refused, and none that waits in a queue is lost. If
 * the new one fails before, nothing has changed. All in the main threads.
 */
#pragma once

#include <stdbool.h>

#include "lib/err.h"

struct gateway;
struct handover;
struct http_request;
struct snapshot;

/* The new one: asks the process behind the configuration's admin socket for its sockets, and waits
 * for them. They are in g->inherited then. -errno with the sentence in err. */
int handover_take(struct gateway *g, const struct snapshot *snapshot, struct err *err);
/* When everything runs but accepts nothing yet: waits until the gateway is ready, has the other one
 * let go, and calls gateway_go_live, or gateway_fail. */
void handover_finish(struct gateway *g);

/* The one that runs: POST /handover. Refuses, or sends the sockets and waits. */
void handover_give(struct gateway *g, struct http_request *req);
/* Ends what is in progress: the new process hears that and ends. NULL inside is fine. */
void handover_free(struct handover **h);
