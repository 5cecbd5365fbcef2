/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/ctl.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/http_server.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/metrics.h"
#include "nlb/announce.h"
#include "nlb/blocks.h"
#include "nlb/discover.h"
#include "nlb/stats.h"
#include "nlb/vips.h"

#define SOCKET_MODE 0660

struct ctl {
	struct http_server *server;
	struct ctl_sources *from;
	uint64_t started_ms;
};

/* --- documents ---------------------------------------------------------------------------------
 */

static void write_stats(struct json_writer *w, const struct nlb_gateway_stats *s)
{
	json_add_u64(w, "packets", s->packets);
	json_add_u64(w, "bytes", s->bytes);
	json_add_u64(w, "connections", s->connections);
	json_add_u64(w, "flow_hits", s->flow_hits);
	json_add_u64(w, "flow_misses", s->flow_misses);
	json_add_u64(w, "unrecorded", s->unrecorded);
}

static void vip_stats(const struct ctl *c, struct vip *vip, struct nlb_gateway_stats *sum)
{
	struct nlb_gateway_stats one;
	struct gateway *gw;

	*sum = vip->former;
	gateways_for_each (gw, vip) {
		stats_gateway(&c->from->loader->maps, gw->id, &one);
		stats_add(sum, &one);
	}
}

static void count_states(struct vip *vip, uint32_t counts[GATEWAY_STATES])
{
	struct gateway *gw;

	memset(counts, 0, sizeof(*counts) * GATEWAY_STATES);
	gateways_for_each (gw, vip)
		counts[gw->state]++;
}

static const char *vip_state(struct vip *vip)
{
	struct gateway *gw;

	if (vip->is_waiting)
		return "waiting";
	if (vip->is_panicking)
		return "panic";
	gateways_for_each (gw, vip) {
		if (gateway_takes_new(gw))
			return "ok";
	}
	return "no_gateway";
}

static void write_vip(const struct ctl *c, struct json_writer *w, struct vip *vip)
{
	uint32_t counts[GATEWAY_STATES];
	struct nlb_gateway_stats stats;
	char address[NET_ADDR_LEN];

	count_states(vip, counts);
	vip_stats(c, vip, &stats);
	json_open(w, NULL, '{');
	json_addz(w, "name", vip->name);
	json_addz(w, "address", net_format_ip(address, &vip->conf->address));
	json_add_u64(w, "port", vip->conf->port);
	json_addz(w, "protocol", nlb_protocol_names[vip->conf->protocol]);
	json_addz(w, "encapsulation", nlb_encap_names[vip->conf->encap]);
	json_addz(w, "state", vip_state(vip));
	json_addz(w, "announced",
		  announce_state_name(announcer_state(c->from->announcer, &vip->conf->address)));
	json_open(w, "gateways", '{');
	for (int s = 0; s < GATEWAY_STATES; s++)
		json_add_u64(w, gateway_state_name((enum gateway_state)s), counts[s]);
	json_close(w, '}');
	write_stats(w, &stats);
	json_close(w, '}');
}

static void write_mac(struct json_writer *w, const char *key, const uint8_t mac[6])
{
	char text[18];

	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	json_addz(w, key, text);
}

static void write_gateway(const struct ctl *c, struct json_writer *w, const struct gateway *gw)
{
	struct nlb_gateway_stats stats;
	char interface[IF_NAMESIZE] = "";

	stats_gateway(&c->from->loader->maps, gw->id, &stats);
	json_open(w, NULL, '{');
	json_addz(w, "vip", gw->vip->name);
	json_addz(w, "name", gw->name);
	json_addz(w, "address", gw->ip);
	json_addz(w, "state", gateway_state_name(gw->state));
	json_addz(w, "health",
		  gw->vip->conf->health ? health_state_name(gw->health.state) : "unchecked");
	json_addz(w, "why", gw->state == GATEWAY_UNRESOLVED ? gw->hop.problem : gw->why);
	json_add_u64(w, "checks_passed", gw->check.passed);
	json_add_u64(w, "checks_failed", gw->check.failed);
	json_add_bool(w, "drained", gw->is_drained);
	json_add_u64(w, "weight", gw->weight);
	json_add_u64(w, "ramp_percent", gw->share * 100 / RAMP_STEPS);
	json_add_double(w, "share_percent", gw->slots * 100.0 / NLB_RING_SLOTS);
	json_add_u64(w, "slots", gw->slots);
	if (gw->hop.is_resolved) {
		write_mac(w, "next_hop_mac", gw->hop.mac);
		json_addz(w, "interface",
			  if_indextoname(gw->hop.ifindex, interface) ? interface : "");
		json_add_u64(w, "mtu", gw->hop.mtu);
	}
	write_stats(w, &stats);
	json_close(w, '}');
}

