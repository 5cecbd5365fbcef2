/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/circuit.h"

#include <pthread.h>

#include "lib/cleanup.h"
#include "tests/unit/unit.h"

static const struct circuit_rules rules = {
	.failure_percent = 50,
	.min_requests = 4,
	.window_ms = 1000,
	.open_ms = 500,
};

static struct circuit *circuit;
static uint64_t retry_ms;

static int set_up(void **state)
{
	circuit = circuit_new();
	retry_ms = 0;
	return circuit ? 0 : -1;
}

static int tear_down(void **state)
{
	circuit_put(&circuit);
	return 0;
}

static enum circuit_pass ask(uint64_t now_ms)
{
	return circuit_ask(circuit, &rules, now_ms, &retry_ms);
}

static void record(unsigned count, bool has_failed, uint64_t now_ms)
{
	while (count--)
		circuit_record(circuit, &rules, has_failed, now_ms);
}

static void places_are_given_back(void **state)
{
	assert_true(circuit_enter(circuit, 2));
	assert_true(circuit_enter(circuit, 2));
	assert_true(circuit_is_full(circuit, 2));
	assert_false(circuit_enter(circuit, 2));
	circuit_leave(circuit);
	assert_true(circuit_enter(circuit, 2));
	assert_true(circuit_connect(circuit, 1)); /* connections are another thing */
	assert_false(circuit_connect(circuit, 1));
	circuit_disconnect(circuit);
	assert_true(circuit_connect(circuit, 1));
}

static void few_or_half_failing_do_not_open(void **state)
{
	record(3, true, 10);
	assert_int_equal(ask(10), CIRCUIT_PASS);
	record(3, false, 10);
	record(1, true, 10); /* 4 of 7 */
	assert_int_equal(ask(10), CIRCUIT_REFUSE);
}

static void windows_forget(void **state)
{
	record(3, true, 10);
	record(3, true, 1010);
	assert_int_equal(ask(1010), CIRCUIT_PASS);
	record(1, true, 1010);
	assert_int_equal(ask(1010), CIRCUIT_REFUSE);
}

static void one_tries_when_the_time_is_over(void **state)
{
	record(4, true, 100);
	assert_int_equal(ask(100), CIRCUIT_REFUSE);
	assert_int_equal(retry_ms, 500);
	assert_int_equal(ask(599), CIRCUIT_REFUSE);
	assert_int_equal(retry_ms, 1);
	assert_int_equal(ask(600), CIRCUIT_PROBE);
	assert_int_equal(ask(600), CIRCUIT_REFUSE); /* only one */
	record(1, true, 610);
	circuit_end_probe(circuit);
	assert_int_equal(ask(1109), CIRCUIT_REFUSE); /* open again */
	assert_int_equal(ask(1110), CIRCUIT_PROBE);
	record(1, false, 1120);
	circuit_end_probe(circuit);
	assert_int_equal(ask(1120), CIRCUIT_PASS);
}

static void a_probe_without_result_lets_another_try(void **state)
{
	record(4, true, 100);
	assert_int_equal(ask(700), CIRCUIT_PROBE);
	circuit_end_probe(circuit); /* its client left */
	assert_int_equal(ask(700), CIRCUIT_PROBE);
}

static void a_probe_that_hangs_does_not_keep_all_out(void **state)
{
	record(4, true, 100);
	assert_int_equal(ask(700), CIRCUIT_PROBE);
	assert_int_equal(ask(1199), CIRCUIT_REFUSE);
	assert_int_equal(ask(1200), CIRCUIT_PROBE);
	assert_int_equal(ask(1200), CIRCUIT_REFUSE);
	record(1, false, 1210); /* of the second */
	circuit_end_probe(circuit);
	assert_int_equal(ask(1210), CIRCUIT_PASS);
}

static void what_began_before_decides_nothing(void **state)
{
	record(4, true, 100);
	record(4, false, 200);
	assert_int_equal(ask(200), CIRCUIT_REFUSE);
}

static unsigned entered, most;

static void *enter_and_leave(void *arg)
{
	for (int i = 0; i < 200000; i++) {
		if (!circuit_enter(circuit, 3))
			continue;
		unsigned now = __atomic_add_fetch(&entered, 1, __ATOMIC_SEQ_CST);
		unsigned seen = __atomic_load_n(&most, __ATOMIC_SEQ_CST);

		while (now > seen &&
		       !__atomic_compare_exchange_n(&most, &seen, now, false, __ATOMIC_SEQ_CST,
						    __ATOMIC_SEQ_CST))
			;
		__atomic_sub_fetch(&entered, 1, __ATOMIC_SEQ_CST);
		circuit_leave(circuit);
	}
	return NULL;
}

static void threads_keep_the_bound_together(void **state)
{
	pthread_t threads[5];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, enter_and_leave, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_in_range(most, 1, 3);
	assert_false(circuit_is_full(circuit, 1));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(places_are_given_back),
		TEST(few_or_half_failing_do_not_open),
		TEST(windows_forget),
		TEST(one_tries_when_the_time_is_over),
		TEST(a_probe_without_result_lets_another_try),
		TEST(a_probe_that_hangs_does_not_keep_all_out),
		TEST(what_began_before_decides_nothing),
		TEST(threads_keep_the_bound_together),
	};

	return cmocka_run_group_tests_name("circuit", tests, NULL, NULL);
}
