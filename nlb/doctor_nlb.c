/* SPDX-License-Identifier: Apache-2.0 */
/* A load balancer's host: configuration, program, ways to the gateways, memory, clock. */
#include "nlb/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "nlb/conf.h"
#include "nlb/explain.h"
#include "nlb/link.h"

#define MTU_MIN       1280 /* what must fit inside a tunnel at the very least */
#define MTU_USUAL     1500 /* what clients send */
#define MEMORY_SHARE  4    /* the flow table should take less than 1/4 of all memory */
#define FULL_PERCENT  90
#define FIRST_TIME_MS 1735689600000ULL /* 2025: no clock that is right shows less */

struct nlb_host {
	struct doctor *d;
	json_t *status, *listed; /* nlbd's /status and /gateways, or NULL */
	struct view view;
	bool has_view;
	struct nlb_conf conf;
	struct arena arena;
	bool has_conf;
	struct doctor_gateway *gateways;
	size_t gateway_count;
	struct doctor_interface interface;
};

bool doctor_is_nlb(const struct doctor *d)
{
	char found[VIEW_INTERFACES_MAX][16];
	json_t *status;

	if (d->o->config || view_interfaces(d->o->pin_directory, found) > 0 ||
	    access(NLBCTL_CONFIG, F_OK) == 0)
		return true;
	status = nlbctl_get_quietly(d->o, "/status");
	json_decref(status);
	return status != NULL;
}

/* --- configuration ----------------------------------------------------------------------------
 */

static void check_config(struct nlb_host *h)
{
	const char *file = h->d->o->config, *running = nlbctl_text(h->status, "config");
	struct conf_errors errors = { 0 };
	char remedy[DOCTOR_REMEDY_LEN];
	struct str rest, first;
	struct buf said;

	if (!file)
		file = *running != '-' ? running : NLBCTL_CONFIG;
	buf_init(&said, 1 << 20);
	if (conf_load(&h->conf, &nlb_conf_object, file, &h->arena, &errors) == 0) {
		h->has_conf = true;
		doctor_good(h->d, "config", "%s is without mistakes", file);
	} else if (access(file, R_OK) != 0 && errno == EACCES) {
		doctor_unknown(h->d, "config", "%s cannot be read (needs root)", file);
	} else {
		conf_errors_write(&errors, file, &said);
		rest = buf_str(&said);
		first = (struct str) { 0 };
		str_split(&rest, '\n', &first);
		doctor_text(remedy, "nlbd -c %s --check", file);
		doctor_found(h->d, DOCTOR_BAD, "config", remedy, "%.*s", STR_ARG(first));
	}
	conf_errors_fini(&errors);
	buf_fini(&said);
}

static void check_seed(struct nlb_host *h)
{
	if (!h->has_conf)
		return;
	if (h->conf.hash_seed.p)
		doctor_good(h->d, "hash-seed", "set");
	else
		doctor_found(
			h->d, DOCTOR_WARNING, "hash-seed",
			"(umask 077; openssl rand -hex 32 > /etc/gatehouse/hash-seed), and in "
			"the configuration \"hash_seed\": \"$file:/etc/gatehouse/hash-seed\", the "
			"same on every load balancer",
			"not set: clients can choose which gateway they meet");
}

static void check_daemon(struct nlb_host *h)
{
	if (h->status)
		doctor_good(h->d, "nlbd", "answers at %s", h->d->o->socket);
	else if (access(h->d->o->socket, W_OK) != 0 && errno == EACCES)
		doctor_unknown(h->d, "nlbd", "%s may not be asked (needs root)", h->d->o->socket);
	else
		doctor_found(h->d, DOCTOR_WARNING, "nlbd",
			     "systemctl start gatehouse-nlb (or name its --socket)",
			     "does not answer at %s: what is forwarded goes on, but nobody notices "
			     "a gateway that dies",
			     h->d->o->socket);
}

/* --- gateways ---------------------------------------------------------------------------------
 */

