/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayctl: asks a running gatewayd over its admin socket, and checks configurations without one.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "gateway/ctl/api_key.h"
#include "gateway/ctl/check.h"
#include "gateway/ctl/find.h"
#include "gateway/ctl/report.h"
#include "gateway/ctl/revoke.h"
#include "gateway/ctl/token.h"
#include "gateway/ctl/top.h"
#include "lib/http_client.h"
#include "lib/table.h"

#define DRAIN_WAIT_S    120
#define UPGRADE_WAIT_MS 60000 /* it ends by itself long before */

#define GATEWAYS_MAX 64 /* whose reports are added up */

struct ctl {
	struct str url;                /* "unix:/path", or "http://…" for what only reads */
	struct str urls[GATEWAYS_MAX]; /* all that were named */
	size_t url_count;
	const char *window; /* of analytics */
	size_t top;
	bool is_json;
	struct ctl_revoke revoke;
	double interval_s; /* of top, and how often; 0: without end */
	unsigned count;
};

static void print_help(void)
{
	puts("gatewayctl - look at and steer a running gatewayd\n\n"
	     "usage: gatewayctl [--socket PATH | --url URL] [--json] COMMAND\n\n"
	     "commands:\n"
	     "  status         workers, connections, services with their instances, routes with "
	     "their answers\n"
	     "  top            requests a second and latencies by route and instance, live; plain "
	     "lines when not on a\n"
	     "                 terminal\n"
	     "  analytics      requests, errors, latencies by endpoint and version, who asks most "
	     "and who is limited;\n"
	     "                 of the last minute or hour; several --socket or --url are added "
	     "up\n"
	     "  versions       who still calls which version of an API, how often and since "
	     "when\n"
	     "  reload         read the configuration again; prints every mistake if it is "
	     "refused\n"
	     "  upgrade        start the program that is installed now; it takes over without a "
	     "lost connection\n"
	     "  drain [--wait] leave the registry and the load balancer, finish what runs, end the "
	     "process\n"
	     "  check FILE     validate a configuration file, with certificates and key sets, "
	     "without a running gatewayd\n"
	     "  metrics        the Prometheus metrics\n"
	     "  revoke (--jti ID | --sub SUBJECT | --api-key ID) [--auth NAME] [--issued-before "
	     "TIME "
	     "| --ban]\n"
	     "                 [--until TIME]: let that token, that key, or what SUBJECT was given "
	     "so far (--ban: and\n"
	     "                 will be given) in no more, at once\n"
	     "  unrevoke       the same options: take that back\n"
	     "  revocations    what is revoked, here and in the file\n"
	     "  token COMMAND  new-key, sign, verify: try authentication without other tools; see "
	     "token --help\n"
	     "  api-key new    make an API key; see api-key --help\n\n"
	     "options:\n"
	     "  --socket PATH  admin.socket of the gatewayd to talk to (default "
	     "$GATEHOUSE_GATEWAY, else\n"
	     "                 the only one in " CTL_SOCKET_FOLDER ")\n"
	     "  --url URL      its admin port instead, http://ADDRESS:PORT; what changes "
	     "something is refused there\n"
	     "  --json         one JSON document instead of tables\n"
	     "  --interval S   of top: seconds between two looks (default 1)\n"
	     "  --count N      of top: end after N looks\n"
	     "  --window W     of analytics: minute (default) or hour\n"
	     "  --top N        of analytics and versions: rows of each table (default 20)\n"
	     "  TIME           now, Unix seconds, +SECONDS from now, or 2027-01-01T00:00:00Z\n"
	     "  --version, --help\n\n"
	     "exit status: 0 done, 1 failed, 2 usage\n\n"
	     "examples:\n"
	     "  gatewayctl check /etc/gatehouse/rider.json && gatewayctl --socket "
	     "/run/gatehouse/rider.sock reload\n"
	     "  gatewayctl --socket /run/gatehouse/rider.sock status\n"
	     "  gatewayctl --url http://127.0.0.1:9443 metrics | grep requests_total");
}

