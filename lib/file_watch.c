/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/file_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"

#define LINKS_MAX 16
#define EVENTS                                                                              \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct file_watch {
	struct loop_io io; /* fd -1: not watching */
	struct loop *loop;
	struct loop_timer delay, poll;
	unsigned delay_ms, poll_ms;
	void (*on_change)(void *arg);
	void *arg;
};

static void on_delay(struct loop_timer *timer)
{
	struct file_watch *w = container_of(timer, struct file_watch, delay);

	w->on_change(w->arg);
}

static void on_poll(struct loop_timer *timer)
{
	struct file_watch *w = container_of(timer, struct file_watch, poll);

	loop_timer_start(w->loop, timer, w->poll_ms);
	w->on_change(w->arg);
}

/* Which file it was is not asked: an event may be about a link on the way, or lost. */
static void on_events(struct loop_io *io, uint32_t events)
{
	struct file_watch *w = container_of(io, struct file_watch, io);
	char bytes[4096] __attribute__((aligned(8)));

	(void)events;
	while (read(io->fd, bytes, sizeof(bytes)) > 0)
		;
	/* Not put off by more events: a busy folder must not hold the news back for ever. */
	if (!loop_timer_is_pending(&w->delay))
		loop_timer_start(w->loop, &w->delay, w->delay_ms);
}

struct file_watch *file_watch_new(struct loop *loop, unsigned delay_ms, unsigned poll_ms,
				  void (*on_change)(void *arg), void *arg)
{
	struct file_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	*w = (struct file_watch) {
		.io = { .fd = -1, .on_event = on_events },
		.loop = loop,
		.delay = { .on_fire = on_delay },
		.poll = { .on_fire = on_poll },
		.delay_ms = delay_ms,
		.poll_ms = poll_ms,
		.on_change = on_change,
		.arg = arg,
	};
	if (poll_ms)
		loop_timer_start(loop, &w->poll, poll_ms);
	return w;
}

/* --- which folders ------------------------------------------------------------------------- */

/* The folder in which the first `len` bytes of the path name something. */
static int watch_folder_of(const struct file_watch *w, const char *path, size_t len)
{
	char folder[PATH_MAX];

	while (len && path[len - 1] != '/')
		len--;
	if (len == 0) {
		folder[0] = '.';
		len = 1;
	} else {
		memcpy(folder, path, len);
	}
	folder[len] = '\0';
	if (inotify_add_watch(w->io.fd, folder, EVENTS) < 0)
		return -errno;
	return 0;
}

/* The path with what the link at its first `len` bytes says in place of them. */
static bool follow(char path[PATH_MAX], size_t len, const char *target)
{
	size_t target_len = strlen(target), rest_len = strlen(path + len) + 1, folder = len;

	while (folder && path[folder - 1] != '/')
		folder--;
	if (target[0] == '/')
		folder = 0;
	if (folder + target_len + rest_len > PATH_MAX)
		return false;
	memmove(path + folder + target_len, path + len, rest_len);
	memcpy(path + folder, target, target_len);
	return true;
}

/* The length of the first prefix of the path that is a link, its target read; 0: none is. What does
 * not exist ends the search: *end says how far the path leads. */
static size_t find_link(const char *path, char target[PATH_MAX], size_t *end)
{
	size_t len = strlen(path);

	for (size_t at = 1; at <= len; at++) {
		char prefix[PATH_MAX];
		struct stat st;
		ssize_t n;

		*end = at;
		if (at < len && path[at] != '/')
			continue;
		memcpy(prefix, path, at);
		prefix[at] = '\0';
		if (lstat(prefix, &st) < 0)
			return 0;
		if (!S_ISLNK(st.st_mode))
			continue;
		n = readlink(prefix, target, PATH_MAX - 1);
		if (n <= 0)
			return 0;
		target[n] = '\0';
		return at;
	}
	return 0;
}

/* Every folder in which a link on the way stands, and the one where it ends. */
static int watch_path(const struct file_watch *w, const char *name)
{
	char path[PATH_MAX], target[PATH_MAX];
	size_t link, end = 0;
	int rc = 0;

	if (strlen(name) >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(path, name, strlen(name) + 1);
	for (unsigned i = 0; i < LINKS_MAX && rc == 0; i++) {
		link = find_link(path, target, &end);
		rc = watch_folder_of(w, path, link ? link : end);
		if (!link)
			return rc;
		if (!follow(path, link, target))
			return -ENAMETOOLONG;
	}
	return rc ? rc : -ELOOP;
}

static void stop(struct file_watch *w)
{
	if (w->io.fd < 0)
		return;
	loop_io_remove(w->loop, &w->io);
	close(w->io.fd);
	w->io.fd = -1;
}

/* A new descriptor instead of removing what is watched no longer: there is no way to ask which. */
int file_watch_set(struct file_watch *w, const char *const *paths, size_t count)
{
	int rc, first = 0;

	stop(w);
	if (count == 0)
		return 0;
	w->io.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->io.fd < 0)
		return -errno;
	for (size_t i = 0; i < count; i++) {
		rc = watch_path(w, paths[i]);
		if (rc < 0 && first == 0)
			first = rc;
	}
	rc = loop_io_add(w->loop, &w->io, EPOLLIN);
	if (rc < 0) {
		close(w->io.fd);
		w->io.fd = -1;
		return rc;
	}
	return first;
}

void file_watch_free(struct file_watch **wp)
{
	struct file_watch *w = TAKE_PTR(*wp);

	if (!w)
		return;
	stop(w);
	loop_timer_stop(w->loop, &w->delay);
	loop_timer_stop(w->loop, &w->poll);
	free(w);
}
