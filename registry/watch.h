/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that reads instances through the API, at once or when they change: lists, blocking
 * queries, event streams.
 */
#pragma once

#include "lib/buf.h"
#include "lib/http_server.h"
#include "registry/store.h"

struct loop;
#define REG_WATCH_APPS_MAX 256 /* in one stream */

struct reg_watch;

/* The store must outlive it. NULL when out of memory. */
struct reg_watch *reg_watch_new(struct loop *loop, const struct reg_store *store);
/* After every change of the store. */
void reg_watch_on_change(struct reg_watch *w, const struct reg_entry *entry,
			 enum reg_change change);
/* Answers whoever waits and ends the streams: before http_server_stop. */
void reg_watch_stop(struct reg_watch *w);
/* Lets go of what the HTTP server counts as its own: before http_server_free. */
void reg_watch_release(struct reg_watch *w);
/* When no request of it is left. */
void reg_watch_free(struct reg_watch **w);

/* GET /v1/apps */
void reg_watch_apps(struct reg_watch *w, struct http_request *req);
/* GET /v1/apps/{app} */
void reg_watch_app(struct reg_watch *w, struct http_request *req);
/* GET /v1/watch */
void reg_watch_stream(struct reg_watch *w, struct http_request *req);

struct reg_watch_stats {
	size_t waiters, streams; /* now */
	uint64_t events;         /* sent, counted once per stream */
	uint64_t resets;
};
const struct reg_watch_stats *reg_watch_stats(const struct reg_watch *w);
