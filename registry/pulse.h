/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether renewals as a whole have collapsed: more than half of those that the living leases let
 * expect are missing, those of 10 leases at least. That smells of a network cut at the registry,
 * not of instances that died. No clock: time is a parameter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REG_PULSE_S          64 /* seconds remembered */
#define REG_PULSE_MIN_LEASES 10 /* fewer silent ones are deaths */

struct reg_pulse {
	uint32_t beats[REG_PULSE_S]; /* per second, a ring */
	uint64_t now_s;              /* the second that is being filled */
	uint64_t expected_micro; /* beats per second that the leases let expect, in millionths */
	uint64_t leases;
};

void reg_pulse_init(struct reg_pulse *p, uint64_t now_ms);
/* A lease came (by 1) or went (by -1). */
void reg_pulse_expect(struct reg_pulse *p, uint32_t lease_s, int by);
/* A renewal, `gap_ms` after the one before it. Those that come much more often than a third of the
 * lease do not count, or one eager client would cover for many silent ones. */
void reg_pulse_beat(struct reg_pulse *p, uint64_t now_ms, uint64_t gap_ms, uint32_t lease_s);
/* Judged over half a lease time: a lease that was renewed each third of it runs out two thirds
 * after a cut at the earliest, and by then nothing from before the cut is counted any more. */
bool reg_pulse_has_collapsed(struct reg_pulse *p, uint64_t now_ms, uint32_t lease_s);
