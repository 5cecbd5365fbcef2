/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where revocations come from: a file of the operator, watched, and the admin socket, whose word is
 * kept in a state file. In force in all workers when a call returns. Main thread.
 */
#pragma once

#include "gateway/identity/revoked.h"
#include "lib/err.h"

struct buf;
struct gateway;
struct http_request;
struct json_writer;
struct revocations;

/* Reads what the configuration names. NULL with the sentence in err. */
struct revocations *revocations_new(struct gateway *g, struct err *err);
void revocations_free(struct revocations **v);
/* This process alone writes the state from now on: takes what the one before wrote last. */
void revocations_go_live(struct revocations *v);
/* g->snapshot names other files now. */
void revocations_update(struct revocations *v);

/* Handlers of the admin socket. */
void revocations_post(struct http_request *req, struct gateway *g);   /* POST /revoke */
void revocations_remove(struct http_request *req, struct gateway *g); /* POST /unrevoke */
void revocations_list(struct http_request *req, struct gateway *g);   /* GET /revocations */

void revocations_write_metrics(const struct revocations *v, struct buf *out);
