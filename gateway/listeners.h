/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets on which workers accept. Each worker has its own for each address (SO_REUSEPORT): the
 * kernel spreads connections, nobody shares a queue. Those that were inherited are used as they
 * are, for a connection may wait in each: more of them than workers are spread over the workers, of
 * fewer one is shared by several workers.
 */
#pragma once

#include <stddef.h>

#include "lib/err.h"
#include "lib/sockets.h"

struct gw_conf;

struct listener_socket {
	int fd;
	unsigned listener; /* index in the configuration */
	unsigned worker;   /* who accepts from it */
};

struct listeners {
	struct listener_socket *sockets;
	size_t count;
};

/* Takes from `inherited` what the configuration names and opens the rest. 0, or -errno with the
 * sentence in err and nothing left open but what is inherited still. */
int listeners_open(struct listeners *out, const struct gw_conf *conf, unsigned workers,
		   struct sockets *inherited, struct err *err);
/* The array; the sockets are the workers' by then. */
void listeners_fini(struct listeners *l);
