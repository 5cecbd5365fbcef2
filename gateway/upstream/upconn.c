/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/upconn.h"

#include <errno.h>
#include <sys/uio.h>

#define UPCONN_IN_MAX (64UL * 1024)

static void upconn_free(struct loop_task *task)
{
	struct upconn *u = container_of(task, struct upconn, free);

	free(u);
}

static void release_buffer(struct upconn *u)
{
	if (!u->in.data)
		return;
	if (u->in.cap == WORKER_CHUNK)
		worker_chunk_give(u->worker, u->in.data);
	else
		free(u->in.data);
	buf_init(&u->in, UPCONN_IN_MAX);
}

void upconn_close(struct upconn *u)
{
	struct loop *loop = u->worker->loop;

	if (u->is_closed)
		return;
	u->is_closed = true;
	if (!list_empty(&u->node)) {
		list_remove(&u->node);
		u->endpoint->idle_count--;
	}
	loop_timer_stop(loop, &u->idle_timer);
	loop_io_remove(loop, &u->io);
	close(u->io.fd);
	release_buffer(u);
	endpoint_put(u->endpoint);
	service_put(u->service);
	loop_defer(loop, &u->free);
}

void upconn_close_idle(struct endpoint *e)
{
	while (!list_empty(&e->idle))
		upconn_close(container_of(e->idle.next, struct upconn, node));
}

static void on_idle_timer(struct loop_timer *timer)
{
	upconn_close(container_of(timer, struct upconn, idle_timer));
}

static void on_io(struct loop_io *io, uint32_t events)
{
	struct upconn *u = container_of(io, struct upconn, io);

	u->expects_eof |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		u->can_read = true;
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		u->can_write = true;
	if (u->on_event)
		u->on_event(u, u->arg);
	else if (u->can_read)
		upconn_close(u);
}

/* The service may have closed in the meantime, the news being still on its way through epoll. */
static bool is_quiet(const struct upconn *u)
{
	char byte;

	return recv(u->io.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static struct upconn *take_idle(struct endpoint *e, enum upconn_choice choice)
{
	while (choice != UPCONN_FRESH && !list_empty(&e->idle)) {
		struct upconn *u = container_of(e->idle.next, struct upconn, node);

		if (choice == UPCONN_CHECKED && !is_quiet(u)) {
			upconn_close(u);
			continue;
		}
		list_remove(&u->node);
		e->idle_count--;
		loop_timer_stop(u->worker->loop, &u->idle_timer);
		u->is_reused = true;
		return u;
	}
	return NULL;
}

int upconn_take(struct upconn **out, struct service *s, struct endpoint *e,
		enum upconn_choice choice)
{
	struct worker *w = s->worker;
	struct upconn *u = take_idle(e, choice);
	int rc;

	if (u) {
		metrics_inc(&w->counters.upstream_reuses, 1);
		*out = u;
		return 0;
	}
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->io.fd = net_connect(&e->addr);
	if (u->io.fd < 0) {
		rc = u->io.fd;
		free(u);
		return rc;
	}
	u->worker = w;
	u->io.on_event = on_io;
	u->idle_timer.on_fire = on_idle_timer;
	u->free.run = upconn_free;
	list_init(&u->node);
	buf_init(&u->in, UPCONN_IN_MAX);
	rc = loop_io_add(w->loop, &u->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (rc < 0) {
		close(u->io.fd);
		free(u);
		return rc;
	}
	u->service = service_get(s);
	u->endpoint = endpoint_get(e);
	metrics_inc(&w->counters.upstream_connects, 1);
	*out = u;
	return 0;
}

/*
 * A body of known length is read to its last byte and no further, so what lies behind it is still
 * in the socket: a service's second answer would become the next client's, its FIN that client's
 * error.
 */
static bool is_at_clean_end(struct upconn *u)
{
	if (u->has_eof || buf_len(&u->in))
		return false;
	if (u->can_read && !is_quiet(u))
		return false;
	u->can_read = false;
	return true;
}

void upconn_give(struct upconn *u)
{
	struct endpoint *e = u->endpoint;

	u->on_event = NULL;
	u->arg = NULL;
	/* An instance that left the list, or a worker that ends: nobody would come for it again. */
	if (e->is_gone || u->worker->is_draining || e->idle_count >= u->service->max_idle ||
	    !is_at_clean_end(u)) {
		upconn_close(u);
		return;
	}
	release_buffer(u);
	list_add_head(&e->idle, &u->node);
	e->idle_count++;
	loop_timer_start(u->worker->loop, &u->idle_timer, u->service->idle_timeout_ms);
}

long upconn_read(struct upconn *u, void *out, size_t len)
{
	ssize_t n = recv(u->io.fd, out, len, 0);

	if (n <= 0 || (n < (ssize_t)len && !u->expects_eof))
		u->can_read = false;
	if (n == 0)
		u->has_eof = true;
	return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

long upconn_fill(struct upconn *u)
{
	long n;

	if (!u->in.data) {
		u->in.data = worker_chunk_take(u->worker);
		u->in.cap = u->in.data ? WORKER_CHUNK : 0;
	}
	if (!u->in.data || !buf_reserve(&u->in, 1024))
		return -ENOBUFS;
	n = upconn_read(u, u->in.data + u->in.end, buf_room(&u->in));
	if (n > 0)
		buf_commit(&u->in, (size_t)n);
	return n;
}

long upconn_send(struct upconn *u, struct str head, struct str body)
{
	struct iovec iov[2] = {
		{ .iov_base = (void *)(uintptr_t)head.p, .iov_len = head.len },
		{ .iov_base = (void *)(uintptr_t)body.p, .iov_len = body.len },
	};
	struct msghdr msg = { .msg_iov = head.len ? iov : iov + 1,
			      .msg_iovlen = head.len && body.len ? 2 : 1 };
	ssize_t n = sendmsg(u->io.fd, &msg, MSG_NOSIGNAL);

	if (n < (ssize_t)(head.len + body.len))
		u->can_write = false;
	return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}
