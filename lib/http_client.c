/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http_client.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/tls.h"
#include "lib/tls_client.h"

#define READ_SIZE    16384
#define ROUND_READS  16
#define INTERIM_MAX  8 /* 1xx answers before the final one */
#define KEPT_IDLE_MS 30000

enum call_state {
	CALL_CONNECTING,
	CALL_HANDSHAKE,
	CALL_WAITING, /* for the head; the request may still be on its way out */
	CALL_READING, /* the body */
	CALL_OVER,    /* on_done is running */
};

/* A connection without a call. */
struct kept {
	struct http_client *client;
	struct loop_io io;
	struct loop_timer timer;
	struct net_addr addr;
	struct list node;
};

struct http_client {
	struct loop *loop;
	struct list calls;
	struct list kept; /* least recently used first */
	unsigned kept_count, kept_max;
};

struct http_call {
	struct http_client *client;
	struct list node;
	struct loop_io io; /* fd -1 without a connection */
	SSL *ssl;          /* NULL without TLS */
	struct loop_timer phase, total;
	struct loop_task again;
	struct net_addr addr;
	struct http_request_spec spec; /* its slices point into `request` or nowhere */
	struct buf request;            /* all of it, for sending it again */
	size_t sent;
	struct buf in, content;
	struct buf head_bytes; /* what `head` points into */
	struct http1_scan scan;
	struct http1_head head;
	struct http1_body body;
	enum call_state state;
	unsigned interims;
	int start_error;
	const char *start_problem;
	char tls_name[256];
	bool is_reused;  /* the connection was a kept one */
	bool has_answer; /* a byte of it */
	bool is_send_broken;
	bool has_head;
	bool is_streamed;
	bool is_calling; /* a callback of it is running */
	bool is_cancelled;
};

/* --- base URLs ------------------------------------------------------------------------------- */

