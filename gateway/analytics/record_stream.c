/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/record_stream.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/loop.h"

#define QUEUE_BYTES  (4UL << 20) /* about 8,000 lines of each worker */
#define TICK_MS      20
#define MAX_PENDING  4096U /* lines that Redis was told and has not answered */
#define LINE_MAX     (64UL << 10)
#define STOP_WAIT_MS 1000
#define ANSWER_MS    5000 /* nobody is in a hurry, and lines sent again are there twice */

/* The consumer's side of a queue. Lines between tail and `sent` wait for Redis' answer. */
struct source {
	struct record_queue queue;
	uint64_t sent;
};

/* A line that waits for its answer; they come in order. */
struct pending {
	uint32_t source, len;
};

struct record_stream {
	/* --- any thread */
	pthread_mutex_t lock;
	struct gw_access_stream next; /* under the lock, as the two below */
	char next_key[RECORD_STREAM_KEY_MAX + 1];
	bool has_next;
	uint64_t written, refused, is_up;
	struct loop_task apply, stop;

	/* --- the thread's own */
	pthread_t thread;
	bool has_thread;
	struct loop *loop;
	struct loop_timer tick;
	struct redis *redis; /* NULL: switched off */
	struct redis_url url;
	char key[RECORD_STREAM_KEY_MAX + 1];
	char max_length[24];
	char connection[80];
	bool has_complained;         /* of Redis being away */
	bool has_complained_refused; /* ... of an error as its answer */
	bool has_complained_dropped; /* ... of a full queue */
	uint64_t dropped_before;
	uint64_t stop_ms; /* 0: not stopping; else when to give up */
	struct pending pending[MAX_PENDING];
	uint32_t pending_first, pending_count;
	struct buf line; /* one that goes over the end of its ring */
	unsigned turn;   /* whose lines are sent first */
	unsigned count;
	struct source sources[];
};

/* --- sending ------------------------------------------------------------------------------- */

static void on_answer(const struct redis_answer *answer, void *arg)
{
	struct record_stream *s = arg;
	struct pending p = s->pending[s->pending_first];
	struct record_queue *q = &s->sources[p.source].queue;

	s->pending_first = (s->pending_first + 1) % MAX_PENDING;
	s->pending_count--;
	/* Without an answer nobody knows: it stays, and is sent again. */
	if (!answer->reply)
		return;
	record_queue_consume(q, q->tail + p.len);
	if (answer->error == 0) {
		metrics_inc(&s->written, 1);
		if (s->has_complained_refused)
			log_info("access log: Redis takes lines again");
		s->has_complained_refused = false;
		return;
	}
	metrics_inc(&s->refused, 1);
	if (!s->has_complained_refused)
		log_error("access log: Redis does not take lines for its stream: %s; they are "
			  "counted and dropped",
			  answer->problem);
	s->has_complained_refused = true;
}

/* The next line with its end, in one piece. len 0: none. */
static struct str next_line(struct record_stream *s, const struct source *source)
{
	const struct record_queue *q = &source->queue;
	size_t len = (size_t)(record_queue_head(q) - source->sent);
	size_t at = source->sent % q->size;
	size_t first = MIN(len, q->size - at);
	const char *end = first ? memchr(q->bytes + at, '\n', first) : NULL;

	if (end)
		return str_of(q->bytes + at, (size_t)(end - (q->bytes + at)) + 1);
	if (first == len)
		return (struct str) { 0 };
	end = memchr(q->bytes, '\n', len - first);
	if (!end)
		return (struct str) { 0 };
	buf_reset(&s->line, LINE_MAX);
	buf_append(&s->line, q->bytes + at, first);
	buf_append(&s->line, q->bytes, (size_t)(end - q->bytes) + 1);
	return buf_str(&s->line);
}

/* False: nothing there, or no room. */
static bool send_line(struct record_stream *s, unsigned index)
{
	struct source *source = &s->sources[index];
	struct str line = next_line(s, source);
	struct str args[] = {
		STR("XADD"), str_from(s->key), STR("MAXLEN"), STR("~"), str_from(s->max_length),
		STR("*"),    STR("line"),      { 0 },
	};

	if (line.len == 0 || s->pending_count == MAX_PENDING)
		return false;
	args[7] = str_sub(line, 0, line.len - 1);
	if (redis_command(s->redis, args, ARRAY_SIZE(args), on_answer, s) < 0)
		return false;
	s->pending[(s->pending_first + s->pending_count) % MAX_PENDING] =
		(struct pending) { index, (uint32_t)line.len };
	s->pending_count++;
	source->sent += line.len;
	return true;
}

