/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/maglev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

enum { SLOTS = 65537, DEPTH = 3, NODES_MAX = 1024 };

static const struct hash_key key = { { 0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL } };
static char names[NODES_MAX][32];

static void make_nodes(struct maglev_node *nodes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "10.0.%zu.%zu", i / 250, i % 250);

		nodes[i] = (struct maglev_node) { str_of(names[i], (size_t)len), 1 };
	}
}

static uint16_t *build(const struct maglev_node *nodes, size_t count)
{
	uint16_t *choices = malloc(sizeof(*choices) * SLOTS * DEPTH);

	assert_non_null(choices);
	assert_int_equal(maglev_build(choices, SLOTS, DEPTH, nodes, count, &key), 0);
	return choices;
}

static uint32_t owned(const uint16_t *choices, uint16_t node)
{
	uint32_t count = 0;

	for (size_t s = 0; s < SLOTS; s++)
		count += choices[s * DEPTH] == node;
	return count;
}

static void equal_nodes_own_equal_shares(void **state)
{
	static const size_t counts[] = { 1, 2, 3, 10, 100, 1000 };
	struct maglev_node nodes[NODES_MAX];

	for (size_t c = 0; c < CASES(counts); c++) {
		size_t n = counts[c];
		double share = (double)SLOTS / (double)n;
		uint16_t *choices;

		make_nodes(nodes, n);
		choices = build(nodes, n);
		for (size_t i = 0; i < n; i++) {
			double off = (double)owned(choices, (uint16_t)i) - share;

			/* Turns go round, so nobody is more than one ahead. */
			if (off > 1.0 || off < -1.0)
				fail_msg("%zu nodes: node %zu is off by %.1f slots", n, i, off);
		}
		free(choices);
	}
}

static void weights_decide_the_shares(void **state)
{
	static const uint32_t weights[][4] = {
		{ 1, 2, 3, 4 },
		{ 100, 100, 100, 1 },
		{ 1000, 1, 1, 1 },
		{ 7, 0, 7, 14 },
	};
	struct maglev_node nodes[4];

	for (size_t c = 0; c < CASES(weights); c++) {
		uint32_t sum = 0;
		uint16_t *choices;

		make_nodes(nodes, 4);
		for (size_t i = 0; i < 4; i++) {
			nodes[i].weight = weights[c][i];
			sum += weights[c][i];
		}
		choices = build(nodes, 4);
		for (size_t i = 0; i < 4; i++) {
			double want = (double)SLOTS * weights[c][i] / sum;
			double got = owned(choices, (uint16_t)i);

			if (got < want - 2 - want / 100 || got > want + 2 + want / 100)
				fail_msg("case %zu: node %zu owns %.0f, want %.0f", c, i, got,
					 want);
			if (!weights[c][i])
				assert_int_equal(got, 0);
		}
		free(choices);
	}
}

static void removal_moves_little_more_than_the_removed_share(void **state)
{
	static const size_t counts[] = { 2, 3, 5, 10, 50, 200 };
	struct maglev_node nodes[NODES_MAX];

	for (size_t c = 0; c < CASES(counts); c++) {
		size_t n = counts[c];
		uint32_t moved = 0, as_named = 0, orphaned = 0;
		uint16_t *before, *after;

		make_nodes(nodes, n);
		before = build(nodes, n);
		after = build(nodes, n - 1); /* the last one is gone */
		for (size_t s = 0; s < SLOTS; s++) {
			bool was_removed = before[s * DEPTH] == n - 1;

			moved += before[s * DEPTH] != after[s * DEPTH];
			orphaned += was_removed;
			as_named += was_removed && before[s * DEPTH + 1] == after[s * DEPTH];
		}
		print_message("%zu nodes: %.2f of 1/N moved, %.0f %% to the second choice\n", n,
			      (double)moved * (double)n / SLOTS, 100.0 * as_named / orphaned);
		/* Towards 1/100 of the slots per node, Maglev moves some bystanders too. */
		assert_true((double)moved <=
			    (n <= 50 ? 1.5 / (double)n : 1.0 / (double)n + 0.01) * SLOTS);
		/* The second choice has to be a good guess, or naming it would be in vain. */
		assert_true(as_named * 10 > orphaned * 9);
		free(before);
		free(after);
	}
}

