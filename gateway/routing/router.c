/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/router.h"

#include <errno.h>
#include <stdlib.h>

#include "gateway/http/path.h"
#include "gateway/routing/candidates.h"
#include "lib/arena.h"
#include "lib/cleanup.h"
#include "lib/hash.h"

#define ROUTER_MAX_HOST    255
#define ROUTER_MAX_ROUTES  1000000
#define ROUTER_MAX_METHODS 60 /* known ones and others together; bits of a mask */

/* A node is a path of segments below one host; children by literal segment are in router.edges. */
struct node {
	struct candidates exact;  /* routes that end here */
	struct candidates prefix; /* routes that begin here */
	struct node *variable;    /* child for any one segment */
	struct node *next;        /* in router.nodes */
	uint64_t id;
	bool has_literals;
};

struct edge {
	const struct node *from; /* NULL: a free slot; for hosts, &router.hosts */
	struct node *to;
	struct str label;
};

struct router {
	struct arena arena;
	struct edge *edges; /* open addressing, at most half full */
	size_t edge_mask, edge_count;
	struct node hosts; /* its edges lead from host names (suffixes keep their dot) to roots */
	struct node *any_host;
	struct node *nodes; /* all of them */
	bool has_suffixes;
	struct str custom_methods[ROUTER_MAX_METHODS];
	size_t custom_method_count;
	struct str (*var_names)[ROUTER_MAX_VARS]; /* by route */
	uint64_t next_id;
};

/* --- what a configuration may say ---------------------------------------------------------- */

static const char *check_segment(struct str segment)
{
	bool has_brace = str_chr(segment, '{') >= 0 || str_chr(segment, '}') >= 0;

	if (str_eq(segment, STR(".")) || str_eq(segment, STR("..")))
		return "must not have . or .. as a segment";
	for (size_t i = 0; i < segment.len; i++) {
		if ((unsigned char)segment.p[i] <= ' ' || strchr("?#;\\\x7f", segment.p[i]))
			return "must be a path without query, white space, ; and backslash";
	}
	if (!has_brace)
		return NULL;
	if (segment.len < 3 || segment.p[0] != '{' || segment.p[segment.len - 1] != '}')
		return "must have {name} for a whole segment only";
	for (size_t i = 1; i < segment.len - 1; i++) {
		if (!isalnum((unsigned char)segment.p[i]) && segment.p[i] != '_')
			return "must have letters, digits and _ only in {name}";
	}
	return NULL;
}

/* Cuts the slash and star of a prefix off. */
static struct str prefix_of(struct str path, bool *is_prefix)
{
	*is_prefix = str_ends(path, STR("/*"));
	return *is_prefix ? str_sub(path, 0, path.len - 2) : path;
}

const char *router_check_path(struct str path)
{
	size_t segments = 0, vars = 0;
	struct str rest, segment;
	bool is_prefix;

	if (path.len == 0 || path.p[0] != '/')
		return "must begin with \"/\"";
	path = prefix_of(path, &is_prefix);
	if (str_chr(path, '*') >= 0)
		return "may have a * only as its last segment (\"/x/*\")";
	if (path.len == 0)
		return NULL;
	rest = str_sub(path, 1, path.len);
	while (str_split(&rest, '/', &segment)) {
		const char *complaint = check_segment(segment);

		if (complaint)
			return complaint;
		if (segment.len == 0 && (rest.p || is_prefix) && !(path.len == 1 && !is_prefix))
			return "must not have empty segments";
		if (++segments > ROUTER_MAX_SEGMENTS)
			return "has too many segments";
		if (segment.len && segment.p[0] == '{' && ++vars > ROUTER_MAX_VARS)
			return "has too many {name} segments";
	}
	return NULL;
}

const char *router_check_host(struct str host)
{
	bool is_suffix = str_starts(host, STR("*."));

	if (is_suffix)
		host = str_sub(host, 2, host.len);
	if (host.len == 0)
		return "must not be empty";
	if (str_chr(host, '*') >= 0)
		return "may have a * only in front (\"*.example.com\")";
	if (!http_is_host(host) || (host.p[0] != '[' && str_chr(host, ':') >= 0) ||
	    host.len > ROUTER_MAX_HOST)
		return "must be a host name without a port";
	return NULL;
}

