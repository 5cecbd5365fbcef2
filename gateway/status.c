/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/status.h"

#include "gateway/identity/keyring.h"
#include "gateway/metrics.h"
#include "gateway/survey.h"
#include "gateway/upstream/pools.h"
#include "lib/clock.h"
#include "registry/client.h"

#define USEC_PER_MSEC_F 1000.0

static void write_workers(const struct gateway *g, struct json_writer *w)
{
	json_open(w, "per_worker", '[');
	for (unsigned i = 0; i < g->worker_count; i++) {
		const struct worker *worker = g->workers[i];

		json_open(w, NULL, '{');
		json_add_u64(w, "connections", metrics_get(&worker->conn_count));
		json_add_u64(w, "accepted", metrics_get(&worker->counters.connections_accepted));
		json_add_u64(w, "requests", metrics_get(&worker->counters.requests));
		json_add_double(w, "queue_delay_ms",
				(double)metrics_get(&worker->queue_delay_ns) /
					(double)NSEC_PER_MSEC);
		json_close(w, '}');
	}
	json_close(w, ']');
}

/* --- services
 * -------------------------------------------------------------------------------------------------------------
 */

struct member_writer {
	struct json_writer *w;
	const struct survey *survey;
	struct str service;
};

/* What health checks say goes first; ejection is each worker's own judgement. */
static const char *state_of(const struct pool_member_status *m, const struct survey_row *row)
{
	if (m->is_failing)
		return "failing";
	if (!row || row->ejected == 0)
		return "up";
	return row->ejected == row->workers ? "ejected" : "partly ejected";
}

static void write_member(const struct pool_member_status *m, void *arg)
{
	const struct member_writer *to = arg;
	const struct survey_row *row = to->survey ? survey_find(to->survey, to->service, &m->addr)
						  : NULL;
	struct json_writer *w = to->w;
	char addr[NET_ADDR_LEN];

	json_open(w, NULL, '{');
	json_addz(w, "address", net_format(addr, &m->addr));
	json_add_u64(w, "weight", m->weight);
	json_addz(w, "health",
		  m->is_failing ? "failing" : (m->is_checked ? "healthy" : "unchecked"));
	json_addz(w, "state", state_of(m, row));
	if (m->is_near)
		json_add_bool(w, "own_zone", true);
	if (row) {
		json_add_u64(w, "in_flight", row->in_flight);
		json_add_u64(w, "idle_connections", row->idle_connections);
		json_add_u64(w, "requests", row->requests);
		json_add_u64(w, "errors", row->errors);
		json_add_double(w, "latency_ms", (double)row->latency_us / USEC_PER_MSEC_F);
	}
	json_close(w, '}');
}

static void write_circuit(const struct gateway *g, const struct gw_service *service,
			  struct json_writer *w)
{
	static const char *const states[] = { "closed", "open", "half open" };
	struct circuit_status c;

	if (!gw_service_is_bounded(service))
		return;
	pools_get_circuit(g->pools, service->name, &c);
	json_open(w, "circuit", '{');
	json_addz(w, "state", states[c.state]);
	json_add_u64(w, "in_flight", c.in_flight);
	json_add_u64(w, "waiting", c.waiting);
	json_add_u64(w, "connections", c.connections);
	json_add_u64(w, "refused_busy", c.refused_busy);
	json_add_u64(w, "refused_open", c.refused_open);
	json_add_u64(w, "opened", c.opened);
	json_close(w, '}');
}

static void write_services(const struct gateway *g, const struct survey *survey,
			   struct json_writer *w)
{
	const struct gw_conf *conf = &g->snapshot->conf;

	json_open(w, "services", '[');
	for (size_t i = 0; i < conf->services_count; i++) {
		struct member_writer to = { w, survey, conf->services[i].name };

		json_open(w, NULL, '{');
		json_add_str(w, "name", to.service);
		write_circuit(g, &conf->services[i], w);
		json_open(w, "instances", '[');
		pools_each_member(g->pools, to.service, write_member, &to);
		json_close(w, ']');
		json_close(w, '}');
	}
	json_close(w, ']');
}

/* --- the rest
 * ---------------------------------------------------------------------------------------------------------------
 */

static void write_routes(const struct gateway *g, struct json_writer *w)
{
	json_open(w, "routes", '[');
	for (size_t i = 0; i <= g->snapshot->route_count; i++) {
		struct str name = gateway_route_name(g->snapshot, i);
		struct route_sum sums;

		gateway_route_sum(g, name, &sums);
		json_open(w, NULL, '{');
		json_add_str(w, "name", name);
		json_open(w, "status", '{');
		for (int class = 0; class < 6; class ++)
			json_add_u64(w, gateway_status_classes[class].p, sums.status_class[class]);
		json_close(w, '}');
		json_open(w, "latency", '['); /* how many within each bound */
		for (size_t j = 0; j <= METRICS_BUCKETS; j++)
			json_add_u64(w, NULL, sums.latency.count[j]);
		json_close(w, ']');
		json_close(w, '}');
	}
	json_close(w, ']');
}

static void write_registry(const struct gateway *g, struct json_writer *w)
{
	struct reg_client_status status;

	if (!pools_registry(g->pools)) {
		json_add_null(w, "registry");
		return;
	}
	reg_client_get_status(pools_registry(g->pools), &status);
	json_open(w, "registry", '{');
	json_addz(w, "url", status.url);
	json_add_bool(w, "connected", status.is_connected);
	json_add_u64(w, "index", status.index);
	json_close(w, '}');
}

static uint64_t count_requests(const struct gateway *g)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < g->worker_count; i++)
		n += metrics_get(&g->workers[i]->counters.requests);
	return n;
}

void gateway_write_status(const struct gateway *g, const struct survey *survey, struct buf *out)
{
	const struct gw_conf *conf = &g->snapshot->conf;
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "program", "gatewayd");
	json_add_str(&w, "instance", conf->instance);
	json_add_str(&w, "domain", conf->domain.p ? conf->domain : STR(""));
	json_addz(&w, "state", gateway_state_name(g->state));
	json_addz(&w, "version", GATEHOUSE_VERSION);
	json_add_u64(&w, "pid", (uint64_t)getpid());
	json_add_u64(&w, "uptime_s", (clock_wall_ms() - g->start_ms) / MSEC_PER_SEC);
	json_add_u64(&w, "workers", g->worker_count);
	json_add_u64(&w, "connections", gateway_count_connections(g));
	json_add_u64(&w, "requests", count_requests(g));
	json_add_u64(&w, "reloads", g->reloads);
	write_workers(g, &w);
	write_registry(g, &w);
	keyring_write_status(g->keyring, &w);
	write_services(g, survey, &w);
	write_routes(g, &w);
	json_open(&w, "latency_bounds_us", '[');
	for (unsigned i = 0; i < METRICS_BUCKETS; i++)
		json_add_u64(&w, NULL, metrics_bound_us(i));
	json_close(&w, ']');
	json_close(&w, '}');
}
