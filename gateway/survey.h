/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the workers know of the instances of their services. Each is asked in its own thread, for
 * nobody else may look there, and the answers are added up in the main thread.
 */
#pragma once

#include "lib/arena.h"
#include "lib/net.h"
#include "lib/str.h"

struct gateway;

struct survey_row {
	struct str service;
	struct net_addr addr;
	unsigned workers; /* that know it */
	unsigned ejected; /* in so many of them */
	uint64_t in_flight, idle_connections;
	uint64_t requests, errors; /* attempts, and those that failed or got a 5xx */
	uint64_t latency_us;       /* of the worker where it is longest; 0: not known */
};

struct survey {
	struct arena arena;
	struct survey_row *rows;
	size_t count, room;
};

/* NULL when it is not known to any worker. */
const struct survey_row *survey_find(const struct survey *s, struct str service,
				     const struct net_addr *addr);

/* Calls back from the loop, with a survey that is gone after the call. All workers must run.
 * -ENOMEM, and nothing happens. */
int survey_start(struct gateway *g, void (*on_done)(const struct survey *s, void *arg), void *arg);
