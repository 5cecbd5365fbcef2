/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http_server.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/loop.h"
#include "tests/unit/unit.h"

/* A server on a free port, a raw client socket, and both on this thread. */
struct world {
	struct loop *loop;
	struct http_server *server;
	struct net_addr addr;
	struct http_request *waiting;
	struct http_shared *shared; /* for /shared, made by its first request */
	int gone, stopped;
	int fd;
	int detached;
	char got[1 << 20];
	size_t got_len;
	bool is_closed;
};

static void on_gone(struct http_request *req)
{
	struct world *w = req->user;

	w->gone++;
	w->waiting = NULL;
}

static void handle_echo(struct http_request *req, void *arg)
{
	struct buf *b = http_scratch(req);

	(void)arg;
	buf_printf(b, "%.*s %.*s [%.*s] %.*s", STR_ARG(req->method), STR_ARG(req->path),
		   STR_ARG(req->query), STR_ARG(req->body));
	http_respond(req, 200, "text/plain", buf_str(b));
}

static void handle_item(struct http_request *req, void *arg)
{
	struct str q = STR("-");
	struct buf *b = http_scratch(req);

	(void)arg;
	if (http_query(req, "q", &q) == -EINVAL) {
		http_problem_field(req, 400, "q", "malformed");
		return;
	}
	buf_printf(b, "<%.*s|%.*s|%.*s>", STR_ARG(req->params[0]), STR_ARG(req->params[1]),
		   STR_ARG(q));
	http_add_header(req, "X-Index", STR("7"));
	http_add_header(req, "X-Evil", STR("a\r\nb: c"));
	http_respond(req, 200, "text/plain", buf_str(b));
}

static void handle_wait(struct http_request *req, void *arg)
{
	struct world *w = arg;

	req->user = w;
	req->on_gone = on_gone;
	w->waiting = req;
}

static void handle_stream(struct http_request *req, void *arg)
{
	handle_wait(req, arg);
	http_stream_start(req, 200, "text/event-stream");
}

/* 300 KB that all who ask share, or 8 MB: more than a socket takes of a reader that does not read.
 */
static void handle_shared(struct http_request *req, void *arg)
{
	struct world *w = arg;
	struct buf *b = http_scratch(req);

	for (unsigned i = 0; i < (req->query.len ? 1000000 : 300000 / 8); i++)
		buf_printf(b, "%07u\n", i);
	if (!w->shared)
		w->shared = http_shared_new(req, buf_str(b));
	if (w->shared)
		http_respond_shared(req, 200, "text/plain", w->shared);
	else
		http_problem(req, 503, "too much");
}

/* The same as the first piece of a stream. */
static void handle_shared_stream(struct http_request *req, void *arg)
{
	struct world *w = arg;

	handle_wait(req, arg);
	http_stream_start(req, 200, "text/plain");
	assert_true(http_stream_write_shared(req, w->shared));
	assert_true(http_stream_write(req, STR("afterwards")));
}

static void handle_large(struct http_request *req, void *arg)
{
	struct buf *b = http_scratch(req);

	(void)arg;
	for (unsigned i = 0; i < 300000; i++)
		buf_putc(b, 'x');
	http_respond(req, 200, "text/plain", buf_str(b));
}

static void handle_local(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond(req, 204, NULL, str_of("", 0));
}

static void handle_detach(struct http_request *req, void *arg)
{
	((struct world *)arg)->detached = http_detach(req);
}

static const struct http_route routes[] = {
	{ METHOD_POST, "/echo", handle_echo, false },
	{ METHOD_GET, "/echo", handle_echo, false },
	{ METHOD_PUT, "/apps/{app}/items/{id}", handle_item, false },
	{ METHOD_GET, "/wait", handle_wait, false },
	{ METHOD_GET, "/detach", handle_detach, false },
	{ METHOD_GET, "/stream", handle_stream, false },
	{ METHOD_GET, "/shared", handle_shared, false },
	{ METHOD_GET, "/shared-stream", handle_shared_stream, false },
	{ METHOD_GET, "/large", handle_large, false },
	{ METHOD_POST, "/local", handle_local, true },
	{ METHOD_GET, "/files/{name*}", handle_item, false },
};

