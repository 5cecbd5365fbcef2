/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wheel.h"

#include <stdlib.h>

#include "tests/unit/unit.h"

#define TIMERS 500

static struct wheel wheel;

struct model {
	struct wheel_timer timer;
	bool is_set;
	uint64_t due;
};

/* A small generator of our own: the run is the same each time. */
static uint64_t seed;

static uint64_t draw(uint64_t below)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (seed >> 33) % below;
}

static uint64_t draw_delay(void)
{
	switch (draw(4)) {
	case 0:
		return draw(64);
	case 1:
		return draw(5000);
	case 2:
		return draw(1000000);
	default:
		return draw(1ULL << 31); /* twice the wheel's span */
	}
}

/* Everything that is due comes out, in no later advance than its time, and nothing else does. */
static void fires_exactly_what_is_due(void **state)
{
	static struct model models[TIMERS];
	uint64_t now = 12345;

	seed = 1;
	memset(models, 0, sizeof(models));
	wheel_init(&wheel, now);
	for (int step = 0; step < 20000; step++) {
		struct model *m = &models[draw(TIMERS)];
		struct list expired;
		struct wheel_timer *t;

		if (draw(8) == 0) {
			wheel_remove(&wheel, &m->timer);
			m->is_set = false;
		} else {
			m->due = now + draw_delay();
			m->is_set = true;
			wheel_add(&wheel, &m->timer, m->due);
		}
		if (draw(3))
			continue;
		now += draw(2) ? draw(100) : draw_delay() / 64;
		list_init(&expired);
		wheel_advance(&wheel, now, &expired);
		while ((t = wheel_take(&expired)) != NULL) {
			struct model *fired = container_of(t, struct model, timer);

			assert_true(fired->is_set);
			if (fired->due > now)
				fail_msg("due %" PRIu64 ", fired at %" PRIu64, fired->due, now);
			fired->is_set = false;
		}
		for (int i = 0; i < TIMERS; i++) {
			/* A due time that had passed when it was set comes out at the next tick. */
			if (models[i].is_set && models[i].due < now && models[i].timer.due < now)
				fail_msg("timer %d is late: due %" PRIu64 ", now %" PRIu64, i,
					 models[i].due, now);
		}
	}
}

static void says_when_to_look_again(void **state)
{
	struct wheel_timer a = { 0 }, b = { 0 };
	struct list expired;
	uint64_t now = 1000, woken = 0;

	wheel_init(&wheel, now);
	assert_true(wheel_next(&wheel) == WHEEL_NEVER);
	wheel_add(&wheel, &a, now + 5);
	assert_int_equal(wheel_next(&wheel), 5);
	wheel_add(&wheel, &b, now + 100000);
	wheel_remove(&wheel, &a);
	/* Sleeping exactly as told reaches the timer on time, with few wake-ups on the way. */
	list_init(&expired);
	while (list_empty(&expired)) {
		uint64_t next = wheel_next(&wheel);

		assert_true(next != WHEEL_NEVER && next > 0);
		now += next;
		wheel_advance(&wheel, now, &expired);
		assert_true(++woken <= WHEEL_LEVELS);
	}
	assert_int_equal(now, 101000);
}

static void one_expired_timer_can_stop_another(void **state)
{
	struct wheel_timer a = { 0 }, b = { 0 };
	struct list expired;

	wheel_init(&wheel, 0);
	wheel_add(&wheel, &a, 10);
	wheel_add(&wheel, &b, 10);
	list_init(&expired);
	wheel_advance(&wheel, 20, &expired);
	assert_ptr_equal(wheel_take(&expired), &a);
	wheel_remove(&wheel, &b);
	assert_null(wheel_take(&expired));
	assert_true(wheel_next(&wheel) == WHEEL_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fires_exactly_what_is_due),
		cmocka_unit_test(says_when_to_look_again),
		cmocka_unit_test(one_expired_timer_can_stop_another),
	};

	return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
