/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nlbd: owns the load balancer's maps. Packets are forwarded by the kernel whether it runs or not;
 * it keeps gateways' health, next hops and rings up to date.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/capability.h>

#include "lib/cleanup.h"
#include "lib/daemon.h"
#include "lib/http_client.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "nlb/announce.h"
#include "nlb/blocks.h"
#include "nlb/conf.h"
#include "nlb/ctl.h"
#include "nlb/discover.h"
#include "nlb/loader.h"
#include "nlb/vips.h"

#define CONF_CHUNK 16384

static const struct daemon_program program = {
	.name = "nlbd",
	.summary = "control daemon of the XDP load balancer: spreads TCP and UDP over gateways",
	.default_config = "/etc/gatehouse/nlb.json",
	.notes = "Needs root or CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN to start.\n"
		 "Forwarding is done in the kernel and goes on while nlbd is stopped; the next "
		 "nlbd\n"
		 "takes over what is pinned below /sys/fs/bpf/gatehouse/INTERFACE. To end "
		 "forwarding: nlbctl detach INTERFACE.\n"
		 "\n"
		 "Signals: SIGHUP reads the configuration again (a bad one changes nothing and is "
		 "reported),\n"
		 "SIGTERM and SIGINT end nlbd and take announced VIPs off their interface, SIGUSR2 "
		 "ends it and\n"
		 "leaves them there for the next nlbd.\n"
		 "\n"
		 "Example:\n"
		 "  { \"interface\": \"eth0\",\n"
		 "    \"vips\": [ { \"name\": \"web\", \"address\": \"203.0.113.10\", \"port\": "
		 "443,\n"
		 "                \"gateways\": [ { \"address\": \"10.0.0.11\" }, { \"address\": "
		 "\"10.0.0.12\" } ],\n"
		 "                \"health\": { \"type\": \"tcp\" } } ] }\n"
		 "On each gateway: ip address add 203.0.113.10/32 dev lo\n"
		 "                 nlbctl decap attach eth0 --source ADDRESS-OF-THE-NLB\n",
};

/* A configuration and the memory it lies in. */
struct conf_holder {
	struct nlb_conf conf;
	struct arena arena;
};

struct nlbd {
	struct daemon_options options;
	struct conf_holder *conf;
	struct loop *loop;
	struct http_client *client;
	struct loader loader;
	struct vips *vips;
	struct discover *discover;
	struct blocks *blocks;
	struct announcer *announcer;
	struct ctl *ctl;
	struct ctl_sources sources;
	bool is_loaded;
	bool keeps_announced; /* VIPs stay on their interface when we end */
};

/* --- configuration -----------------------------------------------------------------------------
 */

static void conf_free(struct conf_holder **h)
{
	if (!*h)
		return;
	arena_fini(&(*h)->arena);
	free(*h);
	*h = NULL;
}

/* Reads and checks; all mistakes and warnings are in `said`, one a line. NULL when there are
 * mistakes. */
static struct conf_holder *conf_read(const char *file, const struct nlb_conf *running,
				     struct buf *said)
{
	struct conf_holder *h = calloc(1, sizeof(*h));
	struct conf_errors errors = { 0 };
	int rc;

	if (!h) {
		buf_addz(said, "out of memory\n");
		return NULL;
	}
	arena_init(&h->arena, CONF_CHUNK, 0);
	rc = conf_load(&h->conf, &nlb_conf_object, file, &h->arena, &errors);
	if (!rc && running)
		rc = conf_check_reload(&nlb_conf_object, running, &h->conf, &errors);
	conf_errors_write(&errors, file, said);
	if (rc)
		conf_free(&h);
	conf_errors_fini(&errors);
	return h;
}

/* Each mistake a line of its own, as "file: path: what". */
static void log_lines(enum log_level level, struct str text)
{
	struct str line;

	while (str_split(&text, '\n', &line)) {
		if (line.len)
			log_event(level, "%.*s", STR_ARG(line));
	}
}

