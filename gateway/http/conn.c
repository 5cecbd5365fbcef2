/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/conn.h"

#include <errno.h>
#include <sys/socket.h>

#include "gateway/http/http1.h"
#include "gateway/http/http2.h"
#include "gateway/snapshot.h"
#include "lib/log.h"
#include "lib/proxy_protocol.h"
#include "lib/tls.h"
#include "lib/tls_server.h"

#define CONN_IN_MAX         (64UL * 1024)
#define CONN_IN_SPARE       4096UL /* read beyond the largest head that is allowed */
#define CONN_ROUNDS         4 /* of work and flushing; then other connections have their turn */
#define PROXY_TELL_EVERY_MS 60000
/* Slow readers, as slow bodies in http1.c: at least 500 bytes a second over time, beyond
 * write_timeout_ms of patience. */
#define WRITE_MS_PER_BYTE 2
#define CONN_OUT_MAX      (1024UL * 1024)
#define CONN_HOLD_MAX     8192 /* a socket takes so much, or its peer is slow */
#define CONN_LINGER_MS    2000 /* how long a finished connection waits for the peer's FIN */
#define CONN_LINGER_BYTES (256UL * 1024)

/* --- buffers: taken from the worker's pool when needed, given back when empty
 * ------------------------------------- */

static bool chunk_attach(struct conn *c, struct buf *b)
{
	if (b->data)
		return true;
	b->data = worker_chunk_take(c->worker);
	b->cap = b->data ? WORKER_CHUNK : 0;
	return b->data != NULL;
}

static void chunk_detach(struct conn *c, struct buf *b)
{
	if (!b->data || buf_len(b))
		return;
	if (b->cap == WORKER_CHUNK) {
		worker_chunk_give(c->worker, b->data);
		b->data = NULL;
		b->cap = b->start = b->end = 0;
	} else {
		buf_reset(b, 0);
	}
}

char *conn_reserve(struct conn *c, size_t want, size_t *room)
{
	char *at;

	if (!chunk_attach(c, &c->out))
		return NULL;
	at = buf_reserve(&c->out, want);
	*room = at ? buf_room(&c->out) : 0;
	return at;
}

/* --- deadlines
 * ------------------------------------------------------------------------------------------------------
 */

/* A timer that fires too early is put off then; only one that fires too late must move now. */
static void conn_arm(struct conn *c, uint64_t due_ms)
{
	struct loop *loop = c->worker->loop;

	if (!loop_timer_is_pending(&c->timer) || c->timer.wheel.due > due_ms)
		loop_timer_start(loop, &c->timer, due_ms - MIN(due_ms, loop_now_ms(loop)));
}

void conn_set_deadline(struct conn *c, uint64_t delay_ms)
{
	c->deadline_ms = loop_now_ms(c->worker->loop) + delay_ms;
	conn_arm(c, c->deadline_ms);
}

void conn_clear_deadline(struct conn *c)
{
	c->deadline_ms = UINT64_MAX;
}

/* It comes from who is trusted with it: a mistake in somebody's configuration, and a load balancer
 * makes it with each connection. */
static void refuse_proxy_header(struct conn *c, const char *why)
{
	struct worker *w = c->worker;
	uint64_t now = loop_now_ms(w->loop);

	metrics_inc(&w->counters.proxy_refused, 1);
	if (w->proxy_told_ms && now - w->proxy_told_ms < PROXY_TELL_EVERY_MS)
		return;
	w->proxy_told_ms = now;
	log_warn("%.*s sends %s, and is in \"proxy_protocol.from\" of this listener: connection "
		 "closed",
		 STR_ARG(c->peer_ip), why);
}

