/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbctl trace: what becomes of the packets of one connection, in words. The maps say it, so it
 * holds while nlbd is down too; nlbd, if it answers, only lends the names.
 */
#include "nlb/nlbctl.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "nlb/explain.h"
#include "nlb/stats.h"

#define NAME_LEN  400
#define TITLE_LEN 12

struct trace {
	const struct nlbctl_options *o;
	struct view view;
	struct explain_flow flow;
	struct explanation e;
	json_t *vips, *gateways; /* nlbd's, or NULL */
	const json_t *vip;       /* the one that matched, or NULL */
};

/* --- names ------------------------------------------------------------------------------------
 */

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_UDP ? "udp" : "tcp";
}

static const char *encap_name(uint8_t encap)
{
	return encap >= NLB_ENCAP_IPIP && encap <= NLB_ENCAP_L2 ? nlb_encap_names[encap - 1] : "?";
}

/* The document's VIP that matched: address, protocol, and port or any. */
static const json_t *find_vip(const struct trace *t)
{
	char ip[NET_ADDR_LEN];
	const json_t *vip;
	size_t i;
	json_int_t port = t->e.takes_any_port ? 0 : net_port(&t->flow.destination);

	net_format_ip(ip, &t->flow.destination);
	json_array_foreach (t->vips, i, vip) {
		if (strcmp(nlbctl_text(vip, "address"), ip) == 0 &&
		    strcmp(nlbctl_text(vip, "protocol"), protocol_name(t->flow.protocol)) == 0 &&
		    nlbctl_number(vip, "port") == port)
			return vip;
	}
	return NULL;
}

static const json_t *find_gateway(const struct trace *t, const char *ip)
{
	const json_t *gw;
	size_t i;

	json_array_foreach (t->gateways, i, gw) {
		if (t->vip && strcmp(nlbctl_text(gw, "vip"), nlbctl_text(t->vip, "name")) == 0 &&
		    strcmp(nlbctl_text(gw, "address"), ip) == 0)
			return gw;
	}
	return NULL;
}

static const char *gateway_ip(const struct trace *t, uint16_t id, char out[static NET_ADDR_LEN])
{
	struct nlb_gateway gw;
	struct net_addr address;

	if (!view_gateway(&t->view, id, &gw) || !gw.family)
		return NULL;
	view_gateway_address(&gw, &address);
	return net_format_ip(out, &address);
}

/* "gw1 (10.0.0.11)", the address alone, or "nobody". */
static const char *gateway_name(const struct trace *t, uint16_t id, char out[static NAME_LEN])
{
	char ip[NET_ADDR_LEN];
	const json_t *gw;

	if (!id) {
		snprintf(out, NAME_LEN, "nobody");
	} else if (!gateway_ip(t, id, ip)) {
		snprintf(out, NAME_LEN, "gateway %u, which is gone", id);
	} else {
		gw = find_gateway(t, ip);
		if (gw && strcmp(nlbctl_text(gw, "name"), ip) != 0)
			snprintf(out, NAME_LEN, "%.260s (%s)", nlbctl_text(gw, "name"), ip);
		else
			snprintf(out, NAME_LEN, "%s", ip);
	}
	return out;
}

static const char *age_text(const struct trace *t, uint64_t ticks, char out[static 32])
{
	uint64_t s = ticks / MAX(t->view.config.hz, 1U);

	if (s < 120)
		snprintf(out, 32, "%llu s", (unsigned long long)s);
	else if (s < 7200)
		snprintf(out, 32, "%llu min", (unsigned long long)(s / 60));
	else
		snprintf(out, 32, "%llu h", (unsigned long long)(s / 3600));
	return out;
}

/* --- words ------------------------------------------------------------------------------------
 */

/* A line's first column; "" continues the line above. */
static void title(const char *text)
{
	printf("%-*s ", TITLE_LEN, text);
}

static void print_vip(const struct trace *t)
{
	char ip[NET_ADDR_LEN];

	title("VIP");
	net_format_ip(ip, &t->flow.destination);
	if (!t->e.is_vip && !t->e.has_service) {
		printf("%s is no virtual IP here\n", ip);
		return;
	}
	if (!t->e.has_service) {
		printf("%s is a virtual IP, but has no service on port %u/%s\n", ip,
		       net_port(&t->flow.destination), protocol_name(t->flow.protocol));
		return;
	}
	if (t->vip)
		printf("%s, ", nlbctl_text(t->vip, "name"));
	printf("%s%s, encapsulation %s\n", ip, t->e.takes_any_port ? ", takes every port" : "",
	       encap_name(t->e.vip.encap));
}

