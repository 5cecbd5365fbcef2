/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conf/cors.h"

#include "gateway/http/cors.h"
#include "lib/http.h"

static const char *valid_token(struct str name)
{
	return http_is_token(name) ? NULL : "must be a name";
}

static const char *valid_method(struct str name)
{
	if (str_eq(name, STR("*")))
		return "must be a method; without \"methods\" it is those of the route";
	return valid_token(name);
}

static bool names_star(const struct str *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].p && str_eq(list[i], STR("*")))
			return true;
	}
	return false;
}

/* A star that stands beside others, or where a browser does not take it for one. */
static void check_cors(struct conf *c, void *object)
{
	const struct gw_cors *cors = object;
	bool any = names_star(cors->origins, cors->origins_count);

	if (any && cors->origins_count > 1)
		conf_error_at(c, "origins", "\"*\" must stand alone");
	if (any && cors->credentials)
		conf_error_at(c, "credentials",
			      "cannot be with \"origins\": [\"*\"]: any page could act for "
			      "whoever opens it; name the origins");
	if (names_star(cors->headers, cors->headers_count) && cors->headers_count > 1)
		conf_error_at(c, "headers", "\"*\" must stand alone");
	if (names_star(cors->exposed_headers, cors->exposed_headers_count) && cors->credentials)
		conf_error_at(c, "exposed_headers",
			      "\"*\" means nothing to browsers with \"credentials\": name the "
			      "headers");
}

static const struct conf_row cors_rows[] = {
	{ CONF_STRINGS("origins", struct gw_cors, origins), .max = 256,
	  .flags = CONF_REQUIRED | CONF_EMPTY_OK, .valid = cors_check_origin,
	  .help = "Whose pages may: \"https://app.example.com\", \"https://*.example.com\", or "
		  "\"*\" for everybody; an empty list for nobody." },
	{ CONF_STRINGS("methods", struct gw_cors, methods), .max = 64, .valid = valid_method,
	  .help = "With which methods; those of the route when not given." },
	{ CONF_STRINGS("headers", struct gw_cors, headers), .max = 256, .valid = valid_token,
	  .def = "[\"*\"]",
	  .help = "Request headers that pages may set; \"*\": whichever they ask for." },
	{ CONF_STRINGS("exposed_headers", struct gw_cors, exposed_headers), .max = 256,
	  .valid = valid_token, .help = "Response headers that pages may read." },
	{ CONF_BOOL("credentials", struct gw_cors, credentials), .def = "false",
	  .help = "Whether cookies and the like may come along." },
	{ CONF_INT("max_age_s", struct gw_cors, max_age_s), .max = 86400, .def = "600",
	  .help = "How long browsers may remember the answer to a preflight." },
	{ 0 },
};
const struct conf_object gw_cors_object = CONF_OBJECT_OF(struct gw_cors, cors_rows,
							 .check = check_cors);
