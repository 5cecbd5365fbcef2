/* SPDX-License-Identifier: Apache-2.0 */
/* nlbctl withdraw, announce: whether this load balancer asks for traffic. */
#include "nlb/nlbctl.h"

static int run_withdraw(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_change(o, "/withdraw", "", "withdrawn");
}

static int run_announce(const struct nlbctl_options *o, char **args)
{
	(void)args;
	return nlbctl_change(o, "/announce", "", "announced, where a gateway can be used");
}

const struct command command_withdraw = {
	.name = "withdraw",
	.run = run_withdraw,
	.summary = "have routers send clients elsewhere",
	.help = "Takes VIPs with \"announce\" off their interface, so that the routing daemon\n"
		"withdraws them. Packets that still arrive are forwarded. Before work on this "
		"host:\n"
		"withdraw, wait until `nlbctl top` shows no more traffic, then stop nlbd. Holds "
		"until\n"
		"`nlbctl announce` or the end of nlbd.\n",
};

const struct command command_announce = {
	.name = "announce",
	.run = run_announce,
	.summary = "end what `nlbctl withdraw` began",
	.help = "VIPs without a gateway that can be used stay withdrawn.\n",
};
