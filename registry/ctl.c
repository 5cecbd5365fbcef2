/* SPDX-License-Identifier: Apache-2.0 */
/* registryctl: what is registered, by hand and at a glance. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/http_client.h"
#include "lib/json.h"
#include "lib/loop.h"
#include "lib/sse.h"
#include "lib/table.h"
#include "registry/client.h"

#define DEFAULT_URL "http://127.0.0.1:8761"
#define BODY_MAX    (256UL << 20)

enum { DONE = 0, FAILED = 1, USAGE = 2 };

static const char help[] =
	"usage: registryctl [OPTIONS] COMMAND\n"
	"\n"
	"  apps                        the apps, and how many instances are up\n"
	"  instances [APP]             the instances, of all apps or of one\n"
	"  register APP ID ADDR:PORT   register an instance; it leaves when its lease runs out,\n"
	"                              unless --keep renews it\n"
	"  deregister APP ID           take an instance out\n"
	"  status                      the registry itself\n"
	"  status APP ID STATUS        say for an instance what it is: UP, DOWN, STARTING or\n"
	"                              OUT_OF_SERVICE (no new requests: to drain it); \"clear\"\n"
	"                              lets it speak for itself again\n"
	"  watch [APP ...]             print changes as they happen\n"
	"\n"
	"Options:\n"
	"      --url URL               the registry: http://HOST:PORT or unix:/PATH\n"
	"                              (default $GATEHOUSE_REGISTRY, else " DEFAULT_URL ")\n"
	"      --json                  one JSON document instead of a table; with watch, one a "
	"line\n"
	"      --version, --help\n"
	"  instances:\n"
	"      --zone ZONE             only those of the zone\n"
	"      --status STATUS         only those of the status\n"
	"  register:\n"
	"      --keep                  stay, renew the lease, and deregister on Ctrl-C\n"
	"      --lease SECONDS         (default: the registry's)\n"
	"      --zone ZONE --weight 1..1000 --release VERSION --secure\n"
	"      --metadata KEY=VALUE    may be given several times\n"
	"      --status STATUS         (default UP)\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage.\n"
	"\n"
	"A service that is started by hand, visible to the gateways until Ctrl-C:\n"
	"  registryctl register --keep user-service-v2 dev-1 10.1.0.7:8080\n"
	"Take an instance out of rotation for a deployment, and back in:\n"
	"  registryctl status user-service-v2 user-17 OUT_OF_SERVICE\n"
	"  registryctl status user-service-v2 user-17 clear\n";

struct options {
	struct http_base base;
	const char *url;
	bool wants_json, is_kept, is_secure;
	const char *zone, *status, *release;
	uint64_t lease_s, weight;
	json_t *metadata;
};

/* --- talking --------------------------------------------------------------------------------- */

static int fail(const char *text)
{
	fprintf(stderr, "registryctl: %s\n", text);
	return FAILED;
}

__attribute__((format(printf, 1, 2))) static int misuse(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "registryctl: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry: registryctl --help\n");
	return USAGE;
}

static void cleanup_json(json_t **json)
{
	json_decref(*json);
}

/* What the registry says is wrong: "field: detail" of its problem document. */
static int fail_with(const struct options *o, unsigned status, struct str body)
{
	CLEANUP(cleanup_json) json_t *json = json_loadb(body.p, body.len, 0, NULL);
	const char *detail = json_string_value(json_object_get(json, "detail"));
	const char *field = json_string_value(json_object_get(json, "field"));

	if (detail)
		fprintf(stderr, "registryctl: %s%s%s\n", field ? field : "", field ? " " : "",
			detail);
	else
		fprintf(stderr, "registryctl: %s: answered with status %u\n", o->url, status);
	return FAILED;
}

/* One request. DONE with the body as JSON, or FAILED after saying why. */
static int ask(const struct options *o, enum http_method method, struct str path, struct str body,
	       json_t **out)
{
	const struct http_request_spec spec = {
		.addr = &o->base.addr,
		.host = str_from(o->base.host),
		.method = method,
		.target = { str_from(o->base.path), path },
		.body = body,
		.max_body = BODY_MAX,
		.response_timeout_ms = 10000,
	};
	struct http_answer answer = { 0 };
	struct err err = { "" };
	int r = http_fetch(&answer, &spec, &err);

	if (r < 0) {
		fprintf(stderr,
			"registryctl: %s: %s (is registryd running there? --url or "
			"$GATEHOUSE_REGISTRY says where)\n",
			o->url, err.text);
		return FAILED;
	}
	if (answer.status < 200 || answer.status > 299) {
		r = fail_with(o, answer.status, buf_str(&answer.body));
	} else if (out) {
		*out = json_loadb(buf_str(&answer.body).p, buf_len(&answer.body), 0, NULL);
		r = *out ? DONE : fail("the answer is no valid JSON; is that a registry?");
	}
	http_answer_fini(&answer);
	return r;
}

