/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/mirror.h"

#include <stdlib.h>

#include "gateway/snapshot.h"
#include "gateway/upstream/exchange.h"
#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define MIRROR_ANSWER_MAX (1UL << 20) /* of the answer; then the connection is closed */
#define MIRROR_LIFE_MS    60000       /* however long the service's own limits are */

const char *const mirror_results[MIRROR_RESULTS] = {
	[MIRROR_ANSWERED] = "answered",
	[MIRROR_FAILED] = "failed",
	[MIRROR_TOO_LARGE] = "too_large",
	[MIRROR_BUSY] = "busy",
	[MIRROR_CUT] = "cut",
};

struct mirror {
	struct list node;             /* in the worker's mirrors */
	struct request *original;     /* NULL: the body is complete, or given up */
	const struct sink_ops *inner; /* of the original, which ours stands in front of */
	struct request *copy;
	struct buf body;
	struct loop_task task; /* what is next to be done: start, give the body, or end */
	struct loop_timer timer;
	bool is_started, wants_body, is_given, is_over;
	size_t answer_bytes;
};

static struct worker *worker_of(const struct mirror *m)
{
	return m->copy->worker;
}

static void count(struct request *r, enum mirror_result result)
{
	metrics_inc(&r->conf->routes[r->route->index]->mirrored[result], 1);
}

static void mirror_free(struct mirror *m)
{
	struct worker *w = worker_of(m);

	if (m->original)
		m->original->mirror = NULL;
	list_remove(&m->node);
	loop_cancel(&m->task);
	loop_timer_stop(w->loop, &m->timer);
	w->mirror_count--;
	request_free(m->copy);
	buf_fini(&m->body);
	free(m);
}

/* --- the copy's client: nobody ------------------------------------------------------------- */

static struct mirror *mirror_of(struct request *copy)
{
	return copy->down_state;
}

/* Nothing may be freed under whoever says that it is over. */
static void mirror_over(struct mirror *m, enum mirror_result result)
{
	if (m->is_over)
		return;
	m->is_over = true;
	count(m->copy, result);
	loop_defer(worker_of(m)->loop, &m->task);
}

static void down_head(struct request *copy)
{
	(void)copy;
}

/* An answer without end is not waited for. */
static bool take(struct request *copy, size_t len)
{
	struct mirror *m = mirror_of(copy);

	m->answer_bytes += len;
	if (m->answer_bytes > MIRROR_ANSWER_MAX)
		mirror_over(m, MIRROR_ANSWERED);
	return true;
}

static bool down_data(struct request *copy, struct str data)
{
	return take(copy, data.len);
}

static char *down_reserve(struct request *copy, size_t want, size_t *room)
{
	static __thread char waste[16384];

	(void)copy;
	(void)want;
	*room = sizeof(waste);
	return waste;
}

static bool down_commit(struct request *copy, size_t len)
{
	return take(copy, len);
}

static void down_end(struct request *copy)
{
	mirror_over(mirror_of(copy), copy->reason == REASON_NONE ? MIRROR_ANSWERED : MIRROR_FAILED);
}

static void down_abort(struct request *copy)
{
	mirror_over(mirror_of(copy), MIRROR_FAILED);
}

static void down_read_body(struct request *copy)
{
	struct mirror *m = mirror_of(copy);

	m->wants_body = true;
	loop_defer(worker_of(m)->loop, &m->task);
}

static const struct downstream_ops nobody = {
	.head = down_head,
	.data = down_data,
	.reserve = down_reserve,
	.commit = down_commit,
	.end = down_end,
	.abort = down_abort,
	.read_body = down_read_body,
	.interim = down_head,
};

static void give_body(struct mirror *m)
{
	struct request *copy = m->copy;

	m->wants_body = false;
	if (!copy->has_body || m->is_given || !copy->sink)
		return;
	m->is_given = true; /* once, all of it; the head that says so may go out later */
	copy->sink->data(copy, buf_str(&m->body));
	if (copy->sink)
		copy->sink->end(copy);
}

static void on_task(struct loop_task *task)
{
	struct mirror *m = container_of(task, struct mirror, task);
	struct request *copy = m->copy;

	if (m->is_over) {
		mirror_free(m);
	} else if (!m->is_started) {
		m->is_started = true;
		loop_timer_start(worker_of(m)->loop, &m->timer, MIRROR_LIFE_MS);
		exchange_start(copy, copy->conf->services[copy->service->index]);
	} else if (m->wants_body) {
		give_body(m);
	}
}

static void on_timer(struct loop_timer *timer)
{
	mirror_over(container_of(timer, struct mirror, timer), MIRROR_FAILED);
}

/* --- the original's body ------------------------------------------------------------------- */

static void send_copy(struct mirror *m)
{
	struct request *copy = m->copy;

	m->original->mirror = NULL;
	m->original = NULL;
	if (copy->has_body) {
		copy->has_length = true;
		copy->length = buf_len(&m->body);
		copy->has_body = copy->length > 0;
	}
	/* After the original, which is about to be sent. */
	loop_defer(worker_of(m)->loop, &m->task);
}

/* The original goes on without us. */
static void drop_copy(struct mirror *m, enum mirror_result result)
{
	if (m->inner && m->original->sink)
		m->original->sink = m->inner;
	count(m->copy, result);
	mirror_free(m);
}