static void on_request(struct http_request *req, void *arg)
{
	http_route(req, routes, CASES(routes), arg);
}

static void step(struct world *w, int ms)
{
	loop_step(w->loop, ms);
}

static void world_connect(struct world *w)
{
	w->fd = net_connect(&w->addr);
	assert_true(w->fd >= 0);
	w->got_len = 0;
	w->is_closed = false;
	/* The connection must be established before anything can be sent. */
	for (int i = 0; i < 100 && send(w->fd, "", 0, MSG_NOSIGNAL) < 0; i++)
		step(w, 10);
}

static struct world *world_new(struct http_server_config config)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err = { 0 };
	struct net_addr any;

	assert_non_null(w);
	w->loop = loop_new();
	config.on_request = on_request;
	config.arg = w;
	w->server = http_server_new(w->loop, &config);
	net_parse(&any, STR("127.0.0.1:0"), 0);
	assert_int_equal(http_server_listen(w->server, &any, 0, &err), 0);
	assert_int_equal(http_server_address(w->server, 0, &w->addr), 0);
	world_connect(w);
	return w;
}

static void world_free(struct world *w)
{
	if (w->fd >= 0)
		close(w->fd);
	http_shared_put(&w->shared);
	http_server_free(&w->server);
	loop_free(w->loop);
	free(w);
}

static void say(struct world *w, const char *text)
{
	size_t len = strlen(text), sent = 0;

	while (sent < len) {
		ssize_t n = send(w->fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		else
			step(w, 10);
	}
}

/* Runs the server until the text came, the peer closed, or time is up. Returns whether it came. */
static bool hear(struct world *w, const char *text)
{
	uint64_t until_ms = clock_mono_ms() + 3000;

	for (;;) {
		ssize_t n = recv(w->fd, w->got + w->got_len, sizeof(w->got) - 1 - w->got_len, 0);

		if (n > 0)
			w->got_len += (size_t)n;
		if (n == 0 || (n < 0 && errno != EAGAIN))
			w->is_closed = true;
		w->got[w->got_len] = '\0';
		if (text && strstr(w->got, text))
			return true;
		if (w->is_closed || clock_mono_ms() > until_ms)
			return false;
		if (n < 0)
			step(w, 10);
	}
}

static unsigned count(const struct world *w, const char *text)
{
	unsigned n = 0;

	for (const char *p = w->got; (p = strstr(p, text)) != NULL; p++)
		n++;
	return n;
}

static void answers_and_keeps_the_connection(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "POST /echo?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
	assert_true(hear(w, "POST /echo [a=1] hello"));
	assert_non_null(strstr(w->got, "HTTP/1.1 200 OK\r\nDate: "));
	assert_non_null(strstr(w->got, "Content-Length: 22\r\n"));
	w->got_len = 0;
	say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(w, "GET /echo [] "));
	assert_int_equal(http_server_stats(w->server)->accepted, 1);
	world_free(w);
}

static void split_at_any_byte_gives_the_same_answer(void **state)
{
	static const char *const requests[] = {
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world",
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n",
	};
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	for (size_t r = 0; r < CASES(requests); r++) {
		size_t len = strlen(requests[r]);

		for (size_t cut = 1; cut < len; cut++) {
			char part[512];

			memcpy(part, requests[r], cut);
			part[cut] = '\0';
			w->got_len = 0;
			say(w, part);
			for (int i = 0; i < 3; i++)
				step(w, 0);
			/* The rest together with the next request. */
			say(w, requests[r] + cut);
			say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
			assert_true(hear(w, "GET /echo [] "));
			assert_int_equal(count(w, "POST /echo [] hello world"), 1);
		}
	}
	assert_int_equal(http_server_stats(w->server)->accepted, 1);
	world_free(w);
}

static void answers_pipelined_requests_in_order(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });
	char text[64];
	const char *at;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "GET /echo?n=%d. HTTP/1.1\r\nHost: x\r\n\r\n", i);
		say(w, text);
	}
	assert_true(hear(w, "[n=999.]"));
	at = w->got;
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "[n=%d.]", i);
		at = strstr(at, text);
		assert_non_null(at);
	}
	assert_int_equal(count(w, "HTTP/1.1 200 OK"), 1000);
	world_free(w);
}

