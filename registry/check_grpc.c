/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/check_grpc.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/loop.h"

#define PREFIX_LEN  5 /* of a gRPC message: compressed or not, length */
#define ANSWER_MAX  64
#define SERVING     1
#define TAG_SERVICE 0x0a /* field 1, text */
#define TAG_STATUS  0x08 /* field 1, number */
#define TEXT_MAX    120  /* a length of one byte in protobuf */

struct grpc_probe {
	struct loop *loop;
	struct loop_io io;
	struct loop_timer timeout;
	struct loop_task failed_at_once;
	nghttp2_session *session;
	int32_t stream;
	char request[PREFIX_LEN + 2 + TEXT_MAX];
	size_t request_len, request_sent;
	unsigned char answer[ANSWER_MAX];
	size_t answer_len;
	bool is_ok; /* status 200, grpc-status 0 */
	bool has_grpc_status, is_over;
	char authority[NET_ADDR_LEN];
	void (*on_done)(bool serves, void *arg);
	void *arg;
};

static void probe_free(struct grpc_probe *p)
{
	loop_timer_stop(p->loop, &p->timeout);
	loop_cancel(&p->failed_at_once);
	nghttp2_session_del(p->session);
	if (p->io.fd >= 0) {
		loop_io_remove(p->loop, &p->io);
		close(p->io.fd);
	}
	free(p);
}

static void probe_end(struct grpc_probe *p, bool serves)
{
	void (*on_done)(bool serves, void *arg) = p->on_done;
	void *arg = p->arg;

	probe_free(p);
	on_done(serves, arg);
}

/* HealthCheckResponse { status = 1 }; what stands beside it is of a later version. */
static bool probe_serves(const struct grpc_probe *p)
{
	const unsigned char *m = p->answer + PREFIX_LEN;
	size_t len = p->answer_len - PREFIX_LEN;

	if (!p->is_ok || p->answer_len < PREFIX_LEN + 2 || p->answer[0] != 0)
		return false;
	return len >= 2 && m[0] == TAG_STATUS && m[1] == SERVING;
}

/* --- what nghttp2 asks for ------------------------------------------------------------------- */

static ssize_t on_read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t len,
			    uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct grpc_probe *p = source->ptr;
	size_t n = MIN(len, p->request_len - p->request_sent);

	(void)session;
	(void)stream;
	(void)arg;
	memcpy(out, p->request + p->request_sent, n);
	p->request_sent += n;
	if (p->request_sent == p->request_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	struct grpc_probe *p = arg;
	struct str n = str_of((const char *)name, name_len);
	struct str v = str_of((const char *)value, value_len);

	(void)session;
	(void)frame;
	(void)flags;
	if (str_eq(n, STR(":status")))
		p->is_ok = str_eq(v, STR("200"));
	if (str_eq(n, STR("grpc-status"))) {
		p->has_grpc_status = true;
		p->is_ok = p->is_ok && str_eq(v, STR("0"));
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
		   size_t len, void *arg)
{
	struct grpc_probe *p = arg;

	(void)session;
	(void)flags;
	(void)stream;
	len = MIN(len, ANSWER_MAX - p->answer_len);
	memcpy(p->answer + p->answer_len, data, len);
	p->answer_len += len;
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
	struct grpc_probe *p = arg;

	(void)session;
	if (stream != p->stream)
		return 0;
	p->is_over = true;
	p->is_ok = p->is_ok && p->has_grpc_status && error == NGHTTP2_NO_ERROR;
	return 0;
}

static ssize_t on_send(nghttp2_session *session, const uint8_t *data, size_t len, int flags,
		       void *arg)
{
	const struct grpc_probe *p = arg;
	ssize_t n = send(p->io.fd, data, len, MSG_NOSIGNAL);

	(void)session;
	(void)flags;
	if (n >= 0)
		return n;
	return errno == EAGAIN ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static ssize_t on_recv(nghttp2_session *session, uint8_t *out, size_t len, int flags, void *arg)
{
	const struct grpc_probe *p = arg;
	ssize_t n = recv(p->io.fd, out, len, 0);

	(void)session;
	(void)flags;
	if (n > 0)
		return n;
	if (n == 0)
		return NGHTTP2_ERR_EOF;
	return errno == EAGAIN ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* --- the call -------------------------------------------------------------------------------- */

#define FIELD(n, v)                                                                         \
	{                                                                                   \
		(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), \
			NGHTTP2_NV_FLAG_NONE                                                \
	}

static int probe_ask(struct grpc_probe *p)
{
	const nghttp2_nv fields[] = {
		FIELD(":method", "POST"),
		FIELD(":scheme", "http"),
		FIELD(":path", "/grpc.health.v1.Health/Check"),
		FIELD(":authority", p->authority),
		FIELD("te", "trailers"),
		FIELD("content-type", "application/grpc"),
		FIELD("user-agent", "gatehouse-registry"),
	};
	const nghttp2_data_provider body = { .source = { .ptr = p },
					     .read_callback = on_read_body };

	if (nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, NULL, 0) != 0)
		return -ENOMEM;
	p->stream = nghttp2_submit_request(p->session, NULL, fields, ARRAY_SIZE(fields), &body,
					   NULL);
	return p->stream < 0 ? -ENOMEM : 0;
}

static int probe_make_session(struct grpc_probe *p)
{
	nghttp2_session_callbacks *callbacks;
	int r;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return -ENOMEM;
	nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
	nghttp2_session_callbacks_set_recv_callback(callbacks, on_recv);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	r = nghttp2_session_client_new(&p->session, callbacks, p);
	nghttp2_session_callbacks_del(callbacks);
	return r == 0 ? probe_ask(p) : -ENOMEM;
}

static void probe_on_event(struct loop_io *io, uint32_t events)
{
	struct grpc_probe *p = container_of(io, struct grpc_probe, io);
	bool is_broken = (events & EPOLLERR) && net_socket_error(io->fd) < 0;

	if (!is_broken && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)))
		is_broken = nghttp2_session_recv(p->session) != 0;
	if (p->is_over) {
		probe_end(p, probe_serves(p));
		return;
	}
	if (!is_broken)
		is_broken = nghttp2_session_send(p->session) != 0 ||
			    !nghttp2_session_want_read(p->session);
	if (is_broken)
		probe_end(p, false);
}

