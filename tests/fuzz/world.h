/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gateway's worker in this process, without a thread: a client at one end of a socket pair, a
 * service at a socket of its own, both played by the harness, all in one event loop that is
 * stepped. Everything between the two is the real thing.
 */
#pragma once

#include "lib/buf.h"
#include "lib/str.h"

#define WORLD_SERVICE_CONNS 8

struct world_conn {
	struct buf received; /* what the service was sent on it */
};

struct world_result {
	struct buf client; /* what the client was sent */
	struct world_conn service[WORLD_SERVICE_CONNS];
	size_t service_conns;
};

struct world_script {
	struct str client;   /* what the client sends ... */
	size_t client_piece; /* ... in pieces of this size */
	struct str answer;   /* what the service answers to each connection ... */
	size_t answer_piece; /* ... in pieces */
	bool answer_at_once; /* before anything was received */
	bool answer_closes;  /* the service closes behind it */
};

/* `service_protocol`: "http/1.1" or "h2". Once per process. */
void world_start(const char *service_protocol);
/*
 * Runs one connection of a client to its end. Checks by itself that the worker lets go of it, and
 * of every request, when the client is gone. Release with world_result_fini.
 */
void world_run(const struct world_script *script, struct world_result *out);
void world_result_fini(struct world_result *r);
