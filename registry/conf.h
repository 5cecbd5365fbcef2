/* SPDX-License-Identifier: Apache-2.0 */
/* registryd's configuration file. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/conf.h"

struct reg_conf_store {
	int type; /* memory is the only one */
	struct str snapshot;
};

struct reg_conf_lease {
	uint32_t default_s;
	uint32_t sweep_ms;
	bool self_preservation;
};

struct reg_conf {
	struct net_addr bind;
	struct reg_conf_store store;
	struct reg_conf_lease lease;
	uint32_t max_connections;
	char not_yet; /* members that may only be empty in this version */
};

extern const struct conf_object reg_conf_object;
