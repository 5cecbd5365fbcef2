/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/limits/limits.h"

#include <pthread.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "tests/unit/unit.h"

#define S NSEC_PER_SEC

static struct limits_rule rule_of(const char *name, const char *key, uint64_t limit,
				  uint64_t window_s, uint64_t burst)
{
	struct limits_key_spec spec;
	struct limits_rule rule = { .limit = 0 };
	const char *complaint = limits_parse_key(&spec, str_from(key));

	if (!complaint)
		complaint = limits_rule_init(&rule, str_from(name), &spec, limit, window_s, burst);
	if (complaint)
		fail_msg("%s: %s", key, complaint);
	return rule;
}

static struct net_addr client_of(const char *ip)
{
	struct net_addr a;

	assert_int_equal(net_parse_ip(&a, str_from(ip), 1234), 0);
	return a;
}

static struct limits_verdict check(struct limits_table *t, const struct limits_rule *rule,
				   const char *ip, uint64_t now_ns)
{
	struct net_addr client = client_of(ip);
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	struct limits_verdict v;

	limits_check(t, &rule, 1, &subject, now_ns, &v);
	return v;
}

static void lets_exactly_the_limit_pass_at_once(void **state)
{
	struct limits_table *t = limits_table_new(1024);
	struct limits_rule rule = rule_of("a", "ip", 100, 60, 0);

	for (uint64_t i = 0; i < 100; i++) {
		struct limits_verdict v = check(t, &rule, "192.0.2.1", 5 * S);

		assert_true(v.is_allowed);
		assert_int_equal(v.remaining, 99 - i);
		assert_int_equal(v.reset_ns, (i + 1) * 600 * NSEC_PER_MSEC);
	}
	for (int i = 0; i < 50; i++) {
		struct limits_verdict v = check(t, &rule, "192.0.2.1", 5 * S);

		/* A refusal costs nothing: the wait does not grow. */
		assert_false(v.is_allowed);
		assert_int_equal(v.retry_after_ns, 600 * NSEC_PER_MSEC);
		assert_int_equal(limits_retry_after_s(&v), 1);
		assert_int_equal(v.reset_ns, 60 * S);
	}
	assert_false(check(t, &rule, "192.0.2.1", 5 * S + 600 * NSEC_PER_MSEC - 1).is_allowed);
	assert_true(check(t, &rule, "192.0.2.1", 5 * S + 600 * NSEC_PER_MSEC).is_allowed);
	assert_false(check(t, &rule, "192.0.2.1", 5 * S + 600 * NSEC_PER_MSEC).is_allowed);
	assert_true(check(t, &rule, "192.0.2.2", 5 * S).is_allowed);
	limits_table_free(&t);
}

static void a_burst_caps_what_passes_at_once(void **state)
{
	struct limits_table *t = limits_table_new(1024);
	struct limits_rule rule = rule_of("a", "ip", 100, 60, 20);
	uint64_t passed = 0;

	for (int i = 0; i < 100; i++)
		passed += check(t, &rule, "192.0.2.1", S).is_allowed;
	assert_int_equal(passed, 20);
	/* A minute of trying every 100 ms: the average holds. */
	passed = 0;
	for (uint64_t at = S; at < 61 * S; at += 100 * NSEC_PER_MSEC)
		passed += check(t, &rule, "192.0.2.1", at).is_allowed;
	assert_in_range(passed, 99, 100);
	limits_table_free(&t);
}

/* The same in the plainest way: a bucket with a level that refills. */
struct model {
	double level, at_s;
};

static bool model_take(struct model *m, const struct limits_rule *rule, uint64_t now_ns)
{
	double now_s = (double)now_ns / 1e9;
	double per_s = 1e9 / (double)rule->token_ns;

	m->level = MIN((double)rule->burst, m->level + (now_s - m->at_s) * per_s);
	m->at_s = now_s;
	if (m->level < 1)
		return false;
	m->level -= 1;
	return true;
}