static void print_block(const struct trace *t)
{
	const struct view_block *block = &t->e.block;
	char ip[NET_ADDR_LEN], left[32];
	struct net_addr address = { .in6.sin6_family = AF_INET6 };
	uint32_t bits = block->key.prefix_len;

	if (!t->e.is_listed) {
		printf("not blocked");
		return;
	}
	memcpy(&address.in6.sin6_addr, block->key.address, 16);
	net_unmap(&address);
	if (address.sa.sa_family == AF_INET)
		bits -= 96;
	printf("%s by %s/%u", t->e.is_block_over ? "was blocked" : "BLOCKED",
	       net_format_ip(ip, &address), bits);
	if (t->e.is_block_over)
		printf(", which is over");
	else if (block->value.until)
		printf(" for another %s", age_text(t, block->value.until - t->view.now, left));
	else
		printf(" until unblocked");
}

static void print_source(const struct trace *t)
{
	const struct nlb_vip *vip = &t->e.vip;

	if (!t->e.has_service)
		return;
	title("source");
	print_block(t);
	if (vip->flags & NLB_VIP_ALLOW)
		printf("; %s the VIP's allow list", t->e.is_allowed ? "on" : "NOT on");
	if (vip->flags & NLB_VIP_RATE && vip->source_interval)
		printf("; at most %.4g new connections a second, %s",
		       (double)t->view.config.hz * 65536.0 / vip->source_interval,
		       t->e.wait_ticks ? "USED UP now" : "not used up");
	printf("\n");
}

static void print_slot(const struct trace *t)
{
	char name[NAME_LEN];

	title("slot");
	if (!t->e.has_ring) {
		printf("the VIP has no ring yet\n");
		return;
	}
	printf("%u of %d, %s%s\n", t->e.index, NLB_RING_SLOTS,
	       t->e.slot.gateway ? "owned by " : "which nobody owns",
	       t->e.slot.gateway ? gateway_name(t, t->e.slot.gateway, name) : "");
	title("");
	if (t->e.has_moved && !t->e.moved_minutes_ago)
		printf("moved within the last minute: for older connections the flow table is "
		       "asked first\n");
	else if (t->e.has_moved)
		printf("moved %u min ago: for older connections the flow table is asked first\n",
		       t->e.moved_minutes_ago);
	else if (!t->e.slot.gateway)
		printf("has not moved lately\n");
	else
		printf("has not moved lately: its owner is right for every connection\n");
	for (unsigned i = 0; i < 2; i++) {
		if (!t->e.slot.earlier[i])
			continue;
		title(i ? "" : t->e.has_moved ? "earlier" : "next choice");
		printf("%s\n", gateway_name(t, t->e.slot.earlier[i], name));
	}
}

static void print_entries(const struct trace *t)
{
	char name[NAME_LEN], age[32];

	title("flow table");
	if (!t->e.entry_count)
		printf("does not know this connection\n");
	for (size_t i = 0; i < t->e.entry_count; i++) {
		const struct explain_entry *entry = &t->e.entries[i];

		if (i)
			title("");
		printf("CPU %d: %s, used %s ago%s%s\n", entry->cpu,
		       gateway_name(t, entry->gateway, name), age_text(t, entry->age_ticks, age),
		       entry->is_former ? "; no longer valid" : "",
		       entry->is_expired ? "; expired" : "");
	}
}

static void print_hop(const struct trace *t, uint16_t id)
{
	char name[NAME_LEN], interface[IF_NAMESIZE] = "";
	char ip[NET_ADDR_LEN];
	struct nlb_gateway gw;
	const json_t *known;

	if (!id || !view_gateway(&t->view, id, &gw) || !gateway_ip(t, id, ip))
		return;
	known = find_gateway(t, ip);
	title("gateway");
	printf("%s: ", gateway_name(t, id, name));
	if (known)
		printf("%s, ", nlbctl_text(known, "state"));
	else
		printf("%s, ", gw.flags & NLB_GATEWAY_USABLE ? "usable" : "not usable");
	if (!(gw.flags & NLB_GATEWAY_RESOLVED)) {
		printf("next hop unknown\n");
		return;
	}
	printf("next hop %02x:%02x:%02x:%02x:%02x:%02x by %s, MTU %u\n", gw.next_hop_mac[0],
	       gw.next_hop_mac[1], gw.next_hop_mac[2], gw.next_hop_mac[3], gw.next_hop_mac[4],
	       gw.next_hop_mac[5],
	       if_indextoname(gw.ifindex, interface) ? interface : "an interface that is gone",
	       gw.mtu);
}

