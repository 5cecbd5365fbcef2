/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/cors.h"

#include "gateway/request.h"
#include "gateway/snapshot.h"
#include "gateway/worker.h"
#include "lib/buf.h"
#include "lib/cleanup.h"

#define ASKED_MAX 4096 /* bytes of Access-Control-Request-Headers that are repeated */

#define ALLOW_ORIGIN      STR("Access-Control-Allow-Origin")
#define ALLOW_CREDENTIALS STR("Access-Control-Allow-Credentials")
#define ALLOW_METHODS     STR("Access-Control-Allow-Methods")
#define ALLOW_HEADERS     STR("Access-Control-Allow-Headers")
#define EXPOSE_HEADERS    STR("Access-Control-Expose-Headers")
#define MAX_AGE           STR("Access-Control-Max-Age")
#define REQUEST_HEADERS   STR("Access-Control-Request-Headers")

struct cors {
	const struct gw_cors *conf;
	bool any_origin;    /* "*", said to everybody */
	bool any_headers;   /* those that are asked for */
	struct str methods; /* as the fields say them */
	struct str headers; /* len 0: none */
	struct str exposed; /* len 0: none */
	struct str max_age_s;
};

/* --- origins ------------------------------------------------------------------------------- */

/* "https://host:8443" is scheme, "host" and ":8443". */
static bool origin_split(struct str origin, struct str *scheme, struct str *host, struct str *port)
{
	ptrdiff_t colon = str_chr(origin, ':');
	struct str rest;

	if (colon <= 0 || !str_starts(str_sub(origin, (size_t)colon, origin.len), STR("://")))
		return false;
	*scheme = str_sub(origin, 0, (size_t)colon);
	rest = str_sub(origin, (size_t)colon + 3, origin.len);
	colon = rest.len && rest.p[0] == '[' ? str_chr(rest, ']') + 1 : str_chr(rest, ':');
	if (colon < 0 || (size_t)colon > rest.len)
		colon = (ptrdiff_t)rest.len;
	*host = str_sub(rest, 0, (size_t)colon);
	*port = str_sub(rest, (size_t)colon, rest.len);
	return host->len > 0;
}

static bool is_label_char(char c)
{
	return (c >= 'a' && c <= 'z') || isdigit((unsigned char)c) || c == '-' || c == '_' ||
	       c == '.';
}

static bool is_scheme(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!(s.p[i] >= 'a' && s.p[i] <= 'z') &&
		    (i == 0 || (!isdigit((unsigned char)s.p[i]) && !strchr("+-.", s.p[i]))))
			return false;
	}
	return s.len > 0;
}

static const char *check_port(struct str scheme, struct str port)
{
	uint64_t number;

	if (port.len == 0)
		return NULL;
	if (port.p[0] != ':' || !str_u64(str_sub(port, 1, port.len), &number) || number == 0 ||
	    number > 65535)
		return "must have a number as its port";
	if ((str_eq(scheme, STR("https")) && number == 443) ||
	    (str_eq(scheme, STR("http")) && number == 80))
		return "must not name the scheme's own port: browsers leave it out";
	return NULL;
}

const char *cors_check_origin(struct str origin)
{
	struct str scheme, host, port;

	if (str_eq(origin, STR("*")))
		return NULL;
	if (str_eq(origin, STR("null")))
		return "must not be \"null\", as which any page can present itself";
	if (!origin_split(origin, &scheme, &host, &port) || !is_scheme(scheme))
		return "must be \"*\" or like \"https://app.example.com\"";
	if (str_starts(host, STR("*.")))
		host = str_sub(host, 2, host.len);
	if (host.len == 0)
		return "must be \"*\" or like \"https://app.example.com\"";
	for (size_t i = 0; i < host.len && host.p[0] != '['; i++) {
		if (host.p[i] == '*')
			return "may have a star only in front: \"https://*.example.com\"";
		if (!is_label_char(host.p[i]))
			return "must be scheme, host and perhaps port, in lower case, without "
			       "a path";
	}
	if (host.p[0] == '[' && !http_is_host(host))
		return "must have an IPv6 address between the brackets";
	return check_port(scheme, port);
}

/* One label or more in front of the suffix: the star never takes a "/" or ":" along. */
static bool host_has_suffix(struct str host, struct str suffix)
{
	if (host.len <= suffix.len || host.p[0] == '.' || !str_ends(host, suffix))
		return false;
	for (size_t i = 0; i < host.len; i++) {
		if (!is_label_char(host.p[i]))
			return false;
	}
	return true;
}

static bool origin_fits(struct str pattern, struct str origin)
{
	struct str scheme, host, port, want_scheme, want_host, want_port;

	if (!origin_split(pattern, &want_scheme, &want_host, &want_port))
		return false;
	if (!str_starts(want_host, STR("*.")))
		return str_eq(pattern, origin);
	if (!origin_split(origin, &scheme, &host, &port))
		return false;
	return str_eq(scheme, want_scheme) && str_eq(port, want_port) &&
	       host_has_suffix(host, str_sub(want_host, 1, want_host.len));
}

bool cors_allows(const struct cors *cors, struct str origin)
{
	if (cors->any_origin)
		return true;
	for (size_t i = 0; i < cors->conf->origins_count; i++) {
		if (origin_fits(cors->conf->origins[i], origin))
			return true;
	}
	return false;
}

/* --- compiling ----------------------------------------------------------------------------- */

