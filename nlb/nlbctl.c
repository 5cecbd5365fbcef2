/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbctl: asks nlbd over its unix socket and prints the answer; on gateway hosts it puts the
 * decapsulating program on an interface, where no daemon is needed.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/http_client.h"
#include "lib/json.h"
#include "lib/table.h"
#include "nlb/ctl_decap.h"
#include "nlb/nlbctl.h"

#define SOCKET        "/run/gatehouse/nlb.sock"
#define PIN_DIRECTORY "/sys/fs/bpf/gatehouse"

static const char help[] =
	"usage: nlbctl [OPTIONS] COMMAND\n"
	"\n"
	"On load-balancer hosts (asks nlbd):\n"
	"  status                  what runs, what was dropped and why\n"
	"  vips                    the virtual IPs and their traffic\n"
	"  gateways                the gateways of each VIP: state, share, traffic, next hop\n"
	"  flows [--vip VIP]       connections remembered, by gateway\n"
	"  drain VIP GATEWAY       no new connections there; those it has go on\n"
	"  undrain VIP GATEWAY     back to normal\n"
	"  reload                  read the configuration again\n"
	"  detach INTERFACE        end forwarding: takes program and maps away (stop nlbd first)\n"
	"\n"
	"On gateway hosts (needs no daemon; stays after this command and until a reboot):\n"
	"  decap attach INTERFACE --source ADDRESS[/LEN] ... [--vip ADDRESS ...] [--mode MODE]\n"
	"                          accept tunnelled packets of these sources (each NLB's\n"
	"                          source_address, and the other gateways of the pool) for these "
	"VIPs;\n"
	"                          without --vip: for the addresses on lo. Again: replaces the "
	"settings\n"
	"  decap detach INTERFACE\n"
	"  decap status INTERFACE  settings, and packets by what became of them\n"
	"\n"
	"Options:\n"
	"  -s, --socket PATH       nlbd's socket (default " SOCKET ")\n"
	"      --pin-directory DIR (default " PIN_DIRECTORY ")\n"
	"      --mode MODE         XDP mode: auto, native or generic (default auto)\n"
	"      --json              one JSON document instead of tables\n"
	"      --version, --help\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage.\n"
	"\n"
	"A gateway with the VIP 203.0.113.10 behind the NLB 10.0.0.2:\n"
	"  ip address add 203.0.113.10/32 dev lo\n"
	"  nlbctl decap attach eth0 --source 10.0.0.2\n";

int nlbctl_fail(const char *text)
{
	fprintf(stderr, "nlbctl: %s\n", text);
	return FAILED;
}

int nlbctl_misuse(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "nlbctl: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (nlbctl --help)\n");
	return USAGE;
}

/* --- asking nlbd -------------------------------------------------------------------------------
 */

/* The sentence of a problem document, or the status. */
static int say_problem(const struct http_answer *answer)
{
	json_t *document = json_loadb(buf_data(&answer->body), buf_len(&answer->body), 0, NULL);
	const char *detail = json_string_value(json_object_get(document, "detail"));

	if (detail)
		fprintf(stderr, "nlbctl: %s\n", detail);
	else
		fprintf(stderr, "nlbctl: nlbd answered %u\n", answer->status);
	json_decref(document);
	return FAILED;
}

/* Asks; prints the answer if JSON is wanted, else returns it parsed in *out for a table. */
static int ask(const struct nlbctl_options *o, enum http_method method, const char *path,
	       const char *query, json_t **out)
{
	struct http_request_spec spec = { .method = method,
					  .target = { str_from(path), str_from(query) } };
	struct http_answer answer;
	struct net_addr addr;
	struct err err = { "" };
	char where[160];
	int status = DONE;

	*out = NULL;
	snprintf(where, sizeof(where), "unix:%s", o->socket);
	if (net_parse(&addr, str_from(where), 0) != 0)
		return nlbctl_misuse("--socket: \"%s\" is not the path of a socket", o->socket);
	spec.addr = &addr;
	if (http_fetch(&answer, &spec, &err) != 0) {
		fprintf(stderr,
			"nlbctl: nlbd does not answer at %s: %s (is it running? packets are "
			"forwarded "
			"without it; another socket: --socket)\n",
			o->socket, err.text);
		return FAILED;
	}
	if (answer.status != 200) {
		status = say_problem(&answer);
	} else if (o->wants_json) {
		printf("%.*s\n", STR_ARG(buf_str(&answer.body)));
	} else {
		*out = json_loadb(buf_data(&answer.body), buf_len(&answer.body), 0, NULL);
		if (!*out)
			status = nlbctl_fail("nlbd's answer is not JSON");
	}
	http_answer_fini(&answer);
	return status;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && *text ? text : "-";
}

static json_int_t number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* --- tables ------------------------------------------------------------------------------------
 */

