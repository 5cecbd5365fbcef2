/* SPDX-License-Identifier: Apache-2.0 */
/* The policies by what they do with thousands of requests. The dice are sown, so every run is the
 * same; the bounds are wide enough for any seed. */
#include "gateway/upstream/pick.h"

#include <stdio.h>

#include "gateway/upstream/service.h"
#include "tests/unit/unit.h"

#define MAX_MEMBERS 64

static struct worker worker;
static struct service *service;
static struct service_member members[MAX_MEMBERS];

static int set_up(void **state)
{
	memset(&worker, 0, sizeof(worker));
	memset(members, 0, sizeof(members));
	worker.loop = loop_new();
	service = service_new(&worker, STR("s"));
	if (!service)
		return -1;
	service->picker.seed = 42;
	service->picker.all.turn = 1;
	for (unsigned i = 0; i < MAX_MEMBERS; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.0.0.%u:80", i + 1);
		net_parse(&members[i].addr, str_from(text), 0);
		members[i].weight = 100;
	}
	return 0;
}

static int tear_down(void **state)
{
	service_put(service);
	loop_free(worker.loop);
	return 0;
}

/* Which member it is, by its address. */
static unsigned number(const struct endpoint *e)
{
	return (ntohl(e->addr.in.sin_addr.s_addr) & 0xff) - 1;
}

static struct endpoint *choose_by(uint64_t key)
{
	const struct pick_query q = { .key = key };

	return service_choose(service, &q);
}

/* So many requests, one after the other; each instance takes its own time. */
static void run(unsigned requests, const uint64_t *latency_us, unsigned *counts)
{
	memset(counts, 0, MAX_MEMBERS * sizeof(*counts));
	for (unsigned i = 0; i < requests; i++) {
		struct endpoint *e = choose_by(i);
		unsigned at = number(e);

		counts[at]++;
		endpoint_finish(service, e, ENDPOINT_OK, latency_us ? latency_us[at] : 1000);
	}
}

static void assert_about(unsigned got, unsigned want, unsigned percent, const char *what)
{
	unsigned slack = want * percent / 100;

	if (got + slack < want || got > want + slack)
		fail_msg("%s: %u, not about %u", what, got, want);
}

static void use(int balance, size_t count)
{
	service->balance = balance;
	service_set_members(service, members, count);
}

static void every_policy_uses_everyone(void **state)
{
	unsigned counts[MAX_MEMBERS];

	for (int balance = 0; balance < GW_BALANCES; balance++) {
		char what[32];

		use(balance, 5);
		run(5000, NULL, counts);
		for (unsigned i = 0; i < 5; i++) {
			snprintf(what, sizeof(what), "policy %d, instance %u", balance, i);
			assert_about(counts[i], 1000, 40, what);
		}
	}
}

static void draws_go_by_weight(void **state)
{
	static const int drawn[] = { GW_P2C, GW_RANDOM, GW_ROUND_ROBIN, GW_RING_HASH };
	unsigned counts[MAX_MEMBERS];

	members[0].weight = 100;
	members[1].weight = 200;
	members[2].weight = 700;
	for (size_t i = 0; i < ARRAY_SIZE(drawn); i++) {
		use(drawn[i], 3);
		run(10000, NULL, counts);
		if (drawn[i] == GW_P2C) {
			/* Of two that are equally fast the first is taken, which was drawn by
			 * weight; who is faster at the moment makes it rougher. */
			assert_true(counts[0] < counts[1] && counts[1] < counts[2]);
			assert_about(counts[2], 7000, 25, "the heaviest");
			continue;
		}
		assert_about(counts[0], 1000, 40, "a tenth");
		assert_about(counts[1], 2000, 40, "two tenths");
		assert_about(counts[2], 7000, 15, "seven tenths");
	}
}

static void smooth_turns_do_not_come_in_bursts(void **state)
{
	unsigned last = MAX_MEMBERS, row = 0;

	members[0].weight = 300;
	use(GW_ROUND_ROBIN, 3);
	for (int i = 0; i < 100; i++) {
		struct endpoint *e = choose_by(0);

		row = number(e) == last ? row + 1 : 1;
		last = number(e);
		endpoint_finish(service, e, ENDPOINT_OK, 1);
		assert_true(row <= 2);
	}
}

