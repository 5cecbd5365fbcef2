/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/watch.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/list.h"
#include "lib/loop.h"

#define WAIT_DEFAULT_S 30
#define WAIT_MAX_S     300
#define APPS_MAX       REG_WATCH_APPS_MAX
#define COMMENT_MS     10000 /* a sign of life on idle streams */
#define EVENT_MAX      (256UL << 20)
#define EVENT_KEEP     (1UL << 20) /* memory kept between events */
#define RENDERINGS     8           /* kept until the next change */
#define SHARE_MIN      16384       /* lists from this size on are written once for all readers */

/* What waits for an app. Exists as long as somebody does. */
struct topic {
	struct hmap_node by_name;
	struct list waiters, subscriptions;
	size_t users; /* waiters, also woken ones, and subscriptions */
	char name[REG_APP_MAX + 1];
};

/* What a query asks for. */
struct filter {
	struct str app; /* p NULL: all apps */
	struct str zone;
	enum reg_status status;
};

/* A blocking query. In the request's arena. */
struct waiter {
	struct reg_watch *watch;
	struct http_request *req;
	struct filter filter;
	struct topic *topic; /* NULL: of all apps */
	struct list node;    /* in its topic, in watch->waiters, or in watch->woken */
	struct loop_timer deadline;
};

struct stream;

struct subscription {
	struct stream *stream;
	struct topic *topic;
	struct list node; /* in topic->subscriptions */
};

/* An event stream. In the request's arena. */
struct stream {
	struct reg_watch *watch;
	struct http_request *req;
	struct list node;    /* in watch->streams */
	struct list for_all; /* in watch->streams_of_all */
	struct subscription *subscriptions;
	size_t count; /* 0: all apps */
};

enum rendering_kind { LIST, RESET };

/* A list as it was last written, for the next who asks for the same. */
struct rendering {
	struct http_shared *bytes; /* NULL: none */
	enum rendering_kind kind;
	uint64_t index;
	char app[REG_APP_MAX + 1]; /* "": all */
};

struct reg_watch {
	struct loop *loop;
	const struct reg_store *store;
	struct hmap topics;
	struct list waiters; /* for all apps */
	struct list woken;
	struct list streams, streams_of_all;
	struct loop_task wake;
	struct loop_timer comment;
	struct buf event;
	struct rendering renderings[RENDERINGS];
	unsigned next_rendering;
	struct reg_watch_stats stats;
};

/* --- topics ---------------------------------------------------------------------------------- */

static struct topic *topic_find(const struct reg_watch *w, struct str name)
{
	uint64_t hash = hash_str(name);

	for (struct hmap_node *n = hmap_first(&w->topics, hash); n; n = hmap_next(n)) {
		struct topic *t = container_of(n, struct topic, by_name);

		if (str_eqz(name, t->name))
			return t;
	}
	return NULL;
}

static struct topic *topic_use(struct reg_watch *w, struct str name)
{
	struct topic *t = topic_find(w, name);

