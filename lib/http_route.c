/* SPDX-License-Identifier: Apache-2.0 */
/* The part of lib/http_server.h that only looks at requests: parameters and routes. */
#include <errno.h>

#include "lib/cleanup.h"
#include "lib/hex.h"
#include "lib/http_server.h"

int http_decode(struct arena *a, struct str text, bool plus_is_space, struct str *out)
{
	char *p = arena_alloc(a, text.len + 1);
	size_t len = 0;

	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (c == '%') {
			int high, low;

			if (text.len - i < 3)
				return -EINVAL;
			high = hex_digit(text.p[i + 1]);
			low = hex_digit(text.p[i + 2]);
			if (high < 0 || low < 0)
				return -EINVAL;
			c = (char)(high * 16 + low);
			i += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		if (c == '\0')
			return -EINVAL;
		p[len++] = c;
	}
	p[len] = '\0';
	*out = str_of(p, len);
	return 0;
}

struct str http_header(const struct http_request *req, const char *name)
{
	const struct http_field *f;

	if (!req->head)
		return str_of(NULL, 0);
	f = http_find_name(req->head->fields, req->head->field_count, str_from(name));
	return f ? f->value : str_of(NULL, 0);
}

int http_query(const struct http_request *req, const char *name, struct str *out)
{
	struct str rest = req->query;
	struct str pair;

	while (str_split(&rest, '&', &pair)) {
		ptrdiff_t eq = str_chr(pair, '=');
		struct str key = eq < 0 ? pair : str_sub(pair, 0, (size_t)eq);

		if (!str_eqz(key, name))
			continue;
		return http_decode(req->arena,
				   eq < 0 ? str_of("", 0) : str_sub(pair, (size_t)eq + 1, pair.len),
				   true, out);
	}
	return -ENOENT;
}

/* Next segment of a path, both of pattern and request: *rest stands behind a "/". */
static bool next_segment(struct str *rest, struct str *out)
{
	return str_split(rest, '/', out);
}

static bool is_param(struct str segment)
{
	return segment.len > 2 && segment.p[0] == '{';
}

static bool takes_the_rest(struct str segment)
{
	return is_param(segment) && str_ends(segment, STR("*}"));
}

/* Compares, and notes the parameters as they stand in the path. */
static bool path_matches(const char *pattern, struct str path, struct str params[HTTP_PARAMS_MAX])
{
	struct str want_rest = str_from(pattern + 1);
	struct str got_rest;
	struct str want, got;
	unsigned count = 0;

	if (path.len == 0 || path.p[0] != '/')
		return false;
	got_rest = str_sub(path, 1, path.len);
	while (next_segment(&want_rest, &want)) {
		if (takes_the_rest(want) && count < HTTP_PARAMS_MAX) {
			params[count] = got_rest.p ? got_rest : str_of("", 0);
			return true;
		}
		if (!next_segment(&got_rest, &got))
			return false;
		if (is_param(want)) {
			if (got.len == 0 || count == HTTP_PARAMS_MAX)
				return false;
			params[count++] = got;
		} else if (!str_eq(want, got)) {
			return false;
		}
	}
	return got_rest.p == NULL;
}

static bool route_takes(const struct http_route *r, enum http_method m)
{
	return r->method == m || (r->method == METHOD_GET && m == METHOD_HEAD);
}

static int decode_params(struct http_request *req, const char *pattern,
			 const struct str raw[HTTP_PARAMS_MAX])
{
	struct str rest = str_from(pattern + 1);
	struct str segment;
	unsigned count = 0;

	while (next_segment(&rest, &segment)) {
		int r = 0;

		if (takes_the_rest(segment))
			req->params[count] = arena_str(req->arena, raw[count]);
		else if (is_param(segment))
			r = http_decode(req->arena, raw[count], false, &req->params[count]);
		else
			continue;
		if (r < 0)
			return r;
		count++;
	}
	return 0;
}

static void route_call(struct http_request *req, const struct http_route *r,
		       const struct str raw[HTTP_PARAMS_MAX], void *arg)
{
	if (r->is_local_only && !req->is_local) {
		http_problem(req, 403,
			     "this changes something: only over the unix socket of the daemon "
			     "(--socket PATH)");
		return;
	}
	if (decode_params(req, r->pattern, raw) < 0) {
		http_problem(req, 400, "the path holds a malformed percent-encoding");
		return;
	}
	r->handle(req, arg);
}

void http_route(struct http_request *req, const struct http_route *table, size_t count, void *arg)
{
	char allow[128] = "";
	unsigned seen = 0; /* a bit per method */
	size_t len = 0;

	for (size_t i = 0; i < count; i++) {
		struct str raw[HTTP_PARAMS_MAX] = { 0 };
		const struct http_route *r = &table[i];

		if (!path_matches(r->pattern, req->path, raw))
			continue;
		if (route_takes(r, req->method_id)) {
			route_call(req, r, raw, arg);
			return;
		}
		if (seen & (1U << r->method))
			continue;
		seen |= 1U << r->method;
		len += (size_t)snprintf(allow + len, sizeof(allow) - len, "%s%s", len ? ", " : "",
					r->method == METHOD_GET ? "GET, HEAD"
								: http_method_name(r->method));
	}
	if (!seen) {
		http_problem(req, 404, "there is nothing at %.*s", (int)MIN(req->path.len, 256UL),
			     req->path.p);
		return;
	}
	http_add_header(req, "Allow", str_from(allow));
	if (req->method_id == METHOD_OPTIONS)
		http_respond(req, 204, NULL, str_of("", 0));
	else
		http_problem(req, 405, "this path takes %s", allow);
}
