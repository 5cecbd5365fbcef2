/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what at the registry: tokens with rights to read or write some apps. Without any
 * token configured everybody may everything, as over a unix socket always.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/http_server.h"
#include "registry/conf.h"

struct reg_access;

/* What one request may do. Good as long as the reg_access. */
struct reg_grant {
	const struct reg_token *token; /* NULL: nobody in particular */
	bool is_unlimited;
};

struct reg_access_stats {
	uint64_t no_token, bad_token, not_allowed;
};

/* Copies what it needs. NULL when out of memory. */
struct reg_access *reg_access_new(const struct reg_conf *conf);
void reg_access_free(struct reg_access **access);
/* Whether the request may go on; if not, it is answered with 401 or 403. POST /v1/renew goes on
 * with any right to write: what it names is its handler's to check. From within on_request. */
bool reg_access_check(struct reg_access *a, struct http_request *req, struct reg_grant *grant);
/* `app` in lower case. */
bool reg_grant_may_write(const struct reg_grant *grant, struct str app);
/* The name of the token; a NULL p without one. */
struct str reg_grant_name(const struct reg_grant *grant);
const struct reg_access_stats *reg_access_stats(const struct reg_access *a);
/* 0: no tokens are configured. */
size_t reg_access_tokens(const struct reg_access *a);