static bool add_gateway(struct nlb_host *h, const char *name, const char *vip, struct str address)
{
	struct doctor_gateway *all = realloc(h->gateways, (h->gateway_count + 1) * sizeof(*all)),
			      *gw;

	if (!all)
		return false;
	h->gateways = all;
	gw = &all[h->gateway_count];
	*gw = (struct doctor_gateway) { 0 };
	if (net_parse_ip(&gw->address, address, 0) != 0)
		return true;
	snprintf(gw->name, sizeof(gw->name), "%s", name);
	snprintf(gw->vip, sizeof(gw->vip), "%s", vip);
	h->gateway_count++;
	return true;
}

static uint8_t encap_of(const char *name)
{
	for (int e = 0; nlb_encap_names[e]; e++) {
		if (strcmp(nlb_encap_names[e], name) == 0)
			return (uint8_t)(e + 1);
	}
	return NLB_ENCAP_GUE;
}

static void list_from_daemon(struct nlb_host *h)
{
	const json_t *gw, *vip;
	size_t i, k;

	json_array_foreach (h->listed, i, gw) {
		size_t before = h->gateway_count;

		if (!add_gateway(h, nlbctl_text(gw, "name"), nlbctl_text(gw, "vip"),
				 str_from(nlbctl_text(gw, "address"))) ||
		    h->gateway_count == before)
			continue;
		json_array_foreach (json_object_get(h->status, "vips"), k, vip) {
			if (strcmp(nlbctl_text(vip, "name"), nlbctl_text(gw, "vip")) == 0)
				h->gateways[before].encap =
					encap_of(nlbctl_text(vip, "encapsulation"));
		}
	}
}

static void list_from_maps(struct nlb_host *h)
{
	for (uint16_t id = 1; id < NLB_MAX_GATEWAYS; id++) {
		char ip[NET_ADDR_LEN], vip[16];
		struct nlb_gateway entry;
		struct net_addr address;

		if (!view_gateway(&h->view, id, &entry) || !entry.flags)
			continue;
		view_gateway_address(&entry, &address);
		net_format_ip(ip, &address);
		snprintf(vip, sizeof(vip), "VIP %u", entry.vip);
		if (!add_gateway(h, ip, vip, str_from(ip)))
			return;
		h->gateways[h->gateway_count - 1].encap = entry.encap ?: NLB_ENCAP_GUE;
	}
}

static void list_from_config(struct nlb_host *h)
{
	for (size_t i = 0; i < h->conf.vips_count; i++) {
		const struct nlb_conf_vip *vip = &h->conf.vips[i];

		for (size_t k = 0; k < vip->gateways_count; k++) {
			char ip[NET_ADDR_LEN], name[128], vip_name[128];

			net_format_ip(ip, &vip->gateways[k].address);
			snprintf(name, sizeof(name), "%s", vip->gateways[k].name.p);
			snprintf(vip_name, sizeof(vip_name), "%s", vip->name.p);
			if (!add_gateway(h, name, vip_name, str_from(ip)))
				return;
			h->gateways[h->gateway_count - 1].encap = (uint8_t)(vip->encap + 1);
		}
	}
}

/* The best that is known of them: nlbd's list, what is forwarded to, or what is configured. */
static void list_gateways(struct nlb_host *h)
{
	if (h->listed)
		list_from_daemon(h);
	else if (h->has_view)
		list_from_maps(h);
	else if (h->has_conf)
		list_from_config(h);
}

/* The entry that packets see; false when there is none or it cannot be read. */
static bool find_entry(const struct nlb_host *h, const struct doctor_gateway *gw,
		       struct nlb_gateway *out)
{
	for (uint16_t id = 1; h->has_view && id < NLB_MAX_GATEWAYS; id++) {
		struct net_addr address;

		if (!view_gateway(&h->view, id, out) || !(out->flags & NLB_GATEWAY_RESOLVED))
			continue;
		view_gateway_address(out, &address);
		if (net_addr_eq(&address, &gw->address))
			return true;
	}
	return false;
}