static int apply_file(struct nlbd *d, struct buf *said)
{
	struct conf_holder *fresh = conf_read(d->options.config, &d->conf->conf, said);
	struct err err = { "" };
	int rc;

	if (!fresh)
		return -EINVAL;
	daemon_notify("RELOADING=1");
	rc = vips_prepare(d->vips, &fresh->conf, &err);
	if (!rc)
		rc = loader_configure(&d->loader, &fresh->conf, &err);
	if (rc) {
		conf_free(&fresh);
	} else {
		rc = vips_apply(d->vips, &fresh->conf, &err);
		/* All VIPs refer to the new one from here on, complete or not. */
		conf_free(&d->conf);
		d->conf = fresh;
	}
	if (!rc)
		rc = discover_apply(d->discover, &d->conf->conf, &err);
	if (rc)
		buf_printf(said, "%s\n", err.text);
	else
		log_info("configuration reloaded: %zu VIPs", d->conf->conf.vips_count);
	daemon_notify("READY=1");
	return rc;
}

/* Whoever asked is told, and the log has it too. */
static int reload(void *arg, struct buf *said)
{
	int rc = apply_file(arg, said);

	log_lines(rc ? LOG_ERROR : LOG_WARN, buf_str(said));
	if (rc)
		log_error("the configuration was not reloaded; the former one stays in force");
	return rc;
}

/* --- signals -----------------------------------------------------------------------------------
 */

static void on_hangup(int signo, void *arg)
{
	struct buf said;

	(void)signo;
	buf_init(&said, 65536);
	reload(arg, &said);
	buf_fini(&said);
}

static void on_terminate(int signo, void *arg)
{
	struct nlbd *d = arg;

	(void)signo;
	d->keeps_announced = signo == SIGUSR2;
	log_info("ending; packets are forwarded on");
	daemon_notify("STOPPING=1");
	loop_stop(d->loop);
}

/* --- start and end ------------------------------------------------------------------------------
 */

static void on_change(void *arg)
{
	struct nlbd *d = arg;

	struct err err;

	announcer_update(d->announcer, d->vips);
	if (loader_is_waiting(&d->loader) && vips_are_settled(d->vips) &&
	    loader_replace_former(&d->loader, &err) != 0)
		log_error("%s; trying again", err.text);
}

static int start_announcing(struct nlbd *d, struct err *err)
{
	int rc = announcer_new(&d->announcer, d->loop, &d->conf->conf, err);

	if (rc)
		return rc;
	d->sources.announcer = d->announcer;
	vips_observe(d->vips, on_change, d);
	on_change(d);
	return 0;
}

static int start(struct nlbd *d, struct err *err)
{
	static const int keep[] = { CAP_BPF, CAP_NET_ADMIN };
	const struct nlb_conf *conf = &d->conf->conf;
	int rc;

	d->loop = loop_new();
	if (!d->loop)
		return err_set(err, -errno, "epoll: %s", strerror(errno));
	loop_signal(d->loop, SIGHUP, on_hangup, d);
	loop_signal(d->loop, SIGTERM, on_terminate, d);
	loop_signal(d->loop, SIGINT, on_terminate, d);
	loop_signal(d->loop, SIGUSR2, on_terminate, d);
	d->client = http_client_new(d->loop, 0);
	d->sources = (struct ctl_sources) {
		.loader = &d->loader, .config_file = d->options.config, .reload = reload, .arg = d
	};
	if (!d->client)
		return err_set(err, -ENOMEM, "out of memory");

	/* First: an interface that is not there or rights that are missing say more than a socket.
	 */
	rc = loader_open(&d->loader, conf, err);
	if (rc)
		return rc;
	d->is_loaded = true;
	d->ctl = ctl_new(d->loop, conf, &d->sources, err);
	if (!d->ctl)
		return -EADDRINUSE;
	rc = loader_configure(&d->loader, conf, err);
	if (rc)
		return rc;
	d->vips = vips_new(d->loop, &d->loader, d->client, err);
	if (!d->vips)
		return -ENOMEM;
	d->discover = discover_new(d->loop, d->vips);
	if (!d->discover)
		return err_set(err, -ENOMEM, "out of memory");
	d->blocks = blocks_new(d->loop, &d->loader);
	if (!d->blocks)
		return err_set(err, -ENOMEM, "out of memory");
	d->sources.blocks = d->blocks;
	d->sources.vips = d->vips;
	d->sources.discover = d->discover;
	rc = vips_prepare(d->vips, conf, err);
	if (!rc)
		rc = vips_apply(d->vips, conf, err);
	if (!rc)
		rc = discover_apply(d->discover, conf, err);
	if (!rc)
		rc = loader_attach(&d->loader, conf, err);
	/* Not earlier: who announces gets packets. */
	if (!rc)
		rc = start_announcing(d, err);
	if (!rc)
		rc = daemon_drop_privileges(d->options.user, keep, ARRAY_SIZE(keep), err);
	return rc;
}

