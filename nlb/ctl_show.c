/* SPDX-License-Identifier: Apache-2.0 */
/* nlbctl status, vips, gateways, flows: nlbd's answers as tables. */
#include "nlb/nlbctl.h"

#include <stdio.h>
#include <string.h>

#include "bpf/nlb_abi.h"
#include "lib/table.h"

static bool is_any_announced(const json_t *vips)
{
	const json_t *vip;
	size_t i;

	json_array_foreach (vips, i, vip) {
		if (strcmp(nlbctl_text(vip, "announced"), "no") != 0)
			return true;
	}
	return false;
}

static int print_vips(const json_t *vips)
{
	static const char *const header[] = { "VIP",      "ADDRESS",   "ENCAP", "STATE",
					      ">UP",      ">DRAINING", ">OUT",  ">CONNECTIONS",
					      ">PACKETS", ">BYTES",    NULL };
	/* Most have no use for it, and the table is wide as it is. */
	static const char *const header_announced[] = { "VIP",       "ADDRESS",   "ENCAP",
							"STATE",     "ANNOUNCED", ">UP",
							">DRAINING", ">OUT",      ">CONNECTIONS",
							">PACKETS",  ">BYTES",    NULL };
	bool tells_announced = is_any_announced(vips);
	struct table *t = table_new(tells_announced ? header_announced : header);
	char service[NLBCTL_SERVICE_LEN];
	const json_t *vip;
	size_t i;

	if (!t)
		return nlbctl_fail("out of memory");
	json_array_foreach (vips, i, vip) {
		const json_t *states = json_object_get(vip, "gateways");

		table_cell(t, "%s", nlbctl_text(vip, "name"));
		table_cell(t, "%s", nlbctl_service(service, vip));
		table_cell(t, "%s", nlbctl_text(vip, "encapsulation"));
		table_cell(t, "%s", nlbctl_text(vip, "state"));
		if (tells_announced)
			table_cell(t, "%s", nlbctl_text(vip, "announced"));
		table_cell(t, "%lld", nlbctl_number(states, "up"));
		table_cell(t, "%lld", nlbctl_number(states, "draining"));
		table_cell(t, "%lld",
			   nlbctl_number(states, "down") + nlbctl_number(states, "unresolved") +
				   nlbctl_number(states, "unknown"));
		table_cell(t, "%lld", nlbctl_number(vip, "connections"));
		table_cell(t, "%lld", nlbctl_number(vip, "packets"));
		table_cell(t, "%lld", nlbctl_number(vip, "bytes"));
	}
	table_print(t);
	return DONE;
}

static int print_gateways(const json_t *gateways)
{
	static const char *const header[] = { "VIP",          "GATEWAY",  "ADDRESS",
					      "STATE",        ">WEIGHT",  ">SHARE",
					      ">CONNECTIONS", ">PACKETS", "NEXT HOP",
					      "WHY",          NULL };
	struct table *t = table_new(header);
	const json_t *gw;
	size_t i;

	if (!t)
		return nlbctl_fail("out of memory");
	json_array_foreach (gateways, i, gw) {
		const char *mac = nlbctl_text(gw, "next_hop_mac");

		table_cell(t, "%s", nlbctl_text(gw, "vip"));
		table_cell(t, "%s", nlbctl_text(gw, "name"));
		table_cell(t, "%s", nlbctl_text(gw, "address"));
		table_cell(t, "%s", nlbctl_text(gw, "state"));
		table_cell(t, "%lld", nlbctl_number(gw, "weight"));
		table_cell(t, "%.1f%%",
			   (double)nlbctl_number(gw, "slots") * 100.0 / NLB_RING_SLOTS);
		table_cell(t, "%lld", nlbctl_number(gw, "connections"));
		table_cell(t, "%lld", nlbctl_number(gw, "packets"));
		if (strcmp(mac, "-") == 0)
			table_cell(t, "-");
		else
			table_cell(t, "%s %s", nlbctl_text(gw, "interface"), mac);
		table_cell(t, "%s", nlbctl_text(gw, "why"));
	}
	table_print(t);
	return DONE;
}