/* A peer that sends and hangs up its sending side still gets every answer. */
static void answers_after_half_close(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	for (int i = 0; i < 50; i++)
		say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
	shutdown(w->fd, SHUT_WR);
	assert_false(hear(w, NULL));
	assert_true(w->is_closed);
	assert_int_equal(count(w, "GET /echo [] "), 50);
	assert_int_equal(http_server_stats(w->server)->connections, 0);
	world_free(w);
}

static void refuses_what_is_malformed(void **state)
{
	static const struct {
		const char *request, *want, *why;
	} cases[] = {
		{ "GET /echo HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "no Host" },
		{ "GET /echo HTTP/1.1\nHost: x\n\n", "HTTP/1.1 400 ", "bare LF" },
		{ "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
		  "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400 ", "both lengths" },
		{ "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		  "HTTP/1.1 400 ", "chunk size" },
		{ "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n",
		  "HTTP/1.1 413 ", "announced body too large" },
		{ "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "80\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n0\r\n\r\n",
		  "HTTP/1.1 413 ", "chunked body too large" },
		{ "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 ", "TLS" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct world *w = world_new((struct http_server_config) { .max_body = 100 });

		say(w, cases[i].request);
		/* Behind a refused request nothing is looked at. */
		say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
		hear(w, "\"detail\"");
		shutdown(w->fd, SHUT_WR);
		hear(w, NULL);
		if (strncmp(w->got, cases[i].want, strlen(cases[i].want)) != 0 || !w->is_closed ||
		    strstr(w->got, "GET /echo") || !strstr(w->got, "Connection: close") ||
		    !strstr(w->got, "application/problem+json"))
			fail_msg("%s: got %s", cases[i].why, w->got);
		world_free(w);
	}
}

static void refuses_a_head_without_end(void **state)
{
	struct world *w = world_new((struct http_server_config) { .max_head = 2048 });

	(void)state;
	say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; i < 200; i++)
		say(w, "X-Filler: 0123456789\r\n");
	assert_true(hear(w, "HTTP/1.1 431 "));
	world_free(w);
}

static void routes_by_method_and_path(void **state)
{
	static const struct {
		const char *line, *want, *why;
	} cases[] = {
		{ "PUT /apps/a/items/b", "<a|b|->", "parameters" },
		{ "PUT /apps/a%20x/items/h%3A80?q=1%2B1+2", "<a x|h:80|1+1 2>", "decoded" },
		{ "PUT /apps/a%2Fb/items/c", "<a/b|c|->", "an encoded slash separates nothing" },
		{ "PUT /apps/a%0/items/c", " 400 ", "half an encoding" },
		{ "PUT /apps/a%00/items/c", " 400 ", "a NUL" },
		{ "PUT /apps/a/items/c?q=%zz", "\"field\":\"q\"", "the field is named" },
		{ "PUT /apps//items/c", " 404 ", "an empty parameter" },
		{ "PUT /apps/a/items/c/", " 404 ", "one segment more" },
		{ "PUT /apps/a/items", " 404 ", "one segment less" },
		{ "DELETE /echo", "Allow: POST, GET, HEAD\r\n", "405 says what is allowed" },
		{ "DELETE /echo", " 405 ", "other method" },
		{ "OPTIONS /echo", "204 No Content", "asked what is allowed" },
		{ "GET /files/a/b", "<a/b||->", "the rest of the path" },
		{ "GET /files/", "<||->", "... may be empty" },
		{ "POST /local", " 403 ", "changes only by the unix socket" },
		{ "PUT http://x/apps/a/items/b", "<a|b|->", "absolute form" },
		{ "PUT /apps/a/items/b", "X-Index: 7\r\n", "added header" },
	};
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		char text[256];

		snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
			 cases[i].line);
		w->got_len = 0;
		say(w, text);
		if (!hear(w, cases[i].want))
			fail_msg("%s (%s): got %s", cases[i].why, cases[i].line, w->got);
		assert_null(strstr(w->got, "X-Evil"));
		if (w->is_closed)
			world_connect(w);
	}
	world_free(w);
}

