/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/candidates.h"

#include <stdlib.h>

#include "gateway/routing/media.h"
#include "gateway/routing/params.h"
#include "lib/cleanup.h"
#include "lib/hash.h"

#define INDEX_FROM  16  /* candidates: fewer are gone through faster */
#define INDEX_LISTS 8   /* values of one request that are looked up; with more, all are tried */
#define INDEX_VALUE 255 /* bytes; longer values are not indexed */

/* Candidates by the value that they want of one header, cookie or parameter. */
struct bucket {
	uint64_t hash; /* of the value; two with the same one share a bucket, which does no harm */
	uint32_t *positions;
	uint32_t count;
};

struct candidate_index {
	struct matcher key; /* its value says nothing */
	struct bucket *buckets;
	size_t mask;
	struct bucket rest; /* candidates without that matcher */
};

/* --- building ------------------------------------------------------------------------------ */

static void matchers_fill(struct matcher *out, enum matcher_kind kind,
			  const struct conf_pair *pairs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct str value = pairs[i].value;
		bool is_prefix = value.len && value.p[value.len - 1] == '*';

		out[i] = (struct matcher) {
			.kind = kind,
			.name = pairs[i].name,
			.value = str_sub(value, 0, value.len - is_prefix),
			.id = http_name_id(pairs[i].name),
			.is_prefix = is_prefix,
		};
	}
}

bool candidate_init(struct candidate *c, const struct router_route *route, struct arena *a)
{
	size_t count = route->header_count + route->cookie_count + route->query_count;
	struct matcher *matchers = arena_array(a, struct matcher, count + 1);

	if (!matchers)
		return false;
	c->matchers = matchers;
	c->matcher_count = count;
	matchers_fill(matchers, MATCHER_HEADER, route->headers, route->header_count);
	matchers += route->header_count;
	matchers_fill(matchers, MATCHER_COOKIE, route->cookies, route->cookie_count);
	matchers += route->cookie_count;
	matchers_fill(matchers, MATCHER_QUERY, route->queries, route->query_count);
	c->accepts = route->accepts;
	c->accept_count = route->accept_count;
	c->content_types = route->content_types;
	c->content_type_count = route->content_type_count;
	c->rank = 2 * (count + (c->accept_count > 0) + (c->content_type_count > 0)) +
		  (c->methods != UINT64_MAX);
	return true;
}

bool candidates_add(struct candidates *list, const struct candidate *c, struct arena *a)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 1;
		struct candidate *items = arena_array(a, struct candidate, room);

		if (!items)
			return false;
		if (list->count)
			memcpy(items, list->items, list->count * sizeof(*items));
		list->items = items;
		list->room = room;
	}
	list->items[list->count++] = *c;
	return true;
}

static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank > y->rank ? -1 : 1;
	return x->route < y->route ? -1 : x->route > y->route;
}

/* --- the index ----------------------------------------------------------------------------- */

static bool same_key(const struct matcher *a, const struct matcher *b)
{
	if (a->kind != b->kind || a->id != b->id)
		return false;
	return a->kind == MATCHER_HEADER ? str_ieq(a->name, b->name) : str_eq(a->name, b->name);
}

static bool is_indexed(const struct matcher *m)
{
	return !m->is_prefix && m->value.len <= INDEX_VALUE;
}

/* The candidate's matcher for that key, if its value can be looked up. */
static const struct matcher *find_key(const struct candidate *c, const struct matcher *key)
{
	for (size_t i = 0; i < c->matcher_count; i++) {
		if (is_indexed(&c->matchers[i]) && same_key(&c->matchers[i], key))
			return &c->matchers[i];
	}
	return NULL;
}

/*
 * What most candidates ask for, as far as it takes no longer than it may: each round takes the next
 * key that nobody asked for yet and counts. NULL: nothing worth an index.
 */
static const struct matcher *choose_key(const struct candidates *list)
{
	const struct matcher *best = NULL, *tried[INDEX_LISTS];
	size_t most = INDEX_FROM / 2, tries = 0;

	for (size_t i = 0; i < list->count && tries < INDEX_LISTS; i++) {
		const struct candidate *c = &list->items[i];

		for (size_t j = 0; j < c->matcher_count && tries < INDEX_LISTS; j++) {
			size_t count = 0, t = 0;

			while (t < tries && !same_key(tried[t], &c->matchers[j]))
				t++;
			if (t < tries || !is_indexed(&c->matchers[j]))
				continue;
			tried[tries++] = &c->matchers[j];
			for (size_t k = 0; k < list->count; k++)
				count += find_key(&list->items[k], &c->matchers[j]) != NULL;
			if (count > most) {
				most = count;
				best = &c->matchers[j];
			}
		}
	}
	return best;
}

