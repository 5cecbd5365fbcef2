/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/json.h"
#include "nlb/nlbctl.h"

static bool is_ipv4(const struct net_prefix *p)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return p->bits >= 96 && memcmp(p->bytes, mapped, sizeof(mapped)) == 0;
}

static const char *prefix_text(char out[static 64], const struct net_prefix *p)
{
	char ip[INET6_ADDRSTRLEN];

	if (is_ipv4(p))
		inet_ntop(AF_INET, p->bytes + 12, ip, sizeof(ip));
	else
		inet_ntop(AF_INET6, p->bytes, ip, sizeof(ip));
	if (p->bits == 128)
		snprintf(out, 64, "%s", ip);
	else
		snprintf(out, 64, "%s/%d", ip, is_ipv4(p) ? p->bits - 96 : p->bits);
	return out;
}

static void write_prefixes(struct json_writer *w, const char *key, const struct net_prefix *list,
			   size_t count)
{
	char text[64];

	json_open(w, key, '[');
	for (size_t i = 0; i < count; i++)
		json_addz(w, NULL, prefix_text(text, &list[i]));
	json_close(w, ']');
}

static void print_prefixes(const char *title, const struct net_prefix *list, size_t count)
{
	char text[64];

	printf("%-9s", title);
	for (size_t i = 0; i < count; i++)
		printf(" %s", prefix_text(text, &list[i]));
	printf("%s\n", count ? "" : " none");
}

static int parse_prefixes(struct net_prefix *out, const char *const *texts, size_t count,
			  bool is_single, const char *option)
{
	for (size_t i = 0; i < count; i++) {
		if (net_parse_prefix(&out[i], str_from(texts[i])) != 0 ||
		    (is_single && out[i].bits != 128))
			return nlbctl_misuse("%s: \"%s\" is not an IP address%s", option, texts[i],
					     is_single ? "" : " or prefix");
	}
	return DONE;
}

static int cmd_attach(const struct nlbctl_options *o, char **args)
{
	CLEANUP(cleanup_free) struct decap_settings *settings = calloc(1, sizeof(*settings));
	enum pins_mode mode = o->mode;
	struct err err;

	if (!settings)
		return nlbctl_fail("out of memory");
	if (!if_nametoindex(args[0]))
		return nlbctl_failf("interface %s does not exist (ip link shows those there are)",
				    args[0]);
	if (strcmp(args[0], "lo") == 0)
		return nlbctl_misuse("decap attach lo: tunnelled packets come by the interface "
				     "that leads to the load balancers, not by lo");
	if (!o->source_count)
		return nlbctl_misuse("decap attach %s: at least one --source is needed", args[0]);
	if (parse_prefixes(settings->sources, o->sources, o->source_count, false, "--source") ||
	    parse_prefixes(settings->vips, o->vips, o->vip_count, true, "--vip"))
		return USAGE;
	settings->source_count = o->source_count;
	settings->vip_count = o->vip_count;
	if (!settings->vip_count)
		decap_find_vips(settings);
	if (!settings->vip_count)
		return nlbctl_fail(
			"lo has no virtual IP: add each one (ip address add VIP/32 dev lo) or "
			"name it "
			"with --vip");
	if (o->netns) {
		if (decap_host_netns(&settings->config.socket_netns, o->netns, &err) != 0)
			return nlbctl_fail(err.text);
		settings->config.flags |= DECAP_CONFIG_NETNS;
	}
	if (decap_attach(o->pin_directory, args[0], settings, &mode, &err) != 0)
		return nlbctl_fail(err.text);
	if (o->wants_json) {
		printf("{\"attached\":true,\"xdp_mode\":\"%s\"}\n", pins_mode_name(mode));
		return DONE;
	}
	printf("attached to %s, XDP mode %s\n", args[0], pins_mode_name(mode));
	print_prefixes("VIPs", settings->vips, settings->vip_count);
	print_prefixes("sources", settings->sources, settings->source_count);
	return DONE;
}

static int cmd_detach(const struct nlbctl_options *o, char **args)
{
	struct err err;

	if (decap_detach(o->pin_directory, args[0], &err) != 0)
		return nlbctl_fail(err.text);
	printf(o->wants_json ? "{\"detached\":true}\n" : "detached\n");
	return DONE;
}

