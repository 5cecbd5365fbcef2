/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that somebody else opened: systemd (sd_listen_fds(3)), or an earlier process of
 * the same program, which hands them over by a unix socket. What each is for is told by the address
 * that it is bound to, so nothing but the descriptors is passed on.
 */
#pragma once

#include <stddef.h>

#include "lib/err.h"
#include "lib/net.h"

/* All zeroes: none. */
struct sockets {
	int *fds; /* -1: taken */
	size_t count;
};

/* Takes those that systemd passed by LISTEN_FDS; none is no error. -errno with the sentence in err.
 */
int sockets_from_systemd(struct sockets *s, struct err *err);

/* Sends descriptors, which stay the caller's too, over a connected unix socket. Returns 0 or
 * -errno. */
int sockets_send(int fd, const int *fds, size_t count);
/* The other end: waits for all of them, at most timeout_ms. Added to what is there. */
int sockets_receive(struct sockets *s, int fd, int timeout_ms, struct err *err);

/* The next one that listens on this address, the caller's from now on; -1 when there is none (any
 * more). */
int sockets_take(struct sockets *s, const struct net_addr *addr);

/* Removes the files of unix sockets that nobody took: their addresses are given up. */
void sockets_remove_files(const struct sockets *s);
/* Closes what nobody took. */
void sockets_fini(struct sockets *s);