static void probe_on_timeout(struct loop_timer *timer)
{
	probe_end(container_of(timer, struct grpc_probe, timeout), false);
}

static void probe_on_failed(struct loop_task *task)
{
	probe_end(container_of(task, struct grpc_probe, failed_at_once), false);
}

static void probe_write_request(struct grpc_probe *p, const char *service)
{
	size_t len = MIN(strlen(service), (size_t)TEXT_MAX);
	char *at = p->request;

	memset(at, 0, PREFIX_LEN);
	at[PREFIX_LEN - 1] = (char)(len ? len + 2 : 0);
	p->request_len = PREFIX_LEN;
	if (!len)
		return;
	at[PREFIX_LEN] = TAG_SERVICE;
	at[PREFIX_LEN + 1] = (char)len;
	memcpy(at + PREFIX_LEN + 2, service, len);
	p->request_len += len + 2;
}

struct grpc_probe *grpc_probe_start(struct loop *loop, const struct net_addr *addr,
				    const char *service, uint32_t timeout_ms,
				    void (*on_done)(bool serves, void *arg), void *arg)
{
	struct grpc_probe *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->loop = loop;
	p->on_done = on_done;
	p->arg = arg;
	p->io = (struct loop_io) { .fd = -1, .on_event = probe_on_event };
	p->timeout.on_fire = probe_on_timeout;
	p->failed_at_once.run = probe_on_failed;
	list_init(&p->failed_at_once.node);
	net_format(p->authority, addr);
	probe_write_request(p, service);
	if (probe_make_session(p) < 0) {
		probe_free(p);
		return NULL;
	}
	p->io.fd = net_connect(addr);
	if (p->io.fd >= 0 &&
	    loop_io_add(loop, &p->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0)
		close(TAKE_FD(p->io.fd));
	if (p->io.fd < 0)
		loop_defer(loop, &p->failed_at_once);
	else
		loop_timer_start(loop, &p->timeout, timeout_ms);
	return p;
}

void grpc_probe_cancel(struct grpc_probe **pp)
{
	struct grpc_probe *p = TAKE_PTR(*pp);

	if (p)
		probe_free(p);
}
