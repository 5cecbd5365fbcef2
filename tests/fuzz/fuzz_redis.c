/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Redis server says, in pieces (first byte), while commands are under way: each is told
 * exactly once how it went. The bytes are tried as the server's address as well.
 */
#include "lib/redis.h"

#include <errno.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"

#define COMMANDS   5
#define ROUNDS_MAX 3000

struct state {
	struct redis *redis;
	unsigned accepted, told;
	bool was_up;
};

static void on_answer(const struct redis_answer *answer, void *arg)
{
	struct state *s = arg;

	s->told++;
	FUZZ_CHECK(answer->error <= 0);
	FUZZ_CHECK(answer->error ? answer->problem != NULL : answer->reply != NULL);
	FUZZ_CHECK((answer->error == -EREMOTEIO) ==
		   (answer->reply && answer->reply->type == REDIS_REPLY_ERROR));
}

static void on_state(struct redis *r, bool is_up, const char *detail, void *arg)
{
	static const struct str args[] = { STR("GET"), STR("a") };
	struct state *s = arg;

	FUZZ_CHECK(detail);
	FUZZ_CHECK(is_up || s->told == s->accepted);
	for (unsigned i = 0; is_up && i < COMMANDS; i++)
		s->accepted += redis_command(r, args, ARRAY_SIZE(args), on_answer, s) == 0;
	s->was_up |= is_up;
}

static void talk(struct loop *loop, int listen_fd, struct str bytes, size_t piece)
{
	struct buf asked;
	size_t at = 0;
	int fd;

	for (unsigned i = 0; (fd = peer_accept(listen_fd)) < 0; i++) {
		FUZZ_CHECK(i < 100);
		loop_step(loop, 1); /* it begins by a timer */
	}
	buf_init(&asked, 0);
	for (unsigned rounds = 0, quiet = 0; quiet < 3; rounds++) {
		bool moved;

		FUZZ_CHECK(rounds < ROUNDS_MAX);
		loop_step(loop, 0);
		moved = peer_receive(fd, &asked);
		moved |= peer_send(fd, bytes, &at, piece);
		quiet = moved ? 0 : quiet + 1;
	}
	close(fd);
	for (unsigned i = 0; i < 4; i++)
		loop_step(loop, 0);
	buf_fini(&asked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	uint8_t told = fuzz_take(&bytes);
	struct loop *loop = loop_new();
	struct state s = { .accepted = 0 };
	struct redis_options options = { .max_reply = 4096, .on_state = on_state, .arg = &s };
	struct redis_url url;
	struct err err = { "" };
	int listen_fd = peer_listen(&options.url.addr);

	if (redis_url_parse(&url, bytes, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	else
		FUZZ_CHECK(url.addr.len);
	s.redis = redis_new(loop, &options);
	if (!s.redis)
		abort();
	talk(loop, listen_fd, bytes, told ? bytes.len / 16 + told : bytes.len + 1);
	close(listen_fd);
	redis_free(&s.redis);
	FUZZ_CHECK(s.told == s.accepted);
	loop_free(loop);
	return 0;
}
