/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eureka's REST API beside our own, over the same store: under /eureka, /eureka/v2 and /v2, as JSON
 * or XML. Where its server is known to be slow or wrong, this one is not: leases run out after one
 * lease time, lists are never old, an override that is taken away leaves what the instance says.
 */
#pragma once

#include <stdbool.h>

#include "registry/store.h"

struct http_request;
struct loop;
struct reg_eureka;
struct reg_writer;

/* NULL when out of memory. Store and writer must outlive it. */
struct reg_eureka *reg_eureka_new(struct loop *loop, const struct reg_store *store,
				  struct reg_writer *writer);
/* After every change of the store. */
void reg_eureka_on_change(struct reg_eureka *e);
/* Lets go of what the HTTP server counts as its own: before http_server_free. */
void reg_eureka_release(struct reg_eureka *e);
void reg_eureka_free(struct reg_eureka **e);

/* Whether the path is one of Eureka's. */
bool reg_eureka_is_for(const struct http_request *req);
void reg_eureka_on_request(struct reg_eureka *e, struct http_request *req);
