/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/probe.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/loop.h"
#include "lib/tls.h"
#include "lib/tls_client.h"

#define BODY_MAX    1024 /* of an answer; more is not read */
#define SERVICE_MAX 255
#define NO_STATUS   UINT32_MAX

struct probe {
	struct loop_io io;
	struct loop_timer timer;
	struct loop *loop;
	struct probe_spec spec;
	SSL *ssl;
	nghttp2_session *session;
	struct buf out;
	/* grpc.health.v1.HealthCheckRequest in its frame */
	uint8_t message[5 + 2 + SERVICE_MAX];
	size_t message_len, message_sent;
	/* the answer */
	uint8_t body[BODY_MAX];
	size_t body_len;
	unsigned status;
	uint32_t grpc_status;
	bool is_connected, is_complete;
	char why[96];
};

static void probe_free(struct probe *p)
{
	loop_timer_stop(p->loop, &p->timer);
	if (p->io.fd >= 0) {
		loop_io_remove(p->loop, &p->io);
		close(p->io.fd);
	}
	nghttp2_session_del(p->session);
	SSL_free(p->ssl);
	buf_fini(&p->out);
	free(p);
}

void probe_cancel(struct probe **pp)
{
	struct probe *p = *pp;

	*pp = NULL;
	if (p)
		probe_free(p);
}

static void done(struct probe *p, const char *why)
{
	struct probe_spec spec = p->spec;
	unsigned status = p->status;
	char copy[sizeof(p->why)];

	if (why)
		snprintf(copy, sizeof(copy), "%s", why);
	if (p->ssl && p->is_connected)
		SSL_shutdown(p->ssl);
	ERR_clear_error();
	probe_free(p);
	spec.on_done(status, why ? copy : NULL, spec.arg);
}

/* --- gRPC ---------------------------------------------------------------------------------- */

/* A frame without compression: message { string service = 1; }. */
static void write_message(struct probe *p)
{
	size_t len = MIN(p->spec.service.len, (size_t)SERVICE_MAX);
	uint8_t *at = p->message + 5;

	if (len) {
		*at++ = 0x0a;
		/* Longer than 127 would need a second byte for its length; conf.c has that bound.
		 */
		*at++ = (uint8_t)len;
		memcpy(at, p->spec.service.p, len);
		at += len;
	}
	p->message_len = (size_t)(at - p->message);
	p->message[4] = (uint8_t)(p->message_len - 5);
}

/* The value of field 1 of a message that has varints only, as HealthCheckResponse is; 0 when it is
 * not there. */
static unsigned serving_status(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2) {
		if (at[i] & 0x87 || at[i + 1] & 0x80)
			return 0; /* no varint, or one of several bytes: nothing we know */
		if (at[i] >> 3 == 1)
			return at[i + 1];
	}
	return 0;
}

static const char *judge_grpc(struct probe *p)
{
	static const char *const names[] = { "UNKNOWN", "SERVING", "NOT_SERVING",
					     "SERVICE_UNKNOWN" };
	unsigned status;

	if (p->status != 200)
		snprintf(p->why, sizeof(p->why), "status %u", p->status);
	else if (p->grpc_status == NO_STATUS)
		return "no grpc-status";
	else if (p->grpc_status)
		snprintf(p->why, sizeof(p->why), "grpc-status %u%s", p->grpc_status,
			 p->grpc_status == 5    ? " (it does not know the service)"
			 : p->grpc_status == 12 ? " (it has no grpc.health.v1.Health)"
						: "");
	if (p->why[0])
		return p->why;
	if (p->body_len < 5 || p->body[0])
		return "not a gRPC message";
	status = serving_status(p->body + 5, p->body_len - 5);
	if (status == 1)
		return NULL;
	return status < ARRAY_SIZE(names) ? names[status] : "an unknown health";
}

