/* SPDX-License-Identifier: Apache-2.0 */
/* registryctl: what is registered, by hand and at a glance. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "registry/ctl/ctl.h"

#define DEFAULT_URL      "http://127.0.0.1:8761"
#define DEFAULT_DRAIN_MS 1000

static const char help[] =
	"usage: registryctl [OPTIONS] COMMAND\n"
	"\n"
	"  apps                        the apps, and how many instances are up\n"
	"  instances [APP]             the instances, of all apps or of one\n"
	"  register APP ID ADDR:PORT   register an instance; it leaves when its lease runs out,\n"
	"                              unless --keep renews it\n"
	"  register APP ID ADDR:PORT ... -- COMMAND [ARGUMENT ...]\n"
	"                              run a service that knows nothing of registries: start it,\n"
	"                              register it once its port answers, renew while it runs,\n"
	"                              deregister it when it ends\n"
	"  deregister APP ID           take an instance out\n"
	"  status                      the registry itself\n"
	"  status APP ID STATUS        say for an instance what it is: UP, DOWN, STARTING or\n"
	"                              OUT_OF_SERVICE (no new requests: to drain it); \"clear\"\n"
	"                              lets it speak for itself again\n"
	"  override APP ID STATUS      the same\n"
	"  watch [APP ...]             print changes as they happen\n"
	"\n"
	"Options:\n"
	"      --url URL               the registry: http://HOST:PORT, https://HOST:PORT or\n"
	"                              unix:/PATH\n"
	"                              (default $GATEHOUSE_REGISTRY, else " DEFAULT_URL ")\n"
	"      --token TOKEN           for a registry that wants one; \"@FILE\" reads it from a\n"
	"                              file (default $REGISTRY_TOKEN)\n"
	"      --ca FILE               whom to trust with https: (default: whom the system "
	"trusts)\n"
	"      --certificate FILE --key FILE\n"
	"                              shown to a registry that asks for a client certificate\n"
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
	"  register ... -- COMMAND:\n"
	"      --at-once               register without waiting for the port to answer\n"
	"      --drain MS              on SIGTERM or SIGINT: how long the instance is out of\n"
	"                              service before COMMAND gets the signal (default 1000);\n"
	"                              a second signal ends the wait\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage. With -- COMMAND that of the command (128 + "
	"n\n"
	"when signal n ended it), 126 when it cannot be started, 127 when there is none.\n"
	"\n"
	"A service that is started by hand, visible to the gateways until Ctrl-C:\n"
	"  registryctl register --keep user-service-v2 dev-1 10.1.0.7:8080\n"
	"A container's entry point:\n"
	"  registryctl register --url http://10.0.0.9:8761 feed $HOSTNAME 10.1.0.8:8080 \\\n"
	"      -- /usr/bin/feed -p 8080\n"
	"Take an instance out of rotation for a deployment, and back in:\n"
	"  registryctl status user-service-v2 user-17 OUT_OF_SERVICE\n"
	"  registryctl status user-service-v2 user-17 clear\n";

static int cmd_status(const struct ctl *o, int argc, char **argv)
{
	char body[64];

	if (argc == 0)
		return ctl_registry(o);
	if (argc != 3)
		return ctl_misuse("status takes nothing, or APP ID STATUS");
	if (strcmp(argv[2], "clear") == 0)
		return ctl_ask_about(o, METHOD_DELETE, argv[0], argv[1], "/status", STR(""), NULL);
	if (reg_status_parse(str_from(argv[2])) == REG_NO_STATUS)
		return ctl_misuse("%s: must be UP, DOWN, STARTING, OUT_OF_SERVICE or clear",
				  argv[2]);
	snprintf(body, sizeof(body), "{\"status\":\"%s\"}", argv[2]);
	return ctl_ask_about(o, METHOD_PUT, argv[0], argv[1], "/status", str_from(body), NULL);
}

/* --- the command line ------------------------------------------------------------------------ */

static const struct command {
	const char *name;
	int (*run)(const struct ctl *o, int argc, char **argv);
	int min, max; /* arguments */
} commands[] = {
	{ "apps", ctl_apps, 0, 0 },         { "instances", ctl_instances, 0, 1 },
	{ "register", ctl_register, 3, 3 }, { "deregister", ctl_deregister, 2, 2 },
	{ "status", cmd_status, 0, 3 },     { "override", cmd_status, 3, 3 },
	{ "watch", ctl_watch, 0, 256 },
};

