/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/metrics.h"

#include "gateway/analytics/report.h"
#include "gateway/identity/keyring.h"
#include "gateway/identity/revocations.h"
#include "gateway/limits/limit_store.h"
#include "gateway/tls_files.h"
#include "gateway/upstream/pools.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "registry/client.h"

static uint64_t sum(const struct gateway *g, size_t offset)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < g->worker_count; i++)
		total += metrics_get(
			(const uint64_t *)(const void *)((const char *)&g->workers[i]->counters +
							 offset));
	return total;
}

#define SUM(g, member) sum((g), offsetof(struct worker_stats, member))

/* Call with the worker's stats_lock. */
static const struct route_stats *find_stats(const struct worker *w, struct str name)
{
	for (struct hmap_node *n = hmap_first(&w->stats, hash_str(name)); n; n = hmap_next(n)) {
		const struct route_stats *stats = container_of(n, struct route_stats, node);

		if (str_eq(stats->name, name))
			return stats;
	}
	return NULL;
}

void gateway_route_sum(const struct gateway *g, struct str name, struct route_sum *out)
{
	*out = (struct route_sum) { 0 };
	for (unsigned i = 0; i < g->worker_count; i++) {
		struct worker *w = g->workers[i];
		const struct route_stats *stats;

		pthread_mutex_lock(&w->stats_lock);
		stats = find_stats(w, name);
		for (int class = 0; stats && class < 6; class ++)
			out->status_class[class] += metrics_get(&stats->status_class[class]);
		for (int result = 0; stats && result < MIRROR_RESULTS; result++)
			out->mirrored[result] += metrics_get(&stats->mirrored[result]);
		if (stats)
			metrics_histogram_add(&out->latency, &stats->latency);
		pthread_mutex_unlock(&w->stats_lock);
	}
}

uint64_t gateway_split_sum(const struct gateway *g, struct str route, struct str service)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < g->worker_count; i++) {
		struct worker *w = g->workers[i];
		const struct route_stats *stats;

		pthread_mutex_lock(&w->stats_lock);
		stats = find_stats(w, route);
		if (stats) {
			list_for_each (node, &stats->splits) {
				const struct split_stats *split =
					container_of(node, struct split_stats, node);

				if (str_eq(split->service, service))
					total += metrics_get(&split->requests);
			}
		}
		pthread_mutex_unlock(&w->stats_lock);
	}
	return total;
}

const struct str gateway_status_classes[6] = { STR("none"), STR("1xx"), STR("2xx"),
					       STR("3xx"),  STR("4xx"), STR("5xx") };

/* Requests without a route are counted under the empty name. */
struct str gateway_route_name(const struct snapshot *s, size_t i)
{
	return i < s->route_count ? s->routes[i].conf->name : STR("");
}

/* With more routes, those that nobody asked for have no histogram. */
#define SILENT_ROUTES 1000

static bool is_silent(const struct route_sum *sums)
{
	for (int class = 0; class < 6; class ++) {
		if (sums->status_class[class])
			return false;
	}
	return true;
}

static void write_routes(const struct gateway *g, struct buf *out)
{
	const struct snapshot *s = g->snapshot;
	struct route_sum sums;

	metrics_family(out, "gatehouse_gateway_requests_total", "counter",
		       "Requests by route and class of the status.");
	for (size_t i = 0; i <= s->route_count; i++) {
		gateway_route_sum(g, gateway_route_name(s, i), &sums);
		for (int class = 0; class < 6; class ++) {
			if (sums.status_class[class])
				metrics_u64(
					out, "gatehouse_gateway_requests_total",
					METRICS_LABELS({ "route", gateway_route_name(s, i) },
						       { "status", gateway_status_classes[class] }),
					sums.status_class[class]);
		}
	}
	metrics_family(out, "gatehouse_gateway_request_duration_seconds", "histogram",
		       "From the complete request head to the end of the response.");
	for (size_t i = 0; i <= s->route_count; i++) {
		gateway_route_sum(g, gateway_route_name(s, i), &sums);
		/* Of thousands of routes most are silent: no page of zeroes for each. */
		if (s->route_count > SILENT_ROUTES && is_silent(&sums))
			continue;
		metrics_write_histogram(out, "gatehouse_gateway_request_duration_seconds",
					METRICS_LABELS({ "route", gateway_route_name(s, i) }),
					&sums.latency);
	}
}