/* --- edges --------------------------------------------------------------------------------- */

static uint64_t edge_hash(const struct node *from, struct str label)
{
	return hash_mix64(hash_str(label) + from->id * 0x9e3779b97f4a7c15ULL);
}

static struct node *edge_find(const struct router *r, const struct node *from, struct str label)
{
	size_t at;

	if (!r->edges)
		return NULL;
	at = edge_hash(from, label) & r->edge_mask;
	for (; r->edges[at].from; at = (at + 1) & r->edge_mask) {
		if (r->edges[at].from == from && str_eq(r->edges[at].label, label))
			return r->edges[at].to;
	}
	return NULL;
}

static void edge_place(struct router *r, struct edge edge)
{
	size_t at = edge_hash(edge.from, edge.label) & r->edge_mask;

	while (r->edges[at].from)
		at = (at + 1) & r->edge_mask;
	r->edges[at] = edge;
}

static int edges_grow(struct router *r)
{
	size_t old_slots = r->edges ? r->edge_mask + 1 : 0, slots = old_slots ? old_slots * 2 : 64;
	struct edge *old = r->edges;

	r->edges = calloc(slots, sizeof(*r->edges));
	if (!r->edges) {
		r->edges = old;
		return -ENOMEM;
	}
	r->edge_mask = slots - 1;
	for (size_t i = 0; i < old_slots; i++) {
		if (old[i].from)
			edge_place(r, old[i]);
	}
	free(old);
	return 0;
}

static struct node *node_new(struct router *r)
{
	struct node *node = arena_new(&r->arena, struct node);

	if (!node)
		return NULL;
	node->id = ++r->next_id;
	node->next = r->nodes;
	r->nodes = node;
	return node;
}

/* The child behind a label, made if it is not there. NULL: out of memory. */
static struct node *child_get(struct router *r, struct node *from, struct str label)
{
	struct node *to = edge_find(r, from, label);

	if (to)
		return to;
	if ((!r->edges || r->edge_count * 2 > r->edge_mask) && edges_grow(r) < 0)
		return NULL;
	to = node_new(r);
	if (!to)
		return NULL;
	edge_place(r, (struct edge) { .from = from, .to = to, .label = label });
	r->edge_count++;
	from->has_literals = true;
	return to;
}

/* --- building ------------------------------------------------------------------------------ */

static int methods_mask(struct router *r, const struct router_route *route, uint64_t *out)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < route->method_count; i++) {
		enum http_method id = http_method_id(route->methods[i]);
		size_t at = 0;

		if (id != METHOD_OTHER) {
			mask |= 1ULL << id;
			/* RFC 9110 9.1: whoever serves GET serves HEAD. */
			if (id == METHOD_GET)
				mask |= 1ULL << METHOD_HEAD;
			continue;
		}
		while (at < r->custom_method_count &&
		       !str_eq(r->custom_methods[at], route->methods[i]))
			at++;
		if (at == ROUTER_MAX_METHODS - HTTP_METHODS)
			return -EINVAL;
		if (at == r->custom_method_count)
			r->custom_methods[r->custom_method_count++] = route->methods[i];
		mask |= 1ULL << (HTTP_METHODS + at);
	}
	*out = route->method_count ? mask : UINT64_MAX;
	return 0;
}

static bool nodes_finish(struct router *r)
{
	for (struct node *node = r->nodes; node; node = node->next) {
		if (!candidates_finish(&node->exact, &r->arena) ||
		    !candidates_finish(&node->prefix, &r->arena))
			return false;
	}
	return true;
}

static int path_add(struct router *r, struct node *root, struct str path, size_t index,
		    const struct candidate *c)
{
	struct node *node = root;
	struct str rest, segment;
	size_t vars = 0;
	bool is_prefix;

	path = prefix_of(path, &is_prefix);
	rest = path.len ? str_sub(path, 1, path.len) : (struct str) { 0 };
	while (node && str_split(&rest, '/', &segment)) {
		if (segment.len && segment.p[0] == '{') {
			r->var_names[index][vars++] = str_sub(segment, 1, segment.len - 1);
			if (!node->variable)
				node->variable = node_new(r);
			node = node->variable;
		} else {
			struct str normal;
			const char *problem;

			/* Routes are written in the form that normalised paths have: the segment
			 * is normalised with its slash, which is cut off again. */
			if (segment.len &&
			    path_normalise(&normal, str_of(segment.p - 1, segment.len + 1), ~0U,
					   &r->arena, &problem) == 0)
				segment = str_sub(normal, 1, normal.len);
			node = child_get(r, node, segment);
		}
	}
	if (!node)
		return -ENOMEM;
	return candidates_add(is_prefix ? &node->prefix : &node->exact, c, &r->arena) ? 0 : -ENOMEM;
}

