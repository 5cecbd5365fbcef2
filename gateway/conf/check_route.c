/* SPDX-License-Identifier: Apache-2.0 */
/* Rules between the members of one route. */
#include "gateway/conf/check.h"
#include "gateway/conf/conf.h"
#include "gateway/routing/template.h"
#include "lib/cleanup.h"

/* --- answers of the gateway's own ---------------------------------------------------------- */

void gw_check_respond(struct conf *c, void *object)
{
	struct gw_respond *respond = object;

	/* RFC 9110 15.3.5, 15.4.5 */
	if ((respond->status == 204 || respond->status == 304) && respond->body.len)
		conf_error_at(c, "body", "must be empty with status %u", respond->status);
}

/* "{NAME}" is "${path.NAME}" in a path. */
static void write_path(struct buf *out, struct str path)
{
	for (size_t i = 0; i < path.len; i++) {
		if (path.p[i] == '{' && (i == 0 || path.p[i - 1] != '$'))
			buf_addz(out, "${path.");
		else
			buf_putc(out, path.p[i]);
	}
}

/* The location that the parts mean. */
static void write_location(struct buf *out, const struct gw_redirect *redirect)
{
	if (redirect->scheme.p || redirect->host.p || redirect->port) {
		buf_add(out, redirect->scheme.p ? redirect->scheme : STR("${request.scheme}"));
		buf_addz(out, "://");
		buf_add(out, redirect->host.p ? redirect->host : STR("${request.host}"));
		if (redirect->port)
			buf_printf(out, ":%u", redirect->port);
	}
	if (redirect->path.p) {
		write_path(out, redirect->path);
	} else if (redirect->prefix.p) {
		buf_add(out, redirect->prefix);
		buf_addz(out, "${request.rest}");
	} else {
		buf_addz(out, "${request.path}");
	}
}

static void add_query(struct buf *out, struct str location)
{
	buf_addz(out, str_chr(location, '?') < 0 ? "?" : "&");
	buf_addz(out, "${request.query}");
}

static void compose_location(struct conf *c, struct gw_redirect *redirect)
{
	const char *complaint;
	struct buf text;

	buf_init(&text, 1U << 16);
	if (redirect->location.p)
		buf_add(&text, redirect->location);
	else
		write_location(&text, redirect);
	if (redirect->keep_query && str_chr(buf_str(&text), '#') >= 0)
		conf_error_at(c, "keep_query", "cannot be with a \"#\" in the address");
	else if (redirect->keep_query)
		add_query(&text, buf_str(&text));
	redirect->location = arena_str(conf_arena(c), buf_str(&text));
	if (buf_failed(&text) || !redirect->location.p)
		conf_error(c, "is too long");
	buf_fini(&text);
	complaint = redirect->location.p ? template_check(redirect->location, TEMPLATE_LOCATION)
					 : NULL;
	if (complaint)
		conf_error(c, "leads to \"%s\", which %s", redirect->location.p, complaint);
}

void gw_check_redirect(struct conf *c, void *object)
{
	static const char *const parts[] = { "scheme", "host", "port", "path", "prefix" };
	struct gw_redirect *redirect = object;
	unsigned given = 0;

	if (redirect->status > 303 && redirect->status < 307)
		conf_error_at(c, "status", "must be 301, 302, 303, 307 or 308, not %u",
			      redirect->status);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		given += conf_has(c, parts[i]);
	if (conf_has(c, "location") ? given : !given) {
		conf_error(c,
			   "must have a \"location\", or some of \"scheme\", \"host\", "
			   "\"port\", \"path\" and \"prefix\"%s",
			   given ? ", not both" : "");
		return;
	}
	if (conf_has(c, "path") && conf_has(c, "prefix"))
		conf_error_at(c, "prefix", "cannot be together with \"path\"");
	if (!conf_has(c, "keep_query"))
		redirect->keep_query = given;
	if (!conf_has(c, "location") || redirect->location.p)
		compose_location(c, redirect);
}

/* --- templates ----------------------------------------------------------------------------- */

/* What the template wants of the route it is in; to be called at the template's place. */
static void check_template(struct conf *c, const struct gw_route *route, struct str text,
			   enum template_use use)
{
	struct str name, path = route->match.path.p ? route->match.path : STR("");

	if (!text.p)
		return;
	if (template_finds(text, use, STR("path"), path, &name))
		conf_error(c, "has ${path.%.*s}, but the path of \"match\" has no {%.*s}",
			   STR_ARG(name), STR_ARG(name));
	if (!conf_has(c, "auth") && template_finds(text, use, STR("claim"), STR(""), &name))
		conf_error(c, "has ${claim.%.*s}, but the route no \"auth\"", STR_ARG(name));
}