static bool has_star(const struct str *list, size_t count)
{
	return count == 1 && str_eq(list[0], STR("*"));
}

static void join(struct buf *out, const struct str *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		buf_addz(out, i ? ", " : "");
		buf_add(out, list[i]);
	}
}

static bool join_into(struct str *result, struct arena *a, const struct str *list, size_t count)
{
	struct buf text;

	buf_init(&text, 1U << 16);
	join(&text, list, count);
	*result = arena_str(a, buf_str(&text));
	buf_fini(&text);
	return result->p != NULL;
}

/* Of the route: GET brings HEAD along. */
static bool join_route_methods(struct str *result, struct arena *a, const struct str *methods,
			       size_t count)
{
	static const struct str any[] = { STR("GET"), STR("HEAD"),  STR("POST"),
					  STR("PUT"), STR("PATCH"), STR("DELETE") };
	struct str *all = arena_array(a, struct str, count + 1);
	bool has_get = false, has_head = false;

	if (!all)
		return false;
	if (count == 0)
		return join_into(result, a, any, ARRAY_SIZE(any));
	for (size_t i = 0; i < count; i++) {
		all[i] = methods[i];
		has_get |= str_eq(methods[i], STR("GET"));
		has_head |= str_eq(methods[i], STR("HEAD"));
	}
	if (has_get && !has_head)
		all[count++] = STR("HEAD");
	return join_into(result, a, all, count);
}

struct cors *cors_new(struct arena *a, const struct gw_cors *conf, const struct str *methods,
		      size_t method_count)
{
	struct cors *cors = arena_new(a, struct cors);
	char *age = cors ? arena_printf(a, "%u", conf->max_age_s) : NULL;
	bool ok;

	if (!age)
		return NULL;
	cors->conf = conf;
	cors->any_origin = has_star(conf->origins, conf->origins_count);
	cors->any_headers = has_star(conf->headers, conf->headers_count);
	cors->max_age_s = str_from(age);
	ok = conf->methods_count ? join_into(&cors->methods, a, conf->methods, conf->methods_count)
				 : join_route_methods(&cors->methods, a, methods, method_count);
	ok = ok && join_into(&cors->headers, a, conf->headers, conf->headers_count);
	ok = ok && join_into(&cors->exposed, a, conf->exposed_headers, conf->exposed_headers_count);
	return ok ? cors : NULL;
}

/* --- responses ----------------------------------------------------------------------------- */

const struct cors *cors_of(const struct request *r)
{
	return r->route ? r->route->cors : r->conf->snapshot->default_cors;
}

void cors_note_origin(struct request *r)
{
	const struct http_field *found = NULL;

	if (!r->conf->snapshot->has_cors)
		return;
	for (size_t i = 0; i < r->headers.count; i++) {
		if (r->headers.fields[i].id != HTTP_ORIGIN || !r->headers.fields[i].name.len)
			continue;
		if (found)
			return;
		found = &r->headers.fields[i];
	}
	if (found)
		r->origin = found->value;
}

static void remove_foreign(struct headers *h)
{
	size_t to = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len &&
		    !str_istarts(h->fields[i].name, STR("Access-Control-")))
			h->fields[to++] = h->fields[i];
	}
	h->count = to;
}

static void add_vary(struct headers *h, struct str name)
{
	for (size_t i = 0; i < h->count; i++) {
		if (str_ieq(h->fields[i].name, STR("Vary")) &&
		    (http_list_has(h->fields[i].value, name) ||
		     http_list_has(h->fields[i].value, STR("*"))))
			return;
	}
	headers_add(h, STR("Vary"), name);
}

/* A list of names, as browsers write it; anything else is not repeated. */
static bool is_name_list(struct str list)
{
	struct str token;

	if (list.len == 0 || list.len > ASKED_MAX)
		return false;
	while (str_split(&list, ',', &token)) {
		if (!http_is_token(str_trim(token)))
			return false;
	}
	return true;
}

static void add_preflight(const struct cors *cors, const struct request *r, struct headers *h)
{
	const struct http_field *asked = http_find_name(r->headers.fields, r->headers.count,
							REQUEST_HEADERS);

	headers_add(h, ALLOW_METHODS, cors->methods);
	if (cors->any_headers && asked && is_name_list(asked->value))
		headers_add(h, ALLOW_HEADERS, asked->value);
	else if (!cors->any_headers && cors->headers.len)
		headers_add(h, ALLOW_HEADERS, cors->headers);
	headers_add(h, MAX_AGE, cors->max_age_s);
}

void cors_finish(struct request *r)
{
	const struct cors *cors = cors_of(r);
	struct headers *h = &r->response.headers;

	if (!cors || r->is_tunnel)
		return;
	remove_foreign(h);
	if (!cors->any_origin || r->is_preflight)
		add_vary(h, STR("Origin"));
	if (r->is_preflight) {
		add_vary(h, STR("Access-Control-Request-Method"));
		add_vary(h, REQUEST_HEADERS);
	}
	if (!r->origin.len || !cors_allows(cors, r->origin))
		return;
	/* What has no room is left out, and then the browser refuses. */
	headers_add(h, ALLOW_ORIGIN, cors->any_origin ? STR("*") : r->origin);
	if (cors->conf->credentials)
		headers_add(h, ALLOW_CREDENTIALS, STR("true"));
	if (r->is_preflight)
		add_preflight(cors, r, h);
	else if (cors->exposed.len)
		headers_add(h, EXPOSE_HEADERS, cors->exposed);
}