	if (t) {
		t->users++;
		return t;
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->users = 1;
	memcpy(t->name, name.p, name.len);
	list_init(&t->waiters);
	list_init(&t->subscriptions);
	if (hmap_insert(&w->topics, &t->by_name, hash_str(name)) < 0) {
		free(t);
		return NULL;
	}
	return t;
}

/* NULL is fine. */
static void topic_release(struct reg_watch *w, struct topic *t)
{
	if (!t || --t->users)
		return;
	hmap_remove(&w->topics, &t->by_name);
	free(t);
}

/* --- lists ----------------------------------------------------------------------------------- */

static void write_instances(struct json_writer *j, const struct reg_app *app,
			    const struct filter *f)
{
	json_open(j, "instances", '[');
	for (const struct reg_entry *e = app ? reg_app_next(app, NULL) : NULL; e;
	     e = reg_app_next(app, e)) {
		struct reg_instance i;

		reg_entry_get(e, &i);
		if (f->zone.p && !str_eq(i.zone, f->zone))
			continue;
		if (f->status != REG_NO_STATUS && reg_instance_status(&i) != f->status)
			continue;
		reg_instance_write(j, NULL, NULL, &i);
	}
	json_close(j, ']');
}

static void write_app(struct json_writer *j, const struct reg_app *app, const struct filter *f)
{
	json_open(j, NULL, '{');
	json_addz(j, "app", reg_app_get_name(app));
	write_instances(j, app, f);
	json_close(j, '}');
}

static void write_list(const struct reg_watch *w, const struct filter *f, struct buf *out)
{
	struct json_writer j = json_writer(out);

	json_open(&j, NULL, '{');
	json_add_u64(&j, "index", reg_store_index(w->store));
	if (f->app.p) {
		json_add_str(&j, "app", f->app);
		write_instances(&j, reg_store_app(w->store, f->app), f);
	} else {
		json_open(&j, "apps", '[');
		for (const struct reg_app *app = reg_store_next_app(w->store, NULL); app;
		     app = reg_store_next_app(w->store, app)) {
			if (reg_app_count(app))
				write_app(&j, app, f);
		}
		json_close(&j, ']');
	}
	json_close(&j, '}');
}

static void add_index(struct http_request *req, uint64_t index)
{
	char text[24];

	http_add_header(req, "X-Index",
			str_of(text, (size_t)snprintf(text, sizeof(text), "%llu",
						      (unsigned long long)index)));
}

/* The rendering of this app (p NULL: of all) if there is one that is still true. */
static struct http_shared *find_rendering(const struct reg_watch *w, enum rendering_kind kind,
					  struct str app)
{
	for (size_t i = 0; i < RENDERINGS; i++) {
		const struct rendering *r = &w->renderings[i];

		if (r->bytes && r->kind == kind && r->index == reg_store_index(w->store) &&
		    str_eqz(app, r->app))
			return r->bytes;
	}
	return NULL;
}

/* In the place of the one that was made the longest ago. */
static struct http_shared *keep_rendering(struct reg_watch *w, enum rendering_kind kind,
					  struct str app, struct http_request *req,
					  struct str bytes)
{
	struct rendering *r = &w->renderings[w->next_rendering++ % RENDERINGS];

