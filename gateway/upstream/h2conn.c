/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/h2conn.h"

#include <errno.h>

#include "gateway/upstream/upconn.h"

#define STREAMS_MAX   256                /* per connection, whatever more the service allows */
#define STREAM_WINDOW (256L * 1024)      /* of a response that the client does not take */
#define CONN_WINDOW   (8L * 1024 * 1024) /* never the bottleneck: streams are */
#define OUT_HIGH      (64UL * 1024)      /* frames made but not sent */
#define OUT_MAX       (16 * OUT_HIGH)
#define HEAD_LIST_MAX (32UL * 1024)
#define FRAME_HEAD    9
#define READS_PER_RUN 8 /* then the worker's other connections have their turn */
/*
 * A second PING into the same silence only after this long: gRPC servers take more frequent ones
 * for abuse and close.
 */
#define PING_REPEAT_MS (5UL * 60 * 1000)

struct h2conn {
	struct upconn *u; /* the bytes; owned */
	struct worker *worker;
	struct endpoint *endpoint; /* held by u */
	struct list node;          /* in endpoint->h2conns */
	nghttp2_session *session;
	struct list waiting, streams; /* h2streams, not yet and already submitted */
	unsigned waiting_count, stream_count;
	struct buf out; /* frames on their way */
	struct loop_timer timer;
	struct loop_task task, free;
	uint64_t served;
	uint64_t idle_from_ms, heard_ms, pinged_ms;
	bool is_ready;   /* the service's SETTINGS are in */
	bool is_leaving; /* no new streams */
	bool said_goaway;
	bool was_pinged; /* since something else than the answer was heard */
	bool owes_pong;  /* a PING without an answer yet */
	bool is_closed;
};

static struct loop *loop_of(const struct h2conn *c)
{
	return c->worker->loop;
}

static const struct service *service_of(const struct h2conn *c)
{
	return c->u->service;
}

static void kick(struct h2conn *c)
{
	loop_defer(loop_of(c), &c->task);
}

static void heard(struct h2conn *c)
{
	c->heard_ms = loop_now_ms(loop_of(c));
	c->was_pinged = c->owes_pong = false;
}

/* --- streams ------------------------------------------------------------------------------- */

static unsigned room_of(const struct h2conn *c)
{
	/* A connection still being made has the limit that the last one had. */
	uint32_t limit = c->endpoint->h2_streams;

	if (c->is_ready)
		limit = nghttp2_session_get_remote_settings(
			c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
	else if (limit == 0)
		limit = STREAMS_MAX;
	limit = MIN(limit, (uint32_t)STREAMS_MAX);
	return limit - MIN(limit, (uint32_t)(c->waiting_count + c->stream_count));
}

static void join(struct h2conn *c, struct h2stream *s)
{
	s->conn = c;
	s->id = 0;
	s->is_deferred = s->was_reset = false;
	s->is_reused = c->served > 0;
	list_add_tail(&c->waiting, &s->node);
	c->waiting_count++;
	kick(c);
}

/* The connection forgets the stream. */
static void part(struct h2stream *s)
{
	struct h2conn *c = s->conn;

	list_remove(&s->node);
	if (s->id) {
		c->stream_count--;
		nghttp2_session_set_stream_user_data(c->session, s->id, NULL);
	} else {
		c->waiting_count--;
	}
	s->conn = NULL;
	s->id = 0;
	c->idle_from_ms = loop_now_ms(loop_of(c));
	kick(c);
}

static void stream_failed(struct h2stream *s, enum h2_failure why, uint32_t code)
{
	part(s);
	s->ops->failed(s, why, code);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *unused, size_t length,
			 uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, id);
	const nghttp2_nv *trailers;
	bool is_last = false;
	size_t n, count;

	(void)unused;
	(void)source;
	(void)arg;
	if (!s)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* cancelled: its reset is on its way
							       */
	n = s->ops->body(s, length, &is_last);
	if (n == 0 && !is_last) {
		s->is_deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (!is_last)
		return (ssize_t)n;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	count = s->ops->trailers(s, &trailers);
	if (count && nghttp2_submit_trailer(session, id, trailers, count) == 0)
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
	return (ssize_t)n;
}

int h2stream_submit(struct h2stream *s, const nghttp2_nv *fields, size_t count, bool has_body)
{
	struct h2conn *c = s->conn;
	nghttp2_data_provider provider = { .read_callback = read_body };
	int32_t id = nghttp2_submit_request(c->session, NULL, fields, count,
					    has_body ? &provider : NULL, s);

	if (id < 0)
		return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EIO;
	list_remove(&s->node);
	c->waiting_count--;
	s->id = id;
	list_add_tail(&c->streams, &s->node);
	c->stream_count++;
	c->served++;
	return 0;
}

void h2stream_more(struct h2stream *s)
{
	if (!s->conn || !s->is_deferred)
		return;
	s->is_deferred = false;
	nghttp2_session_resume_data(s->conn->session, s->id);
	kick(s->conn);
}

void h2stream_consume(struct h2stream *s, size_t len)
{
	if (!s->conn || !s->id || len == 0)
		return;
	nghttp2_session_consume_stream(s->conn->session, s->id, len);
	kick(s->conn);
}

void h2stream_cancel(struct h2stream *s, uint32_t code)
{
	struct h2conn *c = s->conn;
	int32_t id = s->id;

	if (!c)
		return;
	part(s);
	/* nghttp2 sends none for a stream that is over. */
	if (id)
		nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, code);
}