static void conn_on_timer(struct loop_timer *timer)
{
	struct conn *c = container_of(timer, struct conn, timer);
	uint64_t now = loop_now_ms(c->worker->loop);

	if (now >= c->stall_ms) {
		conn_close(c);
		return;
	}
	if (now < c->deadline_ms) {
		if (MIN(c->deadline_ms, c->stall_ms) != UINT64_MAX)
			conn_arm(c, MIN(c->deadline_ms, c->stall_ms));
		return;
	}
	c->deadline_ms = UINT64_MAX;
	if (c->awaits_proxy)
		refuse_proxy_header(c, "no PROXY header in time");
	else if (!c->proto)
		metrics_inc(&c->worker->counters.handshakes_failed[TLS_FAILED_TIMEOUT], 1);
	if (!c->proto || c->is_finishing)
		conn_close(c);
	else
		c->proto->on_deadline(c);
}

/* --- reading and writing
 * -------------------------------------------------------------------------------------------- */

static const struct gw_client *client_conf(const struct conn *c)
{
	return &c->worker->conf->snapshot->conf.client;
}

bool conn_fill(struct conn *c)
{
	size_t max = MAX(CONN_IN_MAX, client_conf(c)->max_head_bytes + CONN_IN_SPARE);
	long n;

	if (!c->can_read || c->has_eof || c->is_closed || buf_len(&c->in) >= max)
		return false;
	if (!chunk_attach(c, &c->in) || !buf_reserve(&c->in, 2048))
		return false;
	if (c->ssl) {
		n = tls_read(c->ssl, c->in.data + c->in.end, buf_room(&c->in));
		if (tls_is_drained(c->ssl) && !c->expects_eof)
			c->can_read = false;
	} else {
		n = recv(c->io.fd, c->in.data + c->in.end, buf_room(&c->in), 0);
		if (n < 0)
			n = -errno;
		if (n < (long)buf_room(&c->in) && !c->expects_eof)
			c->can_read = false;
	}
	if (n > 0) {
		buf_commit(&c->in, (size_t)n);
		c->bytes_in += (uint64_t)n;
		return true;
	}
	c->can_read = false;
	chunk_detach(c, &c->in);
	if (n == 0)
		c->has_eof = true;
	else if (n != -EAGAIN && n != -EINTR)
		conn_close(c);
	return false;
}

/* Output is blocked: the client has so much time to take some. */
static void write_wait(struct conn *c)
{
	if (c->stall_ms != UINT64_MAX)
		return;
	c->stall_from_ms = loop_now_ms(c->worker->loop);
	c->stall_ms = c->stall_from_ms + (uint64_t)MAX(c->write_credit_ms, (int64_t)1);
	conn_arm(c, c->stall_ms);
}

/* Bytes taken earn time, waiting for them is paid: taking one now and then is not enough. */
static void write_progress(struct conn *c, size_t bytes)
{
	if (c->stall_ms == UINT64_MAX)
		return;
	c->stall_ms = UINT64_MAX;
	c->write_credit_ms += (int64_t)bytes * WRITE_MS_PER_BYTE -
			      (int64_t)(loop_now_ms(c->worker->loop) - c->stall_from_ms);
	c->write_credit_ms = MIN(c->write_credit_ms, (int64_t)client_conf(c)->write_timeout_ms);
}

static void conn_flush(struct conn *c)
{
	while (buf_len(&c->out) && c->can_write && !c->is_closed) {
		long n;

		if (c->ssl) {
			n = tls_write(c->ssl, buf_data(&c->out),
				      MIN(buf_len(&c->out), (size_t)16384));
		} else {
			n = send(c->io.fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL);
			if (n < 0)
				n = -errno;
		}
		if (n > 0) {
			buf_consume(&c->out, (size_t)n);
			c->bytes_out += (uint64_t)n;
			write_progress(c, (size_t)n);
		} else if (n == -EAGAIN || n == -EINTR) {
			c->can_write = false;
		} else {
			conn_close(c);
		}
	}
}

/* --- closing
 * ----------------------------------------------------------------------------------------------------------
 */

static void conn_free(struct loop_task *task)
{
	struct conn *c = container_of(task, struct conn, free);

	SSL_free(c->ssl);
	free(c->client_certificate);
	free(c->client_names);
	if (c->conf)
		worker_conf_put(c->conf);
	c->in.start = c->in.end = c->out.start = c->out.end = 0;
	chunk_detach(c, &c->in);
	chunk_detach(c, &c->out);
	free(c);
}

