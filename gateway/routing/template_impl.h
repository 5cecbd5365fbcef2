/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of templates share: template.c reads them, template_expand.c fills them in. */
#pragma once

#include "gateway/routing/template.h"

#define TEMPLATE_MAX_PARTS 32

enum variable {
	VAR_NONE, /* a piece of text */
	VAR_PATH,
	VAR_QUERY,
	VAR_HEADER,
	VAR_COOKIE,
	VAR_CLAIM,
	VAR_CLIENT_IP,
	VAR_REQUEST_ID,
	VAR_REQUEST_METHOD,
	VAR_REQUEST_SCHEME,
	VAR_REQUEST_HOST,
	VAR_REQUEST_PATH,
	VAR_REQUEST_QUERY,
	VAR_REQUEST_REST,
	VAR_ROUTE_NAME,
	VAR_VERSION_NAME,
	VAR_GATEWAY_INSTANCE,
	VARIABLES,
};

/* Where in a location a part stands. */
enum zone { ZONE_START, ZONE_AUTHORITY, ZONE_PATH, ZONE_QUERY };

struct part {
	enum variable variable;
	struct str text; /* itself, or what follows the dot of the variable's name */
	enum zone zone;  /* of a location */
	size_t index;    /* of a path variable; ROUTER_MAX_VARS: the route has none of that name */
};

struct template
{
	enum template_use use;
	size_t count;
	struct part parts[];
};

/* No segment is empty, "." or "..": the path has as many of them as its template. */
bool template_has_all_segments(struct str path);
