/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/jwks_url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/http_client.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "lib/resolve.h"
#include "lib/tls_client.h"
#include "lib/url.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MOST_MS  30000
#define MAX_AGE_LEAST  30U /* seconds; who says less is not asked more often */

struct jwks_url {
	struct loop *loop;
	struct http_client *http;
	char *name;
	struct gw_jwks conf; /* its texts are ours */
	struct url url;      /* within conf.url */
	char *host;
	struct auth_keys *keys;

	/* the fetch in progress */
	struct resolve *resolve;
	struct tls_client *tls;
	struct http_call *call;
	struct net_addr addrs[RESOLVE_ADDRESSES];
	size_t addr_count, addr_tried;

	struct loop_timer timer;   /* the next fetch */
	struct loop_timer unknown; /* until unknown keys count again */
	uint32_t retry_ms;         /* 0: the last try was good */
	uint64_t fetched, failed, fetched_ms;
	bool is_from_cache;
	char problem[200];
};

/* --- the copy on disk ---------------------------------------------------------------------- */

static void write_cache(struct jwks_url *u, struct str body)
{
	char *aside = NULL;
	int fd, rc = 0;

	if (!u->conf.cache.p || asprintf(&aside, "%s.new", u->conf.cache.p) < 0)
		return;
	fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, body.p, body.len) != (ssize_t)body.len || fsync(fd) < 0)
		rc = errno ? errno : ENOSPC;
	if (fd >= 0)
		close(fd);
	if (rc == 0 && rename(aside, u->conf.cache.p) < 0)
		rc = errno;
	if (rc)
		log_warn("auth=%s: cannot write the copy of its key set to %s: %s", u->name,
			 u->conf.cache.p, strerror(rc));
	free(aside);
}

static void read_cache(struct jwks_url *u)
{
	struct jwks *keys = NULL;
	struct err err;

	if (!u->conf.cache.p || access(u->conf.cache.p, F_OK) < 0)
		return;
	if (jwks_load_copy(&keys, u->conf.cache.p, &err) < 0) {
		log_warn("auth=%s: the copy of its key set is of no use: %s", u->name, err.text);
		return;
	}
	u->is_from_cache = true;
	auth_keys_set(u->keys, keys, NULL);
}

/* --- what comes of a fetch ----------------------------------------------------------------- */

/* A tenth of jitter: gateways started together do not stay together. */
static void schedule(struct jwks_url *u, uint64_t delay_ms)
{
	uint64_t tenth = delay_ms / 10;

	delay_ms -= tenth ? random_fast() % tenth : 0;
	loop_timer_start(u->loop, &u->timer, delay_ms);
	__atomic_store_n(&u->keys->retry_after_s, delay_ms / MSEC_PER_SEC + 1, __ATOMIC_RELAXED);
}

static void fetch_end(struct jwks_url *u)
{
	tls_client_free(&u->tls);
	u->call = NULL;
}

__attribute__((format(printf, 2, 3))) static void fetch_fail(struct jwks_url *u, const char *fmt,
							     ...)
{
	bool is_news = u->retry_ms == 0;
	va_list args;

	fetch_end(u);
	va_start(args, fmt);
	vsnprintf(u->problem, sizeof(u->problem), fmt, args);
	va_end(args);
	u->failed++;
	u->retry_ms = u->retry_ms ? MIN(2 * u->retry_ms, (uint32_t)RETRY_MOST_MS) : RETRY_FIRST_MS;
	if (is_news)
		log_error("auth=%s: cannot fetch the key set from %s: %s; %s", u->name,
			  u->conf.url.p, u->problem,
			  u->keys->jwks ? "going on with the one that is there"
					: "tokens are answered with 503 until there is one");
	schedule(u, MIN((uint64_t)u->retry_ms, u->conf.refresh_s * MSEC_PER_SEC));
}

