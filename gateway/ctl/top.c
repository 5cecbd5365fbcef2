/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/top.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gateway/ctl/quantile.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/table.h"

/* Two documents, and the seconds between them. */
struct span {
	json_t *before, *now;
	double seconds;
};

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "-";
}

static double number_of(const json_t *json, const char *key)
{
	return json_number_value(json_object_get(json, key));
}

/* The member of `list` whose key says the same as that of `like`; NULL when there is none. */
static const json_t *find_like(const json_t *list, const char *key, const json_t *like)
{
	const char *wanted = text_of(like, key);
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		if (strcmp(text_of(item, key), wanted) == 0)
			return item;
	}
	return NULL;
}

/* How much a counter has grown, per second. One that was set back, by a restart, began at 0. */
static double rate(const struct span *s, const json_t *before, const json_t *now, const char *key)
{
	double old = number_of(before, key), new = number_of(now, key);

	return (new >= old ? new - old : new) / s->seconds;
}

/* --- routes
 * ---------------------------------------------------------------------------------------------------------------
 */

static const char *const classes[] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };

/* What happened on one route, or NULL for one without requests since the gateway began. */
static json_t *describe_route(const struct span *s, const json_t *now)
{
	const json_t *before = find_like(json_object_get(s->before, "routes"), "name", now);
	const json_t *bounds = json_object_get(s->now, "latency_bounds_us");
	const json_t *latency[2] = { json_object_get(before, "latency"),
				     json_object_get(now, "latency") };
	json_t *out = json_object(), *rates = json_object();
	double sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		double by_s = rate(s, json_object_get(before, "status"),
				   json_object_get(now, "status"), classes[i]);

		sum += by_s;
		json_object_set_new(rates, classes[i], json_real(by_s));
	}
	json_object_set_new(out, "name", json_string(text_of(now, "name")));
	json_object_set_new(out, "requests_s", json_real(sum));
	json_object_set_new(out, "status_s", rates);
	for (int i = 0; i < 2; i++) {
		double ms = ctl_quantile(latency[0], latency[1], bounds, i ? 0.99 : 0.5);

		json_object_set_new(out, i ? "p99_ms" : "p50_ms",
				    ms < 0 ? json_null() : json_real(ms));
	}
	return out;
}

/* --- services
 * -------------------------------------------------------------------------------------------------------------
 */

static json_t *describe_instance(const struct span *s, const json_t *service_before,
				 const json_t *now)
{
	const json_t *before = find_like(json_object_get(service_before, "instances"), "address",
					 now);
	json_t *out = json_object();

	json_object_set_new(out, "address", json_string(text_of(now, "address")));
	json_object_set_new(out, "state", json_string(text_of(now, "state")));
	json_object_set_new(out, "requests_s", json_real(rate(s, before, now, "requests")));
	json_object_set_new(out, "errors_s", json_real(rate(s, before, now, "errors")));
	json_object_set_new(out, "in_flight", json_real(number_of(now, "in_flight")));
	json_object_set_new(out, "latency_ms", json_real(number_of(now, "latency_ms")));
	return out;
}

static json_t *describe_service(const struct span *s, const json_t *now)
{
	const json_t *before = find_like(json_object_get(s->before, "services"), "name", now);
	json_t *out = json_object(), *instances = json_array(), *instance;
	size_t i;

	json_array_foreach (json_object_get(now, "instances"), i, instance)
		json_array_append_new(instances, describe_instance(s, before, instance));
	json_object_set_new(out, "name", json_string(text_of(now, "name")));
	json_object_set_new(out, "instances", instances);
	return out;
}

static json_t *describe(const struct span *s)
{
	json_t *out = json_object(), *routes = json_array(), *services = json_array(), *item;
	size_t i;

	json_array_foreach (json_object_get(s->now, "routes"), i, item)
		json_array_append_new(routes, describe_route(s, item));
	json_array_foreach (json_object_get(s->now, "services"), i, item)
		json_array_append_new(services, describe_service(s, item));
	json_object_set_new(out, "instance", json_string(text_of(s->now, "instance")));
	json_object_set_new(out, "state", json_string(text_of(s->now, "state")));
	json_object_set_new(out, "seconds", json_real(s->seconds));
	json_object_set_new(out, "connections", json_real(number_of(s->now, "connections")));
	json_object_set_new(out, "requests_s", json_real(rate(s, s->before, s->now, "requests")));
	json_object_set_new(out, "routes", routes);
	json_object_set_new(out, "services", services);
	return out;
}