static void add_path(struct buf *path, const char *app, const char *id, const char *suffix)
{
	buf_addz(path, "/v1/apps/");
	http_encode(path, str_from(app));
	if (id) {
		buf_addz(path, "/instances/");
		http_encode(path, str_from(id));
	}
	buf_addz(path, suffix);
}

static int ask_about(const struct options *o, enum http_method method, const char *app,
		     const char *id, const char *suffix, struct str body, json_t **out)
{
	struct buf path;
	int r;

	buf_init(&path, 0);
	add_path(&path, app, id, suffix);
	r = ask(o, method, buf_str(&path), body, out);
	buf_fini(&path);
	return r;
}

/* --- printing -------------------------------------------------------------------------------- */

static void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text && text[0] ? text : "-";
}

static long long number_of(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

/* "k=v k2=v2", without anything that would disturb a terminal. */
static void metadata_text(const json_t *instance, struct buf *out)
{
	const char *key;
	json_t *value;

	json_object_foreach (json_object_get(instance, "metadata"), key, value) {
		if (buf_len(out))
			buf_putc(out, ' ');
		for (const char *p = key; *p; p++)
			buf_putc(out, (unsigned char)*p < 0x20 ? '?' : *p);
		buf_putc(out, '=');
		for (const char *p = json_string_value(value); p && *p; p++)
			buf_putc(out, (unsigned char)*p < 0x20 ? '?' : *p);
	}
	if (!buf_len(out))
		buf_putc(out, '-');
}

static void address_text(const json_t *instance, char *out, size_t size)
{
	const char *address = text_of(instance, "address");
	bool is_v6 = strchr(address, ':') != NULL;

	snprintf(out, size, "%s%s%s:%lld", is_v6 ? "[" : "", address, is_v6 ? "]" : "",
		 number_of(instance, "port"));
}

static void add_instance(struct table *t, const char *app, const json_t *instance)
{
	const json_t *override = json_object_get(instance, "override");
	struct buf metadata;
	char address[96];

	buf_init(&metadata, 0);
	metadata_text(instance, &metadata);
	address_text(instance, address, sizeof(address));
	table_cell(t, "%s", app);
	table_cell(t, "%s", text_of(instance, "id"));
	table_cell(t, "%s", address);
	table_cell(t, "%s%s", text_of(instance, "status"), override ? " (set)" : "");
	table_cell(t, "%s", text_of(instance, "zone"));
	table_cell(t, "%lld", number_of(instance, "weight"));
	table_cell(t, "%s", text_of(instance, "version"));
	table_cell(t, "%lld s", number_of(instance, "lease_s"));
	table_cell(t, "%.*s", (int)MIN(buf_len(&metadata), (size_t)200), buf_data(&metadata));
	buf_fini(&metadata);
}

struct named_app {
	const char *name;
	const json_t *instances;
};

static int compare_apps(const void *a, const void *b)
{
	return strcmp(((const struct named_app *)a)->name, ((const struct named_app *)b)->name);
}

/* The apps of a list, by name. NULL when out of memory. */
static struct named_app *sorted_apps(const json_t *json, size_t *count)
{
	const json_t *apps = json_object_get(json, "apps");
	struct named_app *sorted;

	*count = json_array_size(apps);
	sorted = calloc(*count + 1, sizeof(*sorted));
	if (!sorted)
		return NULL;
	for (size_t i = 0; i < *count; i++) {
		sorted[i].name = text_of(json_array_get(apps, i), "app");
		sorted[i].instances = json_object_get(json_array_get(apps, i), "instances");
	}
	qsort(sorted, *count, sizeof(*sorted), compare_apps);
	return sorted;
}

/* --- commands -------------------------------------------------------------------------------- */

static int cmd_apps(const struct options *o, int argc, char **argv)
{
	static const char *const header[] = { "APP", ">INSTANCES", ">UP", ">NOT UP", NULL };
	CLEANUP(cleanup_json) json_t *json = NULL;
	CLEANUP(cleanup_free) struct named_app *apps = NULL;
	struct table *t;
	size_t count;
	int r = ask(o, METHOD_GET, STR("/v1/apps"), STR(""), &json);

	(void)argc;
	(void)argv;
	if (r != DONE)
		return r;
	if (o->wants_json) {
		print_json(json);
		return DONE;
	}
	apps = sorted_apps(json, &count);
	t = table_new(header);
	if (!apps || !t)
		return fail("out of memory");
	for (size_t i = 0; i < count; i++) {
		const json_t *instances = apps[i].instances;
		size_t all = json_array_size(instances), up = 0;

		for (size_t n = 0; n < all; n++)
			up += strcmp(text_of(json_array_get(instances, n), "status"), "UP") == 0;
		table_cell(t, "%s", apps[i].name);
		table_cell(t, "%zu", all);
		table_cell(t, "%zu", up);
		table_cell(t, "%zu", all - up);
	}
	table_print(t);
	return DONE;
}

static void add_query(struct buf *path, char *separator, const char *name, const char *value)
{
	if (!value)
		return;
	buf_putc(path, *separator);
	*separator = '&';
	buf_addz(path, name);
	buf_putc(path, '=');
	http_encode(path, str_from(value));
}

static void add_instances(struct table *t, const char *app, const json_t *instances)
{
	for (size_t i = 0; i < json_array_size(instances); i++)
		add_instance(t, app, json_array_get(instances, i));
}

static int print_instances(const json_t *json)
{
	static const char *const header[] = { "APP",     "ID",      "ADDRESS", "STATUS",   "ZONE",
					      ">WEIGHT", "VERSION", ">LEASE",  "METADATA", NULL };
	CLEANUP(cleanup_free) struct named_app *apps = NULL;
	struct table *t = table_new(header);
	size_t count;

	apps = sorted_apps(json, &count);
	if (!t || !apps)
		return fail("out of memory");
	for (size_t i = 0; i < count; i++)
		add_instances(t, apps[i].name, apps[i].instances);
	add_instances(t, text_of(json, "app"), json_object_get(json, "instances"));
	table_print(t);
	return DONE;
}

static int cmd_instances(const struct options *o, int argc, char **argv)
{
	CLEANUP(cleanup_json) json_t *json = NULL;
	char separator = '?';
	struct buf path;
	int r;

	buf_init(&path, 0);
	if (argc)
		add_path(&path, argv[0], NULL, "");
	else
		buf_addz(&path, "/v1/apps");
	add_query(&path, &separator, "zone", o->zone);
	add_query(&path, &separator, "status", o->status);
	r = ask(o, METHOD_GET, buf_str(&path), STR(""), &json);
	buf_fini(&path);
	if (r != DONE)
		return r;
	if (!o->wants_json)
		return print_instances(json);
	print_json(json);
	return DONE;
}

static json_t *instance_json(const struct options *o, const struct net_addr *addr)
{
	char address[NET_ADDR_LEN];
	json_t *json = json_object();

	json_object_set_new(json, "address", json_string(net_format_ip(address, addr)));
	json_object_set_new(json, "port", json_integer(net_port(addr)));
	if (o->zone)
		json_object_set_new(json, "zone", json_string(o->zone));
	if (o->release)
		json_object_set_new(json, "version", json_string(o->release));
	if (o->status)
		json_object_set_new(json, "status", json_string(o->status));
	if (o->weight)
		json_object_set_new(json, "weight", json_integer((json_int_t)o->weight));
	if (o->lease_s)
		json_object_set_new(json, "lease_s", json_integer((json_int_t)o->lease_s));
	if (o->is_secure)
		json_object_set_new(json, "secure", json_true());
	if (o->metadata)
		json_object_set(json, "metadata", o->metadata);
	return json;
}

struct keeping {
	struct loop *loop;
	struct reg_client *client;
	struct reg_self *self;
};

static void keep_on_left(void *arg)
{
	loop_stop(((struct keeping *)arg)->loop);
}

static void keep_on_signal(int signo, void *arg)
{
	struct keeping *k = arg;

	(void)signo;
	if (k->self)
		reg_self_stop(&k->self, keep_on_left, k);
	else
		loop_stop(k->loop);
}

static void keep_on_event(enum reg_client_event event, const char *detail, void *arg)
{
	(void)event;
	(void)arg;
	fprintf(stderr, "registryctl: %s\n", detail);
}

/* Registers and stays until a signal. */
static int register_and_keep(const struct options *o, const char *app,
			     const struct reg_instance *instance)
{
	char url[NET_ADDR_LEN + sizeof(o->base.path) + 16], addr[NET_ADDR_LEN];
	struct reg_client_config config = { .url_count = 1, .on_event = keep_on_event };
	struct keeping k = { .loop = loop_new() };
	struct str one;
	struct err err = { "cannot make an event loop" };
	int r = FAILED;

	/* The name is resolved already. */
	net_format(addr, &o->base.addr);
	snprintf(url, sizeof(url), "%s%s%s", o->base.addr.sa.sa_family == AF_UNIX ? "" : "http://",
		 addr, o->base.path);
	one = str_from(url);
	config.urls = &one;
	if (k.loop)
		k.client = reg_client_new(k.loop, &config, &err);
	if (k.client)
		k.self = reg_self_start(k.client, str_from(app), instance, &err);
	if (!k.self || loop_signal(k.loop, SIGINT, keep_on_signal, &k) < 0 ||
	    loop_signal(k.loop, SIGTERM, keep_on_signal, &k) < 0) {
		fail(err.text);
	} else {
		fprintf(stderr, "registered %s %.*s at %s; Ctrl-C takes it out again\n", app,
			STR_ARG(instance->id), url);
		loop_run(k.loop);
		r = DONE;
	}
	reg_client_free(&k.client);
	loop_free(k.loop);
	return r;
}

static int cmd_register(const struct options *o, int argc, char **argv)
{
	CLEANUP(cleanup_json) json_t *json = NULL;
	CLEANUP(cleanup_free) char *body = NULL;
	struct reg_problem problem;
	struct reg_instance i;
	struct net_addr addr;
	struct arena arena;
	int r;

	(void)argc;
	if (net_parse(&addr, str_from(argv[2]), 0) < 0 || addr.sa.sa_family == AF_UNIX ||
	    net_port(&addr) == 0)
		return misuse("%s: must be an IP address and a port, as in 10.1.0.7:8080", argv[2]);
	json = instance_json(o, &addr);
	arena_init(&arena, 1024, 0);
	/* The same check as the registry's, before it is asked. */
	r = reg_instance_read(&i, json, str_from(argv[1]), 30, &arena, &problem);
	if (r == -EINVAL) {
		r = misuse("%s %s", problem.field, problem.text);
	} else if (r < 0) {
		r = fail("out of memory");
	} else if (o->is_kept) {
		r = register_and_keep(o, argv[0], &i);
	} else {
		body = json_dumps(json, JSON_COMPACT);
		r = body ? ask_about(o, METHOD_PUT, argv[0], argv[1], "", str_from(body), NULL)
			 : fail("out of memory");
	}
	arena_fini(&arena);
	return r;
}

static int cmd_deregister(const struct options *o, int argc, char **argv)
{
	(void)argc;
	return ask_about(o, METHOD_DELETE, argv[0], argv[1], "", STR(""), NULL);
}

static int print_registry(const struct options *o)
{
	const char *const header[] = { "REGISTRY", o->url, NULL };
	CLEANUP(cleanup_json) json_t *json = NULL;
	const json_t *instances, *preservation, *snapshot, *problem;
	const char *name;
	json_t *value;
	struct table *t;
	int r = ask(o, METHOD_GET, STR("/status"), STR(""), &json);

	if (r != DONE)
		return r;
	if (o->wants_json) {
		print_json(json);
		return DONE;
	}
	t = table_new(header);
	if (!t)
		return fail("out of memory");
	instances = json_object_get(json, "instances");
	preservation = json_object_get(json, "self_preservation");
	snapshot = json_object_get(json, "snapshot");
	problem = json_object_get(snapshot, "problem");
	table_cell(t, "version");
	table_cell(t, "%s", text_of(json, "version"));
	table_cell(t, "started");
	table_cell(t, "%s", text_of(json, "started"));
	table_cell(t, "index");
	table_cell(t, "%lld", number_of(json, "index"));
	table_cell(t, "apps");
	table_cell(t, "%lld", number_of(json, "apps"));
	json_object_foreach ((json_t *)(uintptr_t)instances, name, value) {
		table_cell(t, "instances %s", name);
		table_cell(t, "%lld", (long long)json_integer_value(value));
	}
	table_cell(t, "watches");
	table_cell(t, "%lld", number_of(json, "watches"));
	table_cell(t, "self-preservation");
	if (json_is_true(json_object_get(preservation, "is_holding")))
		table_cell(t, "HOLDS %lld leases: renewals have collapsed",
			   number_of(preservation, "held"));
	else
		table_cell(t, "%s",
			   json_is_true(json_object_get(preservation, "enabled")) ? "ready"
										  : "off");
	table_cell(t, "snapshot");
	if (json_is_string(problem))
		table_cell(t, "FAILS: %s", json_string_value(problem));
	else
		table_cell(t, "%s", text_of(snapshot, "saved"));
	table_print(t);
	return DONE;
}

static int cmd_status(const struct options *o, int argc, char **argv)
{
	char body[64];

	if (argc == 0)
		return print_registry(o);
	if (argc != 3)
		return misuse("status takes nothing, or APP ID STATUS");
	if (strcmp(argv[2], "clear") == 0)
		return ask_about(o, METHOD_DELETE, argv[0], argv[1], "/status", STR(""), NULL);
	if (reg_status_parse(str_from(argv[2])) == REG_NO_STATUS)
		return misuse("%s: must be UP, DOWN, STARTING, OUT_OF_SERVICE or clear", argv[2]);
	snprintf(body, sizeof(body), "{\"status\":\"%s\"}", argv[2]);
	return ask_about(o, METHOD_PUT, argv[0], argv[1], "/status", str_from(body), NULL);
}

/* --- watch ----------------------------------------------------------------------------------- */

struct watching {
	const struct options *o;
	struct sse sse;
	int result;
};

static void print_change(const char *event, const char *app, const json_t *instance)
{
	char address[96], clock[16];
	time_t now = time(NULL);
	struct tm tm;

	address_text(instance, address, sizeof(address));
	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	printf("%s  %-6s  %s  %s  %s  %s\n", clock, event, app, text_of(instance, "id"), address,
	       text_of(instance, "status"));
}

static bool watch_on_event(struct str event, struct str id, struct str data, void *arg)
{
	const struct watching *w = arg;
	CLEANUP(cleanup_json) json_t *json = json_loadb(data.p, data.len, 0, NULL);
	const json_t *apps = json_object_get(json, "apps");
	char name[32];

	(void)id;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(event.len, sizeof(name) - 1), event.p);
	if (w->o->wants_json) {
		printf("{\"event\":\"%s\",\"data\":%.*s}\n", name, STR_ARG(data));
	} else if (strcmp(name, "reset") == 0) {
		for (size_t a = 0; a < json_array_size(apps); a++) {
			const json_t *app = json_array_get(apps, a);
			const json_t *instances = json_object_get(app, "instances");

			for (size_t i = 0; i < json_array_size(instances); i++)
				print_change("has", text_of(app, "app"),
					     json_array_get(instances, i));
		}
	} else {
		print_change(name, text_of(json, "app"), json);
	}
	fflush(stdout);
	return true;
}

