/* SPDX-License-Identifier: Apache-2.0 */
/* Fills templates in, each value so that it stays where it was put. */
#include <errno.h>

#include "gateway/http/path.h"
#include "gateway/request.h"
#include "gateway/routing/params.h"
#include "gateway/routing/template_impl.h"
#include "gateway/snapshot.h"
#include "gateway/worker.h"
#include "lib/cleanup.h"

/* --- values -------------------------------------------------------------------------------- */

static bool find_header(const struct request *r, struct str name, struct str *out)
{
	const struct http_field *field = http_find_name(r->headers.fields, r->headers.count, name);

	/* HTTP/2 has no such field. */
	if (str_ieq(name, STR("Host"))) {
		*out = r->authority;
		return r->authority.len > 0;
	}
	if (!field)
		return false;
	*out = field->value;
	return true;
}

static bool find_claim(const struct request *r, struct str name, struct str *out)
{
	const struct claim *claim = r->identity ? identity_claim(r->identity, name) : NULL;

	if (!claim || (claim->kind != CLAIM_STRING && claim->kind != CLAIM_NUMBER &&
		       claim->kind != CLAIM_BOOL))
		return false;
	*out = claim->text;
	return true;
}

/* The value as it stands in the request. */
static bool find_value(const struct request *r, const struct part *part, struct str *out)
{
	const struct gw_version *version = r->route ? r->route->conf->version : NULL;

	switch (part->variable) {
	case VAR_PATH:
		*out = part->index < r->match.var_count ? r->match.vars[part->index] : STR("");
		return part->index < r->match.var_count;
	case VAR_QUERY:
		return params_find_query(r->query, part->text, out);
	case VAR_HEADER:
		return find_header(r, part->text, out);
	case VAR_COOKIE:
		return params_find_cookie(r->headers.fields, r->headers.count, part->text, out);
	case VAR_CLAIM:
		return find_claim(r, part->text, out);
	case VAR_CLIENT_IP:
		*out = r->client_ip;
		break;
	case VAR_REQUEST_ID:
		*out = r->request_id;
		break;
	case VAR_REQUEST_METHOD:
		*out = r->method;
		break;
	case VAR_REQUEST_SCHEME:
		*out = r->scheme;
		break;
	case VAR_REQUEST_HOST:
		*out = request_host(r);
		break;
	case VAR_REQUEST_PATH:
		*out = r->path;
		break;
	case VAR_REQUEST_QUERY:
		*out = r->query;
		return r->query.p != NULL;
	case VAR_REQUEST_REST:
		*out = str_sub(r->path, MIN(r->match.rest_at, r->path.len), r->path.len);
		return true;
	case VAR_ROUTE_NAME:
		*out = r->route ? r->route->conf->name : STR("");
		break;
	case VAR_VERSION_NAME:
		*out = version ? version->name : STR("");
		break;
	case VAR_GATEWAY_INSTANCE:
		*out = r->conf->snapshot->conf.instance;
		break;
	case VAR_NONE:
	case VARIABLES:
	default:
		*out = part->text;
		return true;
	}
	return out->len > 0;
}

/* --- fitting them in ----------------------------------------------------------------------- */

/* A whole path would no longer be one. */
static struct str decoded(const struct part *part, struct str value, struct arena *a)
{
	if (part->variable == VAR_PATH)
		return params_decode(a, value, false);
	return part->variable == VAR_QUERY ? params_decode(a, value, true) : value;
}

static struct str encoded(const struct part *part, struct str value, struct arena *a)
{
	value = decoded(part, value, a);
	return value.p ? params_encode(a, value) : value;
}

/* A query goes on as it is, but for bytes that have no place in any URL. */
static struct str query_text(struct str query, struct arena *a)
{
	static const char digits[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, 3 * query.len + 1);
	size_t len = 0;

	if (!out)
		return (struct str) { 0 };
	for (size_t i = 0; i < query.len; i++) {
		unsigned char c = (unsigned char)query.p[i];

		if (c > ' ' && c < 0x7f && !strchr("\"<>\\^`{|}#", c)) {
			out[len++] = (char)c;
			continue;
		}
		out[len++] = '%';
		out[len++] = digits[c >> 4];
		out[len++] = digits[c & 15];
	}
	return str_of(out, len);
}

