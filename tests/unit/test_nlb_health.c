/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/health.h"

#include "tests/unit/unit.h"

/* One letter per result: + success, - failure; and the state after it: U up, D down. */
static void follows_consecutive_results(void **state)
{
	static const struct {
		uint32_t rise, fall;
		const char *results, *states, *why;
	} cases[] = {
		{ 2, 3, "+", "U", "the first result decides at once" },
		{ 2, 3, "-", "D", "... also the other way" },
		{ 2, 3, "+---", "UUUD", "three failures in a row" },
		{ 2, 3, "+--+--+--", "UUUUUUUUU", "failures count in a row, not in all" },
		{ 2, 3, "-++", "DDU", "two successes in a row" },
		{ 2, 3, "-+-+-+", "DDDDDD", "successes count in a row" },
		{ 1, 1, "+-+-", "UDUD", "no hysteresis if none is wanted" },
		{ 2, 2, "+--+-++", "UUDDDDU", "a failure on the way up begins anew" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct health h = { 0 };

		for (size_t r = 0; cases[i].results[r]; r++) {
			enum health_state was = h.state;
			bool changed = health_report(&h, cases[i].results[r] == '+', cases[i].rise,
						     cases[i].fall);
			enum health_state want = cases[i].states[r] == 'U' ? HEALTH_UP
									   : HEALTH_DOWN;

			if (h.state != want)
				fail_msg("%s: after result %zu it is %s", cases[i].why, r,
					 health_state_name(h.state));
			assert_int_equal(changed, was != h.state);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_consecutive_results),
	};

	return cmocka_run_group_tests_name("nlb_health", tests, NULL, NULL);
}