static int usage(const char *what)
{
	fprintf(stderr, "gatewayctl: %s\nTry: gatewayctl --help\n", what);
	return 2;
}

static int fail(const char *text)
{
	fprintf(stderr, "gatewayctl: %s\n", text);
	return 1;
}

/* One request to the daemon. Returns 0 with the answer, or 1 after saying what went wrong. */
static int ask_with(const struct ctl *ctl, enum http_method method, const char *path,
		    struct str body, struct http_answer *out)
{
	struct http_base base;
	struct err err;
	struct http_request_spec spec = {
		.method = method,
		.max_body = 64UL << 20,
		.response_timeout_ms = UPGRADE_WAIT_MS,
		.body = body,
	};

	if (http_base_parse(&base, ctl->url, HTTP_BASE_RESOLVE, &err) < 0)
		return fail(err.text);
	spec.addr = &base.addr;
	spec.host = str_from(base.host);
	spec.target[0] = str_from(base.path);
	spec.target[1] = str_from(path);
	if (http_fetch(out, &spec, &err) < 0) {
		fprintf(stderr, "gatewayctl: no gatewayd answers at %.*s: %s (is it running? %s)\n",
			STR_ARG(ctl->url), err.text,
			str_starts(ctl->url, STR("http"))
				? "its admin.bind: --url http://ADDRESS:PORT"
				: "its admin.socket: --socket PATH");
		return 1;
	}
	return 0;
}

static int ask(const struct ctl *ctl, enum http_method method, const char *path,
	       struct http_answer *out)
{
	return ask_with(ctl, method, path, (struct str) { 0 }, out);
}

/* The "detail" of a problem document, which may have several lines, or the document itself. */
static int print_problem(const struct ctl *ctl, const struct http_answer *answer)
{
	struct str body = buf_str(&answer->body), detail, line;
	json_t *json = json_loadb(body.p, body.len, 0, NULL);

	detail = str_from(json_string_value(json_object_get(json, "detail")));
	if (ctl->is_json && json)
		printf("%.*s\n", STR_ARG(body));
	if (!detail.p)
		fprintf(stderr, "gatewayctl: status %u\n", answer->status);
	while (str_split(&detail, '\n', &line))
		fprintf(stderr, "gatewayctl: %.*s\n", STR_ARG(line));
	json_decref(json);
	return 1;
}

static const char *text_of(const json_t *json, const char *key)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : "-";
}

static long long number_of(const json_t *json, const char *key)
{
	return (long long)json_integer_value(json_object_get(json, key));
}

static void print_services(const json_t *services)
{
	static const char *const header[] = { "SERVICE",     "INSTANCE",  ">WEIGHT", "HEALTH",
					      "STATE",       ">REQUESTS", ">ERRORS", ">IN FLIGHT",
					      ">LATENCY ms", NULL };
	struct table *t = table_new(header);
	json_t *service, *instance;
	size_t i, j;

	if (!t)
		return;
	json_array_foreach (services, i, service) {
		const json_t *instances = json_object_get(service, "instances");

		if (json_array_size(instances) == 0) {
			table_cell(t, "%s", text_of(service, "name"));
			table_cell(t, "(none)");
			for (int k = 0; k < 7; k++)
				table_cell(t, "-");
		}
		json_array_foreach (instances, j, instance) {
			table_cell(t, "%s", j ? "" : text_of(service, "name"));
			table_cell(t, "%s", text_of(instance, "address"));
			table_cell(t, "%lld", number_of(instance, "weight"));
			table_cell(t, "%s", text_of(instance, "health"));
			table_cell(t, "%s", text_of(instance, "state"));
			table_cell(t, "%lld", number_of(instance, "requests"));
			table_cell(t, "%lld", number_of(instance, "errors"));
			table_cell(t, "%lld", number_of(instance, "in_flight"));
			table_cell(t, "%.2f",
				   json_number_value(json_object_get(instance, "latency_ms")));
		}
	}
	table_print(t);
}