static void write_splits(const struct gateway *g, struct buf *out)
{
	const struct snapshot *s = g->snapshot;

	metrics_family(out, "gatehouse_gateway_split_requests_total", "counter",
		       "Requests of routes with several services, by the one that got them.");
	for (size_t i = 0; i < s->route_count; i++) {
		const struct gw_route *route = s->routes[i].conf;

		for (size_t j = 0; j < route->split_count; j++)
			metrics_u64(out, "gatehouse_gateway_split_requests_total",
				    METRICS_LABELS({ "route", route->name },
						   { "service", route->split[j].service }),
				    gateway_split_sum(g, route->name, route->split[j].service));
	}
	metrics_family(out, "gatehouse_gateway_mirrored_requests_total", "counter",
		       "Copies of requests for another service, by what became of them.");
	for (size_t i = 0; i < s->route_count; i++) {
		const struct gw_route *route = s->routes[i].conf;
		struct route_sum sums;

		if (!route->mirror)
			continue;
		gateway_route_sum(g, route->name, &sums);
		for (unsigned k = 0; k < MIRROR_RESULTS; k++)
			metrics_u64(out, "gatehouse_gateway_mirrored_requests_total",
				    METRICS_LABELS({ "route", route->name },
						   { "result", str_from(mirror_results[k]) }),
				    sums.mirrored[k]);
	}
}

static void write_counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
	metrics_family(out, name, "counter", help);
	metrics_u64(out, name, NULL, value);
}

static void write_gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
	metrics_family(out, name, "gauge", help);
	metrics_u64(out, name, NULL, value);
}

uint64_t gateway_count_connections(const struct gateway *g)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < g->worker_count; i++)
		n += metrics_get(&g->workers[i]->conn_count);
	return n;
}

static void write_connections(const struct gateway *g, struct buf *out)
{
	write_gauge(out, "gatehouse_gateway_connections", "Open client connections.",
		    gateway_count_connections(g));
	write_counter(out, "gatehouse_gateway_connections_accepted_total",
		      "Client connections accepted.", SUM(g, connections_accepted));
	write_counter(out, "gatehouse_gateway_accept_pauses_total",
		      "Times accepting paused because of the connection or descriptor bound.",
		      SUM(g, accept_pauses));
	write_counter(out, "gatehouse_gateway_proxy_headers_refused_total",
		      "Connections of listed peers without a sound PROXY header.",
		      SUM(g, proxy_refused));
	write_counter(out, "gatehouse_gateway_http2_floods_total",
		      "HTTP/2 connections ended because they made work on purpose.",
		      SUM(g, http2_floods));
	write_counter(out, "gatehouse_gateway_received_bytes_total", "Request bytes received.",
		      SUM(g, bytes_in));
	write_counter(out, "gatehouse_gateway_sent_bytes_total", "Response body bytes sent.",
		      SUM(g, bytes_out));
}

static void write_expiry(const char *path, int64_t until_s, void *arg)
{
	metrics_u64(arg, "gatehouse_gateway_certificate_expiry_timestamp_seconds",
		    METRICS_LABELS({ "certificate", str_from(path) }),
		    (uint64_t)MAX(until_s, (int64_t)0));
}

static void write_tls(const struct gateway *g, struct buf *out)
{
	write_counter(out, "gatehouse_gateway_tls_handshakes_total", "TLS handshakes done.",
		      SUM(g, handshakes));
	write_counter(out, "gatehouse_gateway_tls_handshakes_resumed_total",
		      "TLS handshakes that resumed a session.", SUM(g, handshakes_resumed));
	metrics_family(out, "gatehouse_gateway_tls_handshakes_failed_total", "counter",
		       "TLS handshakes that failed, by reason.");
	for (unsigned i = 0; i < TLS_FAILURES; i++)
		metrics_u64(out, "gatehouse_gateway_tls_handshakes_failed_total",
			    METRICS_LABELS({ "reason", str_from(tls_failure_names[i]) }),
			    sum(g, offsetof(struct worker_stats, handshakes_failed) +
					   i * sizeof(uint64_t)));
	write_counter(out, "gatehouse_gateway_upstream_tls_handshakes_total",
		      "TLS handshakes with services done.", SUM(g, upstream_tls));
	write_counter(out, "gatehouse_gateway_upstream_tls_handshakes_resumed_total",
		      "Of these, the ones that resumed a session.", SUM(g, upstream_tls_resumed));
	write_counter(out, "gatehouse_gateway_upstream_tls_handshakes_failed_total",
		      "TLS handshakes with services that failed.", SUM(g, upstream_tls_failed));
	write_counter(out, "gatehouse_gateway_tls_file_reloads_total",
		      "Certificate, key, authority and ticket files loaded again.", g->tls_reloads);
	write_counter(out, "gatehouse_gateway_tls_file_reloads_failed_total",
		      "Such files that changed into something unusable, so the former stayed.",
		      g->tls_reloads_failed);
	if (!g->tls_files)
		return;
	metrics_family(out, "gatehouse_gateway_certificate_expiry_timestamp_seconds", "gauge",
		       "When certificates in use run out, as Unix time.");
	tls_files_each_certificate(g->tls_files, write_expiry, out);
}