/* --- HTTP/2 -------------------------------------------------------------------------------- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	struct str key = str_of((const char *)name, name_len);
	struct probe *p = arg;
	uint64_t number;

	(void)session;
	(void)frame;
	(void)flags;
	if (!str_u64(str_of((const char *)value, value_len), &number) || number > 999)
		return 0;
	if (str_eq(key, STR(":status")))
		p->status = (unsigned)number;
	else if (str_eq(key, STR("grpc-status")))
		p->grpc_status = (uint32_t)number;
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *arg)
{
	struct probe *p = arg;
	size_t n = MIN(len, sizeof(p->body) - p->body_len);

	(void)session;
	(void)flags;
	(void)id;
	memcpy(p->body + p->body_len, data, n);
	p->body_len += n;
	/* The status is all that a check by HTTP wants to know. */
	if (p->spec.kind == PROBE_HTTP2 || p->body_len == sizeof(p->body))
		p->is_complete = true;
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct probe *p = arg;

	(void)session;
	if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
	    frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		p->is_complete = true;
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
	struct probe *p = arg;

	(void)session;
	(void)id;
	if (!p->is_complete)
		snprintf(p->why, sizeof(p->why), "the request was reset: %s",
			 nghttp2_http2_strerror(code));
	return 0;
}