static const char *mac_text(char out[static 18], const uint8_t mac[static 6])
{
	snprintf(out, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
	return out;
}

/* Returns whether all is well with the way to it. */
static bool check_next_hop(struct nlb_host *h, const struct doctor_gateway *gw,
			   const struct link_route *route)
{
	char ip[NET_ADDR_LEN], via[NET_ADDR_LEN], interface[IF_NAMESIZE] = "?";
	char remedy[DOCTOR_REMEDY_LEN], kernel[18], map[18];
	enum link_neighbour_state state;
	struct nlb_gateway entry;
	uint8_t mac[6];

	net_format_ip(ip, &gw->address);
	net_format_ip(via, &route->via);
	if_indextoname(route->ifindex, interface);
	state = link_neighbour(&route->via, route->ifindex, mac);
	if (state == LINK_NEIGHBOUR_FAILED ||
	    (state == LINK_NEIGHBOUR_UNKNOWN && h->has_view && !find_entry(h, gw, &entry))) {
		doctor_text(remedy, "ping -c1 -I %s %s; is it up, and on that segment?", interface,
			    via);
		doctor_found(h->d, DOCTOR_BAD, "next-hop", remedy,
			     "%s (%s): the MAC address of %s is not known on %s", gw->name, ip, via,
			     interface);
		return false;
	}
	if (state == LINK_NEIGHBOUR_KNOWN && find_entry(h, gw, &entry) &&
	    entry.ifindex == route->ifindex && memcmp(entry.next_hop_mac, mac, 6) != 0) {
		doctor_found(h->d, DOCTOR_BAD, "next-hop",
			     "systemctl restart gatehouse-nlb (forwarding goes on meanwhile)",
			     "%s (%s): packets go to %s, but %s has %s now", gw->name, ip,
			     mac_text(map, entry.next_hop_mac), via, mac_text(kernel, mac));
		return false;
	}
	return true;
}

static bool check_route(struct nlb_host *h, struct doctor_gateway *gw)
{
	char ip[NET_ADDR_LEN], remedy[DOCTOR_REMEDY_LEN], interface[IF_NAMESIZE];
	struct link_route route;
	uint32_t mtu;
	int rc = link_route(&gw->address, &route);

	net_format_ip(ip, &gw->address);
	if (rc || !route.ifindex) {
		doctor_text(remedy, "ip route add %s/%d via ROUTER (or dev INTERFACE)", ip,
			    gw->address.sa.sa_family == AF_INET6 ? 128 : 32);
		doctor_found(h->d, DOCTOR_BAD, "route", remedy, "%s: no route to %s", gw->name, ip);
		return false;
	}
	if (!route.is_unicast) {
		doctor_text(remedy, "ip address show to %s; ip route get %s", ip, ip);
		doctor_found(h->d, DOCTOR_BAD, "route", remedy,
			     "%s: %s is no other host: an address of this one, or a route that "
			     "refuses",
			     gw->name, ip);
		return false;
	}
	gw->ifindex = route.ifindex;
	mtu = if_indextoname(route.ifindex, interface) ? link_mtu(interface) : 0;
	gw->mtu = route.mtu && route.mtu < mtu ? route.mtu : mtu;
	return check_next_hop(h, gw, &route);
}

static void check_routes(struct nlb_host *h)
{
	size_t good = 0;

	for (size_t i = 0; i < h->gateway_count; i++)
		good += check_route(h, &h->gateways[i]);
	if (good)
		doctor_good(h->d, "gateways", "%zu of %zu: route and next hop known", good,
			    h->gateway_count);
	else if (!h->gateway_count)
		doctor_found(h->d, DOCTOR_WARNING, "gateways", "nlbctl vips",
			     "none is known: packets to the virtual IPs are dropped");
}

/* Whether all gateways of the VIP drain, by nlbctl. */
static bool is_drained_by_hand(const struct nlb_host *h, const char *vip)
{
	const json_t *gw;
	size_t i, count = 0;

	json_array_foreach (h->listed, i, gw) {
		if (strcmp(nlbctl_text(gw, "vip"), vip) != 0)
			continue;
		count++;
		if (!json_is_true(json_object_get(gw, "drained")))
			return false;
	}
	return count > 0;
}

/* Returns whether it takes new connections. */
static bool check_vip(struct nlb_host *h, const json_t *vip)
{
	const char *state = nlbctl_text(vip, "state"), *name = nlbctl_text(vip, "name");
	char remedy[DOCTOR_REMEDY_LEN];

	if (strcmp(state, "panic") == 0) {
		doctor_found(h->d, DOCTOR_BAD, "vips", "nlbctl gateways tells why",
			     "%s: no gateway is healthy, so connections are given to all of them",
			     name);
	} else if (strcmp(state, "waiting") == 0) {
		doctor_found(h->d, DOCTOR_BAD, "vips",
			     "nlbctl status shows the registry; is registryd running there?",
			     "%s: waits for the registry's first list of gateways", name);
	} else if (strcmp(state, "no_gateway") == 0 && is_drained_by_hand(h, name)) {
		doctor_text(remedy, "nlbctl undrain %s GATEWAY", name);
		doctor_found(h->d, DOCTOR_BAD, "vips", remedy,
			     "%s: all gateways were drained by hand, new connections are dropped",
			     name);
	} else if (strcmp(state, "no_gateway") == 0) {
		doctor_found(h->d, DOCTOR_BAD, "vips",
			     "nlbctl gateways (STATE up and a WEIGHT are needed)",
			     "%s: no gateway takes new connections, they are dropped", name);
	} else {
		return true;
	}
	return false;
}

static void check_vips(struct nlb_host *h)
{
	const json_t *vip, *vips = json_object_get(h->status, "vips");
	size_t i, good = 0;

	json_array_foreach (vips, i, vip)
		good += check_vip(h, vip);
	if (json_is_true(json_object_get(h->status, "withdrawn")))
		doctor_found(h->d, DOCTOR_WARNING, "vips", "nlbctl announce",
			     "those with \"announce\" were withdrawn by hand");
	if (good)
		doctor_good(h->d, "vips", "%zu of %zu take new connections", good,
			    json_array_size(vips));
}

static void check_states(struct nlb_host *h)
{
	const json_t *gw;
	char remedy[DOCTOR_REMEDY_LEN];
	size_t i;

	json_array_foreach (h->listed, i, gw) {
		bool is_down = strcmp(nlbctl_text(gw, "state"), "down") == 0;
		bool is_up = strcmp(nlbctl_text(gw, "state"), "up") == 0;

		if (!is_down && !(is_up && strcmp(nlbctl_text(gw, "why"), "-") != 0))
			continue;
		doctor_text(remedy, "on %s: nlbctl doctor", nlbctl_text(gw, "address"));
		doctor_found(h->d, DOCTOR_WARNING, "health", remedy, "%s of %s is %s: %s",
			     nlbctl_text(gw, "name"), nlbctl_text(gw, "vip"),
			     is_down ? "down" : "up, but its last check failed",
			     nlbctl_text(gw, "why"));
	}
}

/* --- the size of packets ----------------------------------------------------------------------
 */

static uint32_t overhead_of(const struct doctor_gateway *gw)
{
	return explain_overhead(gw->encap, gw->address.sa.sa_family == AF_INET6 ? 6 : 4, 2);
}

static void check_mtu(struct nlb_host *h)
{
	const struct doctor_gateway *worst = NULL;
	char remedy[DOCTOR_REMEDY_LEN], interface[IF_NAMESIZE] = "INTERFACE";
	uint32_t room = UINT32_MAX, wanted;

	for (size_t i = 0; i < h->gateway_count; i++) {
		const struct doctor_gateway *gw = &h->gateways[i];
		uint32_t here = gw->mtu - MIN(gw->mtu, overhead_of(gw));

		if (gw->mtu && here < room) {
			room = here;
			worst = gw;
		}
	}
	if (!worst)
		return;
	if (room >= MTU_USUAL) {
		doctor_good(h->d, "mtu", "packets of %u bytes fit every tunnel", MTU_USUAL);
		return;
	}
	wanted = MTU_USUAL + overhead_of(worst);
	if_indextoname(worst->ifindex, interface);
	doctor_text(remedy,
		    "ip link set dev %s mtu %u here, and no less on switch and gateways; or on "
		    "the gateways: ip route change default via ROUTER dev IFACE advmss %u",
		    interface, wanted, room > 40 ? room - 40 : 0);
	doctor_found(h->d, room < MTU_MIN ? DOCTOR_BAD : DOCTOR_WARNING, "mtu", remedy,
		     "%u on the way to %s: packets over %u bytes do not fit its tunnel", worst->mtu,
		     worst->name, room);
}

/* --- other interfaces -------------------------------------------------------------------------
 */

static bool is_first_with_interface(const struct nlb_host *h, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		if (h->gateways[k].ifindex == h->gateways[i].ifindex)
			return false;
	}
	return h->gateways[i].ifindex != 0;
}

