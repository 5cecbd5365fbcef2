/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Silent TLS connections for the gateway benchmark: each sends one request and reads the answer, as
 * an app does that then sleeps. Prints a line when all are there, holds them until its input ends,
 * and prints how many are still there then.
 *
 * usage: idle PORT CONNECTIONS PATH   (loopback only)
 */
#include <poll.h>
#include <sys/resource.h>

#include "tests/bench/client.h"

/* Blocking, one after the other: the target is not to be loaded, but to be filled. */
static SSL *open_one(SSL_CTX *ctx, uint16_t port, const char *path)
{
	static char chunk[16384];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char request[512];
	int len, n;
	SSL *ssl;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		client_die("connect");
	ssl = client_tls(ctx, fd);
	len = snprintf(request, sizeof(request),
		       "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Device-Id: idle\r\n\r\n", path);
	if (SSL_write(ssl, request, len) != len)
		client_die("SSL_write");
	n = SSL_read(ssl, chunk, sizeof(chunk));
	if (n < 12 || memcmp(chunk, "HTTP/1.1 200", 12) != 0)
		client_die("no answer");
	/* Short answers: one or two records, read when they are there. */
	while (SSL_pending(ssl))
		SSL_read(ssl, chunk, sizeof(chunk));
	return ssl;
}

static bool is_open(const SSL *ssl)
{
	struct pollfd p = { .fd = SSL_get_fd(ssl), .events = POLLRDHUP };

	return poll(&p, 1, 0) == 0;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 0 };
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	unsigned count, open = 0;
	SSL **all;
	char byte;

	if (argc != 4) {
		fprintf(stderr, "usage: idle PORT CONNECTIONS PATH\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	count = (unsigned)atoi(argv[2]);
	files.rlim_cur = files.rlim_max = count + 64;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		client_die("setrlimit");
	all = calloc(count, sizeof(*all));
	if (!ctx || !all)
		client_die("start");
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	for (unsigned i = 0; i < count; i++)
		all[i] = open_one(ctx, (uint16_t)atoi(argv[1]), argv[3]);
	printf("open\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	for (unsigned i = 0; i < count; i++)
		open += is_open(all[i]);
	printf("%u\n", open);
	for (unsigned i = 0; i < count; i++) {
		close(SSL_get_fd(all[i]));
		SSL_free(all[i]);
	}
	free(all);
	SSL_CTX_free(ctx);
	return 0;
}