static void watch_on_data(struct http_call *call, struct str data, void *arg)
{
	struct watching *w = arg;

	(void)call;
	if (sse_feed(&w->sse, data, watch_on_event, w) < 0)
		w->result = FAILED;
}

static int cmd_watch(const struct options *o, int argc, char **argv)
{
	struct watching w = { .o = o };
	struct http_answer answer = { 0 };
	struct err err = { "" };
	struct buf path;
	int r;

	buf_init(&path, 0);
	buf_addz(&path, "/v1/watch?apps=");
	for (int i = 0; i < argc; i++) {
		if (i)
			buf_putc(&path, ',');
		http_encode(&path, str_from(argv[i]));
	}
	sse_init(&w.sse, BODY_MAX);
	r = http_fetch(
		&answer,
		&(struct http_request_spec) { .addr = &o->base.addr,
					      .host = str_from(o->base.host),
					      .target = { str_from(o->base.path), buf_str(&path) },
					      .idle_timeout_ms = 25000,
					      .on_data = watch_on_data,
					      .arg = &w },
		&err);
	if (r < 0)
		fprintf(stderr, "registryctl: %s: %s\n", o->url, err.text);
	else if (answer.status != 200)
		fail_with(o, answer.status, buf_str(&answer.body));
	else
		fail("the registry ended the stream");
	if (r == 0)
		http_answer_fini(&answer);
	sse_fini(&w.sse);
	buf_fini(&path);
	return FAILED;
}

