/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts the program anew, as it is on disk by now, to take over from this process (handover.h). A
 * child, so that it belongs to the same unit of systemd, whose main process it becomes. Belongs to
 * the main thread.
 */
#pragma once

struct gateway;
struct http_request;
struct upgrade;

/* POST /upgrade: starts it, and answers when it has taken over or failed. */
void upgrade_start(struct gateway *g, struct http_request *req);
/* It has taken over. */
void upgrade_done(struct gateway *g);
/* Leaves the process alone. NULL inside is fine. */
void upgrade_free(struct upgrade **u);
