/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <jansson.h>

/*
 * The bound in ms that the share of the requests between two histograms kept (before NULL: since
 * the first); -1 when there was none. Within a bucket they are taken to be spread evenly.
 */
double ctl_quantile(const json_t *before, const json_t *now, const json_t *bounds_us, double share);