static void response_times_weigh_as_ribbon_has_them(void **state)
{
	static const uint64_t latency[] = { 1000, 3000, 6000 };
	unsigned counts[MAX_MEMBERS];

	use(GW_WEIGHTED_RESPONSE_TIME, 3);
	run(300, latency, counts); /* until all are known */
	service->picker.all.mean_until_ms = 0;
	run(10000, latency, counts);
	/* 10 - 1 : 10 - 3 : 10 - 6 */
	assert_about(counts[0], 4500, 10, "the fastest");
	assert_about(counts[1], 3500, 10, "the middle one");
	assert_about(counts[2], 2000, 15, "the slowest");
}

static void a_slow_one_is_asked_again_after_a_while(void **state)
{
	static const uint64_t latency[] = { 900000, 1000 };
	unsigned counts[MAX_MEMBERS];
	struct endpoint *slow;

	use(GW_P2C, 2);
	run(200, latency, counts);
	assert_true(counts[0] <= 10); /* until both are known */
	slow = service->endpoints[number(service->endpoints[0]) == 0 ? 0 : 1];
	assert_int_equal(number(slow), 0);
	slow->latency_at_ms -= 20000; /* as if it was long ago */
	run(10, NULL, counts);
	assert_true(counts[0] >= 1);
}

