/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/persist.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "registry/snapshot.h"

#define DELAY_MS 300  /* from a change to the copy: changes come in bursts */
#define RETRY_MS 5000 /* after a failure */

struct reg_persist {
	struct loop *loop;
	const struct reg_store *store;
	char *path;
	void (*on_failing)(const char *problem, void *arg);
	void *arg;
	struct loop_timer timer;
	struct reg_persist_stats stats;

	/* The writer; while is_writing, `image` and `result` are its own. */
	pthread_t thread;
	bool is_writing;
	struct buf image;
	uint64_t image_index, image_ms;
	int result;
	struct err error;
	struct loop_task done;
};

static bool persist_is_behind(const struct reg_persist *p)
{
	return p->stats.writes == 0 || reg_store_index(p->store) != p->stats.saved_index;
}

/* The quick half. */
static int persist_copy(struct reg_persist *p)
{
	buf_reset(&p->image, SIZE_MAX);
	p->image_index = reg_store_index(p->store);
	p->image_ms = clock_wall_ms();
	reg_snapshot_encode(p->store, p->image_ms, &p->image);
	return buf_failed(&p->image) ? -ENOMEM : 0;
}

/* The slow half. */
static int persist_write(struct reg_persist *p, struct err *err)
{
	reg_snapshot_seal(&p->image);
	return reg_snapshot_save(p->path, buf_str(&p->image), err);
}

static void persist_note(struct reg_persist *p, int result, const struct err *err)
{
	bool was_failing = p->stats.is_failing;

	p->stats.is_failing = result < 0;
	if (result < 0) {
		p->stats.failures++;
		p->stats.error = *err;
		if (!was_failing)
			p->on_failing(p->stats.error.text, p->arg);
		return;
	}
	p->stats.writes++;
	p->stats.saved_ms = p->image_ms;
	p->stats.saved_index = p->image_index;
	p->stats.bytes = buf_len(&p->image);
	if (was_failing)
		p->on_failing(NULL, p->arg);
}

static void persist_schedule(struct reg_persist *p)
{
	if (p->is_writing || loop_timer_is_pending(&p->timer))
		return;
	loop_timer_start(p->loop, &p->timer, p->stats.is_failing ? RETRY_MS : DELAY_MS);
}

static void *persist_thread(void *arg)
{
	struct reg_persist *p = arg;

	p->result = persist_write(p, &p->error);
	loop_post(p->loop, &p->done);
	return NULL;
}

static void persist_join(struct reg_persist *p)
{
	pthread_join(p->thread, NULL);
	p->is_writing = false;
	persist_note(p, p->result, &p->error);
}

static void persist_on_done(struct loop_task *task)
{
	struct reg_persist *p = container_of(task, struct reg_persist, done);

	/* Unless reg_persist_flush was faster. */
	if (!p->is_writing)
		return;
	persist_join(p);
	if (p->stats.is_failing || persist_is_behind(p))
		persist_schedule(p);
}

static void persist_on_timer(struct loop_timer *timer)
{
	struct reg_persist *p = container_of(timer, struct reg_persist, timer);
	int r = persist_copy(p);

	if (r == 0) {
		p->is_writing = true;
		r = -pthread_create(&p->thread, NULL, persist_thread, p);
	}
	if (r < 0) {
		struct err err;

		p->is_writing = false;
		err_set(&err, r, "cannot write %s: %s", p->path, strerror(-r));
		persist_note(p, r, &err);
		persist_schedule(p);
	}
}

void reg_persist_touch(struct reg_persist *p)
{
	persist_schedule(p);
}

int reg_persist_flush(struct reg_persist *p, struct err *err)
{
	int r;

	loop_timer_stop(p->loop, &p->timer);
	if (p->is_writing)
		persist_join(p);
	if (!persist_is_behind(p) && !p->stats.is_failing)
		return 0;
	r = persist_copy(p);
	if (r < 0)
		err_set(err, r, "cannot write %s: %s", p->path, strerror(-r));
	else
		r = persist_write(p, err);
	if (r == 0)
		persist_note(p, 0, err);
	return r;
}

struct reg_persist *reg_persist_new(struct loop *loop, const struct reg_store *store,
				    const char *path,
				    void (*on_failing)(const char *problem, void *arg), void *arg)
{
	struct reg_persist *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->path = strdup(path);
	if (!p->path) {
		free(p);
		return NULL;
	}
	p->loop = loop;
	p->store = store;
	p->on_failing = on_failing;
	p->arg = arg;
	p->timer.on_fire = persist_on_timer;
	p->done.run = persist_on_done;
	list_init(&p->done.node);
	buf_init(&p->image, 0);
	return p;
}

void reg_persist_free(struct reg_persist **pp)
{
	struct reg_persist *p = TAKE_PTR(*pp);

	if (!p)
		return;
	loop_timer_stop(p->loop, &p->timer);
	if (p->is_writing)
		pthread_join(p->thread, NULL);
	buf_fini(&p->image);
	free(p->path);
	free(p);
}

const struct reg_persist_stats *reg_persist_stats(const struct reg_persist *p)
{
	return &p->stats;
}
