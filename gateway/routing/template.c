/* SPDX-License-Identifier: Apache-2.0 */
/* Reads templates and checks what they may hold. */
#include <ctype.h>

#include "gateway/routing/router.h"
#include "gateway/routing/template_impl.h"
#include "lib/cleanup.h"
#include "lib/http.h"

/* A name that ends in a dot is followed by another name. */
static const struct str variables[VARIABLES] = {
	[VAR_NONE] = STR(""),
	[VAR_PATH] = STR("path."),
	[VAR_QUERY] = STR("query."),
	[VAR_HEADER] = STR("header."),
	[VAR_COOKIE] = STR("cookie."),
	[VAR_CLAIM] = STR("claim."),
	[VAR_CLIENT_IP] = STR("client.ip"),
	[VAR_REQUEST_ID] = STR("request.id"),
	[VAR_REQUEST_METHOD] = STR("request.method"),
	[VAR_REQUEST_SCHEME] = STR("request.scheme"),
	[VAR_REQUEST_HOST] = STR("request.host"),
	[VAR_REQUEST_PATH] = STR("request.path"),
	[VAR_REQUEST_QUERY] = STR("request.query"),
	[VAR_REQUEST_REST] = STR("request.rest"),
	[VAR_ROUTE_NAME] = STR("route.name"),
	[VAR_VERSION_NAME] = STR("version.name"),
	[VAR_GATEWAY_INSTANCE] = STR("gateway.instance"),
};

/* --- reading ------------------------------------------------------------------------------- */

/* Of the text "name" between the braces. */
static const char *read_variable(struct str name, struct part *out)
{
	for (enum variable v = VAR_NONE + 1; v < VARIABLES; v++) {
		bool has_name = variables[v].p[variables[v].len - 1] == '.';

		if (has_name ? !str_starts(name, variables[v]) : !str_eq(name, variables[v]))
			continue;
		out->variable = v;
		out->text = str_sub(name, variables[v].len, name.len);
		if (has_name && out->text.len == 0)
			return "holds a ${…} without a name behind its dot";
		if (v == VAR_HEADER && !http_is_token(out->text))
			return "holds a ${header.…} that is no header name";
		return NULL;
	}
	return "holds an unknown ${…}; there are path.NAME, query.NAME, header.NAME, cookie.NAME, "
	       "claim.NAME, client.ip, request.id, request.method, request.scheme, request.host, "
	       "request.path, request.query, request.rest, route.name, version.name and "
	       "gateway.instance; \"$$\" "
	       "is a dollar sign";
}

/* Where the text that begins at `at` ends: at a "$" that means something, or at a brace. */
static size_t text_end(struct str s, size_t at, enum template_use use)
{
	while (at < s.len) {
		if (s.p[at] == '$' && at + 1 < s.len && (s.p[at + 1] == '{' || s.p[at + 1] == '$'))
			break;
		if (use == TEMPLATE_PATH && s.p[at] == '{')
			break;
		at++;
	}
	return at;
}

/* Cuts the next part off. */
static const char *read_part(struct str *rest, enum template_use use, struct part *out)
{
	size_t end = text_end(*rest, 0, use), begin;
	const char *complaint;
	struct str name;
	ptrdiff_t close;

	*out = (struct part) { .text = str_sub(*rest, 0, end) };
	if (end == 0 && str_starts(*rest, STR("$$"))) {
		out->text = str_sub(*rest, 0, 1);
		end = 2;
	} else if (end == 0) {
		begin = rest->p[0] == '$' ? 2 : 1;
		close = str_chr(*rest, '}');
		if (close < 0)
			return "holds a { that is not closed";
		name = str_sub(*rest, begin, (size_t)close);
		end = (size_t)close + 1;
		if (begin == 1) {
			*out = (struct part) { .variable = VAR_PATH, .text = name };
			if (name.len == 0)
				return "holds a {} without a name";
		} else {
			complaint = read_variable(name, out);
			if (complaint)
				return complaint;
		}
	}
	*rest = str_sub(*rest, end, rest->len);
	return NULL;
}

/* --- where a location leads ---------------------------------------------------------------- */

/* Length of "scheme:", 0 when there is none. */
static size_t scheme_len(struct str s)
{
	size_t i = 0;

	while (i < s.len && (isalnum((unsigned char)s.p[i]) || strchr("+-.", s.p[i])))
		i++;
	return i > 0 && i < s.len && s.p[i] == ':' && isalpha((unsigned char)s.p[0]) ? i + 1 : 0;
}