/* A veth loses what XDP sends by it, also by the way that it came, unless its other end is ready.
 */
static void check_egress(struct nlb_host *h)
{
	char name[IF_NAMESIZE], driver[LINK_DRIVER_LEN], remedy[DOCTOR_REMEDY_LEN];
	size_t good = 0;

	if (!h->interface.name || !h->interface.is_attached || h->interface.mode == PINS_GENERIC)
		return;
	for (size_t i = 0; i < h->gateway_count; i++) {
		int takes;
		bool is_veth;

		if (!is_first_with_interface(h, i) || !if_indextoname(h->gateways[i].ifindex, name))
			continue;
		is_veth = strcmp(link_driver(name, driver), "veth") == 0;
		if (!is_veth && strcmp(name, h->interface.name) == 0) {
			good++;
			continue; /* a driver with native XDP can send back by itself */
		}
		takes = link_takes_xdp(h->gateways[i].ifindex);
		good += takes == 1;
		if (takes < 0)
			doctor_unknown(h->d, "egress",
				       "%s: cannot tell whether it takes packets from XDP (needs "
				       "kernel 6.3)",
				       name);
		if (takes != 0)
			continue;
		if (is_veth)
			doctor_text(remedy,
				    "attach an XDP program (one that passes all) to the other end "
				    "of %s",
				    name);
		else
			doctor_text(remedy,
				    "reach the gateways by an interface whose driver (%s) "
				    "does, or set \"xdp_mode\": \"generic\"",
				    *driver ? driver : "unknown");
		doctor_found(h->d, DOCTOR_BAD, "egress", remedy,
			     "%s, by which gateways are reached, loses packets that XDP sends",
			     name);
	}
	if (good)
		doctor_good(h->d, "egress", "interfaces to the gateways take packets from XDP");
}

