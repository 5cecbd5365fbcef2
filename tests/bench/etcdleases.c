/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same load as leases.c for etcd, by its gRPC API over plain HTTP/2: an instance is a key with
 * a lease of its own, as its users do it. As many connections, one request under way on each.
 * Prints one line of JSON.
 *
 * usage: etcdleases PORT register FIRST COUNT CONNECTIONS
 *        etcdleases PORT renew INSTANCES SECONDS CONNECTIONS
 *        etcdleases PORT watch WATCHERS WRITES        (loopback only)
 */
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#include "tests/bench/leases.h"

#define PREFIX_LEN 5 /* of a gRPC message */
#define LEASE_S    600U
#define LEASE_BASE 1000000 /* identities of leases are ours to choose; 0 is not one */

enum step { GRANT, PUT, KEEP_ALIVE, WATCH };

static const char *const paths[] = {
	[GRANT] = "/etcdserverpb.Lease/LeaseGrant",
	[PUT] = "/etcdserverpb.KV/Put",
	[KEEP_ALIVE] = "/etcdserverpb.Lease/LeaseKeepAlive",
	[WATCH] = "/etcdserverpb.Watch/Watch",
};

struct conn {
	int fd;
	nghttp2_session *session;
	int32_t stream;
	enum step step;
	uint64_t n, began_ns;
	unsigned char out[1024]; /* the message to send */
	size_t out_len, out_sent;
	bool ends; /* the request, with this message */
	size_t in_len;
	unsigned char in[2048]; /* the answer so far */
	bool is_bad, is_done, is_answered;
};

static struct {
	const char *mode;
	uint16_t port;
	int epoll_fd;
	uint64_t next, end, instances, until_ns, done, bad, bytes;
	struct leases_times times;
} g;

/* --- protobuf -------------------------------------------------------------------------------- */

static void put_varint(struct conn *c, uint64_t v)
{
	while (v >= 0x80) {
		c->out[c->out_len++] = (unsigned char)(v | 0x80);
		v >>= 7;
	}
	c->out[c->out_len++] = (unsigned char)v;
}

static void put_number(struct conn *c, unsigned field, uint64_t v)
{
	put_varint(c, field << 3);
	put_varint(c, v);
}

static void put_bytes(struct conn *c, unsigned field, const void *p, size_t len)
{
	put_varint(c, field << 3 | 2);
	put_varint(c, len);
	memcpy(c->out + c->out_len, p, len);
	c->out_len += len;
}

static void message_begin(struct conn *c)
{
	memset(c->out, 0, PREFIX_LEN);
	c->out_len = PREFIX_LEN;
	c->out_sent = 0;
}

static void message_end(struct conn *c)
{
	c->out[PREFIX_LEN - 2] = (unsigned char)((c->out_len - PREFIX_LEN) >> 8);
	c->out[PREFIX_LEN - 1] = (unsigned char)(c->out_len - PREFIX_LEN);
}

static void write_put(struct conn *c, const char *key, uint64_t n, uint64_t lease)
{
	char value[512];
	int len = snprintf(value, sizeof(value), LEASES_INSTANCE, (unsigned)(n >> 16 & 255),
			   (unsigned)(n >> 8 & 255), (unsigned)(n & 255), (unsigned)n, LEASE_S);

	message_begin(c);
	put_bytes(c, 1, key, strlen(key));
	put_bytes(c, 2, value, (size_t)len);
	if (lease)
		put_number(c, 3, lease);
	message_end(c);
}

static void write_message(struct conn *c)
{
	char key[64];

	switch (c->step) {
	case GRANT:
		message_begin(c);
		put_number(c, 1, LEASE_S);
		put_number(c, 2, LEASE_BASE + c->n);
		message_end(c);
		break;
	case PUT:
		snprintf(key, sizeof(key), "/apps/app-%" PRIu64 "/instance-%" PRIu64, c->n % 200,
			 c->n);
		write_put(c, key, c->n, LEASE_BASE + c->n);
		break;
	case KEEP_ALIVE:
		message_begin(c);
		put_number(c, 1, LEASE_BASE + c->n);
		message_end(c);
		break;
	case WATCH: {
		/* WatchCreateRequest of all keys that begin with "watched/". */
		static const char create[] = "\x0a\x08watched/\x12\x08watched0";

		message_begin(c);
		put_bytes(c, 1, create, sizeof(create) - 1);
		message_end(c);
		break;
	}
	}
}