void conn_close(struct conn *c)
{
	struct worker *w = c->worker;

	if (c->is_closed)
		return;
	c->is_closed = true;
	if (c->proto)
		c->proto->on_close(c);
	loop_timer_stop(w->loop, &c->timer);
	loop_cancel(&c->work);
	loop_io_remove(w->loop, &c->io);
	close(c->io.fd);
	list_remove(&c->node);
	metrics_inc(&w->conn_count, (uint64_t)-1);
	/* Callers up the stack still hold the pointer. */
	loop_defer(w->loop, &c->free);
	worker_on_idle(w);
}

void conn_finish(struct conn *c)
{
	c->is_finishing = true;
	conn_kick(c);
}

void conn_half_close(struct conn *c)
{
	c->wants_shut = true;
	conn_kick(c);
}

/* Sends records that were kept. False when the socket does not take them now, or never. */
static bool conn_release(struct conn *c)
{
	int rc = tls_release(c->ssl);

	c->is_holding = rc == -EAGAIN;
	if (rc == 0) {
		write_progress(c, 0);
		return true;
	}
	c->can_write = false;
	if (rc == -EAGAIN)
		write_wait(c);
	else
		conn_close(c);
	return false;
}

static void conn_shut(struct conn *c)
{
	if (c->ssl && SSL_is_init_finished(c->ssl)) {
		if (!(SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN))
			SSL_shutdown(c->ssl);
		if (c->is_holding && !conn_release(c))
			return;
	}
	c->has_shut = true;
	shutdown(c->io.fd, SHUT_WR);
}

/*
 * Everything was written. A close() while unread bytes wait in the socket would send a reset, and
 * the peer could lose the answer that it has not read yet (RFC 9112 9.6): so FIN first, then read
 * and drop until the peer's FIN.
 */
static void conn_linger(struct conn *c)
{
	char dropped[8192];

	if (!c->has_shut)
		conn_shut(c);
	if (!c->has_shut || c->is_closed)
		return;
	if (!c->is_lingering) {
		c->is_lingering = true;
		conn_set_deadline(c, CONN_LINGER_MS);
		/* Its FIN may have been seen already; everything else raises an event. */
		c->can_read |= c->expects_eof || c->has_eof;
		c->bytes_in = 0;
	}
	while (c->can_read) {
		ssize_t n = recv(c->io.fd, dropped, sizeof(dropped), 0);

		if (n > 0)
			c->bytes_in += (uint64_t)n;
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) ||
		    c->bytes_in > CONN_LINGER_BYTES) {
			conn_close(c);
			return;
		}
		if (n < 0)
			c->can_read = false;
	}
}

/* --- events
 * ------------------------------------------------------------------------------------------------------------
 */

struct request *conn_request_new(struct conn *c, const char *protocol,
				 const struct downstream_ops *down, void *down_state)
{
	struct request *r = request_new(c->worker);

	if (!r)
		return NULL;
	r->down = down;
	r->down_state = down_state;
	r->protocol = protocol;
	r->tls = c->tls;
	r->tls_policy = c->tls_policy;
	if (c->client_certificate)
		r->client_certificate = str_from(c->client_certificate);
	if (c->client_names)
		r->client_names = str_from(c->client_names);
	r->client_until_s = c->client_until_s;
	r->scheme = c->ssl ? STR("https") : STR("http");
	r->client = c->peer;
	r->client_ip = r->peer_ip = c->peer_ip;
	r->listener = c->listener;
	return r;
}

/* What ALPN agreed on (RFC 7301). */
static bool conn_speaks_http2(const struct conn *c)
{
	const unsigned char *name;
	unsigned len;

	if (!c->ssl)
		return false;
	SSL_get0_alpn_selected(c->ssl, &name, &len);
	return len == 2 && memcmp(name, "h2", 2) == 0;
}

