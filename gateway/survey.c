/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/survey.h"

#include <errno.h>

#include "gateway/gateway.h"
#include "gateway/upstream/service.h"

#define ARENA_CHUNK 4096
#define ARENA_MAX   (64UL << 20)

struct round;

/* One worker's answer. */
struct part {
	struct loop_task task;
	struct round *round;
	struct worker *worker;
	struct survey survey;
};

struct round {
	struct loop_task done;
	unsigned left; /* workers that have not answered; atomic */
	void (*on_done)(const struct survey *s, void *arg);
	void *arg;
	unsigned count;
	struct gateway *gateway;
	struct part parts[];
};

/* A new row, zeroed but for its key; NULL when out of memory. */
static struct survey_row *add_row(struct survey *s, struct str service, const struct net_addr *addr)
{
	struct survey_row *row;

	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 32;
		struct survey_row *more = reallocarray(s->rows, room, sizeof(*more));

		if (!more)
			return NULL;
		s->rows = more;
		s->room = room;
	}
	row = &s->rows[s->count];
	*row = (struct survey_row) { .service = arena_str(&s->arena, service), .addr = *addr };
	if (!row->service.p)
		return NULL;
	s->count++;
	return row;
}

static struct survey_row *find_row(const struct survey *s, struct str service,
				   const struct net_addr *addr)
{
	for (size_t i = 0; i < s->count; i++) {
		if (net_addr_eq(&s->rows[i].addr, addr) && str_eq(s->rows[i].service, service))
			return &s->rows[i];
	}
	return NULL;
}

const struct survey_row *survey_find(const struct survey *s, struct str service,
				     const struct net_addr *addr)
{
	return find_row(s, service, addr);
}

static void survey_init(struct survey *s)
{
	*s = (struct survey) { 0 };
	arena_init(&s->arena, ARENA_CHUNK, ARENA_MAX);
}

static void survey_fini(struct survey *s)
{
	free(s->rows);
	arena_fini(&s->arena);
}

/* --- in the worker's thread
 * -----------------------------------------------------------------------------------------------
 */

static void describe_service(struct survey *s, const struct service *service, uint64_t now_ms)
{
	for (size_t i = 0; i < service->count; i++) {
		const struct endpoint *e = service->endpoints[i];
		struct survey_row *row = add_row(s, service->name, &e->addr);

		if (!row)
			return;
		row->workers = 1;
		row->ejected = !e->is_failing && endpoint_is_ejected(e, now_ms);
		row->in_flight = e->in_flight;
		row->idle_connections = e->idle_count;
		row->requests = e->requests;
		row->errors = e->errors;
		row->latency_us = e->latency_us;
	}
}

static void run_part(struct loop_task *task)
{
	struct part *part = container_of(task, struct part, task);
	const struct worker *w = part->worker;
	struct round *round = part->round;

	hmap_for_each (n, &w->services)
		describe_service(&part->survey, container_of(n, struct service, node),
				 loop_now_ms(w->loop));
	if (__atomic_sub_fetch(&round->left, 1, __ATOMIC_ACQ_REL) == 0)
		loop_post(round->gateway->loop, &round->done);
}

/* --- in the main thread
 * ---------------------------------------------------------------------------------------------------
 */

static void merge(struct survey *to, const struct survey *from)
{
	for (size_t i = 0; i < from->count; i++) {
		const struct survey_row *row = &from->rows[i];
		struct survey_row *sum = find_row(to, row->service, &row->addr);

		if (!sum)
			sum = add_row(to, row->service, &row->addr);
		if (!sum)
			return;
		sum->workers += row->workers;
		sum->ejected += row->ejected;
		sum->in_flight += row->in_flight;
		sum->idle_connections += row->idle_connections;
		sum->requests += row->requests;
		sum->errors += row->errors;
		sum->latency_us = MAX(sum->latency_us, row->latency_us);
	}
}

static void run_done(struct loop_task *task)
{
	struct round *round = container_of(task, struct round, done);
	struct survey all;

	survey_init(&all);
	for (unsigned i = 0; i < round->count; i++) {
		merge(&all, &round->parts[i].survey);
		survey_fini(&round->parts[i].survey);
	}
	round->on_done(&all, round->arg);
	survey_fini(&all);
	free(round);
}

int survey_start(struct gateway *g, void (*on_done)(const struct survey *s, void *arg), void *arg)
{
	struct round *round = calloc(1, sizeof(*round) + g->worker_count * sizeof(struct part));

	if (!round)
		return -ENOMEM;
	round->done.run = run_done;
	round->left = round->count = g->worker_count;
	round->on_done = on_done;
	round->arg = arg;
	round->gateway = g;
	for (unsigned i = 0; i < round->count; i++) {
		struct part *part = &round->parts[i];

		part->task.run = run_part;
		part->round = round;
		part->worker = g->workers[i];
		survey_init(&part->survey);
	}
	/* Only now: the last one to answer may be through before this loop is. */
	for (unsigned i = 0, n = round->count; i < n; i++)
		loop_post(g->workers[i]->loop, &round->parts[i].task);
	return 0;
}