static struct bucket *bucket_at(const struct candidate_index *index, uint64_t hash)
{
	size_t at = hash & index->mask;

	while (index->buckets[at].positions && index->buckets[at].hash != hash)
		at = (at + 1) & index->mask;
	return &index->buckets[at];
}

static bool bucket_add(struct bucket *b, uint32_t position, struct arena *a)
{
	/* Full when the count is a power of two. */
	if ((b->count & (b->count - 1)) == 0) {
		uint32_t *more = arena_alloc(a, 2UL * MAX(b->count, 1U) * sizeof(*more));

		if (!more)
			return false;
		if (b->count)
			memcpy(more, b->positions, b->count * sizeof(*more));
		b->positions = more;
	}
	b->positions[b->count++] = position;
	return true;
}

static bool make_index(struct candidates *list, struct arena *a)
{
	const struct matcher *key = choose_key(list);
	struct candidate_index *index;
	size_t slots = 1;

	if (!key)
		return true;
	while (slots < 2 * list->count)
		slots *= 2;
	index = arena_new(a, struct candidate_index);
	if (index)
		index->buckets = arena_array(a, struct bucket, slots);
	if (!index || !index->buckets)
		return false;
	index->key = *key;
	index->mask = slots - 1;
	for (size_t i = 0; i < list->count; i++) {
		const struct matcher *m = find_key(&list->items[i], key);
		uint64_t hash = m ? hash_str(m->value) : 0;
		struct bucket *b = m ? bucket_at(index, hash) : &index->rest;

		b->hash = hash;
		if (!bucket_add(b, (uint32_t)i, a))
			return false;
	}
	list->index = index;
	return true;
}

bool candidates_finish(struct candidates *list, struct arena *a)
{
	if (list->count > 1)
		qsort(list->items, list->count, sizeof(*list->items), compare_candidates);
	return list->count < INDEX_FROM || make_index(list, a);
}

/* --- matchers ------------------------------------------------------------------------------ */

static bool value_matches(const struct matcher *m, struct str value)
{
	return m->is_prefix ? str_starts(value, m->value) : str_eq(value, m->value);
}

static bool header_matches(const struct matcher *m, const struct router_request *request)
{
	if (request->preflight == ROUTER_PREFLIGHT_LAX ||
	    (request->preflight && http_list_has(request->asked_headers, m->name)))
		return true;
	for (size_t i = 0; i < request->field_count; i++) {
		const struct http_field *f = &request->fields[i];

		if (f->id == m->id && str_ieq(f->name, m->name) && value_matches(m, f->value))
			return true;
	}
	return false;
}

static bool cookie_matches(const struct matcher *m, const struct router_request *request)
{
	struct params_cookies it = { .fields = request->fields, .count = request->field_count };
	struct str name, value;

	if (request->preflight == ROUTER_PREFLIGHT_LAX)
		return true;
	while (params_next_cookie(&it, &name, &value)) {
		if (str_eq(name, m->name) && value_matches(m, value))
			return true;
	}
	return false;
}

static bool query_matches(const struct matcher *m, const struct router_request *request)
{
	struct str rest = request->query, name, value;

	while (params_next_query(&rest, &name, &value)) {
		if (params_equal(name, m->name) &&
		    (m->is_prefix ? params_begins(value, m->value) : params_equal(value, m->value)))
			return true;
	}
	return false;
}

static bool matchers_match(const struct candidate *c, const struct router_request *request)
{
	for (size_t i = 0; i < c->matcher_count; i++) {
		const struct matcher *m = &c->matchers[i];
		bool matches = m->kind == MATCHER_HEADER   ? header_matches(m, request)
			       : m->kind == MATCHER_COOKIE ? cookie_matches(m, request)
							   : query_matches(m, request);

		if (!matches)
			return false;
	}
	return true;
}

/* --- which of them come into question ------------------------------------------------------ */

/* Candidates in order, from several lists of positions. */
struct turns {
	const struct bucket *lists[INDEX_LISTS];
	uint32_t at[INDEX_LISTS];
	size_t count;
	bool is_full; /* too many values: all candidates */
	size_t next;  /* then */
};

static void turns_add(struct turns *t, const struct bucket *b)
{
	if (b->count == 0)
		return;
	/* Twice would be as right, but a request could say the same value many times. */
	for (size_t i = 0; i < t->count; i++) {
		if (t->lists[i] == b)
			return;
	}
	if (t->count == INDEX_LISTS)
		t->is_full = true;
	else
		t->lists[t->count++] = b;
}

