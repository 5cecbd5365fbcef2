/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/ramp.h"

#include "nlb/conf.h"
#include "nlb/rings.h"
#include "tests/unit/unit.h"

enum { BEGIN = 5000, SLOW_S = 20 };

static void share_grows_in_even_steps(void **state)
{
	static const struct {
		uint64_t at_ms;
		uint32_t step;
		uint64_t left_ms;
	} cases[] = {
		{ 0, 1, 2000 },    { 1999, 1, 1 },  { 2000, 2, 2000 },
		{ 9000, 5, 1000 }, { 17999, 9, 1 },
	};
	struct ramp r = { 0 };

	assert_int_equal(ramp_step(&r, SLOW_S, BEGIN), RAMP_STEPS);
	ramp_start(&r, BEGIN);
	for (size_t i = 0; i < CASES(cases); i++) {
		assert_int_equal(ramp_step(&r, SLOW_S, BEGIN + cases[i].at_ms), cases[i].step);
		assert_int_equal(ramp_left_ms(&r, SLOW_S, BEGIN + cases[i].at_ms),
				 cases[i].left_ms);
	}
	assert_int_equal(ramp_step(&r, SLOW_S, BEGIN + 18000), RAMP_STEPS);
	assert_int_equal(r.since_ms, 0);
	assert_int_equal(ramp_step(&r, SLOW_S, BEGIN), RAMP_STEPS); /* and has ended for good */
}

static void ends_when_it_is_switched_off(void **state)
{
	struct ramp r;

	ramp_start(&r, BEGIN);
	assert_int_equal(ramp_step(&r, SLOW_S, BEGIN), 1);
	assert_int_equal(ramp_step(&r, 0, BEGIN), RAMP_STEPS);
	assert_int_equal(r.since_ms, 0);
}

/* Weights are multiplied by the step: when all are at their last one, the ring is the plain one. */
static void factor_of_all_weights_changes_no_ring(void **state)
{
	static const struct hash_key key = { { 1, 2 } };
	static const uint32_t weights[] = { 1, 7, NLB_WEIGHT_MAX, 100 };
	static struct nlb_slot plain[NLB_RING_SLOTS], scaled[NLB_RING_SLOTS];
	static struct ring_member pool[CASES(weights)];

	for (size_t i = 0; i < CASES(weights); i++)
		pool[i] = (struct ring_member) { .id = (uint16_t)(i + 1),
						 .identity = str_of(&"abcd"[i], 1),
						 .weight = weights[i],
						 .takes_new = true,
						 .takes_known = true };
	assert_int_equal(ring_build(plain, NULL, pool, CASES(weights), &key, false, 0),
			 NLB_RING_SLOTS);
	for (size_t i = 0; i < CASES(weights); i++)
		pool[i].weight *= RAMP_STEPS;
	assert_int_equal(ring_build(scaled, NULL, pool, CASES(weights), &key, false, 0),
			 NLB_RING_SLOTS);
	assert_memory_equal(plain, scaled, sizeof(plain));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(share_grows_in_even_steps),
		cmocka_unit_test(ends_when_it_is_switched_off),
		cmocka_unit_test(factor_of_all_weights_changes_no_ring),
	};

	return cmocka_run_group_tests_name("nlb_ramp", tests, NULL, NULL);
}
