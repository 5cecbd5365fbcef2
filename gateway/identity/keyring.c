/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/keyring.h"

#include <errno.h>
#include <stdlib.h>

#include "gateway/gateway.h"
#include "gateway/identity/jwks_url.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/file_watch.h"
#include "lib/http_client.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/metrics.h"

#define CHANGE_DELAY_MS 100
#define POLL_MS         30000 /* for file systems that tell nothing */

/* A URL that one or more auths name. */
struct fetcher {
	struct list node;
	struct jwks_url *url;
};

struct keyring {
	struct gateway *gateway;
	struct http_client *http;
	struct list fetchers;
	struct file_watch *watch;
	uint64_t reloads, reloads_failed; /* of single files, when they changed */
};

/* --- URLs ---------------------------------------------------------------------------------- */

static struct fetcher *find_fetcher(const struct keyring *k, const struct gw_jwks *conf)
{
	list_for_each (node, &k->fetchers) {
		struct fetcher *f = container_of(node, struct fetcher, node);

		if (jwks_url_is_for(f->url, conf))
			return f;
	}
	return NULL;
}

static struct fetcher *get_fetcher(struct keyring *k, const struct gw_auth *auth)
{
	struct fetcher *f = find_fetcher(k, &auth->jwks);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (f)
		f->url = jwks_url_new(k->gateway->loop, k->http, auth->name, &auth->jwks);
	if (!f || !f->url) {
		free(f);
		return NULL;
	}
	list_add_tail(&k->fetchers, &f->node);
	return f;
}

static void fetcher_free(struct fetcher *f)
{
	list_remove(&f->node);
	jwks_url_free(&f->url);
	free(f);
}

int keyring_adopt(struct keyring *k, struct snapshot *s)
{
	for (size_t i = 0; i < s->auth_count; i++) {
		struct snapshot_auth *auth = &s->auths[i];
		struct fetcher *f;

		if (!auth->conf->jwks.url.p)
			continue;
		f = get_fetcher(k, auth->conf);
		if (!f)
			return -ENOMEM;
		auth_keys_put(&auth->keys);
		auth->keys = auth_keys_ref(jwks_url_keys(f->url));
	}
	return 0;
}

static void drop_unused(struct keyring *k)
{
	const struct snapshot *s = k->gateway->snapshot;

	list_for_each_safe (node, &k->fetchers) {
		struct fetcher *f = container_of(node, struct fetcher, node);
		bool is_used = false;

		for (size_t i = 0; i < s->auth_count; i++)
			is_used |= s->auths[i].keys == jwks_url_keys(f->url);
		if (!is_used)
			fetcher_free(f);
	}
}

bool keyring_is_ready(const struct keyring *k)
{
	list_for_each (node, &k->fetchers) {
		if (!jwks_url_is_settled(container_of(node, struct fetcher, node)->url))
			return false;
	}
	return true;
}

/* --- files --------------------------------------------------------------------------------- */

static const char *file_of(const struct gw_auth *auth)
{
	return auth->type == GW_AUTH_API_KEY ? auth->keys_file.p : auth->jwks.file.p;
}

static void watch_files(struct keyring *k)
{
	const struct snapshot *s = k->gateway->snapshot;
	const char **paths = calloc(s->auth_count + 1, sizeof(*paths));
	size_t count = 0;
	int rc = paths ? 0 : -ENOMEM;

	for (size_t i = 0; paths && i < s->auth_count; i++) {
		if (file_of(s->auths[i].conf))
			paths[count++] = file_of(s->auths[i].conf);
	}
	if (rc == 0 && k->watch)
		rc = file_watch_set(k->watch, paths, count);
	if (rc < 0)
		log_warn("auth: cannot watch all files of keys (%s), looking every %d s",
			 strerror(-rc), POLL_MS / 1000);
	free(paths);
}