/* Only of services that have limits or a breaker. */
static void print_circuits(const json_t *services)
{
	static const char *const header[] = { "SERVICE",        ">IN FLIGHT",     ">WAITING",
					      ">CONNECTIONS",   "CIRCUIT",        ">OPENED",
					      ">REFUSED, BUSY", ">REFUSED, OPEN", NULL };
	struct table *t = NULL;
	json_t *service;
	size_t i;

	json_array_foreach (services, i, service) {
		const json_t *circuit = json_object_get(service, "circuit");

		if (!circuit)
			continue;
		t = t ? t : table_new(header);
		if (!t)
			return;
		table_cell(t, "%s", text_of(service, "name"));
		table_cell(t, "%lld", number_of(circuit, "in_flight"));
		table_cell(t, "%lld", number_of(circuit, "waiting"));
		table_cell(t, "%lld", number_of(circuit, "connections"));
		table_cell(t, "%s", text_of(circuit, "state"));
		table_cell(t, "%lld", number_of(circuit, "opened"));
		table_cell(t, "%lld", number_of(circuit, "refused_busy"));
		table_cell(t, "%lld", number_of(circuit, "refused_open"));
	}
	if (!t)
		return;
	putchar('\n');
	table_print(t);
}

static void print_routes(const json_t *routes)
{
	static const char *const header[] = { "ROUTE", ">2XX",        ">3XX", ">4XX",
					      ">5XX",  ">UNANSWERED", NULL };
	struct table *t = table_new(header);
	json_t *route;
	size_t i;

	if (!t)
		return;
	json_array_foreach (routes, i, route) {
		const json_t *status = json_object_get(route, "status");
		const char *name = text_of(route, "name");

		table_cell(t, "%s", name[0] ? name : "(no route)");
		table_cell(t, "%lld", number_of(status, "2xx"));
		table_cell(t, "%lld", number_of(status, "3xx"));
		table_cell(t, "%lld", number_of(status, "4xx"));
		table_cell(t, "%lld", number_of(status, "5xx"));
		table_cell(t, "%lld", number_of(status, "none"));
	}
	table_print(t);
}

static void print_auths(const json_t *auths)
{
	static const char *const header[] = { "AUTH", "TYPE", ">KEYS", "FROM", "STATE", NULL };
	struct table *t = json_array_size(auths) ? table_new(header) : NULL;
	json_t *auth;
	size_t i;

	if (!t)
		return;
	json_array_foreach (auths, i, auth) {
		const char *from = text_of(auth, json_object_get(auth, "url") ? "url" : "file");
		const char *problem = json_string_value(json_object_get(auth, "problem"));

		table_cell(t, "%s", text_of(auth, "name"));
		table_cell(t, "%s", text_of(auth, "type"));
		if (json_object_get(auth, "keys"))
			table_cell(t, "%lld", number_of(auth, "keys"));
		else
			table_cell(t, "-");
		table_cell(t, "%s", from);
		table_cell(t, "%s%s%s", text_of(auth, "state"), problem ? ": " : "",
			   problem ? problem : "");
	}
	table_print(t);
	putchar('\n');
}

static void print_workers(const json_t *workers)
{
	static const char *const header[] = { ">WORKER",   ">CONNECTIONS",    ">ACCEPTED",
					      ">REQUESTS", ">QUEUE DELAY ms", NULL };
	struct table *t = table_new(header);
	json_t *worker;
	size_t i;

	if (!t)
		return;
	json_array_foreach (workers, i, worker) {
		table_cell(t, "%zu", i);
		table_cell(t, "%lld", number_of(worker, "connections"));
		table_cell(t, "%lld", number_of(worker, "accepted"));
		table_cell(t, "%lld", number_of(worker, "requests"));
		table_cell(t, "%.2f", json_number_value(json_object_get(worker, "queue_delay_ms")));
	}
	table_print(t);
}