static void turns_add_value(struct turns *t, const struct candidate_index *index, struct str value)
{
	if (value.len <= INDEX_VALUE)
		turns_add(t, bucket_at(index, hash_str(value)));
}

static void turns_add_headers(struct turns *t, const struct candidate_index *index,
			      const struct router_request *request)
{
	for (size_t i = 0; i < request->field_count; i++) {
		const struct http_field *f = &request->fields[i];

		if (f->id == index->key.id && str_ieq(f->name, index->key.name))
			turns_add_value(t, index, f->value);
	}
}

static void turns_add_cookies(struct turns *t, const struct candidate_index *index,
			      const struct router_request *request)
{
	struct params_cookies it = { .fields = request->fields, .count = request->field_count };
	struct str name, value;

	while (params_next_cookie(&it, &name, &value)) {
		if (str_eq(name, index->key.name))
			turns_add_value(t, index, value);
	}
}

static void turns_add_queries(struct turns *t, const struct candidate_index *index,
			      const struct router_request *request)
{
	struct str rest = request->query, name, value, decoded;
	char text[INDEX_VALUE];

	while (params_next_query(&rest, &name, &value)) {
		if (params_equal(name, index->key.name) &&
		    params_decode_into(text, sizeof(text), value, &decoded))
			turns_add_value(t, index, decoded);
	}
}

static void turns_init(struct turns *t, const struct candidates *list,
		       const struct router_request *request)
{
	*t = (struct turns) { .is_full = !list->index || request->preflight };
	if (t->is_full)
		return;
	turns_add(t, &list->index->rest);
	switch (list->index->key.kind) {
	case MATCHER_HEADER:
		turns_add_headers(t, list->index, request);
		break;
	case MATCHER_COOKIE:
		turns_add_cookies(t, list->index, request);
		break;
	case MATCHER_QUERY:
	default:
		turns_add_queries(t, list->index, request);
	}
}

static const struct candidate *turns_next(struct turns *t, const struct candidates *list)
{
	size_t first = INDEX_LISTS;
	uint32_t position = UINT32_MAX;

	if (t->is_full)
		return t->next < list->count ? &list->items[t->next++] : NULL;
	for (size_t i = 0; i < t->count; i++) {
		const struct bucket *b = t->lists[i];

		if (t->at[i] < b->count && b->positions[t->at[i]] < position) {
			position = b->positions[t->at[i]];
			first = i;
		}
	}
	if (first == INDEX_LISTS)
		return NULL;
	t->at[first]++;
	return &list->items[position];
}

/* --- matching ------------------------------------------------------------------------------ */

/* How much the request's fields of that name want one of the types; 0: not at all. */
static unsigned field_quality(const struct candidates_query *q, enum http_name id,
			      const struct str *types, size_t count)
{
	const struct router_request *request = q->request;
	bool is_accept = id == HTTP_ACCEPT, is_there = false;
	unsigned best = 0;

	for (size_t i = 0; i < request->field_count; i++) {
		if (request->fields[i].id != id || request->fields[i].name.len == 0)
			continue;
		is_there = true;
		for (size_t j = 0; j < count; j++)
			best = MAX(best, media_quality(request->fields[i].value, types[j],
						       is_accept && q->wildcards));
	}
	return !is_there && is_accept && q->wildcards ? 1000 : best;
}

/* Tries a route whose other matchers fit. 0, or how much the client wants it. */
static unsigned candidate_quality(const struct candidate *c, struct candidates_query *q)
{
	bool has_method = c->methods == UINT64_MAX || c->methods & q->method;
	unsigned quality = 1000;

	if (c->content_type_count && !q->request->preflight &&
	    !field_quality(q, HTTP_CONTENT_TYPE, c->content_types, c->content_type_count)) {
		q->lacks_content_type |= has_method;
		return 0;
	}
	if (c->accept_count && q->request->preflight != ROUTER_PREFLIGHT_LAX)
		quality = field_quality(q, HTTP_ACCEPT, c->accepts, c->accept_count);
	if (!quality)
		q->lacks_accept |= has_method;
	else if (!has_method)
		q->allow |= c->methods;
	return has_method ? quality : 0;
}

const struct candidate *candidates_match(const struct candidates *list, struct candidates_query *q)
{
	const struct candidate *found = NULL, *c;
	unsigned best = 0;
	struct turns turns;

	if (list->count == 0)
		return NULL;
	turns_init(&turns, list, q->request);
	while (best < 1000 && (c = turns_next(&turns, list))) {
		unsigned quality;

		if (found && c->rank != found->rank)
			break;
		if (!matchers_match(c, q->request))
			continue;
		quality = candidate_quality(c, q);
		if (quality > best) {
			best = quality;
			found = c;
		}
	}
	return found;
}