/* 1: it has changed. */
static int reload_jwks(const struct snapshot_auth *auth, struct err *err)
{
	struct jwks *fresh = NULL;
	int rc = jwks_load_file(&fresh, auth->conf->jwks.file.p, err);

	if (rc < 0)
		return rc;
	if (auth->keys->jwks && auth->keys->jwks->fingerprint == fresh->fingerprint) {
		jwks_put(&fresh);
		return 0;
	}
	auth_keys_set(auth->keys, fresh, NULL);
	return 1;
}

static int reload_api_keys(const struct snapshot_auth *auth, struct err *err)
{
	struct api_keys *fresh = NULL;
	const struct api_keys *now = auth->keys->api_keys;
	int rc = api_keys_load_file(&fresh, auth->conf->keys_file.p, auth->conf->user_claim, err);

	if (rc < 0)
		return rc;
	if (now && api_keys_fingerprint(now) == api_keys_fingerprint(fresh)) {
		api_keys_put(&fresh);
		return 0;
	}
	auth_keys_set(auth->keys, NULL, fresh);
	return 1;
}

static void on_change(void *arg)
{
	struct keyring *k = arg;
	const struct snapshot *s = k->gateway->snapshot;

	/* First the watch: what changes after it is seen by it. */
	watch_files(k);
	for (size_t i = 0; i < s->auth_count; i++) {
		const struct snapshot_auth *auth = &s->auths[i];
		struct err err;
		int rc;

		if (!file_of(auth->conf))
			continue;
		rc = auth->conf->type == GW_AUTH_API_KEY ? reload_api_keys(auth, &err)
							 : reload_jwks(auth, &err);
		if (rc > 0)
			log_info("auth=%s: keys loaded again, %s has changed", auth->conf->name.p,
				 file_of(auth->conf));
		if (rc < 0)
			log_error("auth=%s: the file of its keys cannot be used, going on with "
				  "what was there before: %s",
				  auth->conf->name.p, err.text);
		k->reloads += rc > 0;
		k->reloads_failed += rc < 0;
	}
}

void keyring_settle(struct keyring *k)
{
	drop_unused(k);
	watch_files(k);
}

/* --- life ---------------------------------------------------------------------------------- */

struct keyring *keyring_new(struct gateway *g)
{
	struct keyring *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->gateway = g;
	list_init(&k->fetchers);
	k->http = http_client_new(g->loop, 0);
	k->watch = file_watch_new(g->loop, CHANGE_DELAY_MS, POLL_MS, on_change, k);
	if (!k->http)
		keyring_free(&k);
	return k;
}

void keyring_free(struct keyring **kp)
{
	struct keyring *k = *kp;

	*kp = NULL;
	if (!k)
		return;
	while (!list_empty(&k->fetchers))
		fetcher_free(container_of(k->fetchers.next, struct fetcher, node));
	http_client_free(&k->http);
	file_watch_free(&k->watch);
	free(k);
}

/* --- what it shows ------------------------------------------------------------------------- */

static size_t count_keys(const struct auth_keys *keys)
{
	if (!keys)
		return 0;
	return keys->jwks ? keys->jwks->count : keys->api_keys ? api_keys_count(keys->api_keys) : 0;
}

static const struct jwks_url *url_of(const struct keyring *k, const struct snapshot_auth *auth)
{
	const struct fetcher *f = auth->conf->jwks.url.p ? find_fetcher(k, &auth->conf->jwks)
							 : NULL;

	return f ? f->url : NULL;
}