static int base_resolve(struct http_base *out, struct str authority, const char *default_port,
			struct err *err)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	char name[264], port[6];
	ptrdiff_t colon = str_chr(authority, ':');
	uint64_t number;
	int r;

	snprintf(port, sizeof(port), "%s", default_port);
	if (colon >= 0) {
		struct str digits = str_sub(authority, (size_t)colon + 1, authority.len);

		if (!str_u64(digits, &number) || number == 0 || number > UINT16_MAX)
			return err_set(err, -EINVAL, "%.*s: not a port number", STR_ARG(digits));
		snprintf(port, sizeof(port), "%u", (unsigned)number);
		authority = str_sub(authority, 0, (size_t)colon);
	}
	if (authority.len >= sizeof(name))
		return err_set(err, -EINVAL, "the name of the host is too long");
	memcpy(name, authority.p, authority.len);
	name[authority.len] = '\0';
	r = getaddrinfo(name, port, &hints, &found);
	if (r != 0)
		return err_set(err, -EHOSTUNREACH, "%s: cannot be resolved: %s", name,
			       gai_strerror(r));
	out->addr.len = found->ai_addrlen;
	memcpy(&out->addr.un, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

static int base_refuse_scheme(struct str url, unsigned flags, struct err *err)
{
	return err_set(err, -EINVAL, "%.*s: must begin with \"http://\"%s or be \"unix:/path\"",
		       STR_ARG(url), flags & HTTP_BASE_TLS ? ", \"https://\"" : "");
}

struct str http_base_name(const struct http_base *base)
{
	struct str host = str_from(base->host);
	ptrdiff_t end = str_starts(host, STR("[")) ? str_chr(host, ']') : str_chr(host, ':');

	if (end < 0)
		return host;
	return host.p[0] == '[' ? str_sub(host, 1, (size_t)end) : str_sub(host, 0, (size_t)end);
}

int http_base_parse(struct http_base *out, struct str url, unsigned flags, struct err *err)
{
	struct http_base base = { 0 };
	struct str rest, authority;
	ptrdiff_t slash;
	int r;

	if (str_starts(url, STR("unix:"))) {
		if (net_parse(&base.addr, url, 0) < 0)
			return err_set(err, -EINVAL, "%.*s: not the path of a unix socket",
				       STR_ARG(url));
		snprintf(base.host, sizeof(base.host), "localhost");
		*out = base;
		return 0;
	}
	base.is_tls = (flags & HTTP_BASE_TLS) && str_istarts(url, STR("https://"));
	if (!base.is_tls && !str_istarts(url, STR("http://")))
		return base_refuse_scheme(url, flags, err);
	rest = str_sub(url, base.is_tls ? 8 : 7, url.len);
	slash = str_chr(rest, '/');
	authority = slash < 0 ? rest : str_sub(rest, 0, (size_t)slash);
	rest = slash < 0 ? str_of("", 0) : str_sub(rest, (size_t)slash, rest.len);
	while (str_ends(rest, STR("/")))
		rest.len--;
	if (!http_is_host(authority) || authority.len >= sizeof(base.host))
		return err_set(err, -EINVAL, "%.*s: no valid host", STR_ARG(url));
	if (rest.len >= sizeof(base.path) || !http_is_field_value(rest) ||
	    str_chr(rest, ' ') >= 0 || str_chr(rest, '?') >= 0 || str_chr(rest, '#') >= 0)
		return err_set(err, -EINVAL, "%.*s: a base URL has a plain path, without query",
			       STR_ARG(url));
	memcpy(base.host, authority.p, authority.len);
	memcpy(base.path, rest.p, rest.len);
	if (net_parse(&base.addr, authority, base.is_tls ? 443 : 80) < 0) {
		if (!(flags & HTTP_BASE_RESOLVE))
			return err_set(err, -EINVAL,
				       "%.*s: needs an IP address, names are not looked up here",
				       STR_ARG(url));
		r = base_resolve(&base, authority, base.is_tls ? "443" : "80", err);
		if (r < 0)
			return r;
	}
	*out = base;
	return 0;
}

void http_encode(struct buf *out, struct str text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~')
			buf_putc(out, (char)c);
		else
			buf_printf(out, "%%%02X", c);
	}
}

/* --- kept connections ------------------------------------------------------------------------ */

static void kept_close(struct kept *k)
{
	loop_timer_stop(k->client->loop, &k->timer);
	if (k->io.fd >= 0) {
		loop_io_remove(k->client->loop, &k->io);
		close(k->io.fd);
	}
	list_remove(&k->node);
	k->client->kept_count--;
	free(k);
}

/* Closed by the peer, or bytes that nobody asked for: either way of no use any more. */
static void kept_on_event(struct loop_io *io, uint32_t events)
{
	(void)events;
	kept_close(container_of(io, struct kept, io));
}

static void kept_on_timer(struct loop_timer *timer)
{
	kept_close(container_of(timer, struct kept, timer));
}

/* Takes the connection over from a call. */
static void client_keep(struct http_client *client, struct loop_io *io, const struct net_addr *addr)
{
	struct kept *k = client->kept_max ? calloc(1, sizeof(*k)) : NULL;

	if (!k)
		return;
	k->client = client;
	k->io = (struct loop_io) { .fd = -1, .on_event = kept_on_event };
	if (loop_io_move(client->loop, io, &k->io, EPOLLIN | EPOLLRDHUP) < 0) {
		free(k);
		return;
	}
	if (client->kept_count == client->kept_max)
		kept_close(container_of(client->kept.next, struct kept, node));
	k->timer.on_fire = kept_on_timer;
	k->addr = *addr;
	list_add_tail(&client->kept, &k->node);
	client->kept_count++;
	loop_timer_start(client->loop, &k->timer, KEPT_IDLE_MS);
}

