/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `gatewayctl analytics` and `gatewayctl versions`: what one or several gateways tell, as one. The
 * documents are those of the admin port.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* How many rows a gateway is asked for when several are added up. */
#define CTL_REPORT_ROWS_MAX 1000

struct ctl_report {
	json_t **documents;
	size_t count;
	size_t top; /* rows of each table */
	bool is_json;
};

/* Both print and return the exit status. */
int ctl_analytics(const struct ctl_report *r);
int ctl_versions(const struct ctl_report *r);
