/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conf/check.h"

#include <stdlib.h>
#include <unistd.h>

#include "gateway/conf/conf.h"
#include "gateway/routing/split.h"
#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"

/* --- single objects ------------------------------------------------------------------------ */

void gw_check_listener(struct conf *c, void *object)
{
	struct gw_listener *l = object;

	if (l->redirect_to_https && l->tls)
		conf_error_at(c, "redirect_to_https", "is for listeners without \"tls\"");
	if (conf_has(c, "https_port") && !l->redirect_to_https)
		conf_error_at(c, "https_port", "is of use with \"redirect_to_https\" only");
	if (l->bind.len && l->bind.sa.sa_family != AF_UNIX && net_port(&l->bind) == 0)
		conf_error_at(c, "bind", "must have a port");
}

void gw_check_tls_host(struct conf *c, void *object)
{
	struct gw_tls_host *host = object;

	host->has_min_version = conf_has(c, "min_version");
	host->has_client_auth = conf_has(c, "client_auth");
}

/* What a host does not say is as in the listener; whoever asks for certificates needs somebody to
 * trust. */
void gw_check_tls(struct conf *c, void *object)
{
	struct gw_tls *tls = object;

	if (tls->client_auth != GW_CLIENT_AUTH_OFF && !tls->client_ca.p)
		conf_error_at(c, "client_auth", "needs a \"client_ca\"");
	for (size_t i = 0; i < tls->hosts_count; i++) {
		struct gw_tls_host *host = &tls->hosts[i];

		if (!host->has_min_version)
			host->min_version = tls->min_version;
		if (!host->has_client_auth)
			host->client_auth = tls->client_auth;
		if (!host->client_ca.p)
			host->client_ca = tls->client_ca;
		if (host->client_auth == GW_CLIENT_AUTH_OFF || host->client_ca.p)
			continue;
		conf_enter_name(c, "hosts", host->name);
		conf_error_at(c, "client_auth", "needs a \"client_ca\"");
		conf_leave(c);
	}
}

void gw_check_service_tls(struct conf *c, void *object)
{
	const struct gw_service_tls *tls = object;

	if (tls->certificate.p && !tls->key.p)
		conf_error_at(c, "certificate", "needs a \"key\"");
	if (tls->key.p && !tls->certificate.p)
		conf_error_at(c, "key", "needs a \"certificate\"");
	if (tls->verify)
		return;
	if (conf_has(c, "ca"))
		conf_error_at(c, "ca", "is of no use with \"verify\" off");
	conf_warn_at(c, "verify",
		     "is off: anybody between gateway and service can read and change "
		     "everything");
}

void gw_check_endpoint(struct conf *c, void *object)
{
	struct gw_endpoint *e = object;

	if (e->address.len && e->address.sa.sa_family != AF_UNIX && net_port(&e->address) == 0)
		conf_error_at(c, "address", "must have a port");
}

/* Ribbon's rules in the order of conf.c, behind the policies' own names. */
static void resolve_balance(struct conf *c, struct gw_service *service)
{
	static const int ribbon[] = { GW_ROUND_ROBIN,
				      GW_LEAST_REQUEST,
				      GW_WEIGHTED_RESPONSE_TIME,
				      GW_WEIGHTED_RESPONSE_TIME,
				      GW_AVAILABILITY,
				      GW_AVAILABILITY, /* ZoneAvoidanceRule */
				      GW_RANDOM,
				      GW_ROUND_ROBIN };
	int rule = service->balance - GW_BALANCES;

	if (rule >= 0 && rule < (int)ARRAY_SIZE(ribbon)) {
		service->balance = ribbon[rule];
		service->prefer_zone |= rule == 5;
	}
	if (service->balance == GW_RING_HASH && !conf_has(c, "hash_on"))
		conf_error_at(c, "balance", "\"ring_hash\" needs a \"hash_on\"");
	if (service->balance != GW_RING_HASH && conf_has(c, "hash_on"))
		conf_error_at(c, "hash_on", "is for \"balance\": \"ring_hash\" only");
	if (service->balance == GW_RING_HASH && service->prefer_zone)
		conf_error_at(c, "prefer_zone",
			      "is of no use with \"ring_hash\": the key alone decides");
}

