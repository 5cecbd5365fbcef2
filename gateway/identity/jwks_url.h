/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps a key set that an issuer publishes at a URL: fetches it, again now and then, at once when a
 * token names an unknown key (but not often), and keeps the last good one while that fails. One
 * fetch at a time, beside requests, redirects not followed. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gateway/conf/conf.h"
#include "gateway/identity/auth_keys.h"
#include "lib/err.h"

struct http_client;
struct jwks_url;
struct loop;

/* An unknown key has the set fetched at most once in this time. */
#define JWKS_URL_UNKNOWN_MS 30000

/* Begins to fetch. `conf` and its texts are copied; `name` (of the auth) is for the log. NULL when
 * out of memory. */
struct jwks_url *jwks_url_new(struct loop *loop, struct http_client *http, struct str name,
			      const struct gw_jwks *conf);
void jwks_url_free(struct jwks_url **u);

/* Whether it does what this configuration wants. */
bool jwks_url_is_for(const struct jwks_url *u, const struct gw_jwks *conf);
/* The keys, borrowed; empty until the first success. */
struct auth_keys *jwks_url_keys(const struct jwks_url *u);
/* Whether there are keys, or it is known that there are none now. */
bool jwks_url_is_settled(const struct jwks_url *u);

struct jwks_url_status {
	uint64_t fetched, failed;
	uint64_t fetched_ms; /* wall clock of the last success; 0: never */
	bool is_from_cache;  /* the keys are those of the file */
	const char *problem; /* of the last try; "" when it was good */
};
void jwks_url_get_status(const struct jwks_url *u, struct jwks_url_status *out);
