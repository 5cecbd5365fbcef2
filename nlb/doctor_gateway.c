/* SPDX-License-Identifier: Apache-2.0 */
/* A gateway's host: the decapsulation, the virtual IPs on lo, and what the kernel must not refuse.
 */
#include "nlb/doctor.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "nlb/explain.h"
#include "nlb/link.h"

#define INTERFACES_MAX 16
#define WATCH_MS       1100 /* longer than a load balancer waits between two probes */
#define CLIENT_MTU     1500 /* what must fit a tunnel */

/* --- finding it -------------------------------------------------------------------------------
 */

static size_t decap_interfaces(const struct doctor *d, char out[INTERFACES_MAX][IF_NAMESIZE])
{
	DIR *dir = opendir(d->o->pin_directory);
	struct dirent *entry;
	size_t count = 0;

	while (dir && count < INTERFACES_MAX && (entry = readdir(dir))) {
		char path[PATH_MAX];
		size_t len = strlen(entry->d_name);

		if (entry->d_name[0] == '.' || len >= IF_NAMESIZE ||
		    (d->o->interface && strcmp(entry->d_name, d->o->interface) != 0))
			continue;
		snprintf(path, sizeof(path), "%s/%s/decap/link", d->o->pin_directory,
			 entry->d_name);
		if (access(path, F_OK) == 0)
			memcpy(out[count++], entry->d_name, len + 1);
	}
	if (dir)
		closedir(dir);
	return count;
}

bool doctor_is_gateway(const struct doctor *d, bool is_nlb)
{
	CLEANUP(cleanup_free) struct decap_settings *found = calloc(1, sizeof(*found));
	char interfaces[INTERFACES_MAX][IF_NAMESIZE];

	if (decap_interfaces(d, interfaces) > 0)
		return true;
	/* An NLB may have its virtual IPs on lo too, for a routing daemon to announce. */
	if (is_nlb || !found)
		return false;
	if (d->o->given & (TAKES_SOURCE | TAKES_VIP))
		return true;
	decap_find_vips(found);
	return found->vip_count > 0;
}

/* Where tunnelled packets probably arrive: on the way to everybody. */
static const char *default_interface(const struct doctor *d, char out[static IF_NAMESIZE])
{
	struct net_addr anybody = { .in.sin_family = AF_INET, .len = sizeof(anybody.in) };
	struct link_route route;

	anybody.in.sin_addr.s_addr = htonl(0x08080808);
	if (d->o->interface)
		snprintf(out, IF_NAMESIZE, "%s", d->o->interface);
	else if (link_route(&anybody, &route) != 0 || !if_indextoname(route.ifindex, out))
		snprintf(out, IF_NAMESIZE, "INTERFACE");
	return out;
}

/* --- virtual IPs ------------------------------------------------------------------------------
 */

static void prefix_address(const struct net_prefix *p, struct net_addr *out)
{
	*out = (struct net_addr) { .in6.sin6_family = AF_INET6, .len = sizeof(out->in6) };
	memcpy(&out->in6.sin6_addr, p->bytes, 16);
	net_unmap(out);
}

static bool check_vip(struct doctor *d, const struct net_addr *vip)
{
	char ip[NET_ADDR_LEN], remedy[DOCTOR_REMEDY_LEN];
	bool is_ipv6 = vip->sa.sa_family == AF_INET6;

	if (link_loopback_has(vip))
		return true;
	net_format_ip(ip, vip);
	doctor_text(remedy, "ip address add %s/%d dev lo", ip, is_ipv6 ? 128 : 32);
	doctor_found(d, DOCTOR_BAD, "vip", remedy,
		     "%s is not on lo: the kernel drops or forwards packets to it", ip);
	return false;
}

static void check_named_vips(struct doctor *d, size_t *good)
{
	for (size_t i = 0; i < d->o->vip_count; i++) {
		struct net_addr vip;

		if (net_parse_ip(&vip, str_from(d->o->vips[i]), 0) == 0)
			*good += check_vip(d, &vip);
	}
}

static bool has_vip(const struct decap_settings *settings, const uint8_t bytes[static 16])
{
	for (size_t i = 0; i < settings->vip_count; i++) {
		if (memcmp(settings->vips[i].bytes, bytes, 16) == 0)
			return true;
	}
	return false;
}

