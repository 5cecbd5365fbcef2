/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/versions.h"

#include <pthread.h>

#include "gateway/analytics/analytics.h"
#include "gateway/request.h"
#include "gateway/snapshot.h"
#include "lib/hash.h"

#define DRAWN 8

/* One route's version; there are as many as the configurations had. */
struct total {
	struct hmap_node node;
	struct str route, version;
	struct versions_sum sum;
	char text[];
};

struct versions {
	pthread_mutex_t lock; /* the worker's own but for a report now and then */
	struct hmap totals, consumers;
	struct versions_consumer *all[VERSIONS_CONSUMERS_MAX];
};

struct versions *versions_new(void)
{
	struct versions *v = calloc(1, sizeof(*v));

	if (v)
		pthread_mutex_init(&v->lock, NULL);
	return v;
}

void versions_free(struct versions *v)
{
	if (!v)
		return;
	hmap_for_each (node, &v->totals)
		free(container_of(node, struct total, node));
	hmap_fini(&v->totals);
	for (size_t i = 0; i < v->consumers.count; i++)
		free(v->all[i]);
	hmap_fini(&v->consumers);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

/* --- counting ------------------------------------------------------------------------------ */

static uint64_t hash_version(struct str route, struct str version)
{
	return hash_str(route) ^ hash_mix64(hash_str(version));
}

static struct str put(char **at, struct str s)
{
	struct str copy = str_of(*at, s.len);

	if (s.len)
		*at = mempcpy(*at, s.p, s.len);
	return copy;
}

static struct total *total_find(const struct versions *v, struct str route, struct str version)
{
	uint64_t hash = hash_version(route, version);

	for (struct hmap_node *n = hmap_first(&v->totals, hash); n; n = hmap_next(n)) {
		struct total *t = container_of(n, struct total, node);

		if (str_eq(t->route, route) && str_eq(t->version, version))
			return t;
	}
	return NULL;
}

static struct total *total_get(struct versions *v, struct str route, struct str version)
{
	struct total *t = total_find(v, route, version);
	char *at;

	if (t)
		return t;
	t = calloc(1, sizeof(*t) + route.len + version.len + 1);
	if (!t)
		return NULL;
	at = t->text;
	t->route = put(&at, route);
	t->version = put(&at, version);
	if (hmap_insert(&v->totals, &t->node, hash_version(route, version)) == 0)
		return t;
	free(t);
	return NULL;
}

static bool is_consumer(const struct versions_consumer *a, const struct versions_consumer *b)
{
	return a->kind == b->kind && str_eq(a->name, b->name) && str_eq(a->route, b->route) &&
	       str_eq(a->version, b->version);
}

/* Room for one more; what it takes is counted where it was. */
static size_t make_room(struct versions *v)
{
	struct versions_consumer *gone = NULL;
	struct total *t;
	size_t index;

	if (v->consumers.count < VERSIONS_CONSUMERS_MAX)
		return v->consumers.count;
	for (int i = 0; i < DRAWN; i++) {
		struct versions_consumer *c = v->all[random_fast() % VERSIONS_CONSUMERS_MAX];

		if (!gone || c->last_ms < gone->last_ms)
			gone = c;
	}
	t = total_find(v, gone->route, gone->version);
	if (t)
		t->sum.forgotten++;
	index = gone->index;
	hmap_remove(&v->consumers, &gone->node);
	free(gone);
	return index;
}

static struct versions_consumer *consumer_get(struct versions *v,
					      const struct versions_consumer *like)
{
	uint64_t hash = hash_version(like->route, like->version) ^
			hash_mix64(hash_str(like->name) + like->kind);
	struct versions_consumer *c;
	char *at;

	for (struct hmap_node *n = hmap_first(&v->consumers, hash); n; n = hmap_next(n)) {
		c = container_of(n, struct versions_consumer, node);
		if (is_consumer(c, like))
			return c;
	}
	c = calloc(1, sizeof(*c) + like->route.len + like->version.len + like->name.len + 1);
	if (!c)
		return NULL;
	at = c->text;
	c->route = put(&at, like->route);
	c->version = put(&at, like->version);
	c->name = put(&at, like->name);
	c->kind = like->kind;
	c->index = make_room(v);
	v->all[c->index] = c;
	if (hmap_insert(&v->consumers, &c->node, hash) == 0)
		return c;
	/* The place was the last one, or was emptied just now: it must not stay empty. */
	if (c->index < v->consumers.count) {
		v->all[c->index] = v->all[v->consumers.count];
		v->all[c->index]->index = c->index;
	}
	free(c);
	return NULL;
}

static void widen(uint64_t *first, uint64_t *last, uint64_t first_ms, uint64_t last_ms)
{
	if (!*first || first_ms < *first)
		*first = first_ms;
	if (last_ms > *last)
		*last = last_ms;
}

void versions_note(struct versions *v, const struct request *r)
{
	const struct gw_route *route = r->route->conf;
	struct versions_consumer who = { .route = route->name, .version = route->version->name };
	struct versions_consumer *c;
	struct total *t;

	who.kind = analytics_consumer(r, &who.name);
	who.name.len = MIN(who.name.len, (size_t)TALLY_NAME_MAX);
	pthread_mutex_lock(&v->lock);
	t = total_get(v, who.route, who.version);
	c = consumer_get(v, &who);
	if (t) {
		t->sum.requests++;
		widen(&t->sum.first_ms, &t->sum.last_ms, r->wall_ms, r->wall_ms);
	}
	if (c) {
		c->requests++;
		widen(&c->first_ms, &c->last_ms, r->wall_ms, r->wall_ms);
	}
	pthread_mutex_unlock(&v->lock);
}

/* --- reports ------------------------------------------------------------------------------- */

void versions_merge(struct versions *to, struct versions *from)
{
	pthread_mutex_lock(&from->lock);
	hmap_for_each (node, &from->totals) {
		const struct total *t = container_of(node, struct total, node);
		struct total *sum = total_get(to, t->route, t->version);

		if (!sum)
			continue;
		sum->sum.requests += t->sum.requests;
		sum->sum.forgotten += t->sum.forgotten;
		if (t->sum.requests)
			widen(&sum->sum.first_ms, &sum->sum.last_ms, t->sum.first_ms,
			      t->sum.last_ms);
	}
	for (size_t i = 0; i < from->consumers.count; i++) {
		const struct versions_consumer *c = from->all[i];
		struct versions_consumer *sum = consumer_get(to, c);

		if (!sum)
			continue;
		sum->requests += c->requests;
		widen(&sum->first_ms, &sum->last_ms, c->first_ms, c->last_ms);
	}
	pthread_mutex_unlock(&from->lock);
}

void versions_get(const struct versions *v, struct str route, struct str version,
		  struct versions_sum *out)
{
	const struct total *t = total_find(v, route, version);

	*out = t ? t->sum : (struct versions_sum) { 0 };
}

static int compare(const void *a, const void *b)
{
	const struct versions_consumer *x = *(const struct versions_consumer *const *)a;
	const struct versions_consumer *y = *(const struct versions_consumer *const *)b;

	if (x->requests != y->requests)
		return x->requests < y->requests ? 1 : -1;
	return (x->last_ms < y->last_ms) - (x->last_ms > y->last_ms);
}

size_t versions_top(const struct versions *v, struct str route, struct str version,
		    const struct versions_consumer **out, size_t max)
{
	const struct versions_consumer **all = calloc(v->consumers.count + 1, sizeof(*all));
	size_t n = 0;

	if (!all)
		return 0;
	for (size_t i = 0; i < v->consumers.count; i++) {
		const struct versions_consumer *c = v->all[i];

		if (str_eq(c->route, route) && str_eq(c->version, version))
			all[n++] = c;
	}
	qsort(all, n, sizeof(*all), compare);
	n = MIN(n, max);
	memcpy(out, all, n * sizeof(*all));
	free(all);
	return n;
}
