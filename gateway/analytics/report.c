/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/report.h"

#include <errno.h>

#include "gateway/analytics/analytics.h"
#include "gateway/analytics/versions.h"
#include "gateway/gateway.h"
#include "gateway/metrics.h"
#include "lib/clock.h"
#include "lib/http_server.h"
#include "lib/json.h"

#define TOP_DEFAULT   20
#define TOP_MAX       1000
#define TOP_IN_METRIC 20 /* consumers of a deprecated version */

/* Merged over workers and the hour: more than one table holds. */
#define REPORT_ENDPOINTS 4096
#define REPORT_USERS     8192

/* How many are wanted. False after answering that this cannot be. */
static bool read_top(struct http_request *req, size_t *top)
{
	struct str text;
	uint64_t n;

	*top = TOP_DEFAULT;
	if (http_query(req, "top", &text) == -ENOENT)
		return true;
	if (http_query(req, "top", &text) < 0 || !str_u64(text, &n) || n == 0 || n > TOP_MAX) {
		http_problem_field(req, 400, "top", "must be a number from 1 to %d", TOP_MAX);
		return false;
	}
	*top = n;
	return true;
}

/* --- analytics ----------------------------------------------------------------------------- */

static void write_endpoint(struct json_writer *w, const struct tally_endpoint *e)
{
	json_open(w, NULL, '{');
	json_add_str(w, "endpoint", e->endpoint);
	json_add_str(w, "version", e->version);
	json_add_str(w, "route", e->route);
	json_add_u64(w, "requests", tally_endpoint_requests(e));
	json_open(w, "status", '{');
	for (int i = 0; i < 6; i++)
		json_add_u64(w, gateway_status_classes[i].p, e->status_class[i]);
	json_close(w, '}');
	json_add_u64(w, "limited", e->limited);
	json_open(w, "latency", '[');
	for (size_t i = 0; i <= METRICS_BUCKETS; i++)
		json_add_u64(w, NULL, e->latency.count[i]);
	json_close(w, ']');
	json_close(w, '}');
}

static void write_users(struct json_writer *w, const char *key, const struct tally *t, size_t top,
			bool by_limited)
{
	const struct tally_user **users = calloc(top, sizeof(*users));
	size_t n = users ? tally_top_users(t, users, top, by_limited) : 0;

	json_open(w, key, '[');
	for (size_t i = 0; i < n; i++) {
		json_open(w, NULL, '{');
		json_addz(w, "kind", tally_kinds[users[i]->kind]);
		json_add_str(w, "name", users[i]->name);
		json_add_u64(w, "requests", users[i]->requests);
		json_add_u64(w, "errors", users[i]->errors);
		json_add_u64(w, "limited", users[i]->limited);
		if (users[i]->uncertain)
			json_add_u64(w, "uncertain", users[i]->uncertain);
		json_close(w, '}');
	}
	json_close(w, ']');
	free(users);
}

static void write_analytics(const struct gateway *g, const struct tally *t, const char *window,
			    size_t top, struct buf *out)
{
	const struct tally_endpoint **endpoints = calloc(top, sizeof(*endpoints));
	size_t n = endpoints ? tally_top_endpoints(t, endpoints, top) : 0;
	struct json_writer w = json_writer(out);
	char now[CLOCK_RFC3339_LEN + 1];

	clock_rfc3339(now, clock_wall_ms());
	json_open(&w, NULL, '{');
	json_addz(&w, "program", "gatewayd");
	json_add_str(&w, "instance", g->snapshot->conf.instance);
	json_addz(&w, "window", window);
	json_addz(&w, "until", now);
	json_add_u64(&w, "requests", t->requests);
	json_open(&w, "endpoints", '[');
	for (size_t i = 0; i < n; i++)
		write_endpoint(&w, endpoints[i]);
	json_close(&w, ']');
	write_users(&w, "users", t, top, false);
	write_users(&w, "limited", t, top, true);
	json_open(&w, "latency_bounds_us", '[');
	for (unsigned i = 0; i < METRICS_BUCKETS; i++)
		json_add_u64(&w, NULL, metrics_bound_us(i));
	json_close(&w, ']');
	json_close(&w, '}');
	free(endpoints);
}

void report_analytics(const struct gateway *g, struct http_request *req)
{
	enum analytics_window window = ANALYTICS_MINUTE;
	struct buf *out = http_scratch(req);
	struct str text;
	struct tally *t;
	size_t top;

	if (!read_top(req, &top))
		return;
	if (http_query(req, "window", &text) == 0 && str_eqz(text, "hour")) {
		window = ANALYTICS_HOUR;
	} else if (http_query(req, "window", &text) != -ENOENT && !str_eqz(text, "minute")) {
		http_problem_field(req, 400, "window", "must be \"minute\" or \"hour\"");
		return;
	}
	t = tally_new(REPORT_ENDPOINTS, REPORT_USERS);
	if (!t) {
		http_problem(req, 503, "out of memory");
		return;
	}
	for (unsigned i = 0; i < g->worker_count; i++)
		analytics_collect(g->workers[i]->analytics, window, t);
	write_analytics(g, t, window == ANALYTICS_HOUR ? "hour" : "minute", top, out);
	tally_put(&t);
	http_respond_json(req, 200, buf_str(out));
}