/* Those on lo that came after `decap attach`. */
static void check_new_vips(struct doctor *d, const char *interface,
			   const struct decap_settings *settings)
{
	CLEANUP(cleanup_free) struct decap_settings *found = calloc(1, sizeof(*found));
	char remedy[DOCTOR_REMEDY_LEN], ip[NET_ADDR_LEN];

	if (!found)
		return;
	decap_find_vips(found);
	for (size_t i = 0; i < found->vip_count; i++) {
		struct net_addr address;

		if (has_vip(settings, found->vips[i].bytes))
			continue;
		prefix_address(&found->vips[i], &address);
		doctor_text(remedy, "nlbctl decap attach %s --source ... (again, with all sources)",
			    interface);
		doctor_found(d, DOCTOR_WARNING, "vip", remedy,
			     "%s is on lo, but tunnelled packets to it are refused on %s",
			     net_format_ip(ip, &address), interface);
	}
}

static void check_vips(struct doctor *d, const char *interface,
		       const struct decap_settings *settings)
{
	size_t good = 0;

	for (size_t i = 0; i < settings->vip_count; i++) {
		struct net_addr vip;

		prefix_address(&settings->vips[i], &vip);
		good += check_vip(d, &vip);
	}
	check_named_vips(d, &good);
	if (good)
		doctor_good(d, "vip", "%zu on lo", good);
	check_new_vips(d, interface, settings);
}

/* --- sources ----------------------------------------------------------------------------------
 */

static bool is_accepted(const struct decap_settings *settings, const struct net_addr *source)
{
	for (size_t i = 0; i < settings->source_count; i++) {
		if (net_prefix_has(&settings->sources[i], source))
			return true;
	}
	return false;
}

static bool check_named_sources(struct doctor *d, const char *interface,
				const struct decap_settings *settings)
{
	char remedy[DOCTOR_REMEDY_LEN];
	bool is_good = true;

	for (size_t i = 0; i < d->o->source_count; i++) {
		struct net_addr source;

		if (net_parse_ip(&source, str_from(d->o->sources[i]), 0) != 0 ||
		    is_accepted(settings, &source))
			continue;
		is_good = false;
		doctor_text(remedy, "nlbctl decap attach %s --source %s ... (and the others again)",
			    interface, d->o->sources[i]);
		doctor_found(d, DOCTOR_BAD, "sources", remedy,
			     "tunnelled packets of %s are refused on %s", d->o->sources[i],
			     interface);
	}
	return is_good;
}

/* Strangers of the past may have been told off already; those that come now want to be heard. */
static void check_sources(struct doctor *d, const char *interface,
			  const struct decap_status *before)
{
	CLEANUP(cleanup_free) struct decap_status *now = calloc(1, sizeof(*now));
	const struct timespec pause = { .tv_sec = WATCH_MS / 1000,
					.tv_nsec = WATCH_MS % 1000 * 1000000L };
	uint64_t strangers;
	struct err err;

	if (!check_named_sources(d, interface, &before->settings) || !now)
		return;
	nanosleep(&pause, NULL);
	if (decap_status(d->o->pin_directory, interface, now, &err) != 0)
		return;
	strangers = now->reasons[DECAP_REASON_STRANGER] - before->reasons[DECAP_REASON_STRANGER];
	if (strangers) {
		char remedy[DOCTOR_REMEDY_LEN];

		doctor_text(remedy,
			    "nlbctl decap attach %s --source ... with the source_address of every "
			    "load balancer (tcpdump -ni %s udp port 6080 or proto 4 shows who)",
			    interface, interface);
		doctor_found(d, DOCTOR_BAD, "sources", remedy,
			     "%llu tunnelled packets a second come to %s from somebody who is not "
			     "accepted",
			     (unsigned long long)strangers, interface);
		return;
	}
	doctor_good(d, "sources", "%s accepts %zu, and nobody else sends", interface,
		    before->settings.source_count);
}

/* --- the kernel -------------------------------------------------------------------------------
 */

