/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole way at once: asks every gateway of every TCP service for a connection through the
 * tunnel, as nlbd's health checks do, and wants the answer back.
 */
#include "nlb/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "nlb/conf.h"
#include "nlb/probe.h"

#define ROUNDS     3
#define ROUND_MS   400
#define PROBES_MAX 8192

struct
try {
	struct probe probe;
	struct next_hop hop;
	bool has_answered, is_refused;
	int error;
	size_t *waiting; /* of all */
};

struct tries {
	struct doctor *d;
	const struct nlb_conf *conf; /* may be NULL */
	const struct view *view;
	struct nlb_gateway gateways[NLB_MAX_GATEWAYS];
	struct try *all;
	size_t count, waiting;
	struct prober *prober;
};

static void on_answer(struct probe *probe, enum probe_result result)
{
	struct try *t = container_of(probe, struct try, probe);

	if (!t->has_answered)
		--*t->waiting;
	t->has_answered = true;
	t->is_refused = result == PROBE_REFUSED;
}

/* --- whom to ask ------------------------------------------------------------------------------
 */

/* Where a VIP of every port is asked: on the port of its checks, as nlbd does. 0: none is known. */
static uint16_t port_to_ask(const struct tries *all, const struct view_service *service)
{
	uint16_t port = net_port(&service->address);

	for (size_t i = 0; !port && all->conf && i < all->conf->vips_count; i++) {
		const struct nlb_conf_vip *vip = &all->conf->vips[i];

		if (vip->health && net_addr_eq(&vip->address, &service->address) &&
		    strcmp(nlb_protocol_names[vip->protocol], "tcp") == 0)
			port = (uint16_t)vip->health->port;
	}
	return port;
}

static void add_try(struct tries *all, const struct view_service *service, uint16_t port,
		    const struct nlb_gateway *gw)
{
	struct try *t = &all->all[all->count];

	if (all->count == PROBES_MAX)
		return;
	all->count++;
	t->hop = (struct next_hop) { .ifindex = gw->ifindex, .mtu = gw->mtu, .is_resolved = true };
	memcpy(t->hop.mac, gw->next_hop_mac, sizeof(t->hop.mac));
	memcpy(t->hop.source_mac, gw->source_mac, sizeof(t->hop.source_mac));
	t->waiting = &all->waiting;
	t->probe.vip = service->address;
	net_set_port(&t->probe.vip, port);
	view_gateway_address(gw, &t->probe.gateway);
	t->probe.hop = &t->hop;
	t->probe.encap = (enum nlb_encap)service->vip.encap;
	t->probe.on_answer = on_answer;
}

static bool add_service(const struct view_service *service, void *arg)
{
	uint16_t port = port_to_ask(arg, service);
	struct tries *all = arg;
	char ip[NET_ADDR_LEN];

	/* Nobody has to answer UDP, nor on whichever port of all we would choose. */
	if (service->protocol != IPPROTO_TCP)
		return true;
	if (!port) {
		doctor_unknown(all->d, "tunnel",
			       "%s: not asked, as it takes every port and no check names one",
			       net_format_ip(ip, &service->address));
		return true;
	}
	for (uint16_t id = 1; id < NLB_MAX_GATEWAYS; id++) {
		const struct nlb_gateway *gw = &all->gateways[id];

		if (gw->vip == service->vip.id && (gw->flags & NLB_GATEWAY_RESOLVED))
			add_try(all, service, port, gw);
	}
	return true;
}

static void list_tries(struct tries *all)
{
	for (uint16_t id = 1; id < NLB_MAX_GATEWAYS; id++) {
		if (!view_gateway(all->view, id, &all->gateways[id]))
			all->gateways[id].flags = 0;
	}
	view_services(all->view, add_service, all);
}

/* --- asking -----------------------------------------------------------------------------------
 */

