/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/health.h"

static bool change(struct health *h, enum health_state to)
{
	bool changed = h->state != to;

	h->state = to;
	h->run = 0;
	return changed;
}

bool health_report(struct health *h, bool is_success, uint32_t rise, uint32_t fall)
{
	enum health_state says = is_success ? HEALTH_UP : HEALTH_DOWN;

	if (h->state == HEALTH_UNKNOWN || h->state == says)
		return change(h, says);
	if (++h->run < (is_success ? rise : fall))
		return false;
	return change(h, says);
}

const char *health_state_name(enum health_state state)
{
	static const char *const names[] = {
		[HEALTH_UNKNOWN] = "unknown", [HEALTH_UP] = "up", [HEALTH_DOWN] = "down"
	};

	return names[state];
}