static void conn_choose_protocol(struct conn *c)
{
	c->tls = c->ssl ? tls_version_name(c->ssl) : "";
	if (c->conf) {
		worker_conf_put(c->conf);
		c->conf = NULL;
	}
	if (conn_speaks_http2(c))
		http2_start(c);
	else
		http1_start(c);
}

static void conn_do_handshake(struct conn *c)
{
	struct worker_stats *stats = &c->worker->counters;
	enum tls_failure why;
	bool was_done = SSL_is_init_finished(c->ssl);
	int rc;

	tls_hold(c->ssl);
	rc = tls_server_handshake(c->ssl, &why);
	if (rc == 0 && SSL_version(c->ssl) == TLS1_3_VERSION) {
		/* What it wrote last is a ticket, for which the client does not wait. */
		tls_stop_holding(c->ssl);
		c->is_holding = true;
	} else if (tls_release(c->ssl) == -EAGAIN && rc == 0) {
		rc = -EAGAIN; /* asked again, OpenSSL says once more that it is done */
	}
	if (rc == -EAGAIN) {
		/* Waiting for the peer, whichever way: the next edge brings us back. */
		c->can_read = c->can_write = false;
		return;
	}
	if (rc < 0) {
		metrics_inc(&stats->handshakes_failed[why], 1);
		conn_close(c);
		return;
	}
	metrics_inc(&stats->handshakes, 1);
	if (SSL_session_reused(c->ssl))
		metrics_inc(&stats->handshakes_resumed, 1);
	c->tls_policy = tls_connection_policy(c->ssl);
	c->client_certificate = tls_client_certificate(c->ssl);
	if (c->client_certificate)
		c->client_names = tls_client_names(c->ssl, &c->client_until_s);
	/* What came before the last read found nothing more has raised its event. */
	c->can_read = was_done || c->expects_eof || !tls_is_drained(c->ssl);
	c->can_write = true;
	conn_choose_protocol(c);
}

/* --- what a proxy in front says (PROXY protocol) ------------------------------------------- */

static void conn_set_peer(struct conn *c, const struct net_addr *peer)
{
	char ip[NET_ADDR_LEN];

	c->peer = *peer;
	net_format_ip(ip, peer);
	snprintf(c->peer_text, sizeof(c->peer_text), "%.45s", ip);
	c->peer_ip = str_from(c->peer_text);
}

/* Only listed peers speak it, and they always do: whether a header is there is never guessed, or a
 * client could put one in. */
static bool speaks_proxy_protocol(const struct gw_listener *l, const struct net_addr *peer)
{
	for (size_t i = 0; l->proxy_protocol && i < l->proxy_protocol->from_count; i++) {
		if (net_prefix_has(&l->proxy_protocol->from[i], peer))
			return true;
	}
	return false;
}

/* Looks before it takes: what follows the header belongs to TLS, which reads the socket itself. */
static void conn_read_proxy_header(struct conn *c)
{
	char bytes[PROXY_HEADER_MAX];
	struct proxy_header header;
	ssize_t n = recv(c->io.fd, bytes, sizeof(bytes), MSG_PEEK);
	long len;

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->can_read = false;
		return;
	}
	len = n > 0 ? proxy_header_parse(&header, bytes, (size_t)n) : -ECONNRESET;
	if (len == -EAGAIN && !c->expects_eof) {
		c->can_read = false;
		return;
	}
	/* A check that only connects is no mistake. */
	if (len < 0 && n > 0)
		refuse_proxy_header(c, "no good PROXY header");
	if (len < 0 || recv(c->io.fd, bytes, (size_t)len, 0) != len) {
		c->awaits_proxy = false;
		conn_close(c);
		return;
	}
	c->awaits_proxy = false;
	if (!header.is_local)
		conn_set_peer(c, &header.from);
	if (!c->ssl)
		conn_choose_protocol(c);
}