static const struct {
	const char *name, *words;
} because[] = {
	[EXPLAIN_RING] = { "ring", "which owns the slot" },
	[EXPLAIN_TABLE] = { "flow_table", "which the flow table remembers" },
	[EXPLAIN_EARLIER] = { "earlier", "the slot's latest owner, as it has none now" },
};

static const char *verdict_text(uint32_t reason)
{
	static const char *const texts[STATS_VERDICTS] = { "left to this host's kernel", "dropped",
							   "answered by the load balancer" };

	return texts[stats_reason_verdict(reason)];
}

static void print_verdict(const struct trace *t, const char *what, const struct explain_verdict *v)
{
	char name[NAME_LEN];

	title(what);
	if (v->reason != NLB_REASON_COUNT) {
		printf("%s (%s: %s)\n", verdict_text(v->reason), stats_reason_names[v->reason],
		       stats_reason_helps[v->reason]);
		return;
	}
	printf("to %s, ", gateway_name(t, v->gateway, name));
	printf("%s", because[v->why].words);
	printf("; IP packets up to %u bytes fit\n", v->room);
	for (unsigned i = 0; i < 2 && v->named[i]; i++) {
		title("");
		printf("%s %s\n", i ? "then" : "should it not know the connection, it passes it to",
		       gateway_name(t, v->named[i], name));
	}
}

static void print_trace(const struct trace *t)
{
	char from[NET_ADDR_LEN], to[NET_ADDR_LEN];

	printf("%s -> %s %s, arriving on %s\n\n", net_format(from, &t->flow.source),
	       net_format(to, &t->flow.destination), protocol_name(t->flow.protocol),
	       t->view.interface);
	print_vip(t);
	print_source(t);
	if (t->e.has_service) {
		title("hash");
		printf("%016llx\n", (unsigned long long)t->e.hash);
		print_slot(t);
		print_entries(t);
		print_hop(t, t->e.fresh.gateway);
		if (t->e.known.gateway != t->e.fresh.gateway)
			print_hop(t, t->e.known.gateway);
	}
	printf("\n");
	if (t->flow.protocol == IPPROTO_UDP) {
		print_verdict(t, "next packet", &t->e.known);
		return;
	}
	print_verdict(t, "new (SYN)", &t->e.fresh);
	print_verdict(t, "established", &t->e.known);
}

/* --- JSON -------------------------------------------------------------------------------------
 */

static void write_gateway(const struct trace *t, struct json_writer *w, const char *key,
			  uint16_t id)
{
	char ip[NET_ADDR_LEN];
	const json_t *gw;

	if (!id || !gateway_ip(t, id, ip)) {
		json_add_null(w, key);
		return;
	}
	gw = find_gateway(t, ip);
	json_open(w, key, '{');
	json_addz(w, "name", gw ? nlbctl_text(gw, "name") : ip);
	json_addz(w, "address", ip);
	json_close(w, '}');
}

static void write_verdict(const struct trace *t, struct json_writer *w, const char *key,
			  const struct explain_verdict *v)
{
	static const char *const ends[STATS_VERDICTS] = { "passed", "dropped", "answered" };
	bool is_forwarded = v->reason == NLB_REASON_COUNT;

	json_open(w, key, '{');
	json_addz(w, "verdict", is_forwarded ? "forwarded" : ends[stats_reason_verdict(v->reason)]);
	if (!is_forwarded) {
		json_addz(w, "reason", stats_reason_names[v->reason]);
	} else {
		write_gateway(t, w, "gateway", v->gateway);
		json_addz(w, "because", because[v->why].name);
		json_add_u64(w, "largest_packet", v->room);
		json_open(w, "earlier_owners_named", '[');
		for (unsigned i = 0; i < 2 && v->named[i]; i++)
			write_gateway(t, w, NULL, v->named[i]);
		json_close(w, ']');
	}
	json_close(w, '}');
}

static void write_entries(const struct trace *t, struct json_writer *w)
{
	json_open(w, "flow_table", '[');
	for (size_t i = 0; i < t->e.entry_count; i++) {
		const struct explain_entry *entry = &t->e.entries[i];

		json_open(w, NULL, '{');
		json_add_i64(w, "cpu", entry->cpu);
		write_gateway(t, w, "gateway", entry->gateway);
		json_add_u64(w, "age_ms",
			     entry->age_ticks * MSEC_PER_SEC / MAX(t->view.config.hz, 1U));
		json_add_bool(w, "valid", !entry->is_former && !entry->is_expired);
		json_close(w, '}');
	}
	json_close(w, ']');
}

