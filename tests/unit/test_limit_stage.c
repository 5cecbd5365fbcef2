/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/gateway.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"
#include "lib/clock.h"
#include "tests/unit/unit.h"

/* What the stage looks at, and a client that hears nothing. */
struct world {
	struct gateway gateway;
	struct worker worker;
	struct snapshot snapshot;
	struct worker_conf conf;
	struct limits_rule rule;
	const struct limits_rule *rules[1];
	struct request r;
};

static void no_head(struct request *r)
{
}

static bool no_data(struct request *r, struct str data)
{
	return true;
}

static void no_end(struct request *r)
{
}

static const struct downstream_ops deaf = { .head = no_head, .data = no_data, .end = no_end };

static void begin(struct world *w, uint64_t limit, uint64_t window_s)
{
	struct limits_key_spec key;

	*w = (struct world) { .rules = { &w->rule } };
	assert_null(limits_parse_key(&key, STR("ip")));
	assert_null(limits_rule_init(&w->rule, STR("a"), &key, limit, window_s, 1));
	w->gateway.limits = limits_table_new(64);
	w->worker.loop = loop_new();
	assert_non_null(w->gateway.limits);
	assert_non_null(w->worker.loop);
	w->worker.gateway = &w->gateway;
	w->snapshot.default_limits = w->rules;
	w->snapshot.default_limit_count = 1;
	w->conf.snapshot = &w->snapshot;
	w->r = (struct request) {
		.worker = &w->worker, .conf = &w->conf, .down = &deaf, .protocol = "HTTP/1.1"
	};
	arena_init(&w->r.arena, 4096, 65536);
	assert_int_equal(net_parse_ip(&w->r.client, STR("192.0.2.1"), 1), 0);
}

static void end(struct world *w)
{
	arena_fini(&w->r.arena);
	loop_free(w->worker.loop);
	limits_table_free(&w->gateway.limits);
}

/* The worker is busy with something else, in the same round of its loop. */
static void be_held_up(const struct world *w, uint64_t ns)
{
	while (clock_mono_ns() - loop_now_ns(w->worker.loop) < ns)
		;
}

static void refuses_nobody_by_an_old_clock(void **state)
{
	struct world w;

	begin(&w, 1000, 1); /* one each millisecond */
	assert_int_equal(stage_limit_address(&w.r), STAGE_NEXT);
	be_held_up(&w, 2 * NSEC_PER_MSEC);
	assert_int_equal(stage_limit_address(&w.r), STAGE_NEXT);
	end(&w);
}

static void refuses_what_no_clock_would_let_pass(void **state)
{
	struct world w;

	begin(&w, 1, 86400);
	assert_int_equal(stage_limit_address(&w.r), STAGE_NEXT);
	be_held_up(&w, 2 * NSEC_PER_MSEC);
	assert_int_equal(stage_limit_address(&w.r), STAGE_RESPONDED);
	assert_int_equal(w.r.response.status, 429);
	assert_int_equal(w.r.reason, REASON_RATE_LIMITED);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_nobody_by_an_old_clock),
		cmocka_unit_test(refuses_what_no_clock_would_let_pass),
	};

	return cmocka_run_group_tests_name("limit stage", tests, NULL, NULL);
}
