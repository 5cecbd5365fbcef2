/* SPDX-License-Identifier: Apache-2.0 */
/* The connections, when the store is ready, and the writes of clients. */
#include "registry/shared/shared.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/http_server.h"
#include "lib/loop.h"
#include "registry/quota.h"
#include "registry/shared/private.h"

#define TICK_MS      50
#define CHECK_MS     500  /* whether Redis is still the one we know, without being asked to write */
#define PATIENCE_MS  1000 /* for getting ready before anybody is told that the store is away */
#define WAIT_MS      2000 /* of a write, for us to get ready */
#define MAX_PENDING  16384
#define MAX_OUT      (64UL << 20)
#define NEWS_MS      10000 /* between two times the same */
#define FLUSH_MAX_MS 1000

/* A write on its way. */
struct shared_job {
	struct list node;
	struct reg_shared *s;
	struct reg_write *write;  /* NULL: the client has gone, or it is our own */
	struct reg_quota *client; /* whom a new instance counts for */
	enum shared_script script;
	struct shared_args args;
	int result;
	uint64_t index;
	uint64_t begun_ms;
};

/* What fails is tried again soon, and fails for the same reason: that is told once in a while. */
static bool is_old_news(struct reg_shared *s, const char *text)
{
	uint64_t now_ms = loop_now_ms(s->writer.loop);
	struct shared_told *oldest = &s->told[0];

	for (size_t i = 0; i < ARRAY_SIZE(s->told); i++) {
		struct shared_told *told = &s->told[i];

		if (strcmp(told->text, text) == 0 && now_ms - told->at_ms < NEWS_MS)
			return true;
		if (told->at_ms < oldest->at_ms)
			oldest = told;
	}
	snprintf(oldest->text, sizeof(oldest->text), "%s", text);
	oldest->at_ms = now_ms;
	return false;
}

__attribute__((format(printf, 3, 0))) static void tell(struct reg_shared *s, bool is_trouble,
						       const char *fmt, va_list ap)
{
	char text[SHARED_NEWS];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (s->config.on_news && !is_old_news(s, text))
		s->config.on_news(text, is_trouble, s->config.arg);
}

void shared_news(struct reg_shared *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(s, false, fmt, ap);
	va_end(ap);
}

void shared_trouble(struct reg_shared *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(s, true, fmt, ap);
	va_end(ap);
}

/* --- writes ---------------------------------------------------------------------------------- */

static void job_free(struct shared_job *job)
{
	list_remove(&job->node);
	if (job->client)
		reg_quota_give(job->client);
	shared_args_fini(&job->args);
	free(job);
}

static void job_end(struct shared_job *job, int result, uint64_t index)
{
	struct reg_write *write = TAKE_PTR(job->write);
	struct str app, id;

	/* Also for a client that did not wait for the answer, or its limit would be none. */
	if (job->script == SHARED_PUT && result == REG_PUT_NEW &&
	    shared_name_split(job->args.v[0], &app, &id))
		reg_store_own(job->s->writer.store, app, id, job->client);
	if (write) {
		write->req->on_gone = NULL;
		write->done(write, result, index);
	}
	job_free(job);
}

static void job_on_gone(struct http_request *req)
{
	struct shared_job *job = req->user;

	job->write = NULL;
}

static void job_move(struct shared_job *job, struct list *to)
{
	list_remove(&job->node);
	list_add_tail(to, &job->node);
}

static void job_answered(struct shared_job *job, int result, uint64_t index)
{
	struct reg_shared *s = job->s;

	s->stats.writes++;
	job->result = result;
	job->index = index;
	if (result == REG_PUT_SAME && job->script == SHARED_PUT && job->write)
		reg_store_heard(s->writer.store, job->write->app, job->write->instance.id,
				loop_now_ms(s->writer.loop), loop_now_ms(s->writer.loop));
	/* Whoever wrote it shall read it here too. */
	if (index > reg_store_index(s->writer.store))
		job_move(job, &s->seen);
	else
		job_end(job, result, index);
}

