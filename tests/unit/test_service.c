/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/service.h"

#include <stdio.h>

#include "tests/unit/unit.h"

static struct worker worker;
static struct service *service;

static void members(const char *const *addrs, const uint16_t *weights, size_t count)
{
	struct service_member m[8] = { 0 };

	for (size_t i = 0; i < count; i++) {
		assert_int_equal(net_parse(&m[i].addr, str_from(addrs[i]), 0), 0);
		m[i].weight = weights ? weights[i] : 100;
	}
	service_set_members(service, m, count);
}

static struct endpoint *choose_but(struct endpoint *const *tried, unsigned count)
{
	const struct pick_query q = { .tried = tried, .tried_count = count };

	return service_choose(service, &q);
}

static struct endpoint *choose(void)
{
	return choose_but(NULL, 0);
}

static const char *const abcd[] = { "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4" };

static int set_up(void **state)
{
	memset(&worker, 0, sizeof(worker));
	worker.loop = loop_new();
	service = service_new(&worker, STR("s"));
	return service ? 0 : -1;
}

static int tear_down(void **state)
{
	service_put(service);
	loop_free(worker.loop);
	return 0;
}

/* One request to the service, answered at once. */
static unsigned request(enum endpoint_outcome outcome, uint64_t latency_us)
{
	struct endpoint *e = choose();
	unsigned port = net_port(&e->addr);

	endpoint_finish(service, e, outcome, latency_us);
	return port;
}

static void there_is_nothing_to_choose_in_an_empty_service(void **state)
{
	assert_null(choose());
	members(abcd, NULL, 0);
	assert_null(choose());
}

static void two_choices_avoid_the_busy_one(void **state)
{
	struct endpoint *held[300];
	unsigned busiest = 0, idlest = 1000;

	members(abcd, NULL, 3);
	for (int i = 0; i < 300; i++)
		held[i] = choose();
	for (size_t i = 0; i < 3; i++) {
		busiest = MAX(busiest, service->endpoints[i]->in_flight);
		idlest = MIN(idlest, service->endpoints[i]->in_flight);
	}
	/* Random placement of 300 over 3 would differ by 14 on the average. */
	assert_true(busiest - idlest <= 6);
	for (int i = 0; i < 300; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1000);
	assert_int_equal(service->endpoints[0]->in_flight, 0);
}

static void two_choices_avoid_the_slow_one(void **state)
{
	unsigned slow = 0;

	members(abcd, NULL, 3);
	for (int i = 0; i < 3000; i++) {
		struct endpoint *e = choose();
		bool is_slow = e == service->endpoints[0];

		slow += is_slow;
		endpoint_finish(service, e, ENDPOINT_OK, is_slow ? 50000 : 1000);
	}
	assert_true(slow < 300);
}

static void weights_share_the_load(void **state)
{
	static const uint16_t weights[] = { 100, 300 };
	unsigned count[5] = { 0 };

	members(abcd, weights, 2);
	service->balance = GW_ROUND_ROBIN;
	for (int i = 0; i < 400; i++)
		count[request(ENDPOINT_OK, 1000)]++;
	assert_int_equal(count[1], 100);
	assert_int_equal(count[2], 300);
}

static void least_request_takes_the_idlest(void **state)
{
	struct endpoint *held[4];
	unsigned seen = 0;

	members(abcd, NULL, 4);
	service->balance = GW_LEAST_REQUEST;
	for (int i = 0; i < 4; i++) {
		held[i] = choose();
		seen |= 1U << net_port(&held[i]->addr);
	}
	assert_int_equal(seen, 0x1e);
	for (int i = 0; i < 4; i++)
		endpoint_finish(service, held[i], ENDPOINT_OK, 1);
}

static void a_retry_goes_elsewhere(void **state)
{
	struct endpoint *tried[2];

	members(abcd, NULL, 2);
	tried[0] = choose();
	tried[1] = choose_but(tried, 1);
	assert_ptr_not_equal(tried[0], tried[1]);
	assert_null(choose_but(tried, 2));
	endpoint_finish(service, tried[0], ENDPOINT_FAILED, 0);
	endpoint_finish(service, tried[1], ENDPOINT_OK, 1);
}

static void failures_in_a_row_eject_but_never_more_than_half(void **state)
{
	members(abcd, NULL, 2);
	for (int i = 0; i < 50; i++) {
		struct endpoint *e = service->endpoints[0];

		e->in_flight++;
		endpoint_finish(service, endpoint_get(e), ENDPOINT_FAILED, 0);
	}
	for (int i = 0; i < 50; i++)
		assert_int_equal(request(ENDPOINT_FAILED, 0), 2);
	assert_true(endpoint_is_ejected(service->endpoints[0], loop_now_ms(worker.loop)));
	assert_false(endpoint_is_ejected(service->endpoints[1], loop_now_ms(worker.loop)));
}

static void one_success_ends_the_row(void **state)
{
	struct endpoint *e;

	members(abcd, NULL, 2);
	e = service->endpoints[0];
	for (int i = 0; i < 40; i++) {
		e->in_flight++;
		endpoint_finish(service, endpoint_get(e), i % 4 == 3 ? ENDPOINT_OK : ENDPOINT_ERROR,
				1);
	}
	assert_false(endpoint_is_ejected(e, loop_now_ms(worker.loop)));
}

static void when_all_look_bad_all_are_used(void **state)
{
	struct service_member m[2] = { { .weight = 1, .is_failing = true },
				       { .weight = 1, .is_failing = true } };

	net_parse(&m[0].addr, str_from(abcd[0]), 0);
	net_parse(&m[1].addr, str_from(abcd[1]), 0);
	service_set_members(service, m, 2);
	request(ENDPOINT_OK, 1);
	m[1].is_failing = false;
	service_set_members(service, m, 2);
	for (int i = 0; i < 50; i++)
		assert_int_equal(request(ENDPOINT_OK, 1), 2);
}

static void who_stays_keeps_his_history(void **state)
{
	struct endpoint *kept, *gone;

	members(abcd, NULL, 2);
	kept = service->endpoints[1];
	gone = endpoint_get(service->endpoints[0]);
	kept->latency_us = 77;
	members(abcd + 1, NULL, 2);
	assert_ptr_equal(service->endpoints[0], kept);
	assert_int_equal(kept->latency_us, 77);
	assert_false(kept->is_gone);
	assert_true(gone->is_gone);
	endpoint_put(gone);
}

static void retries_are_a_fifth_of_requests(void **state)
{
	unsigned taken = 0;

	while (service_take_retry(service))
		taken++;
	assert_int_equal(taken, 10);
	for (int i = 0; i < 1000; i++)
		service_earn_retry(service);
	taken = 0;
	while (service_take_retry(service))
		taken++;
	assert_int_equal(taken, 100); /* 200 earned, and no hoard above 100 */
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(there_is_nothing_to_choose_in_an_empty_service),
		TEST(two_choices_avoid_the_busy_one),
		TEST(two_choices_avoid_the_slow_one),
		TEST(weights_share_the_load),
		TEST(least_request_takes_the_idlest),
		TEST(a_retry_goes_elsewhere),
		TEST(failures_in_a_row_eject_but_never_more_than_half),
		TEST(one_success_ends_the_row),
		TEST(when_all_look_bad_all_are_used),
		TEST(who_stays_keeps_his_history),
		TEST(retries_are_a_fifth_of_requests),
	};

	return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