enum {
	OPT_URL = 256,
	OPT_TOKEN,
	OPT_CA,
	OPT_CERTIFICATE,
	OPT_KEY,
	OPT_AT_ONCE,
	OPT_DRAIN,
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
	{ "token", required_argument, NULL, OPT_TOKEN },
	{ "ca", required_argument, NULL, OPT_CA },
	{ "certificate", required_argument, NULL, OPT_CERTIFICATE },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "at-once", no_argument, NULL, OPT_AT_ONCE },
	{ "drain", required_argument, NULL, OPT_DRAIN },
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

static bool set_metadata(struct ctl *o, const char *text)
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

/* A copy: the one in the list of processes is written over. */
static int set_token(struct ctl *o, char *text)
{
	free(o->token);
	o->token = strdup(text);
	if (!o->token)
		return ctl_fail("out of memory");
	if (text[0] != '@')
		memset(text, 'x', strlen(text));
	return -1;
}

/* -1 to go on, else the exit status. */
static int set_option(struct ctl *o, int opt)
{
	switch (opt) {
	case OPT_URL:
		o->url = optarg;
		return -1;
	case OPT_TOKEN:
		return set_token(o, optarg);
	case OPT_CA:
		o->ca = optarg;
		return -1;
	case OPT_CERTIFICATE:
		o->certificate = optarg;
		return -1;
	case OPT_KEY:
		o->key = optarg;
		return -1;
	case OPT_AT_ONCE:
		o->at_once = true;
		return -1;
	case OPT_DRAIN:
		return str_u64(str_from(optarg), &o->drain_ms) && o->drain_ms <= 3600000
			       ? -1
			       : ctl_misuse("--drain takes milliseconds, 0 to 3600000");
	case OPT_JSON:
		o->wants_json = true;
		return -1;
	case OPT_ZONE:
		o->zone = optarg;
		return -1;
	case OPT_STATUS:
		if (reg_status_parse(str_from(optarg)) == REG_NO_STATUS)
			return ctl_misuse(
				"--status %s: must be UP, DOWN, STARTING or OUT_OF_SERVICE",
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
			       : ctl_misuse("--lease takes seconds, 1 to %d", REG_LEASE_MAX_S);
	case OPT_WEIGHT:
		return set_number(&o->weight, optarg, REG_WEIGHT_MAX)
			       ? -1
			       : ctl_misuse("--weight takes 1 to %d", REG_WEIGHT_MAX);
	case OPT_METADATA:
		return set_metadata(o, optarg) ? -1 : ctl_misuse("--metadata takes KEY=VALUE");
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

static int run_command(struct ctl *o, int argc, char **argv)
{
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(c->name, argv[0]) != 0)
			continue;
		if (argc - 1 < c->min || argc - 1 > c->max)
			return ctl_misuse("%s: wrong number of arguments", c->name);
		if (o->command && c->run != ctl_register)
			return ctl_misuse("%s: only register takes a command behind \"--\"",
					  c->name);
		r = ctl_prepare(o);
		return r == DONE ? c->run(o, argc - 1, argv + 1) : r;
	}
	return ctl_misuse("%s: no such command", argv[0]);
}

/* Cuts off what stands behind the first "--": it is another program's. */
static int take_command(struct ctl *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		o->command = argv + i + 1;
		argv[i] = NULL;
		return i;
	}
	return argc;
}

static const char *env(const char *name, const char *without)
{
	const char *value = getenv(name);

	return value && value[0] ? value : without;
}

int main(int argc, char **argv)
{
	struct ctl o = { .drain_ms = DEFAULT_DRAIN_MS };
	const char *token = env(CTL_TOKEN_ENV, NULL);
	int opt, status = -1;

	o.url = env("GATEHOUSE_REGISTRY", DEFAULT_URL);
	o.token = token ? strdup(token) : NULL;
	argc = take_command(&o, argc, argv);
	if (o.command && !o.command[0])
		status = ctl_misuse("needs a command behind \"--\"");
	while (status < 0 && (opt = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		status = set_option(&o, opt);
	if (status < 0 && optind == argc)
		status = ctl_misuse("needs a command");
	if (status < 0)
		status = run_command(&o, argc - optind, argv + optind);
	ctl_fini(&o);
	if (fflush(stdout) != 0 && status == DONE)
		status = FAILED;
	return status;
}