static void write_slot(const struct trace *t, struct json_writer *w)
{
	json_open(w, "slot", '{');
	json_add_u64(w, "index", t->e.index);
	write_gateway(t, w, "owner", t->e.slot.gateway);
	json_open(w, "earlier", '[');
	for (unsigned i = 0; i < 2; i++) {
		if (t->e.slot.earlier[i])
			write_gateway(t, w, NULL, t->e.slot.earlier[i]);
	}
	json_close(w, ']');
	json_add_bool(w, "moved", t->e.has_moved);
	if (t->e.has_moved)
		json_add_u64(w, "moved_minutes_ago", t->e.moved_minutes_ago);
	json_close(w, '}');
}

static void print_json(const struct trace *t)
{
	char text[NET_ADDR_LEN];
	struct json_writer w;
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	json_addz(&w, "interface", t->view.interface);
	json_addz(&w, "source", net_format(text, &t->flow.source));
	json_addz(&w, "destination", net_format(text, &t->flow.destination));
	json_addz(&w, "protocol", protocol_name(t->flow.protocol));
	json_add_bool(&w, "is_vip", t->e.is_vip || t->e.has_service);
	if (t->e.has_service) {
		snprintf(text, sizeof(text), "%016llx", (unsigned long long)t->e.hash);
		if (t->vip)
			json_addz(&w, "vip", nlbctl_text(t->vip, "name"));
		else
			json_add_null(&w, "vip");
		json_addz(&w, "encapsulation", encap_name(t->e.vip.encap));
		json_add_bool(&w, "blocked", t->e.is_listed && !t->e.is_block_over);
		json_add_bool(&w, "is_within_rate", !t->e.wait_ticks);
		json_addz(&w, "hash", text);
		write_slot(t, &w);
		write_entries(t, &w);
	}
	write_verdict(t, &w, "new", &t->e.fresh);
	write_verdict(t, &w, "established", &t->e.known);
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

/* --- the command ------------------------------------------------------------------------------
 */

static int parse_end(struct net_addr *out, const char *text, const char *what)
{
	if (net_parse(out, str_from(text), 0) != 0 || out->sa.sa_family == AF_UNIX ||
	    !net_port(out))
		return nlbctl_misuse("trace: the %s \"%s\" is not ADDRESS:PORT, such as "
				     "198.51.100.7:40000 or [2001:db8::7]:40000",
				     what, text);
	net_unmap(out);
	return DONE;
}

static int parse_flow(struct explain_flow *flow, char **args)
{
	if (parse_end(&flow->source, args[0], "source") ||
	    parse_end(&flow->destination, args[1], "destination"))
		return USAGE;
	if (flow->source.sa.sa_family != flow->destination.sa.sa_family)
		return nlbctl_misuse("trace: one end is IPv4, the other IPv6");
	flow->protocol = IPPROTO_TCP;
	if (args[2] && strcmp(args[2], "udp") == 0)
		flow->protocol = IPPROTO_UDP;
	else if (args[2] && strcmp(args[2], "tcp") != 0)
		return nlbctl_misuse("trace: the protocol \"%s\" is neither tcp nor udp", args[2]);
	return DONE;
}

static int run_trace(const struct nlbctl_options *o, char **args)
{
	struct trace t = { .o = o };
	struct err err = { "" };

	if (parse_flow(&t.flow, args) != DONE)
		return USAGE;
	if (view_open(&t.view, o->pin_directory, o->interface, &err) != 0)
		return nlbctl_fail(err.text);
	explain(&t.view, &t.flow, clock_boot_minutes(), &t.e);
	t.vips = nlbctl_get_quietly(o, "/vips");
	t.gateways = nlbctl_get_quietly(o, "/gateways");
	t.vip = find_vip(&t);
	if (o->wants_json)
		print_json(&t);
	else
		print_trace(&t);
	json_decref(t.vips);
	json_decref(t.gateways);
	view_close(&t.view);
	return DONE;
}

const struct command command_trace = {
	.name = "trace",
	.arguments = "SRC:PORT VIP:PORT [tcp|udp]",
	.min = 2,
	.max = 3,
	.takes = TAKES_INTERFACE,
	.run = run_trace,
	.summary = "which gateway a connection meets, and why",
	.help = "Options:\n"
		"  --interface NAME  where its packets arrive, if several interfaces forward\n"
		"\n"
		"Works out from the maps, by the program's own rules, what becomes of a new "
		"connection\n"
		"and of an established one between these two ends. Changes and counts nothing, "
		"and\n"
		"needs no nlbd but for the names of VIPs and gateways.\n"
		"\n"
		"Example:\n"
		"  nlbctl trace 198.51.100.7:40000 203.0.113.10:443\n",
};
