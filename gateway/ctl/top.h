/* SPDX-License-Identifier: Apache-2.0 */
/* `gatewayctl top`: rates and latencies of a running gateway, from the difference of two status
 * documents. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

struct ctl_top_options {
	double interval_s;
	unsigned count; /* how often; 0: until interrupted */
	bool is_json;
	/* Fetches a status document, the caller's; NULL after saying why not. */
	json_t *(*fetch)(void *arg);
	void *arg;
};

/* Returns the exit status. */
int ctl_top(const struct ctl_top_options *o);