static void job_on_answer(const struct redis_answer *answer, void *arg)
{
	struct shared_job *job = arg;
	struct reg_shared *s = job->s;
	int64_t code = shared_code(answer), index = 0;

	if (code == SHARED_OTHER_LIFE && job->write) {
		job_move(job, &s->queued);
		shared_recover(s, "Redis is not what it was");
	} else if (code == SHARED_UNKNOWN) {
		job_end(job, -ENOENT, 0);
	} else if (code < 0) {
		if (code == -EREMOTEIO)
			shared_trouble(s, "Redis refuses a write: %s", answer->problem);
		job_end(job, -EAGAIN, 0);
	} else {
		redis_int(redis_item(answer->reply, 1), &index);
		job_answered(job, (int)code, (uint64_t)index);
	}
}

static void job_send(struct shared_job *job)
{
	struct reg_shared *s = job->s;

	job_move(job, &s->sent);
	if (shared_eval(s, job->script, job->args.v, job->args.count, job_on_answer, job) < 0)
		job_end(job, -EAGAIN, 0);
}

static struct shared_job *job_new(struct reg_shared *s, enum shared_script script, struct str app,
				  struct str id)
{
	struct shared_job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->s = s;
	job->script = script;
	job->begun_ms = loop_now_ms(s->writer.loop);
	list_init(&job->node);
	shared_args_init(&job->args);
	shared_args_name(&job->args, app, id);
	return job;
}

static void add_put(struct shared_args *args, struct str app, const struct reg_instance *i,
		    uint64_t registered_ms, bool is_forced)
{
	shared_args_instance(args, app, i);
	shared_args_u64(args, registered_ms);
	shared_args_u64(args, i->lease_s * MSEC_PER_SEC + SHARED_LINGER_MS);
	shared_args_u64(args, is_forced);
}

static void add_write(struct shared_args *args, const struct reg_write *write)
{
	switch (write->op) {
	case REG_WRITE_PUT:
		add_put(args, write->app, &write->instance, clock_wall_ms(), false);
		break;
	case REG_WRITE_STATUS:
		shared_args_u64(args, write->override);
		shared_args_u64(args, write->reported);
		break;
	case REG_WRITE_REMOVE:
		break;
	}
}

static void own_send(struct shared_job *job)
{
	if (job->args.has_failed)
		job_free(job);
	else
		job_send(job);
}

static void shared_report(struct reg_writer *w, struct str app, struct str id,
			  enum reg_status reported)
{
	struct reg_shared *s = container_of(w, struct reg_shared, writer);
	struct shared_job *job;

	/* The next check finds it out again. */
	if (s->state != SHARED_READY)
		return;
	job = job_new(s, SHARED_STATUS, app, id);
	if (!job)
		return;
	shared_args_add(&job->args, STR(SHARED_AS_IT_IS));
	shared_args_u64(&job->args, reported);
	own_send(job);
}

static bool shared_is_away(const struct reg_writer *w)
{
	const struct reg_shared *s = container_of((uintptr_t)w, const struct reg_shared, writer);

	if (s->state == SHARED_READY)
		return false;
	return s->state == SHARED_AWAY || !w->is_loaded ||
	       loop_now_ms(w->loop) - s->since_ms > PATIENCE_MS;
}

static void shared_submit(struct reg_writer *w, struct reg_write *write)
{
	static const enum shared_script scripts[] = {
		[REG_WRITE_PUT] = SHARED_PUT,
		[REG_WRITE_REMOVE] = SHARED_REMOVE,
		[REG_WRITE_STATUS] = SHARED_STATUS,
	};
	struct reg_shared *s = container_of(w, struct reg_shared, writer);
	struct shared_job *job;
	int r = shared_is_away(w) ? -EAGAIN : 0;

	if (r == 0 && write->instance.id.len > REG_ID_MAX)
		r = -ENOENT;
	if (r == 0 && write->op == REG_WRITE_PUT)
		r = reg_store_may_put(w->store, write->app, &write->instance);
	if (r < 0) {
		write->done(write, r, 0);
		return;
	}
	if (write->op == REG_WRITE_PUT)
		write->instance.status = reg_store_status_of(w->store, write->app,
							     &write->instance);
	job = job_new(s, scripts[write->op], write->app, write->instance.id);
	if (job)
		add_write(&job->args, write);
	if (!job || job->args.has_failed) {
		if (job)
			job_free(job);
		write->done(write, -ENOMEM, 0);
		return;
	}
	job->write = write;
	job->client = reg_store_actor(w->store);
	if (job->client)
		reg_quota_take(job->client);
	write->req->user = job;
	write->req->on_gone = job_on_gone;
	if (s->state == SHARED_READY)
		job_send(job);
	else
		job_move(job, &s->queued);
}