static void agrees_with_a_bucket_that_is_refilled(void **state)
{
	uint64_t near = 0, checks = 0;

	for (int round = 0; round < 300; round++) {
		struct limits_table *t = limits_table_new(64);
		uint64_t limit = 1 + random_u64() % 200, window = 1 + random_u64() % 60;
		struct limits_rule rule = rule_of("p", "ip", limit, window, random_u64() % 50);
		struct model m = { .level = (double)rule.burst };
		uint64_t now = 0;

		for (int i = 0; i < 400; i++) {
			bool got, want;
			double margin;

			now += random_u64() % (2 * rule.token_ns + 1);
			if (random_u64() % 40 == 0)
				now += rule.burst_ns * 2;
			got = check(t, &rule, "192.0.2.1", now).is_allowed;
			want = model_take(&m, &rule, now);
			checks++;
			margin = m.level - (want ? 0 : 1);
			if (got == want)
				continue;
			/* Only where floating point cannot tell: a level of one, but for a hair. */
			assert_true(margin > -1e-6 && margin < 1e-6);
			near++;
			m.level += got ? -1 : 1;
		}
		limits_table_free(&t);
	}
	assert_true(near * 1000 < checks);
}

static void no_rule_is_charged_when_another_refuses(void **state)
{
	struct limits_table *t = limits_table_new(1024);
	struct limits_rule wide = rule_of("wide", "global", 1000, 60, 0);
	struct limits_rule tight = rule_of("tight", "ip", 2, 60, 0);
	struct limits_rule tighter = rule_of("tighter", "endpoint", 2, 600, 0);
	const struct limits_rule *rules[] = { &wide, &tight, &tighter };
	struct net_addr client = client_of("192.0.2.1");
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	struct limits_verdict v;

	for (int i = 0; i < 2; i++) {
		limits_check(t, rules, 3, &subject, S, &v);
		assert_true(v.is_allowed);
		/* The smallest share left is told. */
		assert_int_equal(v.remaining, 1 - i);
		assert_ptr_not_equal(v.rule, &wide);
	}
	for (int i = 0; i < 100; i++) {
		limits_check(t, rules, 3, &subject, S, &v);
		assert_false(v.is_allowed);
		assert_ptr_equal(v.rule, &tighter); /* the longest wait is named */
		assert_int_equal(v.retry_after_ns, 300 * S);
	}
	limits_check(t, rules, 1, &subject, S, &v);
	assert_int_equal(v.remaining, 1000 - 3);
	limits_check(t, rules, 0, &subject, S, &v);
	assert_true(v.is_allowed);
	assert_null(v.rule);
	limits_table_free(&t);
}