static int print_vips(const json_t *vips)
{
	static const char *const header[] = { "VIP",      "ADDRESS",   "ENCAP", "STATE",
					      ">UP",      ">DRAINING", ">OUT",  ">CONNECTIONS",
					      ">PACKETS", ">BYTES",    NULL };
	struct table *t = table_new(header);
	const json_t *vip;
	size_t i;

	if (!t)
		return nlbctl_fail("out of memory");
	json_array_foreach (vips, i, vip) {
		const json_t *states = json_object_get(vip, "gateways");

		table_cell(t, "%s", text_of(vip, "name"));
		table_cell(t, "%s:%lld/%s", text_of(vip, "address"), number_of(vip, "port"),
			   text_of(vip, "protocol"));
		table_cell(t, "%s", text_of(vip, "encapsulation"));
		table_cell(t, "%s", text_of(vip, "state"));
		table_cell(t, "%lld", number_of(states, "up"));
		table_cell(t, "%lld", number_of(states, "draining"));
		table_cell(t, "%lld",
			   number_of(states, "down") + number_of(states, "unresolved") +
				   number_of(states, "unknown"));
		table_cell(t, "%lld", number_of(vip, "connections"));
		table_cell(t, "%lld", number_of(vip, "packets"));
		table_cell(t, "%lld", number_of(vip, "bytes"));
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
		table_cell(t, "%s", text_of(gw, "vip"));
		table_cell(t, "%s", text_of(gw, "name"));
		table_cell(t, "%s", text_of(gw, "address"));
		table_cell(t, "%s", text_of(gw, "state"));
		table_cell(t, "%lld", number_of(gw, "weight"));
		table_cell(t, "%.1f%%", (double)number_of(gw, "slots") * 100.0 / NLB_RING_SLOTS);
		table_cell(t, "%lld", number_of(gw, "connections"));
		table_cell(t, "%lld", number_of(gw, "packets"));
		table_cell(t, "%s %s", text_of(gw, "interface"), text_of(gw, "next_hop_mac"));
		table_cell(t, "%s", text_of(gw, "why"));
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
	printf("%lld of %lld entries in use\n", number_of(document, "used"),
	       number_of(document, "capacity"));
	json_array_foreach (flows, i, flow) {
		table_cell(t, "%s", text_of(flow, "vip"));
		table_cell(t, "%s", text_of(flow, "gateway"));
		table_cell(t, "%lld", number_of(flow, "flows"));
		table_cell(t, "%lld", number_of(flow, "last_minute"));
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

	printf("nlbd        %s, up %lld s, configuration %s\n", text_of(status, "version"),
	       number_of(status, "uptime_s"), text_of(status, "config"));
	printf("interface   %s, XDP mode %s, MTU %lld\n", text_of(status, "interface"),
	       text_of(status, "xdp_mode"), number_of(status, "mtu"));
	if (json_is_object(registry))
		printf("registry    %s %s\n", text_of(registry, "url"),
		       json_is_true(json_object_get(registry, "connected"))
			       ? "connected"
			       : "not connected: gateways as last known");
	print_reasons("passed on", json_object_get(status, "passed"));
	print_reasons("dropped", json_object_get(status, "dropped"));
	printf("\n");
	return print_vips(json_object_get(status, "vips"));
}

static int show(const struct nlbctl_options *o, const char *path, const char *query,
		int (*print)(const json_t *document))
{
	json_t *document;
	int status = ask(o, METHOD_GET, path, query, &document);

	if (document)
		status = print(document);
	json_decref(document);
	return status;
}

/* --- commands of the load balancer -------------------------------------------------------------
 */

static void add_parameter(struct buf *query, const char *name, const char *value)
{
	buf_printf(query, "%c%s=", buf_len(query) ? '&' : '?', name);
	for (; *value; value++) {
		if (isalnum((unsigned char)*value) || strchr("-._~", *value))
			buf_putc(query, *value);
		else
			buf_printf(query, "%%%02X", (unsigned char)*value);
	}
}

static int cmd_status(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return show(o, "/status", "", print_status);
}

static int cmd_vips(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return show(o, "/vips", "", print_vips);
}

static int cmd_gateways(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return show(o, "/gateways", "", print_gateways);
}

static int cmd_flows(const struct nlbctl_options *o, char **args)
{
	struct buf query;
	int status;

	(void)args;
	buf_init(&query, 4096);
	if (o->vip_count)
		add_parameter(&query, "vip", o->vips[o->vip_count - 1]);
	buf_putc(&query, '\0');
	status = show(o, "/flows", buf_data(&query), print_flows);
	buf_fini(&query);
	return status;
}

static int change(const struct nlbctl_options *o, const char *path, const char *vip,
		  const char *gateway, const char *done)
{
	json_t *document;
	struct buf query;
	int status;

	buf_init(&query, 4096);
	if (vip) {
		add_parameter(&query, "vip", vip);
		add_parameter(&query, "gateway", gateway);
	}
	buf_putc(&query, '\0');
	status = ask(o, METHOD_POST, path, buf_data(&query), &document);
	buf_fini(&query);
	if (document)
		printf("%s%s\n", done,
		       json_is_false(json_object_get(document, "changed")) ? " already" : "");
	json_decref(document);
	return status;
}

static int cmd_drain(const struct nlbctl_options *o, char **args)
{
	return change(o, "/drain", args[0], args[1], "draining");
}

static int cmd_undrain(const struct nlbctl_options *o, char **args)
{
	return change(o, "/undrain", args[0], args[1], "in service");
}

static int cmd_reload(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return change(o, "/reload", NULL, NULL, "reloaded");
}

static int cmd_detach(const struct nlbctl_options *o, char **args)
{
	char directory[PATH_MAX];
	struct err err;

	snprintf(directory, sizeof(directory), "%s/%s", o->pin_directory, args[0]);
	if (pins_remove(directory, &err) != 0)
		return nlbctl_fail(err.text);
	if (o->wants_json)
		printf("{\"detached\":true}\n");
	else
		printf("detached from %s: nothing is forwarded any more\n", args[0]);
	return DONE;
}

/* --- command line ------------------------------------------------------------------------------
 */

static const struct command {
	const char *name, *sub;
	int arguments;
	int (*run)(const struct nlbctl_options *o, char **args);
} commands[] = {
	{ "status", NULL, 0, cmd_status },
	{ "vips", NULL, 0, cmd_vips },
	{ "gateways", NULL, 0, cmd_gateways },
	{ "flows", NULL, 0, cmd_flows },
	{ "drain", NULL, 2, cmd_drain },
	{ "undrain", NULL, 2, cmd_undrain },
	{ "reload", NULL, 0, cmd_reload },
	{ "detach", NULL, 1, cmd_detach },
	{ "decap", "attach", 1, ctl_decap_attach },
	{ "decap", "detach", 1, ctl_decap_detach },
	{ "decap", "status", 1, ctl_decap_status },
};

enum { OPT_PIN_DIRECTORY = 256, OPT_VIP, OPT_SOURCE, OPT_MODE, OPT_JSON, OPT_VERSION, OPT_HELP };

static const struct option long_options[] = {
	{ "socket", required_argument, NULL, 's' },
	{ "pin-directory", required_argument, NULL, OPT_PIN_DIRECTORY },
	{ "vip", required_argument, NULL, OPT_VIP },
	{ "source", required_argument, NULL, OPT_SOURCE },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static int add_text(const char **list, size_t *count, const char *text)
{
	if (*count == DECAP_LIST_MAX)
		return nlbctl_misuse("more than %d addresses", DECAP_LIST_MAX);
	list[(*count)++] = text;
	return DONE;
}

static int set_mode(struct nlbctl_options *o, const char *text)
{
	for (int m = PINS_AUTO; m <= PINS_GENERIC; m++) {
		o->mode = (enum pins_mode)m;
		if (strcmp(text, pins_mode_name(o->mode)) == 0)
			return DONE;
	}
	return nlbctl_misuse("--mode: \"%s\" is not auto, native or generic", text);
}

/* Returns DONE, USAGE, or -1 when all is said (--help, --version). */
static int parse_options(struct nlbctl_options *o, int argc, char **argv)
{
	int status = DONE, c;

	opterr = 0;
	while (status == DONE && (c = getopt_long(argc, argv, "s:", long_options, NULL)) != -1) {
		switch (c) {
		case 's':
			o->socket = optarg;
			break;
		case OPT_PIN_DIRECTORY:
			o->pin_directory = optarg;
			break;
		case OPT_VIP:
			status = add_text(o->vips, &o->vip_count, optarg);
			break;
		case OPT_SOURCE:
			status = add_text(o->sources, &o->source_count, optarg);
			break;
		case OPT_MODE:
			status = set_mode(o, optarg);
			break;
		case OPT_JSON:
			o->wants_json = true;
			break;
		case OPT_VERSION:
			printf("nlbctl %s\n", GATEHOUSE_VERSION);
			return -1;
		case OPT_HELP:
			fputs(help, stdout);
			return -1;
		default:
			return nlbctl_misuse("unknown or incomplete option \"%s\"",
					     argv[optind - 1]);
		}
	}
	return status;
}

static int run_command(const struct nlbctl_options *o, int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *c = &commands[i];
		int words = c->sub ? 2 : 1;

		if (strcmp(argv[0], c->name) != 0)
			continue;
		if (c->sub && (argc < 2 || strcmp(argv[1], c->sub) != 0))
			continue;
		if (argc - words != c->arguments)
			return nlbctl_misuse("%s: wrong number of arguments", argv[0]);
		return c->run(o, argv + words);
	}
	return nlbctl_misuse("there is no command \"%s\"", argv[0]);
}

int main(int argc, char **argv)
{
	CLEANUP(cleanup_free) struct nlbctl_options *o = calloc(1, sizeof(*o));
	int status;

	if (!o)
		return nlbctl_fail("out of memory");
	o->socket = SOCKET;
	o->pin_directory = PIN_DIRECTORY;
	status = parse_options(o, argc, argv);
	if (status != DONE)
		return status < 0 ? DONE : status;
	if (optind >= argc)
		return nlbctl_misuse("%s: a command is needed", "nlbctl");
	return run_command(o, argc - optind, argv + optind);
}
