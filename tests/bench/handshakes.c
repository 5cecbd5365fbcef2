/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for the gateway benchmark: a new TLS connection for every request, the handshake either
 * whole or resumed from the last ticket. Prints one line of JSON like request.lua. Suites and
 * curves come from the file that OPENSSL_CONF names.
 *
 * usage: handshakes PORT SECONDS CONNECTIONS full|resumed PATH   (loopback only)
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
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX    256
#define LATENCIES_MAX 1000000
#define DEVICES       1000

/* One of the connections at a time; begins anew when a response is complete. */
struct slot {
	int fd;
	SSL *ssl;
	SSL_SESSION *session; /* the newest ticket */
	uint64_t began_ns;
	bool has_sent;
	char head[16]; /* of the response */
	size_t got;
};

static struct {
	SSL_CTX *ctx;
	int epoll_fd;
	struct sockaddr_in to;
	const char *path;
	bool wants_resumed;
	uint64_t requests, bytes, bad_status, broken, resumed;
	uint32_t *latencies_us;
	size_t latency_count;
} g;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "handshakes: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

/* OpenSSL hands the reference over when 1 is returned. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	struct slot *s = SSL_get_app_data(ssl);

	SSL_SESSION_free(s->session);
	s->session = session;
	return 1;
}

static void slot_start(struct slot *s)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s };
	int one = 1;

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	s->ssl = SSL_new(g.ctx);
	if (s->fd < 0 || !s->ssl || !SSL_set_fd(s->ssl, s->fd))
		die("socket");
	setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	SSL_set_app_data(s->ssl, s);
	SSL_set_connect_state(s->ssl);
	if (g.wants_resumed && s->session)
		SSL_set_session(s->ssl, s->session);
	s->began_ns = now_ns();
	s->has_sent = false;
	s->got = 0;
	if (connect(s->fd, (struct sockaddr *)&g.to, sizeof(g.to)) < 0 && errno != EINPROGRESS)
		die("connect");
	if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		die("epoll_ctl");
}

static void slot_stop(struct slot *s)
{
	SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(s->ssl);
	close(s->fd);
	ERR_clear_error();
}

/* The server closed; was it a whole answer? */
static void slot_end(struct slot *s)
{
	if (s->got < sizeof(s->head)) {
		g.broken++;
	} else {
		g.requests++;
		g.bad_status += memcmp(s->head, "HTTP/1.1 200", 12) != 0;
		g.resumed += (uint64_t)SSL_session_reused(s->ssl);
		if (g.latency_count < LATENCIES_MAX)
			g.latencies_us[g.latency_count++] =
				(uint32_t)((now_ns() - s->began_ns) / 1000);
	}
	slot_stop(s);
	slot_start(s);
}

static bool would_block(SSL *ssl, int rc)
{
	int error = SSL_get_error(ssl, rc);

	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static void slot_send(struct slot *s)
{
	char request[512];
	int len = snprintf(request, sizeof(request),
			   "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: gatehouse-bench/1\r\n"
			   "X-Device-Id: device-%04u\r\nConnection: close\r\n\r\n",
			   g.path, (unsigned)(g.requests % DEVICES));

	s->has_sent = SSL_write(s->ssl, request, len) == len;
}

static void slot_on_event(struct slot *s)
{
	static char chunk[16384];
	int n;

	if (!SSL_is_init_finished(s->ssl)) {
		n = SSL_do_handshake(s->ssl);
		if (n != 1) {
			if (!would_block(s->ssl, n))
				slot_end(s);
			return;
		}
	}
	if (!s->has_sent)
		slot_send(s);
	for (;;) {
		n = SSL_read(s->ssl, chunk, sizeof(chunk));
		if (n <= 0) {
			if (!would_block(s->ssl, n))
				slot_end(s);
			return;
		}
		for (int i = 0; i < n && s->got + (size_t)i < sizeof(s->head); i++)
			s->head[s->got + (size_t)i] = chunk[i];
		s->got += (size_t)n;
		g.bytes += (uint64_t)n;
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static void print_result(uint64_t duration_ns)
{
	size_t n = g.latency_count;

	qsort(g.latencies_us, n, sizeof(*g.latencies_us), by_value);
	printf("{\"requests\": %llu, \"duration_us\": %llu, \"bytes\": %llu, \"bad_status\": %llu, "
	       "\"broken\": %llu, \"timeouts\": 0, \"p50_us\": %u, \"p99_us\": %u, "
	       "\"resumed\": %llu}\n",
	       (unsigned long long)g.requests, (unsigned long long)(duration_ns / 1000),
	       (unsigned long long)g.bytes, (unsigned long long)g.bad_status,
	       (unsigned long long)g.broken, n ? g.latencies_us[n / 2] : 0,
	       n ? g.latencies_us[n * 99 / 100] : 0, (unsigned long long)g.resumed);
}

static void run(struct slot *slots, unsigned count, unsigned seconds)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t began = now_ns(), until = began + seconds * 1000000000ULL;

	for (unsigned i = 0; i < count; i++)
		slot_start(&slots[i]);
	while (now_ns() < until) {
		int n = epoll_wait(g.epoll_fd, events, EVENTS_MAX, 100);

		for (int i = 0; i < n; i++)
			slot_on_event(events[i].data.ptr);
	}
	print_result(now_ns() - began);
	for (unsigned i = 0; i < count; i++) {
		slot_stop(&slots[i]);
		SSL_SESSION_free(slots[i].session);
	}
}

int main(int argc, char **argv)
{
	struct slot *slots;
	unsigned count;

	if (argc != 6) {
		fprintf(stderr, "usage: handshakes PORT SECONDS CONNECTIONS full|resumed PATH\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	count = (unsigned)atoi(argv[3]);
	g.wants_resumed = strcmp(argv[4], "resumed") == 0;
	g.path = argv[5];
	g.to.sin_family = AF_INET;
	g.to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	g.to.sin_port = htons((uint16_t)atoi(argv[1]));
	g.ctx = SSL_CTX_new(TLS_client_method());
	g.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	slots = calloc(count, sizeof(*slots));
	g.latencies_us = malloc(LATENCIES_MAX * sizeof(*g.latencies_us));
	if (!g.ctx || g.epoll_fd < 0 || !slots || !g.latencies_us)
		die("start");
	SSL_CTX_set_session_cache_mode(g.ctx,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(g.ctx, on_session);
	run(slots, count, (unsigned)atoi(argv[2]));
	SSL_CTX_free(g.ctx);
	free(slots);
	free(g.latencies_us);
	return 0;
}
