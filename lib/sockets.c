/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/sockets.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"

#define SYSTEMD_FIRST_FD 3
#define SOCKETS_MAX      65536
/* The kernel's bound is 253 descriptors in a message (SCM_MAX_FD). */
#define SOCKETS_PER_MESSAGE 128

static bool address_of(int fd, struct net_addr *out)
{
	struct net_addr a = { .len = sizeof(a.un) };

	if (fd < 0 || getsockname(fd, &a.sa, &a.len) < 0)
		return false;
	*out = a;
	return true;
}

static bool is_listening(int fd)
{
	int yes = 0;
	socklen_t len = sizeof(yes);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

static int sockets_add(struct sockets *s, const int *fds, size_t count)
{
	int *more = reallocarray(s->fds, s->count + count, sizeof(*more));

	if (!more)
		return -ENOMEM;
	s->fds = more;
	for (size_t i = 0; i < count; i++)
		s->fds[s->count++] = fds[i];
	return 0;
}

int sockets_from_systemd(struct sockets *s, struct err *err)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	uint64_t n = 0, for_pid = 0;

	if (!pid || !count || !str_u64(str_from(pid), &for_pid) || for_pid != (uint64_t)getpid() ||
	    !str_u64(str_from(count), &n) || n > SOCKETS_MAX)
		return 0;
	/* Not for our children. */
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	for (int fd = SYSTEMD_FIRST_FD; fd < SYSTEMD_FIRST_FD + (int)n; fd++) {
		int flags = fcntl(fd, F_GETFL);

		if (flags < 0 || !is_listening(fd))
			return err_set(err, -EINVAL,
				       "descriptor %d of LISTEN_FDS is no listening socket; in the "
				       "socket unit use ListenStream= with Accept=no",
				       fd);
		if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
		    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || sockets_add(s, &fd, 1) < 0)
			return err_set(err, -errno, "descriptor %d of LISTEN_FDS: %s", fd,
				       strerror(errno));
	}
	return 0;
}

/* --- between processes ---------------------------------------------------------------------------
 */

/* Each message: so many descriptors as its one byte says; a zero ends them. */
union control {
	struct cmsghdr head; /* for its alignment */
	char room[CMSG_SPACE(SOCKETS_PER_MESSAGE * sizeof(int))];
};

static int send_some(int fd, const int *fds, size_t count)
{
	unsigned char said = (unsigned char)count;
	struct iovec iov = { &said, 1 };
	union control control = { 0 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (count) {
		struct cmsghdr *head;

		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		head = CMSG_FIRSTHDR(&message);
		assert(head);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(head), fds, count * sizeof(int));
	}
	do {
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int sockets_send(int fd, const int *fds, size_t count)
{
	int rc = 0;

	for (size_t at = 0; at < count && rc == 0; at += SOCKETS_PER_MESSAGE)
		rc = send_some(fd, fds + at, MIN(count - at, (size_t)SOCKETS_PER_MESSAGE));
	return rc < 0 ? rc : send_some(fd, NULL, 0);
}

/* One message: how many descriptors it brought, or -errno. */
static int receive_some(struct sockets *s, int fd, int timeout_ms)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	unsigned char said = 0;
	struct iovec iov = { &said, 1 };
	union control control;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	const struct cmsghdr *head;
	int fds[SOCKETS_PER_MESSAGE];
	size_t count = 0;
	ssize_t n;

	if (poll(&wait, 1, timeout_ms) <= 0)
		return -ETIMEDOUT;
	n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n < 0 ? -errno : -ECONNRESET;
	head = CMSG_FIRSTHDR(&message);
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
		count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(head), count * sizeof(int));
	}
	if (count != said || sockets_add(s, fds, count) < 0) {
		while (count--)
			close(fds[count]);
		/* Fewer than were sent: this process may have no more descriptors. */
		return -EMFILE;
	}
	return (int)count;
}

int sockets_receive(struct sockets *s, int fd, int timeout_ms, struct err *err)
{
	int n;

	do {
		n = receive_some(s, fd, timeout_ms);
	} while (n > 0);
	return n < 0 ? err_set(err, n, "did not get all listening sockets: %s", strerror(-n)) : 0;
}

int sockets_take(struct sockets *s, const struct net_addr *addr)
{
	struct net_addr bound;

	for (size_t i = 0; i < s->count; i++) {
		if (address_of(s->fds[i], &bound) && net_addr_eq(&bound, addr))
			return TAKE_FD(s->fds[i]);
	}
	return -1;
}

void sockets_remove_files(const struct sockets *s)
{
	struct net_addr bound;

	for (size_t i = 0; i < s->count; i++) {
		if (address_of(s->fds[i], &bound))
			net_remove_socket_file(&bound);
	}
}

void sockets_fini(struct sockets *s)
{
	for (size_t i = 0; i < s->count; i++)
		cleanup_close(&s->fds[i]);
	free(s->fds);
	*s = (struct sockets) { 0 };
}
