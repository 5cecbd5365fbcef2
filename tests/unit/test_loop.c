/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "tests/unit/unit.h"

struct end {
	struct loop_io io;
	struct loop *loop;
	struct end *victim; /* removed when this one has an event */
	int events;
};

static void on_event(struct loop_io *io, uint32_t events)
{
	struct end *e = container_of(io, struct end, io);

	e->events++;
	if (e->victim) {
		loop_io_remove(e->loop, &e->victim->io);
		e->victim = NULL;
	}
}

/* Both ends are readable in the same round; whichever comes first removes the other. */
static void a_removed_descriptor_gets_no_event_of_the_round(void **state)
{
	struct loop *loop = loop_new();
	int a[2], b[2];

	assert_non_null(loop);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	struct end first = { .io = { .fd = a[0], .on_event = on_event }, .loop = loop };
	struct end second = { .io = { .fd = b[0], .on_event = on_event }, .loop = loop };
	first.victim = &second;
	second.victim = &first;
	assert_int_equal(loop_io_add(loop, &first.io, EPOLLIN), 0);
	assert_int_equal(loop_io_add(loop, &second.io, EPOLLIN), 0);
	assert_int_equal(write(a[1], "x", 1), 1);
	assert_int_equal(write(b[1], "x", 1), 1);
	loop_step(loop, 1000);
	assert_int_equal(first.events + second.events, 1);
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
	loop_free(loop);
}

static int runs;
static struct loop *running;

static void again(struct loop_task *task)
{
	if (++runs < 3)
		loop_defer(running, task);
}

static void deferred_tasks_run_once_per_round(void **state)
{
	struct loop_task task = { .run = again };

	running = loop_new();
	runs = 0;
	loop_defer(running, &task);
	loop_defer(running, &task); /* queued once */
	loop_step(running, 1000);
	assert_int_equal(runs, 1);
	loop_step(running, 1000);
	assert_int_equal(runs, 2);
	loop_cancel(&task);
	loop_step(running, 0);
	assert_int_equal(runs, 2);
	loop_free(running);
}

static void stop(struct loop_task *task)
{
	runs++;
	loop_stop(running);
}

static struct loop_task from_thread = { .run = stop };

static void *post(void *arg)
{
	loop_post(running, &from_thread);
	return NULL;
}

static void another_thread_can_post(void **state)
{
	pthread_t thread;

	running = loop_new();
	runs = 0;
	assert_int_equal(pthread_create(&thread, NULL, post, NULL), 0);
	loop_run(running);
	pthread_join(thread, NULL);
	assert_int_equal(runs, 1);
	loop_free(running);
}

static int order[3], fired;

struct numbered {
	struct loop_timer timer;
	int number;
};

static void on_fire(struct loop_timer *timer)
{
	order[fired++] = container_of(timer, struct numbered, timer)->number;
	if (fired == 2)
		loop_stop(running);
}

static void timers_fire_in_order_and_can_be_stopped(void **state)
{
	struct numbered a = { { .on_fire = on_fire }, 1 }, b = { { .on_fire = on_fire }, 2 },
			c = { { .on_fire = on_fire }, 3 };

	running = loop_new();
	fired = 0;
	loop_timer_start(running, &a.timer, 20);
	loop_timer_start(running, &b.timer, 2);
	loop_timer_start(running, &c.timer, 5);
	loop_timer_stop(running, &c.timer);
	loop_run(running);
	assert_int_equal(order[0], 2);
	assert_int_equal(order[1], 1);
	loop_free(running);
}

static void on_signal(int signo, void *arg)
{
	*(int *)arg = signo;
	loop_stop(running);
}

static void signals_become_callbacks(void **state)
{
	int got = 0;

	running = loop_new();
	assert_int_equal(loop_signal(running, SIGUSR2, on_signal, &got), 0);
	raise(SIGUSR2);
	loop_run(running);
	assert_int_equal(got, SIGUSR2);
	loop_free(running);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_removed_descriptor_gets_no_event_of_the_round),
		cmocka_unit_test(deferred_tasks_run_once_per_round),
		cmocka_unit_test(another_thread_can_post),
		cmocka_unit_test(timers_fire_in_order_and_can_be_stopped),
		cmocka_unit_test(signals_become_callbacks),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
