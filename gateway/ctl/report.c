/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/report.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gateway/ctl/quantile.h"
#include "lib/cleanup.h"
#include "lib/table.h"

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "";
}

static json_int_t number_of(const json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

/* --- adding up ----------------------------------------------------------------------------- */

static bool is_same(const json_t *a, const json_t *b, const char *const *keys)
{
	for (; *keys; keys++) {
		if (strcmp(text_of(a, *keys), text_of(b, *keys)) != 0)
			return false;
	}
	return true;
}

static json_t *find(const json_t *list, const json_t *like, const char *const *keys)
{
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		if (is_same(item, like, keys))
			return item;
	}
	return NULL;
}

static json_t *sum_of(const json_t *a, const json_t *b)
{
	json_t *list, *item;
	size_t i;

	if (json_is_integer(b))
		return json_integer(json_integer_value(a) + json_integer_value(b));
	list = json_array();
	json_array_foreach (b, i, item)
		json_array_append_new(list, sum_of(json_array_get(a, i), item));
	return list;
}

/* Numbers and lists of numbers, also within; what is none stays. */
static void add_numbers(json_t *to, const json_t *from)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)from, key, value) {
		json_t *there = json_object_get(to, key);

		if (json_is_object(value) && json_is_object(there))
			add_numbers(there, value);
		else if (json_is_integer(value) ||
			 (json_is_array(value) && json_is_integer(json_array_get(value, 0))))
			json_object_set_new(to, key, sum_of(there, value));
	}
}

/* The earlier or later of two times, which are text of one form or null. */
static void keep_time(json_t *to, const json_t *from, const char *key, bool is_later)
{
	const char *old = text_of(to, key), *new = text_of(from, key);
	int order = strcmp(new, old);

	if (*new && (!*old || (is_later ? order > 0 : order < 0)))
		json_object_set(to, key, json_object_get(from, key));
}

static void add_rows(json_t *to, const json_t *from, const char *const *keys)
{
	json_t *item, *there;
	size_t i;

	json_array_foreach (from, i, item) {
		there = find(to, item, keys);
		if (!there) {
			json_array_append_new(to, json_deep_copy(item));
			continue;
		}
		add_numbers(there, item);
		keep_time(there, item, "first", false);
		keep_time(there, item, "last", true);
	}
}

/* The rows of all documents under one key, most first. The caller's. */
static json_t *add_up(const struct ctl_report *r, const char *list, const char *const *keys)
{
	json_t *all = json_array();

	for (size_t i = 0; i < r->count; i++)
		add_rows(all, json_object_get(r->documents[i], list), keys);
	return all;
}

static json_t *most(const json_t *rows, const char *key, size_t top)
{
	json_t *out = json_array(), *left = json_copy((json_t *)(uintptr_t)rows), *item;
	size_t i;

	while (json_array_size(out) < top && json_array_size(left)) {
		size_t best = 0;

		json_array_foreach (left, i, item) {
			if (number_of(item, key) > number_of(json_array_get(left, best), key))
				best = i;
		}
		json_array_append(out, json_array_get(left, best));
		json_array_remove(left, best);
	}
	json_decref(left);
	return out;
}

static json_t *names_of(const struct ctl_report *r)
{
	json_t *names = json_array();

	for (size_t i = 0; i < r->count; i++)
		json_array_append(names, json_object_get(r->documents[i], "instance"));
	return names;
}

static void print_document(json_t *document)
{
	char *text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(6));

	puts(text ? text : "{}");
	free(text);
}

static void print_names(const json_t *names)
{
	json_t *name;
	size_t i;

	json_array_foreach (names, i, name)
		printf("%s%s", i ? ", " : "", json_string_value(name));
}

/* --- analytics ----------------------------------------------------------------------------- */

static const char *const endpoint_keys[] = { "endpoint", "version", "route", NULL };
static const char *const user_keys[] = { "kind", "name", NULL };
static const double shares[] = { 0.5, 0.9, 0.99 };
static const char *const share_keys[] = { "p50_ms", "p90_ms", "p99_ms" };

static json_t *describe_endpoints(const struct ctl_report *r, const json_t *bounds)
{
	json_t *all = add_up(r, "endpoints", endpoint_keys);
	json_t *rows = most(all, "requests", r->top), *row;
	size_t i;

	json_decref(all);
	json_array_foreach (rows, i, row) {
		for (size_t k = 0; k < ARRAY_SIZE(shares); k++) {
			double ms = ctl_quantile(NULL, json_object_get(row, "latency"), bounds,
						 shares[k]);

			json_object_set_new(row, share_keys[k],
					    ms < 0 ? json_null() : json_real(ms));
		}
	}
	return rows;
}

static json_t *describe_users(const struct ctl_report *r, const char *list, const char *key)
{
	json_t *all = add_up(r, list, user_keys), *rows = most(all, key, r->top);

	json_decref(all);
	return rows;
}

static void put_ms(struct table *t, const json_t *row, const char *key)
{
	if (json_is_real(json_object_get(row, key)))
		table_cell(t, "%.2f", json_real_value(json_object_get(row, key)));
	else
		table_cell(t, "-");
}

