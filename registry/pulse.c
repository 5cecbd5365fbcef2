/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/pulse.h"

#include "lib/cleanup.h"
#include "lib/clock.h"

#define MICRO           1000000
#define BEATS_PER_LEASE 3 /* what clients do: ours, and Eureka's (30 s of 90 s) */
#define WINDOW_MAX_S    (REG_PULSE_S - 2)

void reg_pulse_init(struct reg_pulse *p, uint64_t now_ms)
{
	*p = (struct reg_pulse) { .now_s = now_ms / MSEC_PER_SEC };
}

void reg_pulse_expect(struct reg_pulse *p, uint32_t lease_s, int by)
{
	p->leases += (uint64_t)by;
	p->expected_micro += (uint64_t)(by * (int64_t)(BEATS_PER_LEASE * MICRO / lease_s));
}

static void pulse_advance(struct reg_pulse *p, uint64_t now_ms)
{
	uint64_t now_s = now_ms / MSEC_PER_SEC;

	if (now_s >= p->now_s + REG_PULSE_S)
		p->now_s = now_s - REG_PULSE_S;
	while (p->now_s < now_s)
		p->beats[++p->now_s % REG_PULSE_S] = 0;
}

void reg_pulse_beat(struct reg_pulse *p, uint64_t now_ms, uint64_t gap_ms, uint32_t lease_s)
{
	if (gap_ms < lease_s * MSEC_PER_SEC / (BEATS_PER_LEASE + 1))
		return;
	pulse_advance(p, now_ms);
	p->beats[p->now_s % REG_PULSE_S]++;
}

bool reg_pulse_has_collapsed(struct reg_pulse *p, uint64_t now_ms, uint32_t lease_s)
{
	uint64_t window_s = MIN(MAX(lease_s / 2, 1U), (uint32_t)WINDOW_MAX_S);
	uint64_t seen = 0, expected;

	if (p->leases < REG_PULSE_MIN_LEASES)
		return false;
	pulse_advance(p, now_ms);
	/* Whole seconds before the current one, plus that one: never less than the window. */
	for (uint64_t i = 0; i <= window_s && i <= p->now_s; i++)
		seen += p->beats[(p->now_s - i) % REG_PULSE_S];
	expected = p->expected_micro * window_s;
	/* More than half are silent, and so many that they hardly died one by one. */
	return seen * MICRO * 2 < expected &&
	       (expected - seen * MICRO) * p->leases >= expected * REG_PULSE_MIN_LEASES;
}