static void head_gets_the_length_alone(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /echo?next HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(w, "[next]"));
	assert_non_null(strstr(w->got, "Content-Length: 14\r\n\r\nHTTP/1.1 200"));
	world_free(w);
}

static void answers_later(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\nGET /echo?next HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < 20 && !w->waiting; i++)
		step(w, 10);
	assert_non_null(w->waiting);
	assert_int_equal(http_server_stats(w->server)->waiting, 1);
	http_respond_json(w->waiting, 200, STR("{}"));
	assert_true(hear(w, "[next]")); /* the pipelined one was not forgotten */
	assert_non_null(strstr(w->got, "{}"));
	assert_int_equal(w->gone, 0);
	assert_int_equal(http_server_stats(w->server)->waiting, 0);
	world_free(w);
}

static void tells_when_the_peer_is_gone(void **state)
{
	static const char *const requests[] = { "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n",
						"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" };

	(void)state;
	for (size_t i = 0; i < CASES(requests); i++) {
		struct world *w = world_new((struct http_server_config) { 0 });

		say(w, requests[i]);
		for (int n = 0; n < 20 && !w->waiting; n++)
			step(w, 10);
		assert_non_null(w->waiting);
		close(w->fd);
		w->fd = -1;
		for (int n = 0; n < 20 && !w->gone; n++)
			step(w, 10);
		assert_int_equal(w->gone, 1);
		assert_int_equal(http_server_stats(w->server)->connections, 0);
		world_free(w);
		w = NULL;
	}
}

static void streams_in_chunks(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int n = 0; n < 20 && !w->waiting; n++)
		step(w, 10);
	assert_true(http_stream_write(w->waiting, STR("data: 1\n\n")));
	assert_true(hear(w, "9\r\ndata: 1\n\n\r\n"));
	assert_non_null(strstr(w->got, "Transfer-Encoding: chunked\r\n"));
	http_stream_end(w->waiting);
	say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(w, "\r\n0\r\n\r\nHTTP/1.1 200 OK"));
	assert_int_equal(w->gone, 0);
	world_free(w);
}