/* --- the command line ------------------------------------------------------------------------ */

static const struct command {
	const char *name;
	int (*run)(const struct options *o, int argc, char **argv);
	int min, max; /* arguments */
} commands[] = {
	{ "apps", cmd_apps, 0, 0 },         { "instances", cmd_instances, 0, 1 },
	{ "register", cmd_register, 3, 3 }, { "deregister", cmd_deregister, 2, 2 },
	{ "status", cmd_status, 0, 3 },     { "watch", cmd_watch, 0, 256 },
};

enum {
	OPT_URL = 256,
	OPT_JSON,
	OPT_ZONE,
	OPT_STATUS,
	OPT_KEEP,
	OPT_LEASE,
	OPT_WEIGHT,
	OPT_RELEASE,
	OPT_SECURE,
	OPT_METADATA,
	OPT_VERSION,
	OPT_HELP,
};

static const struct option long_options[] = {
	{ "url", required_argument, NULL, OPT_URL },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "zone", required_argument, NULL, OPT_ZONE },
	{ "status", required_argument, NULL, OPT_STATUS },
	{ "keep", no_argument, NULL, OPT_KEEP },
	{ "lease", required_argument, NULL, OPT_LEASE },
	{ "weight", required_argument, NULL, OPT_WEIGHT },
	{ "release", required_argument, NULL, OPT_RELEASE },
	{ "secure", no_argument, NULL, OPT_SECURE },
	{ "metadata", required_argument, NULL, OPT_METADATA },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static bool set_metadata(struct options *o, const char *text)
{
	const char *equals = strchr(text, '=');
	CLEANUP(cleanup_free) char *key = equals ? strndup(text, (size_t)(equals - text)) : NULL;

	if (!key)
		return false;
	if (!o->metadata)
		o->metadata = json_object();
	return json_object_set_new(o->metadata, key, json_string(equals + 1)) == 0;
}

