/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/http_server.h"
#include "lib/loop.h"
#include "tests/unit/unit.h"

/* The client, and a peer that says exactly what a test wants. */
struct world {
	struct loop *loop;
	struct http_client *client;
	struct net_addr addr;
	int listen_fd, peer_fd;
	char asked[65536];
	size_t asked_len;
	/* what the call reported */
	int done, heads, error;
	unsigned status;
	char body[65536], data[65536], problem[128], header[64];
	struct http_call *call;
	bool cancels_on_head;
};

static struct world *world_new(unsigned keep)
{
	struct world *w = calloc(1, sizeof(*w));
	struct err err;

	assert_non_null(w);
	w->loop = loop_new();
	w->client = http_client_new(w->loop, keep);
	net_parse(&w->addr, STR("127.0.0.1:0"), 0);
	w->listen_fd = net_listen(&w->addr, false, 8, &err);
	assert_true(w->listen_fd >= 0);
	w->addr.len = sizeof(w->addr.un);
	assert_int_equal(getsockname(w->listen_fd, &w->addr.sa, &w->addr.len), 0);
	w->peer_fd = -1;
	return w;
}

static void world_free(struct world *w)
{
	http_client_free(&w->client);
	loop_free(w->loop);
	close(w->listen_fd);
	if (w->peer_fd >= 0)
		close(w->peer_fd);
	free(w);
}

static void on_head(struct http_call *call, const struct http1_head *head, void *arg)
{
	struct world *w = arg;

	(void)call;
	(void)head;
	w->heads++;
	if (w->cancels_on_head)
		http_call_cancel(&w->call);
}

static void on_data(struct http_call *call, struct str data, void *arg)
{
	struct world *w = arg;

	(void)call;
	strncat(w->data, data.p, data.len);
}

static void copy(char *out, size_t size, struct str s)
{
	assert_true(s.len < size);
	memcpy(out, s.p, s.len);
	out[s.len] = '\0';
}

static void on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct world *w = arg;
	const struct http_field *f;

	(void)call;
	w->done++;
	w->error = result->error;
	w->status = result->status;
	copy(w->body, sizeof(w->body), result->body);
	copy(w->problem, sizeof(w->problem), str_from(result->problem));
	f = result->head ? http_find_name(result->head->fields, result->head->field_count,
					  STR("X-Index"))
			 : NULL;
	copy(w->header, sizeof(w->header), f ? f->value : STR(""));
	w->call = NULL;
}

static void start(struct world *w, struct http_request_spec spec)
{
	w->done = w->heads = 0;
	w->data[0] = '\0';
	spec.addr = &w->addr;
	if (!spec.target[0].len)
		spec.target[0] = STR("/x");
	spec.on_done = on_done;
	spec.arg = w;
	w->call = http_call_start(w->client, &spec);
	assert_non_null(w->call);
}

/* Accepts if need be, and waits for this in the request. */
static void expect(struct world *w, const char *text)
{
	uint64_t until_ms = clock_mono_ms() + 3000;

	while (w->peer_fd < 0 && clock_mono_ms() < until_ms) {
		struct net_addr peer;

		loop_step(w->loop, 5);
		w->peer_fd = net_accept(w->listen_fd, &peer);
	}
	if (w->peer_fd >= 0)
		net_set_nodelay(w->peer_fd);
	if (w->peer_fd < 0)
		fail_msg("no connection came; done %d, error %d (%s)", w->done, w->error,
			 w->problem);
	w->asked_len = 0;
	while (clock_mono_ms() < until_ms) {
		ssize_t n = recv(w->peer_fd, w->asked + w->asked_len,
				 sizeof(w->asked) - 1 - w->asked_len, 0);

		if (n > 0)
			w->asked_len += (size_t)n;
		w->asked[w->asked_len] = '\0';
		if (strstr(w->asked, text))
			return;
		loop_step(w->loop, 5);
	}
	fail_msg("wanted %s, got %s", text, w->asked);
}

