/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http_server.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/metrics.h"

#define LISTENERS_MAX   8
#define READ_SIZE       16384
#define OUT_PAUSE       65536 /* so much unsent: no further request is taken up */
#define ROUND_READS     16    /* then the other connections get their turn */
#define OUT_MAX         (256UL << 20)
#define SPARES_MAX      32
#define SPARE_CAP_MAX   65536
#define ARENA_CHUNK     2048
#define ARENA_MAX       (4UL << 20)
#define LINGER_MS       1000
#define LINGER_BYTES    (1 << 18)
#define ACCEPT_PAUSE_MS 100

enum conn_state {
	CONN_READING,   /* a request, or waits for one */
	CONN_WAITING,   /* a handler has the request */
	CONN_STREAMING, /* a handler writes the answer piece by piece */
	CONN_LINGERING, /* everything is said; only swallows what the peer still sends */
};

/* What the deadline is about. */
enum conn_phase { PHASE_NONE, PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_WRITE, PHASE_LINGER };

struct pending {
	struct http_request req;
	struct http_conn *conn;
	struct arena arena;
	struct buf headers; /* added to the answer */
	struct list node;   /* among the spare ones */
};

struct http_conn {
	struct http_server *server;
	struct loop_io io;
	struct loop_timer timer; /* never later than deadline_ms, often earlier */
	struct loop_task again;
	struct list node; /* in server->idle or ->busy */
	struct net_addr peer;
	struct buf in, out;
	struct http1_scan scan;
	struct http1_body body;
	size_t head_len, body_end, raw_at; /* of a body in progress, offsets into `in` */
	uint64_t deadline_ms;
	size_t lingered;
	size_t stream_grace; /* of a large first piece: it may be queued beyond the bound */
	struct pending *pending;
	enum conn_state state;
	enum conn_phase phase;
	bool is_local;
	bool can_read, can_write;   /* edge-triggered: true until the socket says EAGAIN */
	bool has_hangup, is_at_end; /* the peer sends no more; and all of it was read */
	bool has_head;              /* of the request being read; its body follows */
	bool closes;                /* after what is in `out` */
	bool is_refused;            /* framing is in doubt: nothing more is parsed */
	bool is_cut_off;            /* a stream's reader was too slow */
	bool has_streamed;          /* the first piece of the present stream */
	bool is_running;            /* conn_run is on the stack */
	bool is_http10, is_head_request, is_chunked;
};

struct listener {
	struct http_server *server;
	struct loop_io io;
	bool is_local;
};

struct http_server {
	struct loop *loop;
	struct http_server_config config;
	struct http1_limits limits;
	struct listener listeners[LISTENERS_MAX];
	unsigned listener_count;
	struct loop_timer accept_again;
	struct list idle, busy; /* connections; idle: longest first */
	struct buf spare_bufs[SPARES_MAX];
	unsigned spare_buf_count;
	struct list spare_pendings;
	unsigned spare_pending_count;
	struct buf scratch;
	struct http1_head head; /* of the request being handled */
	char date[sizeof("Date: \r\n") + CLOCK_HTTP_DATE_LEN];
	uint64_t date_s;
	struct http_server_stats stats;
	bool is_stopping;
	void (*on_stopped)(void *arg);
	void *stopped_arg;
	struct loop_task stopped;
};

/* --- transport: all bytes go through these two; TLS would sit here -----------------------------
 */

