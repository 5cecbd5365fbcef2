/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/analytics/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "gateway/analytics/record_queue.h"
#include "gateway/request.h"
#include "gateway/snapshot.h"
#include "gateway/worker.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/log.h"

#define RING_BYTES         (1UL << 20) /* about 2,000 lines: seconds of disk stall at ordinary rates */
#define WRITE_INTERVAL_MS  20
#define CLOSED_INTERVAL_MS 100     /* while there is no file */
#define SLOW_US            1000000 /* slower requests get a timeline */
#define REOPEN_WAIT_MS     200     /* for the writer to leave the old file */
#define STOP_WAIT_MS       1000    /* for a reader of the last lines */
#define USER_MAX           256
#define NAMED_ADDRESSES    32

/* What a worker's lines are made with, and where they go. */
struct record_ring {
	struct record_queue queue;   /* to the writer thread */
	struct record_queue *stream; /* NULL: none was ever configured */
	uint64_t second;             /* whose timestamp is in `timestamp` */
	char timestamp[CLOCK_RFC3339_LEN + 1];
	struct buf line; /* scratch of the worker */
	/* Instances that were named lately, by port: their text costs more than all other fields.
	 */
	struct {
		struct net_addr addr;
		char text[NET_ADDR_LEN];
	} named[NAMED_ADDRESSES];
};

struct record_writer {
	pthread_t thread;
	/*
	 * The writer's own; it never holds the lock while it writes, since a file on a dead server
	 * may hold it for ever.
	 */
	char *path;
	int fd;
	bool is_pipe; /* or a socket or terminal: whoever reads may stop reading */
	bool has_failed;
	/* Under the lock: what reopen asks for. */
	pthread_mutex_t lock;
	pthread_cond_t swapped;
	char *next_path;  /* NULL: nothing */
	int next_fd;      /* -1: no file any more */
	uint64_t stop_ms; /* 0: not stopping; else when to give up, monotonic */
	uint64_t errors;
	unsigned ring_count;
	struct record_ring rings[];
};

/* --- the writer thread
 * -------------------------------------------------------------------------------------------------
 */

/* A full disk or a dead reader: the lines wait in the ring until it is full, and then new ones are
 * dropped. */
static void writer_failed(struct record_writer *w, int error)
{
	__atomic_store_n(&w->errors, w->errors + 1, __ATOMIC_RELAXED);
	if (!w->has_failed)
		log_error("access log %s: cannot write: %s; requests go on, their lines are "
			  "dropped and counted until it works again",
			  w->path, strerror(error));
	w->has_failed = true;
}

/* Whether a write of up to PIPE_BUF bytes would not block. */
static bool writer_may_write(const struct record_writer *w)
{
	uint64_t stop_ms = __atomic_load_n(&w->stop_ms, __ATOMIC_ACQUIRE), now = clock_mono_ms();
	struct pollfd p = { .fd = w->fd, .events = POLLOUT };

	if (!w->is_pipe)
		return true;
	return poll(&p, 1, stop_ms > now ? (int)(stop_ms - now) : 0) > 0;
}

/*
 * Writes some of what one ring holds. Returns whether there was anything. O_NONBLOCK would be
 * simpler, but standard output belongs to others as well.
 */
static bool writer_drain_some(struct record_writer *w, struct record_queue *q)
{
	uint64_t head = record_queue_head(q);
	size_t from = q->tail % q->size;
	size_t len = MIN((size_t)(head - q->tail), w->is_pipe ? (size_t)PIPE_BUF : q->size);
	size_t first = MIN(len, q->size - from);
	struct iovec iov[2] = {
		{ .iov_base = q->bytes + from, .iov_len = first },
		{ .iov_base = q->bytes, .iov_len = len - first },
	};
	ssize_t n;

	if (w->fd < 0 || len == 0 || !writer_may_write(w))
		return false;
	n = writev(w->fd, iov, len > first ? 2 : 1);
	if (n < 0) {
		if (errno != EINTR)
			writer_failed(w, errno);
		return false;
	}
	if (w->has_failed)
		log_info("access log %s: writing again", w->path);
	w->has_failed = false;
	record_queue_consume(q, q->tail + (uint64_t)n);
	return true;
}

static void writer_open(struct record_writer *w, int fd, char *path)
{
	struct stat st;

	w->fd = fd;
	w->path = path;
	w->is_pipe = fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode);
}