static void write_outcomes(const struct gateway *g, struct buf *out)
{
	metrics_family(out, "gatehouse_gateway_outcomes_total", "counter",
		       "How requests ended, by the reason in the access log.");
	for (unsigned i = 0; i < REQUEST_REASONS; i++)
		metrics_u64(out, "gatehouse_gateway_outcomes_total",
			    METRICS_LABELS({ "reason", str_from(request_reasons[i]) }),
			    sum(g, offsetof(struct worker_stats, reasons) + i * sizeof(uint64_t)));
	metrics_family(out, "gatehouse_gateway_auth_total", "counter", "Authentication results.");
	metrics_u64(out, "gatehouse_gateway_auth_total", METRICS_LABELS({ "result", STR("ok") }),
		    SUM(g, auth_ok));
	metrics_u64(out, "gatehouse_gateway_auth_total",
		    METRICS_LABELS({ "result", STR("refused") }), SUM(g, auth_refused));
	metrics_u64(out, "gatehouse_gateway_auth_total",
		    METRICS_LABELS({ "result", STR("anonymous") }), SUM(g, auth_anonymous));
	metrics_family(out, "gatehouse_gateway_auth_refused_total", "counter",
		       "Credentials refused, by reason.");
	for (unsigned i = 1; i < AUTH_REFUSALS; i++)
		metrics_u64(out, "gatehouse_gateway_auth_refused_total",
			    METRICS_LABELS({ "reason",
					     str_from(auth_refusal_name((enum auth_refusal)i)) }),
			    sum(g, offsetof(struct worker_stats, auth_refusals) +
					   i * sizeof(uint64_t)));
	keyring_write_metrics(g->keyring, out);
	revocations_write_metrics(g->revocations, out);
}

static void write_overload(const struct gateway *g, struct buf *out)
{
	uint64_t delay_ns = 0;

	for (unsigned i = 0; i < g->worker_count; i++)
		delay_ns = MAX(delay_ns, metrics_get(&g->workers[i]->queue_delay_ns));
	metrics_family(
		out, "gatehouse_gateway_queue_delay_seconds", "gauge",
		"How long requests waited for a worker, of the worst one when it last looked.");
	metrics_double(out, "gatehouse_gateway_queue_delay_seconds", NULL,
		       (double)delay_ns / (double)NSEC_PER_SEC);
	metrics_family(out, "gatehouse_gateway_shed_total", "counter",
		       "Requests refused under overload, by the priority of the route.");
	for (unsigned i = 0; i < GW_PRIORITIES; i++)
		metrics_u64(out, "gatehouse_gateway_shed_total",
			    METRICS_LABELS({ "priority", str_from(gw_priorities[i]) }),
			    sum(g, offsetof(struct worker_stats, shed) + i * sizeof(uint64_t)));
}

static void write_tables(const struct gateway *g, struct buf *out)
{
	struct token_cache_stats tokens;
	struct limits_stats limits;

	token_cache_stats(g->token_cache, &tokens);
	limits_table_stats(g->limits, &limits);
	write_counter(out, "gatehouse_gateway_token_cache_hits_total", "Tokens found verified.",
		      tokens.hits);
	write_counter(out, "gatehouse_gateway_token_cache_misses_total",
		      "Tokens that had to be verified.", tokens.misses);
	write_counter(out, "gatehouse_gateway_token_cache_evictions_total",
		      "Verified tokens pushed out by others.", tokens.evictions);
	write_gauge(out, "gatehouse_gateway_token_cache_tokens", "Verified tokens remembered.",
		    tokens.tokens);
	write_gauge(out, "gatehouse_gateway_rate_limit_keys",
		    "Slots of the rate limit table in use.", limits.keys);
	write_counter(out, "gatehouse_gateway_rate_limit_evictions_total",
		      "Rate limit keys that lost their count because the table was full.",
		      limits.evicted_live);
}

