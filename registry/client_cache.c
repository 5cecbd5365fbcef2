/* SPDX-License-Identifier: Apache-2.0 */
/* The last known lists on disk, in the form of GET /v1/apps: for a start without a registry. */
#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "registry/client_private.h"
#include "registry/snapshot.h"

#define SAVE_SOON_MS  50   /* changes that come together are one write */
#define SAVE_EVERY_MS 1000 /* and a busy registry does not make a busy disk */

void reg_client_cache_load(struct reg_client *c)
{
	json_error_t error;
	struct err err;
	struct buf text;
	int r;

	if (!c->cache_path)
		return;
	buf_init(&text, 0);
	r = reg_snapshot_load(c->cache_path, &text, &err);
	if (r == 0) {
		c->cache = json_loadb(buf_data(&text), buf_len(&text), 0, &error);
		if (!c->cache)
			err_set(&err, -EBADMSG, "%s: no valid JSON: %s; starting without",
				c->cache_path, error.text);
	}
	buf_fini(&text);
	if (!c->cache && r != -ENOENT)
		reg_client_tell(c, REG_CLIENT_CACHE, "%s", err.text);
}

const json_t *reg_client_cached(const struct reg_client *c, const char *app)
{
	const json_t *apps = json_object_get(c->cache, "apps");

	for (size_t i = 0; i < json_array_size(apps); i++) {
		const json_t *entry = json_array_get(apps, i);
		const char *name = json_string_value(json_object_get(entry, "app"));

		if (name && strcmp(name, app) == 0)
			return json_object_get(entry, "instances");
	}
	return NULL;
}

static void cache_write(const struct reg_client *c, struct buf *out)
{
	struct json_writer j = json_writer(out);

	json_open(&j, NULL, '{');
	json_open(&j, "apps", '[');
	list_for_each (node, &c->watched) {
		const struct reg_watched *w = container_of(node, struct reg_watched, node);

		if (!w->item_count)
			continue;
		json_open(&j, NULL, '{');
		json_addz(&j, "app", w->app);
		json_open(&j, "instances", '[');
		list_for_each (at, &w->items)
			reg_instance_write(&j, NULL, NULL,
					   &container_of(at, struct reg_item, node)->instance);
		json_close(&j, ']');
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
	buf_putc(out, '\n');
}

static void cache_save(struct reg_client *c)
{
	struct err err = { "out of memory" };
	struct buf text;
	int r = -ENOMEM;

	buf_init(&text, 0);
	cache_write(c, &text);
	if (!buf_failed(&text))
		r = reg_snapshot_save(c->cache_path, buf_str(&text), &err);
	buf_fini(&text);
	if (r < 0 && !c->is_cache_failing)
		reg_client_tell(c, REG_CLIENT_CACHE, "%s", err.text);
	c->is_cache_failing = r < 0;
}

static void cache_on_save(struct loop_timer *timer)
{
	struct reg_client *c = container_of(timer, struct reg_client, save);

	c->saved_ms = loop_now_ms(c->loop);
	cache_save(c);
}

void reg_client_cache_touch(struct reg_client *c)
{
	uint64_t since;

	if (!c->cache_path || loop_timer_is_pending(&c->save))
		return;
	since = loop_now_ms(c->loop) - c->saved_ms;
	c->save.on_fire = cache_on_save;
	loop_timer_start(
		c->loop, &c->save,
		MAX(SAVE_EVERY_MS - MIN(since, (uint64_t)SAVE_EVERY_MS), (uint64_t)SAVE_SOON_MS));
}

void reg_client_cache_fini(struct reg_client *c)
{
	if (loop_timer_is_pending(&c->save)) {
		loop_timer_stop(c->loop, &c->save);
		cache_save(c);
	}
	json_decref(c->cache);
	free(c->cache_path);
}
