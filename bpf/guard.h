/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Limits on what each CPU does in one tick of the kernel's clock. */
#pragma once

#include "bpf/maps.h"

/* So many in one tick, and no more. */
static __always_inline bool guard_allows(struct nlb_flow_guard *guard, __u32 per_tick, __u64 now)
{
	if (!guard)
		return false;
	if (guard->tick != now) {
		guard->tick = now;
		guard->count = 0;
	}
	if (guard->count >= per_tick)
		return false;
	guard->count++;
	return true;
}
