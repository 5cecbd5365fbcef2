/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/tally.h"

#include <stdio.h>

#include "gateway/analytics/endpoint.h"
#include "tests/unit/unit.h"

static struct tally_request request(const char *endpoint, const char *user)
{
	return (struct tally_request) {
		.endpoint = str_from(endpoint),
		.version = STR("v1"),
		.route = STR("r"),
		.user = str_from(user),
		.status_class = 2,
		.latency_us = 1000,
	};
}

static void counts_by_endpoint_and_user(void **state)
{
	const struct tally_endpoint *endpoints[4];
	const struct tally_user *users[4];
	struct tally *t = tally_new(10, 10);
	struct tally_request r = request("GET /a", "u1");

	(void)state;
	tally_note(t, &r);
	tally_note(t, &r);
	r.status_class = 5;
	r.version = STR("v2");
	tally_note(t, &r);
	r = request("GET /b", "u2");
	r.status_class = 4;
	r.is_limited = true;
	tally_note(t, &r);
	assert_int_equal(t->requests, 4);
	assert_int_equal(tally_top_endpoints(t, endpoints, 4), 3);
	assert_true(str_eqz(endpoints[0]->endpoint, "GET /a") &&
		    str_eqz(endpoints[0]->version, "v1"));
	assert_int_equal(endpoints[0]->status_class[2], 2);
	assert_int_equal(endpoints[0]->latency.sum_us, 2000);
	assert_int_equal(tally_top_users(t, users, 4, false), 2);
	assert_true(str_eqz(users[0]->name, "u1"));
	assert_int_equal(users[0]->requests, 3);
	assert_int_equal(users[0]->errors, 1);
	assert_int_equal(tally_top_users(t, users, 4, true), 1);
	assert_true(str_eqz(users[0]->name, "u2"));
	assert_int_equal(tally_top_endpoints(t, endpoints, 1), 1);
	tally_put(&t);
	assert_null(t);
}

static void kinds_are_told_apart(void **state)
{
	struct tally *t = tally_new(10, 10);
	struct tally_request r = request("GET /", "10.0.0.1");
	const struct tally_user *users[4];

	(void)state;
	for (int kind = 0; kind < TALLY_KINDS; kind++) {
		r.kind = (enum tally_kind)kind;
		tally_note(t, &r);
	}
	assert_int_equal(tally_top_users(t, users, 4, false), 3);
	tally_put(&t);
}

/* However many there are, the sums stay right and the memory bounded. */
static void tables_are_bounded(void **state)
{
	const struct tally_endpoint *endpoints[100];
	const struct tally_user *users[100];
	struct tally *t = tally_new(16, 32);
	uint64_t endpoint_sum = 0, user_sum = 0;
	size_t n;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		char endpoint[32], user[32];
		struct tally_request r;

		snprintf(endpoint, sizeof(endpoint), "GET /%d", i);
		snprintf(user, sizeof(user), "u%d", i);
		r = request(endpoint, user);
		tally_note(t, &r);
		/* One who asks all the time stays, and is never counted less than he asked. */
		r = request("GET /0", "busy");
		tally_note(t, &r);
	}
	n = tally_top_endpoints(t, endpoints, 100);
	assert_int_equal(n, 17);
	for (size_t i = 0; i < n; i++)
		endpoint_sum += tally_endpoint_requests(endpoints[i]);
	assert_int_equal(endpoint_sum, 20000);
	n = tally_top_users(t, users, 100, false);
	assert_int_equal(n, 32);
	assert_true(str_eqz(users[0]->name, "busy"));
	assert_true(users[0]->requests >= 10000);
	assert_true(users[0]->requests - users[0]->uncertain <= 10000);
	for (size_t i = 0; i < n; i++)
		user_sum += users[i]->requests;
	assert_int_equal(user_sum, 20000);
	tally_put(&t);
}

static void merging_adds(void **state)
{
	struct tally *a = tally_new(10, 10), *b = tally_new(10, 10);
	const struct tally_endpoint *endpoints[4];
	const struct tally_user *users[4];
	struct tally_request r = request("GET /a", "u");

	(void)state;
	tally_note(a, &r);
	r.is_limited = true;
	tally_note(b, &r);
	r = request("GET /b", "other");
	tally_note(b, &r);
	tally_merge(a, b);
	assert_int_equal(a->requests, 3);
	assert_int_equal(tally_top_endpoints(a, endpoints, 4), 2);
	assert_int_equal(endpoints[0]->limited, 1);
	assert_int_equal(tally_endpoint_requests(endpoints[0]), 2);
	assert_int_equal(endpoints[0]->latency.sum_us, 2000);
	assert_int_equal(tally_top_users(a, users, 4, false), 2);
	assert_int_equal(users[0]->requests, 2);
	assert_int_equal(users[0]->limited, 1);
	tally_put(&a);
	tally_put(&b);
}

static void long_names_are_cut(void **state)
{
	char name[1000];
	struct tally *t = tally_new(10, 10);
	struct tally_request r;
	const struct tally_user *users[2];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	r = request(name, name);
	tally_note(t, &r);
	assert_int_equal(tally_top_users(t, users, 2, false), 1);
	assert_int_equal(users[0]->name.len, TALLY_NAME_MAX);
	tally_put(&t);
}

static void knows_identifiers(void **state)
{
	static const char *const ids[] = { "7", "0123456789", "deadbeef01",
					   "550e8400-e29b-41d4-a716-446655440000",
					   "usr_2NxgzA9wq81kzoPq0" };
	static const char *const words[] = { "",   "v1",       "users", "deadbeef",
					     "a1", "profile2", "x-1-y", "oauth2" };

	(void)state;
	for (size_t i = 0; i < CASES(ids); i++)
		assert_true(endpoint_is_id(str_from(ids[i])));
	for (size_t i = 0; i < CASES(words); i++)
		assert_false(endpoint_is_id(str_from(words[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_by_endpoint_and_user),
		cmocka_unit_test(kinds_are_told_apart),
		cmocka_unit_test(tables_are_bounded),
		cmocka_unit_test(merging_adds),
		cmocka_unit_test(long_names_are_cut),
		cmocka_unit_test(knows_identifiers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
