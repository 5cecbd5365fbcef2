/* SPDX-License-Identifier: Apache-2.0 */
/* Limits in common: several gateways' tables in this process, one real Redis beside it. */
#include "gateway/limits/limit_store.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gateway/limits/limit_script.h"
#include "gateway/limits/limits_private.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/log.h"
#include "lib/loop.h"
#include "tests/unit/unit.h"

#define GATEWAYS    3
#define ALL_BURSTS  30U /* of ten, at each gateway */
#define PATIENCE_MS 10000

struct gateway {
	struct limit_store *store;
	struct limits_table *table;
};

struct world {
	char dir[64], socket[96];
	pid_t server;
	struct limit_store_options options;
	struct gateway gateways[GATEWAYS];
};

static void server_start(struct world *w)
{
	w->server = fork();
	assert_true(w->server >= 0);
	if (w->server > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen("/dev/null", "w", stdout))
		_exit(126);
	execl("/usr/bin/redis-server", "redis-server", "--port", "0", "--unixsocket", w->socket,
	      "--save", "", "--dir", w->dir, NULL);
	_exit(127);
}

static void server_stop(struct world *w)
{
	if (w->server <= 0)
		return;
	kill(w->server, SIGKILL);
	waitpid(w->server, NULL, 0);
	w->server = 0;
}

static void wait_until_common(const struct world *w, bool is_common)
{
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;

	for (int i = 0; i < GATEWAYS; i++) {
		while (limit_store_is_common(w->gateways[i].store) != is_common) {
			assert_true(clock_mono_ms() < until_ms);
			usleep(1000);
		}
	}
}

/* NULL without Redis. */
static struct world *world_new(enum limit_failure on_failure)
{
	struct world *w;
	struct err err;
	char url[128];