/* Lower case, no port, no final dot. False when it is too long to be a host. */
static bool host_normalise(struct str host, char out[ROUTER_MAX_HOST + 1], struct str *result)
{
	ptrdiff_t end = host.len && host.p[0] == '[' ? str_chr(host, ']') + 1 : str_chr(host, ':');

	if (end > 0 || (end == 0 && host.len && host.p[0] == ':'))
		host.len = (size_t)end;
	if (host.len && host.p[host.len - 1] == '.')
		host.len--;
	if (host.len > ROUTER_MAX_HOST)
		return false;
	for (size_t i = 0; i < host.len; i++)
		out[i] = (char)tolower((unsigned char)host.p[i]);
	*result = str_of(out, host.len);
	return true;
}

static struct node *host_get(struct router *r, struct str host)
{
	char text[ROUTER_MAX_HOST + 1];
	struct str label;

	if (str_starts(host, STR("*."))) {
		r->has_suffixes = true;
		host = str_sub(host, 1, host.len); /* ".example.com" */
	}
	if (!host_normalise(host, text, &label))
		return NULL;
	label = arena_str(&r->arena, label);
	return label.p ? child_get(r, &r->hosts, label) : NULL;
}

static int route_add(struct router *r, const struct router_route *route, size_t index,
		     struct err *err)
{
	const char *complaint = router_check_path(route->path);
	struct candidate c = { .route = index };
	int rc = 0;

	if (complaint)
		return err_set(err, -EINVAL, "routes[%zu]: path %s", index, complaint);
	if (methods_mask(r, route, &c.methods) < 0)
		return err_set(err, -EINVAL, "routes[%zu]: more than %d different methods in all",
			       index, ROUTER_MAX_METHODS - HTTP_METHODS);
	if (!candidate_init(&c, route, &r->arena))
		return err_set(err, -ENOMEM, "out of memory");
	if (route->host_count == 0)
		rc = path_add(r, r->any_host, route->path, index, &c);
	for (size_t i = 0; i < route->host_count && rc == 0; i++) {
		struct node *root;

		complaint = router_check_host(route->hosts[i]);
		if (complaint)
			return err_set(err, -EINVAL, "routes[%zu]: host %s", index, complaint);
		root = host_get(r, route->hosts[i]);
		rc = root ? path_add(r, root, route->path, index, &c) : -ENOMEM;
	}
	return rc < 0 ? err_set(err, rc, "out of memory") : 0;
}

int router_new(struct router **out, const struct router_route *routes, size_t count,
	       struct err *err)
{
	struct router *r = calloc(1, sizeof(*r));
	int rc = 0;

	if (!r || count > ROUTER_MAX_ROUTES) {
		free(r);
		return err_set(err, r ? -EINVAL : -ENOMEM, r ? "too many routes" : "out of memory");
	}
	arena_init(&r->arena, 16384, 0);
	r->any_host = node_new(r);
	r->var_names = arena_zalloc(&r->arena, (count + 1) * sizeof(*r->var_names));
	if (!r->any_host || !r->var_names)
		rc = err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = route_add(r, &routes[i], i, err);
	if (rc == 0 && !nodes_finish(r))
		rc = err_set(err, -ENOMEM, "out of memory");
	if (rc < 0) {
		router_free(&r);
		return rc;
	}
	*out = r;
	return 0;
}

void router_free(struct router **r)
{
	if (!*r)
		return;
	free((*r)->edges);
	arena_fini(&(*r)->arena);
	free(*r);
	*r = NULL;
}

/* --- matching ------------------------------------------------------------------------------ */

/* One look-up under way. */
struct walk {
	const struct router *router;
	struct router_match *out;
	struct candidates_query query;
};

