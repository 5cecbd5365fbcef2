/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/upconn.h"

#include <errno.h>
#include <openssl/err.h>
#include <sys/uio.h>

#include "lib/tls.h"
#include "lib/tls_client.h"

#define UPCONN_IN_MAX (64UL * 1024)

static void upconn_free(struct loop_task *task)
{
	struct upconn *u = container_of(task, struct upconn, free);

	if (u->ssl)
		SSL_SESSION_free(tls_client_take_session(u->ssl));
	SSL_free(u->ssl);
	tls_client_free(&u->tls);
	free(u);
}

static void release_buffer(struct upconn *u)
{
	if (!u->in.data)
		return;
	if (u->in.cap == WORKER_CHUNK)
		worker_chunk_give(u->worker, u->in.data);
	else
		free(u->in.data);
	buf_init(&u->in, UPCONN_IN_MAX);
}

/* Sessions made under a policy that is no longer the service's are worth nothing. */
static void keep_session(struct upconn *u)
{
	SSL_SESSION *session = u->ssl ? tls_client_take_session(u->ssl) : NULL;

	if (!session)
		return;
	if (u->tls != u->service->tls) {
		SSL_SESSION_free(session);
		return;
	}
	SSL_SESSION_free(u->endpoint->session);
	u->endpoint->session = session;
}

/* Says goodbye without waiting for an answer; OpenSSL would spoil the session of a connection that
 * was not ended properly. */