void shared_put_back(struct reg_shared *s, struct str app, const struct reg_instance *i)
{
	struct shared_job *job = job_new(s, SHARED_PUT, app, i->id);

	if (!job)
		return;
	add_put(&job->args, app, i, i->registered_ms, true);
	own_send(job);
}

void shared_remove_again(struct reg_shared *s, struct str app, struct str id)
{
	struct shared_job *job = job_new(s, SHARED_REMOVE, app, id);

	if (job)
		own_send(job);
}

void shared_advanced(struct reg_shared *s)
{
	list_for_each_safe (node, &s->seen) {
		struct shared_job *job = container_of(node, struct shared_job, node);

		if (job->index <= reg_store_index(s->writer.store))
			job_end(job, job->result, job->index);
	}
	shared_find_lost(s);
}

/* Redis did it, but if it loses it nobody could put it back: we have not seen it. */
static void end_seen(struct reg_shared *s)
{
	while (!list_empty(&s->seen))
		job_end(container_of(s->seen.next, struct shared_job, node), -EAGAIN, 0);
}

static void end_queued(struct reg_shared *s, uint64_t begun_before_ms)
{
	while (!list_empty(&s->queued)) {
		struct shared_job *job = container_of(s->queued.next, struct shared_job, node);

		if (job->begun_ms > begun_before_ms)
			return;
		job_end(job, -EAGAIN, 0);
	}
}

/* --- getting ready --------------------------------------------------------------------------- */

void shared_enter(struct reg_shared *s, enum shared_state state)
{
	s->state = state;
	s->since_ms = loop_now_ms(s->writer.loop);
	s->stats.is_ready = state == SHARED_READY;
	if (state != SHARED_READY)
		s->writer.is_checker = false;
}

void shared_recover(struct reg_shared *s, const char *why)
{
	if (s->state != SHARED_READY && s->state != SHARED_AWAY)
		return;
	/* It begins by itself when both are there. */
	if (!redis_is_up(s->commands) || !redis_is_up(s->tail))
		return;
	if (s->state == SHARED_READY)
		shared_news(s, "%s; comparing", why);
	shared_enter(s, SHARED_CHECKING);
	s->generation++;
	shared_check(s);
}

void shared_ready(struct reg_shared *s)
{
	struct list again;

	shared_load_fini(s);
	s->must_load = false;
	s->writer.is_loaded = true;
	/* Nobody could tell the others of renewals for a while. */
	reg_store_grace(s->writer.store, loop_now_ms(s->writer.loop));
	shared_enter(s, SHARED_READY);
	s->checked_ms = s->since_ms;
	if (s->config.on_state && (s->is_told_away || !s->was_ready))
		s->config.on_state(true, s->why, s->config.arg);
	s->was_ready = true;
	s->is_told_away = false;
	s->why[0] = '\0';
	shared_advanced(s);
	list_init(&again);
	list_splice(&again, &s->queued);
	while (!list_empty(&again))
		job_send(container_of(again.next, struct shared_job, node));
	shared_follow(s);
}

static void on_connection(struct redis *r, bool is_up, const char *detail, void *arg)
{
	struct reg_shared *s = arg;

	(void)r;
	if (is_up) {
		if (redis_is_up(s->commands) && redis_is_up(s->tail))
			shared_recover(s, "");
		return;
	}
	if (!s->is_told_away) {
		s->is_told_away = true;
		snprintf(s->why, sizeof(s->why), "%s", detail);
		if (s->config.on_state)
			s->config.on_state(false, detail, s->config.arg);
	}
	s->generation++;
	shared_load_fini(s);
	shared_enter(s, SHARED_AWAY);
	end_seen(s);
	end_queued(s, UINT64_MAX);
}

