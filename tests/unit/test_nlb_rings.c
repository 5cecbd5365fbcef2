/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/rings.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

enum { MAX = 32, NOW = 29000000 };

static const struct hash_key key = { { 1, 2 } };
static struct ring_member pool[MAX];
static char names[MAX][16];
static struct nlb_slot before[NLB_RING_SLOTS], after[NLB_RING_SLOTS];

static void make_pool(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "10.0.0.%u", (unsigned)(i % 256));

		pool[i] = (struct ring_member) { .id = (uint16_t)(100 + i),
						 .identity = str_of(names[i], (size_t)len),
						 .weight = 1,
						 .takes_new = true,
						 .takes_known = true };
	}
}

static uint32_t owned(const struct nlb_slot *ring, uint16_t id)
{
	uint32_t count = 0;

	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++)
		count += ring[s].gateway == id;
	return count;
}

static void first_ring_has_not_moved(void **state)
{
	make_pool(3);
	assert_int_equal(ring_build(after, NULL, pool, 3, &key, false, NOW), NLB_RING_SLOTS);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		const struct nlb_slot *slot = &after[s];

		assert_int_equal(slot->flags, 0);
		assert_in_range(slot->gateway, 100, 102);
		/* The other two are named as the next choices. */
		assert_int_equal(slot->gateway + slot->earlier[0] + slot->earlier[1], 303);
		assert_int_not_equal(slot->earlier[0], slot->earlier[1]);
	}
}

static void same_pool_changes_nothing(void **state)
{
	make_pool(5);
	ring_build(before, NULL, pool, 5, &key, false, NOW);
	assert_int_equal(ring_build(after, before, pool, 5, &key, false, NOW + 5), 0);
	assert_memory_equal(before, after, sizeof(after));
}

static void moved_slots_remember_who_had_them(void **state)
{
	int moved, marked = 0;

	make_pool(4);
	ring_build(before, NULL, pool, 3, &key, false, NOW);
	moved = ring_build(after, before, pool, 4, &key, false, NOW);
	assert_in_range(moved, NLB_RING_SLOTS / 4 - 200, NLB_RING_SLOTS * 3 / 8);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (after[s].gateway == before[s].gateway) {
			assert_int_equal(after[s].flags, 0);
			continue;
		}
		marked++;
		assert_int_equal(after[s].flags, NLB_SLOT_MOVED | (NOW & NLB_SLOT_TIME_MASK));
		assert_int_equal(after[s].earlier[0], before[s].gateway);
	}
	assert_int_equal(marked, moved);
}

static void two_changes_leave_two_earlier_owners(void **state)
{
	static struct nlb_slot third[NLB_RING_SLOTS];
	uint32_t twice = 0;

	make_pool(3);
	ring_build(before, NULL, pool, 1, &key, false, NOW);
	ring_build(after, before, pool, 2, &key, false, NOW + 10);
	ring_build(third, after, pool, 3, &key, false, NOW + 20);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (after[s].gateway != 101 || third[s].gateway != 102)
			continue;
		twice++;
		assert_int_equal(third[s].earlier[0], 101);
		assert_int_equal(third[s].earlier[1], 100);
		assert_int_equal(third[s].flags,
				 NLB_SLOT_MOVED | ((NOW + 20) & NLB_SLOT_TIME_MASK));
	}
	assert_true(twice > 1000);
}

/* One has had the slots for long; then the pool changes twice in a row. */
static void owner_of_a_moment_does_not_push_out_the_one_of_before(void **state)
{
	static struct nlb_slot third[NLB_RING_SLOTS], fourth[NLB_RING_SLOTS];
	uint32_t thrice = 0;

	make_pool(4);
	ring_build(before, NULL, pool, 1, &key, false, NOW);
	ring_build(after, before, pool, 2, &key, false, NOW + 60);
	ring_build(third, after, pool, 3, &key, false, NOW + 60);
	ring_build(fourth, third, pool, 4, &key, false, NOW + 60);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (after[s].gateway != 101 || third[s].gateway != 102 || fourth[s].gateway != 103)
			continue;
		thrice++;
		assert_int_equal(third[s].earlier[0], 100);
		assert_int_equal(third[s].earlier[1], 101);
		assert_int_equal(fourth[s].earlier[0], 100);
		assert_int_equal(fourth[s].earlier[1], 102);
	}
	assert_true(thrice > 1000);
}