/* --- the end of a connection --------------------------------------------------------------- */

static void h2conn_free(struct loop_task *task)
{
	struct h2conn *c = container_of(task, struct h2conn, free);

	free(c);
}

/* Closes; whoever still had a stream is told. */
static void h2conn_end(struct h2conn *c, enum h2_failure why)
{
	if (c->is_closed)
		return;
	c->is_closed = c->is_leaving = true;
	list_remove(&c->node);
	/* What waits was never sent. */
	while (!list_empty(&c->waiting))
		stream_failed(container_of(c->waiting.next, struct h2stream, node),
			      c->is_ready ? H2_REFUSED : why, 0);
	while (!list_empty(&c->streams))
		stream_failed(container_of(c->streams.next, struct h2stream, node), why, 0);
	loop_cancel(&c->task);
	loop_timer_stop(loop_of(c), &c->timer);
	nghttp2_session_del(c->session);
	buf_fini(&c->out);
	upconn_close(c->u);
	loop_defer(loop_of(c), &c->free);
}

void h2conn_drain(struct endpoint *e)
{
	for (struct list *at = e->h2conns.next; at != &e->h2conns; at = at->next) {
		struct h2conn *c = container_of(at, struct h2conn, node);

		/* Not at once: this may be within a call of one of its streams. */
		c->is_leaving = true;
		kick(c);
	}
}

/* --- frames -------------------------------------------------------------------------------- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	if (s && !s->ops->field(s, str_of((const char *)name, name_len),
				str_of((const char *)value, value_len)))
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return 0;
}

/* nghttp2 would drop such a field and go on. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
			     const uint8_t *name, size_t name_len, const uint8_t *value,
			     size_t value_len, uint8_t flags, void *arg)
{
	(void)session;
	(void)frame;
	(void)name;
	(void)name_len;
	(void)value;
	(void)value_len;
	(void)flags;
	(void)arg;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void on_settings(struct h2conn *c, const nghttp2_frame *frame)
{
	if (frame->hd.flags & NGHTTP2_FLAG_ACK)
		return;
	c->is_ready = true;
	/* 0 is a moment of the service's, not its size. */
	c->endpoint->h2_streams = MAX(nghttp2_session_get_remote_settings(
					      c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
				      1U);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2conn *c = arg;
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	bool is_last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

	if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK) {
		c->owes_pong = false;
		return 0;
	}
	heard(c);
	switch (frame->hd.type) {
	case NGHTTP2_SETTINGS:
		on_settings(c, frame);
		break;
	case NGHTTP2_GOAWAY:
		c->is_leaving = true;
		break;
	case NGHTTP2_RST_STREAM:
		if (s)
			s->was_reset = true;
		break;
	case NGHTTP2_HEADERS:
		if (s)
			s->ops->fields_end(s, is_last);
		break;
	default:
		break;
	}
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	/* Another look: it may have been cancelled meanwhile. */
	s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (s && is_last)
		s->ops->end(s);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *arg)
{
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, id);

	(void)flags;
	heard(arg);
	/* A client that takes nothing holds its own stream up and no other. */
	nghttp2_session_consume_connection(session, len);
	if (s)
		s->ops->data(s, str_of((const char *)data, len));
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, id);

	(void)arg;
	if (!s)
		return 0;
	/* Also what nghttp2 says of streams above the last one of a GOAWAY. */
	if (code == NGHTTP2_REFUSED_STREAM)
		stream_failed(s, H2_REFUSED, code);
	else
		stream_failed(s, s->was_reset ? H2_RESET : H2_GARBAGE, code);
	return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
		       void *arg)
{
	struct h2conn *c = arg;

	(void)session;
	(void)flags;
	if (buf_len(&c->out) > OUT_HIGH)
		return NGHTTP2_ERR_WOULDBLOCK;
	buf_append(&c->out, data, len);
	return buf_failed(&c->out) ? NGHTTP2_ERR_CALLBACK_FAILURE : (ssize_t)len;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
			size_t len, nghttp2_data_source *source, void *arg)
{
	struct h2stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	struct h2conn *c = arg;
	char *at;

	(void)source;
	if (!s)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (buf_len(&c->out) > OUT_HIGH)
		return NGHTTP2_ERR_WOULDBLOCK;
	at = buf_reserve(&c->out, FRAME_HEAD + len);
	if (!at)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	memcpy(at, head, FRAME_HEAD);
	buf_commit(&c->out, FRAME_HEAD + len);
	if (len)
		s->ops->take(s, at + FRAME_HEAD, len);
	return 0;
}