	if (access("/usr/bin/redis-server", X_OK) < 0) {
		print_message("SKIP: redis-server is not installed\n");
		return NULL;
	}
	w = calloc(1, sizeof(*w));
	assert_non_null(w);
	snprintf(w->dir, sizeof(w->dir), "/tmp/gatehouse-limits-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->socket, sizeof(w->socket), "%s/s", w->dir);
	snprintf(url, sizeof(url), "unix:%s", w->socket);
	w->options = (struct limit_store_options) {
		.prefix = "t:",
		.name = "test",
		.on_failure = on_failure,
		.timeout_ms = PATIENCE_MS,
		.gateways = GATEWAYS,
	};
	assert_int_equal(redis_url_parse(&w->options.url, str_from(url), &err), 0);
	server_start(w);
	for (int i = 0; i < GATEWAYS; i++) {
		struct gateway *g = &w->gateways[i];

		g->store = limit_store_new(&w->options, &err);
		assert_non_null(g->store);
		g->table = limits_table_new_shared(1024, g->store);
		assert_non_null(g->table);
		assert_int_equal(limit_store_start(g->store), 0);
	}
	wait_until_common(w, true);
	return w;
}

static void world_free(struct world *w)
{
	for (int i = 0; i < GATEWAYS; i++) {
		limit_store_free(&w->gateways[i].store);
		limits_table_free(&w->gateways[i].table);
	}
	server_stop(w);
	unlink(w->socket);
	rmdir(w->dir);
	free(w);
}

static struct limits_rule rule_of(const char *name, uint64_t limit, uint64_t window_s,
				  uint64_t burst)
{
	struct limits_key_spec spec;
	struct limits_rule rule = { .limit = 0 };

	assert_null(limits_parse_key(&spec, STR("ip")));
	assert_null(limits_rule_init(&rule, str_from(name), &spec, limit, window_s, burst));
	return rule;
}

static struct limits_verdict check(struct gateway *g, const struct limits_rule *rule,
				   const char *ip)
{
	struct net_addr client;
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	struct limits_verdict v;

	assert_int_equal(net_parse_ip(&client, str_from(ip), 1), 0);
	limits_check(g->table, &rule, 1, &subject, clock_mono_ns(), &v);
	return v;
}

/* What Redis holds once all that was admitted has been told and no lease is out. */
static void wait_until_settled(const struct world *w)
{
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;

	for (int i = 0; i < GATEWAYS; i++) {
		struct limit_store_stats stats;

		do {
			assert_true(clock_mono_ms() < until_ms);
			usleep(1000);
			limit_store_get_stats(w->gateways[i].store, &stats);
		} while (stats.keys);
	}
}

static void what_one_admits_the_others_know(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule rule = rule_of("a", 30, 3600, 0);
	uint64_t passed = 0;

	if (!w)
		skip();
	/* As many at once as the limit allows, though there are three gateways, and no more. */
	for (int i = 0; i < 40; i++)
		passed += check(&w->gateways[0], &rule, "192.0.2.1").is_allowed;
	assert_int_equal(passed, 30);
	wait_until_settled(w);
	/* The first request at another gateway is admitted before it knows; not the ones after. */
	check(&w->gateways[1], &rule, "192.0.2.1");
	wait_until_settled(w);
	assert_false(check(&w->gateways[1], &rule, "192.0.2.1").is_allowed);
	assert_true(check(&w->gateways[1], &rule, "192.0.2.2").is_allowed);
	world_free(w);
}

static void the_last_one_can_be_had_anywhere(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule rule = rule_of("a", 12, 3600, 0);
	uint64_t passed = 0;

	if (!w)
		skip();
	/* One client that moves from gateway to gateway, slowly. */
	for (int i = 0; i < 15; i++) {
		passed += check(&w->gateways[i % GATEWAYS], &rule, "192.0.2.1").is_allowed;
		wait_until_settled(w);
	}
	/* Each knows what the others admitted until it was asked itself: at the very end that may
	 * be one too many at each other gateway. */
	assert_in_range(passed, 12, 12 + GATEWAYS - 1);
	world_free(w);
}

static void what_was_too_much_is_paid_back(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule rule = rule_of("a", 10, 1, 0);
	uint64_t passed = 0, begun_ns = clock_mono_ns(), elapsed_ns;

	if (!w)
		skip();
	/* All three at the same moment: none can know of the others. */
	for (int i = 0; i < (int)ALL_BURSTS; i++)
		passed += check(&w->gateways[i % GATEWAYS], &rule, "192.0.2.1").is_allowed;
	assert_in_range(passed, 10, ALL_BURSTS);
	wait_until_settled(w);
	/* 20 too many take two seconds. This gateway may have heard of none of them yet: then it
	 * learns it with the first request that its own count lets pass. */
	do {
		uint64_t one = check(&w->gateways[0], &rule, "192.0.2.1").is_allowed;

		passed += one;
		elapsed_ns = clock_mono_ns() - begun_ns;
		assert_true(elapsed_ns < PATIENCE_MS * NSEC_PER_MSEC);
		usleep(2000);
	} while (passed < ALL_BURSTS + 5);
	/* No more than the burst and what the time has earned, but for that one. */
	assert_true((double)passed <= 10 + 10.0 * (double)elapsed_ns / 1e9 + 2);
	world_free(w);
}

/*
 * A rule that comes twice and has one left is taken, refuses, and gives back, as when another
 * worker was quicker. Redis may have been told in between: then it is told of that too.
 */
static void what_is_given_back_is_not_charged(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule wide = rule_of("wide", 1000, 36000, 0);
	struct limits_rule tight = rule_of("tight", 1, 36000, 0);
	const struct limits_rule *rules[] = { &wide, &tight, &tight };
	struct net_addr client;
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	struct limits_verdict v;

	if (!w)
		skip();
	assert_int_equal(net_parse_ip(&client, STR("192.0.2.1"), 1), 0);
	for (int i = 0; i < 200000; i++) {
		limits_check(w->gateways[0].table, rules, 3, &subject, clock_mono_ns(), &v);
		assert_false(v.is_allowed);
	}
	/* The last one that was told may be told back with the next request only. */
	assert_true(check(&w->gateways[0], &wide, "192.0.2.1").is_allowed);
	wait_until_settled(w);
	v = check(&w->gateways[0], &wide, "192.0.2.1");
	assert_true(v.is_allowed);
	assert_in_range(v.remaining, 990, 999);
	world_free(w);
}

/* --- under load from all gateways ---------------------------------------------------------------
 */

struct load {
	struct gateway *gateway;
	const struct limits_rule *rule;
	uint64_t until_ns, every_ns;
	uint64_t asked;
	/* when requests were admitted */
	uint64_t *admitted_ns;
	size_t count, room;
};

static void *load_run(void *arg)
{
	struct load *l = arg;
	uint64_t now_ns;

	while ((now_ns = clock_mono_ns()) < l->until_ns) {
		l->asked++;
		if (check(l->gateway, l->rule, "192.0.2.1").is_allowed && l->count < l->room)
			l->admitted_ns[l->count++] = now_ns;
		usleep((useconds_t)(l->every_ns / 1000));
	}
	return NULL;
}

static int by_time(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

#define THREADS 6 /* two for each gateway */

/* Returns how many were admitted, sorted in `out`. */
static size_t run_load(struct world *w, const struct limits_rule *rule, uint64_t ms,
		       uint64_t every_us, uint64_t *out, size_t room)
{
	struct load loads[THREADS];
	pthread_t threads[THREADS];
	size_t count = 0;

	for (size_t i = 0; i < THREADS; i++) {
		loads[i] = (struct load) {
			.gateway = &w->gateways[i % GATEWAYS],
			.rule = rule,
			.until_ns = clock_mono_ns() + ms * NSEC_PER_MSEC,
			.every_ns = every_us * 1000,
			.admitted_ns = calloc(room, sizeof(uint64_t)),
			.room = room,
		};
		assert_int_equal(pthread_create(&threads[i], NULL, load_run, &loads[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		for (size_t j = 0; j < loads[i].count && count < room; j++)
			out[count++] = loads[i].admitted_ns[j];
		free(loads[i].admitted_ns);
	}
	qsort(out, count, sizeof(*out), by_time);
	return count;
}

/*
 * No window of any length from any moment on holds more than the burst and what it earns, by 5 %;
 * and over the whole time no less than that is admitted.
 */
static void the_limit_holds_under_load(void **state)
{
	static const struct {
		uint64_t limit, window_s, burst, every_us;
		double least;
	} cases[] = {
		{ 10, 1, 0, 20000, 1 }, /* 300 a second ask for 10 */
		{ 1000, 1, 0, 500, 1 },
		/* What nobody fetches within 100 ms is lost, and so is what a slow machine sleeps.
		 */
		{ 100, 1, 10, 3000, 0.8 },
	};
	static uint64_t admitted_ns[20000];

	for (size_t c = 0; c < CASES(cases); c++) {
		struct world *w = world_new(LIMIT_LOCAL);
		struct limits_rule rule = rule_of("a", cases[c].limit, cases[c].window_s,
						  cases[c].burst);
		double per_s = (double)cases[c].limit / (double)cases[c].window_s;
		double burst = (double)rule.burst, seconds, most;
		uint64_t begin_ns;
		size_t count;

		if (!w)
			skip();
		count = run_load(w, &rule, 2500, cases[c].every_us, admitted_ns,
				 CASES(admitted_ns));
		assert_true(count > 1);
		/* At the very start nobody knows of the others: that is paid back, not prevented.
		 */
		begin_ns = admitted_ns[0] + NSEC_PER_SEC;
		for (size_t from = 0; from < count; from++) {
			if (admitted_ns[from] < begin_ns)
				continue;
			for (size_t to = from; to < count; to += 7) {
				seconds = (double)(admitted_ns[to] - admitted_ns[from]) / 1e9;
				most = (burst + per_s * seconds) * 1.05 + 1;
				if ((double)(to - from + 1) > most)
					fail_msg("%zu in %.3f s, where %.1f may (limit %" PRIu64
						 ")",
						 to - from + 1, seconds, most, cases[c].limit);
			}
		}
		seconds = (double)(admitted_ns[count - 1] - admitted_ns[0]) / 1e9;
		/* What is granted and not used at the end; more where the machine is busy. */
		if ((double)count < (burst + per_s * seconds) * cases[c].least - 3 - per_s / 5)
			fail_msg("only %zu in %.3f s (limit %" PRIu64 ")", count, seconds,
				 cases[c].limit);
		world_free(w);
	}
}

/*
 * A request that a second rule refuses gives back what it took of the first; when Redis was told of
 * it in between, less than nothing is owed, and that is not four thousand million.
 */
static void what_was_told_can_be_given_back(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule rule = rule_of("a", 10, 3600, 0);
	_Atomic uint64_t tag = 7, full_at_ns = rule.token_ns - 1;
	struct limits_lease lease = { .owed = 0 };
	struct limits_slot slot = { &tag, &full_at_ns, 7, &lease };
	struct net_addr client;
	struct limits_subject subject = { .client = &client, .endpoint = STR("r") };
	struct limit_store_stats stats;
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;

	if (!w)
		skip();
	assert_int_equal(net_parse_ip(&client, STR("192.0.2.9"), 1), 0);
	limits_give_back(&slot, rule.token_ns);
	assert_int_equal(full_at_ns, 0);
	atomic_fetch_add(&lease.seen, 1);
	limit_store_touch(w->gateways[0].store, &slot, &rule, &subject, clock_mono_ns());
	do {
		assert_true(clock_mono_ms() < until_ms);
		usleep(1000);
		limit_store_get_stats(w->gateways[0].store, &stats);
	} while (stats.answers == 0 || stats.keys > 0);
	assert_int_equal(lease.owed, 0);
	assert_true(full_at_ns <= clock_mono_ns());
	world_free(w);
}

/* --- while Redis is away
 * --------------------------------------------------------------------------
 */

static uint64_t admitted_of(struct gateway *g, const struct limits_rule *rule, const char *ip,
			    int count)
{
	uint64_t admitted = 0;

	while (count-- > 0)
		admitted += check(g, rule, ip).is_allowed;
	return admitted;
}

static void alone_each_has_its_share(void **state)
{
	struct world *w = world_new(LIMIT_LOCAL);
	struct limits_rule rule = rule_of("a", 30, 3600, 0);

	if (!w)
		skip();
	server_stop(w);
	wait_until_common(w, false);
	for (int i = 0; i < GATEWAYS; i++)
		assert_int_equal(admitted_of(&w->gateways[i], &rule, "192.0.2.1", 40), 10);
	limit_store_set_gateways(w->gateways[0].store, 2);
	assert_int_equal(admitted_of(&w->gateways[0], &rule, "192.0.2.2", 40), 15);
	/* A smaller limit than gateways: one each rather than none. */
	rule = rule_of("b", 1, 3600, 0);
	assert_int_equal(admitted_of(&w->gateways[1], &rule, "192.0.2.1", 5), 1);
	/* It comes back by itself, and knows what was admitted meanwhile. */
	server_start(w);
	wait_until_common(w, true);
	rule = rule_of("a", 30, 3600, 0);
	assert_int_equal(admitted_of(&w->gateways[1], &rule, "192.0.2.3", 40), 30);
	world_free(w);
}

static void open_lets_all_pass(void **state)
{
	struct world *w = world_new(LIMIT_OPEN);
	struct limits_rule rule = rule_of("a", 3, 3600, 0);

	if (!w)
		skip();
	assert_int_equal(admitted_of(&w->gateways[0], &rule, "192.0.2.1", 10), 3);
	/* All told: else this Redis, which forgets, would hear of the rest alone. */
	wait_until_settled(w);
	server_stop(w);
	wait_until_common(w, false);
	assert_int_equal(admitted_of(&w->gateways[0], &rule, "192.0.2.1", 10), 10);
	server_start(w);
	wait_until_common(w, true);
	assert_int_equal(admitted_of(&w->gateways[0], &rule, "192.0.2.1", 10), 0);
	world_free(w);
}

static void closed_refuses_all(void **state)
{
	struct world *w = world_new(LIMIT_CLOSED);
	struct limits_rule rule = rule_of("a", 3, 3600, 0);
	struct limits_verdict v;

	if (!w)
		skip();
	server_stop(w);
	wait_until_common(w, false);
	v = check(&w->gateways[0], &rule, "192.0.2.1");
	assert_false(v.is_allowed);
	assert_int_equal(limits_retry_after_s(&v), 1);
	server_start(w);
	wait_until_common(w, true);
	assert_int_equal(admitted_of(&w->gateways[0], &rule, "192.0.2.1", 10), 3);
	world_free(w);
}

/* Redis answers, and refuses every script: that is a failure as well, and it ends. */
static void a_refused_script_is_a_failure(void **state)
{
	struct world *w = world_new(LIMIT_OPEN);
	struct limits_rule rule = rule_of("a", 3, 3600, 0);
	char command[256];

	if (!w)
		skip();
	snprintf(command, sizeof(command), "redis-cli -s %s config set maxmemory 1 >/dev/null",
		 w->socket);
	assert_int_equal(system(command), 0); // NOLINT(cert-env33-c): our own words
	check(&w->gateways[0], &rule, "192.0.2.1");
	for (int i = 0; limit_store_is_common(w->gateways[0].store); i++) {
		assert_true(i < PATIENCE_MS);
		usleep(1000);
	}
	snprintf(command, sizeof(command), "redis-cli -s %s config set maxmemory 0 >/dev/null",
		 w->socket);
	assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
	wait_until_common(w, true);
	world_free(w);
}

/* --- the script itself
 * ----------------------------------------------------------------------------
 */

struct asked {
	int64_t items[LIMIT_SCRIPT_ITEMS];
	int answers, ups;
};

static void on_script(const struct redis_answer *answer, void *arg)
{
	struct asked *asked = arg;

	assert_int_equal(answer->error, 0);
	for (size_t i = 0; i < LIMIT_SCRIPT_ITEMS; i++)
		assert_true(redis_int(redis_item(answer->reply, i), &asked->items[i]));
	asked->answers++;
}

static void on_state(struct redis *r, bool is_up, const char *detail, void *arg)
{
	(void)r;
	(void)detail;
	((struct asked *)arg)->ups += is_up;
}

static void step_until(struct loop *loop, const int *counter, int value)
{
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;

	while (*counter < value) {
		assert_true(clock_mono_ms() < until_ms);
		loop_step(loop, 20);
	}
}

/* A request an hour: while the test runs nothing is earned, and whole numbers tell it all. */
static void the_script_agrees_with_a_count(void **state)
{
	const uint64_t token_us = 3600ULL * 1000000, burst = 50;
	struct world *w = world_new(LIMIT_LOCAL);
	struct asked asked = { .answers = 0 };
	struct redis_options options = { .on_state = on_state, .arg = &asked };
	struct redis_script script;
	struct loop *loop;
	struct redis *redis;
	int64_t debt = 0, clock_us = 0;

	if (!w)
		skip();
	loop = loop_new();
	options.url = w->options.url;
	redis = redis_new(loop, &options);
	redis_script_init(&script, limit_script_text);
	step_until(loop, &asked.ups, 1);
	for (int i = 0; i < 2000; i++) {
		/* Mostly near the limit; now and then more is given back than was taken. */
		int64_t settle = (int64_t)(random_u64() % 8) - (debt > 40 ? 6 : 3);
		int64_t want = (int64_t)(random_u64() % 20), room, granted = 0;
		int64_t sharers = 1 + (int64_t)(random_u64() % 4);
		bool is_stale = random_u64() % 4 == 0;
		char text[7][32];
		struct str args[8] = { STR("k") };

		snprintf(text[0], 32, "%" PRIu64, token_us);
		snprintf(text[1], 32, "%" PRIu64, token_us * burst);
		snprintf(text[2], 32, "%" PRId64, settle);
		snprintf(text[3], 32, "%" PRId64, want);
		snprintf(text[4], 32, "0");
		snprintf(text[5], 32, "%" PRId64, sharers);
		snprintf(text[6], 32, "%" PRId64, is_stale ? clock_us - 5 : clock_us);
		for (size_t n = 0; n < CASES(text); n++)
			args[n + 1] = str_from(text[n]);
		asked.answers = 0;
		assert_int_equal(redis_eval(redis, &script, 1, args, 8, on_script, &asked), 0);
		step_until(loop, &asked.answers, 1);

		assert_int_equal(asked.items[LIMIT_SCRIPT_MOVED], debt > 0 && is_stale);
		debt = MAX(debt + settle, 0L);
		room = (int64_t)burst - debt;
		if (room > 0)
			granted = MIN(want, (room + sharers - 1) / sharers);
		debt += granted;
		assert_int_equal(asked.items[LIMIT_SCRIPT_GRANTED], granted);
		clock_us = asked.items[LIMIT_SCRIPT_CLOCK];
		assert_in_range(asked.items[LIMIT_SCRIPT_DEBT] + (int64_t)token_us / 2,
				(uint64_t)debt * token_us, (uint64_t)debt * token_us + token_us);
	}
	redis_free(&redis);
	loop_free(loop);
	world_free(w);
}

/* Somebody else wrote there: those keys begin anew, and nothing fails. */
static void what_is_not_ours_is_written_anew(void **state)
{
	static const char *const others[] = { "'LPUSH',k,'x'", "'SET',k,'nan'", "'SET',k,'x'",
					      "'SET',k,'-inf'" };
	struct world *w = world_new(LIMIT_CLOSED);
	struct limits_rule rule = rule_of("a", 10, 3600, 0);
	char command[512];

	if (!w)
		skip();
	for (size_t i = 0; i < CASES(others); i++) {
		struct limit_store_stats stats;

		assert_true(check(&w->gateways[0], &rule, "192.0.2.1").is_allowed);
		wait_until_settled(w);
		snprintf(command, sizeof(command),
			 "redis-cli -s %s eval \"for _,k in ipairs(redis.call('KEYS','t:*')) do "
			 "redis.call('DEL',k) redis.call(%s) end\" 0 >/dev/null",
			 w->socket, others[i]);
		assert_int_equal(system(command), 0); // NOLINT(cert-env33-c): our own words
		assert_true(check(&w->gateways[0], &rule, "192.0.2.1").is_allowed);
		wait_until_settled(w);
		limit_store_get_stats(w->gateways[0].store, &stats);
		assert_int_equal(stats.errors, 0);
		snprintf(command, sizeof(command),
			 "redis-cli -s %s eval \"for _,k in ipairs(redis.call('KEYS','*')) do "
			 "if redis.call('TTL',k) < 0 then return 1 end end return 0\" 0 | "
			 "grep -qx 0",
			 w->socket);
		assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
		snprintf(command, sizeof(command), "redis-cli -s %s flushall >/dev/null",
			 w->socket);
		assert_int_equal(system(command), 0); // NOLINT(cert-env33-c)
	}
	world_free(w);
}

/* More new keys at once than Redis can be told of: it is not overrun, and nobody is refused. */
static void a_flood_of_keys_is_no_failure(void **state)
{
	struct world *w = world_new(LIMIT_CLOSED);
	struct limits_rule rule = rule_of("a", 3, 3600, 0);
	struct gateway *g;
	struct limit_store_stats stats;
	char ip[32];

	if (!w)
		skip();
	g = &w->gateways[0];
	for (int i = 0; i < 100000; i++) {
		snprintf(ip, sizeof(ip), "10.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
		assert_true(check(g, &rule, ip).is_allowed);
	}
	limit_store_get_stats(g->store, &stats);
	assert_true(stats.keys <= 65536);
	wait_until_settled(w);
	limit_store_get_stats(g->store, &stats);
	assert_int_equal(stats.failures, 0);
	assert_int_equal(stats.errors, 0);
	assert_true(stats.settled > 100);
	assert_true(limit_store_is_common(g->store));
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_one_admits_the_others_know),
		cmocka_unit_test(the_last_one_can_be_had_anywhere),
		cmocka_unit_test(what_was_too_much_is_paid_back),
		cmocka_unit_test(what_is_given_back_is_not_charged),
		cmocka_unit_test(the_limit_holds_under_load),
		cmocka_unit_test(what_was_told_can_be_given_back),
		cmocka_unit_test(alone_each_has_its_share),
		cmocka_unit_test(open_lets_all_pass),
		cmocka_unit_test(closed_refuses_all),
		cmocka_unit_test(a_refused_script_is_a_failure),
		cmocka_unit_test(the_script_agrees_with_a_count),
		cmocka_unit_test(what_is_not_ours_is_written_anew),
		cmocka_unit_test(a_flood_of_keys_is_no_failure),
	};

	log_init("test", LOG_TEXT, LOG_ERROR);
	return cmocka_run_group_tests_name("limit store", tests, NULL, NULL);
}
