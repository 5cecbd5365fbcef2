/* SPDX-License-Identifier: Apache-2.0 */
/* What of a request decides where it goes, so that equal ones go to the same place: the user, the
 * client's address, a header, a cookie, the path. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/str.h"

struct request;

enum request_key_kind {
	REQUEST_KEY_NONE,
	REQUEST_KEY_USER,
	REQUEST_KEY_IP,
	REQUEST_KEY_ENDPOINT, /* the path, as it was routed */
	REQUEST_KEY_HEADER,
	REQUEST_KEY_COOKIE,
};

struct request_key {
	enum request_key_kind kind;
	struct str name; /* of the header or cookie */
};

/* Reads "user", "ip", "endpoint", "header:NAME" or "cookie:NAME". NULL, or the sentence that says
 * what is wrong. The name points into `text`. */
const char *request_key_parse(struct request_key *out, struct str text);

/* The same everywhere and in every run. A request that lacks it (no such header, nobody logged in)
 * is hashed by its client's address, IPv6 by /64. */
uint64_t request_key_hash(const struct request_key *key, const struct request *r);

/* The same without that way out: false when the request lacks it. */
bool request_key_find(const struct request_key *key, const struct request *r, uint64_t *hash);

/* The value of a cookie; p NULL: there is none. */
struct str request_cookie(const struct request *r, struct str name);