/* --- HTTP/2 ---------------------------------------------------------------------------------- */

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *out, size_t len,
		       uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct conn *c = source->ptr;
	size_t n = MIN(len, c->out_len - c->out_sent);

	(void)session;
	(void)stream;
	(void)arg;
	if (n == 0 && !c->ends)
		return NGHTTP2_ERR_DEFERRED;
	memcpy(out, c->out + c->out_sent, n);
	c->out_sent += n;
	if (c->ends && c->out_sent == c->out_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

#define FIELD(n, v)                                                                         \
	{                                                                                   \
		(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), \
			NGHTTP2_NV_FLAG_NONE                                                \
	}

static void submit(struct conn *c)
{
	const nghttp2_nv fields[] = {
		FIELD(":method", "POST"),       FIELD(":scheme", "http"),
		FIELD(":path", paths[c->step]), FIELD(":authority", "etcd"),
		FIELD("te", "trailers"),        FIELD("content-type", "application/grpc"),
	};
	const nghttp2_data_provider body = { .source = { .ptr = c }, .read_callback = on_read };

	c->ends = c->step == GRANT || c->step == PUT;
	c->in_len = 0;
	write_message(c);
	c->stream = nghttp2_submit_request(c->session, NULL, fields, ARRAY_SIZE(fields), &body,
					   NULL);
	if (c->stream < 0)
		leases_die("nghttp2_submit_request");
}

/* The next operation of a connection; false when there is none. */
static bool begin(struct conn *c)
{
	if (g.instances ? leases_now_ns() > g.until_ns : g.next == g.end) {
		c->is_done = true;
		return false;
	}
	c->n = g.next++;
	if (g.instances && g.next == g.instances)
		g.next = 0;
	c->began_ns = leases_now_ns();
	if (!g.instances) {
		c->step = GRANT;
		submit(c);
	} else if (!c->stream) {
		c->step = KEEP_ALIVE;
		submit(c);
	} else {
		/* The same stream for all that come. */
		c->in_len = 0;
		write_message(c);
		nghttp2_session_resume_data(c->session, c->stream);
	}
	return true;
}

static void finished(struct conn *c)
{
	g.done++;
	g.bad += c->is_bad;
	leases_note(&g.times, leases_now_ns() - c->began_ns);
	begin(c);
}

static bool has_message(const struct conn *c)
{
	size_t len;

	if (c->in_len < PREFIX_LEN)
		return false;
	len = (size_t)c->in[1] << 24 | (size_t)c->in[2] << 16 | (size_t)c->in[3] << 8 | c->in[4];
	return c->in_len >= PREFIX_LEN + len;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
		   size_t len, void *arg)
{
	struct conn *c = arg;
	size_t n = MIN(len, sizeof(c->in) - c->in_len);

	(void)session;
	(void)flags;
	(void)stream;
	memcpy(c->in + c->in_len, data, n);
	c->in_len += n;
	if ((c->step == KEEP_ALIVE || c->step == WATCH) && has_message(c))
		c->is_answered = true;
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	struct conn *c = arg;

	(void)session;
	(void)frame;
	(void)flags;
	if (name_len == 11 && memcmp(name, "grpc-status", 11) == 0)
		c->is_bad |= value_len != 1 || value[0] != '0';
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
	struct conn *c = arg;

	(void)session;
	(void)stream;
	c->is_bad |= error != NGHTTP2_NO_ERROR;
	c->is_answered = true;
	return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
		       void *arg)
{
	const struct conn *c = arg;
	ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

	(void)session;
	(void)flags;
	return n >= 0 ? n : NGHTTP2_ERR_WOULDBLOCK;
}

static ssize_t on_recv(nghttp2_session *session, uint8_t *out, size_t len, int flags, void *arg)
{
	const struct conn *c = arg;
	ssize_t n = recv(c->fd, out, len, 0);

	(void)session;
	(void)flags;
	if (n > 0)
		return n;
	if (n == 0 || errno != EAGAIN)
		leases_die("etcd closed a connection");
	return NGHTTP2_ERR_WOULDBLOCK;
}

static void conn_open(struct conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	nghttp2_session_callbacks *callbacks;

	c->fd = leases_connect(g.port);
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		leases_die("nghttp2");
	nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
	nghttp2_session_callbacks_set_recv_callback(callbacks, on_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	if (nghttp2_session_client_new(&c->session, callbacks, c) != 0 ||
	    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, NULL, 0) != 0)
		leases_die("nghttp2");
	nghttp2_session_callbacks_del(callbacks);
	if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) < 0)
		leases_die("epoll_ctl");
}

