/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiled route table. Knows hosts, paths, methods and matchers, not what a route leads to.
 * Immutable after router_new, shared by all threads.
 *
 * Most specific first: by host (exact, longer suffix, shorter suffix, none), then by path segment
 * for segment (literal, then {name}, then the rest of a prefix; an exact path before a prefix of
 * the same segments), then by the number of matchers, then with methods before without, then, among
 * routes with media types, by how much the client wants them (q of Accept), then in file order. A
 * route whose methods or matchers do not fit gives way to the next one.
 *
 * A route with `accept` is for requests that name one of these types. One that names none (no
 * Accept, or stars in it) gets a route without `accept`, and where there is none the first one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/conf.h"
#include "lib/err.h"
#include "lib/http.h"
#include "lib/str.h"

#define ROUTER_MAX_VARS     8
#define ROUTER_MAX_SEGMENTS 64

/* A pattern is a value, "*" (present), or a value ending in "*" (begins with). */
struct router_route {
	const struct str *hosts; /* "api.example.com", "*.example.com"; none: any host */
	size_t host_count;
	struct str path;           /* "/x" exact, "/x/" + "*" prefix, "/x/{id}" template */
	const struct str *methods; /* none: any; GET brings HEAD along */
	size_t method_count;
	const struct conf_pair *headers, *cookies, *queries; /* name and pattern, all must match */
	size_t header_count, cookie_count, query_count;
	const struct str *accepts, *content_types; /* media types, one must fit; none: any */
	size_t accept_count, content_type_count;
};

/* For configuration checks: NULL when good, else a sentence ("must begin with \"/\""). */
const char *router_check_path(struct str path);
const char *router_check_host(struct str host);

struct router;

/* The routes' strings must outlive the router. Returns 0, -ENOMEM, or -EINVAL with the sentence. */
int router_new(struct router **out, const struct router_route *routes, size_t count,
	       struct err *err);
void router_free(struct router **r);

/* A browser's question whether a request may be sent. Of its headers only the names are known. */
enum router_preflight {
	ROUTER_NO_PREFLIGHT,
	ROUTER_PREFLIGHT,     /* a header that will be there has whatever value a route wants */
	ROUTER_PREFLIGHT_LAX, /* headers and cookies may be whatever routes want */
};

struct router_request {
	struct str host; /* as sent, a port is ignored; "" for none */
	struct str path; /* normalised */
	enum http_method method;
	struct str method_name; /* looked at when method is METHOD_OTHER */
	struct str query;       /* without "?" */
	const struct http_field *fields;
	size_t field_count;
	enum router_preflight preflight; /* then method and query are those of the later request */
	struct str asked_headers;        /* ... and these the names of its headers, "a, b" */
};

enum router_result {
	ROUTER_FOUND,
	ROUTER_NO_ROUTE,        /* 404 */
	ROUTER_NO_METHOD,       /* 405: others would match, router_write_allow says which methods */
	ROUTER_NO_CONTENT_TYPE, /* 415: all but the body's media type would match */
	ROUTER_NOT_ACCEPTABLE,  /* 406: all but Accept would match */
};

struct router_match {
	size_t route;   /* index into the routes */
	uint64_t allow; /* with ROUTER_NO_METHOD */
	size_t rest_at; /* prefix routes: offset in path of what follows the prefix ("/y" of "/x/y"
			   under "/x/" + "*"), else the path's length */
	struct str vars[ROUTER_MAX_VARS]; /* values of {name}, as in the path (still escaped) */
	size_t var_count;
};

enum router_result router_match(const struct router *r, const struct router_request *request,
				struct router_match *out);
/* Name of the n-th variable of a route. */
struct str router_var_name(const struct router *r, size_t route, size_t n);
/* "GET, HEAD, PUT". */
void router_write_allow(const struct router *r, uint64_t allow, struct buf *out);