static bool writer_drain(struct record_writer *w)
{
	bool wrote = false;

	for (unsigned i = 0; i < w->ring_count; i++) {
		while (writer_drain_some(w, &w->rings[i].queue))
			wrote = true;
	}
	return wrote;
}

/* Takes over what reopen left. */
static void writer_swap(struct record_writer *w)
{
	bool is_end;

	pthread_mutex_lock(&w->lock);
	is_end = w->next_path && w->next_fd < 0;
	pthread_mutex_unlock(&w->lock);
	/* Nobody queues any more; what there is belongs to the old file. */
	if (is_end)
		writer_drain(w);
	pthread_mutex_lock(&w->lock);
	if (w->next_path) {
		cleanup_close(&w->fd);
		free(w->path);
		writer_open(w, w->next_fd, TAKE_PTR(w->next_path));
		pthread_cond_broadcast(&w->swapped);
	}
	pthread_mutex_unlock(&w->lock);
}

static void pause_ms(long ms)
{
	struct timespec pause = { .tv_nsec = ms * (long)NSEC_PER_MSEC };

	nanosleep(&pause, NULL);
}

static void *writer_run(void *arg)
{
	struct record_writer *w = arg;

	pthread_setname_np(pthread_self(), "access-log");
	for (;;) {
		bool is_last = __atomic_load_n(&w->stop_ms, __ATOMIC_ACQUIRE) != 0;
		bool wrote;

		writer_swap(w);
		wrote = writer_drain(w);
		if (is_last && !wrote)
			return NULL;
		/* Sleeping, rather than being woken by each request, makes the lines cost no system
		 * call. */
		if (!is_last)
			pause_ms(w->fd < 0 ? CLOSED_INTERVAL_MS : WRITE_INTERVAL_MS);
	}
}

static int open_path(const char *path, struct err *err)
{
	int fd;

	if (strcmp(path, "-") == 0)
		fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		/* O_NONBLOCK: a FIFO that nobody reads is an error, not a wait. */
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
	if (fd < 0)
		return err_set(err, -errno, "access_log.path: cannot open %s: %s", path,
			       strerror(errno));
	return fd;
}

int record_writer_new(struct record_writer **out, const char *path, unsigned rings, struct err *err)
{
	/* aligned_alloc wants a multiple of the alignment */
	size_t size = (sizeof(struct record_writer) + rings * sizeof(struct record_ring) + 63) &
		      ~(size_t)63;
	struct record_writer *w = aligned_alloc(64, size);

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	memset(w, 0, size);
	w->fd = -1;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->swapped, NULL);
	w->path = strdup(path ? path : "");
	w->ring_count = rings;
	for (unsigned i = 0; i < rings; i++) {
		buf_init(&w->rings[i].line, 64UL * 1024);
		w->rings[i].queue.is_on = path != NULL;
		if (!record_queue_init(&w->rings[i].queue, RING_BYTES) || !w->path) {
			record_writer_free(&w);
			return err_set(err, -ENOMEM, "out of memory");
		}
	}
	if (path)
		w->fd = open_path(path, err);
	if (w->fd >= 0)
		writer_open(w, w->fd, w->path);
	if ((path && w->fd < 0) || pthread_create(&w->thread, NULL, writer_run, w)) {
		int rc = path && w->fd < 0
				 ? w->fd
				 : err_set(err, -EAGAIN, "cannot start the access log's thread");

		w->thread = 0;
		record_writer_free(&w);
		return rc;
	}
	*out = w;
	return 0;
}

static struct timespec wait_until(uint64_t ms)
{
	uint64_t at = clock_wall_ms() + ms;

	return (struct timespec) { .tv_sec = (time_t)(at / MSEC_PER_SEC),
				   .tv_nsec = (long)(at % MSEC_PER_SEC * NSEC_PER_MSEC) };
}