static bool kept_is_quiet(const struct kept *k)
{
	char c;

	return recv(k->io.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* Gives a kept connection to `io`, if there is one to that address. */
static bool client_take(struct http_client *client, const struct net_addr *addr, struct loop_io *io,
			uint32_t events)
{
	for (struct list *at = client->kept.prev, *next = at->prev; at != &client->kept;
	     at = next, next = at->prev) {
		struct kept *k = container_of(at, struct kept, node);
		bool is_taken;

		if (!net_addr_eq(&k->addr, addr))
			continue;
		/* Its end may be known to the kernel before the loop tells us. */
		is_taken = kept_is_quiet(k) && loop_io_move(client->loop, &k->io, io, events) == 0;
		kept_close(k);
		if (is_taken)
			return true;
	}
	return false;
}

/* --- the life of a call ---------------------------------------------------------------------- */

static void call_disconnect(struct http_call *call)
{
	if (call->io.fd < 0)
		return;
	SSL_free(TAKE_PTR(call->ssl));
	loop_io_remove(call->client->loop, &call->io);
	close(call->io.fd);
	call->io.fd = -1;
}

static void call_free(struct http_call *call)
{
	struct loop *loop = call->client->loop;

	call_disconnect(call);
	loop_timer_stop(loop, &call->phase);
	loop_timer_stop(loop, &call->total);
	loop_cancel(&call->again);
	list_remove(&call->node);
	buf_fini(&call->request);
	buf_fini(&call->in);
	buf_fini(&call->content);
	buf_fini(&call->head_bytes);
	free(call);
}

static void call_set_phase(struct http_call *call, uint32_t timeout_ms)
{
	if (timeout_ms == HTTP_NO_TIMEOUT)
		loop_timer_stop(call->client->loop, &call->phase);
	else
		loop_timer_start(call->client->loop, &call->phase, timeout_ms);
}

static void call_end(struct http_call *call, int error, const char *problem)
{
	struct http_result result = {
		.error = error,
		.problem = problem,
		.status = call->has_head ? call->head.status : 0,
		.head = call->has_head ? &call->head : NULL,
		.body = buf_str(&call->content),
	};

	call->state = CALL_OVER;
	call->is_calling = true;
	call_disconnect(call);
	call->spec.on_done(call, &result, call->spec.arg);
	call_free(call);
}

/* The answer is complete: the connection may serve another call. */
static void call_complete(struct http_call *call)
{
	bool is_clean = buf_len(&call->in) == 0 && call->sent == buf_len(&call->request);

	if (call->head.keeps_alive && call->head.framing != HTTP1_UNTIL_CLOSE && is_clean &&
	    !call->spec.closes)
		client_keep(call->client, &call->io, &call->addr);
	call_end(call, 0, "");
}

static int call_connect_new(struct http_call *call, uint32_t events)
{
	int fd = net_connect(&call->addr);
	int r;

	if (fd < 0)
		return fd;
	call->io.fd = fd;
	r = loop_io_add(call->client->loop, &call->io, events);
	if (r < 0) {
		close(TAKE_FD(call->io.fd));
		return r;
	}
	if (call->spec.tls)
		call->ssl = tls_client_connect(call->spec.tls, fd, call->tls_name);
	return call->spec.tls && !call->ssl ? -ENOMEM : 0;
}

static int call_connect(struct http_call *call, bool may_reuse)
{
	const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
	int r;

	call->sent = 0;
	call->is_send_broken = false;
	call->is_reused = may_reuse && client_take(call->client, &call->addr, &call->io, events);
	if (call->is_reused) {
		call->state = CALL_WAITING;
		call_set_phase(call, call->spec.response_timeout_ms);
		return 0;
	}
	r = call_connect_new(call, events);
	if (r < 0)
		return r;
	call->state = CALL_CONNECTING;
	call_set_phase(call, call->spec.connect_timeout_ms);
	return 0;
}

static const char *connect_problem(int error)
{
	return error == -ECONNREFUSED ? "connection refused" : strerror(-error);
}

/*
 * The connection broke. A kept one may have been closed by the server just before the request went
 * out; that is no failure of the service, so it is tried once more on a new one, if sending it
 * twice does no harm.
 */
static void call_broken(struct http_call *call, int error, const char *problem)
{
	bool may_repeat = call->is_reused && !call->has_answer &&
			  (call->spec.is_repeatable || http_is_idempotent(call->spec.method));
	int r;

	if (!may_repeat) {
		call_end(call, error, problem);
		return;
	}
	call_disconnect(call);
	r = call_connect(call, false);
	if (r < 0)
		call_end(call, r, connect_problem(r));
}

/* --- sending and receiving ------------------------------------------------------------------- */

/* Both as the system calls they stand for, but with -errno. */
static long call_write(struct http_call *call, const void *data, size_t len)
{
	ssize_t n;

	if (call->ssl)
		return tls_write(call->ssl, data, len);
	n = send(call->io.fd, data, len, MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

static long call_read(struct http_call *call, void *out, size_t len)
{
	ssize_t n;

	if (call->ssl)
		return tls_read(call->ssl, out, len);
	n = recv(call->io.fd, out, len, 0);
	return n < 0 ? -errno : n;
}

/* Returns false when the call ended. */
static bool call_send(struct http_call *call)
{
	while (call->sent < buf_len(&call->request) && !call->is_send_broken) {
		long n = call_write(call, buf_data(&call->request) + call->sent,
				    buf_len(&call->request) - call->sent);

		if (n >= 0) {
			call->sent += (size_t)n;
		} else if (n == -EAGAIN) {
			return true;
		} else if (n == -EPIPE || n == -ECONNRESET) {
			/* An answer may lie there all the same (413 and the like). */
			call->is_send_broken = true;
			return true;
		} else if (n != -EINTR) {
			call_broken(call, (int)n, "cannot send");
			return false;
		}
	}
	return true;
}

/* Runs a callback's aftermath. Returns false when it cancelled the call. */
static bool call_survived(struct http_call *call)
{
	call->is_calling = false;
	if (!call->is_cancelled)
		return true;
	call_free(call);
	return false;
}

static bool call_take_head(struct http_call *call)
{
	static const struct http1_limits limits = { .head_bytes = 32768,
						    .target_bytes = 8192,
						    .fields = HTTP1_FIELDS_MAX };
	long len = http1_parse_response(&call->head, &call->scan, buf_str(&call->in), &limits,
					call->spec.method);

	if (len == 0)
		return true;
	if (len < 0) {
		call_end(call, -EBADMSG, call->head.problem ? call->head.problem : "bad head");
		return false;
	}
	call->scan = (struct http1_scan) { 0 };
	if (call->head.status < 200) {
		buf_consume(&call->in, (size_t)len);
		if (call->head.status == 101 || ++call->interims > INTERIM_MAX) {
			call_end(call, -EBADMSG, "unexpected interim answer");
			return false;
		}
		return true;
	}
	/* The head's slices must stay in place until the end, so the body gets a buffer of its own.
	 */
	call->head_bytes = call->in;
	buf_init(&call->in, 0);
	buf_append(&call->in, buf_data(&call->head_bytes) + len,
		   buf_len(&call->head_bytes) - (size_t)len);
	call->has_head = true;
	call->state = CALL_READING;
	call->is_streamed = call->spec.on_data && call->head.status == 200;
	http1_body_init(&call->body, &call->head);
	call_set_phase(call, call->spec.idle_timeout_ms);
	if (call->spec.on_head) {
		call->is_calling = true;
		call->spec.on_head(call, &call->head, call->spec.arg);
		if (!call_survived(call))
			return false;
	}
	return true;
}

/* Gives a piece of the body on. Returns false when the call ended. */
static bool call_give(struct http_call *call, struct str data)
{
	if (call->is_streamed) {
		call->is_calling = true;
		call->spec.on_data(call, data, call->spec.arg);
		return call_survived(call);
	}
	buf_add(&call->content, data);
	if (buf_failed(&call->content)) {
		call_end(call, -EMSGSIZE, "the answer is too large");
		return false;
	}
	return true;
}

/* Works through what was received. Returns false when the call ended. */
static bool call_parse(struct http_call *call)
{
	while (call->state == CALL_WAITING && buf_len(&call->in)) {
		size_t before = buf_len(&call->in);

		if (!call_take_head(call))
			return false;
		if (call->state == CALL_WAITING && buf_len(&call->in) == before)
			return true;
	}
	while (call->state == CALL_READING) {
		struct str data = { 0 };
		size_t consumed = 0;
		enum http1_body_result r = http1_body_next(&call->body, buf_str(&call->in),
							   &consumed, &data);

		if (r == HTTP1_BODY_DATA && data.len && !call_give(call, data))
			return false;
		buf_consume(&call->in, consumed);
		if (r == HTTP1_BODY_MORE)
			return true;
		if (r == HTTP1_BODY_END) {
			call_complete(call);
			return false;
		}
		if (r == HTTP1_BODY_BAD) {
			call_end(call, -EBADMSG, "malformed chunked body");
			return false;
		}
	}
	return true;
}

static void call_at_end(struct http_call *call)
{
	if (call->state == CALL_READING && call->head.framing == HTTP1_UNTIL_CLOSE)
		call_end(call, 0, "");
	else
		call_broken(call, -ECONNRESET, "closed before the answer was complete");
}

static void call_receive(struct http_call *call)
{
	for (int i = 0; i < ROUND_READS; i++) {
		long n;

		if (!buf_reserve(&call->in, READ_SIZE)) {
			call_end(call, -ENOMEM, "out of memory");
			return;
		}
		n = call_read(call, call->in.data + call->in.end, buf_room(&call->in));
		if (n == -EAGAIN)
			return;
		if (n == -EINTR)
			continue;
		if (n == 0) {
			call_at_end(call);
			return;
		}
		if (n < 0) {
			call_broken(call, (int)n, "the connection broke");
			return;
		}
		buf_commit(&call->in, (size_t)n);
		call->has_answer = true;
		if (call->state == CALL_READING)
			call_set_phase(call, call->spec.idle_timeout_ms);
		if (!call_parse(call))
			return;
	}
	loop_defer(call->client->loop, &call->again);
}

static void call_start_waiting(struct http_call *call)
{
	call->state = CALL_WAITING;
	call_set_phase(call, call->spec.response_timeout_ms);
}

/* Returns false when the call ended, or the handshake waits for the peer. */
static bool call_handshake(struct http_call *call)
{
	const char *problem = "";
	int r = tls_client_handshake(call->ssl, &problem);

	if (r == -EAGAIN)
		return false;
	if (r < 0) {
		call_end(call, r, problem);
		return false;
	}
	call_start_waiting(call);
	return true;
}

static void call_on_event(struct loop_io *io, uint32_t events)
{
	struct http_call *call = container_of(io, struct http_call, io);

	if (call->state == CALL_CONNECTING) {
		int r = net_socket_error(io->fd);

		if (r < 0 || (events & EPOLLHUP)) {
			r = r < 0 ? r : -ECONNRESET;
			call_end(call, r, connect_problem(r));
			return;
		}
		if (!(events & EPOLLOUT))
			return;
		if (call->ssl)
			call->state = CALL_HANDSHAKE;
		else
			call_start_waiting(call);
	}
	if (call->state == CALL_HANDSHAKE) {
		if (!call_handshake(call))
			return;
		/* The edge that said "writable" may be long past. */
		events |= EPOLLOUT;
	}
	if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) && !call_send(call))
		return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		call_receive(call);
}

static void call_on_again(struct loop_task *task)
{
	struct http_call *call = container_of(task, struct http_call, again);

	if (call->start_error)
		call_end(call, call->start_error, call->start_problem);
	else
		call_receive(call);
}

static void call_on_phase(struct loop_timer *timer)
{
	struct http_call *call = container_of(timer, struct http_call, phase);
	static const char *const problems[] = {
		[CALL_CONNECTING] = "no connection in time",
		[CALL_HANDSHAKE] = "no TLS handshake in time",
		[CALL_WAITING] = "no answer in time",
		[CALL_READING] = "the answer stopped coming",
		[CALL_OVER] = "",
	};

	call_end(call, -ETIMEDOUT, problems[call->state]);
}

static void call_on_total(struct loop_timer *timer)
{
	call_end(container_of(timer, struct http_call, total), -ETIMEDOUT,
		 "took longer than allowed");
}

/* --- starting -------------------------------------------------------------------------------- */

static void write_request(struct buf *out, const struct http_request_spec *spec)
{
	char addr[NET_ADDR_LEN];

	buf_addz(out, http_method_name(spec->method));
	buf_putc(out, ' ');
	for (size_t i = 0; i < ARRAY_SIZE(spec->target); i++)
		buf_add(out, spec->target[i]);
	buf_addz(out, " HTTP/1.1\r\nHost: ");
	if (spec->host.len)
		buf_add(out, spec->host);
	else if (spec->addr->sa.sa_family == AF_UNIX)
		buf_addz(out, "localhost");
	else
		buf_addz(out, net_format(addr, spec->addr));
	buf_addz(out, "\r\n");
	if (spec->body.len || spec->method == METHOD_POST || spec->method == METHOD_PUT) {
		buf_addz(out, "Content-Length: ");
		buf_u64(out, spec->body.len);
		buf_addz(out, "\r\n");
	}
	if (spec->body.len) {
		buf_addz(out, "Content-Type: ");
		buf_add(out, spec->content_type.len ? spec->content_type : STR("application/json"));
		buf_addz(out, "\r\n");
	}
	buf_add(out, spec->headers);
	if (spec->closes)
		buf_addz(out, "Connection: close\r\n");
	buf_addz(out, "\r\n");
	buf_add(out, spec->body);
}

static bool is_sendable(const struct http_request_spec *spec)
{
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(spec->target); i++) {
		struct str part = spec->target[i];

		if (!http_is_field_value(part) || (part.len && str_chr(part, ' ') >= 0))
			return false;
		len += part.len;
	}
	return len > 0 && http_is_field_value(spec->host) &&
	       http_is_field_value(spec->content_type);
}

static uint32_t timeout_or(uint32_t given_ms, uint32_t default_ms)
{
	return given_ms ? given_ms : default_ms;
}

static void set_tls_name(struct http_call *call)
{
	char address[NET_ADDR_LEN];
	struct str name = call->spec.tls_name;

	if (!call->spec.tls)
		return;
	call->spec.closes = true;
	if (!name.len)
		name = str_from(net_format_ip(address, &call->addr));
	name.len = MIN(name.len, sizeof(call->tls_name) - 1);
	memcpy(call->tls_name, name.p, name.len);
}

struct http_call *http_call_start(struct http_client *client, const struct http_request_spec *spec)
{
	struct http_call *call = is_sendable(spec) ? calloc(1, sizeof(*call)) : NULL;
	int r;

	if (!call)
		return NULL;
	call->client = client;
	call->spec = *spec;
	if (call->spec.method == METHOD_OTHER)
		call->spec.method = METHOD_GET;
	call->spec.connect_timeout_ms = timeout_or(spec->connect_timeout_ms, 2000);
	call->spec.response_timeout_ms = timeout_or(spec->response_timeout_ms, 5000);
	call->spec.idle_timeout_ms = timeout_or(spec->idle_timeout_ms, 10000);
	call->addr = *spec->addr;
	set_tls_name(call);
	buf_init(&call->request, 0);
	buf_init(&call->in, 0);
	buf_init(&call->content, spec->max_body ? spec->max_body : 1UL << 20);
	call->io = (struct loop_io) { .fd = -1, .on_event = call_on_event };
	call->phase.on_fire = call_on_phase;
	call->total.on_fire = call_on_total;
	call->again.run = call_on_again;
	list_init(&call->again.node);
	list_add_tail(&client->calls, &call->node);
	write_request(&call->request, &call->spec);
	if (buf_failed(&call->request)) {
		call_free(call);
		return NULL;
	}
	if (spec->total_timeout_ms && spec->total_timeout_ms != HTTP_NO_TIMEOUT)
		loop_timer_start(client->loop, &call->total, spec->total_timeout_ms);
	r = call_connect(call, !call->spec.closes);
	if (r < 0) {
		call->start_error = r;
		call->start_problem = connect_problem(r);
		loop_defer(client->loop, &call->again);
	}
	return call;
}

void http_call_cancel(struct http_call **callp)
{
	struct http_call *call = TAKE_PTR(*callp);

	if (!call || call->state == CALL_OVER)
		return;
	if (call->is_calling)
		call->is_cancelled = true;
	else
		call_free(call);
}

struct http_client *http_client_new(struct loop *loop, unsigned keep)
{
	struct http_client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->loop = loop;
	client->kept_max = keep;
	list_init(&client->calls);
	list_init(&client->kept);
	return client;
}

void http_client_free(struct http_client **clientp)
{
	struct http_client *client = TAKE_PTR(*clientp);

	if (!client)
		return;
	list_for_each_safe (node, &client->calls)
		call_free(container_of(node, struct http_call, node));
	list_for_each_safe (kept, &client->kept)
		kept_close(container_of(kept, struct kept, node));
	free(client);
}

/* --- synchronous ----------------------------------------------------------------------------- */

struct fetch {
	struct http_answer answer;
	struct err *err;
	int result;
	bool is_done;
};

static void fetch_on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct fetch *f = arg;

	(void)call;
	f->is_done = true;
	f->result = result->error;
	if (result->error < 0) {
		err_set(f->err, result->error, "%s", result->problem);
		return;
	}
	f->answer.status = result->status;
	buf_add(&f->answer.body, result->body);
}

