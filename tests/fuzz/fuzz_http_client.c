/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemons' own HTTP client makes of an answer, streamed or not, in pieces (first byte): it
 * reports exactly once, an answer or why there is none.
 */
#include "lib/http_client.h"

#include <errno.h>

#include "lib/loop.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"

#define ROUNDS_MAX 3000

struct call {
	unsigned done, heads;
	int error;
	unsigned status;
	size_t bytes;
};

static void on_head(struct http_call *call, const struct http1_head *head, void *arg)
{
	struct call *c = arg;

	(void)call;
	c->heads++;
	FUZZ_CHECK(head->status >= 200);
}

static void on_data(struct http_call *call, struct str data, void *arg)
{
	struct call *c = arg;

	(void)call;
	FUZZ_CHECK(c->heads == 1 && data.len);
	c->bytes += data.len;
}

static void on_done(struct http_call *call, const struct http_result *result, void *arg)
{
	struct call *c = arg;

	(void)call;
	c->done++;
	c->error = result->error;
	c->status = result->status;
	FUZZ_CHECK(result->error == 0 || (result->error < 0 && result->problem));
	FUZZ_CHECK(result->error || (result->status >= 200 && result->head));
	FUZZ_CHECK(result->body.len <= 512);
}

/* The whole answer, then FIN. */
static void answer(int fd, struct str bytes, size_t piece, struct loop *loop, const struct call *c)
{
	size_t at = 0;
	unsigned rounds = 0;

	while (at < bytes.len && !c->done) {
		FUZZ_CHECK(++rounds < ROUNDS_MAX);
		loop_step(loop, 0);
		if (!peer_send(fd, bytes, &at, piece))
			break;
	}
	peer_end(fd);
	while (!c->done) {
		FUZZ_CHECK(++rounds < ROUNDS_MAX);
		loop_step(loop, 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct loop *loop = loop_new();
	struct http_client *client = http_client_new(loop, 1);
	struct call c = { .done = 0 };
	struct net_addr addr;
	int listen_fd = peer_listen(&addr), fd;
	struct http_request_spec spec = {
		.addr = &addr,
		.method = told & 1 ? METHOD_HEAD : METHOD_GET,
		.host = STR("a"),
		.target = { STR("/") },
		.max_body = 512,
		.closes = true,
		.on_head = on_head,
		.on_data = told & 2 ? on_data : NULL,
		.on_done = on_done,
		.arg = &c,
	};

	if (!client || !http_call_start(client, &spec))
		abort();
	for (unsigned i = 0; (fd = peer_accept(listen_fd)) < 0; i++) {
		FUZZ_CHECK(i < 100);
		loop_step(loop, 0);
	}
	answer(fd, bytes, told >> 2 ? bytes.len / 16 + (told >> 2) : bytes.len + 1, loop, &c);
	loop_step(loop, 0);
	FUZZ_CHECK(c.done == 1 && c.heads <= 1);
	close(fd);
	close(listen_fd);
	http_client_free(&client);
	loop_free(loop);
	return 0;
}