static void shares_a_body_among_answers(void **state)
{
	struct world *w = world_new((struct http_server_config) { .max_queued = 400000 });
	const char *at;

	/* Two in a pipeline, an own answer between and behind; only one copy fits the bound. */
	say(w, "GET /shared HTTP/1.1\r\nHost: a\r\n\r\nGET /echo?1 HTTP/1.1\r\nHost: a\r\n\r\n"
	       "HEAD /shared HTTP/1.1\r\nHost: a\r\n\r\nGET /shared HTTP/1.1\r\nHost: a\r\n\r\n"
	       "GET /echo?2 HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_true(hear(w, "GET /echo [2]"));
	at = strstr(w->got, "Content-Length: 300000\r\n");
	assert_non_null(at);
	at = strstr(at, "\r\n\r\n0000000\n0000001\n");
	assert_non_null(at);
	at = strstr(at, "\n0037499\nHTTP/1.1 200");
	assert_non_null(at);
	at = strstr(at, "GET /echo [1] HTTP/1.1 200");
	assert_non_null(at);
	at = strstr(at, "\r\n\r\nHTTP/1.1 200"); /* HEAD */
	assert_non_null(at);
	at = strstr(at, "\r\n\r\n0000000\n");
	assert_non_null(at);
	assert_non_null(strstr(at, "\n0037499\nHTTP/1.1 200"));
	w->got_len = 0;
	say(w, "GET /shared-stream HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_true(hear(w, "\r\na\r\nafterwards\r\n"));
	assert_non_null(strstr(w->got, "\r\n\r\n493e0\r\n0000000\n"));
	assert_non_null(strstr(w->got, "\n0037499\n\r\na\r\nafterwards"));
	world_free(w);
}

static int ask_and_not_read(struct world *w)
{
	static const char ask[] = "GET /shared?large HTTP/1.1\r\nHost: a\r\n\r\n";
	int fd = net_connect(&w->addr), small = 2048;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	step(w, 10);
	assert_int_equal(send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL), sizeof(ask) - 1);
	for (int i = 0; i < 3; i++)
		step(w, 10);
	return fd;
}

/* Readers that do not read hold one copy together, and others are told when too much waits. */
static void bounds_what_waits_for_slow_readers(void **state)
{
	struct world *w = world_new((struct http_server_config) { .max_queued = 16200000 });
	int fds[21];

	for (int i = 0; i < 20; i++)
		fds[i] = ask_and_not_read(w);
	/* A second copy of 8 MB fits, for as long as a reader needs it. */
	http_shared_put(&w->shared);
	fds[20] = ask_and_not_read(w);
	assert_non_null(w->shared);
	http_shared_put(&w->shared);
	for (int is_over = 1; is_over >= 0; is_over--) {
		w->got_len = 0;
		say(w, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
		assert_true(hear(w, is_over ? "HTTP/1.1 503" : "HTTP/1.1 200"));
		while (!is_over && w->got_len < 300000)
			hear(w, NULL);
		/* What is small is always answered. */
		w->got_len = 0;
		say(w, "GET /echo?small HTTP/1.1\r\nHost: a\r\n\r\n");
		assert_true(hear(w, "[small]"));
		if (is_over)
			close(fds[20]);
		step(w, 10);
	}
	for (int i = 0; i < 20; i++)
		close(fds[i]);
	world_free(w);
}

/* A byte now and then is progress, but the answer is not kept for it for ever. */
static void closes_on_a_reader_that_trickles(void **state)
{
	struct world *w = world_new((struct http_server_config) { .write_timeout_ms = 300 });
	uint64_t until_ms = clock_mono_ms() + 3000;
	int small = 2048;
	char byte;

	setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (int i = 0; i < 20; i++)
		say(w, "GET /shared HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_true(hear(w, "HTTP/1.1 200"));
	while (http_server_stats(w->server)->connections && clock_mono_ms() < until_ms) {
		step(w, 20);
		if (recv(w->fd, &byte, 1, 0) < 0 && errno != EAGAIN)
			break;
	}
	assert_int_equal(http_server_stats(w->server)->connections, 0);
	assert_int_equal(http_server_stats(w->server)->timeouts, 1);
	world_free(w);
}

/* Small pieces to a stream that nobody reads: it ends before `most` bytes wait. */
static void check_cut_off(struct http_server_config config, size_t most)
{
	struct world *w = world_new(config);
	static char block[8192];
	int written = 0;

	memset(block, 'x', sizeof(block));
	say(w, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int n = 0; n < 20 && !w->waiting; n++)
		step(w, 10);
	/* Nobody reads: the kernel's buffers fill, then ours. */
	while (w->waiting && written < 10000 &&
	       http_stream_write(w->waiting, str_of(block, sizeof(block)))) {
		assert_true(http_stream_queued(w->waiting) <= most);
		written++;
		step(w, 0);
	}
	for (int n = 0; n < 20 && !w->gone; n++)
		step(w, 10);
	assert_int_equal(w->gone, 1);
	assert_true(written < 10000);
	assert_int_equal(http_server_stats(w->server)->slow_readers, 1);
	world_free(w);
}

static void cuts_off_a_slow_reader(void **state)
{
	(void)state;
	check_cut_off((struct http_server_config) { .max_stream_queue = 65536 }, 2UL * 65536);
	/* Far from its own bound, but too much waits for all together. */
	check_cut_off((struct http_server_config) { .max_queued = 100000 }, 300000);
}

static void deadlines_end_what_does_not_move(void **state)
{
	static const struct {
		const char *text;
		const char *want;
		const char *why;
	} cases[] = {
		{ "", "", "idle" },
		{ "GET /ec", "HTTP/1.1 408 ", "head" },
		{ "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe", "HTTP/1.1 408 ",
		  "body" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct world *w = world_new((struct http_server_config) {
			.idle_timeout_ms = 50, .head_timeout_ms = 50, .body_timeout_ms = 50 });

		say(w, cases[i].text);
		hear(w, NULL);
		if (!w->is_closed || strncmp(w->got, cases[i].want, strlen(cases[i].want)) != 0)
			fail_msg("%s: got %s", cases[i].why, w->got);
		world_free(w);
	}
}

/* A client that trickles complete requests, each split, is not slow. */
static void each_request_has_its_own_deadline(void **state)
{
	struct world *w = world_new((struct http_server_config) { .head_timeout_ms = 150 });
	uint64_t until_ms = clock_mono_ms() + 400;

	(void)state;
	say(w, "GET /echo HT");
	while (clock_mono_ms() < until_ms) {
		w->got_len = 0;
		say(w, "TP/1.1\r\nHost: x\r\n\r\nGET /echo HT");
		assert_true(hear(w, "GET /echo [] "));
		step(w, 20);
		step(w, 20);
	}
	world_free(w);
}

static void continues_a_body_that_waits_to_be_asked(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: "
	       "100-continue\r\n\r\n");
	assert_true(hear(w, "HTTP/1.1 100 Continue\r\n\r\n"));
	say(w, "hello");
	assert_true(hear(w, "] hello"));
	world_free(w);
}

static void bounds_the_connections(void **state)
{
	struct world *w = world_new((struct http_server_config) { .max_connections = 1 });
	int first = w->fd;
	char c;

	(void)state;
	say(w, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int n = 0; n < 20 && !w->waiting; n++)
		step(w, 10);
	world_connect(w); /* all busy: refused */
	assert_true(hear(w, "HTTP/1.1 503 "));
	close(w->fd);
	http_respond_json(w->waiting, 200, STR("{}"));
	for (int n = 0; n < 5; n++)
		step(w, 10);
	world_connect(w); /* the idle one makes room */
	say(w, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(w, "GET /echo"));
	while (recv(first, &c, 1, 0) > 0) {
	}
	assert_int_equal(recv(first, &c, 1, 0), 0);
	close(first);
	world_free(w);
}

static void on_stopped(void *arg)
{
	((struct world *)arg)->stopped++;
}

static void stops_gracefully(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });
	int waiting_fd = w->fd, late;

	(void)state;
	say(w, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int n = 0; n < 20 && !w->waiting; n++)
		step(w, 10);
	world_connect(w); /* an idle one beside it */
	step(w, 10);
	http_server_stop(w->server, on_stopped, w);
	assert_false(hear(w, NULL));
	assert_true(w->is_closed);
	close(w->fd);
	late = net_connect(&w->addr);
	assert_true(late < 0 || recv(late, w->got, 1, 0) <= 0);
	if (late >= 0)
		close(late);
	assert_int_equal(w->stopped, 0);
	w->fd = waiting_fd;
	w->got_len = 0;
	w->is_closed = false;
	http_respond_json(w->waiting, 200, STR("{}"));
	assert_true(hear(w, "Connection: close"));
	close(w->fd);
	w->fd = -1;
	for (int n = 0; n < 20 && !w->stopped; n++)
		step(w, 10);
	assert_int_equal(w->stopped, 1);
	world_free(w);
}

static void stops_with_a_stream_that_ended_just_now(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int n = 0; n < 20 && !w->waiting; n++)
		step(w, 10);
	http_stream_end(w->waiting);
	http_server_stop(w->server, on_stopped, w);
	for (int n = 0; n < 20 && !w->stopped; n++)
		step(w, 10);
	assert_int_equal(w->stopped, 1);
	hear(w, NULL);
	assert_non_null(strstr(w->got, "\r\n0\r\n\r\n"));
	assert_int_equal(w->gone, 0);
	world_free(w);
}