static void write_vips(const struct ctl *c, struct json_writer *w, const char *key)
{
	struct vip *vip;

	json_open(w, key, '[');
	vips_for_each (vip, c->from->vips)
		write_vip(c, w, vip);
	json_close(w, ']');
}

static void write_gateways(const struct ctl *c, struct json_writer *w, const char *key)
{
	struct gateway *gw;
	struct vip *vip;

	json_open(w, key, '[');
	vips_for_each (vip, c->from->vips) {
		gateways_for_each (gw, vip)
			write_gateway(c, w, gw);
	}
	json_close(w, ']');
}

static void write_reasons(const struct ctl *c, struct json_writer *w)
{
	static const char *const members[STATS_VERDICTS] = { "passed", "dropped", "answered" };
	uint64_t reasons[NLB_REASON_COUNT];

	stats_reasons(&c->from->loader->maps, reasons);
	for (unsigned verdict = 0; verdict < STATS_VERDICTS; verdict++) {
		json_open(w, members[verdict], '{');
		for (uint32_t r = 0; r < NLB_REASON_COUNT; r++) {
			if (stats_reason_verdict(r) == verdict)
				json_add_u64(w, stats_reason_names[r], reasons[r]);
		}
		json_close(w, '}');
	}
}

/* --- routes ------------------------------------------------------------------------------------
 */

static void get_status(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	const struct loader *l = c->from->loader;
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "program", "nlbd");
	json_addz(&w, "version", GATEHOUSE_VERSION);
	json_add_u64(&w, "uptime_s", (clock_mono_ms() - c->started_ms) / 1000);
	json_addz(&w, "config", c->from->config_file);
	json_addz(&w, "interface", l->pins.interface);
	json_addz(&w, "xdp_mode", pins_mode_name(l->mode));
	json_open(&w, "interfaces", '[');
	for (size_t i = 0; i < l->other_count; i++) {
		json_open(&w, NULL, '{');
		json_addz(&w, "name", l->others[i].interface);
		json_addz(&w, "xdp_mode", pins_mode_name(l->other_modes[i]));
		json_close(&w, '}');
	}
	json_close(&w, ']');
	json_add_u64(&w, "mtu", l->mtu);
	json_addz(&w, "pins", l->pins.dir);
	json_add_u64(&w, "flow_capacity", (uint64_t)l->maps.flow_buckets * NLB_FLOW_WAYS);
	json_add_bool(&w, "withdrawn", announcer_is_held(c->from->announcer));
	discover_write_status(c->from->discover, &w);
	write_reasons(c, &w);
	write_vips(c, &w, "vips");
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}

static void get_vips(struct http_request *req, void *arg)
{
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	write_vips(arg, &w, NULL);
	http_respond_json(req, 200, buf_str(out));
}

static void get_gateways(struct http_request *req, void *arg)
{
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	write_gateways(arg, &w, NULL);
	http_respond_json(req, 200, buf_str(out));
}

static void get_flows(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	CLEANUP(cleanup_free) struct stats_flows *flows = malloc(sizeof(*flows));
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);
	struct str only = { 0 };
	struct gateway *gw;
	struct vip *vip;

	if (!flows) {
		http_problem(req, 500, "out of memory");
		return;
	}
	if (http_query(req, "vip", &only) == 0 && !vips_find(c->from->vips, only)) {
		http_problem(req, 404, "there is no VIP named \"%.*s\" (nlbctl vips lists them)",
			     STR_ARG(only));
		return;
	}
	stats_flows(c->from->loader, flows);
	json_open(&w, NULL, '{');
	json_add_u64(&w, "capacity", flows->capacity);
	json_add_u64(&w, "used", flows->used);
	json_open(&w, "flows", '[');
	vips_for_each (vip, c->from->vips) {
		if (only.p && !str_eqz(only, vip->name))
			continue;
		gateways_for_each (gw, vip) {
			json_open(&w, NULL, '{');
			json_addz(&w, "vip", vip->name);
			json_addz(&w, "gateway", gw->name);
			json_add_u64(&w, "flows", flows->count[gw->id]);
			json_add_u64(&w, "last_minute", flows->recent[gw->id]);
			json_close(&w, '}');
		}
	}
	json_close(&w, ']');
	json_close(&w, '}');
	http_respond_json(req, 200, buf_str(out));
}

