/* SPDX-License-Identifier: Apache-2.0 */
/* The instances of one watched app: from events to lists that never change. */
#include <stdlib.h>

#include "lib/cleanup.h"
#include "registry/client_private.h"

/* --- lists ----------------------------------------------------------------------------------- */

struct counted_list {
	struct reg_list list;
	unsigned refs; /* atomic */
	struct arena arena;
};

struct reg_list *reg_list_ref(struct reg_list *list)
{
	struct counted_list *c = container_of(list, struct counted_list, list);

	__atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
	return list;
}

void reg_list_unref(struct reg_list **listp)
{
	struct reg_list *list = TAKE_PTR(*listp);
	struct counted_list *c;

	if (!list)
		return;
	c = container_of(list, struct counted_list, list);
	if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL))
		return;
	arena_fini(&c->arena);
	free(c);
}

static bool copy_text(struct arena *a, struct str *s)
{
	*s = arena_str(a, *s);
	return s->p != NULL;
}

static bool copy_instance(struct arena *a, struct reg_instance *out,
			  const struct reg_instance *from)
{
	*out = *from;
	return copy_text(a, &out->id) && copy_text(a, &out->address) && copy_text(a, &out->zone) &&
	       copy_text(a, &out->version) && copy_text(a, &out->metadata);
}

static struct reg_list *list_make(const struct reg_watched *w)
{
	struct counted_list *c = calloc(1, sizeof(*c));
	struct reg_list *list;
	struct reg_instance *instances;
	size_t n = 0;

	if (!c)
		return NULL;
	list = &c->list;
	c->refs = 1;
	arena_init(&c->arena, 16384, 0);
	instances = arena_array(&c->arena, struct reg_instance, w->item_count + 1);
	*list = (struct reg_list) {
		.app = arena_str(&c->arena, str_from(w->app)),
		.index = w->index,
		.is_from_cache = w->is_from_cache,
		.instances = instances,
	};
	if (!instances || !list->app.p) {
		reg_list_unref(&list);
		return NULL;
	}
	list_for_each (node, &w->items) {
		const struct reg_item *item = container_of(node, struct reg_item, node);

		if (!copy_instance(&c->arena, &instances[n++], &item->instance)) {
			reg_list_unref(&list);
			return NULL;
		}
	}
	list->count = n;
	return list;
}

static bool same_instance(const struct reg_instance *a, const struct reg_instance *b)
{
	return str_eq(a->id, b->id) && str_eq(a->address, b->address) && a->port == b->port &&
	       a->weight == b->weight && a->is_secure == b->is_secure && a->status == b->status &&
	       a->override == b->override && str_eq(a->zone, b->zone) &&
	       str_eq(a->version, b->version) && str_eq(a->metadata, b->metadata);
}

static bool same_list(const struct reg_list *a, const struct reg_list *b)
{
	if (a->count != b->count || a->is_from_cache != b->is_from_cache)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (!same_instance(&a->instances[i], &b->instances[i]))
			return false;
	}
	return true;
}

void reg_watched_publish(struct reg_watched *w)
{
	struct reg_list *list;

	if (!w->is_dirty)
		return;
	list = list_make(w);
	if (!list)
		return; /* out of memory: with the next change */
	w->is_dirty = false;
	if (w->list && same_list(list, w->list)) {
		reg_list_unref(&list);
		return;
	}
	reg_list_unref(&w->list);
	w->list = list;
	/* The callback may stop the watch. */
	list = reg_list_ref(list);
	w->on_list(list, w->arg);
	reg_list_unref(&list);
}

/* --- items ----------------------------------------------------------------------------------- */

static void item_free(struct reg_item *item)
{
	list_remove(&item->node);
	arena_fini(&item->arena);
	free(item);
}

static void items_clear(struct reg_watched *w)
{
	list_for_each_safe (node, &w->items)
		item_free(container_of(node, struct reg_item, node));
	w->item_count = 0;
}

static struct reg_item *item_find(const struct reg_watched *w, struct str id)
{
	list_for_each (node, &w->items) {
		struct reg_item *item = container_of(node, struct reg_item, node);

		if (str_eq(item->instance.id, id))
			return item;
	}
	return NULL;
}

/* NULL for what is malformed: a newer registry may say things that we do not understand. */
static struct reg_item *item_read(const json_t *json)
{
	struct reg_item *item = calloc(1, sizeof(*item));
	struct reg_problem problem;

	if (!item)
		return NULL;
	list_init(&item->node);
	arena_init(&item->arena, 256, 0);
	if (reg_instance_read(&item->instance, json, str_of(NULL, 0), 30, &item->arena, &problem) <
	    0) {
		item_free(item);
		return NULL;
	}
	return item;
}

static void items_read(struct reg_watched *w, const json_t *instances)
{
	for (size_t i = 0; i < json_array_size(instances); i++) {
		struct reg_item *item = item_read(json_array_get(instances, i));

		if (!item)
			continue;
		list_add_tail(&w->items, &item->node);
		w->item_count++;
	}
}

static void watched_changed(struct reg_watched *w, uint64_t index)
{
	w->index = index;
	w->is_dirty = true;
	reg_client_changed(w->client);
}

void reg_watched_reset(struct reg_watched *w, const json_t *instances, uint64_t index,
		       bool may_empty)
{
	if (json_array_size(instances) == 0 && w->item_count && !may_empty) {
		w->is_kept = true;
		watched_changed(w, index);
		return;
	}
	items_clear(w);
	items_read(w, instances);
	w->is_kept = w->is_from_cache = false;
	w->has_answer = true;
	watched_changed(w, index);
}

void reg_watched_put(struct reg_watched *w, const json_t *instance, uint64_t index)
{
	struct reg_item *item = item_read(instance), *old;

	if (!item)
		return;
	if (w->is_kept)
		items_clear(w);
	old = item_find(w, item->instance.id);
	if (old) {
		/* In its place, so that the order of the others tells nothing. */
		list_add_tail(&old->node, &item->node);
		item_free(old);
	} else {
		list_add_tail(&w->items, &item->node);
		w->item_count++;
	}
	w->is_kept = w->is_from_cache = false;
	w->has_answer = true;
	watched_changed(w, index);
}

void reg_watched_delete(struct reg_watched *w, struct str id, uint64_t index)
{
	struct reg_item *item = item_find(w, id);

	if (!item)
		return;
	item_free(item);
	w->item_count--;
	watched_changed(w, index);
}

void reg_watched_from_cache(struct reg_watched *w, const json_t *instances)
{
	items_read(w, instances);
	if (!w->item_count)
		return;
	w->is_from_cache = true;
	watched_changed(w, 0);
}

struct reg_watched *reg_watched_new(struct reg_client *client, const char *app)
{
	struct reg_watched *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->client = client;
	memcpy(w->app, app, strlen(app) + 1);
	list_init(&w->items);
	list_add_tail(&client->watched, &w->node);
	return w;
}

void reg_watched_free(struct reg_watched *w)
{
	http_call_cancel(&w->call);
	list_remove(&w->node);
	items_clear(w);
	reg_list_unref(&w->list);
	free(w);
}
