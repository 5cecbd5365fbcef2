/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the configuration that says who may do what: `auth`, and a route's `auth` and
 * `require`. */
#pragma once

#include <jansson.h>

#include "lib/conf.h"

/* How somebody proves who he is: an item of `auth`, a struct gw_auth. */
extern const struct conf_object gw_auth_object;

/* A route's `auth` into a struct gw_auth_names: a name or a list of them. */
void gw_parse_auth_names(struct conf *c, void *field, const json_t *value);
#define GW_AUTH_NAMES_SCHEMA                                                     \
	"{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\"," \
	"\"minItems\":1,\"maxItems\":8,\"items\":{\"type\":\"string\",\"minLength\":1}}]}"

/* A route's `require` into a struct gw_requires. */
void gw_parse_require(struct conf *c, void *field, const json_t *value);
#define GW_WORDS_SCHEMA                                                          \
	"{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\"," \
	"\"minItems\":1,\"items\":{\"type\":\"string\",\"minLength\":1}}]}"
#define GW_REQUIRE_SCHEMA                                                                     \
	"{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":[{\"type\":\"string\","     \
	"\"minLength\":1},{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"string\"," \
	"\"minLength\":1}},{\"type\":\"object\",\"additionalProperties\":false,"              \
	"\"minProperties\":1,\"properties\":{"                                                \
	"\"equals\":{\"type\":[\"string\",\"number\",\"boolean\"]},"                          \
	"\"one_of\":{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":[\"string\","      \
	"\"number\",\"boolean\"]}},\"contains\":" GW_WORDS_SCHEMA                             \
	",\"contains_one_of\":" GW_WORDS_SCHEMA "}}]}}"