/* The larger of the two values counts. -1: it cannot be told, and that is said. */
static int effective(struct doctor *d, const char *interface, const char *name)
{
	int all, own;

	link_sysctl(interface, name, &all, &own);
	if (all < 0 || own < 0) {
		doctor_unknown(d, name, "net.ipv4.conf.%s.%s cannot be read", interface, name);
		return -1;
	}
	return MAX(all, own);
}

static void check_rp_filter(struct doctor *d, const char *interface)
{
	int value = effective(d, interface, "rp_filter");
	char remedy[DOCTOR_REMEDY_LEN];

	if (value == 0)
		doctor_good(d, "rp_filter", "off on %s", interface);
	if (value <= 0)
		return;
	doctor_text(remedy, "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.%s.rp_filter=0",
		    interface);
	doctor_found(d, DOCTOR_BAD, "rp_filter", remedy,
		     "%d on %s: packets of clients that are routed %s are dropped", value,
		     interface, value == 1 ? "by another interface" : "nowhere");
}

static void check_arp(struct doctor *d, const char *interface, const char *name, int wanted,
		      const char *harm)
{
	int value = effective(d, interface, name);
	char remedy[DOCTOR_REMEDY_LEN];

	if (value < 0)
		return;
	if (value >= wanted) {
		doctor_good(d, name, "%d on %s", value, interface);
		return;
	}
	doctor_text(remedy, "sysctl -w net.ipv4.conf.all.%s=%d", name, wanted);
	doctor_found(d, DOCTOR_BAD, name, remedy, "%d on %s: %s", value, interface, harm);
}

/* Whether the list has a prefix of the family. */
static bool has_family(const struct net_prefix *list, size_t count, bool is_ipv6)
{
	for (size_t i = 0; i < count; i++) {
		if (net_prefix_is_ipv4(&list[i]) != is_ipv6)
			return true;
	}
	return false;
}

/* The largest segment that clients of the family are told to send; 0: nothing special. */
static uint32_t told_mss(bool is_ipv6)
{
	struct net_addr anybody = { .in.sin_family = AF_INET, .len = sizeof(anybody.in) };
	struct link_route route;

	if (is_ipv6)
		net_parse_ip(&anybody, STR("2001:4860:4860::8888"), 0);
	else
		anybody.in.sin_addr.s_addr = htonl(0x08080808);
	return link_route(&anybody, &route) == 0 ? route.advmss : 0;
}

/* `settings` is NULL where no program is attached. */
static void check_interface_mtu(struct doctor *d, const char *interface,
				const struct decap_settings *settings)
{
	bool outer6 = settings && has_family(settings->sources, settings->source_count, true);
	uint32_t overhead = explain_overhead(NLB_ENCAP_GUE, outer6 ? 6 : 4, 2);
	uint32_t mtu = link_mtu(interface), wanted = CLIENT_MTU + overhead;
	char remedy[DOCTOR_REMEDY_LEN], told[2][64] = { "", "" }, other[2][128] = { "", "" };
	bool is_told = true;

	if (!mtu) {
		doctor_unknown(d, "mtu", "that of %s cannot be told", interface);
		return;
	}
	if (mtu >= wanted) {
		doctor_good(d, "mtu", "%u on %s holds full-size packets in a tunnel", mtu,
			    interface);
		return;
	}
	/* The other way is to have clients send less. */
	for (int v6 = 0; v6 < 2; v6++) {
		uint32_t headers = overhead + (v6 ? 60 : 40), mss = told_mss(v6);

		if (settings ? !has_family(settings->vips, settings->vip_count, v6) : v6)
			continue;
		if (mss && mss + headers <= mtu) {
			snprintf(told[v6], sizeof(told[v6]), " %s %u", v6 ? "IPv6" : "IPv4", mss);
			continue;
		}
		is_told = false;
		if (mtu > headers)
			snprintf(other[v6], sizeof(other[v6]),
				 ", or ip%s route change default via ROUTER dev %s advmss %u",
				 v6 ? " -6" : "", interface, mtu - headers);
	}
	doctor_text(remedy, "ip link set dev %s mtu %u (and on switch and load balancers)%s%s",
		    interface, wanted, other[0], other[1]);
	if (is_told)
		doctor_good(d, "mtu", "%u on %s, and clients are told to send at most:%s%s", mtu,
			    interface, told[0], told[1]);
	else
		doctor_found(d, DOCTOR_WARNING, "mtu", remedy,
			     "%u on %s: full-size packets of clients do not fit the tunnel", mtu,
			     interface);
}

