/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/overload.c"
#include "tests/unit/unit.h"

#define MS NSEC_PER_MSEC

/* An overload whose probes are reported by hand. */
static void begin(struct overload *o, struct loop **loop)
{
	*loop = loop_new();
	assert_non_null(*loop);
	assert_int_equal(overload_init(o, *loop), 0);
}

static void end(struct overload *o, struct loop *loop)
{
	overload_fini(o);
	loop_free(loop);
}

/* As if a probe had been sent and reported after this delay, just now. */
static void measured(struct overload *o, uint64_t delay_ns)
{
	o->is_out = true;
	o->sent_ns = clock_mono_ns() - delay_ns;
	on_report(&o->io, EPOLLIN);
}

static void one_long_wait_is_no_overload(void **state)
{
	struct overload o;
	struct loop *loop;

	begin(&o, &loop);
	measured(&o, 500 * MS);
	assert_int_equal(overload_delay_ns(&o, o.reported_ns), 0);
	measured(&o, 300 * MS);
	assert_in_range(overload_delay_ns(&o, o.reported_ns), 300 * MS, 500 * MS);
	measured(&o, 1 * MS);
	assert_in_range(overload_delay_ns(&o, o.reported_ns), 1 * MS, 300 * MS);
	measured(&o, 0);
	assert_in_range(overload_delay_ns(&o, o.reported_ns), 0, 100 * MS);
	end(&o, loop);
}

static void a_probe_under_way_counts_for_as_long_as_it_waits(void **state)
{
	struct overload o;
	struct loop *loop;

	begin(&o, &loop);
	measured(&o, 100 * MS);
	o.is_out = true;
	o.sent_ns = o.reported_ns;
	assert_int_equal(overload_delay_ns(&o, o.sent_ns), 0);
	assert_int_equal(overload_delay_ns(&o, o.sent_ns + 60 * MS), 60 * MS);
	/* Not more than the one before had: two in a row. */
	assert_int_equal(overload_delay_ns(&o, o.sent_ns + 900 * MS), o.last_ns);
	end(&o, loop);
}

static void an_old_measure_says_nothing(void **state)
{
	struct overload o;
	struct loop *loop;

	begin(&o, &loop);
	measured(&o, 500 * MS);
	measured(&o, 500 * MS);
	assert_true(overload_delay_ns(&o, o.reported_ns) >= 500 * MS);
	assert_int_equal(overload_delay_ns(&o, o.reported_ns + 1000 * MS), 0);
	end(&o, loop);
}

/* The real way through epoll: behind what was ready before, by the work that this takes. */
static void probe_waits_in_the_loops_own_queue(void **state)
{
	struct overload o;
	struct loop *loop;

	begin(&o, &loop);
	assert_int_equal(overload_delay_ns(&o, clock_mono_ns()), 0);
	assert_true(o.is_out);
	for (uint64_t from = clock_mono_ns(); clock_mono_ns() < from + 20 * MS;)
		; /* the worker is busy */
	loop_step(loop, 0);
	assert_false(o.is_out);
	assert_true(o.last_ns >= 20 * MS);
	/* Not before its interval is over, and nothing by itself. */
	assert_int_equal(overload_delay_ns(&o, o.reported_ns + 1), 0);
	assert_false(o.is_out);
	overload_delay_ns(&o, o.reported_ns + 6 * MS);
	assert_true(o.is_out);
	loop_step(loop, 0);
	assert_false(o.is_out);
	end(&o, loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_long_wait_is_no_overload),
		cmocka_unit_test(a_probe_under_way_counts_for_as_long_as_it_waits),
		cmocka_unit_test(an_old_measure_says_nothing),
		cmocka_unit_test(probe_waits_in_the_loops_own_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