static void keys_tell_apart_whom_they_should(void **state)
{
	static const struct {
		const char *key;
		const char *ip[2], *user[2], *device[2], *endpoint[2];
		bool is_same;
		const char *why;
	} cases[] = {
		{ "ip", { "192.0.2.1", "192.0.2.1" }, { 0 }, { 0 }, { "a", "b" }, true, "address" },
		{ "ip",
		  { "192.0.2.1", "192.0.2.2" },
		  { 0 },
		  { 0 },
		  { "a", "a" },
		  false,
		  "address" },
		{ "ip",
		  { "2001:db8:0:1::1", "2001:db8:0:1:ffff::2" },
		  { 0 },
		  { 0 },
		  { "a", "a" },
		  true,
		  "one /64" },
		{ "ip",
		  { "2001:db8:0:1::1", "2001:db8:0:2::1" },
		  { 0 },
		  { 0 },
		  { "a", "a" },
		  false,
		  "two /64" },
		{ "user",
		  { "192.0.2.1", "192.0.2.2" },
		  { "\"u\"", "\"u\"" },
		  { 0 },
		  { "a", "a" },
		  true,
		  "one user, two addresses" },
		{ "user",
		  { "192.0.2.1", "192.0.2.1" },
		  { "\"1\"", "1" },
		  { 0 },
		  { "a", "a" },
		  false,
		  "the types differ" },
		{ "user",
		  { "192.0.2.1", "192.0.2.2" },
		  { 0 },
		  { 0 },
		  { "a", "a" },
		  false,
		  "anonymous: by address" },
		{ "endpoint", { "192.0.2.1", "192.0.2.2" }, { 0 }, { 0 }, { "a", "a" }, true, "" },
		{ "endpoint", { "192.0.2.1", "192.0.2.1" }, { 0 }, { 0 }, { "a", "b" }, false, "" },
		{ "global", { "192.0.2.1", "192.0.2.2" }, { 0 }, { 0 }, { "a", "b" }, true, "" },
		{ "header:X-Device-Id",
		  { "192.0.2.1", "192.0.2.2" },
		  { 0 },
		  { "d", "d" },
		  { "a", "b" },
		  true,
		  "one device" },
		{ "header:X-Device-Id",
		  { "192.0.2.1", "192.0.2.1" },
		  { 0 },
		  { "d", "e" },
		  { "a", "a" },
		  false,
		  "two devices" },
		{ "header:X-Device-Id",
		  { "192.0.2.1", "192.0.2.2" },
		  { 0 },
		  { "", "" },
		  { "a", "a" },
		  false,
		  "no header: by address" },
		{ "claim:sub",
		  { "192.0.2.1", "192.0.2.2" },
		  { "\"u\"", "\"u\"" },
		  { 0 },
		  { "a", "a" },
		  true,
		  "" },
		{ "user+endpoint",
		  { "192.0.2.1", "192.0.2.1" },
		  { "\"u\"", "\"u\"" },
		  { 0 },
		  { "a", "b" },
		  false,
		  "" },
		{ "user+endpoint",
		  { "192.0.2.1", "192.0.2.2" },
		  { "\"u\"", "\"u\"" },
		  { 0 },
		  { "a", "a" },
		  true,
		  "" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct limits_table *t = limits_table_new(64);
		struct limits_rule rule = rule_of("k", cases[i].key, 10, 60, 0);
		const struct limits_rule *rules[] = { &rule };
		struct limits_verdict v;

		for (int j = 0; j < 2; j++) {
			struct net_addr client = client_of(cases[i].ip[j]);
			struct http_field field = { .name = STR("x-device-id"),
						    .value = str_from(cases[i].device[j]) };
			char claims[128];
			struct limits_subject subject = {
				.client = &client,
				.endpoint = str_from(cases[i].endpoint[j]),
				.fields = &field,
				.field_count = cases[i].device[j] ? 1 : 0,
			};
			struct identity *id = NULL;

			if (cases[i].user[j]) {
				snprintf(claims, sizeof(claims), "{\"sub\":%s}", cases[i].user[j]);
				id = identity_new(str_from(claims), STR("sub"), 0);
			}
			subject.identity = id;
			limits_check(t, rules, 1, &subject, S, &v);
			identity_put(&id);
		}
		if ((v.remaining == 8) != cases[i].is_same)
			fail_msg("%s: %s", cases[i].key, cases[i].why);
		limits_table_free(&t);
	}
}

static void counts_by_api_key(void **state)
{
	struct limits_table *t = limits_table_new(64);
	struct limits_rule rule = rule_of("k", "api_key", 1, 60, 0);
	const struct limits_rule *rules[] = { &rule };
	struct net_addr client = client_of("192.0.2.1");
	struct limits_subject subject = { .client = &client };
	struct identity *ids[2] = {
		identity_new(STR("{\"sub\":\"u\",\"id\":\"k1\"}"), STR("sub"), 0),
		identity_new(STR("{\"sub\":\"u\",\"id\":\"k2\"}"), STR("sub"), 0),
	};
	struct limits_verdict v;

	assert_true(rule.needs_identity);
	for (size_t i = 0; i < CASES(ids); i++) {
		ids[i]->key_id = identity_claim(ids[i], STR("id"));
		subject.identity = ids[i];
		limits_check(t, rules, 1, &subject, S, &v);
		assert_true(v.is_allowed);
		limits_check(t, rules, 1, &subject, S, &v);
		assert_false(v.is_allowed);
	}
	/* Who came by a token has no key: by address. */
	ids[0]->key_id = NULL;
	subject.identity = ids[0];
	limits_check(t, rules, 1, &subject, S, &v);
	assert_true(v.is_allowed);
	subject.identity = NULL;
	limits_check(t, rules, 1, &subject, S, &v);
	assert_false(v.is_allowed);
	identity_put(&ids[0]);
	identity_put(&ids[1]);
	limits_table_free(&t);
}

static void a_rule_in_shadow_only_counts(void **state)
{
	struct limits_table *t = limits_table_new(64);
	struct limits_rule real = rule_of("real", "ip", 10, 60, 0);
	struct limits_rule dark = rule_of("dark", "ip", 3, 60, 0);
	const struct limits_rule *rules[] = { &dark, &real };
	struct net_addr client = client_of("192.0.2.1");
	struct limits_subject subject = { .client = &client };
	struct limits_counts counts;
	struct limits_verdict v;

	dark.is_shadow = true;
	for (uint64_t i = 0; i < 15; i++) {
		limits_check(t, rules, 2, &subject, S, &v);
		limits_count(t, &v);
		assert_int_equal(v.is_allowed, i < 10);
		assert_ptr_equal(v.rule, &real);
		assert_ptr_equal(v.shadowed, i < 3 || i >= 10 ? NULL : &dark);
	}
	limits_table_counts(t, &real, &counts);
	assert_int_equal(counts.refused, 5);
	assert_int_equal(counts.shadowed, 0);
	limits_table_counts(t, &dark, &counts);
	assert_int_equal(counts.refused, 0);
	assert_int_equal(counts.shadowed, 7);
	/* One alone is no limit at all: nothing is told of it. */
	limits_check(t, rules, 1, &subject, S, &v);
	assert_true(v.is_allowed);
	assert_null(v.rule);
	limits_table_free(&t);
}

static void refuses_rules_it_cannot_keep(void **state)
{
	static const char *const bad_keys[] = { "",       "users", "header:", "header:a b",
						"claim:", "user+", "user,ip", "ip+ip+ip+ip+ip" };
	struct limits_key_spec spec;
	struct limits_rule rule;

	for (size_t i = 0; i < CASES(bad_keys); i++)
		assert_non_null(limits_parse_key(&spec, str_from(bad_keys[i])));
	assert_null(limits_parse_key(&spec, STR("header:X-Device-Id+ip")));
	assert_int_equal(spec.part_count, 2);
	assert_true(str_eqz(spec.parts[0].name, "X-Device-Id"));
	assert_non_null(limits_rule_init(&rule, STR("a"), &spec, 0, 1, 0));
	assert_non_null(limits_rule_init(&rule, STR("a"), &spec, 1, 0, 0));
	assert_non_null(limits_rule_init(&rule, STR("a"), &spec, 1000001, 1, 0));
	assert_non_null(limits_rule_init(&rule, STR("a"), &spec, UINT64_MAX, 1, 0));
	assert_non_null(limits_rule_init(&rule, STR("a"), &spec, 1, 31ULL * 86400, 1000000000));
	assert_null(limits_rule_init(&rule, STR("a"), &spec, 1000000, 1, 0));
}

static void writes_the_fields(void **state)
{
	struct limits_table *t = limits_table_new(64);
	struct limits_rule rule = rule_of("per-user", "ip", 100, 60, 20);
	struct limits_verdict v = check(t, &rule, "192.0.2.1", S);
	struct buf b;

	buf_init(&b, 0);
	limits_write_ratelimit(&v, &b);
	assert_true(str_eqz(buf_str(&b), "\"per-user\";r=19;t=1"));
	assert_string_equal(rule.policy, "\"per-user\";q=100;w=60");
	buf_fini(&b);
	limits_table_free(&t);
}

/* Far more keys than the table holds: memory stays, and who is over the limit while it is being
 * crowded out gets at most a fresh start. */
static void a_full_table_forgets_the_least(void **state)
{
	struct limits_table *t = limits_table_new(1024);
	struct limits_rule rule = rule_of("a", "ip", 10, 60, 0);
	struct limits_stats stats;
	char ip[32];

	for (int i = 0; i < 10; i++)
		assert_true(check(t, &rule, "192.0.2.1", S).is_allowed);
	for (int i = 0; i < 100000; i++) {
		snprintf(ip, sizeof(ip), "10.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
		/* A newcomer never inherits the debt of the one it displaces. */
		assert_true(check(t, &rule, ip, S).is_allowed);
	}
	/* The heaviest debtor is the last to go. */
	assert_false(check(t, &rule, "192.0.2.1", S).is_allowed);
	limits_table_stats(t, &stats);
	assert_int_equal(stats.keys, 1024);
	assert_true(stats.evicted_live > 90000);
	/* Idle keys are replaced without loss. */
	for (int i = 0; i < 1000; i++) {
		snprintf(ip, sizeof(ip), "11.0.%d.%d", i >> 8, i & 255);
		assert_true(check(t, &rule, ip, 200 * S).is_allowed);
	}
	limits_table_free(&t);
}

/* One rule twice stands for another thread that takes the last one between look and take. */
static void what_was_taken_is_given_back(void **state)
{
	struct limits_table *t = limits_table_new(64);
	struct limits_rule wide = rule_of("wide", "ip", 10, 60, 0);
	struct limits_rule tight = rule_of("tight", "ip", 1, 60, 0);
	const struct limits_rule *rules[] = { &wide, &tight, &tight };
	struct net_addr client = client_of("192.0.2.1");
	struct limits_subject subject = { .client = &client };
	struct limits_verdict v;

	limits_check(t, rules, 3, &subject, S, &v);
	assert_false(v.is_allowed);
	assert_ptr_equal(v.rule, &tight);
	assert_int_equal(check(t, &tight, "192.0.2.1", S).is_allowed, true);
	assert_int_equal(check(t, &wide, "192.0.2.1", S).remaining, 9);
	limits_table_free(&t);
}

struct crowd {
	struct limits_table *table;
	const struct limits_rule *rules[2];
	uint64_t passed;
};

static void *crowd_run(void *arg)
{
	struct crowd *crowd = arg;
	struct net_addr client = client_of("192.0.2.1");
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	uint64_t passed = 0;

	for (int i = 0; i < 20000; i++) {
		struct limits_verdict v;

		limits_check(crowd->table, crowd->rules, 2, &subject, S, &v);
		passed += v.is_allowed;
	}
	__atomic_fetch_add(&crowd->passed, passed, __ATOMIC_RELAXED);
	return NULL;
}

static void threads_together_get_no_more_than_the_limit(void **state)
{
	struct limits_rule tight = rule_of("tight", "ip", 5000, 3600, 0);
	struct limits_rule wide = rule_of("wide", "global", 100000, 3600, 0);
	struct crowd crowd = { .rules = { &wide, &tight } };
	struct limits_verdict v;
	pthread_t threads[4];
	struct net_addr client = client_of("192.0.2.9");
	struct limits_subject subject = { .client = &client };

	crowd.table = limits_table_new(64);
	for (size_t i = 0; i < CASES(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &crowd), 0);
	for (size_t i = 0; i < CASES(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crowd.passed, 5000);
	/* What was taken from the wide rule and given back is given back whole. */
	limits_check(crowd.table, crowd.rules, 1, &subject, S, &v);
	assert_int_equal(v.remaining, 100000 - 5001);
	limits_table_free(&crowd.table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lets_exactly_the_limit_pass_at_once),
		cmocka_unit_test(a_burst_caps_what_passes_at_once),
		cmocka_unit_test(agrees_with_a_bucket_that_is_refilled),
		cmocka_unit_test(no_rule_is_charged_when_another_refuses),
		cmocka_unit_test(keys_tell_apart_whom_they_should),
		cmocka_unit_test(counts_by_api_key),
		cmocka_unit_test(a_rule_in_shadow_only_counts),
		cmocka_unit_test(refuses_rules_it_cannot_keep),
		cmocka_unit_test(writes_the_fields),
		cmocka_unit_test(a_full_table_forgets_the_least),
		cmocka_unit_test(what_was_taken_is_given_back),
		cmocka_unit_test(threads_together_get_no_more_than_the_limit),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