static void print_status(const json_t *s)
{
	const json_t *registry = json_object_get(s, "registry");

	printf("instance     %s\n", text_of(s, "instance"));
	printf("domain       %s\n", text_of(s, "domain"));
	printf("state        %s, up %lld s, version %s\n", text_of(s, "state"),
	       number_of(s, "uptime_s"), text_of(s, "version"));
	printf("workers      %lld\n", number_of(s, "workers"));
	printf("connections  %lld\n", number_of(s, "connections"));
	printf("requests     %lld\n", number_of(s, "requests"));
	if (json_is_object(registry))
		printf("registry     %s, %s\n", text_of(registry, "url"),
		       json_is_true(json_object_get(registry, "connected"))
			       ? "connected"
			       : "NOT CONNECTED, using the last known instances");
	else
		printf("registry     (none)\n");
	putchar('\n');
	print_workers(json_object_get(s, "per_worker"));
	putchar('\n');
	print_auths(json_object_get(s, "auth"));
	print_services(json_object_get(s, "services"));
	print_circuits(json_object_get(s, "services"));
	putchar('\n');
	print_routes(json_object_get(s, "routes"));
}

/* The status document, the caller's; NULL after saying why not. */
static json_t *fetch_status(void *arg)
{
	const struct ctl *ctl = arg;
	struct http_answer answer;
	const char *program;
	json_t *json;

	if (ask(ctl, METHOD_GET, "/status", &answer))
		return NULL;
	json = json_loadb(buf_str(&answer.body).p, buf_len(&answer.body), 0, NULL);
	program = json_string_value(json_object_get(json, "program"));
	if (answer.status != 200) {
		print_problem(ctl, &answer);
	} else if (!program || strcmp(program, "gatewayd") != 0) {
		fprintf(stderr, "gatewayctl: %.*s is not gatewayd's, %s answers there\n",
			STR_ARG(ctl->url), program ? program : "another program");
	} else {
		http_answer_fini(&answer);
		return json;
	}
	json_decref(json);
	http_answer_fini(&answer);
	return NULL;
}

static int cmd_status(struct ctl *ctl)
{
	json_t *json = fetch_status(ctl);
	char *text;

	if (!json)
		return 1;
	if (ctl->is_json) {
		text = json_dumps(json, JSON_COMPACT);
		puts(text ? text : "{}");
		free(text);
	} else {
		print_status(json);
	}
	json_decref(json);
	return 0;
}

static int cmd_top(struct ctl *ctl)
{
	struct ctl_top_options options = {
		.interval_s = ctl->interval_s,
		.count = ctl->count,
		.is_json = ctl->is_json,
		.fetch = fetch_status,
		.arg = ctl,
	};

	return ctl_top(&options);
}

/* One gateway's document, the caller's; NULL after saying why not. */
static json_t *fetch_document(struct ctl *ctl, const char *path)
{
	struct http_answer answer;
	json_t *json = NULL;

	if (ask(ctl, METHOD_GET, path, &answer))
		return NULL;
	if (answer.status != 200)
		print_problem(ctl, &answer);
	else
		json = json_loadb(buf_str(&answer.body).p, buf_len(&answer.body), 0, NULL);
	if (answer.status == 200 && !json_object_get(json, "instance")) {
		fail("that was no answer of gatewayd's");
		json_decref(json);
		json = NULL;
	}
	http_answer_fini(&answer);
	return json;
}