static bool set_number(uint64_t *out, const char *text, uint64_t max)
{
	return str_u64(str_from(text), out) && *out > 0 && *out <= max;
}

/* -1 to go on, else the exit status. */
static int set_option(struct options *o, int opt)
{
	switch (opt) {
	case OPT_URL:
		o->url = optarg;
		return -1;
	case OPT_JSON:
		o->wants_json = true;
		return -1;
	case OPT_ZONE:
		o->zone = optarg;
		return -1;
	case OPT_STATUS:
		if (reg_status_parse(str_from(optarg)) == REG_NO_STATUS)
			return misuse("--status %s: must be UP, DOWN, STARTING or OUT_OF_SERVICE",
				      optarg);
		o->status = optarg;
		return -1;
	case OPT_KEEP:
		o->is_kept = true;
		return -1;
	case OPT_RELEASE:
		o->release = optarg;
		return -1;
	case OPT_SECURE:
		o->is_secure = true;
		return -1;
	case OPT_LEASE:
		return set_number(&o->lease_s, optarg, REG_LEASE_MAX_S)
			       ? -1
			       : misuse("--lease takes seconds, 1 to %d", REG_LEASE_MAX_S);
	case OPT_WEIGHT:
		return set_number(&o->weight, optarg, REG_WEIGHT_MAX)
			       ? -1
			       : misuse("--weight takes 1 to %d", REG_WEIGHT_MAX);
	case OPT_METADATA:
		return set_metadata(o, optarg) ? -1 : misuse("--metadata takes KEY=VALUE");
	case OPT_VERSION:
		printf("registryctl (gatehouse) %s\n", GATEHOUSE_VERSION);
		return DONE;
	case OPT_HELP:
		fputs(help, stdout);
		return DONE;
	default:
		fprintf(stderr, "Try: registryctl --help\n");
		return USAGE;
	}
}

static int run_command(struct options *o, int argc, char **argv)
{
	struct err err = { "" };
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, argv[0]) != 0)
			continue;
		if (argc - 1 < c->min || argc - 1 > c->max)
			return misuse("%s: wrong number of arguments", c->name);
		r = http_base_parse(&o->base, str_from(o->url), true, &err);
		if (r < 0) {
			fprintf(stderr, "registryctl: %s\n", err.text);
			return r == -EINVAL ? USAGE : FAILED;
		}
		return c->run(o, argc - 1, argv + 1);
	}
	return misuse("%s: no such command", argv[0]);
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	const char *env = getenv("GATEHOUSE_REGISTRY");
	int opt, status = -1;

	o.url = env && env[0] ? env : DEFAULT_URL;
	while (status < 0 && (opt = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		status = set_option(&o, opt);
	if (status < 0 && optind == argc)
		status = misuse("needs a command");
	if (status < 0)
		status = run_command(&o, argc - optind, argv + optind);
	json_decref(o.metadata);
	if (fflush(stdout) != 0 && status == DONE)
		status = FAILED;
	return status;
}
