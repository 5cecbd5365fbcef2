/* SPDX-License-Identifier: Apache-2.0 */
/* The other end of a connection, played by a harness: never waits. Abstract unix sockets, whose
 * name the kernel chooses: no file, no port. */
#pragma once

#include <errno.h>
#include <sys/socket.h>

#include "lib/buf.h"
#include "lib/net.h"
#include "tests/fuzz/fuzz.h"

static inline _Noreturn void peer_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

static inline int peer_listen(struct net_addr *out)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*out = (struct net_addr) { .un.sun_family = AF_UNIX, .len = sizeof(out->un) };
	if (fd < 0 || bind(fd, &out->sa, sizeof(sa_family_t)) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, &out->sa, &out->len) < 0)
		peer_die("socket");
	return fd;
}

/* A connection, or -1 when there is none. */
static inline int peer_accept(int listen_fd)
{
	return accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Sends on from *at. False when nothing went. */
static inline bool peer_send(int fd, struct str bytes, size_t *at, size_t piece)
{
	size_t left = bytes.len - *at, len = left < piece ? left : piece;
	ssize_t n = len ? send(fd, bytes.p + *at, len, MSG_NOSIGNAL) : 0;

	if (n > 0)
		*at += (size_t)n;
	return n > 0;
}

/* Reads what there is. False when nothing came. */
static inline bool peer_receive(int fd, struct buf *out)
{
	char bytes[16384];
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	if (n > 0)
		buf_append(out, bytes, (size_t)n);
	return n > 0;
}

static inline void peer_end(int fd)
{
	shutdown(fd, SHUT_WR);
}
