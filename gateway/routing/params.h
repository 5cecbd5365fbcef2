/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients put into cookies and queries (RFC 6265 5.4; the form encoding of the WHATWG URL
 * standard), piece by piece and without copies. Names of both are case-sensitive.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/arena.h"
#include "lib/http.h"
#include "lib/str.h"

/* Walks over all cookies of all Cookie fields. */
struct params_cookies {
	const struct http_field *fields;
	size_t count, at;
	struct str rest; /* of the field before `at`; p NULL: go on with the next one */
};

bool params_next_cookie(struct params_cookies *it, struct str *name, struct str *value);
/* The next name and value of a query, both as they were sent. *rest with p NULL is finished. */
bool params_next_query(struct str *rest, struct str *name, struct str *value);

/* The first one of that name; false when there is none. Values as they were sent. */
bool params_find_cookie(const struct http_field *fields, size_t count, struct str name,
			struct str *value);
bool params_find_query(struct str query, struct str name, struct str *value);

/* Whether a piece of a query, decoded, is `want`, or begins with it. */
bool params_equal(struct str raw, struct str want);
bool params_begins(struct str raw, struct str want);

/* The same decoding as theirs; false when it does not fit. */
bool params_decode_into(char *out, size_t room, struct str raw, struct str *result);

/* "%41" is "A", an escape that is none stays; with `plus`, "+" is a space. p NULL: out of memory.
 */
struct str params_decode(struct arena *a, struct str raw, bool plus);
/* Escapes all but letters, digits and "-._~", so that the result is one piece of any part of a URL.
 * p NULL: out of memory. */
struct str params_encode(struct arena *a, struct str plain);
