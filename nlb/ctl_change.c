/* SPDX-License-Identifier: Apache-2.0 */
/* nlbctl drain, undrain, reload, detach: what changes something. */
#include "nlb/nlbctl.h"

#include <stdio.h>

static int drain(const struct nlbctl_options *o, const char *path, char **args, const char *done)
{
	struct buf query;
	int status;

	buf_init(&query, 4096);
	nlbctl_query(&query, "vip", args[0]);
	nlbctl_query(&query, "gateway", args[1]);
	buf_putc(&query, '\0');
	status = nlbctl_change(o, path, buf_data(&query), done);
	buf_fini(&query);
	return status;
}

static int run_drain(const struct nlbctl_options *o, char **args)
{
	return drain(o, "/drain", args, "draining");
}

static int run_undrain(const struct nlbctl_options *o, char **args)
{
	return drain(o, "/undrain", args, "in service");
}

static int run_reload(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_change(o, "/reload", "", "reloaded");
}

static int run_detach(const struct nlbctl_options *o, char **args)
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

const struct command command_drain = {
	.name = "drain",
	.arguments = "VIP GATEWAY",
	.min = 2,
	.max = 2,
	.run = run_drain,
	.summary = "no new connections there; those it has go on",
	.help = "Both by the names that `nlbctl gateways` shows. Holds until undrained, also over\n"
		"restarts of nlbd.\n"
		"\n"
		"Example:\n"
		"  nlbctl drain rider gw-r1\n",
};

const struct command command_undrain = {
	.name = "undrain",
	.arguments = "VIP GATEWAY",
	.min = 2,
	.max = 2,
	.run = run_undrain,
	.summary = "back to normal",
	.help = "Ends what `nlbctl drain` began. A gateway that the registry lists as draining "
		"goes\n"
		"on draining.\n",
};

const struct command command_reload = {
	.name = "reload",
	.run = run_reload,
	.summary = "read the configuration again",
	.help = "A configuration with mistakes changes nothing; they are printed, all of them.\n",
};

const struct command command_detach = {
	.name = "detach",
	.arguments = "INTERFACE",
	.min = 1,
	.max = 1,
	.run = run_detach,
	.summary = "end forwarding (stop nlbd first)",
	.help = "Every connection through this load balancer ends, and what it remembered is "
		"lost.\n",
};
