/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a gateway counts as healthy: consecutive successes and failures, with hysteresis. Pure; the
 * checks themselves are in checker.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum health_state { HEALTH_UNKNOWN, HEALTH_UP, HEALTH_DOWN };

struct health {
	enum health_state state;
	uint32_t run; /* results in a row that contradict the state */
};

/*
 * Takes one result. The first one decides at once; after that `fall` failures in a row take a
 * gateway down and `rise` successes in a row bring it back. Returns whether the state changed.
 */
bool health_report(struct health *h, bool is_success, uint32_t rise, uint32_t fall);

/* The word for people and metrics. */
const char *health_state_name(enum health_state state);
