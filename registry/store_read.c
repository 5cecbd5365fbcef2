/* SPDX-License-Identifier: Apache-2.0 */
/* What readers of the store see. */
#include "registry/store_private.h"

uint64_t reg_store_index(const struct reg_store *s)
{
	return s->index;
}

uint64_t reg_store_history_index(const struct reg_store *s)
{
	return s->history_index;
}

const struct reg_app *reg_store_app(const struct reg_store *s, struct str app)
{
	return reg_store_find_app(s, app);
}

uint64_t reg_app_index(const struct reg_store *s, const struct reg_app *app)
{
	/* What was given out before this life of the registry says nothing about now. */
	return app ? MAX(app->index, s->start_index) : s->history_index;
}

const char *reg_app_get_name(const struct reg_app *app)
{
	return app->name;
}

size_t reg_app_count(const struct reg_app *app)
{
	return app->count;
}

const struct reg_app *reg_store_next_app(const struct reg_store *s, const struct reg_app *app)
{
	const struct list *next = app ? app->node.next : s->apps.next;

	return next == &s->apps ? NULL : container_of((uintptr_t)next, const struct reg_app, node);
}

const struct reg_entry *reg_app_next(const struct reg_app *app, const struct reg_entry *entry)
{
	const struct list *next = entry ? entry->in_app.next : app->instances.next;

	return next == &app->instances
		       ? NULL
		       : container_of((uintptr_t)next, const struct reg_entry, in_app);
}

const struct reg_entry *reg_store_find(const struct reg_store *s, struct str app, struct str id)
{
	return reg_store_find_entry(s, app, id);
}

static const struct reg_entry *change_at(const struct reg_store *s, const struct list *node)
{
	return node == &s->changes
		       ? NULL
		       : container_of((uintptr_t)node, const struct reg_entry, in_changes);
}

/* From the end: who asks is seldom far behind. */
const struct reg_entry *reg_store_change_after(const struct reg_store *s, uint64_t index)
{
	const struct list *at = &s->changes;

	for (;;) {
		const struct reg_entry *e = change_at(s, at->prev);

		if (!e || e->index <= index)
			return change_at(s, at);
		at = at->prev;
	}
}

const struct reg_entry *reg_store_change_since(const struct reg_store *s, uint64_t at_ms)
{
	const struct list *at = &s->changes;

	for (;;) {
		const struct reg_entry *e = change_at(s, at->prev);

		if (!e || e->changed_ms < at_ms)
			return change_at(s, at);
		at = at->prev;
	}
}

const struct reg_entry *reg_store_next_change(const struct reg_store *s,
					      const struct reg_entry *entry)
{
	return change_at(s, entry->in_changes.next);
}

const struct reg_entry *reg_store_previous_change(const struct reg_store *s,
						  const struct reg_entry *entry)
{
	return change_at(s, entry ? entry->in_changes.prev : s->changes.prev);
}

const char *reg_entry_app(const struct reg_entry *e)
{
	return e->app->name;
}

enum reg_change reg_entry_change(const struct reg_entry *e)
{
	return e->change;
}

uint64_t reg_entry_index(const struct reg_entry *e)
{
	return e->index;
}

uint64_t reg_entry_renewed_ms(const struct reg_entry *e)
{
	return e->renewed_ms;
}

uint64_t reg_entry_changed_ms(const struct reg_entry *e)
{
	return e->changed_ms;
}

bool reg_entry_is_held(const struct reg_entry *e)
{
	return e->is_held;
}

const struct reg_store_stats *reg_store_stats(const struct reg_store *s)
{
	return &s->stats;
}