static double percent(json_int_t part, json_int_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_endpoints(const json_t *rows)
{
	static const char *const header[] = { "ENDPOINT", "VERSION",  ">REQUESTS", ">4XX %",
					      ">5XX %",   ">LIMITED", ">P50 ms",   ">P90 ms",
					      ">P99 ms",  NULL };
	struct table *t = table_new(header);
	json_t *row;
	size_t i;

	if (!t)
		return;
	json_array_foreach (rows, i, row) {
		const json_t *status = json_object_get(row, "status");
		json_int_t requests = number_of(row, "requests");

		table_cell(t, "%s", text_of(row, "endpoint"));
		table_cell(t, "%s", *text_of(row, "version") ? text_of(row, "version") : "-");
		table_cell(t, "%lld", requests);
		table_cell(t, "%.1f", percent(number_of(status, "4xx"), requests));
		table_cell(t, "%.1f", percent(number_of(status, "5xx"), requests));
		table_cell(t, "%lld", number_of(row, "limited"));
		for (size_t k = 0; k < ARRAY_SIZE(share_keys); k++)
			put_ms(t, row, share_keys[k]);
	}
	table_print(t);
}

static void print_users(const char *title, const json_t *rows)
{
	const char *header[] = { title, "KIND", ">REQUESTS", ">5XX", ">LIMITED", NULL };
	struct table *t = table_new(header);
	json_t *row;
	size_t i;

	if (!t)
		return;
	json_array_foreach (rows, i, row) {
		table_cell(t, "%s", text_of(row, "name"));
		table_cell(t, "%s", text_of(row, "kind"));
		table_cell(t, "%lld", number_of(row, "requests"));
		table_cell(t, "%lld", number_of(row, "errors"));
		table_cell(t, "%lld", number_of(row, "limited"));
	}
	table_print(t);
}

int ctl_analytics(const struct ctl_report *r)
{
	const json_t *bounds = json_object_get(r->documents[0], "latency_bounds_us");
	json_t *out = json_object(), *names = names_of(r);
	json_t *endpoints = describe_endpoints(r, bounds);
	json_t *users = describe_users(r, "users", "requests");
	json_t *limited = describe_users(r, "limited", "limited");
	json_int_t requests = 0;

	for (size_t i = 0; i < r->count; i++)
		requests += number_of(r->documents[i], "requests");
	json_object_set_new(out, "instances", names);
	json_object_set(out, "window", json_object_get(r->documents[0], "window"));
	json_object_set_new(out, "requests", json_integer(requests));
	json_object_set_new(out, "endpoints", endpoints);
	json_object_set_new(out, "users", users);
	json_object_set_new(out, "limited", limited);
	if (r->is_json) {
		print_document(out);
	} else {
		print_names(names);
		printf(": %lld requests in the last %s\n\n", requests,
		       text_of(r->documents[0], "window"));
		print_endpoints(endpoints);
		putchar('\n');
		print_users("USER", users);
		if (json_array_size(limited)) {
			putchar('\n');
			print_users("LIMITED", limited);
		}
	}
	json_decref(out);
	return 0;
}

/* --- versions ------------------------------------------------------------------------------ */

static const char *const version_keys[] = { "route", "version", NULL };

/* Consumers of each version are lists within the rows. */
static json_t *describe_versions(const struct ctl_report *r)
{
	json_t *rows = add_up(r, "versions", version_keys), *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		json_t *consumers = json_array(), *shown;

		for (size_t k = 0; k < r->count; k++) {
			const json_t *here = find(json_object_get(r->documents[k], "versions"), row,
						  version_keys);

			add_rows(consumers, json_object_get(here, "consumers"), user_keys);
		}
		shown = most(consumers, "requests", r->top);
		json_decref(consumers);
		json_object_set_new(row, "consumers", shown);
	}
	return rows;
}

static const char *time_of(const json_t *json, const char *key)
{
	return *text_of(json, key) ? text_of(json, key) : "-";
}

static void print_versions(const json_t *rows)
{
	static const char *const header[] = { "VERSION", "ROUTE",     "STATE", "SUNSET", "CONSUMER",
					      "KIND",    ">REQUESTS", "FIRST", "LAST",   NULL };
	struct table *t = table_new(header);
	json_t *row, *consumer;
	size_t i, k;

	if (!t)
		return;
	json_array_foreach (rows, i, row) {
		table_cell(t, "%s", text_of(row, "version"));
		table_cell(t, "%s", text_of(row, "route"));
		table_cell(t, "%s", text_of(row, "state"));
		table_cell(t, "%s", time_of(row, "sunset"));
		table_cell(t, "(all)");
		table_cell(t, " ");
		table_cell(t, "%lld", number_of(row, "requests"));
		table_cell(t, "%s", time_of(row, "first"));
		table_cell(t, "%s", time_of(row, "last"));
		json_array_foreach (json_object_get(row, "consumers"), k, consumer) {
			for (int blank = 0; blank < 4; blank++)
				table_cell(t, " ");
			table_cell(t, "%s", text_of(consumer, "name"));
			table_cell(t, "%s", text_of(consumer, "kind"));
			table_cell(t, "%lld", number_of(consumer, "requests"));
			table_cell(t, "%s", time_of(consumer, "first"));
			table_cell(t, "%s", time_of(consumer, "last"));
		}
	}
	table_print(t);
}

int ctl_versions(const struct ctl_report *r)
{
	json_t *out = json_object(), *names = names_of(r), *rows = describe_versions(r);

	json_object_set_new(out, "instances", names);
	json_object_set(out, "since", json_object_get(r->documents[0], "since"));
	for (size_t i = 1; i < r->count; i++)
		keep_time(out, r->documents[i], "since", false);
	json_object_set_new(out, "versions", rows);
	if (r->is_json) {
		print_document(out);
	} else {
		print_names(names);
		printf(": requests by version since %s\n\n", text_of(out, "since"));
		if (json_array_size(rows))
			print_versions(rows);
		else
			puts("no route has a version");
	}
	json_decref(out);
	return 0;
}