/* An NLB starts, finds its gateways healthy one after the other, and at once gets others. */
static void owners_of_the_beginning_are_remembered_through_quick_changes(void **state)
{
	static struct nlb_slot third[NLB_RING_SLOTS], fourth[NLB_RING_SLOTS];
	uint32_t twice = 0;

	make_pool(4);
	pool[0].takes_new = pool[0].takes_known = false;
	ring_build(before, NULL, pool, 2, &key, true, NOW);
	pool[0].takes_new = pool[0].takes_known = true;
	ring_build(after, before, pool, 2, &key, true, NOW);
	ring_build(third, after, pool, 3, &key, false, NOW);
	ring_build(fourth, third, pool, 4, &key, false, NOW);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint16_t owner = after[s].gateway;

		if (third[s].gateway != 102 || fourth[s].gateway != 103)
			continue;
		twice++;
		assert_int_equal(third[s].earlier[0], owner);
		assert_int_equal(fourth[s].earlier[0], owner);
		assert_int_equal(fourth[s].earlier[1], 102);
	}
	assert_true(twice > 1000);
}

static void failed_check_forgets_no_earlier_owner(void **state)
{
	static struct nlb_slot during[NLB_RING_SLOTS], back[NLB_RING_SLOTS];
	uint32_t named = 0;

	make_pool(6);
	ring_build(before, NULL, pool, 3, &key, false, NOW);
	ring_build(after, before, pool, 6, &key, false, NOW + 60);
	pool[1].takes_new = pool[1].takes_known = false;
	ring_build(during, after, pool, 6, &key, false, NOW + 90);
	pool[1].takes_new = pool[1].takes_known = true;
	ring_build(back, during, pool, 6, &key, false, NOW + 120);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		if (before[s].gateway != 101 || after[s].gateway == 101)
			continue;
		named++;
		assert_int_equal(after[s].earlier[0], 101);
		assert_int_equal(during[s].earlier[0], 101);
		assert_int_equal(back[s].earlier[0], 101);
	}
	assert_true(named > 5000);
}

static void draining_gateway_owns_nothing_but_is_named(void **state)
{
	uint32_t named = 0, had;

	make_pool(3);
	ring_build(before, NULL, pool, 3, &key, false, NOW);
	had = owned(before, 101);
	pool[1].takes_new = false;
	ring_build(after, before, pool, 3, &key, false, NOW);
	assert_int_equal(owned(after, 101), 0);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++)
		named += before[s].gateway == 101 && after[s].earlier[0] == 101;
	assert_int_equal(named, had);
}

/* However large the pool: who goes out and comes back moves its own slots, evenly, and no others.
 */
static void only_its_own_slots_move_when_one_is_out(void **state)
{
	enum { POOL = 30, OUT = 7 };
	uint32_t most = 0;

	make_pool(POOL);
	ring_build(before, NULL, pool, POOL, &key, false, NOW);
	pool[OUT].takes_new = false;
	assert_int_equal(ring_build(after, before, pool, POOL, &key, false, NOW),
			 owned(before, 100 + OUT));
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++)
		assert_true(before[s].gateway == 100 + OUT ||
			    before[s].gateway == after[s].gateway);
	for (int i = 0; i < POOL; i++) {
		uint32_t share = owned(after, (uint16_t)(100 + i));

		most = share > most ? share : most;
	}
	assert_int_equal(most, (NLB_RING_SLOTS + POOL - 2) / (POOL - 1));

	/* Also on an NLB that has never seen it in service, and that lists the pool in another
	 * order. */
	struct ring_member first = pool[0];

	pool[0] = pool[POOL - 1];
	pool[POOL - 1] = first;
	ring_build(before, NULL, pool, POOL, &key, false, NOW);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		assert_int_equal(before[s].gateway, after[s].gateway);
		if (after[s].earlier[0] == 100 + OUT)
			assert_int_equal(before[s].earlier[0], 100 + OUT);
	}
}

static void gateway_that_is_gone_is_not_named(void **state)
{
	make_pool(3);
	ring_build(before, NULL, pool, 3, &key, false, NOW);
	ring_build(after, before, pool, 2, &key, false, NOW); /* the third is not even a member */
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		assert_int_not_equal(after[s].gateway, 102);
		assert_int_not_equal(after[s].earlier[0], 102);
		assert_int_not_equal(after[s].earlier[1], 102);
		if (before[s].gateway == 102)
			assert_true(after[s].flags & NLB_SLOT_MOVED);
	}
}

