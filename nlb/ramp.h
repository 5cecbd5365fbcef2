/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slow start: a gateway that comes new or recovered takes its share of new connections in steps.
 * Pure; time is a parameter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Also the factor of a weight at full share: only what weights are to each other decides the ring.
 */
#define RAMP_STEPS 10

struct ramp {
	uint64_t since_ms; /* 0: at full share */
};

void ramp_start(struct ramp *r, uint64_t now_ms);
/* 1 .. RAMP_STEPS; at the last one the ramp has ended. */
uint32_t ramp_step(struct ramp *r, uint32_t slow_start_s, uint64_t now_ms);
/* How long the present step lasts. */
uint64_t ramp_left_ms(const struct ramp *r, uint32_t slow_start_s, uint64_t now_ms);