/* --- memory, clock ----------------------------------------------------------------------------
 */

static uint64_t total_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	uint64_t kib = 0;

	if (file && fscanf(file, "MemTotal: %" SCNu64, &kib) != 1)
		kib = 0;
	if (file)
		fclose(file);
	return kib << 10;
}

static void check_flow_table(struct nlb_host *h)
{
	uint64_t bytes, memory = total_memory(), capacity, used;
	json_t *flows;

	if (!h->has_view)
		return;
	bytes = (uint64_t)h->view.cpus * (h->view.config.flow_bucket_mask + 1) *
		sizeof(struct nlb_flow_bucket);
	if (memory && bytes > memory / MEMORY_SHARE) {
		doctor_found(h->d, DOCTOR_WARNING, "flow-table",
			     "lower \"flows_per_cpu\" in the configuration and restart nlbd",
			     "takes %" PRIu64 " MiB of %" PRIu64 " MiB memory", bytes >> 20,
			     memory >> 20);
		return;
	}
	flows = nlbctl_get_quietly(h->d->o, "/flows");
	capacity = (uint64_t)nlbctl_number(flows, "capacity");
	used = (uint64_t)nlbctl_number(flows, "used");
	json_decref(flows);
	if (capacity && used * 100 >= capacity * FULL_PERCENT)
		doctor_found(h->d, DOCTOR_WARNING, "flow-table",
			     "raise \"flows_per_cpu\" in the configuration and restart nlbd",
			     "%" PRIu64 " of %" PRIu64 " entries in use: older ones are pushed out",
			     used, capacity);
	else
		doctor_good(h->d, "flow-table", "%" PRIu64 " %s%s",
			    bytes >> 20 ? bytes >> 20 : bytes >> 10, bytes >> 20 ? "MiB" : "KiB",
			    capacity ? ", room left" : "");
}