static ssize_t read_message(nghttp2_session *session, int32_t id, uint8_t *to, size_t len,
			    uint32_t *flags, nghttp2_data_source *source, void *arg)
{
	struct probe *p = arg;
	size_t n = MIN(len, p->message_len - p->message_sent);

	(void)session;
	(void)id;
	(void)source;
	memcpy(to, p->message + p->message_sent, n);
	p->message_sent += n;
	if (p->message_sent == p->message_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static nghttp2_nv nv_of(struct str name, struct str value)
{
	return (nghttp2_nv) { .name = (uint8_t *)(uintptr_t)name.p,
			      .namelen = name.len,
			      .value = (uint8_t *)(uintptr_t)value.p,
			      .valuelen = value.len };
}

static int submit(struct probe *p)
{
	bool is_grpc = p->spec.kind == PROBE_GRPC;
	const nghttp2_nv fields[] = {
		nv_of(STR(":method"), is_grpc ? STR("POST") : STR("GET")),
		nv_of(STR(":scheme"), p->ssl ? STR("https") : STR("http")),
		nv_of(STR(":authority"), p->spec.authority),
		nv_of(STR(":path"), is_grpc ? STR("/grpc.health.v1.Health/Check") : p->spec.path),
		nv_of(STR("user-agent"), STR("gatehouse-health")),
		nv_of(STR("content-type"), STR("application/grpc")),
		nv_of(STR("te"), STR("trailers")),
	};
	nghttp2_data_provider provider = { .read_callback = read_message };

	if (nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, NULL, 0) < 0)
		return -ENOMEM;
	if (is_grpc)
		write_message(p);
	return nghttp2_submit_request(p->session, NULL, fields,
				      is_grpc ? ARRAY_SIZE(fields) : ARRAY_SIZE(fields) - 2,
				      is_grpc ? &provider : NULL, NULL) < 0
		       ? -ENOMEM
		       : 0;
}

static int begin_http2(struct probe *p)
{
	nghttp2_session_callbacks *cb;

	if (nghttp2_session_callbacks_new(&cb))
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	if (nghttp2_session_client_new(&p->session, cb, p))
		p->session = NULL;
	nghttp2_session_callbacks_del(cb);
	return p->session ? submit(p) : -ENOMEM;
}

/* --- bytes --------------------------------------------------------------------------------- */

static long read_some(struct probe *p, void *to, size_t len)
{
	ssize_t n;

	if (p->ssl)
		return tls_read(p->ssl, to, len);
	n = recv(p->io.fd, to, len, 0);
	return n < 0 ? -errno : n;
}

static long write_some(struct probe *p, struct str data)
{
	ssize_t n;

	if (p->ssl)
		return tls_write(p->ssl, data.p, data.len);
	n = send(p->io.fd, data.p, data.len, MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

/* 0 while all is well. */
static int flush(struct probe *p)
{
	const uint8_t *data;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(p->session, &data)) > 0)
		buf_append(&p->out, (const char *)data, (size_t)n);
	if (n < 0 || buf_failed(&p->out))
		return -ENOMEM;
	while (buf_len(&p->out)) {
		long sent = write_some(p, buf_str(&p->out));

		if (sent == -EAGAIN)
			return 0;
		if (sent < 0)
			return (int)sent;
		buf_consume(&p->out, (size_t)sent);
	}
	return 0;
}

/* NULL while there is nothing to say yet. */
static const char *converse(struct probe *p)
{
	uint8_t data[4096];

	if (flush(p) < 0)
		return "the connection was reset";
	while (!p->is_complete) {
		long n = read_some(p, data, sizeof(data));

		if (n == -EAGAIN)
			return flush(p) < 0 ? "the connection was reset" : NULL;
		if (n <= 0)
			return p->why[0] ? p->why : "the connection was closed without an answer";
		if (nghttp2_session_mem_recv(p->session, data, (size_t)n) < 0)
			return "it does not speak HTTP/2";
		if (p->is_complete)
			break;
		if (p->why[0])
			return p->why;
		if (flush(p) < 0)
			return "the connection was reset";
		/* Once a GOAWAY of ours, for what it did wrong, is out. */
		if (!nghttp2_session_want_read(p->session))
			return "it does not speak HTTP/2";
	}
	return NULL;
}

/* 0 when the connection is there; else as upconn_connect. */
static int connect_more(struct probe *p, const char **why)
{
	int rc = net_socket_error(p->io.fd);

	if (rc < 0) {
		*why = strerror(-rc);
		return rc;
	}
	if (p->ssl) {
		rc = tls_client_handshake(p->ssl, why);
		if (rc < 0)
			return rc;
	}
	p->is_connected = true;
	return p->spec.kind == PROBE_CONNECT ? 0 : begin_http2(p);
}

static void on_event(struct loop_io *io, uint32_t events)
{
	struct probe *p = container_of(io, struct probe, io);
	const char *why = "out of memory";

	(void)events;
	if (!p->is_connected) {
		int rc = connect_more(p, &why);

		if (rc == -EAGAIN)
			return;
		if (rc < 0 || p->spec.kind == PROBE_CONNECT) {
			done(p, rc < 0 ? why : NULL);
			return;
		}
	}
	why = converse(p);
	if (!why && !p->is_complete)
		return;
	if (!why && p->spec.kind == PROBE_GRPC)
		why = judge_grpc(p);
	done(p, why);
}

/* Too late, or there was not even a socket to be had. */
static void on_timer(struct loop_timer *timer)
{
	struct probe *p = container_of(timer, struct probe, timer);

	done(p, p->why[0] ? p->why : "no answer in time");
}

struct probe *probe_start(struct loop *loop, const struct probe_spec *spec)
{
	struct probe *p = calloc(1, sizeof(*p));
	char address[NET_ADDR_LEN];
	int rc;

	if (!p)
		return NULL;
	p->loop = loop;
	p->spec = *spec;
	p->grpc_status = NO_STATUS;
	p->io.on_event = on_event;
	p->timer.on_fire = on_timer;
	buf_init(&p->out, 65536);
	rc = p->io.fd = net_connect(&spec->addr);
	if (rc >= 0 && spec->tls) {
		p->ssl = tls_client_connect(spec->tls, p->io.fd,
					    net_format_ip(address, &spec->addr));
		if (!p->ssl)
			rc = -ENOMEM;
	}
	if (rc >= 0)
		rc = loop_io_add(loop, &p->io, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (rc < 0) {
		snprintf(p->why, sizeof(p->why), "%s", strerror(-rc));
		if (p->io.fd >= 0)
			close(p->io.fd);
		p->io.fd = -1;
	}
	loop_timer_start(loop, &p->timer, rc < 0 ? 0 : spec->timeout_ms);
	return p;
}