static void check_health(struct conf *c, struct gw_service *service)
{
	struct gw_health *h = &service->health;

	h->protocol = service->protocol;
	h->is_on = h->path.p || h->type != GW_HEALTH_HTTP;
	if (h->type == GW_HEALTH_GRPC && service->protocol == GW_HTTP1)
		conf_error_at(c, "health.type", "\"grpc\" needs \"protocol\": \"grpc\" or \"h2\"");
	if (h->type != GW_HEALTH_HTTP && h->path.p)
		conf_error_at(c, "health.path", "is for \"type\": \"http\" only");
	if (h->type != GW_HEALTH_GRPC && h->service.p)
		conf_error_at(c, "health.service", "is for \"type\": \"grpc\" only");
}

void gw_check_service(struct conf *c, void *object)
{
	struct gw_service *service = object;

	resolve_balance(c, service);
	if (service->max_pending && !service->max_concurrent)
		conf_error_at(c, "max_pending", "needs a \"max_concurrent\"");
	if (service->ejection.max_ms < service->ejection.base_ms)
		conf_error_at(c, "ejection.max_ms", "must not be less than \"base_ms\"");
	if (!conf_has(c, "discover") && !conf_has(c, "endpoints"))
		conf_error(c, "must have \"discover\" or \"endpoints\"");
	else if (conf_has(c, "discover") && conf_has(c, "endpoints"))
		conf_error(c, "must have \"discover\" or \"endpoints\", not both");
	check_health(c, service);
	if (service->descriptor_set.p && service->protocol != GW_GRPC)
		conf_error_at(c, "descriptor_set", "needs \"protocol\": \"grpc\"");
}

void gw_check_version(struct conf *c, void *object)
{
	struct gw_version *v = object;

	if (v->enforce_sunset && !conf_has(c, "sunset"))
		conf_error_at(c, "enforce_sunset", "needs a \"sunset\"");
	if (v->deprecated_ms && v->sunset_ms && v->sunset_ms < v->deprecated_ms)
		conf_error_at(c, "sunset", "must not be before \"deprecated\"");
}

/* --- names that refer to other parts ------------------------------------------------------- */

struct name_node {
	struct hmap_node node;
	struct str name;
	size_t index;
};

/* The named things of one kind. */
struct names {
	const char *kind; /* "service" */
	struct hmap map;
	struct name_node *nodes;
	size_t count;
};

static bool names_init(struct names *n, struct conf *c, const char *kind, size_t room)
{
	*n = (struct names) { .kind = kind };
	n->nodes = arena_array(conf_arena(c), struct name_node, room + 1);
	return n->nodes != NULL;
}

static struct name_node *names_find(const struct names *n, struct str name)
{
	for (struct hmap_node *node = hmap_first(&n->map, hash_str(name)); node;
	     node = hmap_next(node)) {
		struct name_node *found = container_of(node, struct name_node, node);

		if (str_eq(found->name, name))
			return found;
	}
	return NULL;
}

/* The one that has the name already, or NULL. */
static struct name_node *names_add(struct names *n, struct str name, size_t index)
{
	struct name_node *there = names_find(n, name), *fresh = &n->nodes[n->count];

	if (there)
		return there;
	*fresh = (struct name_node) { .name = name, .index = index };
	if (hmap_insert(&n->map, &fresh->node, hash_str(name)) == 0)
		n->count++;
	return NULL;
}

static const struct name_node *names_nearest(const struct names *n, struct str name)
{
	size_t best = CONF_NEAR(name.len) + 1;
	const struct name_node *nearest = NULL;

	for (size_t i = 0; i < n->count; i++) {
		size_t distance = conf_distance(name, n->nodes[i].name);

		if (distance < best) {
			best = distance;
			nearest = &n->nodes[i];
		}
	}
	return nearest;
}