static void set_drained(struct http_request *req, const struct ctl *c, bool drained)
{
	struct str vip, gateway;
	struct err err;
	int rc;

	if (http_query(req, "vip", &vip) != 0 || http_query(req, "gateway", &gateway) != 0) {
		http_problem(req, 400, "both vip and gateway must be given");
		return;
	}
	rc = vips_drain(c->from->vips, vip, gateway, drained, &err);
	if (rc == -ENOENT) {
		http_problem(req, 404, "%s", err.text);
		return;
	}
	vips_flush(c->from->vips);
	http_respond_json(req, 200, rc ? STR("{\"changed\":false}") : STR("{\"changed\":true}"));
}

static void post_drain(struct http_request *req, void *arg)
{
	set_drained(req, arg, true);
}

static void post_undrain(struct http_request *req, void *arg)
{
	set_drained(req, arg, false);
}

static void post_reload(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct buf said;
	int rc;

	buf_init(&said, 65536);
	rc = c->from->reload(c->from->arg, &said);
	if (rc)
		http_problem(req, 422, "%.*s", STR_ARG(str_chomp(buf_str(&said))));
	else
		http_respond_json(req, 200, STR("{\"reloaded\":true}"));
	buf_fini(&said);
}

static bool query_prefix(struct http_request *req, struct net_prefix *out)
{
	struct str text;

	if (http_query(req, "cidr", &text) != 0) {
		http_problem(req, 400, "cidr must be given");
		return false;
	}
	if (net_parse_prefix(out, text) != 0) {
		http_problem(req, 400, "cidr: \"%.*s\" is neither an IP address nor a prefix",
			     STR_ARG(text));
		return false;
	}
	return true;
}

static void post_block(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct net_prefix prefix;
	uint64_t for_s = 0;
	struct str text;
	struct err err;
	int rc;

	if (!query_prefix(req, &prefix))
		return;
	if (http_query(req, "for_s", &text) == 0 && (!str_u64(text, &for_s) || !for_s)) {
		http_problem(req, 400, "for_s: \"%.*s\" is no number of seconds", STR_ARG(text));
		return;
	}
	rc = blocks_add(c->from->blocks, &prefix, for_s, &err);
	if (rc)
		http_problem(req, rc == -EINVAL ? 400 : 507, "%s", err.text);
	else
		http_respond_json(req, 200, STR("{\"changed\":true}"));
}

static void post_unblock(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct net_prefix prefix;
	struct err err;

	if (!query_prefix(req, &prefix))
		return;
	if (blocks_remove(c->from->blocks, &prefix, &err) != 0)
		http_problem(req, 404, "%s", err.text);
	else
		http_respond_json(req, 200, STR("{\"changed\":true}"));
}

static void get_blocked(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct buf *out = http_scratch(req);
	struct json_writer w = json_writer(out);

	blocks_write(c->from->blocks, &w, NULL);
	http_respond_json(req, 200, buf_str(out));
}

static bool has_announced_vip(const struct ctl *c)
{
	struct vip *vip;

	vips_for_each (vip, c->from->vips) {
		if (vip->conf->announce)
			return true;
	}
	return false;
}

static void hold(struct http_request *req, const struct ctl *c, bool withdrawn)
{
	bool changes = announcer_is_held(c->from->announcer) != withdrawn;

	if (!has_announced_vip(c)) {
		http_problem(req, 409,
			     "no VIP has \"announce\": true in the configuration, so there is "
			     "nothing to withdraw or announce");
		return;
	}
	announcer_hold(c->from->announcer, withdrawn);
	http_respond_json(req, 200,
			  changes ? STR("{\"changed\":true}") : STR("{\"changed\":false}"));
}

static void post_withdraw(struct http_request *req, void *arg)
{
	hold(req, arg, true);
}

static void post_announce(struct http_request *req, void *arg)
{
	hold(req, arg, false);
}

static void get_healthz(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond(req, 200, "text/plain", STR("ok\n"));
}

static void get_readyz(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct err why;

	if (vips_are_ready(c->from->vips, &why))
		http_respond(req, 200, "text/plain", STR("ok\n"));
	else
		http_problem(req, 503, "%s", why.text);
}

/* --- metrics -----------------------------------------------------------------------------------
 */