static void send_all(struct record_stream *s)
{
	/* Another one first each time, so that a busy worker does not keep others out. */
	s->turn++;
	for (unsigned i = 0; i < s->count; i++) {
		while (send_line(s, (s->turn + i) % s->count))
			;
	}
}

static bool is_empty(const struct record_stream *s)
{
	for (unsigned i = 0; i < s->count; i++) {
		if (s->sources[i].queue.tail != record_queue_head(&s->sources[i].queue))
			return false;
	}
	return true;
}

static uint64_t dropped(const struct record_stream *s)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->count; i++)
		sum += metrics_get(&s->sources[i].queue.dropped);
	return sum;
}

static void look_at_drops(struct record_stream *s)
{
	uint64_t now = dropped(s);

	if (now != s->dropped_before && !s->has_complained_dropped) {
		log_warn("access log: the queue for Redis is full: lines for its stream are "
			 "counted and dropped");
		s->has_complained_dropped = true;
	}
	if (now == s->dropped_before && is_empty(s))
		s->has_complained_dropped = false;
	s->dropped_before = now;
}

static void on_tick(struct loop_timer *timer)
{
	struct record_stream *s = container_of(timer, struct record_stream, tick);

	if (s->redis && redis_is_up(s->redis))
		send_all(s);
	look_at_drops(s);
	if (s->stop_ms && (!s->redis || is_empty(s) || loop_now_ms(s->loop) >= s->stop_ms)) {
		loop_stop(s->loop);
		return;
	}
	/* Sleeping, rather than being woken by each request, makes lines cost no system call. */
	if (s->redis || s->stop_ms)
		loop_timer_start(s->loop, &s->tick, TICK_MS);
}

/* --- up and down --------------------------------------------------------------------------- */

/* Whatever has no answer will be sent again, in order. */
static void rewind_all(struct record_stream *s)
{
	for (unsigned i = 0; i < s->count; i++)
		s->sources[i].sent = s->sources[i].queue.tail;
}

static void on_state(struct redis *r, bool is_up, const char *detail, void *arg)
{
	struct record_stream *s = arg;
	char addr[NET_ADDR_LEN];

	(void)r;
	net_format(addr, &s->url.addr);
	metrics_set(&s->is_up, is_up);
	rewind_all(s);
	if (is_up)
		log_info("access log: Redis at %s: lines go to the stream %s", addr, s->key);
	else if (!s->has_complained)
		log_warn("access log: Redis at %s: %s; requests go on, lines for its stream wait "
			 "as far as there is room",
			 addr, detail);
	s->has_complained = !is_up;
}

static void switch_off(struct record_stream *s)
{
	redis_free(&s->redis);
	metrics_set(&s->is_up, 0);
	for (unsigned i = 0; i < s->count; i++) {
		struct record_queue *q = &s->sources[i].queue;

		record_queue_consume(q, record_queue_head(q));
	}
	rewind_all(s);
}

static void connect_to(struct record_stream *s, const struct redis_url *url)
{
	struct redis_options options = {
		.url = *url,
		.name = s->connection,
		.command_timeout_ms = ANSWER_MS,
		.backoff_max_ms = 2000,
		.max_pending = MAX_PENDING + 16,
		.max_reply = 1U << 20,
		.on_state = on_state,
		.arg = s,
	};

	redis_free(&s->redis);
	metrics_set(&s->is_up, 0);
	rewind_all(s);
	s->url = *url;
	s->has_complained = false;
	s->redis = redis_new(s->loop, &options);
	if (!s->redis)
		log_error("access log: no stream: out of memory; reload to try again");
}

static bool same_url(const struct redis_url *a, const struct redis_url *b)
{
	return net_addr_eq(&a->addr, &b->addr) && strcmp(a->user, b->user) == 0 &&
	       strcmp(a->password, b->password) == 0 && a->db == b->db;
}

