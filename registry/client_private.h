/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the client share: the watched apps, and the client itself. */
#pragma once

#include <jansson.h>

#include "lib/http_client.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/sse.h"
#include "registry/client.h"

/* One instance as last heard of. */
struct reg_item {
	struct list node;
	struct arena arena;
	struct reg_instance instance;
};

/* An app that somebody watches: its instances, and the list made from them. */
struct reg_watched {
	struct list node; /* in client->watched */
	struct reg_client *client;
	char app[REG_APP_MAX + 1];
	void (*on_list)(struct reg_list *list, void *arg);
	void *arg;
	struct list items;
	size_t item_count;
	uint64_t index;
	bool is_dirty;      /* the items changed since the list was made */
	bool is_from_cache; /* the items come from the file */
	bool is_kept;       /* the registry knows none of them: they go with the first it names */
	bool has_answer;    /* the registry has named instances since we connected */
	struct reg_list *list;
	/* polling */
	struct http_call *call;
	bool is_polled;
};

/* Replaces all items by those of a JSON array; what is malformed is left out. An empty array keeps
 * them unless `may_empty`. */
void reg_watched_reset(struct reg_watched *w, const json_t *instances, uint64_t index,
		       bool may_empty);
void reg_watched_put(struct reg_watched *w, const json_t *instance, uint64_t index);
void reg_watched_delete(struct reg_watched *w, struct str id, uint64_t index);
/* Makes a list from the items and hands it out, if it differs from the last one. */
void reg_watched_publish(struct reg_watched *w);
/* The items become what the cache file says. */
void reg_watched_from_cache(struct reg_watched *w, const json_t *instances);
struct reg_watched *reg_watched_new(struct reg_client *client, const char *app);
void reg_watched_free(struct reg_watched *w);

enum reg_client_mode { REG_CLIENT_STREAM, REG_CLIENT_POLL };

struct reg_client_url {
	char *text;
	struct http_base base;
};

struct reg_client {
	struct loop *loop;
	struct http_client *http;
	struct tls_client *tls; /* NULL: no URL wants it */
	char *headers;          /* of each request */
	struct reg_client_url *urls;
	size_t url_count, url;
	void (*on_event)(enum reg_client_event event, const char *detail, void *arg);
	void *arg;

	struct list watched;
	struct list selfs;
	struct loop_task publish; /* at the end of the round: events come in bursts */
	struct loop_task restart; /* the set of apps changed */

	/* the connection */
	enum reg_client_mode mode;
	struct http_call *stream;
	struct sse sse;
	struct loop_timer retry;
	uint64_t index; /* of this URL; 0: begin with the full state */
	uint64_t backoff_ms;
	unsigned failures; /* in a row */
	bool is_connected, is_reported_lost, has_heard;
	uint64_t events, reconnects;

	/* the cache file */
	char *cache_path;
	json_t *cache;
	struct loop_timer save;
	uint64_t saved_ms; /* when the cache file was last written */
	bool is_cache_failing;
};

void reg_client_tell(struct reg_client *c, enum reg_client_event event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Something for reg_watched_publish to do. */
void reg_client_changed(struct reg_client *c);
/* Half to all of it: many clients that lost the same registry do not come back all at once. */
uint64_t reg_client_jitter(uint64_t delay_ms);

/* client_access.c: a request to that registry; the caller adds what it is about. */
struct http_request_spec reg_client_request(const struct reg_client *c, size_t url);
void reg_client_access_fini(struct reg_client *c);

/* client_cache.c */
void reg_client_cache_load(struct reg_client *c);
/* Instances of an app in the file, or NULL. */
const json_t *reg_client_cached(const struct reg_client *c, const char *app);
/* Soon, but not for each change. */
void reg_client_cache_touch(struct reg_client *c);
void reg_client_cache_fini(struct reg_client *c);

/* client_self.c */
void reg_client_free_selfs(struct reg_client *c);