static void check_values(struct conf *c, const struct gw_route *route, const char *object,
			 const char *member, const struct conf_pair *pairs, size_t count)
{
	conf_enter(c, object);
	for (size_t i = 0; i < count; i++) {
		conf_enter_name(c, member, pairs[i].name);
		check_template(c, route, pairs[i].value, TEMPLATE_HEADER);
		conf_leave(c);
	}
	conf_leave(c);
}

static void check_templates(struct conf *c, const struct gw_route *route)
{
	const struct gw_transform *request = &route->request, *response = &route->response;

	check_values(c, route, "request", "set", request->set, request->set_count);
	check_values(c, route, "request", "add", request->add, request->add_count);
	check_values(c, route, "response", "set", response->set, response->set_count);
	check_values(c, route, "response", "add", response->add, response->add_count);
	if (route->respond)
		check_values(c, route, "respond", "headers", route->respond->headers,
			     route->respond->headers_count);
	if (route->redirect) {
		conf_enter(c, "redirect");
		check_template(c, route, route->redirect->location, TEMPLATE_LOCATION);
		conf_leave(c);
	}
	conf_enter(c, "rewrite_path");
	check_template(c, route, route->rewrite_path, TEMPLATE_PATH);
	conf_leave(c);
}

/* --- the route ----------------------------------------------------------------------------- */

static void check_target(struct conf *c, const struct gw_route *route)
{
	static const char *const targets[] = { "service", "split", "respond", "redirect" };
	unsigned given = 0;
	uint64_t weights = 0;

	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		given += conf_has(c, targets[i]);
	if (given != 1)
		conf_error(c,
			   "must have one of \"service\", \"split\", \"respond\" and "
			   "\"redirect\"%s",
			   given ? ", not several" : "");
	for (size_t i = 0; i < route->split_count; i++)
		weights += route->split[i].weight;
	if (route->split_count && weights == 0)
		conf_error_at(c, "split", "must have a weight above 0");
	/* Counted, and kept for keys, by name. */
	for (size_t i = 0; i < route->split_count; i++) {
		for (size_t j = 0; j < i && route->split[i].service.p; j++) {
			if (str_eq(route->split[i].service, route->split[j].service))
				conf_error_at(c, "split", "names the service \"%s\" twice",
					      route->split[i].service.p);
		}
	}
	if (conf_has(c, "sticky") && !conf_has(c, "split"))
		conf_error_at(c, "sticky", "needs a \"split\"");
	for (size_t i = 0; i < route->sticky.count; i++) {
		if (route->sticky.keys[i].kind == REQUEST_KEY_USER && !conf_has(c, "auth"))
			conf_error_at(c, "sticky", "\"user\" needs \"auth\"");
	}
}

/* For members that say something about the service's side. */
static void needs_service(struct conf *c, const char *member)
{
	if (conf_has(c, member) && !conf_has(c, "service") && !conf_has(c, "split"))
		conf_error_at(c, member, "needs a \"service\" or \"split\"");
}

static void check_rewriting(struct conf *c, const struct gw_route *route)
{
	bool is_prefix = !route->match.path.p || str_ends(route->match.path, STR("/*"));

	needs_service(c, "rewrite_prefix");
	needs_service(c, "rewrite_path");
	if (conf_has(c, "rewrite_prefix") && conf_has(c, "rewrite_path"))
		conf_error_at(c, "rewrite_path", "cannot be together with \"rewrite_prefix\"");
	if (is_prefix)
		return;
	if (conf_has(c, "rewrite_prefix"))
		conf_error_at(c, "rewrite_prefix", "needs a path that is a prefix (\"/x/*\")");
	if (route->rewrite_path.p && str_ends(route->rewrite_path, STR("/*")))
		conf_error_at(c, "rewrite_path",
			      "may end in \"/*\" only where the path is a prefix (\"/x/*\")");
	if (route->redirect && route->redirect->prefix.p)
		conf_error_at(c, "redirect.prefix", "needs a path that is a prefix (\"/x/*\")");
}

void gw_check_route(struct conf *c, void *object)
{
	struct gw_route *route = object;

	check_target(c, route);
	if (conf_has(c, "require") && !conf_has(c, "auth"))
		conf_error_at(c, "require", "needs \"auth\"");
	if (route->auth_optional && !conf_has(c, "auth"))
		conf_error_at(c, "auth_optional", "needs \"auth\"");
	if (route->auth_optional && conf_has(c, "require"))
		conf_error_at(c, "auth_optional",
			      "does not go with \"require\", which those who prove nothing cannot "
			      "fulfil");
	if (route->websocket)
		needs_service(c, "websocket");
	if (route->grpc)
		needs_service(c, "grpc");
	if (route->grpc && route->websocket)
		conf_error_at(c, "grpc", "cannot be together with \"websocket\"");
	needs_service(c, "mirror");
	if (conf_has(c, "mirror") && route->grpc)
		conf_error_at(c, "mirror", "cannot be together with \"grpc\"");
	check_rewriting(c, route);
	check_templates(c, route);
}