/* The index of the thing that `name` means, at the current place of the file; -1 after an error. */
static ptrdiff_t names_resolve(const struct names *n, struct conf *c, struct str name)
{
	const struct name_node *found = names_find(n, name), *nearest;

	if (found)
		return (ptrdiff_t)found->index;
	nearest = names_nearest(n, name);
	conf_error(c, "there is no %s \"%s\"%s%s%s", n->kind, name.p,
		   nearest ? "; did you mean \"" : "", nearest ? nearest->name.p : "",
		   nearest ? "\"?" : "");
	return -1;
}

/* All that the check of the whole file looks things up in. */
struct check {
	struct conf *c;
	struct gw_conf *conf;
	struct names auths, limits, services, routes, matches;
};

static void check_limits(struct check *k, const struct str *names, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!names[i].p)
			continue; /* was no string */
		conf_enter_index(k->c, "limits", i);
		names_resolve(&k->limits, k->c, names[i]);
		conf_leave(k->c);
	}
}

static struct gw_service *resolve_service(struct check *k, struct str name)
{
	ptrdiff_t at = names_resolve(&k->services, k->c, name);

	return at < 0 ? NULL : &k->conf->services[at];
}

/* What a WebSocket becomes towards a service is a switch of HTTP/1.1. */
static void check_websocket(const struct check *k, const struct gw_route *route)
{
	bool ok = !route->service_to || route->service_to->protocol == GW_HTTP1;

	for (size_t i = 0; i < route->split_count; i++)
		ok &= !route->split[i].to || route->split[i].to->protocol == GW_HTTP1;
	if (route->websocket && !ok)
		conf_error_at(k->c, "websocket", "needs services of \"protocol\": \"http/1.1\"");
}

static bool is_translatable(const struct gw_service *service)
{
	return !service || (service->protocol == GW_GRPC && service->descriptor_set.p);
}

static void check_grpc(const struct check *k, const struct gw_route *route)
{
	bool ok = is_translatable(route->service_to);

	for (size_t i = 0; i < route->split_count; i++)
		ok &= is_translatable(route->split[i].to);
	if (route->grpc && !ok)
		conf_error_at(k->c, "grpc",
			      "needs services of \"protocol\": \"grpc\" with a \"descriptor_set\"");
}

static void resolve_route(struct check *k, struct gw_route *route)
{
	ptrdiff_t at;

	for (size_t i = 0; i < route->auth.count; i++) {
		if (route->auth.is_list)
			conf_enter_index(k->c, "auth", i);
		else
			conf_enter(k->c, "auth");
		at = names_resolve(&k->auths, k->c, route->auth.names[i]);
		route->auth.to[i] = at < 0 ? NULL : &k->conf->auth[at];
		conf_leave(k->c);
	}
	if (route->service.p) {
		conf_enter(k->c, "service");
		route->service_to = resolve_service(k, route->service);
		conf_leave(k->c);
	}
	for (size_t i = 0; i < route->split_count; i++) {
		if (!route->split[i].service.p)
			continue;
		conf_enter_index(k->c, "split", i);
		conf_enter(k->c, "service");
		route->split[i].to = resolve_service(k, route->split[i].service);
		route->split[i].id = split_id(route->split[i].service);
		conf_leave(k->c);
		conf_leave(k->c);
	}
	if (route->mirror && route->mirror->service.p) {
		conf_enter(k->c, "mirror");
		conf_enter(k->c, "service");
		route->mirror->to = resolve_service(k, route->mirror->service);
		conf_leave(k->c);
		conf_leave(k->c);
	}
	check_websocket(k, route);
	check_grpc(k, route);
	check_limits(k, route->limits, route->limits_count);
}

/* --- identity headers ---------------------------------------------------------------------- */

/* A rule that writes a header in which services read the identity would forge it. */
static void check_forged(struct check *k, const char *member, const struct conf_pair *pairs,
			 size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < k->conf->auth_count; j++) {
			const struct gw_auth *auth = &k->conf->auth[j];

			for (size_t f = 0; f < auth->forward_count; f++) {
				if (!str_ieq(pairs[i].name, auth->forward[f].value))
					continue;
				conf_enter_name(k->c, member, pairs[i].name);
				conf_error(k->c, "is an identity header of auth.%s", auth->name.p);
				conf_leave(k->c);
			}
		}
	}
}