static void unix_socket_is_local_and_private(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });
	char path[] = "/tmp/gatehouse-test-XXXXXX", text[64];
	struct err err = { 0 };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(path));
	snprintf(text, sizeof(text), "unix:%s/s", path);
	close(w->fd);
	assert_int_equal(net_parse(&w->addr, str_from(text), 0), 0);
	assert_int_equal(http_server_listen(w->server, &w->addr, 0600, &err), 0);
	assert_int_equal(stat(w->addr.un.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	world_connect(w);
	say(w, "POST /local HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
	assert_true(hear(w, "204 No Content\r\n"));
	assert_null(strstr(w->got, "Content-Length"));
	world_free(w);
	assert_int_equal(stat(text + 5, &st), -1); /* its file goes with it */
	rmdir(path);
}

/* A wrong path in a configuration must not cost anybody a file. */
static void file_that_is_no_socket_is_left_alone(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });
	char path[] = "/tmp/gatehouse-test-XXXXXX", text[64];
	struct err err = { 0 };
	struct net_addr addr;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(path));
	snprintf(text, sizeof(text), "unix:%s/s", path);
	assert_int_equal(net_parse(&addr, str_from(text), 0), 0);
	assert_int_equal(mknod(text + 5, S_IFREG | 0600, 0), 0);
	assert_int_equal(http_server_listen(w->server, &addr, 0600, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "not a socket"));
	assert_int_equal(stat(text + 5, &st), 0);

	/* Neither is one that took the socket's place meanwhile. */
	unlink(text + 5);
	assert_int_equal(http_server_listen(w->server, &addr, 0600, &err), 0);
	unlink(text + 5);
	assert_int_equal(mknod(text + 5, S_IFREG | 0600, 0), 0);
	world_free(w);
	assert_int_equal(stat(text + 5, &st), 0);
	unlink(text + 5);
	rmdir(path);
}

