/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steady load that forgives nothing: each thread sends one GET after the other and counts what was
 * not answered with 200. A request on a kept connection that ends without an answer is a lost one
 * too, though clients may repeat it: a gateway that changes must not let it come to that.
 *
 * usage: steady ADDRESS PORT keep|new|h2 THREADS PATH [HOST CA-FILE]
 *
 * With HOST and CA-FILE over TLS, verified. Writes a line of counts five times a second, and why
 * requests failed; ends when its standard input does.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 256
#define TIMEOUT_S   20
#define PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

enum mode { MODE_KEEP, MODE_NEW, MODE_H2 };

static struct sockaddr_in address;
static enum mode mode;
static const char *path, *host;
static SSL_CTX *tls;
static atomic_ullong answered, failed, connections;
static atomic_bool stopping;

struct link {
	int fd; /* -1: none */
	SSL *ssl;
	unsigned char in[65536];
	size_t len;
	unsigned stream; /* of the next request; HTTP/2 */
	bool closes;     /* the peer has said so */
};

__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
	static atomic_int told;
	char text[256];
	va_list args;

	atomic_fetch_add(&failed, 1);
	if (atomic_fetch_add(&told, 1) >= 10)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stdout, "failed: %s\n", text);
}

static bool put(struct link *l, const void *data, size_t len)
{
	return l->ssl ? SSL_write(l->ssl, data, (int)len) == (int)len
		      : send(l->fd, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Some more bytes; false at the end, or when nothing comes. */
static bool more(struct link *l)
{
	ssize_t n = l->ssl ? SSL_read(l->ssl, l->in + l->len, (int)(sizeof(l->in) - l->len))
			   : recv(l->fd, l->in + l->len, sizeof(l->in) - l->len, 0);

	if (n <= 0)
		return false;
	l->len += (size_t)n;
	return true;
}

static void eat(struct link *l, size_t n)
{
	l->len -= n;
	memmove(l->in, l->in + n, l->len);
}

static void link_close(struct link *l)
{
	SSL_free(l->ssl);
	if (l->fd >= 0)
		close(l->fd);
	*l = (struct link) { .fd = -1 };
}

static bool link_open(struct link *l)
{
	struct timeval patience = { .tv_sec = TIMEOUT_S };
	static const unsigned char settings[9] = { [3] = 4 };
	int one = 1;

	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(l->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		fail("connect: %s", strerror(errno));
		return false;
	}
	if (tls) {
		l->ssl = SSL_new(tls);
		/* What SSL_set_tlsext_host_name() is; its cast drops const, which clang refuses. */
		SSL_ctrl(l->ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
			 (void *)(uintptr_t)host);
		SSL_set1_host(l->ssl, host);
		SSL_set_fd(l->ssl, l->fd);
		if (SSL_connect(l->ssl) != 1) {
			fail("TLS handshake: %s", strerror(errno));
			return false;
		}
	}
	l->stream = 1;
	atomic_fetch_add(&connections, 1);
	if (mode != MODE_H2)
		return true;
	if (put(l, PREFACE, sizeof(PREFACE) - 1) && put(l, settings, sizeof(settings)))
		return true;
	fail("HTTP/2 preface");
	return false;
}

/* --- HTTP/1.1 ------------------------------------------------------------------------------------
 */

static void ask_http1(struct link *l)
{
	char text[1024], *end = NULL, *length;
	size_t head, body;
	int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, host,
			 mode == MODE_NEW ? "Connection: close\r\n" : "");

	if (!put(l, text, (size_t)n)) {
		fail("send: %s", strerror(errno));
		l->closes = true;
		return;
	}
	while (!end && more(l))
		end = memmem(l->in, l->len, "\r\n\r\n", 4);
	if (!end) {
		fail("no answer after %zu bytes: %s", l->len, l->len ? "" : strerror(errno));
		l->closes = true;
		return;
	}
	head = (size_t)(end - (char *)l->in) + 4;
	end[2] = '\0';
	length = strcasestr((char *)l->in, "\r\nContent-Length:");
	body = length ? strtoul(length + 17, NULL, 10) : 0;
	if (!length || memcmp(l->in, "HTTP/1.1 200 ", 13) != 0)
		fail("answer: %.100s", (char *)l->in);
	else
		atomic_fetch_add(&answered, 1);
	l->closes |= mode == MODE_NEW || strcasestr((char *)l->in, "\r\nConnection: close");
	while (l->len < head + body) {
		if (!more(l)) {
			fail("body cut short");
			l->closes = true;
			return;
		}
	}
	eat(l, head + body);
}

/* --- HTTP/2 --------------------------------------------------------------------------------------
 */

static size_t put_field(unsigned char *at, const char *name, const char *value)
{
	size_t n = strlen(name), v = strlen(value);

	at[0] = 0; /* a literal that is not indexed, RFC 7541 6.2.2; lengths below 127 */
	at[1] = (unsigned char)n;
	memcpy(at + 2, name, n);
	at[2 + n] = (unsigned char)v;
	memcpy(at + 3 + n, value, v);
	return 3 + n + v;
}

static void frame_head(unsigned char *at, size_t len, unsigned kind, unsigned flags,
		       unsigned stream)
{
	uint32_t id = htonl(stream);

	at[0] = 0;
	at[1] = (unsigned char)(len >> 8);
	at[2] = (unsigned char)len;
	at[3] = (unsigned char)kind;
	at[4] = (unsigned char)flags;
	memcpy(at + 5, &id, 4);
}

static uint32_t number(const unsigned char *at)
{
	uint32_t n;

	memcpy(&n, at, sizeof(n));
	return ntohl(n);
}

static bool send_window(struct link *l, size_t len)
{
	unsigned char text[13];
	uint32_t by = htonl((uint32_t)len);

	frame_head(text, 4, 8, 0, 0);
	memcpy(text + 9, &by, 4);
	return len == 0 || put(l, text, sizeof(text));
}

/* One frame of the peer. 1: the answer is complete; 0: it goes on; -1: it will not come. */
static int take_frame(struct link *l, unsigned stream, bool *is_good)
{
	size_t len = (size_t)l->in[1] << 8 | l->in[2];
	unsigned kind = l->in[3], flags = l->in[4], id = number(l->in + 5);
	unsigned char *body = l->in + 9;
	int done = 0;

	switch (kind) {
	case 0: /* DATA */
		if (!send_window(l, len))
			return -1;
		done = id == stream && flags & 1;
		break;
	case 1: /* HEADERS; a change of the table's size (001.....) may come first, then :status 200
		 */
		while ((*body & 0xe0) == 0x20)
			body++;
		if (id == stream && *body == 0x88)
			*is_good = true;
		done = id == stream && flags & 1;
		break;
	case 3: /* RST_STREAM */
		done = id == stream ? -1 : 0;
		break;
	case 4: /* SETTINGS */
		if (!(flags & 1)) {
			unsigned char ack[9];

			frame_head(ack, 0, 4, 1, 0);
			if (!put(l, ack, sizeof(ack)))
				return -1;
		}
		break;
	case 6: /* PING */
		if (!(flags & 1)) {
			l->in[4] = 1;
			if (!put(l, l->in, 9 + len))
				return -1;
		}
		break;
	case 7: /* GOAWAY: not one more; and what is above the last one was not looked at */
		l->closes = true;
		done = stream > (number(body) & 0x7fffffff) ? -1 : 0;
		break;
	default:
		break;
	}
	eat(l, 9 + len);
	return done;
}

static void ask_http2(struct link *l)
{
	unsigned char text[1024];
	unsigned stream = l->stream;
	size_t len = 9;
	bool is_good = false;
	int done = 0;

	l->stream += 2;
	len += put_field(text + len, ":method", "GET");
	len += put_field(text + len, ":scheme", tls ? "https" : "http");
	len += put_field(text + len, ":path", path);
	len += put_field(text + len, ":authority", host);
	frame_head(text, len - 9, 1, 5, stream);
	if (!put(l, text, len)) {
		fail("HTTP/2 send: %s", strerror(errno));
		l->closes = true;
		return;
	}
	while (!done) {
		while (l->len < 9 || l->len < 9 + ((size_t)l->in[1] << 8 | l->in[2])) {
			if (!more(l)) {
				fail("HTTP/2: no answer to stream %u: %s", stream, strerror(errno));
				l->closes = true;
				return;
			}
		}
		done = take_frame(l, stream, &is_good);
	}
	if (done > 0 && is_good)
		atomic_fetch_add(&answered, 1);
	else
		fail("HTTP/2: stream %u was %s", stream,
		     done > 0 ? "not answered with 200" : "refused");
	l->closes |= done < 0;
}

/* Whether the peer has said meanwhile that it will close: what it sent waits in the socket. */
static void look(struct link *l)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };
	bool is_good;

	while (mode == MODE_H2 && !l->closes && poll(&p, 1, 0) > 0) {
		if (!more(l)) {
			l->closes = true;
			return;
		}
		while (l->len >= 9 && l->len >= 9 + ((size_t)l->in[1] << 8 | l->in[2]))
			take_frame(l, 0, &is_good);
	}
}