void record_writer_free(struct record_writer **wp)
{
	struct record_writer *w = *wp;

	if (!w)
		return;
	*wp = NULL;
	if (w->thread) {
		struct timespec until = wait_until(2UL * STOP_WAIT_MS);

		__atomic_store_n(&w->stop_ms, clock_mono_ms() + STOP_WAIT_MS, __ATOMIC_RELEASE);
		if (pthread_timedjoin_np(w->thread, NULL, &until)) {
			/* It hangs in the kernel and needs all of this; the process ends soon. */
			log_warn("access log: not written to its end, the file does not answer");
			pthread_detach(w->thread);
			return;
		}
	}
	for (unsigned i = 0; i < w->ring_count; i++) {
		record_queue_fini(&w->rings[i].queue);
		buf_fini(&w->rings[i].line);
	}
	if (w->next_path)
		cleanup_close(&w->next_fd);
	cleanup_close(&w->fd);
	pthread_cond_destroy(&w->swapped);
	pthread_mutex_destroy(&w->lock);
	free(w->next_path);
	free(w->path);
	free(w);
}

int record_writer_reopen(struct record_writer *w, const char *path, struct err *err)
{
	struct timespec until = wait_until(REOPEN_WAIT_MS);
	char *copy;
	int fd = -1, rc = 0;

	copy = strdup(path ? path : "");
	if (path)
		fd = copy ? open_path(copy, err) : err_set(err, -ENOMEM, "out of memory");
	if (!copy || (path && fd < 0)) {
		free(copy);
		return path && fd < 0 ? fd : err_set(err, -ENOMEM, "out of memory");
	}
	for (unsigned i = 0; i < w->ring_count; i++)
		__atomic_store_n(&w->rings[i].queue.is_on, path != NULL, __ATOMIC_RELAXED);
	pthread_mutex_lock(&w->lock);
	if (w->next_path)
		cleanup_close(&w->next_fd);
	free(w->next_path);
	w->next_path = copy;
	w->next_fd = fd;
	/* Whoever renamed the old file wants nothing more written to it. */
	while (w->next_path && rc == 0)
		rc = pthread_cond_timedwait(&w->swapped, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

struct record_ring *record_writer_ring(struct record_writer *w, unsigned index)
{
	return &w->rings[index];
}

void record_ring_set_stream(struct record_ring *ring, struct record_queue *stream)
{
	__atomic_store_n(&ring->stream, stream, __ATOMIC_RELEASE);
}

void record_writer_stats(const struct record_writer *w, struct record_stats *out)
{
	*out = (struct record_stats) { .errors = __atomic_load_n(&w->errors, __ATOMIC_RELAXED) };
	for (unsigned i = 0; i < w->ring_count; i++) {
		out->written += metrics_get(&w->rings[i].queue.lines);
		out->dropped += metrics_get(&w->rings[i].queue.dropped);
	}
}

/* --- the worker's side
 * ---------------------------------------------------------------------------------------------------
 */

/* Milliseconds change with each request, the rest once a second. */
static struct str timestamp(struct record_ring *ring, uint64_t wall_ms)
{
	unsigned ms = (unsigned)(wall_ms % MSEC_PER_SEC);

	if (ring->second != wall_ms / MSEC_PER_SEC || !ring->timestamp[0]) {
		ring->second = wall_ms / MSEC_PER_SEC;
		clock_rfc3339(ring->timestamp, wall_ms);
	}
	ring->timestamp[20] = (char)('0' + ms / 100);
	ring->timestamp[21] = (char)('0' + ms / 10 % 10);
	ring->timestamp[22] = (char)('0' + ms % 10);
	return str_of(ring->timestamp, CLOCK_RFC3339_LEN);
}

static const char *address_text(struct record_ring *ring, const struct net_addr *addr)
{
	size_t at = net_port(addr) % NAMED_ADDRESSES;

	if (!net_addr_eq(&ring->named[at].addr, addr)) {
		ring->named[at].addr = *addr;
		net_format(ring->named[at].text, addr);
	}
	return ring->named[at].text;
}

/* Fields are capped: a client chooses some of them and pays nothing for long ones. */
static struct str cap(struct str s, size_t max)
{
	return str_of(s.p, MIN(s.len, max));
}

/* As in the token, be it a number or a string; a long one, which only a string can be, is cut. */
static void add_user(struct json_writer *w, const struct claim *user)
{
	struct str text = cap(user->text, USER_MAX);

	if (user->json.len <= USER_MAX + 2) {
		json_add_raw(w, "userId", user->json);
		return;
	}
	/* Not within a character. */
	while (text.len && text.len < user->text.len && (text.p[text.len] & 0xc0) == 0x80)
		text.len--;
	json_add_str(w, "userId", text);
}

/* "GET /api/search"; "-" where the head could not be read. */
static void add_endpoint(struct json_writer *w, const struct request *r)
{
	char text[1024 + 32];
	struct str method = cap(r->method, 16);
	struct str path = cap(r->path.len ? r->path : r->raw_path, 1024);

	if (!method.len || !path.len) {
		json_addz(w, "endpoint", "-");
		return;
	}
	memcpy(text, method.p, method.len);
	text[method.len] = ' ';
	memcpy(text + method.len + 1, path.p, path.len);
	json_add_str(w, "endpoint", str_of(text, method.len + 1 + path.len));
}

static void add_timeline(struct json_writer *w, const struct request *r, uint64_t total_us)
{
	json_open(w, "timeline", '{');
	if (r->forward_ns)
		json_add_u64(w, "forward_us", (r->forward_ns - r->begin_ns) / 1000);
	if (r->connected_ns)
		json_add_u64(w, "connected_us", (r->connected_ns - r->begin_ns) / 1000);
	if (r->answered_ns)
		json_add_u64(w, "answered_us", (r->answered_ns - r->begin_ns) / 1000);
	json_add_u64(w, "total_us", total_us);
	json_close(w, '}');
}

static void push(struct record_queue *q, const struct buf *line)
{
	if (buf_failed(line))
		metrics_inc(&q->dropped, 1);
	else
		record_queue_push(q, buf_str(line));
}

void record_request(struct record_ring *ring, const struct request *r)
{
	const struct gw_conf *conf = &r->conf->snapshot->conf;
	const struct gw_route *route = r->route ? r->route->conf : NULL;
	struct record_queue *stream = __atomic_load_n(&ring->stream, __ATOMIC_ACQUIRE);
	bool to_file = record_queue_is_on(&ring->queue);
	bool to_stream = stream && record_queue_is_on(stream);
	struct json_writer w = json_writer(&ring->line);
	uint64_t total_us = request_elapsed_us(r);

	if (!to_file && !to_stream)
		return;
	buf_reset(&ring->line, 8192);
	json_open(&w, NULL, '{');
	json_add_str(&w, "timestamp", timestamp(ring, r->wall_ms));
	if (r->identity && r->identity->user)
		add_user(&w, r->identity->user);
	else
		json_add_null(&w, "userId");
	add_endpoint(&w, r);
	json_add_u64(&w, "latency_ms", (total_us + 500) / 1000);
	json_add_u64(&w, "status", r->response.status);
	if (r->has_grpc_status)
		json_add_u64(&w, "grpc_status", r->grpc_status);
	json_add_str(&w, "service", r->service ? r->service->name : STR(""));
	json_add_str(&w, "gateway_instance", conf->instance);
	json_add_str(&w, "request_id", cap(r->request_id, 128));
	if (r->trace_id.len)
		json_add_str(&w, "trace_id", r->trace_id);
	json_add_str(&w, "route", route ? route->name : STR(""));
	if (route && route->version && route->version->name.len)
		json_add_str(&w, "version", route->version->name);
	json_add_str(&w, "client_ip", r->client_ip);
	json_add_str(&w, "method", cap(r->method, 16));
	json_add_str(&w, "host", cap(r->authority, 255));
	json_add_u64(&w, "bytes_in", r->bytes_in);
	json_add_u64(&w, "bytes_out", r->bytes_out);
	if (r->upstream.len) {
		json_addz(&w, "upstream", address_text(ring, &r->upstream));
		json_add_thousandths(&w, "upstream_ms",
				     r->answered_ns ? (r->answered_ns - r->forward_ns) / 1000 : 0);
		json_add_u64(&w, "attempts", r->attempts);
	}
	if (r->limited_by.len)
		json_add_str(&w, "limited_by", r->limited_by);
	if (r->shadowed_by.len)
		json_add_str(&w, "shadow_limited_by", r->shadowed_by);
	if (r->tls[0])
		json_addz(&w, "tls", r->tls);
	json_addz(&w, "protocol", r->protocol);
	if (r->reason != REASON_NONE)
		json_addz(&w, "reason", request_reasons[r->reason]);
	if (total_us >= SLOW_US || r->response.status >= 500)
		add_timeline(&w, r, total_us);
	json_close(&w, '}');
	buf_putc(&ring->line, '\n');
	if (to_file)
		push(&ring->queue, &ring->line);
	if (to_stream)
		push(stream, &ring->line);
}