struct fetch_arg {
	struct fetch fetch;
	const struct http_request_spec *spec;
};

static void fetch_on_head(struct http_call *call, const struct http1_head *head, void *arg)
{
	const struct fetch_arg *f = arg;

	f->spec->on_head(call, head, f->spec->arg);
}

static void fetch_on_data(struct http_call *call, struct str data, void *arg)
{
	const struct fetch_arg *f = arg;

	f->spec->on_data(call, data, f->spec->arg);
}

int http_fetch(struct http_answer *out, const struct http_request_spec *spec, struct err *err)
{
	struct fetch_arg f = { .fetch = { .err = err }, .spec = spec };
	struct http_request_spec own = *spec;
	struct loop *loop = loop_new();
	struct http_client *client = loop ? http_client_new(loop, 0) : NULL;

	own.closes = true;
	own.arg = &f;
	own.on_done = fetch_on_done;
	own.on_head = spec->on_head ? fetch_on_head : NULL;
	own.on_data = spec->on_data ? fetch_on_data : NULL;
	if (!client || !http_call_start(client, &own)) {
		f.fetch.result = err_set(err, -ENOMEM, "out of memory, or a malformed request");
		f.fetch.is_done = true;
	}
	while (!f.fetch.is_done)
		loop_step(loop, -1);
	http_client_free(&client);
	loop_free(loop);
	if (f.fetch.result < 0)
		http_answer_fini(&f.fetch.answer);
	else
		*out = f.fetch.answer;
	return f.fetch.result;
}

void http_answer_fini(struct http_answer *a)
{
	buf_fini(&a->body);
}