/* --- work ---------------------------------------------------------------------------------- */

/* -EAGAIN while the connection is not there yet. */
static int connect_more(struct h2conn *c)
{
	struct upconn *u = c->u;

	int rc;

	if (u->is_connected)
		return 0;
	rc = upconn_connect(u);
	if (rc < 0)
		return rc == -EAGAIN ? rc : -ECONNREFUSED;
	/* Over TLS it must be agreed on (RFC 9113 3.2). */
	return upconn_speaks(u, STR("h2")) ? 0 : -ECONNREFUSED;
}

/* False: the connection is over, and why. */
static bool receive(struct h2conn *c, enum h2_failure *why)
{
	struct upconn *u = c->u;
	unsigned reads = 0;

	while (u->can_read && buf_len(&c->out) <= OUT_HIGH) {
		long n;
		ssize_t used;

		if (++reads > READS_PER_RUN) {
			kick(c);
			break;
		}
		n = upconn_fill(u);
		if (n == -EAGAIN)
			break;
		*why = c->is_ready ? H2_CLOSED : H2_NO_CONNECTION;
		if (n <= 0)
			return false;
		*why = H2_GARBAGE;
		used = nghttp2_session_mem_recv(c->session, (const uint8_t *)buf_data(&u->in),
						buf_len(&u->in));
		if (used < 0)
			return false;
		buf_consume(&u->in, (size_t)used);
		if (!nghttp2_session_want_read(c->session))
			return false;
	}
	return true;
}

/* Streams that wait; those for whom there is no room look elsewhere. */
static void start_waiting(struct h2conn *c)
{
	uint32_t limit = MIN(nghttp2_session_get_remote_settings(
				     c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS),
			     (uint32_t)STREAMS_MAX);

	if (!nghttp2_session_check_request_allowed(c->session))
		c->is_leaving = true; /* also when its stream numbers are used up */
	while (!list_empty(&c->waiting)) {
		struct h2stream *s = container_of(c->waiting.next, struct h2stream, node);

		/* A limit of 0 is lifted again, or the request's own deadline ends the wait. */
		if (!c->is_leaving && (c->stream_count < limit || limit == 0)) {
			s->ops->ready(s);
			continue;
		}
		stream_failed(s, H2_REFUSED, 0);
	}
}

/* False when it cannot be sent. */
static bool flush(struct h2conn *c)
{
	do {
		long n;

		if (nghttp2_session_send(c->session) < 0)
			return false;
		if (buf_len(&c->out) == 0)
			return true;
		n = upconn_send(c->u, (struct str) { 0 }, buf_str(&c->out));
		if (n == -EAGAIN)
			return true;
		if (n < 0)
			return false;
		buf_consume(&c->out, (size_t)n);
	} while (c->u->can_write);
	return true;
}

static uint64_t ping_due_ms(const struct h2conn *c)
{
	if (c->owes_pong)
		return c->pinged_ms + service_of(c)->ping_timeout_ms;
	if (!c->was_pinged)
		return c->heard_ms + service_of(c)->ping_after_ms;
	/* Without streams one is enough: its idle time ends soon. */
	return c->stream_count ? c->pinged_ms + PING_REPEAT_MS : UINT64_MAX;
}

static void arm(struct h2conn *c)
{
	uint64_t now = loop_now_ms(loop_of(c)), due = UINT64_MAX;

	if (c->is_ready)
		due = ping_due_ms(c);
	if (!c->stream_count && !c->waiting_count)
		due = MIN(due, c->idle_from_ms + service_of(c)->idle_timeout_ms);
	/* Too early is put off, only too late must move. */
	if (due != UINT64_MAX && (!loop_timer_is_pending(&c->timer) || c->timer.wheel.due > due))
		loop_timer_start(loop_of(c), &c->timer, due - MIN(due, now));
}

static void say_goaway(struct h2conn *c)
{
	if (c->said_goaway)
		return;
	c->said_goaway = true;
	nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
}

/* Whether the last stream of a connection that takes no more is over. */
static bool is_left(const struct h2conn *c)
{
	return c->is_leaving && !c->stream_count && !c->waiting_count;
}