static void stop(struct nlbd *d, bool has_started)
{
	announcer_free(&d->announcer, has_started && !d->keeps_announced);
	ctl_free(&d->ctl);
	discover_free(&d->discover);
	blocks_free(&d->blocks);
	vips_free(&d->vips);
	http_client_free(&d->client);
	if (d->is_loaded && has_started)
		loader_close(&d->loader);
	else if (d->is_loaded)
		loader_abort(&d->loader);
	if (d->loop)
		loop_free(d->loop);
	conf_free(&d->conf);
}

static int check_only(const struct conf_holder *conf, const char *file)
{
	printf("%s: good: %zu VIPs on %s\n", file, conf->conf.vips_count, conf->conf.interface.p);
	return 0;
}

int main(int argc, char **argv)
{
	struct nlbd d = { 0 };
	struct err err = { "" };
	struct buf said;
	int status = daemon_parse_options(&d.options, &program, argc, argv);

	if (status >= 0)
		return status;
	buf_init(&said, 1 << 20);
	if (d.options.wants_schema) {
		conf_schema_json(&nlb_conf_object, "nlbd", &said);
		fwrite(buf_data(&said), 1, buf_len(&said), stdout);
		buf_fini(&said);
		return 0;
	}
	d.conf = conf_read(d.options.config, NULL, &said);
	if (d.options.wants_check || (!d.conf && d.options.log_format == LOG_TEXT))
		fprintf(stderr, "%.*s", STR_ARG(buf_str(&said)));
	else
		log_lines(d.conf ? LOG_WARN : LOG_ERROR, buf_str(&said));
	buf_fini(&said);
	if (!d.conf)
		return 1;
	if (d.options.wants_check) {
		status = check_only(d.conf, d.options.config);
		conf_free(&d.conf);
		return status;
	}

	daemon_raise_fd_limit();
	if (start(&d, &err) != 0) {
		status = daemon_fail(&d.options, &program, err.text);
		stop(&d, false);
		return status;
	}
	if (!d.conf->conf.hash_seed.p)
		log_warn("hash_seed is not set: clients can work out which gateway they will meet; "
			 "set it to "
			 "a secret, the same on every NLB");
	loader_tell_memory(&d.loader, d.conf->conf.vips_count);
	log_info("interface=%s: forwarding %zu VIPs, XDP mode %s", d.loader.pins.interface,
		 d.conf->conf.vips_count, pins_mode_name(d.loader.mode));
	for (size_t i = 0; i < d.loader.other_count; i++)
		log_info("interface=%s: packets of clients are taken here too, XDP mode %s",
			 d.loader.others[i].interface, pins_mode_name(d.loader.other_modes[i]));
	daemon_notify("READY=1");
	daemon_watchdog_start(d.loop);
	loop_run(d.loop);
	stop(&d, true);
	return 0;
}
