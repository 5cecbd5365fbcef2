/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which web pages of other origins may use a route (the CORS protocol of the WHATWG Fetch
 * standard). The gateway alone decides: what a service says about it is replaced, and preflights
 * are answered before any identity is asked for, since browsers send none with them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/str.h"

struct request;

/* As configured. */
struct gw_cors {
	struct str
		*origins; /* exact, with a star for labels in front, or "*" alone; none: nobody */
	size_t origins_count;
	struct str *methods; /* none: those of the route */
	size_t methods_count;
	struct str *headers; /* of requests; "*" alone: whatever is asked for */
	size_t headers_count;
	struct str *exposed_headers; /* of responses, beside those that every page may read */
	size_t exposed_headers_count;
	bool credentials;
	uint32_t max_age_s;
};

/* For configuration checks: NULL when good, else a sentence. */
const char *cors_check_origin(struct str origin);

/* Compiled for one route. */
struct cors;

/* `methods` are the route's own, none for any. The configuration must outlive it. NULL: out of
 * memory. */
struct cors *cors_new(struct arena *a, const struct gw_cors *conf, const struct str *methods,
		      size_t method_count);

/* Whether pages of that origin, as browsers write it, may use the route. */
bool cors_allows(const struct cors *cors, struct str origin);

/* Of its policy: the route's, or the defaults' while there is no route; NULL: none. */
const struct cors *cors_of(const struct request *r);

/* At its begin: rules may take the field away. Of several none is believed. */
void cors_note_origin(struct request *r);

/*
 * On the head of any response, the gateway's own errors too: Access-Control-* of the service go,
 * those of the policy come, and Vary says that it hangs on the origin.
 */
void cors_finish(struct request *r);