static void conn_work(struct conn *c)
{
	unsigned rounds = 0;
	size_t queued;
	bool goes_on;

	if (c->is_closed)
		return;
	if (!c->proto) {
		if (c->awaits_proxy && c->can_read)
			conn_read_proxy_header(c);
		if (!c->awaits_proxy && c->ssl && !c->is_closed && (c->can_read || c->can_write))
			conn_do_handshake(c);
		if (!c->proto || c->is_closed)
			return;
	}
	/* Whoever paused because of a full buffer goes on once it was flushed, until nothing moves
	 * any more. */
	do {
		if (!c->is_finishing)
			c->proto->on_work(c);
		queued = buf_len(&c->out);
		/* The last of it leaves together with the end of the TLS connection. */
		if (c->is_finishing && c->ssl && queued <= CONN_HOLD_MAX) {
			tls_hold(c->ssl);
			c->is_holding = true;
		}
		conn_flush(c);
		goes_on = !c->is_closed && !c->is_finishing && queued > CONN_OUT_LOW &&
			  buf_len(&c->out) <= CONN_OUT_LOW;
	} while (goes_on && ++rounds < CONN_ROUNDS);
	if (c->is_closed)
		return;
	if (goes_on)
		conn_kick(c);
	if (buf_len(&c->out) == 0) {
		chunk_detach(c, &c->out);
		if (c->is_finishing)
			conn_linger(c);
		else if (c->wants_shut && !c->has_shut)
			conn_shut(c);
		else if (c->is_holding && !c->proto->will_answer(c))
			conn_release(c);
	} else {
		write_wait(c);
	}
	if (!c->is_closed)
		chunk_detach(c, &c->in);
}

static void conn_run_work(struct loop_task *task)
{
	conn_work(container_of(task, struct conn, work));
}

void conn_kick(struct conn *c)
{
	if (!c->is_closed)
		loop_defer(c->worker->loop, &c->work);
}

static void conn_on_event(struct loop_io *io, uint32_t events)
{
	struct conn *c = container_of(io, struct conn, io);

	if (events & EPOLLERR || (events & (EPOLLHUP | EPOLLIN)) == EPOLLHUP) {
		if (c->ssl && !c->proto && !c->awaits_proxy)
			metrics_inc(&c->worker->counters.handshakes_failed[TLS_FAILED_PEER_CLOSED],
				    1);
		conn_close(c);
		return;
	}
	c->expects_eof |= (events & (EPOLLRDHUP | EPOLLHUP)) != 0;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		c->can_read = true;
	if (events & EPOLLOUT)
		c->can_write = true;
	conn_work(c);
}

void conn_accept(struct worker *w, unsigned listener, int fd, const struct net_addr *peer)
{
	struct conn *c = calloc(1, sizeof(*c));
	const struct gw_conf *conf = &w->conf->snapshot->conf;
	struct tls_server *tls = w->conf->tls[listener];

	if (!c) {
		close(fd);
		return;
	}
	c->worker = w;
	c->listener = listener;
	conn_set_peer(c, peer);
	c->awaits_proxy = speaks_proxy_protocol(&conf->listeners[listener], peer);
	c->io.fd = fd;
	c->io.on_event = conn_on_event;
	c->timer.on_fire = conn_on_timer;
	c->work.run = conn_run_work;
	c->free.run = conn_free;
	c->deadline_ms = c->stall_ms = UINT64_MAX;
	c->write_credit_ms = conf->client.write_timeout_ms;
	buf_init(&c->in, 0);
	buf_init(&c->out, CONN_OUT_MAX);
	if (tls) {
		c->ssl = tls_server_accept(tls, fd);
		c->conf = worker_conf_get(w->conf);
	}
	if ((tls && !c->ssl) ||
	    loop_io_add(w->loop, &c->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0) {
		if (c->conf)
			worker_conf_put(c->conf);
		SSL_free(c->ssl);
		close(fd);
		free(c);
		return;
	}
	list_add_tail(&w->conns, &c->node);
	metrics_inc(&w->conn_count, 1);
	metrics_inc(&w->counters.connections_accepted, 1);
	if (tls || c->awaits_proxy)
		conn_set_deadline(c, conf->client.handshake_timeout_ms);
	else
		conn_choose_protocol(c);
}
