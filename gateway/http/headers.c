/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/headers.h"

#include <errno.h>

#include "gateway/request.h"
#include "gateway/routing/template.h"
#include "lib/cleanup.h"
#include "lib/http1.h"

/*
 * Many services fold "X_User_Id" and "X-User-Id" into one variable (CGI's HTTP_X_USER_ID), so names
 * are compared folded: lower case, "-" for "_".
 */
static char fold(char c)
{
	return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

static bool folds_equal(const char *a, const char *b, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (fold(a[i]) != fold(b[i]))
			return false;
	}
	return true;
}

static bool name_eq(struct str a, struct str b)
{
	return a.len == b.len && folds_equal(a.p, b.p, a.len);
}

/* One bit by length and first letter, so that most fields are dismissed without a comparison. */
static uint64_t name_bit(struct str name)
{
	return 1ULL << ((name.len + (size_t)7 * (unsigned char)fold(name.p[0])) & 63);
}

bool headers_add(struct headers *h, struct str name, struct str value)
{
	if (h->count == h->max)
		return false;
	h->fields[h->count++] = (struct http_field) {
		.name = name,
		.value = value,
		.id = http_name_id(name),
	};
	return true;
}

bool headers_set(struct headers *h, struct str name, struct str value)
{
	size_t to = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len && !name_eq(h->fields[i].name, name))
			h->fields[to++] = h->fields[i];
	}
	h->count = to;
	return headers_add(h, name, value);
}

bool headers_is_forwarding(struct str name)
{
	static const char prefix[] = "x-forwarded-";

	return name.len >= sizeof(prefix) - 1 && folds_equal(name.p, prefix, sizeof(prefix) - 1);
}

void headers_remove_id(struct headers *h, enum http_name id)
{
	size_t to = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len && h->fields[i].id != id)
			h->fields[to++] = h->fields[i];
	}
	h->count = to;
}

/* --- hop by hop ---------------------------------------------------------------------------- */

/* RFC 9110 7.6.1 and what older implementations sent. */
static bool is_hop_by_hop(enum http_name id)
{
	switch (id) {
	case HTTP_CONNECTION:
	case HTTP_HTTP2_SETTINGS:
	case HTTP_KEEP_ALIVE:
	case HTTP_PROXY_AUTHENTICATE:
	case HTTP_PROXY_AUTHORIZATION:
	case HTTP_PROXY_CONNECTION:
	case HTTP_TE:
	case HTTP_TRAILER:
	case HTTP_TRANSFER_ENCODING:
	case HTTP_UPGRADE:
		return true;
	default:
		return false;
	}
}

/* Naming these in Connection does not make them go: see the header. */
static bool is_protected(enum http_name id)
{
	switch (id) {
	case HTTP_AUTHORIZATION:
	case HTTP_CONTENT_ENCODING:
	case HTTP_CONTENT_LENGTH:
	case HTTP_CONTENT_TYPE:
	case HTTP_COOKIE:
	case HTTP_FORWARDED:
	case HTTP_HOST:
	case HTTP_X_FORWARDED_CLIENT_CERT:
	case HTTP_X_FORWARDED_FOR:
	case HTTP_X_FORWARDED_HOST:
	case HTTP_X_FORWARDED_PROTO:
	case HTTP_X_REAL_IP:
	case HTTP_X_REQUEST_ID:
		return true;
	default:
		return false;
	}
}

/* A field with an empty name is one that was removed. */
static void remove_named(struct headers *h, struct str list, uint64_t present)
{
	struct str token;

	while (str_split(&list, ',', &token)) {
		token = str_trim(token);
		if (token.len == 0 || !(name_bit(token) & present))
			continue;
		for (size_t i = 0; i < h->count; i++) {
			struct http_field *f = &h->fields[i];

			/* Connection itself is still being read; it goes in the end. */
			if (f->id != HTTP_CONNECTION && !is_protected(f->id) &&
			    str_ieq(f->name, token))
				f->name.len = 0;
		}
	}
}

void headers_strip_hop_by_hop(struct headers *h)
{
	uint64_t present = 0;
	size_t to = 0;

	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len)
			present |= name_bit(h->fields[i].name);
	}
	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].id == HTTP_CONNECTION && h->fields[i].name.len)
			remove_named(h, h->fields[i].value, present);
	}
	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len && !is_hop_by_hop(h->fields[i].id))
			h->fields[to++] = h->fields[i];
	}
	h->count = to;
}

/* --- names that clients cannot set --------------------------------------------------------- */

struct headers_guard {
	uint64_t bits; /* name_bit of all names */
	size_t count;
	struct str names[];
};

struct headers_guard *headers_guard_new(struct arena *a, const struct str *names, size_t count)
{
	struct headers_guard *g = arena_zalloc(a, sizeof(*g) + count * sizeof(struct str));