/* From all gateways that were named. */
static int cmd_report(struct ctl *ctl, const char *name, int (*print)(const struct ctl_report *))
{
	json_t *documents[GATEWAYS_MAX];
	struct ctl_report report = { .documents = documents,
				     .top = ctl->top,
				     .is_json = ctl->is_json };
	char path[64];
	int status = 0;

	if (ctl->url_count == 0)
		ctl->urls[ctl->url_count++] = ctl->url;
	/* The most of all need not be the most of each. */
	snprintf(path, sizeof(path), "/%s?top=%zu%s%s", name,
		 ctl->url_count > 1 ? (size_t)CTL_REPORT_ROWS_MAX : ctl->top,
		 ctl->window ? "&window=" : "", ctl->window ? ctl->window : "");
	for (size_t i = 0; status == 0 && i < ctl->url_count; i++) {
		ctl->url = ctl->urls[i];
		documents[i] = fetch_document(ctl, path);
		status = documents[i] ? 0 : 1;
		report.count += documents[i] != NULL;
	}
	if (status == 0)
		status = print(&report);
	for (size_t i = 0; i < report.count; i++)
		json_decref(documents[i]);
	return status;
}

static int cmd_metrics(const struct ctl *ctl)
{
	struct http_answer answer;

	if (ask(ctl, METHOD_GET, "/metrics", &answer))
		return 1;
	fwrite(buf_str(&answer.body).p, 1, buf_len(&answer.body), stdout);
	http_answer_fini(&answer);
	return 0;
}

static int cmd_reload(const struct ctl *ctl)
{
	struct http_answer answer;
	int status = 0;

	if (ask(ctl, METHOD_POST, "/reload", &answer))
		return 1;
	if (answer.status != 200)
		status = print_problem(ctl, &answer);
	else
		puts(ctl->is_json ? "{\"reloaded\":true}" : "reloaded");
	http_answer_fini(&answer);
	return status;
}

static int cmd_revoke(const struct ctl *ctl, bool is_removal)
{
	struct http_answer answer;
	const char *problem;
	struct buf body;
	int status;

	buf_init(&body, 0);
	problem = ctl_revoke_body(&ctl->revoke, is_removal, &body);
	status = problem ? usage(problem)
			 : ask_with(ctl, METHOD_POST, is_removal ? "/unrevoke" : "/revoke",
				    buf_str(&body), &answer);
	buf_fini(&body);
	if (status)
		return status;
	if (answer.status != 200)
		status = print_problem(ctl, &answer);
	else if (ctl->is_json)
		printf("%.*s\n", STR_ARG(buf_str(&answer.body)));
	else
		ctl_revoke_print(&answer, is_removal);
	http_answer_fini(&answer);
	return status;
}

static int cmd_revocations(const struct ctl *ctl)
{
	struct http_answer answer;
	int status = 0;

	if (ask(ctl, METHOD_GET, "/revocations", &answer))
		return 1;
	if (answer.status != 200)
		status = print_problem(ctl, &answer);
	else if (ctl->is_json)
		printf("%.*s\n", STR_ARG(buf_str(&answer.body)));
	else
		ctl_revocations_print(&answer);
	http_answer_fini(&answer);
	return status;
}

static int cmd_upgrade(const struct ctl *ctl)
{
	struct http_answer answer;
	json_t *json;
	int status = 0;

	if (ask(ctl, METHOD_POST, "/upgrade", &answer))
		return 1;
	json = json_loadb(buf_str(&answer.body).p, buf_len(&answer.body), 0, NULL);
	if (answer.status != 200)
		status = print_problem(ctl, &answer);
	else if (ctl->is_json)
		printf("%.*s\n", STR_ARG(buf_str(&answer.body)));
	else
		printf("upgraded: process %lld serves, the one before drains\n",
		       number_of(json, "pid"));
	json_decref(json);
	http_answer_fini(&answer);
	return status;
}

/* Until nobody answers on the socket any more. */
static bool wait_for_end(const struct ctl *ctl)
{
	struct http_base base;
	struct err err;

	if (http_base_parse(&base, ctl->url, HTTP_BASE_RESOLVE, &err) < 0)
		return false;
	for (int i = 0; i < DRAIN_WAIT_S * 10; i++) {
		struct http_request_spec spec = {
			.addr = &base.addr,
			.host = str_from(base.host),
			.target = { STR("/healthz") },
		};
		struct http_answer answer;

		if (http_fetch(&answer, &spec, &err) < 0)
			return true;
		http_answer_fini(&answer);
		usleep(100000);
	}
	return false;
}

