/* SPDX-License-Identifier: Apache-2.0 */
/* `nlbctl decap`: puts the decapsulating program on an interface of a gateway host, no daemon
 * needed. Each takes the interface as its argument and returns an exit status. */
#pragma once

#include "nlb/nlbctl.h"

int ctl_decap_attach(const struct nlbctl_options *o, char **args);
int ctl_decap_detach(const struct nlbctl_options *o, char **args);
int ctl_decap_status(const struct nlbctl_options *o, char **args);