static void run(struct h2conn *c)
{
	enum h2_failure why = H2_NO_CONNECTION;
	int rc = connect_more(c);

	if (rc == -EAGAIN && !is_left(c)) {
		arm(c);
		return;
	}
	/* A connection that was idle may be closed, and the news still on its way through epoll:
	 * nothing is sent before it was looked at. */
	if (c->waiting_count && !c->stream_count)
		c->u->can_read = true;
	if (rc < 0 || !receive(c, &why)) {
		/* What went wrong is in a GOAWAY that nghttp2 has queued. */
		if (rc == 0)
			flush(c);
		h2conn_end(c, why);
		return;
	}
	if (c->is_ready)
		start_waiting(c);
	if (is_left(c))
		say_goaway(c);
	if (!flush(c)) {
		/* Its last words, a GOAWAY perhaps, may still wait in the socket. */
		c->u->can_read = true;
		receive(c, &why);
		h2conn_end(c, H2_CLOSED);
		return;
	}
	if (is_left(c)) {
		h2conn_end(c, H2_CLOSED);
		return;
	}
	if (!nghttp2_session_want_read(c->session)) {
		/* What it sent was not HTTP/2, which it was told: nothing is read any more, so
		 * nobody would notice anything. */
		h2conn_end(c, H2_GARBAGE);
		return;
	}
	arm(c);
}

static void on_task(struct loop_task *task)
{
	run(container_of(task, struct h2conn, task));
}

static void on_upconn(struct upconn *u, void *arg)
{
	(void)u;
	run(arg);
}

static void on_timer(struct loop_timer *timer)
{
	struct h2conn *c = container_of(timer, struct h2conn, timer);
	uint64_t now = loop_now_ms(loop_of(c));

	if (!c->stream_count && !c->waiting_count &&
	    now >= c->idle_from_ms + service_of(c)->idle_timeout_ms) {
		c->is_leaving = true;
	} else if (c->is_ready && now >= ping_due_ms(c)) {
		if (c->owes_pong) {
			h2conn_end(c, H2_CLOSED);
			return;
		}
		c->owes_pong = c->was_pinged = true;
		c->pinged_ms = now;
		nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	}
	run(c);
}

/* --- making one ---------------------------------------------------------------------------- */

static nghttp2_session_callbacks *make_callbacks(void)
{
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb))
		return NULL;
	nghttp2_session_callbacks_set_send_callback(cb, on_send);
	nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	return cb;
}

static int session_new(struct h2conn *c)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
		{ NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_LIST_MAX },
	};
	nghttp2_session_callbacks *cb = make_callbacks();
	nghttp2_option *o = NULL;
	int rc = nghttp2_option_new(&o);

	if (cb && rc == 0) {
		/* The service gets window for what the client took, not for what we received. */
		nghttp2_option_set_no_auto_window_update(o, 1);
		nghttp2_option_set_max_outbound_ack(o, 100);
		nghttp2_option_set_max_settings(o, 32);
		rc = nghttp2_session_client_new2(&c->session, cb, c, o);
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(o);
	if (!c->session)
		return -ENOMEM;
	if (rc == 0)
		rc = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings,
					     ARRAY_SIZE(settings));
	if (rc == 0)
		rc = nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0,
							   CONN_WINDOW);
	return rc ? -ENOMEM : 0;
}

static int h2conn_new(struct h2conn **out, struct service *service, struct endpoint *e)
{
	struct h2conn *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	rc = session_new(c);
	if (rc == 0)
		rc = upconn_take(&c->u, service, e, UPCONN_FRESH);
	if (rc < 0) {
		nghttp2_session_del(c->session);
		free(c);
		return rc;
	}
	c->worker = service->worker;
	c->endpoint = e;
	c->u->on_event = on_upconn;
	c->u->arg = c;
	c->timer.on_fire = on_timer;
	c->task.run = on_task;
	c->free.run = h2conn_free;
	c->idle_from_ms = c->heard_ms = loop_now_ms(loop_of(c));
	list_init(&c->waiting);
	list_init(&c->streams);
	buf_init(&c->out, OUT_MAX);
	list_add_head(&e->h2conns, &c->node);
	*out = c;
	return 0;
}

int h2conn_attach(struct h2stream *s, struct service *service, struct endpoint *e)
{
	struct h2conn *c;
	int rc;

	for (struct list *at = e->h2conns.next; at != &e->h2conns; at = at->next) {
		c = container_of(at, struct h2conn, node);
		/* A reload changed how this service is to be spoken to. */
		if (c->u->tls != service->tls) {
			c->is_leaving = true;
			kick(c);
		}
		if (c->is_leaving || room_of(c) == 0)
			continue;
		metrics_inc(&c->worker->counters.upstream_reuses, 1);
		join(c, s);
		return 0;
	}
	rc = h2conn_new(&c, service, e);
	if (rc < 0)
		return rc;
	join(c, s);
	return 0;
}
