/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values that are put together for each request: "acme-${claim.tenant}". Compiled when the
 * configuration is loaded. "$$" is a dollar sign; one that stands before neither "$" nor "{" is
 * itself.
 *
 *	path.NAME                              a {NAME} segment of the route's path
 *	query.NAME header.NAME cookie.NAME     the first of that name; headers as the service gets
 *them claim.NAME                             of the verified token: a string, number or boolean
 *	client.ip request.id request.method request.scheme request.host request.path request.query
 *	request.rest                           what followed the prefix of a "/x/" + "*" route
 *	route.name version.name gateway.instance
 *
 * What comes out can never end a header or a line, leave its place in a URL or, in a path, its
 * segment: see enum template_use.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/arena.h"
#include "lib/str.h"

struct request;

enum template_use {
	/* Values decoded. One with a control byte makes the whole unusable. */
	TEMPLATE_HEADER,
	/*
	 * A path to forward; "{NAME}" is short for "${path.NAME}". Path variables as they came,
	 * others escaped. Unusable when a segment becomes empty, "." or "..".
	 */
	TEMPLATE_PATH,
	/*
	 * A path or an absolute URL. In the host only request.host, claim.NAME and what the
	 * configuration names. Values are escaped, but for what was in the path already (path.NAME,
	 * request.path, request.rest) in the path, and request.query in the query. Never leads to
	 * another host than it says.
	 */
	TEMPLATE_LOCATION,
};

/* For configuration checks: NULL when good, else a sentence. */
const char *template_check(struct str text, enum template_use use);
/* The first variable of `kind` ("path", "claim") whose name is none of the {NAME} segments of
 * `path`; false when there is none. The text must be good. */
bool template_finds(struct str text, enum template_use use, struct str kind, struct str path,
		    struct str *name);

struct template;

/* From a text that template_check accepts and that outlives it, for a route of that path ("" for
 * none). NULL: out of memory. */
struct template *template_new(struct arena *a, struct str text, enum template_use use,
			      struct str path);
/* The text of a template without variables; p NULL when it has some. */
struct str template_constant(const struct template *t);
/*
 * 0, -ENOENT (a variable has no value for this request; in the query of a location it is empty
 * then), -EINVAL (what came out is not usable), -ENOMEM. The result may be in the request's arena.
 */
int template_expand(struct str *out, const struct template *t, struct request *r);
