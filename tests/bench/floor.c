/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of the gateway benchmark: a TLS proxy that does nothing but move bytes. One thread, one
 * epoll set, OpenSSL, one upstream connection per client, both kept. It parses nothing, checks
 * nothing, writes no log. What it costs is what any TLS proxy on epoll and OpenSSL has to pay.
 *
 * usage: floor LISTEN_PORT BACKEND_PORT CERTIFICATE KEY   (loopback only; runs until a signal)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK      (64UL * 1024) /* four records: fewer turns of the loop for large bodies */
#define EVENTS_MAX 256

struct pair;

/* One end of a pair; the address of an end is the cookie of its descriptor in the epoll set. */
struct end {
	struct pair *pair;
	int fd;
	uint32_t wanted; /* events asked for now */
	bool is_client, is_added;
	/* Bytes read from the other end that did not fit into this one's socket yet. */
	char *pending;
	size_t pending_len, pending_at;
};

struct pair {
	struct end client, service;
	SSL *ssl;
	bool is_dead;
	struct pair *next_dead;
};

static int epoll_fd;
static struct sockaddr_in backend;
static struct pair *dead; /* freed after the round: later events of it may name them */
static char chunk[CHUNK];

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void pair_kill(struct pair *p)
{
	if (p->is_dead)
		return;
	p->is_dead = true;
	p->next_dead = dead;
	dead = p;
	SSL_shutdown(p->ssl); /* close_notify, as every proxy sends */
	SSL_free(p->ssl);
	ERR_clear_error();
	close(p->client.fd);
	if (p->service.fd >= 0)
		close(p->service.fd);
}

static void bury(void)
{
	while (dead) {
		struct pair *p = dead;

		dead = p->next_dead;
		free(p->client.pending);
		free(p->service.pending);
		free(p);
	}
}

static void end_want(struct end *e, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = e };

	if (e->is_added && e->wanted == events)
		return;
	if (epoll_ctl(epoll_fd, e->is_added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, e->fd, &ev) < 0)
		die("epoll_ctl");
	e->is_added = true;
	e->wanted = events;
}

static struct end *other(struct end *e)
{
	return e->is_client ? &e->pair->service : &e->pair->client;
}

/* The count, 0 when it would block, -1 when the connection is over. */
static long end_write(struct end *e, const char *data, size_t len)
{
	int n;

	if (!e->is_client) {
		ssize_t sent = send(e->fd, data, len, MSG_NOSIGNAL);

		return sent >= 0 ? sent : errno == EAGAIN ? 0 : -1;
	}
	n = SSL_write(e->pair->ssl, data, (int)len);
	if (n > 0)
		return n;
	n = SSL_get_error(e->pair->ssl, n);
	ERR_clear_error();
	return n == SSL_ERROR_WANT_WRITE || n == SSL_ERROR_WANT_READ ? 0 : -1;
}

static long end_read(struct end *e, char *out, size_t len)
{
	int n;

	if (!e->is_client) {
		ssize_t got = recv(e->fd, out, len, 0);

		return got > 0 ? got : got < 0 && errno == EAGAIN ? 0 : -1;
	}
	n = SSL_read(e->pair->ssl, out, (int)len);
	if (n > 0)
		return n;
	n = SSL_get_error(e->pair->ssl, n);
	ERR_clear_error();
	return n == SSL_ERROR_WANT_WRITE || n == SSL_ERROR_WANT_READ ? 0 : -1;
}

/* Keeps what the socket of `to` does not take, and stops reading at the other end until it does. */
static bool deliver(struct end *to, const char *data, size_t len)
{
	while (len) {
		long n = end_write(to, data, len);

		if (n < 0)
			return false;
		if (n == 0)
			break;
		data += n;
		len -= (size_t)n;
	}
	if (!len)
		return true;
	if (!to->pending)
		to->pending = malloc(CHUNK);
	if (!to->pending)
		return false;
	memcpy(to->pending, data, len);
	to->pending_len = len;
	to->pending_at = 0;
	end_want(to, EPOLLIN | EPOLLOUT);
	end_want(other(to), 0);
	return true;
}

static bool connect_service(struct pair *p)
{
	int one = 1;

	p->service.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->service.fd < 0)
		return false;
	setsockopt(p->service.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(p->service.fd, (struct sockaddr *)&backend, sizeof(backend)) < 0 &&
	    errno != EINPROGRESS)
		return false;
	end_want(&p->service, EPOLLIN);
	return true;
}

/* Level-triggered, one read per event: the round costs epoll_wait, a read and a write. */
static void on_readable(struct end *e)
{
	struct pair *p = e->pair;

	do {
		long n = end_read(e, chunk, sizeof(chunk));

		if (n < 0) {
			pair_kill(p);
			return;
		}
		if (n == 0)
			return;
		if ((p->service.fd < 0 && !connect_service(p)) ||
		    !deliver(other(e), chunk, (size_t)n)) {
			pair_kill(p);
			return;
		}
		/* What OpenSSL has buffered raises no event. */
	} while (e->is_client && !p->service.pending_len && SSL_has_pending(p->ssl));
}

static void on_writable(struct end *e)
{
	size_t left = e->pending_len - e->pending_at;
	long n = left ? end_write(e, e->pending + e->pending_at, left) : 0;

	if (n < 0) {
		pair_kill(e->pair);
		return;
	}
	e->pending_at += (size_t)n;
	if (e->pending_at < e->pending_len)
		return;
	e->pending_len = e->pending_at = 0;
	end_want(e, EPOLLIN);
	end_want(other(e), EPOLLIN);
	if (!e->is_client && SSL_has_pending(e->pair->ssl))
		on_readable(&e->pair->client);
}

static void accept_all(int listen_fd, SSL_CTX *ctx)
{
	int one = 1;

	for (;;) {
		int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct pair *p;

		if (fd < 0)
			return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		p = calloc(1, sizeof(*p));
		if (!p)
			die("calloc");
		p->client = (struct end) { .pair = p, .fd = fd, .is_client = true };
		p->service = (struct end) { .pair = p, .fd = -1 };
		p->ssl = SSL_new(ctx);
		if (!p->ssl || !SSL_set_fd(p->ssl, fd))
			die("SSL_new");
		SSL_set_accept_state(p->ssl);
		end_want(&p->client, EPOLLIN);
	}
}

static SSL_CTX *make_ctx(const char *certificate, const char *key)
{
	static const unsigned char session_context[] = "floor";
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		die("certificate");
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	/* Header and body of a record in one read, and no buffers of a silent connection. */
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 1);
	return ctx;
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 4096) < 0)
		die("listen");
	return fd;
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS_MAX];
	struct epoll_event ev = { .events = EPOLLIN };
	SSL_CTX *ctx;
	int listen_fd;

	if (argc != 5) {
		fprintf(stderr, "usage: floor LISTEN_PORT BACKEND_PORT CERTIFICATE KEY\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write() */
	backend.sin_family = AF_INET;
	backend.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	backend.sin_port = htons((uint16_t)atoi(argv[2]));
	ctx = make_ctx(argv[3], argv[4]);
	listen_fd = listen_on((uint16_t)atoi(argv[1]));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev) < 0)
		die("epoll");
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			struct end *e = events[i].data.ptr;

			if (!e) {
				accept_all(listen_fd, ctx);
				continue;
			}
			if (e->pair->is_dead)
				continue;
			if (events[i].events & EPOLLOUT)
				on_writable(e);
			else if (events[i].events & EPOLLIN)
				on_readable(e);
			else
				pair_kill(e->pair);
		}
		bury();
	}
}