static enum zone zone_after(enum zone zone, struct str text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (zone == ZONE_AUTHORITY && strchr("/?#", text.p[i]))
			zone = ZONE_PATH;
		if (zone == ZONE_PATH && strchr("?#", text.p[i]))
			zone = ZONE_QUERY;
	}
	return zone;
}

#define BAD_BEGIN                                                                               \
	"must begin with \"/\", with \"https://\" or another scheme, with ${request.path}, or " \
	"with "                                                                                 \
	"${request.scheme}://"

/* How it begins decides whether it stays on this host. */
static const char *begin_zone(const struct part *part, enum zone *zone)
{
	struct str text = part->text;
	size_t scheme;

	if (part->variable == VAR_REQUEST_PATH || part->variable == VAR_REQUEST_SCHEME) {
		*zone = part->variable == VAR_REQUEST_PATH ? ZONE_PATH : ZONE_START;
		return NULL;
	}
	if (part->variable != VAR_NONE)
		return BAD_BEGIN;
	if (str_starts(text, STR("//")) || str_starts(text, STR("/\\")))
		return "must not begin with \"//\": say which scheme";
	scheme = scheme_len(text);
	if (text.p[0] != '/' && !scheme)
		return BAD_BEGIN;
	text = str_sub(text, scheme, text.len);
	*zone = ZONE_PATH;
	if (scheme && str_starts(text, STR("//"))) {
		*zone = ZONE_AUTHORITY;
		text = str_sub(text, 2, text.len);
	}
	*zone = zone_after(*zone, text);
	return NULL;
}

/* Whoever chooses these may not choose the host. */
static bool may_name_host(enum variable v)
{
	return v == VAR_REQUEST_HOST || v == VAR_CLAIM || v == VAR_ROUTE_NAME ||
	       v == VAR_VERSION_NAME || v == VAR_GATEWAY_INSTANCE;
}

/* Gives the part its place; *zone is that of what follows. */
static const char *place_part(struct part *part, bool is_first, enum zone *zone)
{
	part->zone = *zone;
	if (is_first)
		return begin_zone(part, zone);
	if (*zone == ZONE_START) { /* behind ${request.scheme} */
		if (part->variable != VAR_NONE || !str_starts(part->text, STR("://")))
			return BAD_BEGIN;
		*zone = zone_after(ZONE_AUTHORITY, str_sub(part->text, 3, part->text.len));
		return NULL;
	}
	if (*zone == ZONE_AUTHORITY && part->variable == VAR_REQUEST_PATH)
		part->zone = *zone = ZONE_PATH; /* its slash ends the host */
	if (*zone == ZONE_AUTHORITY && part->variable != VAR_NONE && !may_name_host(part->variable))
		return "may have only request.host, claim.NAME, route.name, version.name and "
		       "gateway.instance as ${…} in the host";
	if (part->variable == VAR_REQUEST_QUERY && *zone != ZONE_QUERY)
		return "may have ${request.query} only behind a \"?\"";
	if (part->variable == VAR_NONE)
		*zone = zone_after(*zone, part->text);
	return NULL;
}

/* --- the whole ----------------------------------------------------------------------------- */

static bool is_url_text(struct str text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c <= ' ' || c >= 0x7f || c == '\\')
			return false;
	}
	return true;
}

static bool is_path_text(struct str text)
{
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.p[i] <= ' ' || strchr("?#;*\\\x7f", text.p[i]))
			return false;
	}
	return true;
}

static const char *check_part(const struct part *part, enum template_use use)
{
	if (use == TEMPLATE_HEADER && !http_is_field_value(part->text))
		return "must be a header value without control characters";
	if (use == TEMPLATE_LOCATION && part->variable == VAR_NONE && !is_url_text(part->text))
		return "must be a URL or a path, other characters than ASCII's escaped";
	if (use == TEMPLATE_PATH && part->variable == VAR_NONE && !is_path_text(part->text))
		return "must be a path without query, white space, ; and backslash";
	if (use == TEMPLATE_PATH && part->variable >= VAR_CLIENT_IP &&
	    part->variable != VAR_VERSION_NAME && part->variable != VAR_REQUEST_REST)
		return "may have only path.NAME, query.NAME, header.NAME, cookie.NAME, claim.NAME, "
		       "request.rest and version.name as ${…}";
	return NULL;
}