static void check_request_rules(struct check *k, const struct gw_transform *request)
{
	conf_enter(k->c, "request");
	check_forged(k, "set", request->set, request->set_count);
	check_forged(k, "add", request->add, request->add_count);
	conf_leave(k->c);
}

/* --- routes that can never be reached ------------------------------------------------------ */

static void write_words(struct buf *out, char kind, const struct str *words, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		buf_putc(out, kind);
		buf_add(out, words[i]);
		buf_putc(out, '\n');
	}
}

static void write_pairs(struct buf *out, char kind, const struct conf_pair *pairs, size_t count)
{
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%c%.*s=%.*s\n", kind, STR_ARG(pairs[i].name),
			   STR_ARG(pairs[i].value));
}

/* What two routes have in common when they match the same requests: the names in {} do not count.
 */
static void write_match(struct buf *out, const struct gw_match *match)
{
	bool in_name = false;

	for (size_t i = 0; i < match->path.len; i++) {
		in_name = in_name && match->path.p[i] != '}';
		if (!in_name)
			buf_putc(out, match->path.p[i]);
		in_name = in_name || match->path.p[i] == '{';
	}
	buf_putc(out, '\n');
	write_words(out, 'H', match->hosts, match->hosts_count);
	write_words(out, 'M', match->methods, match->methods_count);
	write_pairs(out, 'h', match->headers, match->headers_count);
	write_pairs(out, 'c', match->cookies, match->cookies_count);
	write_pairs(out, 'q', match->query, match->query_count);
	write_words(out, 'a', match->accept, match->accept_count);
	write_words(out, 't', match->content_type, match->content_type_count);
}

static void check_reachable(struct check *k, const struct gw_route *route, size_t index)
{
	const struct name_node *there;
	struct buf key;
	struct str copy;

	buf_init(&key, 1U << 20);
	write_match(&key, &route->match);
	copy = arena_str(conf_arena(k->c), buf_str(&key));
	buf_fini(&key);
	if (!copy.p || !route->match.path.p)
		return;
	there = names_add(&k->matches, copy, index);
	if (there)
		conf_error_at(k->c, "match",
			      "is the same as that of routes[%zu], so this route is never reached",
			      there->index);
}

/* --- the whole file ------------------------------------------------------------------------ */

/* Methods may be made up, but one that nearly has the name of a usual one is misspelt. */
static void check_methods(struct check *k, const struct gw_match *match)
{
	static const char *const usual[] = { "GET",   "HEAD",    "POST",  "PUT", "DELETE",
					     "PATCH", "OPTIONS", "TRACE", NULL };

	conf_enter(k->c, "match");
	for (size_t i = 0; i < match->methods_count; i++) {
		const char *nearest;

		if (!match->methods[i].p || http_method_id(match->methods[i]) != METHOD_OTHER)
			continue;
		nearest = conf_nearest(match->methods[i], usual);
		if (nearest)
			conf_warn_at(k->c, "methods",
				     "\"%s\" is no usual method; did you mean "
				     "\"%s\"?",
				     match->methods[i].p, nearest);
	}
	conf_leave(k->c);
}

static void check_routes(struct check *k)
{
	for (size_t i = 0; i < k->conf->routes_count; i++) {
		struct gw_route *route = &k->conf->routes[i];
		const struct name_node *there;

		conf_enter_index(k->c, "routes", i);
		there = route->name.p ? names_add(&k->routes, route->name, i) : NULL;
		if (there)
			conf_error_at(k->c, "name", "\"%s\" is the name of routes[%zu] already",
				      route->name.p, there->index);
		resolve_route(k, route);
		check_request_rules(k, &route->request);
		check_reachable(k, route, i);
		check_methods(k, &route->match);
		conf_leave(k->c);
	}
}