static void on_tick(struct loop_timer *timer)
{
	struct reg_shared *s = container_of(timer, struct reg_shared, tick);
	uint64_t now_ms = loop_now_ms(s->writer.loop);

	loop_timer_start(s->writer.loop, timer, TICK_MS);
	if (now_ms > WAIT_MS)
		end_queued(s, now_ms - WAIT_MS);
	if (s->state == SHARED_READY) {
		shared_tell_renewals(s);
		if (now_ms - s->checked_ms >= CHECK_MS) {
			s->checked_ms = now_ms;
			shared_check(s);
		}
	} else if (s->state == SHARED_CHECKING && now_ms - s->checked_ms >= CHECK_MS) {
		/* Somebody else puts the state back. */
		s->checked_ms = now_ms;
		shared_check(s);
	}
}

/* --- the whole ------------------------------------------------------------------------------- */

static char *key_of(struct reg_shared *s, const char *name)
{
	char *key;

	return asprintf(&key, "%.*s%s", STR_ARG(s->config.prefix), name) < 0 ? NULL : key;
}

static struct redis *connect_to(struct reg_shared *s, const char *name)
{
	struct redis_options options = {
		.url = s->config.url,
		.name = name,
		.backoff_max_ms = 1000,
		.max_pending = MAX_PENDING,
		.max_out = MAX_OUT,
		.on_state = on_connection,
		.arg = s,
	};

	return redis_new(s->writer.loop, &options);
}

struct reg_shared *reg_shared_new(struct loop *loop, struct reg_store *store,
				  const struct reg_shared_config *config)
{
	static const struct reg_writer_ops ops = {
		.submit = shared_submit,
		.report = shared_report,
		.is_away = shared_is_away,
	};
	struct reg_shared *s = calloc(1, sizeof(*s));
	uint64_t random;

	if (!s)
		return NULL;
	s->writer = (struct reg_writer) { .ops = &ops, .loop = loop, .store = store };
	s->config = *config;
	list_init(&s->sent);
	list_init(&s->seen);
	list_init(&s->queued);
	list_init(&s->batches);
	list_init(&s->lost);
	list_init(&s->expire.node);
	arena_init(&s->due_arena, 16384, 0);
	arena_init(&s->rows_arena, 65536, 0);
	s->expire.run = shared_on_expire_task;
	s->tick.on_fire = on_tick;
	random_bytes(&random, sizeof(random));
	snprintf(s->origin, sizeof(s->origin), "%016llx", (unsigned long long)random);
	snprintf(s->last_id, sizeof(s->last_id), "0-0");
	shared_scripts_init(s);
	shared_enter(s, SHARED_AWAY);
	s->meta = key_of(s, "meta");
	s->ids = key_of(s, "ids");
	s->changes = key_of(s, "changes");
	s->hashes = key_of(s, "i:");
	s->commands = connect_to(s, "registryd");
	s->tail = connect_to(s, "registryd-changes");
	if (!s->meta || !s->ids || !s->changes || !s->hashes || !s->commands || !s->tail) {
		reg_shared_free(&s);
		return NULL;
	}
	loop_timer_start(loop, &s->tick, TICK_MS);
	return s;
}

void reg_shared_flush(struct reg_shared *s)
{
	uint64_t end_ms = clock_mono_ms() + FLUSH_MAX_MS;

	if (s->state != SHARED_READY)
		return;
	shared_tell_renewals(s);
	while ((!list_empty(&s->batches) || !list_empty(&s->sent)) && clock_mono_ms() < end_ms)
		loop_step(s->writer.loop, 10);
}

void reg_shared_free(struct reg_shared **sp)
{
	struct reg_shared *s = *sp;

	if (!s)
		return;
	loop_timer_stop(s->writer.loop, &s->tick);
	loop_cancel(&s->expire);
	s->generation++;
	redis_free(&s->commands);
	redis_free(&s->tail);
	end_seen(s);
	end_queued(s, UINT64_MAX);
	shared_load_fini(s);
	shared_lease_fini(s);
	arena_fini(&s->rows_arena);
	arena_fini(&s->due_arena);
	free(s->meta);
	free(s->ids);
	free(s->changes);
	free(s->hashes);
	free(s);
	*sp = NULL;
}

struct reg_writer *reg_shared_writer(struct reg_shared *s)
{
	return &s->writer;
}

const struct reg_shared_stats *reg_shared_stats(const struct reg_shared *s)
{
	return &s->stats;
}

const struct redis_stats *reg_shared_redis(const struct reg_shared *s)
{
	return redis_stats(s->commands);
}
