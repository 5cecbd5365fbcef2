/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: reads requests, hands them over, writes answers, watches the time. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/http_server_impl.h"
#include "lib/tls.h"

#define READ_SIZE    16384UL
#define OUT_PAUSE    65536 /* so much unsent: no further request is taken up */
#define ROUND_READS  16    /* then the other connections get their turn */
#define LINGER_MS    1000
#define PATIENCE_MS  30000 /* with a peer that vanished: a stream's comment says so */
#define READ_RATE    16    /* bytes a millisecond that a reader has to take, beside its patience */
#define LINGER_BYTES (1 << 22) /* bodies that are too long, mostly by little */

/* --- transport: all bytes go through these two ----------------------------------------------- */

/* Bytes, 0 at the end, or -errno. */
static ssize_t conn_recv(struct http_conn *c, void *p, size_t len)
{
	ssize_t n;

	if (c->ssl)
		return tls_read(c->ssl, p, len);
	do {
		n = recv(c->io.fd, p, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t conn_send(struct http_conn *c, const void *p, size_t len)
{
	ssize_t n;

	if (c->ssl)
		return tls_write(c->ssl, p, len);
	do {
		n = send(c->io.fd, p, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* --- deadlines ------------------------------------------------------------------------------- */

static uint32_t phase_timeout_ms(const struct http_server *s, enum conn_phase phase)
{
	switch (phase) {
	case PHASE_IDLE:
		return s->config.idle_timeout_ms;
	case PHASE_HANDSHAKE:
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
	if (phase == PHASE_WRITE) {
		c->write_from_ms = loop_now_ms(s->loop);
		c->write_credit_ms = s->config.write_timeout_ms;
	}
	if (!loop_timer_is_pending(&c->timer) || c->timer.wheel.due > c->deadline_ms)
		loop_timer_start(s->loop, &c->timer, c->deadline_ms - loop_now_ms(s->loop));
}

static enum conn_phase conn_wanted_phase(const struct http_conn *c)
{
	if (c->tls)
		return PHASE_HANDSHAKE;
	if (c->state == CONN_LINGERING)
		return PHASE_LINGER;
	if (http_conn_unsent(c))
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
	if (phase == PHASE_HANDSHAKE)
		return;
	if (c->phase == PHASE_IDLE || c->phase == PHASE_HANDSHAKE) {
		list_remove(&c->node);
		list_add_tail(&c->server->busy, &c->node);
	}
	if (phase != c->phase)
		conn_set_deadline(c, phase);
}

/* --- end of a connection --------------------------------------------------------------------- */

static void conn_release_request(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (c->state == CONN_WAITING)
		s->stats.waiting--;
	else if (c->state == CONN_STREAMING)
		s->stats.streams--;
	http_pending_free(s, TAKE_PTR(c->pending));
	c->state = CONN_READING;
}

/* The peer is gone: tells the handler that still has the request. */
void http_conn_drop_request(struct http_conn *c)
{
	struct http_request *req;

	if (!c->pending)
		return;
	req = &c->pending->req;
	if (req->on_gone)
		req->on_gone(req);
	conn_release_request(c);
}

void http_conn_close(struct http_conn *c)
{
	struct http_server *s = c->server;

	http_conn_drop_request(c);
	loop_timer_stop(s->loop, &c->timer);
	loop_cancel(&c->again);
	SSL_free(c->ssl);
	http_tls_put(&c->tls);
	loop_io_remove(s->loop, &c->io);
	close(c->io.fd);
	list_remove(&c->node);
	http_buf_return(s, &c->in);
	http_buf_return(s, &c->out);
	http_conn_charge(c);
	http_shared_put(&c->tail);
	free(c);
	s->stats.connections--;
	http_server_check_stopped(s);
}

void http_conn_kick(struct http_conn *c)
{
	if (!c->is_running)
		loop_defer(c->server->loop, &c->again);
}

/* --- reading requests ------------------------------------------------------------------------ */

/* Hands the complete request at the front of `in` over. */
static void conn_dispatch(struct http_conn *c, size_t body_end, size_t raw_end)
{
	struct http_server *s = c->server;
	const struct http1_head *head = &s->head;
	struct pending *p = http_pending_new(s);

	if (!p) {
		http_conn_refuse(c, 503, "out of memory");
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

void http_conn_answered(struct http_conn *c)
{
	conn_release_request(c);
	http_conn_kick(c);
}

int http_detach(struct http_request *req)
{
	struct http_conn *c = container_of(req, struct pending, req)->conn;
	int fd;

	if (c->ssl)
		return -ENOTSUP;
	fd = fcntl(c->io.fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The connection ends as a broken one does, without a word; the socket lives on in fd. */
	c->is_cut_off = true;
	http_conn_answered(c);
	return fd;
}

/* Parses the head at the front. Returns false when the connection has to wait or was refused. */
static bool conn_parse_head(struct http_conn *c)
{
	struct http_server *s = c->server;
	long len = http1_parse_request(&s->head, &c->scan, buf_str(&c->in), &s->limits);

	if (len < 0) {
		http_conn_refuse(c, (unsigned)-len, s->head.problem);
		return false;
	}
	if (len == 0)
		return false;
	c->head_len = c->body_end = c->raw_at = (size_t)len;
	if (s->head.framing == HTTP1_LENGTH && s->head.content_length > s->config.max_body) {
		http_conn_refuse(c, 413, "the body is too large");
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
				http_conn_refuse(c, 413, "the body is too large");
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
			http_conn_refuse(c, 400, "malformed chunked body");
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
		http_buf_borrow(c->server, &c->out, HTTP_OUT_MAX);
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
			http_conn_refuse(c, 400, "malformed head");
			return false;
		}
		c->body_end = body_end;
		c->raw_at = raw_end;
	}
	conn_dispatch(c, c->body_end, c->raw_at);
	return true;
}

/* Whether only a new edge can bring more than these bytes. */
static bool conn_ran_dry(const struct http_conn *c, size_t n, size_t room)
{
	return c->ssl ? tls_is_drained(c->ssl) : n < room;
}

static void conn_fill(struct http_conn *c)
{
	struct http_server *s = c->server;
	size_t room;
	ssize_t n;

	http_buf_borrow(s, &c->in, s->config.max_head + s->config.max_body + 2 * READ_SIZE);
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
		if (conn_ran_dry(c, (size_t)n, room) && !c->has_hangup)
			c->can_read = false;
		return;
	}
	c->can_read = false;
	if (n == 0)
		c->is_at_end = true;
	else if (n != -EAGAIN)
		c->is_cut_off = true;
}

/* Bytes taken earn time, waiting for them is paid: a reader of one byte now and then would hold its
 * answer for ever. */
static void conn_write_progress(struct http_conn *c, size_t bytes)
{
	uint64_t now_ms = loop_now_ms(c->server->loop);

	if (c->phase != PHASE_WRITE)
		return;
	c->write_credit_ms += (int64_t)(bytes / READ_RATE) - (int64_t)(now_ms - c->write_from_ms);
	c->write_credit_ms = MIN(c->write_credit_ms, (int64_t)c->server->config.write_timeout_ms);
	c->write_from_ms = now_ms;
	c->deadline_ms = now_ms + (uint64_t)MAX(c->write_credit_ms, (int64_t)1);
	if (c->timer.wheel.due > c->deadline_ms)
		loop_timer_start(c->server->loop, &c->timer, c->deadline_ms - now_ms);
}

/* Sends what it can. Returns false when the connection is broken. */
static bool conn_flush(struct http_conn *c)
{
	while (http_conn_unsent(c) && c->can_write) {
		struct str next = http_conn_next_out(c);
		ssize_t n = conn_send(c, next.p, next.len);

		if (n == -EAGAIN) {
			c->can_write = false;
		} else if (n < 0) {
			return false;
		} else {
			http_conn_sent(c, (size_t)n);
			conn_write_progress(c, (size_t)n);
		}
	}
	if (buf_failed(&c->out))
		return false;
	if (buf_len(&c->out) == 0)
		http_buf_return(c->server, &c->out);
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
	http_tls_shutdown(c);
	shutdown(c->io.fd, SHUT_WR);
	c->state = CONN_LINGERING;
	http_buf_return(c->server, &c->in);
	return conn_linger(c);
}

static bool conn_may_parse(const struct http_conn *c)
{
	return c->state == CONN_READING && !c->closes && !c->is_cut_off && !c->tail &&
	       buf_len(&c->out) < OUT_PAUSE;
}

/* Parses, answers, writes, reads, until nothing is left to do. Returns false when it is over. */
static bool conn_advance(struct http_conn *c)
{
	size_t reads = 0;

	if (c->tls) {
		int r = http_tls_handshake(c);

		if (r < 0)
			return r == -EAGAIN;
	}
	while (c->state != CONN_LINGERING) {
		bool is_exhausted = false;

		while (conn_may_parse(c) && !is_exhausted)
			is_exhausted = !conn_next_request(c);
		if (!conn_flush(c) || c->is_cut_off)
			return false;
		/* A peer that hung up while it waits for an answer does not want it any more. */
		if (c->has_hangup && c->state != CONN_READING)
			return false;
		if (c->state == CONN_READING && c->closes && http_conn_unsent(c) == 0)
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
		http_buf_return(c->server, &c->in);
	return true;
}

static void conn_run(struct http_conn *c)
{
	bool is_alive;

	c->is_running = true;
	is_alive = conn_advance(c);
	http_conn_charge(c);
	c->is_running = false;
	/* It was busy when the server was told to stop, and is no longer. */
	if (c->server->is_stopping && conn_wanted_phase(c) == PHASE_IDLE)
		is_alive = false;
	if (is_alive)
		conn_update_phase(c);
	else
		http_conn_close(c);
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
		http_conn_refuse(c, 408, "the request did not arrive in time");
		conn_run(c);
		return;
	case PHASE_HANDSHAKE:
	case PHASE_WRITE:
		s->stats.timeouts++;
		break;
	case PHASE_NONE:
	case PHASE_IDLE:
	case PHASE_LINGER:
		break;
	}
	http_conn_close(c);
}

void http_conn_start(struct http_server *s, int fd, const struct net_addr *peer, bool is_local)
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
	if (!is_local) {
		net_set_nodelay(fd);
		net_set_patience(fd, PATIENCE_MS);
	}
	/* Registered once for everything; edges tell what changed. */
	if (loop_io_add(s->loop, &c->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0) {
		close(fd);
		free(c);
		return;
	}
	s->stats.accepted++;
	s->stats.connections++;
	list_add_tail(&s->idle, &c->node);
	if (http_tls_accept(c) < 0)
		http_conn_close(c);
	else
		conn_set_deadline(c, conn_wanted_phase(c));
}