/* --- threads -------------------------------------------------------------------------------------
 */

static void *run(void *arg)
{
	struct link *l = calloc(1, sizeof(*l));

	(void)arg;
	if (!l)
		return NULL;
	l->fd = -1;
	while (!stopping) {
		if (l->fd < 0 && !link_open(l)) {
			link_close(l);
			usleep(10000);
			continue;
		}
		if (mode == MODE_H2)
			ask_http2(l);
		else
			ask_http1(l);
		look(l);
		if (l->closes || l->stream > 1000000)
			link_close(l);
	}
	link_close(l);
	free(l);
	return NULL;
}

static void make_tls(const char *ca)
{
	static const unsigned char h2[] = "\2h2", http1[] = "\10http/1.1";

	tls = SSL_CTX_new(TLS_client_method());
	if (!tls || SSL_CTX_load_verify_locations(tls, ca, NULL) != 1) {
		fprintf(stderr, "steady: cannot use %s\n", ca);
		exit(2);
	}
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_alpn_protos(tls, mode == MODE_H2 ? h2 : http1,
				mode == MODE_H2 ? sizeof(h2) - 1 : sizeof(http1) - 1);
}

static void report(void)
{
	printf("{\"answered\": %llu, \"failed\": %llu, \"connections\": %llu}\n",
	       (unsigned long long)answered, (unsigned long long)failed,
	       (unsigned long long)connections);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct pollfd end = { .fd = STDIN_FILENO, .events = POLLIN };
	pthread_t threads[THREADS_MAX];
	int count;

	if (argc != 6 && argc != 8) {
		fputs("usage: steady ADDRESS PORT keep|new|h2 THREADS PATH [HOST CA-FILE]\n",
		      stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t)atoi(argv[2]));
	mode = strcmp(argv[3], "h2") == 0 ? MODE_H2
					  : (strcmp(argv[3], "new") == 0 ? MODE_NEW : MODE_KEEP);
	count = atoi(argv[4]);
	path = argv[5];
	host = argc > 6 ? argv[6] : "localhost";
	if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 || count < 1 || count > THREADS_MAX)
		return 2;
	if (argc > 6)
		make_tls(argv[7]);
	for (int i = 0; i < count; i++) {
		if (pthread_create(&threads[i], NULL, run, NULL) != 0)
			return 2;
	}
	while (poll(&end, 1, 200) == 0)
		report();
	stopping = true;
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	report();
	return 0;
}
