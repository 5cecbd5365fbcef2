/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/tally.h"

#include "lib/hash.h"

#define DRAWN 8 /* of which the least goes */

const char *const tally_kinds[TALLY_KINDS] = { "user", "api_key", "address" };

struct tally *tally_new(size_t endpoint_max, size_t user_max)
{
	struct tally *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->refs = 1;
	t->endpoint_max = endpoint_max;
	t->user_max = user_max;
	return t;
}

struct tally *tally_ref(struct tally *t)
{
	__atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
	return t;
}

void tally_put(struct tally **tp)
{
	struct tally *t = *tp;

	*tp = NULL;
	if (!t || __atomic_fetch_sub(&t->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	hmap_for_each (node, &t->endpoint_map)
		free(container_of(node, struct tally_endpoint, node));
	hmap_fini(&t->endpoint_map);
	for (size_t i = 0; i < t->user_map.count; i++)
		free(t->users[i]);
	hmap_fini(&t->user_map);
	free(t->users);
	free(t);
}

static struct str cut(struct str s)
{
	return str_of(s.p, s.len > TALLY_NAME_MAX ? TALLY_NAME_MAX : s.len);
}

/* --- endpoints ----------------------------------------------------------------------------- */

static uint64_t endpoint_hash(struct str endpoint, struct str version, struct str route)
{
	uint64_t h = hash_str(endpoint);

	if (version.len)
		h ^= hash_mix64(hash_str(version));
	return h ^ hash_mix64(hash_str(route) + 1);
}

static struct str put(char **at, struct str s)
{
	struct str copy = str_of(*at, s.len);

	if (s.len)
		*at = mempcpy(*at, s.p, s.len);
	return copy;
}

static struct tally_endpoint *endpoint_add(struct tally *t, struct str endpoint, struct str version,
					   struct str route, uint64_t hash)
{
	struct tally_endpoint *e = calloc(1,
					  sizeof(*e) + endpoint.len + version.len + route.len + 1);
	char *at;

	if (!e)
		return NULL;
	at = e->text;
	e->endpoint = put(&at, endpoint);
	e->version = put(&at, version);
	e->route = put(&at, route);
	if (hmap_insert(&t->endpoint_map, &e->node, hash) < 0) {
		free(e);
		return NULL;
	}
	return e;
}

/* NULL when out of memory. */
static struct tally_endpoint *endpoint_get(struct tally *t, struct str endpoint, struct str version,
					   struct str route)
{
	uint64_t hash = endpoint_hash(endpoint, version, route);

	for (struct hmap_node *n = hmap_first(&t->endpoint_map, hash); n; n = hmap_next(n)) {
		struct tally_endpoint *e = container_of(n, struct tally_endpoint, node);

		if (str_eq(e->endpoint, endpoint) && str_eq(e->version, version) &&
		    str_eq(e->route, route))
			return e;
	}
	if (t->endpoint_map.count < t->endpoint_max || str_eq(endpoint, TALLY_OTHER))
		return endpoint_add(t, endpoint, version, route, hash);
	return endpoint_get(t, TALLY_OTHER, STR(""), STR(""));
}

/* --- users --------------------------------------------------------------------------------- */

static struct tally_user *user_find(const struct tally *t, enum tally_kind kind, struct str name,
				    uint64_t hash)
{
	for (struct hmap_node *n = hmap_first(&t->user_map, hash); n; n = hmap_next(n)) {
		struct tally_user *u = container_of(n, struct tally_user, node);

		if (u->kind == kind && str_eq(u->name, name))
			return u;
	}
	return NULL;
}

static struct tally_user *least_of_some(const struct tally *t)
{
	struct tally_user *least = NULL;

	for (int i = 0; i < DRAWN; i++) {
		struct tally_user *u = t->users[random_fast() % t->user_map.count];

		if (!least || u->requests < least->requests)
			least = u;
	}
	return least;
}

static struct tally_user *user_get(struct tally *t, enum tally_kind kind, struct str name)
{
	uint64_t hash = hash_str(name) ^ hash_mix64(kind);
	struct tally_user *u = user_find(t, kind, name, hash), *gone = NULL;
	size_t index = t->user_map.count;

	if (u)
		return u;
	if (!t->users)
		t->users = calloc(t->user_max, sizeof(struct tally_user *));
	u = calloc(1, sizeof(*u) + name.len + 1);
	if (!u || !t->users)
		goto failed;
	*u = (struct tally_user) { .kind = kind, .name = str_of(u->text, name.len) };
	if (name.len)
		memcpy(u->text, name.p, name.len);
	if (index == t->user_max) {
		gone = least_of_some(t);
		index = gone->index;
		u->requests = u->uncertain = gone->requests;
		hmap_remove(&t->user_map, &gone->node);
	}
	u->index = index;
	t->users[index] = u;
	if (hmap_insert(&t->user_map, &u->node, hash) == 0) {
		free(gone);
		return u;
	}
	/* What was removed just now fits in again. */
	if (gone && hmap_insert(&t->user_map, &gone->node, gone->node.hash) == 0)
		t->users[index] = gone;
failed:
	free(u);
	return NULL;
}

/* --- both ---------------------------------------------------------------------------------- */

void tally_note(struct tally *t, const struct tally_request *r)
{
	struct tally_endpoint *e = endpoint_get(t, cut(r->endpoint), cut(r->version),
						cut(r->route));
	struct tally_user *u = user_get(t, r->kind, cut(r->user));

	t->requests++;
	if (e) {
		e->status_class[r->status_class]++;
		e->limited += r->is_limited;
		metrics_observe_us(&e->latency, r->latency_us);
	}
	if (u) {
		u->requests++;
		u->errors += r->status_class == 5;
		u->limited += r->is_limited;
	}
}

void tally_merge(struct tally *to, const struct tally *from)
{
	to->requests += from->requests;
	hmap_for_each (node, &from->endpoint_map) {
		const struct tally_endpoint *e = container_of(node, struct tally_endpoint, node);
		struct tally_endpoint *sum = endpoint_get(to, e->endpoint, e->version, e->route);

		if (!sum)
			continue;
		for (int i = 0; i < 6; i++)
			sum->status_class[i] += e->status_class[i];
		sum->limited += e->limited;
		metrics_histogram_add(&sum->latency, &e->latency);
	}
	for (size_t i = 0; i < from->user_map.count; i++) {
		const struct tally_user *u = from->users[i];
		struct tally_user *sum = user_get(to, u->kind, u->name);

		if (!sum)
			continue;
		sum->requests += u->requests;
		sum->errors += u->errors;
		sum->limited += u->limited;
		sum->uncertain += u->uncertain;
	}
}

/* --- the most ------------------------------------------------------------------------------ */

uint64_t tally_endpoint_requests(const struct tally_endpoint *e)
{
	uint64_t n = 0;

	for (int i = 0; i < 6; i++)
		n += e->status_class[i];
	return n;
}

static int str_compare(struct str a, struct str b)
{
	int order = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_endpoints(const void *a, const void *b)
{
	const struct tally_endpoint *x = *(const struct tally_endpoint *const *)a;
	const struct tally_endpoint *y = *(const struct tally_endpoint *const *)b;
	uint64_t m = tally_endpoint_requests(x), n = tally_endpoint_requests(y);

	return m != n ? (m < n ? 1 : -1) : str_compare(x->endpoint, y->endpoint);
}

size_t tally_top_endpoints(const struct tally *t, const struct tally_endpoint **out, size_t max)
{
	const struct tally_endpoint **all = calloc(t->endpoint_map.count + 1, sizeof(*all));
	size_t n = 0;

	if (!all)
		return 0;
	hmap_for_each (node, &t->endpoint_map)
		all[n++] = container_of(node, struct tally_endpoint, node);
	qsort(all, n, sizeof(*all), compare_endpoints);
	n = MIN(n, max);
	memcpy(out, all, n * sizeof(*all));
	free(all);
	return n;
}

static int compare_requests(const void *a, const void *b)
{
	const struct tally_user *x = *(const struct tally_user *const *)a;
	const struct tally_user *y = *(const struct tally_user *const *)b;

	return x->requests != y->requests ? (x->requests < y->requests ? 1 : -1)
					  : str_compare(x->name, y->name);
}

static int compare_limited(const void *a, const void *b)
{
	const struct tally_user *x = *(const struct tally_user *const *)a;
	const struct tally_user *y = *(const struct tally_user *const *)b;

	return x->limited != y->limited ? (x->limited < y->limited ? 1 : -1)
					: str_compare(x->name, y->name);
}

size_t tally_top_users(const struct tally *t, const struct tally_user **out, size_t max,
		       bool by_limited)
{
	const struct tally_user **all = calloc(t->user_map.count + 1, sizeof(*all));
	size_t n = 0;

	if (!all)
		return 0;
	for (size_t i = 0; i < t->user_map.count; i++) {
		if (!by_limited || t->users[i]->limited)
			all[n++] = t->users[i];
	}
	qsort(all, n, sizeof(*all), by_limited ? compare_limited : compare_requests);
	n = MIN(n, max);
	memcpy(out, all, n * sizeof(*all));
	free(all);
	return n;
}