static bool tee_data(struct request *r, struct str data)
{
	struct mirror *m = r->mirror;
	const struct sink_ops *inner = m->inner;

	if (buf_len(&m->body) + data.len > r->route->conf->mirror->max_body_bytes)
		drop_copy(m, MIRROR_TOO_LARGE);
	else
		buf_add(&m->body, data);
	return inner->data(r, data);
}

static void tee_end(struct request *r)
{
	struct mirror *m = r->mirror;
	const struct sink_ops *inner = m->inner;

	r->sink = inner;
	if (buf_failed(&m->body))
		drop_copy(m, MIRROR_BUSY);
	else
		send_copy(m);
	inner->end(r);
}

static void tee_resume(struct request *r)
{
	r->mirror->inner->resume(r);
}

static void tee_cancel(struct request *r)
{
	const struct sink_ops *inner = r->mirror->inner;

	drop_copy(r->mirror, MIRROR_CUT);
	inner->cancel(r);
}

static const struct sink_ops tee = {
	.data = tee_data,
	.end = tee_end,
	.resume = tee_resume,
	.cancel = tee_cancel,
};

/* --- making it ----------------------------------------------------------------------------- */

/* "api.example.com-shadow:8080". Addresses in brackets stay. */
static struct str shadow_host(struct arena *a, struct str authority, struct str suffix)
{
	ptrdiff_t colon = str_chr(authority, ':');
	size_t len = colon < 0 ? authority.len : (size_t)colon;
	char *text;

	if (authority.len == 0 || authority.p[0] == '[')
		return arena_str(a, authority);
	text = arena_printf(a, "%.*s%.*s%.*s", (int)len, authority.p, STR_ARG(suffix),
			    (int)(authority.len - len), authority.p + len);
	return str_from(text);
}

static bool copy_fields(struct request *to, const struct headers *from)
{
	struct headers *h = &to->headers;

	h->fields = arena_alloc(&to->arena, (from->count + 1) * sizeof(*h->fields));
	if (!h->fields)
		return false;
	h->max = from->count + 1;
	for (size_t i = 0; i < from->count; i++) {
		struct http_field *f = &h->fields[i];

		*f = from->fields[i];
		f->name = arena_str(&to->arena, f->name);
		f->value = arena_str(&to->arena, f->value);
		if (!f->name.p || !f->value.p)
			return false;
	}
	h->count = from->count;
	return true;
}

/* All of it: the original may be gone long before. */
static bool copy_head(struct request *to, struct request *r, const struct gw_mirror *conf)
{
	struct worker_conf *held = to->conf;
	struct arena *a = &to->arena;

	to->conf = worker_conf_get(r->conf);
	worker_conf_put(held);
	to->protocol = "HTTP/1.1";
	to->is_mirror = true;
	to->route = r->route;
	to->service = conf->to;
	to->method_id = r->method_id;
	to->method = arena_str(a, r->method);
	to->scheme = arena_str(a, r->scheme);
	to->authority = shadow_host(a, r->authority, conf->host_suffix);
	to->path = arena_str(a, r->path);
	to->upstream_path = arena_str(a, r->upstream_path);
	if (r->query.p)
		to->query = arena_str(a, r->query);
	to->request_id = arena_str(a, r->request_id);
	to->client = r->client;
	to->client_ip = arena_str(a, r->client_ip);
	if (r->identity)
		to->identity = identity_ref(r->identity);
	to->has_body = r->has_body;
	to->has_length = r->has_length;
	to->length = r->length;
	return to->method.p && to->scheme.p && to->authority.p && to->path.p &&
	       to->upstream_path.p && (!r->query.p || to->query.p) && to->request_id.p &&
	       to->client_ip.p && copy_fields(to, &r->headers);
}

static struct mirror *mirror_new(struct request *r, const struct gw_mirror *conf)
{
	struct worker *w = r->worker;
	struct mirror *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->copy = request_new(w);
	if (!m->copy) {
		free(m);
		return NULL;
	}
	m->copy->is_mirror = true;
	m->copy->down = &nobody;
	m->copy->down_state = m;
	m->original = r;
	m->task.run = on_task;
	m->timer.on_fire = on_timer;
	list_add_tail(&w->mirrors, &m->node);
	w->mirror_count++;
	buf_init(&m->body, conf->max_body_bytes + 1UL);
	if (!copy_head(m->copy, r, conf)) {
		mirror_free(m);
		return NULL;
	}
	return m;
}

static bool is_drawn(double percent)
{
	return percent >= 100 || (double)(random_fast() >> 11) * 0x1p-53 * 100 < percent;
}

void mirror_begin(struct request *r)
{
	const struct gw_mirror *conf = r->route->conf->mirror;

	if (!conf || r->websocket_accept.p || request_is_grpc(r) || !is_drawn(conf->percent))
		return;
	if (r->has_length && r->length > conf->max_body_bytes) {
		count(r, MIRROR_TOO_LARGE);
		return;
	}
	if (r->worker->mirror_count < conf->max_requests)
		r->mirror = mirror_new(r, conf);
	if (!r->mirror)
		count(r, MIRROR_BUSY);
	else if (!r->has_body)
		send_copy(r->mirror);
}

void mirror_listen(struct request *r)
{
	if (!r->mirror || !r->sink)
		return;
	r->mirror->inner = r->sink;
	r->sink = &tee;
}

void mirror_leave(struct request *r)
{
	if (r->mirror)
		drop_copy(r->mirror, MIRROR_CUT);
}

void mirror_end_all(struct worker *w)
{
	while (!list_empty(&w->mirrors))
		mirror_free(container_of(w->mirrors.next, struct mirror, node));
}
