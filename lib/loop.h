/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop of one thread on epoll: descriptors, timers (millisecond steps), deferred tasks, tasks
 * posted by other threads, signals. All but loop_post and loop_stop is for the loop's own thread
 * only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "lib/list.h"
#include "lib/wheel.h"

struct loop;

/* A descriptor's interest; embed it. The descriptor stays its owner's to close. */
struct loop_io {
	void (*on_event)(struct loop_io *io, uint32_t events); /* EPOLL* bits */
	int fd;
};

/* Embed it, zeroed. Fires once; start it again for more. */
struct loop_timer {
	struct wheel_timer wheel;
	void (*on_fire)(struct loop_timer *timer);
};

/* Embed it, zeroed. */
struct loop_task {
	struct list node;
	void (*run)(struct loop_task *task);
	bool is_queued;
};

/* NULL with errno set when the kernel refuses. */
struct loop *loop_new(void);
/* Descriptors, timers and tasks still registered are simply forgotten. */
void loop_free(struct loop *loop);

/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* One round: waits at most timeout_ms (-1: as long as it takes). For tests and synchronous clients.
 */
void loop_step(struct loop *loop, int timeout_ms);
/* From any thread, also from within a callback; the loop ends after the current round. */
void loop_stop(struct loop *loop);

/* Time of this round, read once per round: for deadlines. */
uint64_t loop_now_ms(const struct loop *loop);
uint64_t loop_now_ns(const struct loop *loop);

/* `events`: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET …. Returns 0 or -errno. */
int loop_io_add(struct loop *loop, struct loop_io *io, uint32_t events);
int loop_io_modify(struct loop *loop, struct loop_io *io, uint32_t events);
/* `to` takes over the descriptor and interest of `from`, which is as if removed. What is readable
 * or writable already is reported again. */
int loop_io_move(struct loop *loop, struct loop_io *from, struct loop_io *to, uint32_t events);
/* Afterwards no event for it is delivered any more, not even of the round in progress. Before
 * close(). */
void loop_io_remove(struct loop *loop, struct loop_io *io);

/* Starts or restarts. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);
static inline bool loop_timer_is_pending(const struct loop_timer *timer)
{
	return timer->wheel.is_pending;
}

/* Runs at the end of this round (or of the next, if called from such a task). Queued once, however
 * often asked. */
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_cancel(struct loop_task *task);
/* From any thread: runs in the loop's thread. The task must stay untouched until it ran; posting it
 * again before that is fine, after it began to run too. A task is either posted or deferred, never
 * both. */
void loop_post(struct loop *loop, struct loop_task *task);

/*
 * Delivers a signal as a callback; the signal is blocked in the calling thread, so call this before
 * starting others. Returns 0 or -errno. At most LOOP_SIGNALS signals.
 */
#define LOOP_SIGNALS 8
int loop_signal(struct loop *loop, int signo, void (*on_signal)(int signo, void *arg), void *arg);
