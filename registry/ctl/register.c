/* SPDX-License-Identifier: Apache-2.0 */
/* registryctl register and deregister: once, or for as long as it runs. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "registry/ctl/ctl.h"

static json_t *instance_json(const struct ctl *o, const struct net_addr *addr)
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

/* Registers and stays until a signal. */
static int register_and_keep(const struct ctl *o, const char *app,
			     const struct reg_instance *instance)
{
	struct str url = str_from(o->url);
	struct reg_client_config config = { .urls = &url,
					    .url_count = 1,
					    .may_resolve = true,
					    .access = ctl_access(o),
					    .on_event = ctl_on_event };
	struct keeping k = { .loop = loop_new() };
	struct err err = { "cannot make an event loop" };
	int r = FAILED;

	if (k.loop)
		k.client = reg_client_new(k.loop, &config, &err);
	if (k.client)
		k.self = reg_self_start(k.client, str_from(app), instance, &err);
	if (!k.self || loop_signal(k.loop, SIGINT, keep_on_signal, &k) < 0 ||
	    loop_signal(k.loop, SIGTERM, keep_on_signal, &k) < 0) {
		ctl_fail(err.text);
	} else {
		fprintf(stderr, "registered %s %.*s at %s; Ctrl-C takes it out again\n", app,
			STR_ARG(instance->id), o->url);
		loop_run(k.loop);
		r = DONE;
	}
	reg_client_free(&k.client);
	loop_free(k.loop);
	return r;
}

int ctl_register(const struct ctl *o, int argc, char **argv)
{
	CLEANUP(ctl_cleanup_json) json_t *json = NULL;
	CLEANUP(cleanup_free) char *body = NULL;
	struct reg_problem problem;
	struct reg_instance i;
	struct net_addr addr;
	struct arena arena;
	int r;

	(void)argc;
	if (net_parse(&addr, str_from(argv[2]), 0) < 0 || addr.sa.sa_family == AF_UNIX ||
	    net_port(&addr) == 0)
		return ctl_misuse("%s: must be an IP address and a port, as in 10.1.0.7:8080",
				  argv[2]);
	json = instance_json(o, &addr);
	arena_init(&arena, 1024, 0);
	/* The same check as the registry's, before it is asked. */
	r = reg_instance_read(&i, json, str_from(argv[1]), 30, &arena, &problem);
	if (r == -EINVAL) {
		r = ctl_misuse("%s %s", problem.field, problem.text);
	} else if (r < 0) {
		r = ctl_fail("out of memory");
	} else if (o->command) {
		r = ctl_run(o, argv[0], &i);
	} else if (o->is_kept) {
		r = register_and_keep(o, argv[0], &i);
	} else {
		body = json_dumps(json, JSON_COMPACT);
		r = body ? ctl_ask_about(o, METHOD_PUT, argv[0], argv[1], "", str_from(body), NULL)
			 : ctl_fail("out of memory");
	}
	arena_fini(&arena);
	return r;
}

int ctl_deregister(const struct ctl *o, int argc, char **argv)
{
	(void)argc;
	return ctl_ask_about(o, METHOD_DELETE, argv[0], argv[1], "", STR(""), NULL);
}