/* Bytes, 0 at the end, or -errno. */
static ssize_t conn_recv(struct http_conn *c, void *p, size_t len)
{
	ssize_t n;

	do {
		n = recv(c->io.fd, p, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t conn_send(struct http_conn *c, const void *p, size_t len)
{
	ssize_t n;

	do {
		n = send(c->io.fd, p, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* --- stocks: an idle connection holds neither buffers nor a request ----------------------------
 */

static void buf_borrow(struct http_server *s, struct buf *b, size_t max)
{
	if (b->data)
		return;
	if (s->spare_buf_count)
		*b = s->spare_bufs[--s->spare_buf_count];
	else
		buf_init(b, 0);
	b->max = max;
}

static void buf_return(struct http_server *s, struct buf *b)
{
	if (!b->data)
		return;
	if (b->cap > SPARE_CAP_MAX || s->spare_buf_count == SPARES_MAX) {
		buf_fini(b);
		return;
	}
	buf_reset(b, SPARE_CAP_MAX);
	s->spare_bufs[s->spare_buf_count++] = *b;
	buf_init(b, 0);
}

static struct pending *pending_new(struct http_server *s)
{
	struct pending *p;

	if (!list_empty(&s->spare_pendings)) {
		p = container_of(s->spare_pendings.next, struct pending, node);
		list_remove(&p->node);
		s->spare_pending_count--;
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	arena_init(&p->arena, ARENA_CHUNK, ARENA_MAX);
	buf_init(&p->headers, 8192);
	list_init(&p->node);
	return p;
}

static void pending_destroy(struct pending *p)
{
	arena_fini(&p->arena);
	buf_fini(&p->headers);
	free(p);
}

static void pending_free(struct http_server *s, struct pending *p)
{
	if (s->spare_pending_count == SPARES_MAX) {
		pending_destroy(p);
		return;
	}
	arena_reset(&p->arena);
	buf_reset(&p->headers, 1024);
	list_add_tail(&s->spare_pendings, &p->node);
	s->spare_pending_count++;
}

/* --- deadlines ----------------------------------------------------------------------------------
 */

static uint32_t phase_timeout_ms(const struct http_server *s, enum conn_phase phase)
{
	switch (phase) {
	case PHASE_IDLE:
		return s->config.idle_timeout_ms;
	case PHASE_HEAD:
		return s->config.head_timeout_ms;
	case PHASE_BODY:
		return s->config.body_timeout_ms;
	case PHASE_WRITE:
		return s->config.write_timeout_ms;
	case PHASE_LINGER:
		return LINGER_MS;
	case PHASE_NONE:
		break;
	}
	return 0;
}

/* The timer is left alone while it is early enough: it looks again when it fires. */
static void conn_set_deadline(struct http_conn *c, enum conn_phase phase)
{
	struct http_server *s = c->server;

	c->phase = phase;
	if (phase == PHASE_NONE)
		return;
	c->deadline_ms = loop_now_ms(s->loop) + phase_timeout_ms(s, phase);
	if (!loop_timer_is_pending(&c->timer) || c->timer.wheel.due > c->deadline_ms)
		loop_timer_start(s->loop, &c->timer, c->deadline_ms - loop_now_ms(s->loop));
}

static enum conn_phase conn_wanted_phase(const struct http_conn *c)
{
	if (c->state == CONN_LINGERING)
		return PHASE_LINGER;
	if (buf_len(&c->out))
		return PHASE_WRITE;
	if (c->state != CONN_READING)
		return PHASE_NONE;
	if (c->has_head)
		return PHASE_BODY;
	return buf_len(&c->in) ? PHASE_HEAD : PHASE_IDLE;
}

static void conn_update_phase(struct http_conn *c)
{
	enum conn_phase phase = conn_wanted_phase(c);

	if (phase == PHASE_IDLE) {
		list_remove(&c->node);
		list_add_tail(&c->server->idle, &c->node);
		conn_set_deadline(c, phase);
		return;
	}
	if (c->phase == PHASE_IDLE) {
		list_remove(&c->node);
		list_add_tail(&c->server->busy, &c->node);
	}
	if (phase != c->phase)
		conn_set_deadline(c, phase);
}

/* --- end of a connection ------------------------------------------------------------------------
 */

static void server_check_stopped(struct http_server *s)
{
	if (s->is_stopping && s->stats.connections == 0)
		loop_defer(s->loop, &s->stopped);
}

static void conn_release_request(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (c->state == CONN_WAITING)
		s->stats.waiting--;
	else if (c->state == CONN_STREAMING)
		s->stats.streams--;
	pending_free(s, TAKE_PTR(c->pending));
	c->state = CONN_READING;
}

/* The peer is gone: tells the handler that still has the request. */
static void conn_drop_request(struct http_conn *c)
{
	struct http_request *req;

	if (!c->pending)
		return;
	req = &c->pending->req;
	if (req->on_gone)
		req->on_gone(req);
	conn_release_request(c);
}

static void conn_close(struct http_conn *c)
{
	struct http_server *s = c->server;

	conn_drop_request(c);
	loop_timer_stop(s->loop, &c->timer);
	loop_cancel(&c->again);
	loop_io_remove(s->loop, &c->io);
	close(c->io.fd);
	list_remove(&c->node);
	buf_return(s, &c->in);
	buf_return(s, &c->out);
	free(c);
	s->stats.connections--;
	server_check_stopped(s);
}

/* --- writing answers
 * ------------------------------------------------------------------------------ */

static void out_date(struct http_server *s, struct buf *out)
{
	uint64_t now_s = loop_now_ms(s->loop) / MSEC_PER_SEC;

	if (now_s != s->date_s || !s->date[0]) {
		char text[CLOCK_HTTP_DATE_LEN + 1];

		clock_http_date(text, clock_wall_ms());
		snprintf(s->date, sizeof(s->date), "Date: %s\r\n", text);
		s->date_s = now_s;
	}
	buf_addz(out, s->date);
}

static void out_head(struct http_conn *c, unsigned status, const char *type, struct str headers)
{
	struct buf *out = &c->out;

	buf_borrow(c->server, out, OUT_MAX);
	buf_append(out, "HTTP/1.1 ", 9);
	buf_u64(out, status);
	buf_putc(out, ' ');
	buf_addz(out, http_reason(status));
	buf_append(out, "\r\n", 2);
	out_date(c->server, out);
	if (type) {
		buf_append(out, "Content-Type: ", 14);
		buf_addz(out, type);
		buf_append(out, "\r\n", 2);
	}
	buf_add(out, headers);
	if (c->closes)
		buf_addz(out, "Connection: close\r\n");
	else if (c->is_http10)
		buf_addz(out, "Connection: keep-alive\r\n");
}

static void out_answer(struct http_conn *c, unsigned status, const char *type, struct str headers,
		       struct str body)
{
	out_head(c, status, type, headers);
	if (status != 204 && status != 304) {
		buf_append(&c->out, "Content-Length: ", 16);
		buf_u64(&c->out, body.len);
		buf_append(&c->out, "\r\n", 2);
	}
	buf_append(&c->out, "\r\n", 2);
	if (!c->is_head_request && status != 204 && status != 304)
		buf_add(&c->out, body);
}

static void problem_body(struct buf *out, unsigned status, const char *field, const char *detail)
{
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "type", "about:blank");
	json_addz(&w, "title", http_reason(status));
	json_add_u64(&w, "status", status);
	json_addz(&w, "detail", detail);
	if (field)
		json_addz(&w, "field", field);
	json_close(&w, '}');
}

/* Answers without a handler, and ends the connection: its framing is in doubt. */
static void conn_refuse(struct http_conn *c, unsigned status, const char *detail)
{
	struct buf *scratch = &c->server->scratch;

	c->server->stats.bad_requests++;
	c->closes = c->is_refused = true;
	c->is_head_request = c->is_http10 = false;
	buf_reset(scratch, SPARE_CAP_MAX);
	problem_body(scratch, status, NULL, detail);
	out_answer(c, status, "application/problem+json", str_of(NULL, 0), buf_str(scratch));
	c->has_head = false;
	buf_return(c->server, &c->in);
}

/* Runs the connection at the end of the round, when something happened outside of its own events.
 */
static void conn_kick(struct http_conn *c)
{
	if (!c->is_running)
		loop_defer(c->server->loop, &c->again);
}

/* --- reading requests
 * ------------------------------------------------------------------------------ */

/* Hands the complete request at the front of `in` over. */
static void conn_dispatch(struct http_conn *c, size_t body_end, size_t raw_end)
{
	struct http_server *s = c->server;
	const struct http1_head *head = &s->head;
	struct pending *p = pending_new(s);

	if (!p) {
		conn_refuse(c, 503, "out of memory");
		return;
	}
	p->conn = c;
	p->req = (struct http_request) {
		.method = head->method,
		.method_id = head->method_id,
		.path = head->path,
		.query = head->query,
		.body = str_of(buf_data(&c->in) + c->head_len, body_end - c->head_len),
		.head = head,
		.peer = &c->peer,
		.is_local = c->is_local,
		.arena = &p->arena,
	};
	c->pending = p;
	c->state = CONN_WAITING;
	c->is_http10 = head->minor == 0;
	c->is_head_request = head->method_id == METHOD_HEAD;
	c->closes = !head->keeps_alive || s->is_stopping;
	if (c->phase == PHASE_HEAD || c->phase == PHASE_BODY)
		c->phase = PHASE_NONE; /* the next request gets a time of its own */
	s->stats.waiting++;
	s->stats.requests++;
	s->config.on_request(&p->req, s->config.arg);
	/* A request that waits holds its arena only, not the connection's buffer. */
	if (c->pending == p) {
		p->req.head = NULL;
		p->req.method = p->req.path = p->req.query = p->req.body = str_of("", 0);
	}
	buf_consume(&c->in, raw_end);
	c->has_head = false;
	c->scan = (struct http1_scan) { 0 };
}

static void conn_answered(struct http_conn *c)
{
	conn_release_request(c);
	conn_kick(c);
}

/* Parses the head at the front. Returns false when the connection has to wait or was refused. */
static bool conn_parse_head(struct http_conn *c)
{
	struct http_server *s = c->server;
	long len = http1_parse_request(&s->head, &c->scan, buf_str(&c->in), &s->limits);

	if (len < 0) {
		conn_refuse(c, (unsigned)-len, s->head.problem);
		return false;
	}
	if (len == 0)
		return false;
	c->head_len = c->body_end = c->raw_at = (size_t)len;
	if (s->head.framing == HTTP1_LENGTH && s->head.content_length > s->config.max_body) {
		conn_refuse(c, 413, "the body is too large");
		return false;
	}
	http1_body_init(&c->body, &s->head);
	return true;
}

/*
 * Moves the content of a chunked body down behind the head, over the framing. Returns 1 when it is
 * complete, 0 when bytes are missing, -1 when refused.
 */
static int conn_decode_body(struct http_conn *c)
{
	char *base = buf_data(&c->in);

	for (;;) {
		struct str rest = str_of(base + c->raw_at, buf_len(&c->in) - c->raw_at);
		struct str data = { 0 };
		size_t consumed = 0;
		enum http1_body_result r = http1_body_next(&c->body, rest, &consumed, &data);

		if (data.len && r == HTTP1_BODY_DATA) {
			if (data.len > c->server->config.max_body - (c->body_end - c->head_len)) {
				conn_refuse(c, 413, "the body is too large");
				return -1;
			}
			memmove(base + c->body_end, data.p, data.len);
			c->body_end += data.len;
		}
		c->raw_at += consumed;
		switch (r) {
		case HTTP1_BODY_DATA:
			break;
		case HTTP1_BODY_END:
			return 1;
		case HTTP1_BODY_MORE:
			c->in.end = c->in.start + c->body_end;
			c->raw_at = c->body_end;
			return 0;
		case HTTP1_BODY_BAD:
			conn_refuse(c, 400, "malformed chunked body");
			return -1;
		}
	}
}

/* Whether the body is all there; on the way asks for it if the client waits to be asked. */
static bool conn_has_body(struct http_conn *c, bool expects_continue)
{
	bool is_complete;

	if (c->body.framing == HTTP1_CHUNKED) {
		int r = conn_decode_body(c);

		if (r < 0)
			return false;
		is_complete = r > 0;
	} else if (c->body.framing == HTTP1_LENGTH) {
		is_complete = buf_len(&c->in) - c->head_len >= c->body.left;
		c->body_end = c->raw_at = c->head_len + (size_t)c->body.left;
	} else {
		is_complete = true;
	}
	if (!is_complete && expects_continue) {
		buf_borrow(c->server, &c->out, OUT_MAX);
		buf_addz(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	}
	return is_complete;
}

/* Handles one request from `in`. Returns false when there is no complete one. */
static bool conn_next_request(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (buf_len(&c->in) == 0)
		return false;
	if (!c->has_head) {
		if (!conn_parse_head(c))
			return false;
		if (!conn_has_body(c, s->head.expects_continue)) {
			c->has_head = !c->is_refused;
			return false;
		}
	} else {
		struct http1_scan again = { 0 };
		size_t body_end, raw_end;

		if (!conn_has_body(c, false))
			return false;
		/* The buffer may have moved since the head was read. */
		body_end = c->body_end;
		raw_end = c->raw_at;
		if (http1_parse_request(&s->head, &again, str_of(buf_data(&c->in), c->head_len),
					&s->limits) != (long)c->head_len) {
			conn_refuse(c, 400, "malformed head");
			return false;
		}
		c->body_end = body_end;
		c->raw_at = raw_end;
	}
	conn_dispatch(c, c->body_end, c->raw_at);
	return true;
}

static void conn_fill(struct http_conn *c)
{
	struct http_server *s = c->server;
	size_t room;
	ssize_t n;

	buf_borrow(s, &c->in, s->config.max_head + s->config.max_body + 2 * READ_SIZE);
	if (!buf_reserve(&c->in, buf_len(&c->in) ? READ_SIZE / 4 : READ_SIZE)) {
		c->is_cut_off = true;
		return;
	}
	room = buf_room(&c->in);
	n = conn_recv(c, c->in.data + c->in.end, room);
	if (n > 0) {
		buf_commit(&c->in, (size_t)n);
		/* Edge-triggered: a short read emptied the socket, what follows is a new edge. But
		 * a hang-up that was reported already is none. */
		if ((size_t)n < room && !c->has_hangup)
			c->can_read = false;
		return;
	}
	c->can_read = false;
	if (n == 0)
		c->is_at_end = true;
	else if (n != -EAGAIN)
		c->is_cut_off = true;
}

/* Sends what it can. Returns false when the connection is broken. */
static bool conn_flush(struct http_conn *c)
{
	while (buf_len(&c->out) && c->can_write) {
		ssize_t n = conn_send(c, buf_data(&c->out), buf_len(&c->out));

		if (n == -EAGAIN) {
			c->can_write = false;
		} else if (n < 0) {
			return false;
		} else {
			buf_consume(&c->out, (size_t)n);
			if (c->phase == PHASE_WRITE)
				conn_set_deadline(c, PHASE_WRITE);
		}
	}
	if (buf_failed(&c->out))
		return false;
	if (buf_len(&c->out) == 0)
		buf_return(c->server, &c->out);
	return true;
}

/* Swallows what a peer still sends, for a moment: closing at once would reset the connection and
 * with it the answer that the peer has not read yet. Returns false when it is over. */
static bool conn_linger(struct http_conn *c)
{
	char sink[4096];

	while (c->can_read) {
		ssize_t n = conn_recv(c, sink, sizeof(sink));

		if (n == -EAGAIN) {
			c->can_read = false;
			break;
		}
		if (n <= 0)
			return false;
		c->lingered += (size_t)n;
		if (c->lingered > LINGER_BYTES)
			return false;
	}
	return true;
}

/* Everything was written and nothing more will be. Returns false when it can be closed. */
static bool conn_finish(struct http_conn *c)
{
	if (c->is_at_end)
		return false;
	shutdown(c->io.fd, SHUT_WR);
	c->state = CONN_LINGERING;
	buf_return(c->server, &c->in);
	return conn_linger(c);
}

static bool conn_may_parse(const struct http_conn *c)
{
	return c->state == CONN_READING && !c->closes && !c->is_cut_off &&
	       buf_len(&c->out) < OUT_PAUSE;
}

/* Parse, answer, write, read: until nothing is left to do. Returns false when it has to be closed.
 */
static bool conn_advance(struct http_conn *c)
{
	size_t reads = 0;

	while (c->state != CONN_LINGERING) {
		bool is_exhausted = false;

		while (conn_may_parse(c) && !is_exhausted)
			is_exhausted = !conn_next_request(c);
		if (!conn_flush(c) || c->is_cut_off)
			return false;
		/* A peer that hung up while it waits for an answer does not want it any more. */
		if (c->has_hangup && c->state != CONN_READING)
			return false;
		if (c->state == CONN_READING && c->closes && buf_len(&c->out) == 0)
			return conn_finish(c);
		if (!conn_may_parse(c))
			break;
		if (!is_exhausted)
			continue;
		if (c->is_at_end) {
			c->closes = true; /* a partial request is nobody's any more */
			continue;
		}
		if (!c->can_read)
			break;
		if (++reads > ROUND_READS) {
			loop_defer(c->server->loop, &c->again);
			break;
		}
		conn_fill(c);
	}
	if (c->state == CONN_LINGERING)
		return conn_linger(c);
	if (buf_len(&c->in) == 0)
		buf_return(c->server, &c->in);
	return true;
}

static void conn_run(struct http_conn *c)
{
	bool is_alive;

	c->is_running = true;
	is_alive = conn_advance(c);
	c->is_running = false;
	/* It was busy when the server was told to stop, and is no longer. */
	if (c->server->is_stopping && conn_wanted_phase(c) == PHASE_IDLE)
		is_alive = false;
	if (is_alive)
		conn_update_phase(c);
	else
		conn_close(c);
}

static void conn_on_event(struct loop_io *io, uint32_t events)
{
	struct http_conn *c = container_of(io, struct http_conn, io);

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->can_read = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->has_hangup = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		c->can_write = true;
	conn_run(c);
}

static void conn_on_again(struct loop_task *task)
{
	conn_run(container_of(task, struct http_conn, again));
}

static void conn_on_deadline(struct loop_timer *timer)
{
	struct http_conn *c = container_of(timer, struct http_conn, timer);
	struct http_server *s = c->server;
	uint64_t now_ms = loop_now_ms(s->loop);

	if (c->phase == PHASE_NONE)
		return;
	if (now_ms < c->deadline_ms) {
		loop_timer_start(s->loop, timer, c->deadline_ms - now_ms);
		return;
	}
	switch (c->phase) {
	case PHASE_HEAD:
	case PHASE_BODY:
		s->stats.timeouts++;
		conn_refuse(c, 408, "the request did not arrive in time");
		conn_run(c);
		return;
	case PHASE_WRITE:
		s->stats.timeouts++;
		break;
	case PHASE_NONE:
	case PHASE_IDLE:
	case PHASE_LINGER:
		break;
	}
	conn_close(c);
}

/* --- listeners
 * ---------------------------------------------------------------------------------------- */

static void server_pause_accept(struct http_server *s)
{
	for (unsigned i = 0; i < s->listener_count; i++)
		loop_io_modify(s->loop, &s->listeners[i].io, 0);
	loop_timer_start(s->loop, &s->accept_again, ACCEPT_PAUSE_MS);
}

static void server_on_accept_again(struct loop_timer *timer)
{
	struct http_server *s = container_of(timer, struct http_server, accept_again);

	for (unsigned i = 0; i < s->listener_count; i++)
		loop_io_modify(s->loop, &s->listeners[i].io, EPOLLIN);
}

/* Makes room for one more: the longest idle connection goes. Returns false when all are busy. */
static bool server_make_room(struct http_server *s)
{
	if (s->stats.connections < s->config.max_connections)
		return true;
	s->stats.refused++;
	if (list_empty(&s->idle))
		return false;
	conn_close(container_of(s->idle.next, struct http_conn, node));
	return true;
}

static void server_refuse(int fd)
{
	static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
				   "Content-Length: 0\r\nConnection: close\r\n\r\n";

	if (send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL) < 0)
		errno = 0; /* whoever is refused need not hear it */
	close(fd);
}

static void server_add_conn(struct http_server *s, int fd, const struct net_addr *peer,
			    bool is_local)
{
	struct http_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->io.fd = fd;
	c->io.on_event = conn_on_event;
	c->timer.on_fire = conn_on_deadline;
	c->again.run = conn_on_again;
	c->peer = *peer;
	c->is_local = is_local;
	c->can_write = true;
	list_init(&c->node);
	list_init(&c->again.node);
	if (!is_local)
		net_set_nodelay(fd);
	/* Registered once for everything; edges tell what changed. */
	if (loop_io_add(s->loop, &c->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0) {
		close(fd);
		free(c);
		return;
	}
	s->stats.accepted++;
	s->stats.connections++;
	list_add_tail(&s->idle, &c->node);
	conn_set_deadline(c, PHASE_IDLE);
}

static void listener_on_event(struct loop_io *io, uint32_t events)
{
	struct listener *l = container_of(io, struct listener, io);
	struct http_server *s = l->server;

	(void)events;
	for (int i = 0; i < 64; i++) {
		struct net_addr peer = { 0 };
		int fd = net_accept(io->fd, &peer);

		if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS) {
			server_pause_accept(s);
			return;
		}
		if (fd == -EAGAIN)
			return;
		if (fd < 0)
			continue;
		if (server_make_room(s))
			server_add_conn(s, fd, &peer, l->is_local);
		else
			server_refuse(fd);
	}
}

static void server_close_listeners(struct http_server *s)
{
	loop_timer_stop(s->loop, &s->accept_again);
	for (unsigned i = 0; i < s->listener_count; i++) {
		struct listener *l = &s->listeners[i];
		struct net_addr addr;

		if (l->is_local && http_server_address(s, i, &addr) == 0 && addr.un.sun_path[0])
			unlink(addr.un.sun_path);
		loop_io_remove(s->loop, &l->io);
		close(l->io.fd);
	}
	s->listener_count = 0;
}

int http_server_listen(struct http_server *s, const struct net_addr *addr, unsigned mode,
		       struct err *err)
{
	struct listener *l = &s->listeners[s->listener_count];
	bool is_local = addr->sa.sa_family == AF_UNIX;
	mode_t saved = 0;
	int fd, r;

	if (s->listener_count == LISTENERS_MAX)
		return err_set(err, -ENOSPC, "at most %d addresses to listen on", LISTENERS_MAX);
	/* The permissions are the access control, so they must be right from the first moment. */
	if (is_local)
		saved = umask(~(mode_t)(mode ? mode : 0660) & 0777);
	fd = net_listen(addr, false, 1024, err);
	if (is_local)
		umask(saved);
	if (fd < 0)
		return fd;
	*l = (struct listener) { .server = s, .is_local = is_local };
	l->io = (struct loop_io) { .fd = fd, .on_event = listener_on_event };
	r = loop_io_add(s->loop, &l->io, EPOLLIN);
	if (r < 0) {
		close(fd);
		return err_set(err, r, "epoll: %s", strerror(-r));
	}
	s->listener_count++;
	return 0;
}

int http_server_address(const struct http_server *s, unsigned i, struct net_addr *out)
{
	struct net_addr addr = { .len = sizeof(addr.un) };

	if (i >= s->listener_count)
		return -ENOENT;
	if (getsockname(s->listeners[i].io.fd, &addr.sa, &addr.len) < 0)
		return -errno;
	*out = addr;
	return 0;
}

/* --- the server
 * ---------------------------------------------------------------------------------------- */

static void server_on_stopped(struct loop_task *task)
{
	struct http_server *s = container_of(task, struct http_server, stopped);

	if (s->on_stopped)
		s->on_stopped(s->stopped_arg);
}

#define DEFAULT(field, value)              \
	do {                               \
		if (!(field))              \
			(field) = (value); \
	} while (0)

struct http_server *http_server_new(struct loop *loop, const struct http_server_config *config)
{
	struct http_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->loop = loop;
	s->config = *config;
	DEFAULT(s->config.max_head, 16384);
	DEFAULT(s->config.max_body, 256UL << 10);
	DEFAULT(s->config.max_stream_queue, 1UL << 20);
	DEFAULT(s->config.max_connections, 1024);
	DEFAULT(s->config.head_timeout_ms, 10000);
	DEFAULT(s->config.body_timeout_ms, 30000);
	DEFAULT(s->config.idle_timeout_ms, 75000);
	DEFAULT(s->config.write_timeout_ms, 20000);
	s->limits = http1_default_limits;
	s->limits.head_bytes = s->config.max_head;
	s->limits.target_bytes = MIN(s->limits.target_bytes, s->config.max_head);
	s->accept_again.on_fire = server_on_accept_again;
	s->stopped.run = server_on_stopped;
	list_init(&s->stopped.node);
	list_init(&s->idle);
	list_init(&s->busy);
	list_init(&s->spare_pendings);
	buf_init(&s->scratch, OUT_MAX);
	return s;
}

void http_server_stop(struct http_server *s, void (*on_stopped)(void *arg), void *arg)
{
	s->is_stopping = true;
	s->on_stopped = on_stopped;
	s->stopped_arg = arg;
	server_close_listeners(s);
	list_for_each_safe (node, &s->idle)
		conn_close(container_of(node, struct http_conn, node));
	list_for_each_safe (node, &s->busy) {
		struct http_conn *c = container_of(node, struct http_conn, node);

		if (c->state == CONN_STREAMING) {
			if (c->is_chunked)
				buf_addz(&c->out, "0\r\n\r\n");
			conn_drop_request(c);
			c->closes = true;
			conn_kick(c);
		}
	}
	server_check_stopped(s);
}

void http_server_free(struct http_server **sp)
{
	struct http_server *s = TAKE_PTR(*sp);

	if (!s)
		return;
	server_close_listeners(s);
	list_splice(&s->busy, &s->idle);
	list_for_each_safe (node, &s->busy)
		conn_close(container_of(node, struct http_conn, node));
	loop_cancel(&s->stopped);
	list_for_each_safe (node, &s->spare_pendings)
		pending_destroy(container_of(node, struct pending, node));
	while (s->spare_buf_count)
		buf_fini(&s->spare_bufs[--s->spare_buf_count]);
	buf_fini(&s->scratch);
	free(s);
}

const struct http_server_stats *http_server_stats(const struct http_server *s)
{
	return &s->stats;
}

void http_server_metrics(const struct http_server *s, const char *prefix, struct buf *out)
{
	const struct http_server_stats *st = &s->stats;
	const struct {
		const char *name, *type, *help;
		uint64_t value;
	} rows[] = {
		{ "connections", "gauge", "Open connections.", st->connections },
		{ "requests_in_progress", "gauge", "Requests without an answer yet, this one too.",
		  st->waiting },
		{ "streams", "gauge", "Event streams.", st->streams },
		{ "accepted_total", "counter", "Connections accepted.", st->accepted },
		{ "refused_total", "counter", "Times the maximum of connections was reached.",
		  st->refused },
		{ "requests_total", "counter", "Complete requests.", st->requests },
		{ "bad_requests_total", "counter", "Requests refused before any handler saw them.",
		  st->bad_requests },
		{ "timeouts_total", "counter", "Connections ended by a deadline.", st->timeouts },
		{ "slow_readers_total", "counter", "Streams cut off because of a slow reader.",
		  st->slow_readers },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char name[128];

		snprintf(name, sizeof(name), "%s_%s", prefix, rows[i].name);
		metrics_family(out, name, rows[i].type, rows[i].help);
		metrics_u64(out, name, NULL, rows[i].value);
	}
}

/* --- what handlers call
 * --------------------------------------------------------------------------------- */

static struct pending *pending_of(struct http_request *req)
{
	return container_of(req, struct pending, req);
}

struct buf *http_scratch(struct http_request *req)
{
	struct buf *b = &pending_of(req)->conn->server->scratch;

	buf_reset(b, 1UL << 20);
	return b;
}

void http_add_header(struct http_request *req, const char *name, struct str value)
{
	struct buf *headers = &pending_of(req)->headers;

	if (!http_is_field_value(value))
		return;
	buf_addz(headers, name);
	buf_append(headers, ": ", 2);
	buf_add(headers, value);
	buf_append(headers, "\r\n", 2);
}

void http_respond(struct http_request *req, unsigned status, const char *type, struct str body)
{
	struct pending *p = pending_of(req);
	struct http_conn *c = p->conn;

	assert(c->state == CONN_WAITING);
	if (c->server->is_stopping)
		c->closes = true;
	out_answer(c, status, type, buf_str(&p->headers), body);
	conn_answered(c);
}

void http_respond_json(struct http_request *req, unsigned status, struct str body)
{
	http_respond(req, status, "application/json", body);
}

__attribute__((format(printf, 4, 0))) static void respond_problem(struct http_request *req,
								  unsigned status,
								  const char *field,
								  const char *fmt, va_list ap)
{
	struct buf *body = http_scratch(req);
	char detail[512];

	vsnprintf(detail, sizeof(detail), fmt, ap);
	problem_body(body, status, field, detail);
	http_respond(req, status, "application/problem+json", buf_str(body));
}

void http_problem(struct http_request *req, unsigned status, const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	respond_problem(req, status, NULL, detail, ap);
	va_end(ap);
}

void http_problem_field(struct http_request *req, unsigned status, const char *field,
			const char *detail, ...)
{
	va_list ap;

	va_start(ap, detail);
	respond_problem(req, status, field, detail, ap);
	va_end(ap);
}

bool http_stream_start(struct http_request *req, unsigned status, const char *type)
{
	struct pending *p = pending_of(req);
	struct http_conn *c = p->conn;

	assert(c->state == CONN_WAITING);
	c->is_chunked = !c->is_http10;
	if (c->is_http10 || c->server->is_stopping)
		c->closes = true;
	out_head(c, status, type, buf_str(&p->headers));
	if (c->is_chunked)
		buf_addz(&c->out, "Transfer-Encoding: chunked\r\n");
	buf_addz(&c->out, "\r\n");
	if (c->is_head_request) {
		conn_answered(c);
		return false;
	}
	c->server->stats.waiting--;
	c->server->stats.streams++;
	c->state = CONN_STREAMING;
	c->has_streamed = false;
	conn_kick(c);
	return true;
}

bool http_stream_write(struct http_request *req, struct str data)
{
	struct http_conn *c = pending_of(req)->conn;
	char head[HTTP1_CHUNK_HEAD_MAX];

	assert(c->state == CONN_STREAMING);
	if (c->is_cut_off)
		return false;
	if (data.len == 0)
		return true;
	if (!c->has_streamed)
		c->stream_grace = data.len;
	else if (buf_len(&c->out) == 0)
		c->stream_grace = 0;
	c->has_streamed = true;
	if (buf_len(&c->out) + data.len > c->server->config.max_stream_queue + c->stream_grace) {
		c->is_cut_off = true;
		c->server->stats.slow_readers++;
		buf_return(c->server, &c->out);
		loop_defer(c->server->loop, &c->again);
		return false;
	}
	buf_borrow(c->server, &c->out, OUT_MAX);
	if (c->is_chunked)
		buf_append(&c->out, head, http1_chunk_head(head, data.len));
	buf_add(&c->out, data);
	if (c->is_chunked)
		buf_append(&c->out, "\r\n", 2);
	conn_kick(c);
	return true;
}

size_t http_stream_queued(const struct http_request *req)
{
	const struct pending *p = container_of((uintptr_t)req, const struct pending, req);

	return buf_len(&p->conn->out);
}

void http_stream_end(struct http_request *req)
{
	struct http_conn *c = pending_of(req)->conn;

	assert(c->state == CONN_STREAMING);
	if (c->is_chunked) {
		buf_borrow(c->server, &c->out, OUT_MAX);
		buf_addz(&c->out, "0\r\n\r\n");
	}
	conn_answered(c);
}