	http_shared_put(&r->bytes);
	*r = (struct rendering) {
		.bytes = http_shared_new(req, bytes),
		.kind = kind,
		.index = reg_store_index(w->store),
	};
	if (app.len)
		memcpy(r->app, app.p, app.len);
	return r->bytes;
}

static void answer_too_slow(struct http_request *req)
{
	http_add_header(req, "Retry-After", STR("5"));
	http_problem(req, 503, "too many lists wait for readers that are slow");
}

static void answer_list(struct reg_watch *w, struct http_request *req, const struct filter *f)
{
	bool is_whole = !f->zone.p && f->status == REG_NO_STATUS;
	struct http_shared *shared = is_whole ? find_rendering(w, LIST, f->app) : NULL;
	struct buf *body;

	if (shared) {
		add_index(req, reg_store_index(w->store));
		http_respond_shared(req, 200, "application/json", shared);
		return;
	}
	body = http_scratch(req);

	write_list(w, f, body);
	if (buf_failed(body)) {
		http_problem(req, 503, "the list is too large to be written");
		return;
	}
	if (!is_whole || buf_len(body) < SHARE_MIN) {
		add_index(req, reg_store_index(w->store));
		http_respond_json(req, 200, buf_str(body));
		return;
	}
	shared = keep_rendering(w, LIST, f->app, req, buf_str(body));
	if (!shared) {
		answer_too_slow(req);
		return;
	}
	add_index(req, reg_store_index(w->store));
	http_respond_shared(req, 200, "application/json", shared);
}

/* --- blocking queries ------------------------------------------------------------------------ */

static void waiter_end(struct waiter *waiter)
{
	struct reg_watch *w = waiter->watch;

	list_remove(&waiter->node);
	loop_timer_stop(w->loop, &waiter->deadline);
	topic_release(w, waiter->topic);
	w->stats.waiters--;
}

static void waiter_answer(struct waiter *waiter)
{
	waiter_end(waiter);
	answer_list(waiter->watch, waiter->req, &waiter->filter);
}

static void waiter_on_deadline(struct loop_timer *timer)
{
	waiter_answer(container_of(timer, struct waiter, deadline));
}

static void waiter_on_gone(struct http_request *req)
{
	waiter_end(req->user);
}

/* At the end of the round: changes that come together are answered together. */
static void watch_on_wake(struct loop_task *task)
{
	struct reg_watch *w = container_of(task, struct reg_watch, wake);
	struct list now;

	list_init(&now);
	list_splice(&now, &w->woken);
	while (!list_empty(&now))
		waiter_answer(container_of(now.next, struct waiter, node));
}

static void waiter_start(struct reg_watch *w, struct http_request *req, const struct filter *f,
			 uint64_t wait_s)
{
	struct waiter *waiter = arena_new(req->arena, struct waiter);
	struct topic *topic = f->app.p ? topic_use(w, f->app) : NULL;

	if (!waiter || (f->app.p && !topic)) {
		topic_release(w, topic);
		http_problem(req, 503, "out of memory");
		return;
	}
	waiter->watch = w;
	waiter->req = req;
	waiter->filter = *f;
	waiter->topic = topic;
	waiter->deadline.on_fire = waiter_on_deadline;
	list_add_tail(topic ? &topic->waiters : &w->waiters, &waiter->node);
	loop_timer_start(w->loop, &waiter->deadline, wait_s * MSEC_PER_SEC);
	req->user = waiter;
	req->on_gone = waiter_on_gone;
	w->stats.waiters++;
}

/* A number of the query. Returns 0, -ENOENT, or -EINVAL after answering 400. */
static int query_number(struct http_request *req, const char *name, uint64_t max, uint64_t *out)
{
	struct str text;
	uint64_t v;
	int r = http_query(req, name, &text);

	if (r == -ENOENT)
		return r;
	if (r < 0 || !str_u64(text, &v) || v > max) {
		http_problem_field(req, 400, name, "must be an integer from 0 to %llu",
				   (unsigned long long)max);
		return -EINVAL;
	}
	*out = v;
	return 0;
}

/* Returns false after answering 400. */
static bool query_filter(struct http_request *req, struct filter *f)
{
	struct str text;
	int r = http_query(req, "zone", &f->zone);

	if (r == -EINVAL) {
		http_problem_field(req, 400, "zone", "malformed percent-encoding");
		return false;
	}
	r = http_query(req, "status", &text);
	if (r == -ENOENT)
		return true;
	f->status = r == 0 ? reg_status_parse(text) : REG_NO_STATUS;
	if (f->status == REG_NO_STATUS) {
		http_problem_field(req, 400, "status",
				   "must be UP, DOWN, STARTING or OUT_OF_SERVICE");
		return false;
	}
	return true;
}

static void watch_query(struct reg_watch *w, struct http_request *req, struct filter *f,
			uint64_t current)
{
	uint64_t index = 0, wait_s = WAIT_DEFAULT_S;
	int has_index;

	if (!query_filter(req, f))
		return;
	has_index = query_number(req, "index", INT64_MAX, &index);
	if (has_index == -EINVAL || query_number(req, "wait_s", WAIT_MAX_S, &wait_s) == -EINVAL)
		return;
	/* An index from the future is of another life of the registry: start over. */
	if (has_index == 0 && wait_s > 0 && index >= current && index <= reg_store_index(w->store))
		waiter_start(w, req, f, wait_s);
	else
		answer_list(w, req, f);
}

void reg_watch_apps(struct reg_watch *w, struct http_request *req)
{
	struct filter f = { 0 };

	watch_query(w, req, &f, reg_store_index(w->store));
}

void reg_watch_app(struct reg_watch *w, struct http_request *req)
{
	struct filter f = { 0 };
	char name[REG_APP_MAX + 1];

	if (!reg_app_name(req->params[0], name)) {
		http_problem_field(req, 400, "app",
				   "must have 1 to %d letters, digits, \".\", \"_\" or \"-\"",
				   REG_APP_MAX);
		return;
	}
	f.app = arena_str(req->arena, str_from(name));
	if (!f.app.p) {
		http_problem(req, 503, "out of memory");
		return;
	}
	watch_query(w, req, &f, reg_app_index(w->store, reg_store_app(w->store, f.app)));
}

/* --- event streams --------------------------------------------------------------------------- */

static const char *const event_names[] = {
	[REG_PUT] = "put",
	[REG_DELETE] = "delete",
	[REG_STATUS_CHANGE] = "status",
};

static void write_event(struct buf *out, const struct reg_entry *e)
{
	struct json_writer j = json_writer(out);
	struct reg_instance i;

	reg_entry_get(e, &i);
	buf_addz(out, "event: ");
	buf_addz(out, event_names[reg_entry_change(e)]);
	buf_addz(out, "\nid: ");
	buf_u64(out, i.index);
	buf_addz(out, "\ndata: ");
	reg_instance_write(&j, NULL, reg_entry_app(e), &i);
	buf_addz(out, "\n\n");
}

static bool stream_wants(const struct stream *st, const char *app)
{
	for (size_t i = 0; i < st->count; i++) {
		if (strcmp(st->subscriptions[i].topic->name, app) == 0)
			return true;
	}
	return st->count == 0;
}

/* The full state of what the stream asks for, in one event, so that a reader can swap at once. */
static void write_reset(const struct reg_watch *w, const struct stream *st, struct buf *out)
{
	const struct filter all = { 0 };
	struct json_writer j = json_writer(out);

	buf_addz(out, "event: reset\nid: ");
	buf_u64(out, reg_store_index(w->store));
	buf_addz(out, "\ndata: ");
	json_open(&j, NULL, '{');
	json_add_u64(&j, "index", reg_store_index(w->store));
	json_open(&j, "apps", '[');
	if (st->count == 0) {
		for (const struct reg_app *app = reg_store_next_app(w->store, NULL); app;
		     app = reg_store_next_app(w->store, app)) {
			if (reg_app_count(app))
				write_app(&j, app, &all);
		}
	}
	for (size_t i = 0; i < st->count; i++) {
		const struct reg_app *app =
			reg_store_app(w->store, str_from(st->subscriptions[i].topic->name));

		if (app && reg_app_count(app))
			write_app(&j, app, &all);
	}
	json_close(&j, ']');
	json_close(&j, '}');
	buf_addz(out, "\n\n");
}

static void write_missed(const struct reg_watch *w, const struct stream *st, uint64_t index,
			 struct buf *out)
{
	for (const struct reg_entry *e = reg_store_change_after(w->store, index); e;
	     e = reg_store_next_change(w->store, e)) {
		if (stream_wants(st, reg_entry_app(e)))
			write_event(out, e);
	}
	buf_addz(out, ": watching\n\n");
}

static void stream_unsubscribe(struct stream *st)
{
	for (size_t i = 0; i < st->count; i++) {
		list_remove(&st->subscriptions[i].node);
		topic_release(st->watch, st->subscriptions[i].topic);
	}
	st->count = 0;
}

static void stream_on_gone(struct http_request *req)
{
	struct stream *st = req->user;
	struct reg_watch *w = st->watch;

	list_remove(&st->node);
	list_remove(&st->for_all);
	stream_unsubscribe(st);
	if (--w->stats.streams == 0)
		loop_timer_stop(w->loop, &w->comment);
}

static int stream_subscribe(struct stream *st, struct str name)
{
	struct subscription *sub = &st->subscriptions[st->count];
	struct topic *topic = topic_use(st->watch, name);

	if (!topic)
		return -ENOMEM;
	sub->stream = st;
	sub->topic = topic;
	list_add_tail(&topic->subscriptions, &sub->node);
	st->count++;
	return 0;
}

/* The list of apps of the query. 0, -EINVAL, -ENOMEM. */
static int stream_read_apps(struct stream *st, struct http_request *req)
{
	struct str list, name;
	size_t most = 1;
	int r = http_query(req, "apps", &list);

	if (r == -ENOENT || (r == 0 && list.len == 0))
		return 0;
	if (r < 0)
		return r;
	for (size_t i = 0; i < list.len; i++)
		most += list.p[i] == ',';
	if (most > APPS_MAX)
		return -EINVAL;
	st->subscriptions = arena_array(req->arena, struct subscription, most);
	if (!st->subscriptions)
		return -ENOMEM;
	while (r == 0 && str_split(&list, ',', &name)) {
		char app[REG_APP_MAX + 1];

		if (!reg_app_name(name, app))
			r = -EINVAL;
		else if (st->count == 0 || !stream_wants(st, app))
			r = stream_subscribe(st, str_from(app));
	}
	return r;
}

/* From where on: the query, or what a browser's EventSource sends when it comes back. Negative
 * after answering 400. */
static int stream_read_index(struct http_request *req, uint64_t *index)
{
	int r = query_number(req, "index", INT64_MAX, index);

	if (r != -ENOENT)
		return r;
	*index = 0;
	str_u64(http_header(req, "Last-Event-ID"), index);
	return 0;
}

/* Which rendering a stream's full state is; false when it asks for several apps. */
static bool stream_app(const struct stream *st, struct str *app)
{
	*app = st->count ? str_from(st->subscriptions[0].topic->name) : (struct str) { 0 };
	return st->count <= 1;
}

static void stream_end(struct stream *st)
{
	struct http_request *req = st->req;

	stream_on_gone(req);
	http_stream_end(req);
}

/* Returns false when there is no memory for it, or too much of it in the hands of slow readers. */
static bool stream_write_reset(struct stream *st)
{
	struct reg_watch *w = st->watch;
	struct http_shared *shared;
	struct str app;
	bool is_shared = stream_app(st, &app);

	w->stats.resets++;
	shared = is_shared ? find_rendering(w, RESET, app) : NULL;
	if (!shared) {
		write_reset(w, st, &w->event);
		if (buf_failed(&w->event))
			return false;
		if (!is_shared || buf_len(&w->event) < SHARE_MIN) {
			http_stream_write(st->req, buf_str(&w->event));
			return true;
		}
		shared = keep_rendering(w, RESET, app, st->req, buf_str(&w->event));
	}
	return shared && http_stream_write_shared(st->req, shared);
}

static void stream_begin(struct stream *st, uint64_t index)
{
	struct reg_watch *w = st->watch;

	if (w->stats.streams++ == 0)
		loop_timer_start(w->loop, &w->comment, COMMENT_MS);
	st->req->user = st;
	st->req->on_gone = stream_on_gone;
	list_add_tail(&w->streams, &st->node);
	if (st->count == 0)
		list_add_tail(&w->streams_of_all, &st->for_all);
	buf_reset(&w->event, EVENT_KEEP);
	if (index == 0 || index < reg_store_history_index(w->store) ||
	    index > reg_store_index(w->store)) {
		if (!stream_write_reset(st))
			stream_end(st);
		return;
	}
	write_missed(w, st, index, &w->event);
	if (buf_failed(&w->event))
		stream_end(st);
	else
		http_stream_write(st->req, buf_str(&w->event));
}

void reg_watch_stream(struct reg_watch *w, struct http_request *req)
{
	struct stream *st = arena_new(req->arena, struct stream);
	uint64_t index = 0;
	int r;

	if (!st) {
		http_problem(req, 503, "out of memory");
		return;
	}
	if (stream_read_index(req, &index) < 0)
		return;
	st->watch = w;
	st->req = req;
	list_init(&st->node);
	list_init(&st->for_all);
	r = stream_read_apps(st, req);
	/* Undone before the answer: with it the arena goes. */
	if (r < 0 || req->method_id == METHOD_HEAD)
		stream_unsubscribe(st);
	if (r == -ENOMEM)
		http_problem(req, 503, "out of memory");
	else if (r < 0)
		http_problem_field(req, 400, "apps",
				   "must be at most %d names of apps with commas between",
				   APPS_MAX);
	else if (http_stream_start(req, 200, "text/event-stream"))
		stream_begin(st, index);
}

static void stream_send(struct stream *st, struct str event)
{
	if (http_stream_write(st->req, event))
		st->watch->stats.events++;
}

/* Only streams that nothing else kept busy need it, but one more line does no harm. */
static void watch_on_comment(struct loop_timer *timer)
{
	struct reg_watch *w = container_of(timer, struct reg_watch, comment);

	list_for_each (node, &w->streams)
		http_stream_write(container_of(node, struct stream, node)->req, STR(":\n\n"));
	loop_timer_start(w->loop, timer, COMMENT_MS);
}

void reg_watch_release(struct reg_watch *w)
{
	for (size_t i = 0; i < RENDERINGS; i++)
		http_shared_put(&w->renderings[i].bytes);
}

void reg_watch_on_change(struct reg_watch *w, const struct reg_entry *entry, enum reg_change change)
{
	struct topic *topic = topic_find(w, str_from(reg_entry_app(entry)));

	(void)change;
	reg_watch_release(w);
	if (topic)
		list_splice(&w->woken, &topic->waiters);
	list_splice(&w->woken, &w->waiters);
	if (!list_empty(&w->woken))
		loop_defer(w->loop, &w->wake);
	if (list_empty(&w->streams_of_all) && (!topic || list_empty(&topic->subscriptions)))
		return;
	buf_reset(&w->event, EVENT_KEEP);
	write_event(&w->event, entry);
	list_for_each (all, &w->streams_of_all)
		stream_send(container_of(all, struct stream, for_all), buf_str(&w->event));
	if (!topic)
		return;
	list_for_each (sub, &topic->subscriptions)
		stream_send(container_of(sub, struct subscription, node)->stream,
			    buf_str(&w->event));
}

/* --- the whole ------------------------------------------------------------------------------- */

struct reg_watch *reg_watch_new(struct loop *loop, const struct reg_store *store)
{
	struct reg_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->loop = loop;
	w->store = store;
	w->wake.run = watch_on_wake;
	w->comment.on_fire = watch_on_comment;
	list_init(&w->wake.node);
	list_init(&w->waiters);
	list_init(&w->woken);
	list_init(&w->streams);
	list_init(&w->streams_of_all);
	buf_init(&w->event, EVENT_MAX);
	return w;
}

void reg_watch_stop(struct reg_watch *w)
{
	hmap_for_each (node, &w->topics)
		list_splice(&w->woken, &container_of(node, struct topic, by_name)->waiters);
	list_splice(&w->woken, &w->waiters);
	loop_cancel(&w->wake);
	watch_on_wake(&w->wake);
	list_for_each_safe (node, &w->streams) {
		stream_end(container_of(node, struct stream, node));
	}
}

void reg_watch_free(struct reg_watch **wp)
{
	struct reg_watch *w = TAKE_PTR(*wp);

	if (!w)
		return;
	loop_timer_stop(w->loop, &w->comment);
	loop_cancel(&w->wake);
	hmap_fini(&w->topics);
	buf_fini(&w->event);
	free(w);
}

const struct reg_watch_stats *reg_watch_stats(const struct reg_watch *w)
{
	return &w->stats;
}
