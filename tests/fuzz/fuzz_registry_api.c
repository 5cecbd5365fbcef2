/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client before the registry's HTTP server and its API: heads, paths, queries, bodies. First
 * byte: the size of the pieces. Whatever it sends, answers are well formed, and no connection
 * stays.
 */
#include "lib/loop.h"
#include "registry/api.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"
#include "tests/fuzz/requests.h"

#define ROUNDS_MAX   3000
#define QUIET_ROUNDS 3

static struct loop *loop;
static struct http_server *server;
static struct reg_api api;
static struct reg_store *store;
static struct reg_writer writer;
static struct reg_conf conf;
static struct net_addr addr;

static void on_change(const struct reg_entry *entry, enum reg_change change, void *arg)
{
	(void)arg;
	if (api.watch)
		reg_watch_on_change(api.watch, entry, change);
	if (api.eureka)
		reg_eureka_on_change(api.eureka);
}

/* Nothing but defaults: no tokens, so that everything behind them is reached. */
static void read_conf(void)
{
	static struct arena arena;
	struct conf_errors errors = { 0 };

	arena_init(&arena, 4096, 0);
	if (conf_load_text(&conf, &reg_conf_object, STR("{\"bind\":\"127.0.0.1:1\"}"), &arena,
			   &errors) < 0)
		abort();
}

static void registry_begin(void)
{
	const struct reg_store_config store_config = { .start_index = 1,
						       .on_change = on_change,
						       .max_instances = 64 };
	const struct http_server_config config = { .max_body = 65536,
						   .on_request = reg_api_on_request,
						   .arg = &api };
	struct err err;

	if (!conf.bind.len)
		read_conf();
	loop = loop_new();
	server = http_server_new(loop, &config);
	if (!server || http_server_adopt(server, peer_listen(&addr), &err) < 0)
		peer_die("server");
	store = reg_store_new(&store_config, loop_now_ms(loop));
	reg_writer_memory_init(&writer, loop, store);
	api = (struct reg_api) {
		.access = reg_access_new(&conf),
		.quotas = reg_quotas_new(),
		.max_watches = 8,
		.loop = loop,
		.store = store,
		.writer = &writer,
		.watch = reg_watch_new(loop, store),
		.server = server,
		.eureka = reg_eureka_new(loop, store, &writer),
		.default_lease_s = 30,
	};
	if (!api.watch || !api.eureka || !api.access || !api.quotas)
		abort();
}

static void registry_end(void)
{
	reg_watch_stop(api.watch);
	reg_watch_release(api.watch);
	reg_eureka_release(api.eureka);
	http_server_free(&server);
	reg_watch_free(&api.watch);
	reg_eureka_free(&api.eureka);
	reg_store_free(&store);
	reg_quotas_free(&api.quotas);
	reg_access_free(&api.access);
	loop_free(loop);
}

/* Until nothing moves any more. */
static void play(int fd, struct str bytes, size_t *at, size_t piece, struct buf *answers)
{
	unsigned quiet = 0;

	for (unsigned rounds = 0; quiet < QUIET_ROUNDS; rounds++) {
		bool moved;

		FUZZ_CHECK(rounds < ROUNDS_MAX);
		loop_step(loop, 0);
		moved = peer_send(fd, bytes, at, piece);
		moved |= peer_receive(fd, answers);
		quiet = moved ? 0 : quiet + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	size_t piece = fuzz_take(&bytes), at = 0;
	struct buf answers;
	int fd;

	piece = piece ? bytes.len / 16 + piece : bytes.len + 1;
	registry_begin();
	buf_init(&answers, 0);
	fd = net_connect(&addr);
	if (fd < 0)
		peer_die("connect");
	play(fd, bytes, &at, piece, &answers);
	peer_end(fd);
	play(fd, bytes, &at, piece, &answers);
	fuzz_check_response(buf_str(&answers));
	close(fd);
	for (unsigned i = 0; i < 8; i++)
		loop_step(loop, 0);
	FUZZ_CHECK(http_server_stats(server)->connections == 0);
	buf_fini(&answers);
	registry_end();
	return 0;
}