static void check_kernel(struct doctor *d, const char *interface,
			 const struct decap_settings *settings)
{
	check_rp_filter(d, interface);
	check_arp(d, interface, "arp_ignore", 1,
		  "this host answers ARP for the virtual IPs and takes them from the load "
		  "balancers");
	check_arp(d, interface, "arp_announce", 2,
		  "this host names a virtual IP as its own address when it asks for others");
	check_interface_mtu(d, interface, settings);
}

/* What a second chance needs of the kernel, see decap_host.h. */
static void check_second_chance(struct doctor *d, const struct decap_status *status)
{
	const struct decap_settings *s = &status->settings;
	const bool routes[] = { status->host.routes_ipv4, status->host.routes_ipv6 };
	char remedy[DOCTOR_REMEDY_LEN];
	bool is_good = true;

	for (int v6 = 0; v6 < 2; v6++) {
		const char *family = v6 ? "ipv6" : "ipv4";

		if (routes[v6] || !has_family(s->sources, s->source_count, v6))
			continue;
		is_good = false;
		doctor_text(remedy, "sysctl -w net.%s.conf.lo.forwarding=1", family);
		doctor_found(d, DOCTOR_WARNING, "second-chance", remedy,
			     "net.%s.conf.lo.forwarding is 0: packets of a connection that is "
			     "another gateway's are not sent on to it, and the connection breaks",
			     family);
	}
	if (is_good)
		doctor_good(d, "second-chance", "the kernel tells ways to other gateways");
}

/* --- all --------------------------------------------------------------------------------------
 */

static void check_one(struct doctor *d, const char *interface)
{
	CLEANUP(cleanup_free) struct decap_status *status = calloc(1, sizeof(*status));
	char remedy[DOCTOR_REMEDY_LEN];
	struct doctor_interface i = { .name = interface, .link = "link", .remedy = remedy };
	const struct decap_settings *settings = NULL;
	struct err err = { "" };

	doctor_text(remedy, "nlbctl decap attach %s --source ADDRESS-OF-EACH-NLB", interface);
	snprintf(i.folder, sizeof(i.folder), "%s/%s/decap", d->o->pin_directory, interface);
	doctor_check_program(d, &i);
	doctor_check_offloads(d, &i);
	if (status && decap_status(d->o->pin_directory, interface, status, &err) == 0) {
		check_vips(d, interface, &status->settings);
		check_sources(d, interface, status);
		check_second_chance(d, status);
		settings = &status->settings;
	} else if (status) {
		doctor_unknown(d, "decap", "%s", err.text);
	}
	check_kernel(d, interface, settings);
}

void doctor_check_gateway(struct doctor *d)
{
	char interfaces[INTERFACES_MAX][IF_NAMESIZE], likely[IF_NAMESIZE];
	char remedy[DOCTOR_REMEDY_LEN];
	size_t count = decap_interfaces(d, interfaces), good = 0;
	struct doctor_interface i;

	for (size_t k = 0; k < count; k++)
		check_one(d, interfaces[k]);
	if (count)
		return;
	default_interface(d, likely);
	doctor_text(remedy, "nlbctl decap attach %s --source ADDRESS-OF-EACH-NLB", likely);
	i = (struct doctor_interface) { .name = likely, .link = "link", .remedy = remedy };
	snprintf(i.folder, sizeof(i.folder), "%s/%s", d->o->pin_directory, likely);
	doctor_check_foreign(d, &i);
	if (!d->is_admin) {
		doctor_unknown(d, "decap", "cannot tell whether it is attached (needs root)");
	} else {
		doctor_found(d, DOCTOR_BAD, "decap", remedy,
			     "not attached to any interface: tunnelled packets are not understood "
			     "(not needed with encapsulation l2)");
	}
	check_named_vips(d, &good);
	if (good)
		doctor_good(d, "vip", "%zu on lo", good);
	check_kernel(d, likely, NULL);
}