static void ask_all(struct tries *all, struct loop *loop)
{
	all->waiting = all->count;
	for (int round = 0; round < ROUNDS && all->waiting; round++) {
		uint64_t until = clock_mono_ms() + ROUND_MS, now;

		for (size_t i = 0; i < all->count; i++) {
			struct try *t = &all->all[i];

			if (!t->has_answered)
				t->error = probe_send(&t->probe, all->prober);
		}
		while (all->waiting && (now = clock_mono_ms()) < until)
			loop_step(loop, (int)(until - now));
	}
	for (size_t i = 0; i < all->count; i++)
		probe_stop(&all->all[i].probe);
}

/* --- saying -----------------------------------------------------------------------------------
 */

static void report_one(struct doctor *d, const struct tries *all, const struct try *t)
{
	char gateway[NET_ADDR_LEN], vip[NET_ADDR_LEN], ip[NET_ADDR_LEN], source[NET_ADDR_LEN];
	bool is_outer6 = t->probe.gateway.sa.sa_family == AF_INET6;
	struct nlb_gateway outer = { .family = is_outer6 ? 6 : 4 };
	char remedy[DOCTOR_REMEDY_LEN];
	struct net_addr from;

	net_format_ip(gateway, &t->probe.gateway);
	net_format(vip, &t->probe.vip);
	net_format_ip(ip, &t->probe.vip);
	memcpy(outer.address, all->view->config.source[is_outer6], sizeof(outer.address));
	view_gateway_address(&outer, &from);
	net_format_ip(source, &from);
	if (t->error) {
		doctor_unknown(d, "tunnel", "%s for %s: cannot be asked (%s)", gateway, vip,
			       t->error == -EADDRNOTAVAIL
				       ? "this host has no address that an answer could come to"
				       : strerror(-t->error));
	} else if (t->is_refused) {
		doctor_text(remedy,
			    "on %s: ss -ltn; something must listen on %s, or on all addresses",
			    gateway, vip);
		doctor_found(d, DOCTOR_BAD, "tunnel", remedy,
			     "%s understands the tunnel, but refuses connections to %s", gateway,
			     vip);
	} else {
		doctor_text(remedy, "on %s: nlbctl doctor --source %s --vip %s", gateway, source,
			    ip);
		doctor_found(d, DOCTOR_BAD, "tunnel", remedy,
			     "%s does not answer for %s what comes through the tunnel", gateway,
			     vip);
	}
}

static void report(struct doctor *d, const struct tries *all)
{
	size_t good = 0;

	for (size_t i = 0; i < all->count; i++) {
		const struct try *t = &all->all[i];

		if (t->has_answered && !t->is_refused)
			good++;
		else
			report_one(d, all, t);
	}
	if (good)
		doctor_good(d, "tunnel", "%zu of %zu: a connection through the tunnel is answered",
			    good, all->count);
}

void doctor_check_tunnels(struct doctor *d, const struct view *view, const struct nlb_conf *conf)
{
	CLEANUP(cleanup_free) struct tries *all = calloc(1, sizeof(*all));
	CLEANUP(cleanup_free) struct try *tries = calloc(PROBES_MAX, sizeof(*tries));
	CLEANUP(cleanup_close) int config = pins_get(view->dir, "config");
	struct loader loader = { .maps.config = config };
	struct loop *loop = loop_new();
	struct err err = { "out of memory" };

	snprintf(loader.pins.interface, sizeof(loader.pins.interface), "%s", view->interface);
	if (!all || !tries || !loop || config < 0) {
		doctor_unknown(d, "tunnel", "cannot be tried: %s", err.text);
	} else if (prober_new(&all->prober, loop, &loader, &err) != 0) {
		doctor_unknown(d, "tunnel", "cannot be tried: %s (needs root)", err.text);
	} else {
		all->d = d;
		all->view = view;
		all->conf = conf;
		all->all = tries;
		list_tries(all);
		ask_all(all, loop);
		report(d, all);
		prober_free(&all->prober);
	}
	if (loop)
		loop_free(loop);
}