/* The issuer's max-age (RFC 9111 5.2.2.1) where it wants us to come sooner, within reason. */
static uint64_t next_fetch_ms(const struct jwks_url *u, const struct http1_head *head)
{
	uint64_t seconds = u->conf.refresh_s;

	for (size_t i = 0; head && i < head->field_count; i++) {
		struct str list = head->fields[i].value, item;
		uint64_t age;

		if (head->fields[i].id != HTTP_CACHE_CONTROL)
			continue;
		while (str_split(&list, ',', &item)) {
			item = str_trim(item);
			if (str_istarts(item, STR("max-age=")) &&
			    str_u64(str_sub(item, 8, item.len), &age))
				seconds = MIN(seconds, MAX(age, (uint64_t)MAX_AGE_LEAST));
		}
	}
	return seconds * MSEC_PER_SEC;
}

static void take(struct jwks_url *u, struct jwks *keys, const struct http_result *result)
{
	const struct jwks *now = u->keys->jwks;
	bool is_new = !now || now->fingerprint != keys->fingerprint;

	if (is_new || u->retry_ms)
		log_info("auth=%s: %zu keys from %s%s", u->name, keys->count, u->conf.url.p,
			 is_new ? "" : ", unchanged");
	if (is_new) {
		auth_keys_set(u->keys, jwks_ref(keys), NULL);
		write_cache(u, result->body);
	}
	u->fetched++;
	u->fetched_ms = clock_wall_ms();
	u->is_from_cache = false;
	u->retry_ms = 0;
	u->problem[0] = '\0';
	fetch_end(u);
	schedule(u, next_fetch_ms(u, result->head));
	jwks_put(&keys);
}

static void call_next(struct jwks_url *u);

static void on_answer(struct http_call *call, const struct http_result *result, void *arg)
{
	struct jwks_url *u = arg;
	struct jwks *keys = NULL;
	struct err err;

	(void)call;
	u->call = NULL;
	if (result->error && !result->status && u->addr_tried < u->addr_count)
		call_next(u);
	else if (result->error)
		fetch_fail(u, "%s", result->problem);
	else if (result->status >= 300 && result->status < 400)
		fetch_fail(u,
			   "status %u: redirects are not followed, give the URL that it leads to",
			   result->status);
	else if (result->status != 200)
		fetch_fail(u, "status %u", result->status);
	else if (jwks_parse(&keys, result->body, false, &err) < 0)
		fetch_fail(u, "what is there %.150s", err.text);
	else
		take(u, keys, result);
}

/* --- fetching ------------------------------------------------------------------------------ */

static void call_next(struct jwks_url *u)
{
	struct http_request_spec spec = {
		.addr = &u->addrs[u->addr_tried++],
		.tls = u->tls,
		.tls_name = str_from(u->host),
		.host = u->url.authority,
		.target = { u->url.path, u->url.query },
		.headers = STR("Accept: application/jwk-set+json, application/json\r\n"),
		.closes = true,
		.max_body = JWKS_MAX_BYTES,
		.connect_timeout_ms = u->conf.timeout_ms,
		.response_timeout_ms = u->conf.timeout_ms,
		.idle_timeout_ms = u->conf.timeout_ms,
		.total_timeout_ms = u->conf.timeout_ms,
		.on_done = on_answer,
		.arg = u,
	};

	u->call = http_call_start(u->http, &spec);
	if (!u->call)
		fetch_fail(u, "out of memory");
}

static void on_resolved(const struct net_addr *addrs, size_t count, const char *problem, void *arg)
{
	struct jwks_url *u = arg;
	struct tls_client_options tls = { .verify = true, .ca_file = u->conf.ca.p };
	struct err err;

	u->resolve = NULL;
	if (count == 0) {
		fetch_fail(u, "%s", problem);
		return;
	}
	memcpy(u->addrs, addrs, count * sizeof(*addrs));
	u->addr_count = count;
	u->addr_tried = 0;
	if (u->url.is_https) {
		/* Anew each time: the file with the authorities may have changed. */
		u->tls = tls_client_new(&tls, &err);
		if (!u->tls) {
			fetch_fail(u, "%.190s", err.text);
			return;
		}
	}
	call_next(u);
}

static void start_fetch(struct jwks_url *u)
{
	if (u->call || u->resolve)
		return;
	loop_timer_stop(u->loop, &u->timer);
	u->resolve = resolve_start(u->loop, str_from(u->host), u->url.port, on_resolved, u);
	if (!u->resolve)
		fetch_fail(u, "its host cannot be resolved: %s", strerror(errno));
}

