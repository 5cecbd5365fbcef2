/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/analytics.h"

#include <pthread.h>

#include "gateway/analytics/endpoint.h"
#include "gateway/request.h"
#include "gateway/snapshot.h"
#include "lib/clock.h"
#include "lib/loop.h"

#define SLOT_MS          2000
#define SLOTS_PER_MINUTE 30
#define MINUTES          60

#define SLOT_ENDPOINTS   256
#define SLOT_USERS       512
#define MINUTE_ENDPOINTS 512
#define MINUTE_USERS     1024

struct analytics {
	struct loop *loop;
	struct loop_timer timer;     /* publishes the slot when nothing follows */
	struct tally *slot, *minute; /* being filled; NULL: nothing yet */

	pthread_mutex_t lock; /* around the published ones; held for a few pointers */
	struct tally *slots[SLOTS_PER_MINUTE], *minutes[MINUTES]; /* by id */
};

static uint64_t slot_now(const struct analytics *a)
{
	return loop_now_ms(a->loop) / SLOT_MS;
}

/* --- the worker ---------------------------------------------------------------------------- */

static void publish(struct analytics *a, struct tally **place, struct tally **t)
{
	struct tally *old;

	pthread_mutex_lock(&a->lock);
	old = *place;
	*place = TAKE_PTR(*t);
	pthread_mutex_unlock(&a->lock);
	tally_put(&old);
}

static void close_minute(struct analytics *a)
{
	if (a->minute)
		publish(a, &a->minutes[a->minute->id % MINUTES], &a->minute);
}

static void close_slot(struct analytics *a)
{
	uint64_t minute = a->slot->id / SLOTS_PER_MINUTE;

	if (a->minute && a->minute->id != minute)
		close_minute(a);
	if (!a->minute) {
		a->minute = tally_new(MINUTE_ENDPOINTS, MINUTE_USERS);
		if (a->minute)
			a->minute->id = minute;
	}
	if (a->minute)
		tally_merge(a->minute, a->slot);
	publish(a, &a->slots[a->slot->id % SLOTS_PER_MINUTE], &a->slot);
}

static void on_timer(struct loop_timer *timer)
{
	struct analytics *a = container_of(timer, struct analytics, timer);
	uint64_t now = slot_now(a);

	if (a->slot && a->slot->id != now)
		close_slot(a);
	if (a->minute && a->minute->id != now / SLOTS_PER_MINUTE)
		close_minute(a);
	if (a->slot || a->minute)
		loop_timer_start(a->loop, &a->timer, SLOT_MS);
}

enum tally_kind analytics_consumer(const struct request *r, struct str *name)
{
	const struct identity *id = r->identity;

	if (id && id->key_id) {
		*name = id->key_id->text;
		return TALLY_KEY;
	}
	if (id && id->user) {
		*name = id->user->text;
		return TALLY_USER;
	}
	*name = r->client_ip;
	return TALLY_ADDRESS;
}

void analytics_note(struct analytics *a, const struct request *r, uint64_t latency_us)
{
	const struct gw_route *route = r->route ? r->route->conf : NULL;
	unsigned class = r->reason == REASON_CLIENT_GONE ? 0 : r->response.status / 100;
	struct tally_request t = {
		.version = route && route->version ? route->version->name : STR(""),
		.route = route ? route->name : STR(""),
		.status_class = class < 6 ? class : 0,
		.is_limited = r->limited_by.len > 0,
		.latency_us = latency_us,
	};
	uint64_t now = slot_now(a);
	char name[ENDPOINT_MAX];

	if (a->slot && a->slot->id != now)
		close_slot(a);
	if (!a->slot) {
		a->slot = tally_new(SLOT_ENDPOINTS, SLOT_USERS);
		if (!a->slot)
			return;
		a->slot->id = now;
		if (!loop_timer_is_pending(&a->timer))
			loop_timer_start(a->loop, &a->timer, SLOT_MS);
	}
	t.endpoint = endpoint_name(r, name);
	t.kind = analytics_consumer(r, &t.user);
	tally_note(a->slot, &t);
}

/* --- any thread ---------------------------------------------------------------------------- */

void analytics_collect(struct analytics *a, enum analytics_window window, struct tally *into)
{
	struct tally *taken[SLOTS_PER_MINUTE + MINUTES];
	/* Not the loop's time of this round: that belongs to the worker. */
	uint64_t now = clock_mono_ms() / SLOT_MS, minute = now / SLOTS_PER_MINUTE, known = 0;
	size_t count = 0;

	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; window == ANALYTICS_HOUR && i < MINUTES; i++) {
		struct tally *t = a->minutes[i];

		if (t && t->id + MINUTES > minute)
			taken[count++] = tally_ref(t);
		if (t && t->id + 1 > known)
			known = t->id + 1;
	}
	for (size_t i = 0; i < SLOTS_PER_MINUTE; i++) {
		struct tally *t = a->slots[i];
		bool is_wanted = t && (window == ANALYTICS_HOUR ? t->id / SLOTS_PER_MINUTE >= known
								: t->id + SLOTS_PER_MINUTE >= now);

		if (is_wanted)
			taken[count++] = tally_ref(t);
	}
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < count; i++) {
		tally_merge(into, taken[i]);
		tally_put(&taken[i]);
	}
}

/* --- life ---------------------------------------------------------------------------------- */

struct analytics *analytics_new(struct loop *loop)
{
	struct analytics *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->loop = loop;
	a->timer.on_fire = on_timer;
	pthread_mutex_init(&a->lock, NULL);
	return a;
}

void analytics_free(struct analytics *a)
{
	if (!a)
		return;
	loop_timer_stop(a->loop, &a->timer);
	tally_put(&a->slot);
	tally_put(&a->minute);
	for (size_t i = 0; i < SLOTS_PER_MINUTE; i++)
		tally_put(&a->slots[i]);
	for (size_t i = 0; i < MINUTES; i++)
		tally_put(&a->minutes[i]);
	pthread_mutex_destroy(&a->lock);
	free(a);
}
