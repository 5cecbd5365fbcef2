/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one normalisation of request paths: what comes out is matched, limited, authorised and
 * forwarded. Unreserved characters are decoded, other escapes written in upper case, slashes
 * merged, dot segments (RFC 3986 5.2.4, also as %2e) removed. Nothing is decoded twice. The query
 * is no part of it and stays as it was sent.
 */
#pragma once

#include "lib/arena.h"
#include "lib/str.h"

/* What is refused unless allowed; when allowed it is kept in its encoded form. */
enum path_allow {
	PATH_ALLOW_NUL = 1 << 0,           /* %00 */
	PATH_ALLOW_ENCODED_SLASH = 1 << 1, /* %2f */
	PATH_ALLOW_BACKSLASH = 1 << 2,     /* \ and %5c */
	PATH_ALLOW_PARAMETERS = 1 << 3,    /* ; */
};

/*
 * Returns 0, -EINVAL with a constant sentence in *problem (answer 400), or -ENOMEM. A path that is
 * clean already is returned as it is, otherwise *out is in the arena. "*" (OPTIONS *) is not a
 * path.
 */
int path_normalise(struct str *out, struct str path, unsigned allow, struct arena *a,
		   const char **problem);
