/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path templates of google.api.http annotations (google/api/http.proto, "Path template syntax"):
 *
 *	"/v1/{name=shelves/+}/books/{book.id}:publish" with "*" for "+"
 *
 * A variable names a field of the request message, "a.b" one of a message inside. "*" is one
 * segment, "**" the rest of the path and last. A variable of one segment is percent-decoded as a
 * whole, one of several keeps "%2F".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/arena.h"
#include "lib/err.h"
#include "lib/str.h"

#define HTTP_RULE_SEGMENTS_MAX  32
#define HTTP_RULE_VARIABLES_MAX 16

struct http_rule_segment {
	struct str literal; /* p NULL: any segment */
};

struct http_rule_variable {
	struct str field;
	size_t from, to; /* segments; `to` past the last. With the rest: to the path's end */
	bool is_rest;    /* ends in "**" */
};

struct http_rule {
	struct http_rule_segment segments[HTTP_RULE_SEGMENTS_MAX];
	size_t segment_count;
	bool has_rest;   /* "**" behind the segments: any number of further ones */
	struct str verb; /* behind the last ':', p NULL: none */
	struct http_rule_variable variables[HTTP_RULE_VARIABLES_MAX];
	size_t variable_count;
};

struct http_rule_value {
	struct str field, value;
	bool is_long; /* of several segments */
};

/* Reads a template, whose bytes must outlive the rule. 0, or -EINVAL with a sentence. */
int http_rule_parse(struct http_rule *rule, struct str text, struct err *err);

/*
 * Whether a normalised path fits. `values` has room for HTTP_RULE_VARIABLES_MAX and gets the
 * variables as they stand in the path, encoded.
 */
bool http_rule_match(const struct http_rule *rule, struct str path, struct http_rule_value *values);

/* Which of two rules is to be asked first, as qsort(3): the one with a literal where the other
 * takes anything, and longer ones before "**". */
int http_rule_compare(const struct http_rule *a, const struct http_rule *b);

/*
 * The value decoded into the arena. p NULL: a broken escape, a NUL, bytes that are no UTF-8, or out
 * of memory.
 */
struct str http_rule_decode(struct arena *a, const struct http_rule_value *value);
