/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayd: reads the configuration, builds the parts in order, runs, tears down in reverse. */
#include <linux/capability.h>
#include <stdio.h>
#include <unistd.h>

#include "gateway/gateway.h"
#include "gateway/handover.h"
#include "gateway/tls_files.h"
#include "lib/daemon.h"

static const struct daemon_program program = {
	.name = "gatewayd",
	.summary = "the API gateway of one domain: TLS, tokens, rate limits, routing to services",
	.default_config = "/etc/gatehouse/gateway.json",
	.can_take_over = true,
	.notes = "signals:\n"
		 "  SIGHUP   read the configuration again; a bad one changes nothing and is "
		 "reported\n"
		 "  SIGTERM  drain: leave the registry, finish what runs, exit 0; a second one "
		 "cuts it short\n"
		 "  SIGUSR1  reopen the access log, after rotation\n\n"
		 "example:\n"
		 "  gatewayd -c rider.json --check && gatewayd -c rider.json\n"
		 "  gatewayctl --socket /run/gatehouse/rider.sock status\n",
};

static int print_schema(void)
{
	struct buf out;

	buf_init(&out, 0);
	conf_schema_json(&gw_conf_object, "gatewayd", &out);
	fwrite(buf_data(&out), 1, buf_len(&out), stdout);
	buf_fini(&out);
	return 0;
}

static int load(struct snapshot **out, const struct daemon_options *options)
{
	struct conf_errors errors = { 0 };
	int rc = snapshot_load(out, options->config, &errors);

	daemon_report_conf(options, &errors);
	conf_errors_fini(&errors);
	return rc;
}

static int check(struct snapshot *snapshot, const char *file)
{
	struct err err;
	struct tls_files *files = tls_files_new(&snapshot->conf, &err);
	struct worker_conf *conf = files ? worker_conf_new(snapshot, files, &err) : NULL;

	tls_files_free(&files);
	if (!conf) {
		fprintf(stderr, "%s: listeners: %s\n", file, err.text);
		return 1;
	}
	worker_conf_put(conf);
	printf("%s: ok, %zu routes, %zu services\n", file, snapshot->route_count,
	       snapshot->conf.services_count);
	return 0;
}

static int run(struct snapshot *snapshot, const struct daemon_options *options, char **argv)
{
	static char program_file[4096];
	struct gateway g = { .config_file = options->config, .argv = argv };
	struct err err = { "" };
	/* Now, as long as the name leads to this file: an upgrade puts another in its place. */
	ssize_t n = readlink("/proc/self/exe", program_file, sizeof(program_file) - 1);
	int rc = sockets_from_systemd(&g.inherited, &err);

	g.program = n > 0 ? program_file : argv[0];
	if (rc == 0 && options->takes_over)
		rc = handover_take(&g, snapshot, &err);
	if (rc == 0)
		rc = gateway_start(&g, snapshot, &err);
	if (rc == 0)
		rc = daemon_drop_privileges(options->user, NULL, 0, &err);
	if (rc == 0)
		rc = gateway_run(&g, &err);
	gateway_fini(&g);
	return rc < 0 ? daemon_fail(options, &program, err.text) : 0;
}

int main(int argc, char **argv)
{
	struct daemon_options options;
	struct snapshot *snapshot = NULL;
	int status = daemon_parse_options(&options, &program, argc, argv);

	if (status >= 0)
		return status;
	if (options.wants_schema)
		return print_schema();
	if (load(&snapshot, &options) < 0)
		return 1;
	status = options.wants_check ? check(snapshot, options.config)
				     : run(snapshot, &options, argv);
	snapshot_put(&snapshot);
	return status;
}