static void say(struct world *w, const char *text)
{
	assert_int_equal(send(w->peer_fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void hang_up(struct world *w)
{
	close(w->peer_fd);
	w->peer_fd = -1;
}

static void run(struct world *w)
{
	uint64_t until_ms = clock_mono_ms() + 3000;

	while (!w->done && clock_mono_ms() < until_ms)
		loop_step(w->loop, 10);
	assert_int_equal(w->done, 1);
}

static void asks_and_reads_the_answer(void **state)
{
	struct world *w = world_new(0);

	(void)state;
	start(w, (struct http_request_spec) {
			 .method = METHOD_PUT,
			 .target = { STR("/base"), STR("/v1/apps"), STR("?index=1") },
			 .headers = STR("X-A: b\r\n"),
			 .body = STR("{\"a\":1}") });
	expect(w, "{\"a\":1}");
	assert_memory_equal(w->asked, "PUT /base/v1/apps?index=1 HTTP/1.1\r\nHost: 127.0.0.1:", 50);
	assert_non_null(strstr(w->asked, "X-A: b\r\n"));
	assert_non_null(strstr(w->asked, "Content-Length: 7\r\n"));
	say(w, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nX-Index: 42\r\n"
	       "Content-Length: 5\r\n\r\nhello");
	run(w);
	assert_int_equal(w->error, 0);
	assert_int_equal(w->status, 201);
	assert_string_equal(w->body, "hello");
	assert_string_equal(w->header, "42");
	world_free(w);
}

static void judges_answers_strictly(void **state)
{
	static const struct {
		const char *answer;
		enum http_method method;
		int error;
		const char *body, *why;
	} cases[] = {
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
		  "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
		  METHOD_GET, 0, "abcde", "chunked" },
		{ "HTTP/1.1 200 OK\r\n\r\nabc", METHOD_GET, 0, "abc", "until close" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", METHOD_HEAD, 0, "", "HEAD" },
		{ "HTTP/1.1 204 No Content\r\n\r\n", METHOD_GET, 0, "", "204" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", METHOD_GET, -ECONNRESET, "abc",
		  "cut off" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", METHOD_GET,
		  -ECONNRESET, "abc", "cut off between chunks" },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", METHOD_GET,
		  -EBADMSG, "", "chunk size" },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		  METHOD_GET, -EBADMSG, "", "both lengths" },
		{ "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", METHOD_GET, -EBADMSG, "",
		  "bare LF" },
		{ "SSH-2.0-OpenSSH_9.2\r\n\r\n", METHOD_GET, -EBADMSG, "", "another protocol" },
		{ "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		  METHOD_GET, -EBADMSG, "", "101 without asking" },
		{ "", METHOD_GET, -ECONNRESET, "", "nothing" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		/* The whole at once, then byte by byte. */
		for (int split = 0; split < 2; split++) {
			struct world *w = world_new(0);

			start(w, (struct http_request_spec) { .method = cases[i].method });
			expect(w, "\r\n\r\n");
			if (split) {
				for (const char *p = cases[i].answer; *p && !w->done; p++) {
					if (send(w->peer_fd, p, 1, MSG_NOSIGNAL) < 0)
						break;
					loop_step(w->loop, 1);
				}
			} else {
				say(w, cases[i].answer);
			}
			hang_up(w);
			run(w);
			if (w->error != cases[i].error || strcmp(w->body, cases[i].body) != 0)
				fail_msg("%s (split %d): error %d (%s), body %s", cases[i].why,
					 split, w->error, w->problem, w->body);
			world_free(w);
		}
	}
}

static void streams_200_and_collects_the_rest(void **state)
{
	struct world *w = world_new(0);

	(void)state;
	start(w, (struct http_request_spec) { .on_data = on_data, .on_head = on_head });
	expect(w, "\r\n\r\n");
	say(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	for (int i = 0; i < 20 && !w->data[0]; i++)
		loop_step(w->loop, 10);
	assert_string_equal(w->data, "abc");
	assert_int_equal(w->heads, 1);
	say(w, "3\r\ndef\r\n0\r\n\r\n");
	run(w);
	assert_string_equal(w->data, "abcdef");
	assert_string_equal(w->body, "");
	hang_up(w);

	start(w, (struct http_request_spec) { .on_data = on_data });
	expect(w, "\r\n\r\n");
	say(w, "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc");
	run(w);
	assert_string_equal(w->data, "");
	assert_string_equal(w->body, "abc");
	assert_int_equal(w->status, 404);
	world_free(w);
}

static void every_wait_has_a_deadline(void **state)
{
	static const struct {
		struct http_request_spec spec;
		const char *answer, *problem;
	} cases[] = {
		{ { .response_timeout_ms = 50 }, "HTTP/1.1 200", "no answer in time" },
		{ { .idle_timeout_ms = 50 },
		  "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na",
		  "the answer stopped coming" },
		{ { .total_timeout_ms = 50 }, "", "took longer than allowed" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct world *w = world_new(0);

		start(w, cases[i].spec);
		expect(w, "\r\n\r\n");
		say(w, cases[i].answer);
		run(w);
		assert_int_equal(w->error, -ETIMEDOUT);
		assert_string_equal(w->problem, cases[i].problem);
		world_free(w);
	}
}

static void refused_connection_is_reported_later(void **state)
{
	struct world *w = world_new(0);

	(void)state;
	close(w->listen_fd);
	w->listen_fd = -1;
	start(w, (struct http_request_spec) { 0 });
	assert_int_equal(w->done, 0);
	run(w);
	assert_int_equal(w->error, -ECONNREFUSED);
	net_parse(&w->addr, STR("unix:/nonexistent/socket"), 0);
	start(w, (struct http_request_spec) { 0 });
	assert_int_equal(w->done, 0);
	run(w);
	assert_int_equal(w->error, -ENOENT);
	world_free(w);
}

static void bounds_the_body(void **state)
{
	struct world *w = world_new(0);

	(void)state;
	start(w, (struct http_request_spec) { .max_body = 4 });
	expect(w, "\r\n\r\n");
	say(w, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde");
	run(w);
	assert_int_equal(w->error, -EMSGSIZE);
	world_free(w);
}

static void keeps_and_reuses_a_connection(void **state)
{
	struct world *w = world_new(2);

	(void)state;
	for (int i = 0; i < 3; i++) {
		start(w, (struct http_request_spec) { 0 });
		expect(w, "\r\n\r\n");
		say(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
		run(w);
		assert_int_equal(w->error, 0);
	}
	/* `expect` accepted once; a second connection would have had no reader. */
	say(w, "unasked for");
	for (int i = 0; i < 5; i++)
		loop_step(w->loop, 5);
	hang_up(w);
	start(w, (struct http_request_spec) { 0 }); /* on a new one: the old spoke out of turn */
	expect(w, "\r\n\r\n");
	say(w, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
	run(w);
	assert_int_equal(w->error, 0);
	world_free(w);
}

/* The server closes a kept connection just as the next request goes out. */
static void repeats_on_a_new_connection(void **state)
{
	static const struct {
		enum http_method method;
		bool is_repeatable;
		int error;
	} cases[] = { { METHOD_GET, false, 0 },
		      { METHOD_POST, false, -ECONNRESET },
		      { METHOD_POST, true, 0 } };

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct world *w = world_new(2);

		start(w, (struct http_request_spec) { 0 });
		expect(w, "\r\n\r\n");
		say(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
		run(w);
		start(w, (struct http_request_spec) { .method = cases[i].method,
						      .is_repeatable = cases[i].is_repeatable });
		expect(w, "\r\n\r\n");
		hang_up(w);
		if (cases[i].error == 0) {
			expect(w, "\r\n\r\n");
			say(w, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
		}
		run(w);
		assert_int_equal(w->error, cases[i].error);
		world_free(w);
	}
}

static void cancels_at_any_time(void **state)
{
	struct world *w = world_new(0);
	struct http_call *none = NULL;
	struct net_addr peer;

	(void)state;
	http_call_cancel(&none);
	start(w, (struct http_request_spec) { 0 }); /* while connecting */
	http_call_cancel(&w->call);
	assert_null(w->call);
	assert_true((w->peer_fd = net_accept(w->listen_fd, &peer)) >= 0);
	hang_up(w);
	start(w, (struct http_request_spec) { 0 }); /* while waiting */
	expect(w, "\r\n\r\n");
	http_call_cancel(&w->call);
	hang_up(w);
	w->cancels_on_head = true; /* from within a callback */
	start(w, (struct http_request_spec) { .on_head = on_head, .on_data = on_data });
	expect(w, "\r\n\r\n");
	say(w, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
	for (int i = 0; i < 20 && !w->heads; i++)
		loop_step(w->loop, 5);
	assert_int_equal(w->heads, 1);
	assert_string_equal(w->data, "");
	start(w, (struct http_request_spec) { 0 }); /* with the client */
	world_free(w);
}

static void sends_nothing_that_could_split_a_request(void **state)
{
	static const char *const targets[] = { "/a b", "/a\r\nX: y", "/a\n", "" };
	struct world *w = world_new(0);

	(void)state;
	for (size_t i = 0; i < CASES(targets); i++) {
		struct http_request_spec spec = { .addr = &w->addr,
						  .target = { str_from(targets[i]) },
						  .on_done = on_done,
						  .arg = w };

		assert_null(http_call_start(w->client, &spec));
	}
	world_free(w);
}

static void parses_base_urls(void **state)
{
	static const struct {
		const char *url, *addr, *host, *path;
	} cases[] = {
		{ "http://192.0.2.1:8761", "192.0.2.1:8761", "192.0.2.1:8761", "" },
		{ "http://192.0.2.1/", "192.0.2.1:80", "192.0.2.1", "" },
		{ "HTTP://[2001:db8::1]:80/base/", "[2001:db8::1]:80", "[2001:db8::1]:80",
		  "/base" },
		{ "unix:/run/x.sock", "unix:/run/x.sock", "localhost", "" },
		{ "https://192.0.2.1", NULL, NULL, NULL },
		{ "http://name:80", NULL, NULL, NULL },
		{ "http://192.0.2.1:99999", NULL, NULL, NULL },
		{ "http://user@192.0.2.1", NULL, NULL, NULL },
		{ "http://192.0.2.1/a?b", NULL, NULL, NULL },
		{ "http://", NULL, NULL, NULL },
		{ "192.0.2.1:80", NULL, NULL, NULL },
		{ "unix:", NULL, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct http_base base;
		struct err err = { "" };
		char text[NET_ADDR_LEN];
		int r = http_base_parse(&base, str_from(cases[i].url), 0, &err);

		if (!cases[i].addr) {
			assert_true(r < 0);
			assert_true(err.text[0] != '\0');
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(net_format(text, &base.addr), cases[i].addr);
		assert_string_equal(base.host, cases[i].host);
		assert_string_equal(base.path, cases[i].path);
	}
}

static void knows_https_where_it_is_spoken(void **state)
{
	static const struct {
		const char *url, *addr, *name;
	} cases[] = {
		{ "https://192.0.2.1", "192.0.2.1:443", "192.0.2.1" },
		{ "HTTPS://[2001:db8::1]:8761/x", "[2001:db8::1]:8761", "2001:db8::1" },
		{ "https://localhost:1", NULL, "localhost" },
	};

	(void)state;
	for (size_t i = 0; i < CASES(cases); i++) {
		struct http_base base;
		struct err err = { "" };
		char text[NET_ADDR_LEN];

		assert_int_equal(http_base_parse(&base, str_from(cases[i].url),
						 HTTP_BASE_TLS | HTTP_BASE_RESOLVE, &err),
				 0);
		assert_true(base.is_tls);
		assert_true(str_eqz(http_base_name(&base), cases[i].name));
		if (cases[i].addr)
			assert_string_equal(net_format(text, &base.addr), cases[i].addr);
	}
}

static void encodes_path_segments(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 0);
	http_encode(&b, str_of("h:80/a b%~\0", 11));
	assert_true(str_eq(buf_str(&b), STR("h%3A80%2Fa%20b%25~%00")));
	buf_fini(&b);
}

static void handle(struct http_request *req, void *arg)
{
	(void)arg;
	http_respond_json(req, 200, req->body);
}

static void *serve(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void fetches_synchronously(void **state)
{
	struct loop *loop = loop_new();
	struct http_server_config config = { .on_request = handle };
	struct http_server *server = http_server_new(loop, &config);
	struct http_answer answer = { 0 };
	struct net_addr addr;
	struct err err = { "" };
	pthread_t thread;
	struct http_request_spec spec = {
		.addr = &addr, .method = METHOD_POST, .target = { STR("/") }, .body = STR("[1]")
	};

	(void)state;
	net_parse(&addr, STR("127.0.0.1:0"), 0);
	assert_int_equal(http_server_listen(server, &addr, 0, &err), 0);
	http_server_address(server, 0, &addr);
	assert_int_equal(pthread_create(&thread, NULL, serve, loop), 0);
	assert_int_equal(http_fetch(&answer, &spec, &err), 0);
	assert_int_equal(answer.status, 200);
	assert_memory_equal(buf_data(&answer.body), "[1]", 3);
	http_answer_fini(&answer);
	loop_stop(loop);
	pthread_join(thread, NULL);
	http_server_free(&server);
	loop_free(loop);
	assert_int_equal(http_fetch(&answer, &spec, &err), -ECONNREFUSED);
	assert_string_equal(err.text, "connection refused");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(asks_and_reads_the_answer),
		cmocka_unit_test(judges_answers_strictly),
		cmocka_unit_test(streams_200_and_collects_the_rest),
		cmocka_unit_test(every_wait_has_a_deadline),
		cmocka_unit_test(refused_connection_is_reported_later),
		cmocka_unit_test(bounds_the_body),
		cmocka_unit_test(keeps_and_reuses_a_connection),
		cmocka_unit_test(repeats_on_a_new_connection),
		cmocka_unit_test(cancels_at_any_time),
		cmocka_unit_test(sends_nothing_that_could_split_a_request),
		cmocka_unit_test(parses_base_urls),
		cmocka_unit_test(knows_https_where_it_is_spoken),
		cmocka_unit_test(encodes_path_segments),
		cmocka_unit_test(fetches_synchronously),
	};

	return cmocka_run_group_tests_name("http_client", tests, NULL, NULL);
}
