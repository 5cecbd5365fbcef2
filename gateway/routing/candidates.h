/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes of one place of the route table (same host, same path): which of them is for a
 * request, by matchers, methods and media types. A long list is indexed by the header, cookie or
 * parameter that most of them ask for, so that a thousand tenants cost as little as ten.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/routing/router.h"
#include "lib/arena.h"

enum matcher_kind { MATCHER_HEADER, MATCHER_COOKIE, MATCHER_QUERY };

/* A pattern, the star cut off. */
struct matcher {
	enum matcher_kind kind;
	enum http_name id; /* of a header */
	struct str name, value;
	bool is_prefix; /* "*" is the empty prefix */
};

struct candidate {
	size_t route;
	uint64_t methods; /* bits; all ones: any */
	const struct matcher *matchers;
	size_t matcher_count;
	const struct str *accepts, *content_types;
	size_t accept_count, content_type_count;
	size_t rank; /* how specific: the higher the earlier */
};

struct candidate_index;

struct candidates {
	struct candidate *items; /* the most specific first, after candidates_finish */
	size_t count, room;
	const struct candidate_index *index; /* NULL: short */
};

/* Fills in all but the methods, which are to be there already. False: out of memory. */
bool candidate_init(struct candidate *c, const struct router_route *route, struct arena *a);

/* False: out of memory. */
bool candidates_add(struct candidates *list, const struct candidate *c, struct arena *a);
/* Once, when all are there. False: out of memory. */
bool candidates_finish(struct candidates *list, struct arena *a);

/* What a look-up wants, and what it learns of routes that nearly fit. */
struct candidates_query {
	const struct router_request *request;
	uint64_t method; /* bit, 0 for a method that no route names */
	bool wildcards;  /* whoever accepts everything accepts what has a type of its own */
	uint64_t allow;  /* methods of routes that lack only the request's */
	bool lacks_content_type, lacks_accept;
};

/* The route, or NULL. */
const struct candidate *candidates_match(const struct candidates *list, struct candidates_query *q);
