/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lib/clock.h"

#define LOOP_BATCH 256

struct loop {
	int epoll_fd;
	uint64_t now_ns;
	struct wheel timers;
	struct list deferred;
	/* The round in progress, so that a removed descriptor's events can be struck out. */
	struct epoll_event batch[LOOP_BATCH];
	int batch_at, batch_len;
	bool is_stopping;

	struct loop_io wake; /* eventfd */
	pthread_mutex_t posted_lock;
	struct list posted;

	struct loop_io signals; /* signalfd, fd -1 while unused */
	sigset_t signal_set;
	struct {
		int signo;
		void (*on_signal)(int signo, void *arg);
		void *arg;
	} signal[LOOP_SIGNALS];
};

/*
 * The next posted task, NULL when there is none. Under the lock it becomes an unqueued one, so that
 * another thread may post it again while it runs.
 */
static struct loop_task *loop_take_posted(struct loop *loop)
{
	struct loop_task *task = NULL;

	pthread_mutex_lock(&loop->posted_lock);
	if (!list_empty(&loop->posted)) {
		task = container_of(loop->posted.next, struct loop_task, node);
		list_remove(&task->node);
		task->is_queued = false;
	}
	pthread_mutex_unlock(&loop->posted_lock);
	return task;
}

static void loop_on_wake(struct loop_io *io, uint32_t events)
{
	struct loop *loop = container_of(io, struct loop, wake);
	struct loop_task *task;
	uint64_t count;

	(void)events;
	if (read(io->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	while ((task = loop_take_posted(loop)) != NULL)
		task->run(task);
}

static void loop_on_signal(struct loop_io *io, uint32_t events)
{
	struct loop *loop = container_of(io, struct loop, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(io->fd, &info, sizeof(info)) == sizeof(info)) {
		for (int i = 0; i < LOOP_SIGNALS; i++) {
			if (loop->signal[i].signo == (int)info.ssi_signo)
				loop->signal[i].on_signal(loop->signal[i].signo,
							  loop->signal[i].arg);
		}
	}
}

static void loop_read_clock(struct loop *loop)
{
	loop->now_ns = clock_mono_ns();
}

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->wake.on_event = loop_on_wake;
	loop->signals.fd = -1;
	loop->signals.on_event = loop_on_signal;
	sigemptyset(&loop->signal_set);
	list_init(&loop->deferred);
	list_init(&loop->posted);
	pthread_mutex_init(&loop->posted_lock, NULL);
	loop_read_clock(loop);
	wheel_init(&loop->timers, loop_now_ms(loop));
	if (loop->epoll_fd < 0 || loop->wake.fd < 0 ||
	    loop_io_add(loop, &loop->wake, EPOLLIN) < 0) {
		int saved = errno;

		loop_free(loop);
		errno = saved;
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	cleanup_close(&loop->signals.fd);
	cleanup_close(&loop->wake.fd);
	cleanup_close(&loop->epoll_fd);
	pthread_mutex_destroy(&loop->posted_lock);
	free(loop);
}

uint64_t loop_now_ns(const struct loop *loop)
{
	return loop->now_ns;
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ns / NSEC_PER_MSEC;
}

int loop_io_add(struct loop *loop, struct loop_io *io, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, io->fd, &ev) < 0 ? -errno : 0;
}

int loop_io_modify(struct loop *loop, struct loop_io *io, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev) < 0 ? -errno : 0;
}

static void loop_strike_out(struct loop *loop, const struct loop_io *io)
{
	for (int i = loop->batch_at + 1; i < loop->batch_len; i++) {
		if (loop->batch[i].data.ptr == io)
			loop->batch[i].data.ptr = NULL;
	}
}

int loop_io_move(struct loop *loop, struct loop_io *from, struct loop_io *to, uint32_t events)
{
	int r;

	to->fd = from->fd;
	r = loop_io_modify(loop, to, events);
	if (r < 0)
		return r;
	loop_strike_out(loop, from);
	from->fd = -1;
	return 0;
}