static void availability_leaves_full_instances_out(void **state)
{
	struct circuit *circuits[3];
	struct endpoint *held[9];
	unsigned counts[MAX_MEMBERS] = { 0 };

	for (int i = 0; i < 3; i++)
		members[i].circuit = circuits[i] = circuit_new();
	service->max_concurrent_per_instance = 3;
	use(GW_AVAILABILITY, 3);
	for (int i = 0; i < 9; i++) {
		held[i] = choose_by(0);
		counts[number(held[i])]++;
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(counts[i], 3);
	assert_null(choose_by(0)); /* not even in panic */
	endpoint_finish(service, held[4], ENDPOINT_OK, 1);
	held[4] = choose_by(0);
	assert_non_null(held[4]);
	for (int i = 0; i < 9; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
	for (int i = 0; i < 3; i++) {
		assert_false(circuit_is_full(circuits[i], 1));
		circuit_put(&circuits[i]);
	}
}

static void owners_of(unsigned *owner, unsigned keys)
{
	for (unsigned i = 0; i < keys; i++) {
		struct endpoint *e = choose_by(i);

		owner[i] = number(e);
		endpoint_finish(service, e, ENDPOINT_OK, 1000);
	}
}

static void a_ring_moves_only_the_keys_of_who_leaves(void **state)
{
	static unsigned before[5000], after[5000];
	unsigned moved = 0, of_gone = 0;

	use(GW_RING_HASH, 10);
	owners_of(before, 5000);
	members[3] = members[9]; /* the fourth leaves; the order changes too */
	service_set_members(service, members, 9);
	owners_of(after, 5000);
	for (int i = 0; i < 5000; i++) {
		moved += before[i] != after[i];
		of_gone += before[i] == 3;
	}
	assert_int_equal(moved, of_gone);
	assert_about(of_gone, 500, 60, "the share of the one that left");
}

static void a_ring_gives_a_new_one_only_its_share(void **state)
{
	static unsigned before[5000], after[5000];
	unsigned moved = 0;

	use(GW_RING_HASH, 9);
	owners_of(before, 5000);
	service_set_members(service, members, 10);
	owners_of(after, 5000);
	for (int i = 0; i < 5000; i++) {
		if (before[i] == after[i])
			continue;
		moved++;
		assert_int_equal(after[i], 9);
	}
	assert_about(moved, 500, 60, "the share of the new one");
}

static void a_hot_key_spills_over(void **state)
{
	struct endpoint *held[100];
	unsigned counts[MAX_MEMBERS] = { 0 }, most = 0, used = 0;

	service->hash_balance_percent = 150;
	use(GW_RING_HASH, 4);
	for (int i = 0; i < 100; i++) {
		held[i] = choose_by(7);
		counts[number(held[i])]++;
	}
	for (int i = 0; i < 4; i++) {
		most = MAX(most, counts[i]);
		used += counts[i] > 0;
	}
	assert_true(used >= 3); /* 100 at 150 % of 25: at least three */
	assert_true(most <= 39);
	for (int i = 0; i < 100; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
}

static void a_key_stays_when_little_is_in_flight(void **state)
{
	struct endpoint *held[8];

	service->hash_balance_percent = 150;
	use(GW_RING_HASH, 4);
	for (int i = 0; i < 8; i++) {
		held[i] = choose_by(7);
		assert_ptr_equal(held[i], held[0]);
	}
	for (int i = 0; i < 8; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
}

/* Two instances in the own zone, three elsewhere. */
static void use_zones(void)
{
	service->prefer_zone = true;
	members[1].is_near = members[3].is_near = true;
	use(GW_P2C, 5);
}

static unsigned near_of(const unsigned *counts)
{
	return counts[1] + counts[3];
}

static void the_own_zone_goes_first(void **state)
{
	unsigned counts[MAX_MEMBERS];

	use_zones();
	run(1000, NULL, counts);
	assert_int_equal(near_of(counts), 1000);
	assert_about(counts[1], 500, 30, "one of the two");
}

static void an_ailing_zone_spills_over_by_as_much_as_ails(void **state)
{
	unsigned counts[MAX_MEMBERS];

	members[1].is_failing = true;
	use_zones();
	run(10000, NULL, counts);
	/* Half of it is left, which may take 1.4 times its share. */
	assert_about(near_of(counts), 7000, 10, "the own zone");
	assert_int_equal(counts[1], 0);
	members[3].is_failing = true;
	use_zones();
	run(1000, NULL, counts);
	assert_int_equal(near_of(counts), 0);
}

static void a_busy_zone_spills_over(void **state)
{
	struct endpoint *held[100];
	unsigned far = 0;

	use_zones();
	for (int i = 0; i < 100; i++) {
		held[i] = choose_by(0);
		far += !held[i]->is_near;
	}
	assert_true(far >= 20 && far <= 60);
	for (int i = 0; i < 100; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
}

static void zones_do_not_matter_unless_preferred(void **state)
{
	unsigned counts[MAX_MEMBERS];

	use_zones();
	service->prefer_zone = false;
	run(5000, NULL, counts);
	assert_about(near_of(counts), 2000, 20, "two of five");
}

static void a_new_instance_gets_little_at_first(void **state)
{
	static const int cold[] = { GW_P2C, GW_ROUND_ROBIN, GW_LEAST_REQUEST, GW_RANDOM };
	unsigned counts[MAX_MEMBERS];

	for (size_t i = 0; i < ARRAY_SIZE(cold); i++) {
		struct endpoint *fresh = NULL;

		service->slow_start_ms = 60000;
		use(cold[i], 3);
		service_set_members(service, members, 4);
		run(4000, NULL, counts);
		for (size_t j = 0; j < 4; j++) {
			if (number(service->endpoints[j]) == 3)
				fresh = service->endpoints[j];
		}
		assert_true(counts[3] > 10 && counts[3] < 400);
		fresh->warm_from_ms -= 60000;
		service->warming_until_ms -= 60000;
		run(4000, NULL, counts);
		assert_about(counts[3], 1000, 40, "its whole share later");
		service_set_members(service, members, 3);
	}
}

static void who_has_not_answered_yet_is_asked_one_thing(void **state)
{
	struct endpoint *held[400];
	unsigned counts[MAX_MEMBERS] = { 0 };

	service->slow_start_ms = 60000;
	use(GW_P2C, 3);
	service_set_members(service, members, 4);
	for (int i = 0; i < 400; i++) {
		held[i] = choose_by(0);
		counts[number(held[i])]++;
	}
	assert_int_equal(counts[3], 1);
	for (int i = 0; i < 400; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
}

static void the_first_list_is_warm(void **state)
{
	unsigned counts[MAX_MEMBERS];

	service->slow_start_ms = 60000;
	use(GW_RANDOM, 4);
	run(4000, NULL, counts);
	for (int i = 0; i < 4; i++)
		assert_about(counts[i], 1000, 20, "an even share");
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(every_policy_uses_everyone),
		TEST(draws_go_by_weight),
		TEST(smooth_turns_do_not_come_in_bursts),
		TEST(response_times_weigh_as_ribbon_has_them),
		TEST(a_slow_one_is_asked_again_after_a_while),
		TEST(availability_leaves_full_instances_out),
		TEST(a_ring_moves_only_the_keys_of_who_leaves),
		TEST(a_ring_gives_a_new_one_only_its_share),
		TEST(a_hot_key_spills_over),
		TEST(a_key_stays_when_little_is_in_flight),
		TEST(the_own_zone_goes_first),
		TEST(an_ailing_zone_spills_over_by_as_much_as_ails),
		TEST(a_busy_zone_spills_over),
		TEST(zones_do_not_matter_unless_preferred),
		TEST(a_new_instance_gets_little_at_first),
		TEST(who_has_not_answered_yet_is_asked_one_thing),
		TEST(the_first_list_is_warm),
	};

	return cmocka_run_group_tests_name("pick", tests, NULL, NULL);
}