static void empty_ring_keeps_its_history(void **state)
{
	static struct nlb_slot back[NLB_RING_SLOTS];

	make_pool(2);
	ring_build(before, NULL, pool, 2, &key, false, NOW);
	pool[0].takes_new = pool[1].takes_new = false;
	ring_build(after, before, pool, 2, &key, false, NOW);
	assert_int_equal(owned(after, 0), NLB_RING_SLOTS);
	pool[0].takes_new = true;
	ring_build(back, after, pool, 2, &key, false, NOW);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		assert_int_equal(back[s].gateway, 100);
		/* The flow table is asked: connections of the second one may be alive. */
		assert_true(back[s].flags & NLB_SLOT_MOVED);
		if (before[s].gateway == 101)
			assert_int_equal(back[s].earlier[0], 101);
	}
	ring_build(after, NULL, pool, 0, &key, false, NOW);
	assert_int_equal(owned(after, 0), NLB_RING_SLOTS);
}

static void marks_settle_after_their_time(void **state)
{
	uint32_t moved;

	make_pool(4);
	ring_build(before, NULL, pool, 3, &key, false, NOW);
	moved = (uint32_t)ring_build(after, before, pool, 4, &key, false, NOW);
	assert_int_equal(ring_settle(after, NOW + 59, 60), moved);
	assert_int_equal(ring_settle(after, NOW + 60, 60), 0);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++)
		assert_int_equal(after[s].flags, 0);

	/* The stored minutes are only 15 bits of the real ones. */
	ring_build(after, before, pool, 4, &key, false, NLB_SLOT_TIME_MASK);
	assert_int_equal(ring_settle(after, NLB_SLOT_TIME_MASK + 30, 60), moved);
	assert_int_equal(ring_settle(after, NLB_SLOT_TIME_MASK + 61, 60), 0);

	/* Stamps of another clock, which lie ahead, are as good as fresh ones; and then they age.
	 */
	ring_build(after, before, pool, 4, &key, false, NOW + 5000);
	assert_int_equal(ring_settle(after, NOW, 60), moved);
	assert_int_equal(ring_settle(after, NOW + 59, 60), moved);
	assert_int_equal(ring_settle(after, NOW + 60, 60), 0);
}

/* One gateway after the other is found healthy: at the end all is as if they had come at once. */
static void beginning_leaves_no_history(void **state)
{
	static struct nlb_slot at_once[NLB_RING_SLOTS];
	uint32_t moved = 0;

	make_pool(4);
	ring_build(at_once, NULL, pool, 4, &key, true, NOW);
	ring_build(before, NULL, pool, 1, &key, true, NOW);
	ring_build(after, before, pool, 3, &key, true, NOW);
	ring_build(before, after, pool, 4, &key, true, NOW);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		assert_memory_equal(&before[s], &at_once[s], offsetof(struct nlb_slot, flags));
		/* Those that were opened meanwhile are in the flow table. */
		assert_true(before[s].gateway == 100 || (before[s].flags & NLB_SLOT_MOVED));
		moved += before[s].gateway != 100;
	}
	assert_true(moved > 40000);
}

static void order_of_listing_does_not_matter(void **state)
{
	struct ring_member first;

	make_pool(8);
	ring_build(before, NULL, pool, 8, &key, false, NOW);
	first = pool[0];
	for (size_t i = 0; i < 7; i++)
		pool[i] = pool[i + 1];
	pool[7] = first;
	assert_int_equal(ring_build(after, before, pool, 8, &key, false, NOW), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_ring_has_not_moved),
		cmocka_unit_test(same_pool_changes_nothing),
		cmocka_unit_test(moved_slots_remember_who_had_them),
		cmocka_unit_test(two_changes_leave_two_earlier_owners),
		cmocka_unit_test(owner_of_a_moment_does_not_push_out_the_one_of_before),
		cmocka_unit_test(owners_of_the_beginning_are_remembered_through_quick_changes),
		cmocka_unit_test(failed_check_forgets_no_earlier_owner),
		cmocka_unit_test(draining_gateway_owns_nothing_but_is_named),
		cmocka_unit_test(only_its_own_slots_move_when_one_is_out),
		cmocka_unit_test(gateway_that_is_gone_is_not_named),
		cmocka_unit_test(empty_ring_keeps_its_history),
		cmocka_unit_test(marks_settle_after_their_time),
		cmocka_unit_test(beginning_leaves_no_history),
		cmocka_unit_test(order_of_listing_does_not_matter),
	};

	return cmocka_run_group_tests_name("nlb_rings", tests, NULL, NULL);
}
