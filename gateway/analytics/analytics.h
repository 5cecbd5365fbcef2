/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last minute and hour of one worker: requests are counted into a tally for every two seconds,
 * these into one for every minute. Only the worker writes; a tally that is complete is published,
 * and the main thread reads without ever stopping the worker. So what is told is two seconds old.
 */
#pragma once

#include "gateway/analytics/tally.h"

struct analytics;
struct loop;
struct request;

enum analytics_window { ANALYTICS_MINUTE, ANALYTICS_HOUR };

/* NULL when out of memory. */
struct analytics *analytics_new(struct loop *loop);
/* After the worker has ended. NULL is fine. */
void analytics_free(struct analytics *a);

/* The worker: a request has ended. */
void analytics_note(struct analytics *a, const struct request *r, uint64_t latency_us);
/* Any thread: adds what was published of that window. */
void analytics_collect(struct analytics *a, enum analytics_window window, struct tally *into);

/* Who asked, as analytics and version reports name him. */
enum tally_kind analytics_consumer(const struct request *r, struct str *name);