static bool take_match(struct walk *w, const struct candidates *list, size_t rest_at)
{
	const struct candidate *found = candidates_match(list, &w->query);

	if (!found)
		return false;
	w->out->route = found->route;
	w->out->rest_at = rest_at;
	return true;
}

/*
 * Looks below `node` for the path from `at` on, which is a slash or the end. Depth-first, most
 * specific first; each node is visited at most once, as it has one parent.
 */
static bool walk_node(struct walk *w, const struct node *node, size_t at, size_t depth)
{
	struct str path = w->query.request->path;
	struct str segment;
	size_t end;

	if (at < path.len && depth < ROUTER_MAX_SEGMENTS) {
		const char *slash = memchr(path.p + at + 1, '/', path.len - at - 1);
		const struct node *child;

		end = slash ? (size_t)(slash - path.p) : path.len;
		segment = str_sub(path, at + 1, end);
		child = node->has_literals ? edge_find(w->router, node, segment) : NULL;
		if (child && walk_node(w, child, end, depth + 1))
			return true;
		if (node->variable && segment.len && w->out->var_count < ROUTER_MAX_VARS) {
			w->out->vars[w->out->var_count++] = segment;
			if (walk_node(w, node->variable, end, depth + 1))
				return true;
			w->out->var_count--;
		}
	}
	if (at == path.len && take_match(w, &node->exact, path.len))
		return true;
	return take_match(w, &node->prefix, at);
}

static uint64_t method_bit(const struct router *r, const struct router_request *request)
{
	if (request->method != METHOD_OTHER)
		return 1ULL << request->method;
	for (size_t i = 0; i < r->custom_method_count; i++) {
		if (str_eq(r->custom_methods[i], request->method_name))
			return 1ULL << (HTTP_METHODS + i);
	}
	return 0;
}

static bool walk_host(struct walk *w, struct str label)
{
	const struct node *root = edge_find(w->router, &w->router->hosts, label);

	return root && walk_node(w, root, 0, 0);
}

static bool walk_hosts(struct walk *w)
{
	char text[ROUTER_MAX_HOST + 1];
	struct str host;

	if (!w->router->hosts.has_literals ||
	    !host_normalise(w->query.request->host, text, &host) || host.len == 0)
		return false;
	/* A label with a dot in front is a suffix; no host is called that. */
	if (host.p[0] == '.')
		return false;
	if (walk_host(w, host))
		return true;
	if (!w->router->has_suffixes)
		return false;
	/* Every suffix that begins with a dot, the longest first; something stands before it. */
	for (size_t i = 1; i < host.len; i++) {
		if (host.p[i] == '.' && walk_host(w, str_sub(host, i, host.len)))
			return true;
	}
	return false;
}

static bool walk_all(struct walk *w)
{
	return walk_hosts(w) || walk_node(w, w->router->any_host, 0, 0);
}

enum router_result router_match(const struct router *r, const struct router_request *request,
				struct router_match *out)
{
	struct walk w = { .router = r, .out = out };
	struct candidates_query *q = &w.query;

	out->var_count = 0;
	out->allow = 0;
	q->request = request;
	q->method = method_bit(r, request);
	if (walk_all(&w))
		return ROUTER_FOUND;
	if (q->lacks_accept) {
		q->wildcards = true;
		if (walk_all(&w))
			return ROUTER_FOUND;
	}
	out->allow = q->allow;
	if (q->allow)
		return ROUTER_NO_METHOD;
	if (q->lacks_content_type)
		return ROUTER_NO_CONTENT_TYPE;
	return q->lacks_accept ? ROUTER_NOT_ACCEPTABLE : ROUTER_NO_ROUTE;
}

struct str router_var_name(const struct router *r, size_t route, size_t n)
{
	return r->var_names[route][n];
}

void router_write_allow(const struct router *r, uint64_t allow, struct buf *out)
{
	const char *comma = "";

	for (unsigned i = 1; i < ROUTER_MAX_METHODS; i++) {
		if (!(allow & (1ULL << i)))
			continue;
		buf_addz(out, comma);
		if (i < HTTP_METHODS)
			buf_addz(out, http_method_name((enum http_method)i));
		else
			buf_add(out, r->custom_methods[i - HTTP_METHODS]);
		comma = ", ";
	}
}
