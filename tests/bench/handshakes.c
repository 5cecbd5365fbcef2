/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for the gateway benchmark: a new TLS connection for every request, the handshake either
 * whole or resumed from the last ticket. Prints one line of JSON like request.lua. Suites and
 * curves come from the file that OPENSSL_CONF names.
 *
 * usage: handshakes PORT SECONDS CONNECTIONS full|resumed PATH   (loopback only)
 */
#include <sys/epoll.h>

#include "tests/bench/client.h"

#define EVENTS_MAX 256
#define DEVICES    1000

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
	uint16_t port;
	const char *path;
	bool wants_resumed;
	uint64_t resumed;
	struct client_count count;
} g;

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

	s->began_ns = client_now_ns();
	s->fd = client_connect(g.port);
	s->ssl = client_tls(g.ctx, s->fd);
	SSL_set_app_data(s->ssl, s);
	if (g.wants_resumed && s->session)
		SSL_set_session(s->ssl, s->session);
	s->has_sent = false;
	s->got = 0;
	if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		client_die("epoll_ctl");
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
		g.count.broken++;
	} else {
		g.count.bad_status += memcmp(s->head, "HTTP/1.1 200", 12) != 0;
		g.resumed += (uint64_t)SSL_session_reused(s->ssl);
		client_answered(&g.count, client_now_ns() - s->began_ns);
	}
	slot_stop(s);
	slot_start(s);
}

static void slot_send(struct slot *s)
{
	char request[512];
	int len = snprintf(request, sizeof(request),
			   "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: gatehouse-bench/1\r\n"
			   "X-Device-Id: device-%04u\r\nConnection: close\r\n\r\n",
			   g.path, (unsigned)(g.count.requests % DEVICES));

	s->has_sent = SSL_write(s->ssl, request, len) == len;
}

static void slot_on_event(struct slot *s)
{
	static char chunk[16384];
	int n;

	if (!SSL_is_init_finished(s->ssl)) {
		n = SSL_do_handshake(s->ssl);
		if (n != 1) {
			if (!client_would_block(s->ssl, n))
				slot_end(s);
			return;
		}
	}
	if (!s->has_sent)
		slot_send(s);
	for (;;) {
		n = SSL_read(s->ssl, chunk, sizeof(chunk));
		if (n <= 0) {
			if (!client_would_block(s->ssl, n))
				slot_end(s);
			return;
		}
		for (int i = 0; i < n && s->got + (size_t)i < sizeof(s->head); i++)
			s->head[s->got + (size_t)i] = chunk[i];
		s->got += (size_t)n;
		g.count.bytes += (uint64_t)n;
	}
}

static void print_result(uint64_t duration_ns)
{
	g.count.duration_ns = duration_ns;
	client_print(&g.count, "\"resumed\": %llu", (unsigned long long)g.resumed);
}

static void run(struct slot *slots, unsigned count, unsigned seconds)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t began = client_now_ns(), until = began + seconds * 1000000000ULL;

	for (unsigned i = 0; i < count; i++)
		slot_start(&slots[i]);
	while (client_now_ns() < until) {
		int n = epoll_wait(g.epoll_fd, events, EVENTS_MAX, 100);

		for (int i = 0; i < n; i++)
			slot_on_event(events[i].data.ptr);
	}
	print_result(client_now_ns() - began);
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
	g.port = (uint16_t)atoi(argv[1]);
	g.ctx = SSL_CTX_new(TLS_client_method());
	g.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	slots = calloc(count, sizeof(*slots));
	if (!g.ctx || g.epoll_fd < 0 || !slots)
		client_die("start");
	SSL_CTX_set_session_cache_mode(g.ctx,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(g.ctx, on_session);
	run(slots, count, (unsigned)atoi(argv[2]));
	SSL_CTX_free(g.ctx);
	free(slots);
	return 0;
}
