/* SPDX-License-Identifier: Apache-2.0 */
/* What operators and their machines look at. */
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/metrics.h"
#include "registry/api.h"
#include "registry/checks.h"

void reg_admin_health(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond(req, 200, "text/plain", STR("ok\n"));
}

void reg_admin_ready(struct http_request *req, void *arg)
{
	const struct reg_api *api = arg;

	if (api->is_stopping)
		http_problem(req, 503, "stopping");
	else if (!api->writer->is_loaded)
		http_problem(req, 503, "the shared store was not read yet");
	else
		http_respond(req, 200, "text/plain", STR("ready\n"));
}

static void number(struct buf *out, const char *name, const char *type, const char *help,
		   uint64_t value)
{
	metrics_family(out, name, type, help);
	metrics_u64(out, name, NULL, value);
}

static void store_metrics(const struct reg_api *api, struct buf *out)
{
	const struct reg_store_stats *s = reg_store_stats(api->store);

	metrics_family(out, "gatehouse_registry_instances", "gauge",
		       "Registered instances by effective status.");
	for (unsigned i = REG_NO_STATUS + 1; i < REG_STATUSES; i++)
		metrics_u64(out, "gatehouse_registry_instances",
			    METRICS_LABELS({ "status", str_from(reg_status_name(i)) }),
			    s->by_status[i]);
	number(out, "gatehouse_registry_apps", "gauge", "Apps with at least one instance.",
	       s->apps);
	number(out, "gatehouse_registry_index", "counter", "Index of the last change.",
	       reg_store_index(api->store));
	number(out, "gatehouse_registry_instance_bytes", "gauge",
	       "Memory of instances, with those that left lately.", s->bytes);
	number(out, "gatehouse_registry_departed", "gauge",
	       "Instances that left lately, kept for watchers that come back.", s->tombstones);
	number(out, "gatehouse_registry_registrations_total", "counter", "New instances.",
	       s->registrations);
	number(out, "gatehouse_registry_replacements_total", "counter",
	       "Registrations that changed a known instance.", s->replacements);
	number(out, "gatehouse_registry_renewals_total", "counter", "Leases renewed.", s->renewals);
	number(out, "gatehouse_registry_unknown_renewals_total", "counter",
	       "Renewals of instances that are not registered.", s->unknown_renewals);
	number(out, "gatehouse_registry_removals_total", "counter", "Instances deregistered.",
	       s->removals);
	number(out, "gatehouse_registry_expiries_total", "counter", "Leases that ran out.",
	       s->expiries);
	number(out, "gatehouse_registry_overrides_total", "counter",
	       "Status overrides set or taken away.", s->overrides);
	number(out, "gatehouse_registry_held_leases", "gauge",
	       "Leases that ran out and are held by self-preservation.", s->held);
}

static void watch_metrics(const struct reg_api *api, struct buf *out)
{
	const struct reg_watch_stats *w = reg_watch_stats(api->watch);

	number(out, "gatehouse_registry_blocking_queries", "gauge", "Blocking queries that wait.",
	       w->waiters);
	number(out, "gatehouse_registry_watches", "gauge", "Open event streams.", w->streams);
	number(out, "gatehouse_registry_events_total", "counter", "Events sent to streams.",
	       w->events);
	number(out, "gatehouse_registry_resets_total", "counter",
	       "Streams that were given the full state.", w->resets);
}

static void persist_metrics(const struct reg_api *api, struct buf *out)
{
	const struct reg_persist_stats *p;

	if (!api->persist)
		return;
	p = reg_persist_stats(api->persist);
	number(out, "gatehouse_registry_snapshot_writes_total", "counter", "Snapshots written.",
	       p->writes);
	number(out, "gatehouse_registry_snapshot_failures_total", "counter",
	       "Snapshots that could not be written.", p->failures);
	number(out, "gatehouse_registry_snapshot_failing", "gauge",
	       "1 while the last snapshot could not be written.", p->is_failing);
	number(out, "gatehouse_registry_snapshot_saved_timestamp_seconds", "gauge",
	       "When the last snapshot was written.", p->saved_ms / MSEC_PER_SEC);
	number(out, "gatehouse_registry_snapshot_bytes", "gauge", "Size of the last snapshot.",
	       p->bytes);
}

static void check_metrics(const struct reg_api *api, struct buf *out)
{
	static const char name[] = "gatehouse_registry_check_results_total";
	const struct reg_checks_stats *s;

	if (!api->checks)
		return;
	s = reg_checks_stats(api->checks);
	number(out, "gatehouse_registry_checks", "gauge", "Instances that are checked.", s->count);
	number(out, "gatehouse_registry_checks_running", "gauge", "Checks under way.", s->running);
	number(out, "gatehouse_registry_checks_late_total", "counter",
	       "Checks that began a whole interval late: too many for limits.checks_at_once.",
	       s->late);
	metrics_family(out, name, "counter", "Results of checks.");
	metrics_u64(out, name, METRICS_LABELS({ "result", STR("pass") }), s->passed);
	metrics_u64(out, name, METRICS_LABELS({ "result", STR("fail") }), s->failed);
}