static void print_decap_json(const struct decap_status *s)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	write_prefixes(&w, "vips", s->settings.vips, s->settings.vip_count);
	write_prefixes(&w, "sources", s->settings.sources, s->settings.source_count);
	if (s->settings.config.flags & DECAP_CONFIG_NETNS)
		json_add_u64(&w, "socket_netns_id", s->settings.config.socket_netns);
	json_open(&w, "routes", '{');
	json_add_bool(&w, "ipv4", s->host.routes_ipv4);
	json_add_bool(&w, "ipv6", s->host.routes_ipv6);
	json_close(&w, '}');
	json_open(&w, "packets", '{');
	for (int r = 0; r < DECAP_REASON_COUNT; r++)
		json_add_u64(&w, decap_reason_names[r], s->reasons[r]);
	json_close(&w, '}');
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

static void print_route_problem(const char *family, bool has_routes)
{
	if (!has_routes)
		printf("warning   no second chance over %s: net.%s.conf.lo.forwarding is 0 "
		       "(sysctl -w net.%s.conf.lo.forwarding=1)\n",
		       family, family, family);
}

static int cmd_status(const struct nlbctl_options *o, char **args)
{
	CLEANUP(cleanup_free) struct decap_status *s = malloc(sizeof(*s));
	struct err err;

	if (!s)
		return nlbctl_fail("out of memory");
	if (decap_status(o->pin_directory, args[0], s, &err) != 0)
		return nlbctl_fail(err.text);
	if (o->wants_json) {
		print_decap_json(s);
		return DONE;
	}
	print_prefixes("VIPs", s->settings.vips, s->settings.vip_count);
	print_prefixes("sources", s->settings.sources, s->settings.source_count);
	if (s->settings.config.flags & DECAP_CONFIG_NETNS)
		printf("sockets   those of the network namespace with id %u (ip netns list-id)\n",
		       s->settings.config.socket_netns);
	print_route_problem("ipv4", s->host.routes_ipv4);
	print_route_problem("ipv6", s->host.routes_ipv6);
	for (int r = 0; r < DECAP_REASON_COUNT; r++)
		printf("%-13s %llu\n", decap_reason_names[r], (unsigned long long)s->reasons[r]);
	return DONE;
}

const struct command command_decap_attach = {
	.name = "decap",
	.sub = "attach",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.takes = TAKES_SOURCE | TAKES_VIP | TAKES_MODE | TAKES_NETNS,
	.run = cmd_attach,
	.summary = "take the tunnel off packets that arrive there",
	.help = "Options:\n"
		"  --source ADDRESS[/LEN]  accept tunnelled packets of these only: each NLB's\n"
		"                          source_address, and all gateways of the pool, which "
		"send\n"
		"                          on packets of connections that are not theirs\n"
		"  --vip ADDRESS           for these VIPs; not given: the addresses on lo\n"
		"  --mode MODE             XDP mode: auto (default), native or generic\n"
		"  --netns NAME            the network namespace (ip netns; or a path) that has "
		"the\n"
		"                          gateway's sockets, if not the interface's own\n"
		"\n"
		"Stays after this command and until a reboot. Used again, it replaces the "
		"settings\n"
		"without a gap. It keeps the MAC addresses of --source addresses without a length\n"
		"known, and sets net.ipv4.conf.lo.forwarding and its like of IPv6, by which the\n"
		"program may ask for routes.\n"
		"\n"
		"A gateway with the VIP 203.0.113.10 behind the NLB 10.0.0.2, in a pool of two:\n"
		"  ip address add 203.0.113.10/32 dev lo\n"
		"  nlbctl decap attach eth0 --source 10.0.0.2 --source 10.0.0.11 --source "
		"10.0.0.12\n",
};

const struct command command_decap_detach = {
	.name = "decap",
	.sub = "detach",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.run = cmd_detach,
	.summary = "take it away",
	.help = "Tunnelled packets are no longer understood from here on.\n",
};

const struct command command_decap_status = {
	.name = "decap",
	.sub = "status",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.run = cmd_status,
	.summary = "settings, and packets by what became of them",
	.help = "`stranger` counts packets from sources that were not named by --source;\n"
		"`second_chance` those sent on to another gateway, since no socket here knows "
		"their\n"
		"connection; `last_chance` those that nobody else was left for.\n",
};
