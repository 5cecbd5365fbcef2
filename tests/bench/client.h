/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load programs of the gateway benchmark share: connections to a loopback port, counts,
 * and the line of JSON that load.py reads. Suites and curves come from the file that OPENSSL_CONF
 * names.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_LATENCIES_MAX 1000000

struct client_count {
	uint64_t requests, bytes, bad_status, broken, duration_ns;
	uint32_t *latencies_us;
	size_t latency_count;
};

static inline uint64_t client_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static inline void client_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

/* Without waiting for it to be there. */
static inline int client_connect(uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0)
		client_die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		client_die("connect");
	return fd;
}

static inline SSL *client_tls(SSL_CTX *ctx, int fd)
{
	SSL *ssl = SSL_new(ctx);

	if (!ssl || !SSL_set_fd(ssl, fd))
		client_die("SSL_new");
	SSL_set_connect_state(ssl);
	return ssl;
}

static inline bool client_would_block(SSL *ssl, int rc)
{
	int error = SSL_get_error(ssl, rc);

	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static inline void client_answered(struct client_count *c, uint64_t latency_ns)
{
	if (!c->latencies_us)
		c->latencies_us = malloc(CLIENT_LATENCIES_MAX * sizeof(*c->latencies_us));
	if (!c->latencies_us)
		client_die("malloc");
	c->requests++;
	if (c->latency_count < CLIENT_LATENCIES_MAX)
		c->latencies_us[c->latency_count++] = (uint32_t)(latency_ns / 1000);
}

static inline int client_by_value(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/* The result; `more` are further members, as printf has it. */
__attribute__((format(printf, 2, 3))) static inline void client_print(struct client_count *c,
								      const char *more, ...)
{
	size_t n = c->latency_count;
	va_list ap;

	if (n)
		qsort(c->latencies_us, n, sizeof(*c->latencies_us), client_by_value);
	printf("{\"requests\": %llu, \"duration_us\": %llu, \"bytes\": %llu, "
	       "\"bad_status\": %llu, \"broken\": %llu, \"timeouts\": 0, \"p50_us\": %u, "
	       "\"p99_us\": %u, ",
	       (unsigned long long)c->requests, (unsigned long long)(c->duration_ns / 1000),
	       (unsigned long long)c->bytes, (unsigned long long)c->bad_status,
	       (unsigned long long)c->broken, n ? c->latencies_us[n / 2] : 0,
	       n ? c->latencies_us[n * 99 / 100] : 0);
	va_start(ap, more);
	vprintf(more, ap);
	va_end(ap);
	printf("}\n");
	fflush(stdout);
	free(c->latencies_us);
	c->latencies_us = NULL;
}

/* A line of the users file: the device, and after a space the token unless there is none. */
struct client_user {
	char *device, *token; /* token: NULL for none */
};

static inline struct client_user *client_users(const char *path, size_t *count)
{
	FILE *f = fopen(path, "re");
	struct client_user *users = NULL;
	char *line = NULL;
	size_t cap = 0;

	*count = 0;
	while (f && getline(&line, &cap, f) > 0) {
		char *space = strchr(line, ' ');

		if (*count % 1024 == 0) {
			void *grown = realloc(users, (*count + 1024) * sizeof(*users));

			if (!grown)
				client_die("realloc");
			users = grown;
		}
		line[strcspn(line, "\n")] = '\0';
		if (space)
			*space++ = '\0';
		users[*count].device = strdup(line);
		users[*count].token = space && *space ? strdup(space) : NULL;
		++*count;
	}
	free(line);
	if (!f || !users || *count == 0)
		client_die(path);
	fclose(f);
	return users;
}

static inline void client_users_free(struct client_user *users, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(users[i].device);
		free(users[i].token);
	}
	free(users);
}