static void on_apply(struct loop_task *task)
{
	struct record_stream *s = container_of(task, struct record_stream, apply);
	struct gw_access_stream next;
	bool has_next;

	pthread_mutex_lock(&s->lock);
	next = s->next;
	has_next = s->has_next;
	snprintf(s->key, sizeof(s->key), "%s", s->next_key);
	pthread_mutex_unlock(&s->lock);
	snprintf(s->max_length, sizeof(s->max_length), "%llu", (unsigned long long)next.max_length);
	if (!has_next)
		switch_off(s);
	else if (!s->redis || !same_url(&s->url, &next.url))
		connect_to(s, &next.url);
	if (s->redis && !loop_timer_is_pending(&s->tick))
		loop_timer_start(s->loop, &s->tick, TICK_MS);
}

static void on_stop(struct loop_task *task)
{
	struct record_stream *s = container_of(task, struct record_stream, stop);

	s->stop_ms = loop_now_ms(s->loop) + STOP_WAIT_MS;
	loop_timer_start(s->loop, &s->tick, 0);
}

/* --- life ---------------------------------------------------------------------------------- */

static void *stream_run(void *arg)
{
	struct record_stream *s = arg;

	pthread_setname_np(pthread_self(), "access-stream");
	loop_run(s->loop);
	return NULL;
}

/* Signals are the main thread's. */
static int start_thread(struct record_stream *s)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&s->thread, NULL, stream_run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	s->has_thread = rc == 0;
	return -rc;
}

int record_stream_new(struct record_stream **out, const struct gw_access_stream *conf,
		      unsigned queues, const char *name, struct err *err)
{
	size_t size = (sizeof(struct record_stream) + queues * sizeof(struct source) + 63) &
		      ~(size_t)63;
	struct record_stream *s = aligned_alloc(64, size);
	bool ok = true;
	int rc;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	memset(s, 0, size);
	pthread_mutex_init(&s->lock, NULL);
	buf_init(&s->line, LINE_MAX);
	snprintf(s->connection, sizeof(s->connection), "%s", name);
	s->apply.run = on_apply;
	s->stop.run = on_stop;
	s->tick.on_fire = on_tick;
	s->count = queues;
	for (unsigned i = 0; i < queues; i++)
		ok &= record_queue_init(&s->sources[i].queue, QUEUE_BYTES);
	s->loop = loop_new();
	if (!ok || !s->loop) {
		record_stream_free(&s);
		return err_set(err, -ENOMEM, "access log: out of memory or descriptors");
	}
	rc = start_thread(s);
	if (rc < 0) {
		record_stream_free(&s);
		return err_set(err, rc, "access log: cannot start a thread");
	}
	record_stream_set(s, conf);
	*out = s;
	return 0;
}

void record_stream_free(struct record_stream **sp)
{
	struct record_stream *s = *sp;

	if (!s)
		return;
	*sp = NULL;
	if (s->has_thread) {
		loop_post(s->loop, &s->stop);
		pthread_join(s->thread, NULL);
	}
	redis_free(&s->redis);
	if (s->loop)
		loop_free(s->loop);
	for (unsigned i = 0; i < s->count; i++)
		record_queue_fini(&s->sources[i].queue);
	buf_fini(&s->line);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

void record_stream_set(struct record_stream *s, const struct gw_access_stream *conf)
{
	pthread_mutex_lock(&s->lock);
	s->has_next = conf != NULL;
	if (conf) {
		s->next = *conf;
		snprintf(s->next_key, sizeof(s->next_key), "%s", conf->key.p);
	}
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->count; i++)
		__atomic_store_n(&s->sources[i].queue.is_on, conf != NULL, __ATOMIC_RELAXED);
	loop_post(s->loop, &s->apply);
}

struct record_queue *record_stream_queue(struct record_stream *s, unsigned index)
{
	return &s->sources[index].queue;
}

void record_stream_stats(const struct record_stream *s, struct record_stream_stats *out)
{
	*out = (struct record_stream_stats) {
		.written = metrics_get(&s->written),
		.dropped = dropped(s),
		.refused = metrics_get(&s->refused),
		.is_up = metrics_get(&s->is_up) != 0,
	};
}