static void write_reason_metrics(const struct ctl *c, struct buf *out)
{
	static const char *const verdicts[STATS_VERDICTS] = { "pass", "drop", "answer" };
	uint64_t reasons[NLB_REASON_COUNT];

	stats_reasons(&c->from->loader->maps, reasons);
	metrics_family(out, "gatehouse_nlb_unforwarded_packets_total", "counter",
		       "Packets dropped, answered or passed to the kernel, by reason.");
	for (uint32_t r = 0; r < NLB_REASON_COUNT; r++)
		metrics_u64(
			out, "gatehouse_nlb_unforwarded_packets_total",
			METRICS_LABELS({ "verdict", str_from(verdicts[stats_reason_verdict(r)]) },
				       { "reason", str_from(stats_reason_names[r]) }),
			reasons[r]);
}

static void write_gateway_metrics(const struct ctl *c, struct buf *out)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} families[] = {
#define FAMILY(field, text)                               \
	{ "gatehouse_nlb_gateway_" #field "_total", text, \
	  offsetof(struct nlb_gateway_stats, field) }
		FAMILY(packets, "Packets forwarded to the gateway."),
		FAMILY(bytes, "Bytes of forwarded IP packets, without the outer headers."),
		FAMILY(connections, "New connections (SYNs) given to the gateway."),
		FAMILY(flow_hits, "Packets whose gateway came from the flow table."),
		FAMILY(flow_misses, "Packets not found in the flow table after a change."),
		FAMILY(unrecorded, "New connections not recorded because of their rate."),
	};
	struct nlb_gateway_stats stats;
	struct gateway *gw;
	struct vip *vip;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		metrics_family(out, families[f].name, "counter", families[f].help);
		vips_for_each (vip, c->from->vips) {
			gateways_for_each (gw, vip) {
				uint64_t value;

				stats_gateway(&c->from->loader->maps, gw->id, &stats);
				memcpy(&value, (const char *)&stats + families[f].offset,
				       sizeof(value));
				metrics_u64(out, families[f].name,
					    METRICS_LABELS({ "vip", str_from(vip->name) },
							   { "gateway", str_from(gw->name) }),
					    value);
			}
		}
	}
}

enum health_family { FAMILY_HEALTHY, FAMILY_CHANGES, FAMILY_CHECKS };

static void write_health_metric(struct buf *out, const char *name, enum health_family family,
				const struct gateway *gw)
{
	struct str vip = str_from(gw->vip->name), gateway = str_from(gw->name);

	if (family == FAMILY_CHECKS) {
		metrics_u64(out, name,
			    METRICS_LABELS({ "vip", vip }, { "gateway", gateway },
					   { "result", STR("passed") }),
			    gw->check.passed);
		metrics_u64(out, name,
			    METRICS_LABELS({ "vip", vip }, { "gateway", gateway },
					   { "result", STR("failed") }),
			    gw->check.failed);
		return;
	}
	metrics_u64(out, name, METRICS_LABELS({ "vip", vip }, { "gateway", gateway }),
		    family == FAMILY_CHANGES ? gw->transitions : gw->health.state == HEALTH_UP);
}

static void write_health_metrics(const struct ctl *c, struct buf *out)
{
	static const struct {
		const char *name, *type, *help;
	} families[] = {
		[FAMILY_HEALTHY] = { "gatehouse_nlb_gateway_healthy", "gauge",
				     "1 while the gateway passes its checks." },
		[FAMILY_CHANGES] = { "gatehouse_nlb_health_changes_total", "counter",
				     "How often the gateway turned healthy or unhealthy." },
		[FAMILY_CHECKS] = { "gatehouse_nlb_health_checks_total", "counter",
				    "Checks of the gateway, by result." },
	};
	struct gateway *gw;
	struct vip *vip;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		metrics_family(out, families[f].name, families[f].type, families[f].help);
		vips_for_each (vip, c->from->vips) {
			if (!vip->plan)
				continue;
			gateways_for_each (gw, vip)
				write_health_metric(out, families[f].name, (enum health_family)f,
						    gw);
		}
	}
}