static bool is_host_text(struct str value)
{
	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];

		if (!isalnum((unsigned char)c) && c != '-' && c != '.')
			return false;
	}
	return value.len > 0;
}

/* Pieces of the path that begin with a slash. Two in a row would be an empty segment, or the
 * beginning of a host. */
static bool fit_slash(const struct part *part, struct str *value, char before)
{
	if (part->variable != VAR_REQUEST_PATH && part->variable != VAR_REQUEST_REST)
		return false;
	if (before == '/' && value->len && value->p[0] == '/')
		*value = str_sub(*value, 1, value->len);
	return true;
}

/* 0 or -errno; *value is replaced by what may stand there. `before`: the byte in front of it. */
static int fit_location(const struct part *part, struct str *value, char before, struct arena *a)
{
	switch (part->zone) {
	case ZONE_AUTHORITY:
		/* The client's Host was checked already and may be an address in brackets. */
		return part->variable == VAR_REQUEST_HOST || is_host_text(*value) ? 0 : -EINVAL;
	case ZONE_QUERY:
		*value = part->variable == VAR_REQUEST_QUERY ? query_text(*value, a)
							     : encoded(part, *value, a);
		return value->p ? 0 : -ENOMEM;
	case ZONE_START:
	case ZONE_PATH:
	default:
		if (part->variable == VAR_PATH || part->variable == VAR_REQUEST_SCHEME ||
		    fit_slash(part, value, before))
			return 0;
		*value = encoded(part, *value, a);
		return value->p ? 0 : -ENOMEM;
	}
}

static int fit_value(const struct template *t, const struct part *part, struct str *value,
		     char before, struct arena *a)
{
	switch (t->use) {
	case TEMPLATE_HEADER:
		*value = decoded(part, *value, a);
		break;
	case TEMPLATE_PATH:
		if (part->variable != VAR_PATH && !fit_slash(part, value, before))
			*value = encoded(part, *value, a);
		break;
	case TEMPLATE_LOCATION:
	default:
		return fit_location(part, value, before, a);
	}
	return value->p ? 0 : -ENOMEM;
}

static int finish(struct str *out, const struct template *t, struct str text, struct request *r)
{
	/* Its own semicolons are the configuration's. */
	unsigned allow = r->conf->snapshot->conf.path_allow | PATH_ALLOW_PARAMETERS;
	const char *problem = NULL;

	switch (t->use) {
	case TEMPLATE_HEADER:
		*out = str_trim(text);
		return http_is_field_value(text) ? 0 : -EINVAL;
	case TEMPLATE_PATH:
		if (!template_has_all_segments(text))
			return -EINVAL;
		/*
		 * Escapes what the configuration wrote plainly. An encoded slash is kept or refused
		 * as it is in the path that came: what takes it for a slash is the service.
		 */
		return path_normalise(out, text, allow, &r->arena, &problem);
	case TEMPLATE_LOCATION:
	default:
		if (t->parts[t->count - 1].variable == VAR_REQUEST_QUERY && text.len &&
		    strchr("?&", text.p[text.len - 1]))
			text.len--; /* there was no query */
		*out = text;
		return str_starts(text, STR("//")) || str_starts(text, STR("/\\")) ? -EINVAL : 0;
	}
}

int template_expand(struct str *out, const struct template *t, struct request *r)
{
	struct str values[TEMPLATE_MAX_PARTS];
	char before = '\0';
	size_t size = 1;
	char *text, *at;

	for (size_t i = 0; i < t->count; i++) {
		const struct part *part = &t->parts[i];
		int rc = 0;

		if (!find_value(r, part, &values[i])) {
			if (t->use != TEMPLATE_LOCATION || part->zone != ZONE_QUERY)
				return -ENOENT;
			values[i] = STR("");
		} else if (part->variable != VAR_NONE) {
			rc = fit_value(t, part, &values[i], before, &r->arena);
		}
		if (rc < 0)
			return rc;
		if (values[i].len)
			before = values[i].p[values[i].len - 1];
		size += values[i].len;
	}
	text = at = arena_alloc(&r->arena, size);
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < t->count; i++) {
		if (values[i].len)
			at = mempcpy(at, values[i].p, values[i].len);
	}
	return finish(out, t, str_of(text, (size_t)(at - text)), r);
}