/* All parts in order; stops at the first complaint. */
static const char *read_all(struct str text, enum template_use use, struct part *parts,
			    size_t *count)
{
	enum zone zone = ZONE_START;

	for (*count = 0; text.len; (*count)++) {
		struct part *part = &parts[*count];
		const char *complaint;

		if (*count == TEMPLATE_MAX_PARTS)
			return "has too many ${…}";
		complaint = read_part(&text, use, part);
		if (!complaint)
			complaint = check_part(part, use);
		if (!complaint && use == TEMPLATE_LOCATION)
			complaint = place_part(part, *count == 0, &zone);
		if (complaint)
			return complaint;
	}
	return use == TEMPLATE_LOCATION && zone == ZONE_START ? BAD_BEGIN : NULL;
}

bool template_has_all_segments(struct str path)
{
	struct str segment;

	if (path.len == 0 || path.p[0] != '/')
		return false;
	path = str_sub(path, 1, path.len);
	while (str_split(&path, '/', &segment)) {
		if ((segment.len == 0 && path.p) || str_eq(segment, STR(".")) ||
		    str_eq(segment, STR("..")))
			return false;
	}
	return true;
}

/* A path with a letter for each variable. */
static const char *check_segments(const struct part *parts, size_t count)
{
	char text[1024];
	size_t len = 0;

	for (size_t i = 0; i < count; i++) {
		bool is_rest = parts[i].variable == VAR_REQUEST_REST;
		struct str value = parts[i].variable == VAR_NONE ? parts[i].text
				   : is_rest                     ? STR("")
								 : STR("x");

		if (is_rest && i + 1 < count)
			return "may have ${request.rest} only at its end";
		if (value.len > sizeof(text) - len)
			return "is too long";
		if (value.len)
			memcpy(text + len, value.p, value.len);
		len += value.len;
	}
	return template_has_all_segments(str_of(text, len))
		       ? NULL
		       : "must begin with \"/\" and have no segment that is empty, . or ..";
}

const char *template_check(struct str text, enum template_use use)
{
	struct part parts[TEMPLATE_MAX_PARTS];
	const char *complaint;
	size_t count;

	complaint = read_all(text, use, parts, &count);
	if (!complaint && use == TEMPLATE_PATH)
		complaint = check_segments(parts, count);
	return complaint;
}

/* Which {NAME} segment of the path that is; ROUTER_MAX_VARS when none. */
static size_t path_index(struct str path, struct str name)
{
	struct str segment;
	size_t index = 0;

	while (str_split(&path, '/', &segment)) {
		if (segment.len < 2 || segment.p[0] != '{')
			continue;
		if (str_eq(str_sub(segment, 1, segment.len - 1), name))
			return index;
		index++;
	}
	return ROUTER_MAX_VARS;
}

bool template_finds(struct str text, enum template_use use, struct str kind, struct str path,
		    struct str *name)
{
	struct part parts[TEMPLATE_MAX_PARTS];
	size_t count;

	if (read_all(text, use, parts, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct str variable = variables[parts[i].variable];

		if (variable.len == 0 || variable.p[variable.len - 1] != '.' ||
		    !str_eq(str_sub(variable, 0, variable.len - 1), kind) ||
		    path_index(path, parts[i].text) != ROUTER_MAX_VARS)
			continue;
		*name = parts[i].text;
		return true;
	}
	return false;
}

struct template *template_new(struct arena *a, struct str text, enum template_use use,
			      struct str path)
{
	struct part parts[TEMPLATE_MAX_PARTS];
	struct template *t;
	size_t count;

	read_all(text, use, parts, &count);
	for (size_t i = 0; i < count; i++) {
		if (parts[i].variable == VAR_PATH)
			parts[i].index = path_index(path, parts[i].text);
	}
	t = arena_alloc(a, sizeof(*t) + count * sizeof(*parts));
	if (!t)
		return NULL;
	t->use = use;
	t->count = count;
	if (count)
		memcpy(t->parts, parts, count * sizeof(*parts));
	return t;
}

struct str template_constant(const struct template *t)
{
	if (t->count == 0)
		return STR("");
	return t->count == 1 && t->parts[0].variable == VAR_NONE ? t->parts[0].text
								 : (struct str) { 0 };
}