static int cmd_drain(const struct ctl *ctl, bool waits)
{
	struct http_answer answer;
	int status = 0;

	if (ask(ctl, METHOD_POST, "/drain", &answer))
		return 1;
	if (answer.status != 202)
		status = print_problem(ctl, &answer);
	http_answer_fini(&answer);
	if (status)
		return status;
	if (waits && !wait_for_end(ctl))
		return fail("it is still draining; connections may take up to drain_timeout_ms");
	puts(ctl->is_json ? "{\"draining\":true}" : (waits ? "drained" : "draining"));
	return 0;
}

static int run(struct ctl *ctl, int argc, char **argv, bool waits)
{
	const char *command = argv[0];

	if (strcmp(command, "check") == 0)
		return argc == 2 ? ctl_check(argv[1], ctl->is_json) : usage("check needs one FILE");
	if (argc != 1)
		return usage("too many arguments");
	if (strcmp(command, "status") == 0)
		return cmd_status(ctl);
	if (strcmp(command, "top") == 0)
		return cmd_top(ctl);
	if (strcmp(command, "analytics") == 0)
		return cmd_report(ctl, "analytics", ctl_analytics);
	if (strcmp(command, "versions") == 0 && ctl->window)
		return usage("--window is for analytics");
	if (strcmp(command, "versions") == 0)
		return cmd_report(ctl, "versions", ctl_versions);
	if (strcmp(command, "metrics") == 0)
		return cmd_metrics(ctl);
	if (strcmp(command, "reload") == 0)
		return cmd_reload(ctl);
	if (strcmp(command, "revoke") == 0 || strcmp(command, "unrevoke") == 0)
		return cmd_revoke(ctl, command[0] == 'u');
	if (strcmp(command, "revocations") == 0)
		return cmd_revocations(ctl);
	if (strcmp(command, "upgrade") == 0)
		return cmd_upgrade(ctl);
	if (strcmp(command, "drain") == 0)
		return cmd_drain(ctl, waits);
	fprintf(stderr, "gatewayctl: %s: no such command\nTry: gatewayctl --help\n", command);
	return 2;
}

/* Finds out which gatewayd is meant; `check` needs none. */
static int run_somewhere(struct ctl *ctl, int argc, char **argv, bool waits, const char *path)
{
	struct buf url;
	int status = 0;

	buf_init(&url, 0);
	if (!ctl->url.p && strcmp(argv[0], "check") != 0) {
		buf_addz(&url, "unix:");
		if (path)
			buf_addz(&url, path);
		else if (ctl_find_socket(CTL_SOCKET_FOLDER, &url) < 0)
			status = 1;
		ctl->url = buf_str(&url);
	}
	if (status == 0)
		status = run(ctl, argc, argv, waits);
	buf_fini(&url);
	return status;
}

static bool add_url(struct ctl *ctl, const char *prefix, const char *rest)
{
	static char texts[GATEWAYS_MAX][512];
	int n;

	if (ctl->url_count == GATEWAYS_MAX)
		return false;
	n = snprintf(texts[ctl->url_count], sizeof(texts[0]), "%s%s", prefix, rest);
	if (n < 0 || (size_t)n >= sizeof(texts[0]))
		return false;
	ctl->urls[ctl->url_count] = str_from(texts[ctl->url_count]);
	ctl->url_count++;
	return true;
}