static void end_tls(struct upconn *u)
{
	if (!u->ssl || !u->is_connected)
		return;
	SSL_shutdown(u->ssl);
	SSL_set_shutdown(u->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	ERR_clear_error();
}

static void uncount(struct upconn *u)
{
	if (u->circuit)
		circuit_disconnect(u->circuit);
	circuit_put(&u->circuit);
}

void upconn_close(struct upconn *u)
{
	struct loop *loop = u->worker->loop;

	if (u->is_closed)
		return;
	u->is_closed = true;
	keep_session(u);
	end_tls(u);
	if (!list_empty(&u->node)) {
		list_remove(&u->node);
		u->endpoint->idle_count--;
	}
	loop_timer_stop(loop, &u->idle_timer);
	loop_io_remove(loop, &u->io);
	close(u->io.fd);
	release_buffer(u);
	uncount(u);
	endpoint_put(u->endpoint);
	service_put(u->service);
	loop_defer(loop, &u->free);
}

void upconn_close_idle(struct endpoint *e)
{
	while (!list_empty(&e->idle))
		upconn_close(container_of(e->idle.next, struct upconn, node));
}

static void on_idle_timer(struct loop_timer *timer)
{
	upconn_close(container_of(timer, struct upconn, idle_timer));
}

/* The service may have closed in the meantime, the news being still on its way through epoll. */
static bool is_quiet(const struct upconn *u)
{
	char byte;

	/* Tickets come unasked, and are no answer. What is read here is lost, with the connection.
	 */
	if (u->ssl)
		return tls_read(u->ssl, &byte, 1) == -EAGAIN;
	return recv(u->io.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static void on_io(struct loop_io *io, uint32_t events)
{
	struct upconn *u = container_of(io, struct upconn, io);

	u->expects_eof |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->can_read = true;
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		u->can_write = true;
	if (u->on_event)
		u->on_event(u, u->arg);
	else if (u->can_read && (!u->ssl || u->expects_eof || !is_quiet(u)))
		upconn_close(u);
	else
		u->can_read = false;
}

static struct upconn *take_idle(const struct service *s, struct endpoint *e,
				enum upconn_choice choice)
{
	while (choice != UPCONN_FRESH && !list_empty(&e->idle)) {
		struct upconn *u = container_of(e->idle.next, struct upconn, node);

		if (u->tls != s->tls || (choice == UPCONN_CHECKED && !is_quiet(u))) {
			upconn_close(u);
			continue;
		}
		list_remove(&u->node);
		e->idle_count--;
		loop_timer_stop(u->worker->loop, &u->idle_timer);
		u->is_reused = true;
		return u;
	}
	return NULL;
}

/* Its session is taken along: a full handshake costs a service ten times as much. */
static int start_tls(struct upconn *u, const struct service *s, const struct endpoint *e)
{
	char address[NET_ADDR_LEN];

	u->ssl = tls_client_connect(s->tls, u->io.fd, net_format_ip(address, &e->addr));
	if (!u->ssl)
		return -ENOMEM;
	u->tls = tls_client_get(s->tls);
	if (e->session)
		SSL_set_session(u->ssl, e->session);
	return 0;
}

static int do_handshake(struct upconn *u)
{
	struct worker_stats *stats = &u->worker->counters;
	const char *problem = NULL;
	char text[200];
	int rc = tls_client_handshake(u->ssl, &problem);

	if (rc == -EAGAIN) {
		u->can_read = u->can_write = false;
		return rc;
	}
	if (rc < 0) {
		metrics_inc(&stats->upstream_tls_failed, 1);
		snprintf(text, sizeof(text), "TLS: %s", problem);
		endpoint_tell(u->service, u->endpoint, text);
		return rc;
	}
	metrics_inc(&stats->upstream_tls, 1);
	if (SSL_session_reused(u->ssl))
		metrics_inc(&stats->upstream_tls_resumed, 1);
	u->can_read = u->can_write = true;
	return 0;
}

bool upconn_speaks(const struct upconn *u, struct str protocol)
{
	const unsigned char *name = NULL;
	unsigned len = 0;

	if (!u->ssl)
		return true;
	SSL_get0_alpn_selected(u->ssl, &name, &len);
	return str_eq(str_of((const char *)name, len), protocol);
}

int upconn_connect(struct upconn *u)
{
	int rc = net_socket_error(u->io.fd);

	if (rc < 0) {
		endpoint_tell(u->service, u->endpoint, strerror(-rc));
		return rc;
	}
	if (u->ssl && (u->can_write || u->can_read))
		rc = do_handshake(u);
	else if (!u->can_write)
		rc = -EAGAIN;
	u->is_connected = rc == 0;
	return rc;
}

/* The oldest of those that wait in this worker makes room for one that is needed. */
static bool close_one_idle(const struct service *s)
{
	for (size_t i = 0; i < s->count; i++) {
		struct list *idle = &s->endpoints[i]->idle;

		if (list_empty(idle))
			continue;
		upconn_close(container_of(idle->prev, struct upconn, node));
		return true;
	}
	return false;
}

static int count(struct upconn *u, const struct service *s)
{
	if (!s->max_connections || !s->circuit)
		return 0;
	while (!circuit_connect(s->circuit, s->max_connections)) {
		if (!close_one_idle(s))
			return -EUSERS;
	}
	u->circuit = circuit_get(s->circuit);
	return 0;
}

/* The socket and what belongs to it. */
static int upconn_open(struct upconn *u, struct service *s, struct endpoint *e)
{
	int rc = count(u, s);

	if (rc == 0)
		rc = u->io.fd = net_connect(&e->addr);
	if (rc < 0)
		return rc;
	if (s->tls && start_tls(u, s, e) < 0)
		return -ENOMEM;
	return loop_io_add(u->worker->loop, &u->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static void upconn_discard(struct upconn *u)
{
	uncount(u);
	if (u->io.fd >= 0)
		close(u->io.fd);
	upconn_free(&u->free);
}

int upconn_take(struct upconn **out, struct service *s, struct endpoint *e,
		enum upconn_choice choice)
{
	struct worker *w = s->worker;
	struct upconn *u = take_idle(s, e, choice);
	int rc;

	if (u) {
		metrics_inc(&w->counters.upstream_reuses, 1);
		*out = u;
		return 0;
	}
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->worker = w;
	u->io.fd = -1;
	u->io.on_event = on_io;
	u->idle_timer.on_fire = on_idle_timer;
	u->free.run = upconn_free;
	list_init(&u->node);
	buf_init(&u->in, UPCONN_IN_MAX);
	rc = upconn_open(u, s, e);
	if (rc < 0) {
		upconn_discard(u);
		return rc;
	}
	u->service = service_get(s);
	u->endpoint = endpoint_get(e);
	metrics_inc(&w->counters.upstream_connects, 1);
	*out = u;
	return 0;
}

/*
 * A body of known length is read to its last byte and no further, so what lies behind it is still
 * in the socket: a service's second answer would become the next client's, its FIN that client's
 * error.
 */
static bool is_at_clean_end(struct upconn *u)
{
	if (u->has_eof || buf_len(&u->in))
		return false;
	if ((u->can_read || u->ssl) && !is_quiet(u))
		return false;
	u->can_read = false;
	return true;
}

void upconn_give(struct upconn *u)
{
	struct endpoint *e = u->endpoint;

	u->on_event = NULL;
	u->arg = NULL;
	keep_session(u);
	/* An instance that left the list, or a worker that ends: nobody would come for it again. */
	if (e->is_gone || u->tls != u->service->tls || u->worker->is_draining ||
	    e->idle_count >= u->service->max_idle || !is_at_clean_end(u)) {
		upconn_close(u);
		return;
	}
	release_buffer(u);
	list_add_head(&e->idle, &u->node);
	e->idle_count++;
	loop_timer_start(u->worker->loop, &u->idle_timer, u->service->idle_timeout_ms);
}

static long read_tls(struct upconn *u, void *out, size_t len)
{
	long n = tls_read(u->ssl, out, len);

	if (n <= 0 || (tls_is_drained(u->ssl) && !u->expects_eof))
		u->can_read = false;
	if (n == 0)
		u->has_eof = true;
	return n;
}

long upconn_read(struct upconn *u, void *out, size_t len)
{
	if (u->ssl)
		return read_tls(u, out, len);

	ssize_t n = recv(u->io.fd, out, len, 0);

	if (n <= 0 || (n < (ssize_t)len && !u->expects_eof))
		u->can_read = false;
	if (n == 0)
		u->has_eof = true;
	return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

long upconn_fill(struct upconn *u)
{
	long n;

	if (!u->in.data) {
		u->in.data = worker_chunk_take(u->worker);
		u->in.cap = u->in.data ? WORKER_CHUNK : 0;
	}
	if (!u->in.data || !buf_reserve(&u->in, 1024))
		return -ENOBUFS;
	n = upconn_read(u, u->in.data + u->in.end, buf_room(&u->in));
	if (n > 0)
		buf_commit(&u->in, (size_t)n);
	return n;
}

/* One record with both, if they fit. */
static long send_tls(struct upconn *u, struct str head, struct str body)
{
	char record[16384];
	size_t head_len = MIN(head.len, sizeof(record));
	size_t body_len = MIN(body.len, sizeof(record) - head_len);
	long n;

	if (head_len && body_len) {
		memcpy(record, head.p, head_len);
		memcpy(record + head_len, body.p, body_len);
		n = tls_write(u->ssl, record, head_len + body_len);
	} else {
		n = tls_write(u->ssl, head_len ? head.p : body.p, head_len + body_len);
	}
	if (n < 0)
		u->can_write = false;
	return n;
}

long upconn_send(struct upconn *u, struct str head, struct str body)
{
	if (u->ssl)
		return send_tls(u, head, body);

	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)head.p, .iov_len = head.len },
		{ .iov_base = (void *)(uintptr_t)body.p, .iov_len = body.len },
	};
	struct msghdr msg = { .msg_iov = head.len ? iov : iov + 1,
			      .msg_iovlen = head.len && body.len ? 2 : 1 };
	ssize_t n = sendmsg(u->io.fd, &msg, MSG_NOSIGNAL);

	if (n < (ssize_t)(head.len + body.len))
		u->can_write = false;
	return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}