	if (!g)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (names[i].len == 0)
			continue;
		g->names[g->count] = arena_str(a, names[i]);
		if (!g->names[g->count].p)
			return NULL;
		g->bits |= name_bit(names[i]);
		g->count++;
	}
	return g;
}

static bool guard_has(const struct headers_guard *g, struct str name)
{
	if (!(g->bits & name_bit(name)))
		return false;
	for (size_t i = 0; i < g->count; i++) {
		if (name_eq(g->names[i], name))
			return true;
	}
	return false;
}

/* The id of the field for which a spelling with "_" stands. */
static enum http_name folded_id(struct str name)
{
	char folded[64];

	if (name.len > sizeof(folded))
		return HTTP_OTHER;
	for (size_t i = 0; i < name.len; i++)
		folded[i] = fold(name.p[i]);
	return http_name_id(str_of(folded, name.len));
}

/* Whether a spelling with "_" stands for a field that frames the message or that we write. */
static bool disguises_our_own(struct str name)
{
	enum http_name id = folded_id(name);

	return is_hop_by_hop(id) || is_protected(id) || id == HTTP_TRACEPARENT ||
	       id == HTTP_TRACESTATE || id == HTTP_EXPECT;
}

size_t headers_guard_strip(const struct headers_guard *g, struct headers *h, bool keep_underscores)
{
	size_t to = 0, removed = 0;

	for (size_t i = 0; i < h->count; i++) {
		struct str name = h->fields[i].name;
		bool has_underscore = name.len && memchr(name.p, '_', name.len);

		if (name.len &&
		    !(has_underscore && (!keep_underscores || disguises_our_own(name))) &&
		    !guard_has(g, name))
			h->fields[to++] = h->fields[i];
		else if (name.len)
			removed++;
	}
	h->count = to;
	return removed;
}

bool headers_read_trailers(struct headers *h, struct arena *a, struct str lines)
{
	struct str copy = arena_str(a, lines), rest = copy;
	struct http_field field;
	size_t count = 0;

	*h = (struct headers) { 0 };
	for (size_t i = 0; i < lines.len; i++)
		count += lines.p[i] == '\n';
	if (count == 0)
		return true;
	h->fields = copy.p ? arena_alloc(a, count * sizeof(field)) : NULL;
	if (!h->fields)
		return false;
	h->max = count;
	while (h->count < h->max && http1_next_trailer(&rest, &field))
		h->fields[h->count++] = field;
	return true;
}

void headers_strip_trailers(struct headers *h)
{
	size_t to = 0;

	for (size_t i = 0; i < h->count; i++) {
		const struct http_field *f = &h->fields[i];

		if (f->name.len && f->name.p[0] != ':' && folded_id(f->name) == HTTP_OTHER)
			h->fields[to++] = *f;
	}
	h->count = to;
}

/* --- rules --------------------------------------------------------------------------------- */

struct removal {
	struct str name; /* the star cut off */
	bool is_prefix;
};

/* A field that the rules write. */
struct written {
	struct str name, value;
	const struct template *template; /* NULL: always this value */
};

struct headers_rules {
	uint64_t exact_bits;     /* name_bit of the exact removals */
	uint64_t prefix_letters; /* bit by first letter of the prefixes; all ones for "*" */
	struct removal *removals;
	size_t removal_count;
	struct written *sets, *adds;
	size_t set_count, add_count;
	bool has_templates;
};

const char *headers_check_name(struct str name)
{
	enum http_name id = http_name_id(name);

	if (!http_is_token(name))
		return "must be a header name";
	if (is_hop_by_hop(id) || id == HTTP_HOST || id == HTTP_CONTENT_LENGTH)
		return "must not be one of the headers that frame messages";
	return NULL;
}

const char *headers_check_pattern(struct str pattern)
{
	bool is_prefix = pattern.len && pattern.p[pattern.len - 1] == '*';
	struct str name = str_sub(pattern, 0, pattern.len - is_prefix);

	if (str_chr(name, '*') >= 0)
		return "may have a * only at its end";
	if (is_prefix)
		return name.len == 0 || !http_is_token(name) ? "must be a header name before the *"
							     : NULL;
	return headers_check_name(name);
}

const char *headers_check_value(struct str value)
{
	return template_check(value, TEMPLATE_HEADER);
}

static uint64_t letter_bit(struct str name)
{
	return 1ULL << ((unsigned char)fold(name.p[0]) & 63);
}

static void rules_add_removal(struct headers_rules *r, struct str pattern)
{
	bool is_prefix = pattern.len && pattern.p[pattern.len - 1] == '*';
	struct str name = str_sub(pattern, 0, pattern.len - is_prefix);

	if (is_prefix)
		r->prefix_letters |= name.len ? letter_bit(name) : UINT64_MAX;
	else
		r->exact_bits |= name_bit(name);
	r->removals[r->removal_count++] = (struct removal) { name, is_prefix };
}