/* Reads what there is, and writes what followed from it. */
static void conn_run(struct conn *c)
{
	if (nghttp2_session_recv(c->session) != 0)
		leases_die("nghttp2_session_recv");
	if (c->is_answered && c->step != WATCH) {
		c->is_answered = false;
		if (c->step == GRANT && !c->is_bad) {
			c->step = PUT;
			submit(c);
		} else {
			finished(c);
		}
	}
	if (nghttp2_session_send(c->session) != 0)
		leases_die("nghttp2_session_send");
}

/* --- what is measured ------------------------------------------------------------------------ */

static void run(unsigned connections)
{
	struct conn *conns = calloc(connections, sizeof(*conns));
	uint64_t began_ns;
	unsigned open = connections;

	if (!conns)
		leases_die("calloc");
	for (unsigned i = 0; i < connections; i++)
		conn_open(&conns[i]);
	began_ns = leases_now_ns();
	for (unsigned i = 0; i < connections; i++) {
		open -= !begin(&conns[i]);
		conn_run(&conns[i]);
	}
	while (open) {
		struct epoll_event events[64];
		int count = epoll_wait(g.epoll_fd, events, 64, 10000);

		if (count <= 0)
			leases_die("no answer within 10 s");
		for (int i = 0; i < count; i++) {
			struct conn *c = events[i].data.ptr;
			bool was_done = c->is_done;

			conn_run(c);
			open -= c->is_done && !was_done;
		}
	}
	leases_print(g.done, g.bad, leases_now_ns() - began_ns, &g.times, 0);
}

/* Until so many connections have an answer. */
static void await(unsigned wanted, bool is_measured, uint64_t written_ns)
{
	while (wanted) {
		struct epoll_event events[256];
		int count = epoll_wait(g.epoll_fd, events, 256, 10000);

		if (count <= 0)
			leases_die("nothing seen within 10 s");
		for (int i = 0; i < count; i++) {
			struct conn *c = events[i].data.ptr;

			conn_run(c);
			if (c->step != WATCH || !c->is_answered)
				continue;
			c->is_answered = false;
			if (is_measured) {
				leases_note(&g.times, leases_now_ns() - written_ns);
				g.bytes += c->in_len;
			}
			c->in_len = 0;
			wanted--;
		}
	}
}

static void watch(unsigned watchers, unsigned writes)
{
	struct conn *conns = calloc(watchers + 1, sizeof(*conns)), *writer = &conns[watchers];
	uint64_t began_ns = leases_now_ns();

	if (!conns)
		leases_die("calloc");
	for (unsigned i = 0; i < watchers; i++) {
		conn_open(&conns[i]);
		conns[i].step = WATCH;
		submit(&conns[i]);
		conn_run(&conns[i]);
	}
	await(watchers, false, 0); /* that they are there */
	conn_open(writer);
	g.next = g.end = 0;
	for (unsigned w = 0; w < writes; w++) {
		uint64_t written_ns = leases_now_ns();

		writer->step = PUT;
		submit(writer);
		write_put(writer, "watched/one", w, 0);
		conn_run(writer);
		await(watchers, true, written_ns);
	}
	leases_print(writes, g.bad, leases_now_ns() - began_ns, &g.times,
		     g.bytes / MAX(watchers, 1U) / MAX(writes, 1U));
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	g.port = (uint16_t)atoi(argv[1]);
	g.mode = argv[2];
	g.epoll_fd = epoll_create1(0);
	if (strcmp(g.mode, "watch") == 0) {
		watch((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
		return 0;
	}
	if (argc != 6)
		return 2;
	if (strcmp(g.mode, "register") == 0) {
		g.next = strtoull(argv[3], NULL, 10);
		g.end = g.next + strtoull(argv[4], NULL, 10);
	} else {
		g.instances = strtoull(argv[3], NULL, 10);
		g.until_ns = leases_now_ns() + strtoull(argv[4], NULL, 10) * 1000000000;
	}
	run((unsigned)atoi(argv[5]));
	return 0;
}