static void http10_is_closed_unless_asked(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });

	(void)state;
	say(w, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	assert_true(hear(w, "GET /echo"));
	assert_non_null(strstr(w->got, "Connection: keep-alive\r\n"));
	w->got_len = 0;
	say(w, "GET /echo HTTP/1.0\r\n\r\n");
	assert_true(hear(w, "GET /echo"));
	assert_non_null(strstr(w->got, "Connection: close\r\n"));
	assert_false(hear(w, NULL));
	assert_true(w->is_closed);
	world_free(w);
}

/* The kernel's own patience is a quarter of an hour. */
static void gives_up_on_a_peer_that_vanished(void **state)
{
	struct world *w = world_new((struct http_server_config) { 0 });
	unsigned ms = 0;
	socklen_t len = sizeof(ms);

	(void)state;
	say(w, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < 300 && w->detached == 0; i++)
		step(w, 10);
	assert_true(w->detached > 0);
	assert_int_equal(getsockopt(w->detached, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &len), 0);
	assert_int_equal(ms, 30000);
	close(w->detached);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_keeps_the_connection),
		cmocka_unit_test(split_at_any_byte_gives_the_same_answer),
		cmocka_unit_test(answers_pipelined_requests_in_order),
		cmocka_unit_test(answers_after_half_close),
		cmocka_unit_test(refuses_what_is_malformed),
		cmocka_unit_test(refuses_a_head_without_end),
		cmocka_unit_test(routes_by_method_and_path),
		cmocka_unit_test(head_gets_the_length_alone),
		cmocka_unit_test(answers_later),
		cmocka_unit_test(tells_when_the_peer_is_gone),
		cmocka_unit_test(streams_in_chunks),
		cmocka_unit_test(shares_a_body_among_answers),
		cmocka_unit_test(bounds_what_waits_for_slow_readers),
		cmocka_unit_test(closes_on_a_reader_that_trickles),
		cmocka_unit_test(cuts_off_a_slow_reader),
		cmocka_unit_test(deadlines_end_what_does_not_move),
		cmocka_unit_test(each_request_has_its_own_deadline),
		cmocka_unit_test(continues_a_body_that_waits_to_be_asked),
		cmocka_unit_test(bounds_the_connections),
		cmocka_unit_test(stops_gracefully),
		cmocka_unit_test(stops_with_a_stream_that_ended_just_now),
		cmocka_unit_test(unix_socket_is_local_and_private),
		cmocka_unit_test(file_that_is_no_socket_is_left_alone),
		cmocka_unit_test(http10_is_closed_unless_asked),
		cmocka_unit_test(gives_up_on_a_peer_that_vanished),
	};

	return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
