/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/split.h"

#include "lib/hash.h"
#include "tests/unit/unit.h"

#define KEYS 20000

static struct gw_split parts[32];
static struct gw_route route = { .split = parts };

static void weights(size_t count, const uint32_t *list)
{
	static const struct str names[] = { STR("a"), STR("b"), STR("c"), STR("d"), STR("e") };

	route.split_count = count;
	for (size_t i = 0; i < count; i++)
		parts[i] = (struct gw_split) { .service = names[i],
					       .weight = list[i],
					       .id = split_id(names[i]) };
}

#define WEIGHTS(...)                                                     \
	weights(sizeof((uint32_t[]) { __VA_ARGS__ }) / sizeof(uint32_t), \
		(const uint32_t[]) { __VA_ARGS__ })

static uint64_t key_of(uint64_t i)
{
	return hash_mix64(i * 0x9e3779b97f4a7c15ULL);
}

static void draws_by_weight(void **state)
{
	size_t got[4] = { 0 };

	WEIGHTS(90, 10, 0, 100);
	for (uint64_t i = 0; i < 1000; i++)
		got[split_draw(&route, i * (UINT64_MAX / 1000))]++;
	assert_in_range(got[0], 445, 455);
	assert_in_range(got[1], 45, 55);
	assert_int_equal(got[2], 0);
	assert_int_equal(split_draw(&route, 0), 0);
	assert_int_equal(split_draw(&route, UINT64_MAX), 3);
	WEIGHTS(0, 1000000, 0);
	assert_int_equal(split_draw(&route, 0), 1);
	assert_int_equal(split_draw(&route, UINT64_MAX), 1);
}

static void keys_are_shared_by_weight(void **state)
{
	size_t got[4] = { 0 };

	WEIGHTS(70, 5, 25, 0);
	for (uint64_t i = 0; i < KEYS; i++)
		got[split_stick(&route, key_of(i))]++;
	/* Four standard deviations of a binomial distribution are below 1.4 % of the keys. */
	assert_in_range(got[0], KEYS * 0.686, KEYS * 0.714);
	assert_in_range(got[1], KEYS * 0.036, KEYS * 0.064);
	assert_in_range(got[2], KEYS * 0.236, KEYS * 0.264);
	assert_int_equal(got[3], 0);
}

static void a_weight_that_changes_moves_only_what_it_must(void **state)
{
	static const struct {
		uint32_t before[4], after[4];
		double moved; /* the difference of shares */
	} cases[] = {
		{ { 90, 10, 0, 0 }, { 80, 20, 0, 0 }, 0.1 },
		{ { 90, 10, 0, 0 }, { 900, 100, 0, 0 }, 0 }, /* shares alone count */
		{ { 100, 0, 0, 0 }, { 99, 1, 0, 0 }, 0.01 },
		{ { 50, 50, 0, 0 }, { 50, 50, 100, 0 }, 0.5 },
		{ { 40, 30, 20, 10 }, { 40, 30, 20, 0 }, 0.1 },
		{ { 1, 1, 1, 1 }, { 1, 1, 1, 1 }, 0 },
	};

	for (size_t c = 0; c < CASES(cases); c++) {
		size_t moved = 0, wrong = 0, before[KEYS];

		weights(4, cases[c].before);
		for (uint64_t i = 0; i < KEYS; i++)
			before[i] = split_stick(&route, key_of(i));
		weights(4, cases[c].after);
		for (uint64_t i = 0; i < KEYS; i++) {
			size_t at = split_stick(&route, key_of(i)), from = before[i];

			if (at == from)
				continue;
			moved++;
			/* Only from a service whose share shrank to one whose share grew. */
			wrong += (double)cases[c].after[at] * cases[c].before[from] <=
				 (double)cases[c].before[at] * cases[c].after[from];
		}
		assert_int_equal(wrong, 0);
		if ((double)moved > KEYS * (cases[c].moved + 0.014) ||
		    (double)moved < KEYS * (cases[c].moved - 0.014))
			fail_msg("case %zu: %zu of %d moved", c, moved, KEYS);
		assert_true(cases[c].moved > 0 || moved == 0);
	}
}

/* A gateway beside this one, or the next version of it, must choose alike. */
static void the_choice_is_the_same_everywhere(void **state)
{
	struct gw_split first;

	assert_true(split_id(STR("orders")) == 0x1323a9825e4755ddULL);
	WEIGHTS(1, 1, 1, 1, 1);
	for (uint64_t i = 0; i < 100; i++) {
		struct str service = parts[split_stick(&route, key_of(i))].service;

		/* Whatever the order in the file. */
		first = parts[0];
		memmove(parts, parts + 1, 4 * sizeof(first));
		parts[4] = first;
		assert_true(str_eq(parts[split_stick(&route, key_of(i))].service, service));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(draws_by_weight),
		cmocka_unit_test(keys_are_shared_by_weight),
		cmocka_unit_test(a_weight_that_changes_moves_only_what_it_must),
		cmocka_unit_test(the_choice_is_the_same_everywhere),
	};

	return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
