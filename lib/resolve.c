/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "lib/cleanup.h"
#include "lib/loop.h"

/* What the thread and the loop share; the one that lets go last frees it. */
struct job {
	unsigned refs;
	int done_fd; /* an eventfd, the thread's */
	struct net_addr addrs[RESOLVE_ADDRESSES];
	size_t count;
	char problem[160];
	char host[256], port[6];
};

struct resolve {
	struct loop_io io; /* the other end of done_fd */
	struct loop *loop;
	struct job *job;
	void (*on_done)(const struct net_addr *addrs, size_t count, const char *problem, void *arg);
	void *arg;
};

static void job_put(struct job *job)
{
	if (__atomic_sub_fetch(&job->refs, 1, __ATOMIC_ACQ_REL))
		return;
	if (job->done_fd >= 0)
		close(job->done_fd);
	free(job);
}

static void tell(const struct job *job)
{
	uint64_t one = 1;
	ssize_t n = write(job->done_fd, &one, sizeof(one));

	(void)n; /* an eventfd at zero takes it */
}

static void look_up(struct job *job)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	int rc = getaddrinfo(job->host, job->port, &hints, &found);

	if (rc != 0)
		snprintf(job->problem, sizeof(job->problem), "its host cannot be resolved: %s",
			 gai_strerror(rc));
	for (const struct addrinfo *a = found; a && job->count < RESOLVE_ADDRESSES;
	     a = a->ai_next) {
		struct net_addr *addr = &job->addrs[job->count];

		if (a->ai_addrlen > sizeof(addr->un))
			continue;
		memcpy(&addr->un, a->ai_addr, a->ai_addrlen);
		addr->len = a->ai_addrlen;
		job->count++;
	}
	if (found)
		freeaddrinfo(found);
}

static void *run(void *arg)
{
	struct job *job = arg;

	look_up(job);
	tell(job);
	job_put(job);
	return NULL;
}

static void resolve_free(struct resolve *r)
{
	loop_io_remove(r->loop, &r->io);
	close(r->io.fd);
	job_put(r->job);
	free(r);
}

static void on_event(struct loop_io *io, uint32_t events)
{
	struct resolve *r = container_of(io, struct resolve, io);
	struct job *job = r->job;

	(void)events;
	/* Freed first: on_done may start the next one, or cancel. */
	__atomic_add_fetch(&job->refs, 1, __ATOMIC_RELAXED);
	void (*on_done)(const struct net_addr *, size_t, const char *, void *) = r->on_done;
	void *on_done_arg = r->arg;

	resolve_free(r);
	on_done(job->addrs, job->count, job->problem, on_done_arg);
	job_put(job);
}

/* Signals are the main thread's. */
static int start_thread(struct job *job)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	__atomic_add_fetch(&job->refs, 1, __ATOMIC_RELAXED);
	rc = pthread_create(&thread, &attr, run, job);
	if (rc != 0)
		__atomic_sub_fetch(&job->refs, 1, __ATOMIC_RELAXED);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

static int start(struct resolve *r, struct str host, uint16_t port)
{
	struct job *job = r->job;
	int rc;

	if (host.len >= sizeof(job->host))
		return -ENAMETOOLONG;
	memcpy(job->host, host.p, host.len);
	snprintf(job->port, sizeof(job->port), "%u", port);
	job->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->io.fd = job->done_fd < 0 ? -1 : dup(job->done_fd);
	if (r->io.fd < 0)
		return -errno;
	rc = loop_io_add(r->loop, &r->io, EPOLLIN);
	if (rc < 0)
		return rc;
	if (net_parse_ip(&job->addrs[0], host, port) == 0) {
		job->count = 1;
		tell(job);
		return 0;
	}
	rc = start_thread(job);
	if (rc < 0)
		loop_io_remove(r->loop, &r->io);
	return rc;
}

struct resolve *resolve_start(struct loop *loop, struct str host, uint16_t port,
			      void (*on_done)(const struct net_addr *addrs, size_t count,
					      const char *problem, void *arg),
			      void *arg)
{
	struct resolve *r = calloc(1, sizeof(*r));
	struct job *job = calloc(1, sizeof(*job));
	int rc;

	if (!r || !job) {
		free(r);
		free(job);
		errno = ENOMEM;
		return NULL;
	}
	*job = (struct job) { .refs = 1, .done_fd = -1 };
	*r = (struct resolve) {
		.io = { .fd = -1, .on_event = on_event },
		.loop = loop,
		.job = job,
		.on_done = on_done,
		.arg = arg,
	};
	rc = start(r, host, port);
	if (rc == 0)
		return r;
	if (r->io.fd >= 0)
		close(r->io.fd);
	job_put(job);
	free(r);
	errno = -rc;
	return NULL;
}

void resolve_cancel(struct resolve **r)
{
	if (*r)
		resolve_free(*r);
	*r = NULL;
}
