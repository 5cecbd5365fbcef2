/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/ramp.h"

static uint64_t step_ms(uint32_t slow_start_s)
{
	return (uint64_t)slow_start_s * 1000 / RAMP_STEPS;
}

void ramp_start(struct ramp *r, uint64_t now_ms)
{
	r->since_ms = now_ms ? now_ms : 1;
}

uint32_t ramp_step(struct ramp *r, uint32_t slow_start_s, uint64_t now_ms)
{
	uint64_t step;

	if (!r->since_ms || !slow_start_s) {
		r->since_ms = 0;
		return RAMP_STEPS;
	}
	step = 1 + (now_ms - r->since_ms) / step_ms(slow_start_s);
	if (step < RAMP_STEPS)
		return (uint32_t)step;
	r->since_ms = 0;
	return RAMP_STEPS;
}

uint64_t ramp_left_ms(const struct ramp *r, uint32_t slow_start_s, uint64_t now_ms)
{
	uint64_t length = step_ms(slow_start_s);

	return length - (now_ms - r->since_ms) % length;
}
