/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hierarchical timer wheel (Varghese, Lauck 1987): add and remove in constant time, whatever the
 * number of timers. Pure: time is a number that the caller passes, in ticks of his choice
 * (milliseconds in lib/loop).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/list.h"

#define WHEEL_LEVELS  5
#define WHEEL_SLOTS   64
#define WHEEL_NEVER   UINT64_MAX
#define WHEEL_EXPIRED UINT16_MAX /* `slot` of a timer that waits in the list of expired ones */

struct wheel_timer {
	struct list node; /* in a slot while pending, else alone */
	uint64_t due;     /* in ticks */
	uint16_t slot;    /* level * WHEEL_SLOTS + index, while pending */
	bool is_pending;
};

struct wheel {
	uint64_t now;
	uint64_t occupied[WHEEL_LEVELS]; /* a bit per slot that may hold timers */
	struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, uint64_t now);
/* Starts, or restarts, a timer that was zeroed once. A due time of now or earlier comes out at the
 * next tick. */
void wheel_add(struct wheel *w, struct wheel_timer *t, uint64_t due);
/* Does nothing to a timer that is not pending. */
void wheel_remove(struct wheel *w, struct wheel_timer *t);
/*
 * Moves time on and appends every timer that came due to `expired`. There they can still be removed
 * or restarted (one callback may stop another's timer); wheel_take hands them out one by one, NULL
 * when none is left.
 */
void wheel_advance(struct wheel *w, uint64_t now, struct list *expired);
struct wheel_timer *wheel_take(struct list *expired);
/* Ticks until wheel_advance has something to do (perhaps only re-sorting), or WHEEL_NEVER. */
uint64_t wheel_next(const struct wheel *w);
