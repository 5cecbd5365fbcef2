/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/persist.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "registry/snapshot.h"

#define DELAY_MS 300  /* from a change to the snapshot: changes come in bursts */
#define RETRY_MS 5000 /* after a failure */
#define NICENESS 10   /* of the writer: whoever asks goes first */

struct reg_persist {
	struct loop *loop;
	const struct reg_store *store;
	char *path;
	void (*on_failing)(const char *problem, void *arg);
	void *arg;
	struct loop_timer timer;
	struct reg_persist_stats stats;

	/*
	 * A process of its own, so that nobody waits: it has the memory as it was in the moment of
	 * the fork, while that of this process goes on changing.
	 */
	pid_t writer; /* 0: none */
	struct loop_io report;
	uint64_t image_index, image_ms;
};

/* What the writer has to say, in one piece. */
struct report {
	int result;
	uint64_t bytes;
	struct err error;
};

static bool persist_is_behind(const struct reg_persist *p)
{
	return p->stats.writes == 0 || reg_store_index(p->store) != p->stats.saved_index;
}

static void persist_write(struct reg_persist *p, struct report *report)
{
	struct buf image;

	buf_init(&image, 0);
	reg_snapshot_encode(p->store, p->image_ms, &image);
	if (buf_failed(&image)) {
		report->result = err_set(&report->error, -ENOMEM, "cannot write %s: out of memory",
					 p->path);
	} else {
		reg_snapshot_seal(&image);
		report->result = reg_snapshot_save(p->path, buf_str(&image), &report->error);
		report->bytes = buf_len(&image);
	}
	buf_fini(&image);
}

static void persist_note(struct reg_persist *p, const struct report *report)
{
	bool was_failing = p->stats.is_failing;

	p->stats.is_failing = report->result < 0;
	if (report->result < 0) {
		p->stats.failures++;
		p->stats.error = report->error;
		if (!was_failing)
			p->on_failing(p->stats.error.text, p->arg);
		return;
	}
	p->stats.writes++;
	p->stats.saved_ms = p->image_ms;
	p->stats.saved_index = p->image_index;
	p->stats.bytes = report->bytes;
	if (was_failing)
		p->on_failing(NULL, p->arg);
}

static void persist_schedule(struct reg_persist *p)
{
	if (p->writer || loop_timer_is_pending(&p->timer))
		return;
	loop_timer_start(p->loop, &p->timer, p->stats.is_failing ? RETRY_MS : DELAY_MS);
}

/* --- the writer ------------------------------------------------------------------------------ */

__attribute__((noreturn)) static void writer_run(struct reg_persist *p, int fd, pid_t parent)
{
	struct report report = { 0 };
	bool ok;

	/* A connection that the parent closes must not stay open here. */
	if (fd != STDERR_FILENO + 1 && dup2(fd, STDERR_FILENO + 1) < 0)
		_exit(1);
	close_range(STDERR_FILENO + 2, ~0U, 0);
	/* Should the parent be killed, its successor writes under the same name. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	errno = 0;
	if (nice(NICENESS) < 0 && errno)
		errno = 0; /* then at the same priority */
	persist_write(p, &report);
	ok = write(STDERR_FILENO + 1, &report, sizeof(report)) == (ssize_t)sizeof(report);
	_exit(ok ? 0 : 1);
}

/* 0, or -errno: there is no writer. */
static int writer_start(struct reg_persist *p)
{
	pid_t parent = getpid(), pid;
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	p->report.fd = pipe_fds[0];
	r = loop_io_add(p->loop, &p->report, EPOLLIN);
	pid = r < 0 ? -1 : fork();
	if (pid == 0)
		writer_run(p, pipe_fds[1], parent);
	if (pid < 0) {
		r = r < 0 ? r : -errno;
		loop_io_remove(p->loop, &p->report);
		close(pipe_fds[0]);
	}
	close(pipe_fds[1]);
	if (pid > 0)
		p->writer = pid;
	return pid < 0 ? r : 0;
}

/* Waits for its report, and for its end. */
static void writer_join(struct reg_persist *p)
{
	struct report report = { 0 };
	ssize_t n;

	do {
		n = read(p->report.fd, &report, sizeof(report));
	} while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(report))
		report.result = err_set(&report.error, -EIO,
					"cannot write %s: the process that writes it was killed",
					p->path);
	loop_io_remove(p->loop, &p->report);
	close(p->report.fd);
	while (waitpid(p->writer, NULL, 0) < 0 && errno == EINTR)
		;
	p->writer = 0;
	persist_note(p, &report);
}

static void persist_on_report(struct loop_io *io, uint32_t events)
{
	struct reg_persist *p = container_of(io, struct reg_persist, report);

	(void)events;
	writer_join(p);
	if (p->stats.is_failing || persist_is_behind(p))
		persist_schedule(p);
}

static void persist_begin(struct reg_persist *p)
{
	p->image_index = reg_store_index(p->store);
	p->image_ms = clock_wall_ms();
}

static void persist_on_timer(struct loop_timer *timer)
{
	struct reg_persist *p = container_of(timer, struct reg_persist, timer);
	struct report report = { 0 };
	int r;

	persist_begin(p);
	r = writer_start(p);
	if (r == 0)
		return;
	report.result = err_set(&report.error, r, "cannot write %s: cannot start a process: %s",
				p->path, strerror(-r));
	persist_note(p, &report);
	persist_schedule(p);
}

void reg_persist_touch(struct reg_persist *p)
{
	persist_schedule(p);
}

int reg_persist_flush(struct reg_persist *p, struct err *err)
{
	struct report report = { 0 };

	loop_timer_stop(p->loop, &p->timer);
	if (p->writer)
		writer_join(p);
	if (!persist_is_behind(p) && !p->stats.is_failing)
		return 0;
	persist_begin(p);
	persist_write(p, &report);
	if (report.result < 0) {
		*err = report.error;
		return report.result;
	}
	persist_note(p, &report);
	return 0;
}

struct reg_persist *reg_persist_new(struct loop *loop, const struct reg_store *store,
				    const char *path,
				    void (*on_failing)(const char *problem, void *arg), void *arg)
{
	struct reg_persist *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->path = strdup(path);
	if (!p->path) {
		free(p);
		return NULL;
	}
	p->loop = loop;
	p->store = store;
	p->on_failing = on_failing;
	p->arg = arg;
	p->timer.on_fire = persist_on_timer;
	p->report = (struct loop_io) { .fd = -1, .on_event = persist_on_report };
	return p;
}

void reg_persist_free(struct reg_persist **pp)
{
	struct reg_persist *p = TAKE_PTR(*pp);

	if (!p)
		return;
	loop_timer_stop(p->loop, &p->timer);
	if (p->writer)
		writer_join(p);
	free(p->path);
	free(p);
}

const struct reg_persist_stats *reg_persist_stats(const struct reg_persist *p)
{
	return &p->stats;
}