/* --- printing
 * -------------------------------------------------------------------------------------------------------------
 */

static void put_latency(struct table *t, const json_t *route, const char *key)
{
	if (json_is_null(json_object_get(route, key)))
		table_cell(t, "-");
	else
		table_cell(t, "%.2f", number_of(route, key));
}

static void print_routes(const json_t *routes)
{
	static const char *const header[] = { "ROUTE", ">REQ/S",      ">2XX",    ">3XX",    ">4XX",
					      ">5XX",  ">UNANSWERED", ">P50 ms", ">P99 ms", NULL };
	static const char *const shown[] = { "2xx", "3xx", "4xx", "5xx", "none" };
	struct table *t = table_new(header);
	json_t *route;
	size_t i;

	if (!t)
		return;
	json_array_foreach (routes, i, route) {
		const char *name = text_of(route, "name");

		if (number_of(route, "requests_s") <= 0)
			continue;
		table_cell(t, "%s", name[0] ? name : "(no route)");
		table_cell(t, "%.1f", number_of(route, "requests_s"));
		for (size_t j = 0; j < ARRAY_SIZE(shown); j++)
			table_cell(t, "%.1f",
				   number_of(json_object_get(route, "status_s"), shown[j]));
		put_latency(t, route, "p50_ms");
		put_latency(t, route, "p99_ms");
	}
	table_print(t);
}

static void print_services(const json_t *services)
{
	static const char *const header[] = { "SERVICE",   "INSTANCE",   "STATE",       ">REQ/S",
					      ">ERRORS/S", ">IN FLIGHT", ">LATENCY ms", NULL };
	struct table *t = table_new(header);
	json_t *service, *instance;
	size_t i, j;

	if (!t)
		return;
	json_array_foreach (services, i, service) {
		json_array_foreach (json_object_get(service, "instances"), j, instance) {
			table_cell(t, "%s", j ? "" : text_of(service, "name"));
			table_cell(t, "%s", text_of(instance, "address"));
			table_cell(t, "%s", text_of(instance, "state"));
			table_cell(t, "%.1f", number_of(instance, "requests_s"));
			table_cell(t, "%.1f", number_of(instance, "errors_s"));
			table_cell(t, "%.0f", number_of(instance, "in_flight"));
			table_cell(t, "%.2f", number_of(instance, "latency_ms"));
		}
	}
	table_print(t);
}

static void print(const json_t *d)
{
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	printf("%s, %s: %.1f requests a second, %.0f connections\n\n", text_of(d, "instance"),
	       text_of(d, "state"), number_of(d, "requests_s"), number_of(d, "connections"));
	print_routes(json_object_get(d, "routes"));
	putchar('\n');
	print_services(json_object_get(d, "services"));
	if (!isatty(STDOUT_FILENO))
		putchar('\n');
}

static void print_json(const json_t *d)
{
	char *text = json_dumps(d, JSON_COMPACT | JSON_REAL_PRECISION(6));

	puts(text ? text : "{}");
	free(text);
}

static void wait_for(double seconds)
{
	struct timespec t = { .tv_sec = (time_t)seconds };

	t.tv_nsec = (long)((seconds - (double)t.tv_sec) * (double)NSEC_PER_SEC);
	nanosleep(&t, NULL);
}

int ctl_top(const struct ctl_top_options *o)
{
	json_t *before = o->fetch(o->arg);
	uint64_t before_ns = clock_mono_ns();
	int status = before ? 0 : 1;

	for (unsigned i = 0; status == 0 && (o->count == 0 || i < o->count); i++) {
		struct span s = { .before = before };
		json_t *described;
		uint64_t now_ns;

		wait_for(o->interval_s);
		s.now = o->fetch(o->arg);
		now_ns = clock_mono_ns();
		if (!s.now) {
			status = 1;
			break;
		}
		s.seconds = (double)(now_ns - before_ns) / (double)NSEC_PER_SEC;
		described = describe(&s);
		if (o->is_json)
			print_json(described);
		else
			print(described);
		fflush(stdout);
		json_decref(described);
		json_decref(before);
		before = s.now;
		before_ns = now_ns;
	}
	json_decref(before);
	return status;
}