static void write_limits(const struct gateway *g, struct buf *out)
{
	const struct snapshot *s = g->snapshot;
	struct limits_counts counts;

	metrics_family(out, "gatehouse_gateway_rate_limited_total", "counter",
		       "Requests refused, by the limit that refused.");
	for (size_t i = 0; i < s->rule_count; i++) {
		limits_table_counts(g->limits, &s->rules[i], &counts);
		metrics_u64(out, "gatehouse_gateway_rate_limited_total",
			    METRICS_LABELS({ "limit", s->rules[i].name }), counts.refused);
	}
	metrics_family(out, "gatehouse_gateway_rate_limit_shadowed_total", "counter",
		       "Requests that a limit in shadow would have refused.");
	for (size_t i = 0; i < s->rule_count; i++) {
		limits_table_counts(g->limits, &s->rules[i], &counts);
		if (s->rules[i].is_shadow || counts.shadowed)
			metrics_u64(out, "gatehouse_gateway_rate_limit_shadowed_total",
				    METRICS_LABELS({ "limit", s->rules[i].name }), counts.shadowed);
	}
}

static void write_limit_store(const struct gateway *g, struct buf *out)
{
	struct limit_store_stats s;

	if (!g->limit_store)
		return;
	limit_store_get_stats(g->limit_store, &s);
	write_gauge(out, "gatehouse_gateway_rate_limit_store_up",
		    "Whether limits are counted in common with other gateways.", s.is_common);
	write_gauge(out, "gatehouse_gateway_rate_limit_gateways",
		    "Gateways that share the limits, as known here.", s.gateways);
	write_counter(out, "gatehouse_gateway_rate_limit_store_failures_total",
		      "Times that counting in common ended because Redis failed.", s.failures);
	write_counter(out, "gatehouse_gateway_rate_limit_store_calls_total",
		      "Scripts sent to Redis.", s.asks);
	write_counter(out, "gatehouse_gateway_rate_limit_store_errors_total",
		      "Scripts that failed, or whose answer was late or missing.", s.errors);
	write_counter(out, "gatehouse_gateway_rate_limit_leased_total",
		      "Requests granted ahead by Redis.", s.granted);
	write_counter(out, "gatehouse_gateway_rate_limit_returned_total",
		      "Requests granted ahead and given back unused.", s.returned);
	write_counter(out, "gatehouse_gateway_rate_limit_settled_total",
		      "Requests admitted on credit and told to Redis afterwards.", s.settled);
	write_counter(out, "gatehouse_gateway_rate_limit_store_dropped_total",
		      "Keys that were not told to Redis because too many were in hand.", s.dropped);
	write_gauge(out, "gatehouse_gateway_rate_limit_store_keys",
		    "Keys whose count is being brought in step with Redis.", s.keys);
	metrics_family(out, "gatehouse_gateway_rate_limit_store_seconds", "gauge",
		       "How long Redis took to answer, of late.");
	metrics_double(out, "gatehouse_gateway_rate_limit_store_seconds", NULL,
		       (double)s.round_trip_us / 1e6);
}

struct member_count {
	uint64_t healthy, failing;
};

static void count_member(const struct pool_member_status *m, void *arg)
{
	struct member_count *count = arg;

	if (m->is_failing)
		count->failing++;
	else
		count->healthy++;
}

/* Of services that have limits or a breaker; others are never counted. */
static void write_circuits(const struct gateway *g, struct buf *out)
{
	static const struct {
		const char *name, *type, *help;
	} families[] = {
		{ "gatehouse_gateway_circuit_state", "gauge",
		  "0: closed, 1: open, 2: one request at a time tries." },
		{ "gatehouse_gateway_circuit_opened_total", "counter",
		  "Times a circuit opened because too much failed." },
		{ "gatehouse_gateway_circuit_refused_total", "counter",
		  "Requests refused because a circuit was open." },
		{ "gatehouse_gateway_service_busy_total", "counter",
		  "Requests refused because a service had as much as it may have." },
		{ "gatehouse_gateway_service_in_flight", "gauge",
		  "Requests that count against max_concurrent." },
	};
	const struct gw_conf *conf = &g->snapshot->conf;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		metrics_family(out, families[f].name, families[f].type, families[f].help);
		for (size_t i = 0; i < conf->services_count; i++) {
			const struct gw_service *service = &conf->services[i];
			struct circuit_status c;

			if (!gw_service_is_bounded(service))
				continue;
			pools_get_circuit(g->pools, service->name, &c);
			metrics_u64(out, families[f].name,
				    METRICS_LABELS({ "service", service->name }),
				    (const uint64_t[]) { c.state, c.opened, c.refused_open,
							 c.refused_busy, c.in_flight }[f]);
		}
	}
}