int main(int argc, char **argv)
{
	enum {
		OPT_SOCKET = 256,
		OPT_URL,
		OPT_JSON,
		OPT_WAIT,
		OPT_INTERVAL,
		OPT_COUNT,
		OPT_JTI,
		OPT_SUB,
		OPT_API_KEY,
		OPT_AUTH,
		OPT_ISSUED_BEFORE,
		OPT_UNTIL,
		OPT_BAN,
		OPT_WINDOW,
		OPT_TOP,
	};
	static const struct option options[] = {
		{ "socket", required_argument, NULL, OPT_SOCKET },
		{ "url", required_argument, NULL, OPT_URL },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "wait", no_argument, NULL, OPT_WAIT },
		{ "interval", required_argument, NULL, OPT_INTERVAL },
		{ "count", required_argument, NULL, OPT_COUNT },
		{ "jti", required_argument, NULL, OPT_JTI },
		{ "sub", required_argument, NULL, OPT_SUB },
		{ "api-key", required_argument, NULL, OPT_API_KEY },
		{ "auth", required_argument, NULL, OPT_AUTH },
		{ "issued-before", required_argument, NULL, OPT_ISSUED_BEFORE },
		{ "until", required_argument, NULL, OPT_UNTIL },
		{ "ban", no_argument, NULL, OPT_BAN },
		{ "window", required_argument, NULL, OPT_WINDOW },
		{ "top", required_argument, NULL, OPT_TOP },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *path = getenv("GATEHOUSE_GATEWAY");
	struct ctl ctl = { .interval_s = 1, .top = 20 };
	bool waits = false;
	uint64_t number;
	char *end;
	int opt;

	/* Has options of its own. */
	if (argc > 1 && strcmp(argv[1], "token") == 0)
		return ctl_token(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "api-key") == 0)
		return ctl_api_key(argc - 1, argv + 1);
	while ((opt = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
		switch (opt) {
		case OPT_SOCKET:
			path = optarg;
			if (!add_url(&ctl, "unix:", optarg))
				return usage("too many or too long --socket");
			break;
		case OPT_URL:
			ctl.url = str_from(optarg);
			if (!add_url(&ctl, "", optarg))
				return usage("too many or too long --url");
			break;
		case OPT_JSON:
			ctl.is_json = true;
			break;
		case OPT_WAIT:
			waits = true;
			break;
		case OPT_INTERVAL:
			ctl.interval_s = strtod(optarg, &end);
			if (*end || !(ctl.interval_s >= 0.05 && ctl.interval_s <= 3600))
				return usage("--interval is a number of seconds from 0.05 to 3600");
			break;
		case OPT_COUNT:
			if (!str_u64(str_from(optarg), &number) || number == 0 ||
			    number > UINT32_MAX)
				return usage("--count is a number from 1 on");
			ctl.count = (unsigned)number;
			break;
		case OPT_JTI:
			ctl.revoke.jti = optarg;
			break;
		case OPT_SUB:
			ctl.revoke.sub = optarg;
			break;
		case OPT_API_KEY:
			ctl.revoke.api_key = optarg;
			break;
		case OPT_AUTH:
			ctl.revoke.auth = optarg;
			break;
		case OPT_ISSUED_BEFORE:
			ctl.revoke.issued_before = optarg;
			break;
		case OPT_UNTIL:
			ctl.revoke.until = optarg;
			break;
		case OPT_BAN:
			ctl.revoke.is_ban = true;
			break;
		case OPT_WINDOW:
			ctl.window = optarg;
			if (strcmp(optarg, "minute") != 0 && strcmp(optarg, "hour") != 0)
				return usage("--window is minute or hour");
			break;
		case OPT_TOP:
			if (!str_u64(str_from(optarg), &number) || number == 0 ||
			    number > CTL_REPORT_ROWS_MAX)
				return usage("--top is a number from 1 to 1000");
			ctl.top = number;
			break;
		case 'V':
			printf("gatewayctl (gatehouse) %s\n", GATEHOUSE_VERSION);
			return 0;
		case 'h':
			print_help();
			return 0;
		default:
			fputs("Try: gatewayctl --help\n", stderr); /* getopt has said what */
			return 2;
		}
	}
	if (optind == argc)
		return usage("no command");
	return run_somewhere(&ctl, argc - optind, argv + optind, waits, path);
}