static int print_flows(const json_t *document)
{
	static const char *const header[] = { "VIP", "GATEWAY", ">FLOWS", ">LAST MINUTE", NULL };
	const json_t *flow, *flows = json_object_get(document, "flows");
	struct table *t = table_new(header);
	size_t i;

	if (!t)
		return nlbctl_fail("out of memory");
	printf("%lld of %lld entries in use\n", nlbctl_number(document, "used"),
	       nlbctl_number(document, "capacity"));
	json_array_foreach (flows, i, flow) {
		table_cell(t, "%s", nlbctl_text(flow, "vip"));
		table_cell(t, "%s", nlbctl_text(flow, "gateway"));
		table_cell(t, "%lld", nlbctl_number(flow, "flows"));
		table_cell(t, "%lld", nlbctl_number(flow, "last_minute"));
	}
	table_print(t);
	return DONE;
}

static void print_reasons(const char *title, json_t *reasons)
{
	const char *name;
	json_t *count;
	int any = 0;

	printf("%-12s", title);
	json_object_foreach (reasons, name, count) {
		if (json_integer_value(count))
			printf("%s%s %lld", any++ ? ", " : "", name, json_integer_value(count));
	}
	printf("%s\n", any ? "" : "none");
}

static int print_status(const json_t *status)
{
	const json_t *registry = json_object_get(status, "registry");

	printf("nlbd        %s, up %lld s, configuration %s\n", nlbctl_text(status, "version"),
	       nlbctl_number(status, "uptime_s"), nlbctl_text(status, "config"));
	printf("interface   %s, XDP mode %s, MTU %lld\n", nlbctl_text(status, "interface"),
	       nlbctl_text(status, "xdp_mode"), nlbctl_number(status, "mtu"));
	if (json_is_object(registry))
		printf("registry    %s %s\n", nlbctl_text(registry, "url"),
		       json_is_true(json_object_get(registry, "connected"))
			       ? "connected"
			       : "not connected: gateways as last known");
	if (json_is_true(json_object_get(status, "withdrawn")))
		printf("announced   nothing: withdrawn by hand (nlbctl announce ends it)\n");
	print_reasons("passed on", json_object_get(status, "passed"));
	print_reasons("answered", json_object_get(status, "answered"));
	print_reasons("dropped", json_object_get(status, "dropped"));
	printf("\n");
	return print_vips(json_object_get(status, "vips"));
}

static int run_status(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_show(o, "/status", "", print_status);
}

static int run_vips(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_show(o, "/vips", "", print_vips);
}

static int run_gateways(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_show(o, "/gateways", "", print_gateways);
}

static int run_flows(const struct nlbctl_options *o, char **args)
{
	struct buf query;
	int status;

	(void)args;
	buf_init(&query, 4096);
	if (o->vip_count)
		nlbctl_query(&query, "vip", o->vips[o->vip_count - 1]);
	buf_putc(&query, '\0');
	status = nlbctl_show(o, "/flows", buf_data(&query), print_flows);
	buf_fini(&query);
	return status;
}

const struct command command_status = {
	.name = "status",
	.run = run_status,
	.summary = "what runs, what was dropped and why",
	.help = "Counters count since the maps were made, not since nlbd started.\n",
};

const struct command command_vips = {
	.name = "vips",
	.run = run_vips,
	.summary = "the virtual IPs and their traffic",
	.help = "STATE: ok; panic (no gateway is healthy, all are used); no_gateway (packets are\n"
		"dropped); waiting (for the registry's first list).\n"
		"ANNOUNCED, where a VIP has \"announce\": announced; withdrawn (no gateway can be "
		"used, or\n"
		"by hand); foreign (the address is there, but not nlbd's: it stays); failed; "
		"no.\n",
};

const struct command command_gateways = {
	.name = "gateways",
	.run = run_gateways,
	.summary = "the gateways of each VIP: state, share, traffic, next hop",
	.help = "STATE: up; draining (keeps its connections, takes no new ones); down (fails its\n"
		"checks, see WHY); unknown (not checked yet); unresolved (no route to it or no "
		"MAC\n"
		"address). SHARE is its part of new connections.\n",
};

const struct command command_flows = {
	.name = "flows",
	.takes = TAKES_VIP,
	.run = run_flows,
	.summary = "connections remembered, by gateway",
	.help = "Options:\n"
		"  --vip VIP  only this one, by its name\n"
		"\n"
		"LAST MINUTE counts those with a packet in it, as far as the table was asked: "
		"packets\n"
		"of slots that have not moved lately do not touch it.\n",
};