static void write_services(const struct gateway *g, struct buf *out)
{
	const struct gw_conf *conf = &g->snapshot->conf;

	metrics_family(out, "gatehouse_gateway_service_instances", "gauge",
		       "Instances of each service by health.");
	for (size_t i = 0; i < conf->services_count; i++) {
		struct member_count count = { 0 };

		pools_each_member(g->pools, conf->services[i].name, count_member, &count);
		metrics_u64(out, "gatehouse_gateway_service_instances",
			    METRICS_LABELS({ "service", conf->services[i].name },
					   { "state", STR("healthy") }),
			    count.healthy);
		metrics_u64(out, "gatehouse_gateway_service_instances",
			    METRICS_LABELS({ "service", conf->services[i].name },
					   { "state", STR("failing") }),
			    count.failing);
	}
	write_circuits(g, out);
	write_counter(out, "gatehouse_gateway_upstream_connects_total",
		      "Connections opened to services.", SUM(g, upstream_connects));
	write_counter(out, "gatehouse_gateway_upstream_reuses_total",
		      "Requests sent over a kept connection.", SUM(g, upstream_reuses));
	write_counter(out, "gatehouse_gateway_upstream_retries_total",
		      "Attempts repeated, on another instance or connection.",
		      SUM(g, upstream_retries));
}

static void write_stream(const struct gateway *g, struct buf *out)
{
	struct record_stream_stats stats;

	if (!g->stream)
		return;
	record_stream_stats(g->stream, &stats);
	write_gauge(out, "gatehouse_gateway_access_log_stream_up",
		    "Whether Redis takes the access log.", stats.is_up);
	write_counter(out, "gatehouse_gateway_access_log_stream_lines_total",
		      "Access log lines that are in Redis' stream.", stats.written);
	write_counter(out, "gatehouse_gateway_access_log_stream_dropped_total",
		      "Access log lines for which the queue to Redis had no room.", stats.dropped);
	write_counter(out, "gatehouse_gateway_access_log_stream_refused_total",
		      "Access log lines that Redis refused.", stats.refused);
}

static void write_records(const struct gateway *g, struct buf *out)
{
	struct record_stats stats;

	if (!g->records)
		return;
	record_writer_stats(g->records, &stats);
	write_counter(out, "gatehouse_gateway_access_log_lines_total", "Access log lines queued.",
		      stats.written);
	write_counter(out, "gatehouse_gateway_access_log_dropped_total",
		      "Access log lines dropped.", stats.dropped);
	write_counter(out, "gatehouse_gateway_access_log_errors_total",
		      "Failed writes of the access log.", stats.errors);
}

static void write_registry(const struct gateway *g, struct buf *out)
{
	struct reg_client_status status;

	if (!pools_registry(g->pools))
		return;
	reg_client_get_status(pools_registry(g->pools), &status);
	write_gauge(out, "gatehouse_gateway_registry_connected", "Whether a registry is connected.",
		    status.is_connected);
	write_counter(out, "gatehouse_gateway_registry_events_total",
		      "Changes received from the registry.", status.events);
}

void gateway_write_metrics(const struct gateway *g, struct buf *out)
{
	metrics_process(out, "gatewayd");
	write_routes(g, out);
	write_splits(g, out);
	write_outcomes(g, out);
	report_versions_metrics(g, out);
	write_connections(g, out);
	write_overload(g, out);
	write_tls(g, out);
	write_tables(g, out);
	write_limits(g, out);
	write_limit_store(g, out);
	write_services(g, out);
	write_records(g, out);
	write_stream(g, out);
	write_registry(g, out);
	write_counter(out, "gatehouse_gateway_reloads_total", "Reloads that took effect.",
		      g->reloads);
	write_counter(out, "gatehouse_gateway_reloads_failed_total",
		      "Reloads refused because of mistakes.", g->reloads_failed);
}