static bool written_init(struct headers_rules *r, struct written *out, const struct conf_pair *pair,
			 struct str path, struct arena *a)
{
	const struct template *t = template_new(a, pair->value, TEMPLATE_HEADER, path);
	struct str constant = t ? template_constant(t) : (struct str) { 0 };

	*out = (struct written) { .name = pair->name, .value = constant };
	if (!constant.p)
		out->template = t;
	r->has_templates |= !constant.p;
	return t != NULL;
}

/* A later set of the same name takes the place of the earlier one. */
static void rules_add_set(struct headers_rules *r, const struct written *set)
{
	for (size_t i = 0; i < r->set_count; i++) {
		if (name_eq(r->sets[i].name, set->name)) {
			r->sets[i] = *set;
			return;
		}
	}
	r->sets[r->set_count++] = *set;
	rules_add_removal(r, set->name);
}

static bool rules_add_spec(struct headers_rules *r, const struct headers_spec *spec,
			   struct str path, struct arena *a)
{
	struct written set;

	for (size_t i = 0; i < spec->remove_count; i++)
		rules_add_removal(r, spec->remove[i]);
	for (size_t i = 0; i < spec->set_count; i++) {
		if (!written_init(r, &set, &spec->set[i], path, a))
			return false;
		rules_add_set(r, &set);
	}
	for (size_t i = 0; i < spec->add_count; i++) {
		if (!written_init(r, &r->adds[r->add_count++], &spec->add[i], path, a))
			return false;
	}
	return true;
}

struct headers_rules *headers_rules_new(struct arena *a, const struct headers_spec *const *specs,
					size_t count, struct str path)
{
	struct headers_rules *r = arena_new(a, struct headers_rules);
	size_t sets = 0, adds = 0, removals = 0;

	for (size_t i = 0; i < count; i++) {
		sets += specs[i]->set_count;
		adds += specs[i]->add_count;
		removals += specs[i]->remove_count;
	}
	if (!r)
		return NULL;
	r->removals = arena_array(a, struct removal, removals + sets + 1);
	r->sets = arena_array(a, struct written, sets + 1);
	r->adds = arena_array(a, struct written, adds + 1);
	if (!r->removals || !r->sets || !r->adds)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (!rules_add_spec(r, specs[i], path, a))
			return NULL;
	}
	return r;
}

static bool rules_remove(const struct headers_rules *r, struct str name)
{
	if (!(r->exact_bits & name_bit(name)) && !(r->prefix_letters & letter_bit(name)))
		return false;
	for (size_t i = 0; i < r->removal_count; i++) {
		const struct removal *removal = &r->removals[i];

		if (removal->is_prefix
			    ? name.len >= removal->name.len &&
				      folds_equal(name.p, removal->name.p, removal->name.len)
			    : name_eq(name, removal->name))
			return true;
	}
	return false;
}

void headers_rules_strip(const struct headers_rules *r, struct headers *h)
{
	size_t to = 0;

	if (!r || r->removal_count == 0)
		return;
	for (size_t i = 0; i < h->count; i++) {
		if (h->fields[i].name.len && !rules_remove(r, h->fields[i].name))
			h->fields[to++] = h->fields[i];
	}
	h->count = to;
}

/*
 * The values for this request, all of them before anything is removed: a rule may take a field's
 * value and another one the field. p NULL: the field is not written. NULL: out of memory.
 */
static struct str *expand_all(const struct headers_rules *r, struct request *request)
{
	struct str *values = arena_array(&request->arena, struct str, r->set_count + r->add_count);

	for (size_t i = 0; values && i < r->set_count + r->add_count; i++) {
		const struct written *w = i < r->set_count ? &r->sets[i]
							   : &r->adds[i - r->set_count];
		int rc;

		if (!w->template) {
			values[i] = w->value;
			continue;
		}
		rc = template_expand(&values[i], w->template, request);
		if (rc == -ENOMEM)
			return NULL;
		if (rc < 0)
			values[i] = (struct str) { 0 };
	}
	return values;
}

static bool write_all(const struct written *list, size_t count, const struct str *values,
		      struct headers *h)
{
	for (size_t i = 0; i < count; i++) {
		struct str value = values ? values[i] : list[i].value;

		if (value.p && !headers_add(h, list[i].name, value))
			return false;
	}
	return true;
}

bool headers_rules_apply(const struct headers_rules *r, struct headers *h, struct request *request)
{
	struct str *values = NULL;

	if (!r)
		return true;
	if (r->has_templates) {
		values = expand_all(r, request);
		if (!values)
			return false;
	}
	headers_rules_strip(r, h);
	return write_all(r->sets, r->set_count, values, h) &&
	       write_all(r->adds, r->add_count, values ? values + r->set_count : NULL, h);
}