static void order_of_listing_does_not_matter(void **state)
{
	struct maglev_node nodes[20], shuffled[20];
	uint16_t *a, *b;

	make_nodes(nodes, 20);
	for (size_t i = 0; i < 20; i++) {
		nodes[i].weight = 1 + (uint32_t)i % 3;
		shuffled[(i * 7 + 3) % 20] = nodes[i];
	}
	a = build(nodes, 20);
	b = build(shuffled, 20);
	for (uint32_t s = 0; s < SLOTS * DEPTH; s++)
		assert_true(str_eq(nodes[a[s]].identity, shuffled[b[s]].identity));
	free(a);
	free(b);
}

static void every_slot_has_distinct_choices(void **state)
{
	static const size_t counts[] = { 0, 1, 2, 3, 40 };
	struct maglev_node nodes[40];

	for (size_t c = 0; c < CASES(counts); c++) {
		uint16_t *choices;

		make_nodes(nodes, counts[c]);
		choices = build(nodes, counts[c]);
		for (size_t s = 0; s < SLOTS; s++) {
			const uint16_t *choice = &choices[s * DEPTH];

			for (uint32_t k = 0; k < DEPTH; k++) {
				if (k >= counts[c])
					assert_int_equal(choice[k], MAGLEV_NONE);
				else
					assert_in_range(choice[k], 0, counts[c] - 1);
				for (uint32_t j = 0; j < k && k < counts[c]; j++)
					assert_int_not_equal(choice[j], choice[k]);
			}
		}
		free(choices);
	}
}

static void another_key_gives_another_table(void **state)
{
	static const struct hash_key other = { { 1, 2 } };
	struct maglev_node nodes[10];
	uint16_t *a, *b;
	uint32_t same = 0;

	make_nodes(nodes, 10);
	a = build(nodes, 10);
	b = build(nodes, 10);
	assert_memory_equal(a, b, sizeof(*a) * SLOTS * DEPTH);
	assert_int_equal(maglev_build(b, SLOTS, DEPTH, nodes, 10, &other), 0);
	for (size_t s = 0; s < SLOTS; s++)
		same += a[s * DEPTH] == b[s * DEPTH];
	assert_true(same < SLOTS / 5);
	free(a);
	free(b);
}

static void refuses_what_it_cannot_build(void **state)
{
	struct maglev_node node = { STR("a"), MAGLEV_WEIGHT_MAX + 1 };
	uint16_t choices[8];

	assert_int_equal(maglev_build(choices, 7, 1, &node, 1, &key), -EINVAL);
	node.weight = 1;
	assert_int_equal(maglev_build(choices, 7, 0, &node, 1, &key), -EINVAL);
	assert_int_equal(maglev_build(choices, 1, 1, &node, 1, &key), -EINVAL);
	assert_int_equal(maglev_build(choices, 7, 1, &node, MAGLEV_NONE, &key), -EINVAL);
	assert_int_equal(maglev_build(choices, 7, 1, &node, 1, &key), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_nodes_own_equal_shares),
		cmocka_unit_test(weights_decide_the_shares),
		cmocka_unit_test(removal_moves_little_more_than_the_removed_share),
		cmocka_unit_test(order_of_listing_does_not_matter),
		cmocka_unit_test(every_slot_has_distinct_choices),
		cmocka_unit_test(another_key_gives_another_table),
		cmocka_unit_test(refuses_what_it_cannot_build),
	};

	return cmocka_run_group_tests_name("maglev", tests, NULL, NULL);
}
