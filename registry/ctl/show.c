/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of what is registered, and of the registry itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/table.h"
#include "registry/ctl/ctl.h"

/* --- printing -------------------------------------------------------------------------------- */

void ctl_print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

const char *ctl_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text && text[0] ? text : "-";
}

static long long number_of(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* "k=v k2=v2", without anything that would disturb a terminal. */
static void metadata_text(const json_t *instance, struct buf *out)
{
	const char *key;
	json_t *value;

	json_object_foreach (json_object_get(instance, "metadata"), key, value) {
		if (buf_len(out))
			buf_putc(out, ' ');
		for (const char *p = key; *p; p++)
			buf_putc(out, (unsigned char)*p < 0x20 ? '?' : *p);
		buf_putc(out, '=');
		for (const char *p = json_string_value(value); p && *p; p++)
			buf_putc(out, (unsigned char)*p < 0x20 ? '?' : *p);
	}
	if (!buf_len(out))
		buf_putc(out, '-');
}

void ctl_address(const json_t *instance, char *out, size_t size)
{
	const char *address = ctl_text(instance, "address");
	bool is_v6 = strchr(address, ':') != NULL;

	snprintf(out, size, "%s%s%s:%lld", is_v6 ? "[" : "", address, is_v6 ? "]" : "",
		 number_of(instance, "port"));
}

static void add_instance(struct table *t, const char *app, const json_t *instance)
{
	const json_t *override = json_object_get(instance, "override");
	struct buf metadata;
	char address[96];

	buf_init(&metadata, 0);
	metadata_text(instance, &metadata);
	ctl_address(instance, address, sizeof(address));
	table_cell(t, "%s", app);
	table_cell(t, "%s", ctl_text(instance, "id"));
	table_cell(t, "%s", address);
	table_cell(t, "%s%s", ctl_text(instance, "status"), override ? " (set)" : "");
	table_cell(t, "%s", ctl_text(instance, "zone"));
	table_cell(t, "%lld", number_of(instance, "weight"));
	table_cell(t, "%s", ctl_text(instance, "version"));
	table_cell(t, "%lld s", number_of(instance, "lease_s"));
	table_cell(t, "%.*s", (int)MIN(buf_len(&metadata), (size_t)200), buf_data(&metadata));
	buf_fini(&metadata);
}

struct named_app {
	const char *name;
	const json_t *instances;
};

static int compare_apps(const void *a, const void *b)
{
	return strcmp(((const struct named_app *)a)->name, ((const struct named_app *)b)->name);
}

/* The apps of a list, by name. NULL when out of memory. */
static struct named_app *sorted_apps(const json_t *json, size_t *count)
{
	const json_t *apps = json_object_get(json, "apps");
	struct named_app *sorted;

	*count = json_array_size(apps);
	sorted = calloc(*count + 1, sizeof(*sorted));
	if (!sorted)
		return NULL;
	for (size_t i = 0; i < *count; i++) {
		sorted[i].name = ctl_text(json_array_get(apps, i), "app");
		sorted[i].instances = json_object_get(json_array_get(apps, i), "instances");
	}
	qsort(sorted, *count, sizeof(*sorted), compare_apps);
	return sorted;
}

/* --- commands -------------------------------------------------------------------------------- */

int ctl_apps(const struct ctl *o, int argc, char **argv)
{
	static const char *const header[] = { "APP", ">INSTANCES", ">UP", ">NOT UP", NULL };
	CLEANUP(ctl_cleanup_json) json_t *json = NULL;
	CLEANUP(cleanup_free) struct named_app *apps = NULL;
	struct table *t;
	size_t count;
	int r = ctl_ask(o, METHOD_GET, STR("/v1/apps"), STR(""), &json);

	(void)argc;
	(void)argv;
	if (r != DONE)
		return r;
	if (o->wants_json) {
		ctl_print_json(json);
		return DONE;
	}
	apps = sorted_apps(json, &count);
	t = table_new(header);
	if (!apps || !t)
		return ctl_fail("out of memory");
	for (size_t i = 0; i < count; i++) {
		const json_t *instances = apps[i].instances;
		size_t all = json_array_size(instances), up = 0;

		for (size_t n = 0; n < all; n++)
			up += strcmp(ctl_text(json_array_get(instances, n), "status"), "UP") == 0;
		table_cell(t, "%s", apps[i].name);
		table_cell(t, "%zu", all);
		table_cell(t, "%zu", up);
		table_cell(t, "%zu", all - up);
	}
	table_print(t);
	return DONE;
}

static void add_query(struct buf *path, char *separator, const char *name, const char *value)
{
	if (!value)
		return;
	buf_putc(path, *separator);
	*separator = '&';
	buf_addz(path, name);
	buf_putc(path, '=');
	http_encode(path, str_from(value));
}

static void add_instances(struct table *t, const char *app, const json_t *instances)
{
	for (size_t i = 0; i < json_array_size(instances); i++)
		add_instance(t, app, json_array_get(instances, i));
}

static int print_instances(const json_t *json)
{
	static const char *const header[] = { "APP",     "ID",      "ADDRESS", "STATUS",   "ZONE",
					      ">WEIGHT", "VERSION", ">LEASE",  "METADATA", NULL };
	CLEANUP(cleanup_free) struct named_app *apps = NULL;
	struct table *t = table_new(header);
	size_t count;

	apps = sorted_apps(json, &count);
	if (!t || !apps)
		return ctl_fail("out of memory");
	for (size_t i = 0; i < count; i++)
		add_instances(t, apps[i].name, apps[i].instances);
	add_instances(t, ctl_text(json, "app"), json_object_get(json, "instances"));
	table_print(t);
	return DONE;
}

int ctl_instances(const struct ctl *o, int argc, char **argv)
{
	CLEANUP(ctl_cleanup_json) json_t *json = NULL;
	char separator = '?';
	struct buf path;
	int r;

	buf_init(&path, 0);
	if (argc)
		ctl_add_path(&path, argv[0], NULL, "");
	else
		buf_addz(&path, "/v1/apps");
	add_query(&path, &separator, "zone", o->zone);
	add_query(&path, &separator, "status", o->status);
	r = ctl_ask(o, METHOD_GET, buf_str(&path), STR(""), &json);
	buf_fini(&path);
	if (r != DONE)
		return r;
	if (!o->wants_json)
		return print_instances(json);
	ctl_print_json(json);
	return DONE;
}

int ctl_registry(const struct ctl *o)
{
	const char *const header[] = { "REGISTRY", o->url, NULL };
	CLEANUP(ctl_cleanup_json) json_t *json = NULL;
	const json_t *instances, *preservation, *snapshot, *problem;
	const char *name;
	json_t *value;
	struct table *t;
	int r = ctl_ask(o, METHOD_GET, STR("/status"), STR(""), &json);

	if (r != DONE)
		return r;
	if (o->wants_json) {
		ctl_print_json(json);
		return DONE;
	}
	t = table_new(header);
	if (!t)
		return ctl_fail("out of memory");
	instances = json_object_get(json, "instances");
	preservation = json_object_get(json, "self_preservation");
	snapshot = json_object_get(json, "snapshot");
	problem = json_object_get(snapshot, "problem");
	table_cell(t, "version");
	table_cell(t, "%s", ctl_text(json, "version"));
	table_cell(t, "started");
	table_cell(t, "%s", ctl_text(json, "started"));
	table_cell(t, "index");
	table_cell(t, "%lld", number_of(json, "index"));
	table_cell(t, "apps");
	table_cell(t, "%lld", number_of(json, "apps"));
	json_object_foreach ((json_t *)(uintptr_t)instances, name, value) {
		table_cell(t, "instances %s", name);
		table_cell(t, "%lld", (long long)json_integer_value(value));
	}
	table_cell(t, "watches");
	table_cell(t, "%lld", number_of(json, "watches"));
	table_cell(t, "self-preservation");
	if (json_is_true(json_object_get(preservation, "is_holding")))
		table_cell(t, "HOLDS %lld leases: renewals have collapsed",
			   number_of(preservation, "held"));
	else
		table_cell(t, "%s",
			   json_is_true(json_object_get(preservation, "enabled")) ? "ready"
										  : "off");
	table_cell(t, "snapshot");
	if (json_is_string(problem))
		table_cell(t, "FAILS: %s", json_string_value(problem));
	else
		table_cell(t, "%s", ctl_text(snapshot, "saved"));
	table_print(t);
	return DONE;
}