/* --- versions ------------------------------------------------------------------------------ */

static struct versions *collect_versions(const struct gateway *g)
{
	struct versions *all = versions_new();

	for (unsigned i = 0; all && i < g->worker_count; i++)
		versions_merge(all, g->workers[i]->versions);
	return all;
}

static void add_time(struct json_writer *w, const char *key, uint64_t ms)
{
	char text[CLOCK_RFC3339_LEN + 1];

	if (!ms) {
		json_add_null(w, key);
		return;
	}
	clock_rfc3339(text, ms);
	json_addz(w, key, text);
}

static void write_consumers(struct json_writer *w, const struct versions *v, struct str route,
			    struct str version, size_t top)
{
	const struct versions_consumer **list = calloc(top, sizeof(*list));
	size_t n = list ? versions_top(v, route, version, list, top) : 0;

	json_open(w, "consumers", '[');
	for (size_t i = 0; i < n; i++) {
		json_open(w, NULL, '{');
		json_addz(w, "kind", tally_kinds[list[i]->kind]);
		json_add_str(w, "name", list[i]->name);
		json_add_u64(w, "requests", list[i]->requests);
		add_time(w, "first", list[i]->first_ms);
		add_time(w, "last", list[i]->last_ms);
		json_close(w, '}');
	}
	json_close(w, ']');
	free(list);
}

static const char *state_of(const struct gw_version *version)
{
	uint64_t now = clock_wall_ms();

	if (version->sunset_ms && version->sunset_ms <= now)
		return version->enforce_sunset ? "gone" : "past its sunset";
	return version->deprecated_ms && version->deprecated_ms <= now ? "deprecated" : "current";
}

static void write_version(struct json_writer *w, const struct versions *v,
			  const struct gw_route *route, size_t top)
{
	const struct gw_version *version = route->version;
	struct versions_sum sum;

	versions_get(v, route->name, version->name, &sum);
	json_open(w, NULL, '{');
	json_add_str(w, "version", version->name);
	json_add_str(w, "route", route->name);
	json_addz(w, "state", state_of(version));
	add_time(w, "deprecated", version->deprecated_ms);
	add_time(w, "sunset", version->sunset_ms);
	json_add_u64(w, "requests", sum.requests);
	add_time(w, "first", sum.first_ms);
	add_time(w, "last", sum.last_ms);
	write_consumers(w, v, route->name, version->name, top);
	json_add_u64(w, "forgotten", sum.forgotten);
	json_close(w, '}');
}

void report_versions(const struct gateway *g, struct http_request *req)
{
	const struct gw_conf *conf = &g->snapshot->conf;
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);
	struct versions *v;
	size_t top;

	if (!read_top(req, &top))
		return;
	v = collect_versions(g);
	if (!v) {
		http_problem(req, 503, "out of memory");
		return;
	}
	json_open(&w, NULL, '{');
	json_addz(&w, "program", "gatewayd");
	json_add_str(&w, "instance", conf->instance);
	add_time(&w, "since", g->start_ms);
	json_open(&w, "versions", '[');
	for (size_t i = 0; i < conf->routes_count; i++) {
		if (conf->routes[i].version)
			write_version(&w, v, &conf->routes[i], top);
	}
	json_close(&w, ']');
	json_close(&w, '}');
	versions_free(v);
	http_respond_json(req, 200, buf_str(out));
}

static void write_consumer_metrics(struct buf *out, const struct versions *v,
				   const struct gw_route *route)
{
	const struct versions_consumer *list[TOP_IN_METRIC];
	size_t n = versions_top(v, route->name, route->version->name, list, TOP_IN_METRIC);

	for (size_t i = 0; i < n; i++)
		metrics_u64(out, "gatehouse_gateway_deprecated_requests_total",
			    METRICS_LABELS({ "route", route->name },
					   { "version", route->version->name },
					   { "kind", str_from(tally_kinds[list[i]->kind]) },
					   { "consumer", list[i]->name }),
			    list[i]->requests);
}

void report_versions_metrics(const struct gateway *g, struct buf *out)
{
	const struct gw_conf *conf = &g->snapshot->conf;
	struct versions *v = collect_versions(g);
	struct versions_sum sum;

	metrics_family(out, "gatehouse_gateway_version_requests_total", "counter",
		       "Requests of routes that have a version.");
	for (size_t i = 0; v && i < conf->routes_count; i++) {
		const struct gw_route *route = &conf->routes[i];

		if (!route->version)
			continue;
		versions_get(v, route->name, route->version->name, &sum);
		metrics_u64(out, "gatehouse_gateway_version_requests_total",
			    METRICS_LABELS({ "route", route->name },
					   { "version", route->version->name }),
			    sum.requests);
	}
	metrics_family(out, "gatehouse_gateway_deprecated_requests_total", "counter",
		       "Requests of deprecated versions by the consumers that ask most.");
	for (size_t i = 0; v && i < conf->routes_count; i++) {
		const struct gw_version *version = conf->routes[i].version;

		if (version && strcmp(state_of(version), "current") != 0)
			write_consumer_metrics(out, v, &conf->routes[i]);
	}
	versions_free(v);
}