static void check_listeners(struct check *k)
{
	const struct gw_conf *conf = k->conf;

	for (size_t i = 0; i < conf->listeners_count; i++) {
		const struct net_addr *bind = &conf->listeners[i].bind;

		conf_enter_index(k->c, "listeners", i);
		for (size_t j = 0; bind->len && j < i; j++) {
			if (net_addr_eq(bind, &conf->listeners[j].bind))
				conf_error_at(k->c, "bind", "is that of listeners[%zu] already", j);
		}
		if (bind->len && conf->admin.bind.len && net_addr_eq(bind, &conf->admin.bind))
			conf_error_at(k->c, "bind", "is that of \"admin\" already");
		conf_leave(k->c);
	}
}

static void check_services(struct check *k)
{
	struct gw_register *self = k->conf->registry ? k->conf->registry->register_as : NULL;

	if (!k->conf->zone.p && self)
		k->conf->zone = self->zone;
	for (size_t i = 0; i < k->conf->services_count; i++) {
		struct gw_service *service = &k->conf->services[i];

		service->index = i;
		if (service->prefer_zone && !k->conf->zone.p) {
			conf_enter_name(k->c, "services", service->name);
			conf_warn_at(k->c, "prefer_zone",
				     "does nothing: this gateway's own \"zone\" is not said");
			conf_leave(k->c);
		}
		if (!service->discover.p || k->conf->registry)
			continue;
		conf_enter_name(k->c, "services", service->name);
		conf_error_at(k->c, "discover", "needs a \"registry\"");
		conf_leave(k->c);
	}
}

static void fill_in(struct check *k)
{
	struct gw_conf *conf = k->conf;
	const struct gw_defaults *d = &conf->defaults;
	char host[65] = "";

	if (!conf->instance.p) {
		gethostname(host, sizeof(host) - 1);
		conf->instance = arena_str(conf_arena(k->c), str_from(host[0] ? host : "gateway"));
	}
	for (size_t i = 0; i < conf->auth_count; i++) {
		if (!conf->auth[i].realm.p)
			conf->auth[i].realm = conf->domain;
	}
	conf->path_allow = (d->encoded_slash ? PATH_ALLOW_ENCODED_SLASH : 0U) |
			   (d->backslash ? PATH_ALLOW_BACKSLASH : 0U) |
			   (d->parameters ? PATH_ALLOW_PARAMETERS : 0U) |
			   (d->nul ? PATH_ALLOW_NUL : 0U);
	conf->rate_limit_keys = conf->rate_limit_store.keys;
}

static bool check_init(struct check *k)
{
	const struct gw_conf *conf = k->conf;

	if (!names_init(&k->auths, k->c, "auth", conf->auth_count) ||
	    !names_init(&k->limits, k->c, "rate limit", conf->rate_limits_count) ||
	    !names_init(&k->services, k->c, "service", conf->services_count) ||
	    !names_init(&k->routes, k->c, "route", conf->routes_count) ||
	    !names_init(&k->matches, k->c, "match", conf->routes_count))
		return false;
	for (size_t i = 0; i < conf->auth_count; i++)
		names_add(&k->auths, conf->auth[i].name, i);
	for (size_t i = 0; i < conf->rate_limits_count; i++)
		names_add(&k->limits, conf->rate_limits[i].name, i);
	for (size_t i = 0; i < conf->services_count; i++)
		names_add(&k->services, conf->services[i].name, i);
	return true;
}

void gw_check_conf(struct conf *c, void *object)
{
	struct check k = { .c = c, .conf = object };

	if (check_init(&k)) {
		fill_in(&k);
		check_listeners(&k);
		check_services(&k);
		conf_enter(c, "defaults");
		check_limits(&k, k.conf->defaults.limits, k.conf->defaults.limits_count);
		check_request_rules(&k, &k.conf->defaults.request);
		conf_leave(c);
		check_routes(&k);
		gw_advise(c, k.conf);
	} else {
		conf_error(c, "out of memory");
	}
	hmap_fini(&k.auths.map);
	hmap_fini(&k.limits.map);
	hmap_fini(&k.services.map);
	hmap_fini(&k.routes.map);
	hmap_fini(&k.matches.map);
}