/* Leases and certificates are judged by it. What packets meet goes by the time since the start. */
static void check_clock(struct nlb_host *h)
{
	if (clock_wall_ms() < FIRST_TIME_MS)
		doctor_found(h->d, DOCTOR_BAD, "clock", "timedatectl set-ntp true",
			     "it is years behind: certificates of gateways look as if they were "
			     "not valid yet");
	else
		doctor_good(h->d, "clock", "not years behind");
}

/* --- all --------------------------------------------------------------------------------------
 */

static void open_view(struct nlb_host *h)
{
	struct err err = { "" };
	int rc = view_open(&h->view, h->d->o->pin_directory, h->d->o->interface, &err);

	h->has_view = rc == 0;
	if (rc == -EPERM)
		doctor_unknown(h->d, "maps", "%s", err.text);
	else if (rc)
		doctor_found(h->d, DOCTOR_BAD, "maps", "systemctl start gatehouse-nlb", "%s",
			     err.text);
}

/* The interface: as named, as forwarding, as running, as configured. */
static void name_interface(struct nlb_host *h)
{
	const char *running = nlbctl_text(h->status, "interface");
	static char configured[IF_NAMESIZE];

	h->interface.name = h->d->o->interface;
	if (!h->interface.name && h->has_view)
		h->interface.name = h->view.interface;
	if (!h->interface.name && *running != '-')
		h->interface.name = running;
	if (!h->interface.name && h->has_conf) {
		snprintf(configured, sizeof(configured), "%s", h->conf.interface.p);
		h->interface.name = configured;
	}
	h->interface.remedy = "systemctl restart gatehouse-nlb";
	snprintf(h->interface.link, sizeof(h->interface.link), "link");
	if (h->interface.name)
		snprintf(h->interface.folder, sizeof(h->interface.folder), "%s/%s",
			 h->d->o->pin_directory, h->interface.name);
}

/* "interfaces": the same program, attached beside the first. */
static void check_more_interfaces(struct nlb_host *h)
{
	for (size_t i = 0; h->has_conf && i < h->conf.interfaces_count; i++) {
		struct doctor_interface more = h->interface;

		more.name = h->conf.interfaces[i].p;
		more.is_attached = false;
		snprintf(more.link, sizeof(more.link), "link-%.15s", more.name);
		doctor_check_program(h->d, &more);
		doctor_check_offloads(h->d, &more);
	}
}

void doctor_check_nlb(struct doctor *d)
{
	struct nlb_host h = { .d = d };

	arena_init(&h.arena, 16384, 0);
	h.status = nlbctl_get_quietly(d->o, "/status");
	h.listed = nlbctl_get_quietly(d->o, "/gateways");
	check_config(&h);
	check_seed(&h);
	check_daemon(&h);
	open_view(&h);
	name_interface(&h);
	if (h.interface.name) {
		doctor_check_program(d, &h.interface);
		doctor_check_offloads(d, &h.interface);
		check_more_interfaces(&h);
	}
	list_gateways(&h);
	check_routes(&h);
	check_vips(&h);
	check_states(&h);
	check_mtu(&h);
	check_egress(&h);
	check_flow_table(&h);
	check_clock(&h);
	doctor_check_path(d, h.gateways, h.gateway_count);
	if (h.has_view)
		doctor_check_tunnels(d, &h.view, h.has_conf ? &h.conf : NULL);
	free(h.gateways);
	if (h.has_view)
		view_close(&h.view);
	json_decref(h.status);
	json_decref(h.listed);
	arena_fini(&h.arena);
}