void loop_io_remove(struct loop *loop, struct loop_io *io)
{
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
	loop_strike_out(loop, io);
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms)
{
	uint64_t now = loop_now_ms(loop);

	wheel_add(&loop->timers, &timer->wheel,
		  delay_ms > WHEEL_NEVER - now ? WHEEL_NEVER : now + delay_ms);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
	wheel_remove(&loop->timers, &timer->wheel);
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
	if (task->is_queued)
		return;
	task->is_queued = true;
	list_add_tail(&loop->deferred, &task->node);
}

void loop_cancel(struct loop_task *task)
{
	if (!task->is_queued)
		return;
	task->is_queued = false;
	list_remove(&task->node);
}

static void loop_wake(struct loop *loop)
{
	uint64_t one = 1;

	/* A full counter (EAGAIN) wakes the loop just as well. */
	if (write(loop->wake.fd, &one, sizeof(one)) < 0)
		return;
}

void loop_post(struct loop *loop, struct loop_task *task)
{
	pthread_mutex_lock(&loop->posted_lock);
	if (!task->is_queued) {
		task->is_queued = true;
		list_add_tail(&loop->posted, &task->node);
	}
	pthread_mutex_unlock(&loop->posted_lock);
	loop_wake(loop);
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->is_stopping, true, __ATOMIC_RELEASE);
	loop_wake(loop);
}

int loop_signal(struct loop *loop, int signo, void (*on_signal)(int signo, void *arg), void *arg)
{
	int slot = 0;
	int fd;

	while (slot < LOOP_SIGNALS && loop->signal[slot].signo)
		slot++;
	if (slot == LOOP_SIGNALS)
		return -ENOSPC;
	sigaddset(&loop->signal_set, signo);
	if (pthread_sigmask(SIG_BLOCK, &loop->signal_set, NULL))
		return -EINVAL;
	fd = signalfd(loop->signals.fd, &loop->signal_set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	loop->signal[slot].signo = signo;
	loop->signal[slot].on_signal = on_signal;
	loop->signal[slot].arg = arg;
	if (loop->signals.fd == fd)
		return 0;
	loop->signals.fd = fd;
	return loop_io_add(loop, &loop->signals, EPOLLIN);
}

static void loop_run_timers(struct loop *loop)
{
	struct list expired;
	struct wheel_timer *due;

	list_init(&expired);
	wheel_advance(&loop->timers, loop_now_ms(loop), &expired);
	while ((due = wheel_take(&expired)) != NULL) {
		struct loop_timer *timer = container_of(due, struct loop_timer, wheel);

		timer->on_fire(timer);
	}
}

static void loop_run_deferred(struct loop *loop)
{
	struct list now;

	list_init(&now);
	list_splice(&now, &loop->deferred);
	while (!list_empty(&now)) {
		struct loop_task *task = container_of(now.next, struct loop_task, node);

		loop_cancel(task);
		task->run(task);
	}
}

void loop_step(struct loop *loop, int timeout_ms)
{
	uint64_t next = wheel_next(&loop->timers);

	if (!list_empty(&loop->deferred))
		timeout_ms = 0;
	else if (next != WHEEL_NEVER && (timeout_ms < 0 || next < (uint64_t)timeout_ms))
		timeout_ms = (int)MIN(next, (uint64_t)60000);
	loop->batch_len = epoll_wait(loop->epoll_fd, loop->batch, LOOP_BATCH, timeout_ms);
	loop_read_clock(loop);
	for (loop->batch_at = 0; loop->batch_at < loop->batch_len; loop->batch_at++) {
		struct epoll_event *ev = &loop->batch[loop->batch_at];
		struct loop_io *io = ev->data.ptr;

		if (io)
			io->on_event(io, ev->events);
	}
	loop->batch_at = loop->batch_len = 0;
	loop_run_timers(loop);
	loop_run_deferred(loop);
}

void loop_run(struct loop *loop)
{
	while (!__atomic_load_n(&loop->is_stopping, __ATOMIC_ACQUIRE))
		loop_step(loop, -1);
}
