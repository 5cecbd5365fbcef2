/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long what arrives waits before the worker comes to it: the queue in front of an event loop,
 * measured through the queue itself. Now and then, while requests come, an eventfd is written to;
 * epoll hands out what is ready in the order in which it became ready, so the time until it is
 * reported is the time that a connection made readable at that moment would have waited. Costs one
 * system call in 5 ms under load, nothing when idle. Belongs to the worker's thread.
 */
#pragma once

#include "lib/loop.h"

struct overload {
	struct loop *loop;
	struct loop_io io;
	bool is_out;          /* a probe is under way */
	uint64_t sent_ns;     /* the one that is or was the last */
	uint64_t reported_ns; /* when the last one was reported */
	uint64_t last_ns;     /* what it waited */
	uint64_t before_ns;   /* and the one before */
};

/* 0 or -errno. */
int overload_init(struct overload *o, struct loop *loop);
void overload_fini(struct overload *o);

/*
 * The delay at present: the shorter of the last two measures, so that one hiccup is none. Sends a
 * probe when it is time. `now_ns`: of the loop.
 */
uint64_t overload_delay_ns(struct overload *o, uint64_t now_ns);
