/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners, the stock of buffers, start and end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/http_server_impl.h"
#include "lib/metrics.h"

#define ARENA_CHUNK     2048
#define ARENA_MAX       (4UL << 20)
#define ACCEPT_PAUSE_MS 100

/* --- stocks: an idle connection holds neither buffers nor a request -------------------------- */

void http_buf_borrow(struct http_server *s, struct buf *b, size_t max)
{
	if (b->data)
		return;
	if (s->spare_buf_count)
		*b = s->spare_bufs[--s->spare_buf_count];
	else
		buf_init(b, 0);
	b->max = max;
}

void http_buf_return(struct http_server *s, struct buf *b)
{
	if (!b->data)
		return;
	if (b->cap > HTTP_SPARE_CAP_MAX || s->spare_buf_count == HTTP_SPARES_MAX) {
		buf_fini(b);
		return;
	}
	buf_reset(b, HTTP_SPARE_CAP_MAX);
	s->spare_bufs[s->spare_buf_count++] = *b;
	buf_init(b, 0);
}

struct pending *http_pending_new(struct http_server *s)
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

void http_pending_free(struct http_server *s, struct pending *p)
{
	if (s->spare_pending_count == HTTP_SPARES_MAX) {
		pending_destroy(p);
		return;
	}
	arena_reset(&p->arena);
	buf_reset(&p->headers, 1024);
	list_add_tail(&s->spare_pendings, &p->node);
	s->spare_pending_count++;
}

/* --- listeners ------------------------------------------------------------------------------- */

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
	http_conn_close(container_of(s->idle.next, struct http_conn, node));
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
			http_conn_start(s, fd, &peer, l->is_local);
		else
			server_refuse(fd);
	}
}

static void server_close_listeners(struct http_server *s, bool removes_files)
{
	loop_timer_stop(s->loop, &s->accept_again);
	for (unsigned i = 0; i < s->listener_count; i++) {
		struct listener *l = &s->listeners[i];
		struct net_addr addr = { 0 };

		if (removes_files && l->is_local && http_server_address(s, i, &addr) == 0)
			net_remove_socket_file(&addr);
		loop_io_remove(s->loop, &l->io);
		close(l->io.fd);
	}
	s->listener_count = 0;
}

/* Takes the descriptor over. */
static int server_add_listener(struct http_server *s, int fd, bool is_local, struct err *err)
{
	struct listener *l = &s->listeners[s->listener_count];
	int r;

	if (s->listener_count == HTTP_LISTENERS_MAX) {
		close(fd);
		return err_set(err, -ENOSPC, "at most %d addresses to listen on",
			       HTTP_LISTENERS_MAX);
	}
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

int http_server_adopt(struct http_server *s, int fd, struct err *err)
{
	struct net_addr addr = { .len = sizeof(addr.un) };

	if (getsockname(fd, &addr.sa, &addr.len) < 0)
		addr.sa.sa_family = AF_UNSPEC;
	return server_add_listener(s, fd, addr.sa.sa_family == AF_UNIX, err);
}

int http_server_listener(const struct http_server *s, unsigned i)
{
	return i < s->listener_count ? s->listeners[i].io.fd : -1;
}

int http_server_listen(struct http_server *s, const struct net_addr *addr, unsigned mode,
		       struct err *err)
{
	bool is_local = addr->sa.sa_family == AF_UNIX;
	mode_t saved = 0;
	int fd;

	/* The permissions are the access control, so they must be right from the first moment. */
	if (is_local)
		saved = umask(~(mode_t)(mode ? mode : 0660) & 0777);
	fd = net_listen(addr, false, 1024, err);
	if (is_local)
		umask(saved);
	return fd < 0 ? fd : server_add_listener(s, fd, is_local, err);
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

/* --- the server ------------------------------------------------------------------------------ */

void http_server_check_stopped(struct http_server *s)
{
	if (s->is_stopping && s->stats.connections == 0)
		loop_defer(s->loop, &s->stopped);
}

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
	DEFAULT(s->config.max_queued, 512UL << 20);
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
	buf_init(&s->scratch, HTTP_OUT_MAX);
	return s;
}

static void server_stop(struct http_server *s, bool removes_files)
{
	s->is_stopping = true;
	server_close_listeners(s, removes_files);
	list_for_each_safe (node, &s->idle)
		http_conn_close(container_of(node, struct http_conn, node));
	list_for_each_safe (node, &s->busy) {
		struct http_conn *c = container_of(node, struct http_conn, node);

		if (c->state == CONN_STREAMING) {
			if (c->is_chunked)
				buf_addz(&c->out, "0\r\n\r\n");
			http_conn_drop_request(c);
			c->closes = true;
			http_conn_kick(c);
		}
	}
	http_server_check_stopped(s);
}

void http_server_stop(struct http_server *s, void (*on_stopped)(void *arg), void *arg)
{
	s->on_stopped = on_stopped;
	s->stopped_arg = arg;
	server_stop(s, true);
}

void http_server_release(struct http_server *s)
{
	server_stop(s, false);
}

void http_server_free(struct http_server **sp)
{
	struct http_server *s = TAKE_PTR(*sp);

	if (!s)
		return;
	server_close_listeners(s, true);
	list_splice(&s->busy, &s->idle);
	list_for_each_safe (node, &s->busy)
		http_conn_close(container_of(node, struct http_conn, node));
	loop_cancel(&s->stopped);
	http_tls_put(&s->tls);
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
		{ "failed_handshakes_total", "counter", "TLS handshakes that failed.",
		  st->failed_handshakes },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char name[128];

		snprintf(name, sizeof(name), "%s_%s", prefix, rows[i].name);
		metrics_family(out, name, rows[i].type, rows[i].help);
		metrics_u64(out, name, NULL, rows[i].value);
	}
}
