/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/conf/conf.h"
#include "lib/cleanup.h"

#define LISTEN_BACKLOG 4096

static int add(struct listeners *l, int fd, unsigned listener, unsigned worker, struct err *err)
{
	struct listener_socket *more = reallocarray(l->sockets, l->count + 1, sizeof(*more));

	if (!more) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory");
	}
	l->sockets = more;
	l->sockets[l->count++] = (struct listener_socket) { fd, listener, worker };
	return 0;
}

/*
 * With SO_REUSEPORT a second process could listen on the same address unnoticed and take half of
 * the connections: a plain bind first finds it.
 */
static int check_free(const struct net_addr *addr, struct err *err)
{
	int fd = net_listen(addr, false, 1, err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int open_all(struct listeners *l, const struct net_addr *addr, unsigned listener,
		    unsigned workers, struct err *err)
{
	int rc = check_free(addr, err);

	for (unsigned i = 0; i < workers && rc == 0; i++) {
		int fd = net_listen(addr, true, LISTEN_BACKLOG, err);

		rc = fd < 0 ? fd : add(l, fd, listener, i, err);
	}
	return rc;
}

/*
 * Workers that got none share: a further socket of the same address would be lost with its queue if
 * this process does not come to its end of starting, and the others went on.
 */
static int share(struct listeners *l, size_t first, unsigned listener, unsigned workers,
		 struct err *err)
{
	size_t had = l->count - first;
	int rc = 0;

	for (size_t i = had; i < workers && rc == 0; i++) {
		int fd = fcntl(l->sockets[first + i % had].fd, F_DUPFD_CLOEXEC, 0);

		rc = fd < 0 ? err_set(err, -errno, "cannot share a listening socket: %s",
				      strerror(errno))
			    : add(l, fd, listener, (unsigned)i, err);
	}
	return rc;
}

static int open_one(struct listeners *l, const struct net_addr *addr, unsigned listener,
		    unsigned workers, struct sockets *inherited, struct err *err)
{
	size_t first = l->count;
	int fd, rc = 0;

	while (rc == 0 && (fd = sockets_take(inherited, addr)) >= 0)
		rc = add(l, fd, listener, (unsigned)(l->count - first) % workers, err);
	if (rc < 0)
		return rc;
	return l->count == first ? open_all(l, addr, listener, workers, err)
				 : share(l, first, listener, workers, err);
}

int listeners_open(struct listeners *out, const struct gw_conf *conf, unsigned workers,
		   struct sockets *inherited, struct err *err)
{
	struct listeners l = { 0 };
	int rc = 0;

	for (size_t i = 0; i < conf->listeners_count && rc == 0; i++)
		rc = open_one(&l, &conf->listeners[i].bind, (unsigned)i, workers, inherited, err);
	if (rc < 0) {
		while (l.count)
			close(l.sockets[--l.count].fd);
		listeners_fini(&l);
		return rc;
	}
	*out = l;
	return 0;
}

void listeners_fini(struct listeners *l)
{
	free(l->sockets);
	*l = (struct listeners) { 0 };
}
