/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wheel.h"

#define LEVEL_BITS 6

static uint64_t rotate_right(uint64_t v, unsigned by)
{
	by &= 63;
	return by ? (v >> by) | (v << (64 - by)) : v;
}

static uint64_t level_time(uint64_t ticks, int level)
{
	return ticks >> (LEVEL_BITS * level);
}

void wheel_init(struct wheel *w, uint64_t now)
{
	w->now = now;
	for (int l = 0; l < WHEEL_LEVELS; l++) {
		w->occupied[l] = 0;
		for (int s = 0; s < WHEEL_SLOTS; s++)
			list_init(&w->slots[l][s]);
	}
}

static void wheel_insert(struct wheel *w, struct wheel_timer *t)
{
	uint64_t due = t->due > w->now ? t->due : w->now + 1;
	uint64_t span = (uint64_t)1 << (LEVEL_BITS * WHEEL_LEVELS);
	int level = 0;
	unsigned index;

	/* Beyond the wheel: parked in the last slot, and sorted in again when that comes round. */
	if (due - w->now >= span)
		due = w->now + span - 1;
	while ((due - w->now) >> (LEVEL_BITS * (level + 1)))
		level++;
	index = (unsigned)level_time(due, level) % WHEEL_SLOTS;
	t->slot = (uint16_t)((unsigned)level * WHEEL_SLOTS + index);
	t->is_pending = true;
	list_add_tail(&w->slots[level][index], &t->node);
	w->occupied[level] |= (uint64_t)1 << index;
}

void wheel_add(struct wheel *w, struct wheel_timer *t, uint64_t due)
{
	wheel_remove(w, t);
	t->due = due;
	wheel_insert(w, t);
}

void wheel_remove(struct wheel *w, struct wheel_timer *t)
{
	unsigned level = t->slot / WHEEL_SLOTS, index = t->slot % WHEEL_SLOTS;

	if (!t->is_pending)
		return;
	list_remove(&t->node);
	t->is_pending = false;
	if (t->slot == WHEEL_EXPIRED)
		return;
	if (list_empty(&w->slots[level][index]))
		w->occupied[level] &= ~((uint64_t)1 << index);
}

void wheel_advance(struct wheel *w, uint64_t now, struct list *expired)
{
	struct list due;

	if (now <= w->now)
		return;
	list_init(&due);
	for (int l = 0; l < WHEEL_LEVELS; l++) {
		uint64_t from = level_time(w->now, l), to = level_time(now, l);
		uint64_t passed;

		if (from == to)
			break; /* nor did the hand of any coarser level move */
		passed = to - from >= WHEEL_SLOTS ? ~(uint64_t)0 : ((uint64_t)1 << (to - from)) - 1;
		/* Bit 0 of `passed` is the slot after `from`. */
		passed = rotate_right(passed, 64 - (unsigned)((from + 1) % WHEEL_SLOTS));
		for (uint64_t hit = passed & w->occupied[l]; hit; hit &= hit - 1)
			list_splice(&due, &w->slots[l][__builtin_ctzll(hit)]);
		w->occupied[l] &= ~passed;
	}
	w->now = now;
	list_for_each_safe (node, &due) {
		struct wheel_timer *t = container_of(node, struct wheel_timer, node);

		list_remove(node);
		if (t->due > now) {
			wheel_insert(w, t);
		} else {
			t->slot = WHEEL_EXPIRED;
			list_add_tail(expired, node);
		}
	}
}

struct wheel_timer *wheel_take(struct list *expired)
{
	struct wheel_timer *t;

	if (list_empty(expired))
		return NULL;
	t = container_of(expired->next, struct wheel_timer, node);
	list_remove(&t->node);
	t->is_pending = false;
	return t;
}

uint64_t wheel_next(const struct wheel *w)
{
	uint64_t soonest = WHEEL_NEVER;

	for (int l = 0; l < WHEEL_LEVELS; l++) {
		uint64_t hand = level_time(w->now, l);
		uint64_t ahead = rotate_right(w->occupied[l], (unsigned)((hand + 1) % WHEEL_SLOTS));
		uint64_t at;

		if (!ahead)
			continue;
		at = (hand + 1 + (uint64_t)__builtin_ctzll(ahead)) << (LEVEL_BITS * l);
		soonest = MIN(soonest, at - w->now);
	}
	return soonest;
}