static void on_timer(struct loop_timer *timer)
{
	start_fetch(container_of(timer, struct jwks_url, timer));
}

/* --- unknown keys -------------------------------------------------------------------------- */

static void on_unknown_again(struct loop_timer *timer)
{
	const struct jwks_url *u = container_of(timer, struct jwks_url, unknown);

	__atomic_store_n(&u->keys->is_wanted, 0, __ATOMIC_RELEASE);
}

/* Until the timer fires workers see that it is wanted already and keep quiet. */
static void on_wanted(struct auth_keys *keys)
{
	struct jwks_url *u = keys->owner;

	log_info("auth=%s: a token names a key that is not in its set, which is fetched again",
		 u->name);
	loop_timer_start(u->loop, &u->unknown, JWKS_URL_UNKNOWN_MS);
	start_fetch(u);
}

/* --- life ---------------------------------------------------------------------------------- */

static bool copy_text(struct str *out, struct str text)
{
	if (!text.p)
		return true;
	*out = str_from(strndup(text.p, text.len));
	return out->p != NULL;
}

static bool copy_conf(struct jwks_url *u, const struct gw_jwks *conf)
{
	u->conf = (struct gw_jwks) {
		.refresh_s = conf->refresh_s,
		.timeout_ms = conf->timeout_ms,
		.allow_http = conf->allow_http,
	};
	if (!copy_text(&u->conf.url, conf->url) || !copy_text(&u->conf.ca, conf->ca) ||
	    !copy_text(&u->conf.cache, conf->cache) || url_parse(&u->url, u->conf.url))
		return false;
	u->host = strndup(u->url.host.p, u->url.host.len);
	return u->host != NULL;
}

struct jwks_url *jwks_url_new(struct loop *loop, struct http_client *http, struct str name,
			      const struct gw_jwks *conf)
{
	struct jwks_url *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->loop = loop;
	u->http = http;
	u->timer.on_fire = on_timer;
	u->unknown.on_fire = on_unknown_again;
	u->name = strndup(name.p, name.len);
	u->keys = auth_keys_new();
	if (!u->name || !u->keys || !copy_conf(u, conf)) {
		jwks_url_free(&u);
		return NULL;
	}
	u->keys->loop = loop;
	u->keys->on_wanted = on_wanted;
	u->keys->owner = u;
	read_cache(u);
	/* In the loop: the caller may not be ready for the resolver's thread yet. */
	loop_timer_start(loop, &u->timer, 0);
	return u;
}

void jwks_url_free(struct jwks_url **up)
{
	struct jwks_url *u = *up;

	*up = NULL;
	if (!u)
		return;
	loop_timer_stop(u->loop, &u->timer);
	loop_timer_stop(u->loop, &u->unknown);
	resolve_cancel(&u->resolve);
	http_call_cancel(&u->call);
	tls_client_free(&u->tls);
	/* Workers may still hold and want them. */
	if (u->keys)
		u->keys->on_wanted = NULL;
	auth_keys_put(&u->keys);
	free((void *)(uintptr_t)u->conf.url.p);
	free((void *)(uintptr_t)u->conf.ca.p);
	free((void *)(uintptr_t)u->conf.cache.p);
	free(u->host);
	free(u->name);
	free(u);
}

bool jwks_url_is_for(const struct jwks_url *u, const struct gw_jwks *conf)
{
	return str_eq(u->conf.url, conf->url) && str_eq(u->conf.ca, conf->ca) &&
	       str_eq(u->conf.cache, conf->cache) && u->conf.refresh_s == conf->refresh_s &&
	       u->conf.timeout_ms == conf->timeout_ms && u->conf.allow_http == conf->allow_http;
}

struct auth_keys *jwks_url_keys(const struct jwks_url *u)
{
	return u->keys;
}

bool jwks_url_is_settled(const struct jwks_url *u)
{
	return u->keys->jwks || u->failed;
}

void jwks_url_get_status(const struct jwks_url *u, struct jwks_url_status *out)
{
	*out = (struct jwks_url_status) {
		.fetched = u->fetched,
		.failed = u->failed,
		.fetched_ms = u->fetched_ms,
		.is_from_cache = u->is_from_cache,
		.problem = u->problem,
	};
}