static void write_fetches(const struct keyring *k, struct buf *out)
{
	const struct snapshot *s = k->gateway->snapshot;
	struct jwks_url_status status;

	metrics_family(out, "gatehouse_gateway_jwks_fetches_total", "counter",
		       "Fetches of key sets from URLs, by result.");
	for (size_t i = 0; i < s->auth_count; i++) {
		const struct jwks_url *url = url_of(k, &s->auths[i]);

		if (!url)
			continue;
		jwks_url_get_status(url, &status);
		metrics_u64(
			out, "gatehouse_gateway_jwks_fetches_total",
			METRICS_LABELS({ "auth", s->auths[i].conf->name }, { "result", STR("ok") }),
			status.fetched);
		metrics_u64(out, "gatehouse_gateway_jwks_fetches_total",
			    METRICS_LABELS({ "auth", s->auths[i].conf->name },
					   { "result", STR("failed") }),
			    status.failed);
	}
	metrics_family(out, "gatehouse_gateway_jwks_fetched_timestamp_seconds", "gauge",
		       "When the key set was fetched last, as Unix time; 0: never.");
	for (size_t i = 0; i < s->auth_count; i++) {
		const struct jwks_url *url = url_of(k, &s->auths[i]);

		if (!url)
			continue;
		jwks_url_get_status(url, &status);
		metrics_u64(out, "gatehouse_gateway_jwks_fetched_timestamp_seconds",
			    METRICS_LABELS({ "auth", s->auths[i].conf->name }),
			    status.fetched_ms / MSEC_PER_SEC);
	}
}

void keyring_write_metrics(const struct keyring *k, struct buf *out)
{
	const struct snapshot *s = k->gateway->snapshot;

	metrics_family(out, "gatehouse_gateway_auth_keys", "gauge",
		       "Keys that credentials are checked with; 0: every one is refused.");
	for (size_t i = 0; i < s->auth_count; i++) {
		if (s->auths[i].keys)
			metrics_u64(out, "gatehouse_gateway_auth_keys",
				    METRICS_LABELS({ "auth", s->auths[i].conf->name }),
				    count_keys(s->auths[i].keys));
	}
	write_fetches(k, out);
	metrics_family(out, "gatehouse_gateway_auth_file_reloads_total", "counter",
		       "Files of keys loaded again because they changed.");
	metrics_u64(out, "gatehouse_gateway_auth_file_reloads_total", NULL, k->reloads);
	metrics_family(out, "gatehouse_gateway_auth_file_reloads_failed_total", "counter",
		       "Such files that changed into something unusable, so the former stayed.");
	metrics_u64(out, "gatehouse_gateway_auth_file_reloads_failed_total", NULL,
		    k->reloads_failed);
}

static void write_url(const struct jwks_url *url, const struct gw_auth *auth, struct json_writer *w)
{
	struct jwks_url_status status;
	char date[CLOCK_RFC3339_LEN + 1];

	jwks_url_get_status(url, &status);
	json_add_str(w, "url", auth->jwks.url);
	json_addz(w, "state",
		  status.problem[0] ? "failing"
		  : status.fetched  ? "good"
				    : "not fetched yet");
	if (status.problem[0])
		json_addz(w, "problem", status.problem);
	json_add_bool(w, "from_cache", status.is_from_cache);
	json_add_u64(w, "fetched", status.fetched);
	json_add_u64(w, "failed", status.failed);
	if (!status.fetched_ms)
		return;
	clock_rfc3339(date, status.fetched_ms);
	json_addz(w, "fetched_at", date);
}

void keyring_write_status(const struct keyring *k, struct json_writer *w)
{
	const struct snapshot *s = k->gateway->snapshot;

	json_open(w, "auth", '[');
	for (size_t i = 0; i < s->auth_count; i++) {
		const struct gw_auth *auth = s->auths[i].conf;
		const struct jwks_url *url = url_of(k, &s->auths[i]);

		json_open(w, NULL, '{');
		json_add_str(w, "name", auth->name);
		json_addz(w, "type", gw_auth_types[auth->type]);
		if (s->auths[i].keys)
			json_add_u64(w, "keys", count_keys(s->auths[i].keys));
		if (file_of(auth))
			json_addz(w, "file", file_of(auth));
		if (url)
			write_url(url, auth, w);
		json_close(w, '}');
	}
	json_close(w, ']');
}