static void access_metrics(const struct reg_api *api, struct buf *out)
{
	static const char name[] = "gatehouse_registry_denied_total";
	const struct reg_access_stats *s = reg_access_stats(api->access);

	metrics_family(out, name, "counter", "Requests that tokens did not allow, by reason.");
	metrics_u64(out, name, METRICS_LABELS({ "reason", STR("no_token") }), s->no_token);
	metrics_u64(out, name, METRICS_LABELS({ "reason", STR("bad_token") }), s->bad_token);
	metrics_u64(out, name, METRICS_LABELS({ "reason", STR("not_allowed") }), s->not_allowed);
}

static void shared_metrics(const struct reg_api *api, struct buf *out)
{
	const struct reg_shared_stats *s;
	const struct redis_stats *redis;

	if (!api->shared)
		return;
	s = reg_shared_stats(api->shared);
	redis = reg_shared_redis(api->shared);
	number(out, "gatehouse_registry_shared_ready", "gauge",
	       "1 while the shared store can be changed.", s->is_ready);
	number(out, "gatehouse_registry_shared_writes_total", "counter",
	       "Changes that Redis made for this registry's clients.", s->writes);
	number(out, "gatehouse_registry_shared_renewals_total", "counter",
	       "Renewals told to the other registries.", s->renewals);
	number(out, "gatehouse_registry_shared_entries_total", "counter",
	       "Entries of the stream of changes followed.", s->entries);
	number(out, "gatehouse_registry_shared_loads_total", "counter",
	       "Times the full state was read from Redis.", s->loads);
	number(out, "gatehouse_registry_shared_restorations_total", "counter",
	       "Times the state was put back into Redis.", s->restorations);
	number(out, "gatehouse_registry_redis_connects_total", "counter",
	       "Connections to Redis that came up.", metrics_get(&redis->connects));
	number(out, "gatehouse_registry_redis_failures_total", "counter",
	       "Connections to Redis lost, and attempts that failed.",
	       metrics_get(&redis->failures));
	number(out, "gatehouse_registry_redis_errors_total", "counter",
	       "Commands that Redis refused.", metrics_get(&redis->errors));
}

void reg_admin_metrics(struct http_request *req, void *arg)
{
	const struct reg_api *api = arg;
	struct buf *out = http_scratch(req);

	metrics_process(out, "registryd");
	store_metrics(api, out);
	watch_metrics(api, out);
	persist_metrics(api, out);
	shared_metrics(api, out);
	access_metrics(api, out);
	check_metrics(api, out);
	http_server_metrics(api->server, "gatehouse_registry_http", out);
	http_respond(req, 200, METRICS_CONTENT_TYPE, buf_str(out));
}

static void add_time(struct json_writer *w, const char *key, uint64_t wall_ms)
{
	char text[CLOCK_RFC3339_LEN + 1];

	if (!wall_ms) {
		json_add_null(w, key);
		return;
	}
	clock_rfc3339(text, wall_ms);
	json_addz(w, key, text);
}

static void write_persist(struct json_writer *w, const struct reg_persist *persist)
{
	const struct reg_persist_stats *p;

	if (!persist) {
		json_add_null(w, "snapshot");
		return;
	}
	p = reg_persist_stats(persist);
	json_open(w, "snapshot", '{');
	add_time(w, "saved", p->saved_ms);
	json_add_u64(w, "saved_index", p->saved_index);
	json_add_u64(w, "bytes", p->bytes);
	json_addz(w, "problem", p->is_failing ? p->error.text : NULL);
	json_close(w, '}');
}

void reg_admin_status(struct http_request *req, void *arg)
{
	const struct reg_api *api = arg;
	const struct reg_store_stats *s = reg_store_stats(api->store);
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "version", GATEHOUSE_VERSION);
	add_time(&w, "started", api->started_ms);
	json_add_u64(&w, "index", reg_store_index(api->store));
	json_add_u64(&w, "apps", s->apps);
	json_open(&w, "instances", '{');
	for (unsigned i = REG_NO_STATUS + 1; i < REG_STATUSES; i++)
		json_add_u64(&w, reg_status_name(i), s->by_status[i]);
	json_close(&w, '}');
	json_open(&w, "self_preservation", '{');
	json_add_bool(&w, "enabled", api->has_self_preservation);
	json_add_bool(&w, "is_holding", s->held > 0);
	json_add_u64(&w, "held", s->held);
	json_close(&w, '}');
	json_open(&w, "access", '{');
	json_add_u64(&w, "tokens", reg_access_tokens(api->access));
	json_add_u64(&w, "denied",
		     reg_access_stats(api->access)->no_token +
			     reg_access_stats(api->access)->bad_token +
			     reg_access_stats(api->access)->not_allowed);
	json_close(&w, '}');
	json_add_u64(&w, "watches", reg_watch_stats(api->watch)->streams);
	json_add_u64(&w, "blocking_queries", reg_watch_stats(api->watch)->waiters);
	json_add_u64(&w, "connections", http_server_stats(api->server)->connections);
	write_persist(&w, api->persist);
	json_open(&w, "store", '{');
	json_addz(&w, "type", api->shared ? "redis" : "memory");
	json_add_bool(&w, "is_away", reg_writer_is_away(api->writer));
	json_close(&w, '}');
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}