static void write_vip_metrics(const struct ctl *c, struct buf *out)
{
	uint32_t counts[GATEWAY_STATES];
	struct nlb_gateway_stats sum;
	struct vip *vip;

	metrics_family(out, "gatehouse_nlb_gateways", "gauge", "Gateways of a VIP, by state.");
	vips_for_each (vip, c->from->vips) {
		count_states(vip, counts);
		for (int s = 0; s < GATEWAY_STATES; s++)
			metrics_u64(out, "gatehouse_nlb_gateways",
				    METRICS_LABELS({ "vip", str_from(vip->name) },
						   { "state", str_from(gateway_state_name(
								      (enum gateway_state)s)) }),
				    counts[s]);
	}
	metrics_family(out, "gatehouse_nlb_vip_panic", "gauge",
		       "1 while no gateway is healthy and all of them are used.");
	vips_for_each (vip, c->from->vips)
		metrics_u64(out, "gatehouse_nlb_vip_panic",
			    METRICS_LABELS({ "vip", str_from(vip->name) }), vip->is_panicking);
	metrics_family(out, "gatehouse_nlb_vip_announced", "gauge",
		       "1 while the address of a VIP with announce is on its interface.");
	vips_for_each (vip, c->from->vips) {
		if (vip->conf->announce)
			metrics_u64(out, "gatehouse_nlb_vip_announced",
				    METRICS_LABELS({ "vip", str_from(vip->name) }),
				    announcer_state(c->from->announcer, &vip->conf->address) ==
					    ANNOUNCE_UP);
	}
	metrics_family(out, "gatehouse_nlb_vip_packets_total", "counter",
		       "Packets forwarded for the VIP, gateways of the past included.");
	vips_for_each (vip, c->from->vips) {
		vip_stats(c, vip, &sum);
		metrics_u64(out, "gatehouse_nlb_vip_packets_total",
			    METRICS_LABELS({ "vip", str_from(vip->name) }), sum.packets);
	}
}

static void write_block_metrics(const struct ctl *c, struct buf *out)
{
	metrics_family(out, "gatehouse_nlb_blocked_sources", "gauge", "Entries of the block list.");
	metrics_u64(out, "gatehouse_nlb_blocked_sources", NULL, blocks_count(c->from->blocks));
}

static void get_metrics(struct http_request *req, void *arg)
{
	const struct ctl *c = arg;
	struct buf *out = http_scratch(req);

	metrics_process(out, "nlbd");
	write_reason_metrics(c, out);
	write_vip_metrics(c, out);
	write_gateway_metrics(c, out);
	write_block_metrics(c, out);
	write_health_metrics(c, out);
	http_server_metrics(c->server, "gatehouse_nlb_admin", out);
	http_respond(req, 200, METRICS_CONTENT_TYPE, buf_str(out));
}

static const struct http_route routes[] = {
	{ METHOD_GET, "/healthz", get_healthz, false },
	{ METHOD_GET, "/readyz", get_readyz, false },
	{ METHOD_GET, "/metrics", get_metrics, false },
	{ METHOD_GET, "/status", get_status, false },
	{ METHOD_GET, "/vips", get_vips, false },
	{ METHOD_GET, "/gateways", get_gateways, false },
	{ METHOD_GET, "/flows", get_flows, true }, /* reads all of a large table */
	{ METHOD_POST, "/drain", post_drain, true },
	{ METHOD_POST, "/undrain", post_undrain, true },
	{ METHOD_GET, "/blocked", get_blocked, true }, /* who is kept out is nobody's business */
	{ METHOD_POST, "/block", post_block, true },
	{ METHOD_POST, "/unblock", post_unblock, true },
	{ METHOD_POST, "/withdraw", post_withdraw, true },
	{ METHOD_POST, "/announce", post_announce, true },
	{ METHOD_POST, "/reload", post_reload, true },
};

static void on_request(struct http_request *req, void *arg)
{
	http_route(req, routes, ARRAY_SIZE(routes), arg);
}

/* --- listening ---------------------------------------------------------------------------------
 */

static int listen_unix(struct ctl *c, struct str path, struct err *err)
{
	struct net_addr addr;
	char text[128];

	snprintf(text, sizeof(text), "unix:%s", path.p);
	if (net_parse(&addr, str_from(text), 0) != 0)
		return err_set(err, -EINVAL, "admin.socket: \"%.*s\" is too long", STR_ARG(path));
	return http_server_listen(c->server, &addr, SOCKET_MODE, err);
}

struct ctl *ctl_new(struct loop *loop, const struct nlb_conf *conf, struct ctl_sources *sources,
		    struct err *err)
{
	struct ctl *c = calloc(1, sizeof(*c));
	struct http_server_config config = { .on_request = on_request, .arg = c };

	if (c)
		c->server = http_server_new(loop, &config);
	if (!c || !c->server) {
		free(c);
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	c->from = sources;
	c->started_ms = clock_mono_ms();
	if (http_server_listen(c->server, &conf->admin_bind, 0, err) != 0 ||
	    listen_unix(c, conf->admin_socket, err) != 0)
		ctl_free(&c);
	return c;
}

void ctl_free(struct ctl **cp)
{
	if (!*cp)
		return;
	http_server_free(&(*cp)->server);
	free(*cp);
	*cp = NULL;
}
