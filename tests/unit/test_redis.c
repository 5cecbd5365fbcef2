/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/redis.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include "tests/unit/unit.h"

#define PATIENCE_MS 10000

/* A client, and either a real server or a peer that says what a test wants. */
struct world {
	struct loop *loop;
	struct redis *redis;
	struct redis_options options;
	int ups, downs;
	char detail[160];
	/* what the last answer said */
	int answers, error;
	char text[256];
	int64_t number;
	int order[64]; /* the commands in the order of their answers */
	/* the real one */
	char dir[64], socket[96];
	pid_t server;
	/* the peer */
	int listen_fd, peer_fd;
	struct net_addr addr;
};

static void on_state(struct redis *r, bool is_up, const char *detail, void *arg)
{
	struct world *w = arg;

	(void)r;
	if (is_up)
		w->ups++;
	else
		w->downs++;
	snprintf(w->detail, sizeof(w->detail), "%s", detail);
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->loop = loop_new();
	assert_non_null(w->loop);
	w->listen_fd = w->peer_fd = -1;
	w->options = (struct redis_options) {
		.name = "a test",
		.connect_timeout_ms = 6 * PATIENCE_MS,
		.command_timeout_ms = 6 * PATIENCE_MS,
		.backoff_min_ms = 1,
		.backoff_max_ms = 20,
		.on_state = on_state,
		.arg = w,
	};
	return w;
}

static void server_stop(struct world *w)
{
	if (w->server <= 0)
		return;
	kill(w->server, SIGKILL);
	waitpid(w->server, NULL, 0);
	w->server = 0;
}

static void world_free(struct world *w)
{
	redis_free(&w->redis);
	loop_free(w->loop);
	server_stop(w);
	if (w->dir[0]) {
		unlink(w->socket);
		rmdir(w->dir);
	}
	if (w->listen_fd >= 0)
		close(w->listen_fd);
	if (w->peer_fd >= 0)
		close(w->peer_fd);
	free(w);
}

static void client_start(struct world *w)
{
	w->redis = redis_new(w->loop, &w->options);
	assert_non_null(w->redis);
}

static void wait_for_(struct world *w, const int *counter, int value, const char *what)
{
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;

	while (*counter < value && clock_mono_ms() < until_ms)
		loop_step(w->loop, 20);
	if (*counter < value)
		fail_msg("%s stayed at %d, wanted %d (%s)", what, *counter, value, w->detail);
}
#define WAIT_FOR(w, member, value) wait_for_(w, &(w)->member, value, #member)

/* --- a real server ------------------------------------------------------------------------------
 */

static bool has_server(void)
{
	if (access("/usr/bin/redis-server", X_OK) == 0)
		return true;
	print_message("SKIP: redis-server is not installed\n");
	return false;
}

static void server_start(struct world *w)
{
	w->server = fork();
	assert_true(w->server >= 0);
	if (w->server > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!freopen("/dev/null", "w", stdout))
		_exit(126);
	execl("/usr/bin/redis-server", "redis-server", "--port", "0", "--unixsocket", w->socket,
	      "--save", "", "--requirepass", "p@ss word", "--dir", w->dir, NULL);
	_exit(127);
}

/* NULL: there is none to start. */
static struct world *real_world(void)
{
	struct world *w;
	struct err err;
	char url[160];

	if (!has_server())
		return NULL;
	w = world_new();
	snprintf(w->dir, sizeof(w->dir), "/tmp/gatehouse-redis-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->socket, sizeof(w->socket), "%s/s", w->dir);
	snprintf(url, sizeof(url), "unix:%s?db=2", w->socket);
	assert_int_equal(redis_url_parse(&w->options.url, str_from(url), &err), 0);
	snprintf(w->options.url.password, sizeof(w->options.url.password), "p@ss word");
	server_start(w);
	client_start(w);
	WAIT_FOR(w, ups, 1);
	w->downs = 0; /* attempts before it listened */
	return w;
}

static void on_answer(const struct redis_answer *answer, void *arg)
{
	struct world *w = arg;
	struct str text = redis_text(answer->reply);

	w->error = answer->error;
	w->number = -1;
	redis_int(answer->reply, &w->number);
	snprintf(w->text, sizeof(w->text), "%.*s", text.p ? (int)text.len : 0,
		 text.p ? text.p : "");
	w->answers++;
}

static int command(struct world *w, const char *a, const char *b, const char *c)
{
	struct str args[3];
	size_t n = 0;

	args[n++] = str_from(a);
	if (b)
		args[n++] = str_from(b);
	if (c)
		args[n++] = str_from(c);
	return redis_command(w->redis, args, n, on_answer, w);
}

static void ask(struct world *w, const char *a, const char *b, const char *c)
{
	int before = w->answers;

	assert_int_equal(command(w, a, b, c), 0);
	WAIT_FOR(w, answers, before + 1);
}

static void greets_and_asks(void **state)
{
	struct world *w = real_world();

	if (!w)
		skip();
	ask(w, "SET", "k", "a\r\nb");
	assert_string_equal(w->text, "OK");
	ask(w, "GET", "k", NULL);
	assert_string_equal(w->text, "a\r\nb");
	ask(w, "INCR", "k", NULL);
	assert_int_equal(w->error, -EREMOTEIO);
	assert_int_equal(strncmp(w->text, "ERR", 3), 0);
	ask(w, "GET", "nothing", NULL);
	assert_int_equal(w->error, 0);
	ask(w, "CLIENT", "GETNAME", NULL);
	assert_string_equal(w->text, "a-test");
	ask(w, "CLIENT", "INFO", NULL);
	assert_non_null(strstr(w->text, " db=2 "));
	world_free(w);
}

struct numbered {
	struct world *w;
	int number;
};

static void on_numbered(const struct redis_answer *answer, void *arg)
{
	struct numbered *n = arg;

	assert_int_equal(answer->error, 0);
	n->w->order[n->w->answers++] = n->number;
}

static void answers_come_in_order(void **state)
{
	struct world *w = real_world();
	struct numbered numbered[40];

	if (!w)
		skip();
	for (int i = 0; i < 40; i++) {
		const struct str args[] = { STR("INCR"), STR("n") };

		numbered[i] = (struct numbered) { w, i };
		assert_int_equal(redis_command(w->redis, args, 2, on_numbered, &numbered[i]), 0);
	}
	WAIT_FOR(w, answers, 40);
	for (int i = 0; i < 40; i++)
		assert_int_equal(w->order[i], i);
	ask(w, "GET", "n", NULL);
	assert_int_equal(w->number, 40);
	world_free(w);
}

static void scripts_survive_a_flush_and_a_restart(void **state)
{
	struct world *w = real_world();
	struct redis_script script;
	const struct str args[] = { STR("counter"), STR("5") };

	if (!w)
		skip();
	redis_script_init(&script, STR("return redis.call('INCRBY', KEYS[1], ARGV[1])"));
	assert_int_equal(redis_eval(w->redis, &script, 1, args, 2, on_answer, w), 0);
	WAIT_FOR(w, answers, 1);
	assert_int_equal(w->number, 5);
	/* Several are on their way when the server turns out to have forgotten it. */
	ask(w, "SCRIPT", "FLUSH", NULL);
	for (int i = 0; i < 8; i++)
		assert_int_equal(redis_eval(w->redis, &script, 1, args, 2, on_answer, w), 0);
	WAIT_FOR(w, answers, 10);
	assert_int_equal(w->error, 0);
	ask(w, "GET", "counter", NULL);
	assert_int_equal(w->number, 45);
	/* The script was sent twice: at first, and once for all eight. */
	ask(w, "EVAL", "return redis.call('INFO', 'commandstats'):match('script|load:calls=(%d+)')",
	    "0");
	assert_string_equal(w->text, "2");

	server_stop(w);
	WAIT_FOR(w, downs, 1);
	assert_int_equal(redis_eval(w->redis, &script, 1, args, 2, on_answer, w), -ENOTCONN);
	server_start(w);
	WAIT_FOR(w, ups, 2);
	w->answers = 0;
	assert_int_equal(redis_eval(w->redis, &script, 1, args, 2, on_answer, w), 0);
	WAIT_FOR(w, answers, 1);
	assert_int_equal(w->number, 5);
	world_free(w);
}

static void a_wrong_password_is_said_and_tried_again(void **state)
{
	struct world *w;

	if (!has_server())
		skip();
	w = real_world();
	redis_free(&w->redis);
	w->ups = w->downs = 0;
	snprintf(w->options.url.password, sizeof(w->options.url.password), "wrong");
	client_start(w);
	WAIT_FOR(w, downs, 3);
	assert_int_equal(w->ups, 0);
	assert_non_null(strstr(w->detail, "WRONGPASS"));
	assert_null(strstr(w->detail, "wrong"));
	world_free(w);
}

/* A server that stands still takes connections, and that is all. */
static void a_server_that_stands_still_is_left(void **state)
{
	struct world *w;
	const struct str args[] = { STR("PING") };
	int answers;

	if (!has_server())
		skip();
	w = real_world();
	kill(w->server, SIGSTOP);
	answers = w->answers;
	assert_int_equal(redis_command_for(w->redis, 30, args, 1, on_answer, w), 0);
	assert_int_equal(command(w, "PING", NULL, NULL), 0);
	WAIT_FOR(w, answers, answers + 2);
	assert_int_equal(w->error, -ETIMEDOUT);
	WAIT_FOR(w, downs, 1);
	assert_int_equal(redis_stats(w->redis)->timeouts, 1);
	kill(w->server, SIGCONT);
	WAIT_FOR(w, ups, 2);
	ask(w, "PING", NULL, NULL);
	assert_string_equal(w->text, "PONG");
	world_free(w);
}

/* --- a peer by script
 * -----------------------------------------------------------------------------
 */

static struct world *peer_world(void)
{
	struct world *w = world_new();
	struct err err;

	net_parse(&w->addr, STR("127.0.0.1:0"), 0);
	w->listen_fd = net_listen(&w->addr, false, 8, &err);
	assert_true(w->listen_fd >= 0);
	w->addr.len = sizeof(w->addr.un);
	assert_int_equal(getsockname(w->listen_fd, &w->addr.sa, &w->addr.len), 0);
	w->options.url.addr = w->addr;
	return w;
}

static void peer_accept(struct world *w)
{
	uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
	struct net_addr from;

	if (w->peer_fd >= 0)
		close(w->peer_fd);
	do {
		loop_step(w->loop, 5);
		w->peer_fd = net_accept(w->listen_fd, &from);
	} while (w->peer_fd < 0 && clock_mono_ms() < until_ms);
	assert_true(w->peer_fd >= 0);
}

static void peer_say(struct world *w, const char *text)
{
	assert_int_equal(send(w->peer_fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void peer_greet(struct world *w)
{
	peer_accept(w);
	peer_say(w, "+OK\r\n+PONG\r\n");
}

static void what_is_not_redis_is_left(void **state)
{
	static const struct {
		const char *said;
		const char *why;
	} cases[] = {
		{ "HTTP/1.1 400 Bad Request\r\n\r\n", "another protocol" },
		{ "+OK\r\n+PING\r\n", "PING is not answered by PONG" },
		{ "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n",
		  "a password is wanted" },
		{ "+OK\r\n-LOADING Redis is loading the dataset in memory\r\n", "not ready yet" },
		{ "+OK\r\n*1099511627776\r\n", "more elements than memory" },
		{ "+OK\r\n*2000000\r\n", "more elements than we take" },
		{ "+OK\r\n*-7\r\n", "a negative count" },
		{ "+OK\r\n$x\r\n", "no number" },
		{ "+OK\r\n$-9\r\n", "a negative length" },
		{ "+OK\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
		  "deeper than we take" },
		{ "+OK\r\n+PONG\r\n+PONG\r\n", "an answer without a question" },
		{ "", "closed at once" },
	};
	struct world *w = peer_world();

	client_start(w);
	for (size_t i = 0; i < CASES(cases); i++) {
		peer_accept(w);
		if (cases[i].said[0])
			peer_say(w, cases[i].said);
		else
			shutdown(w->peer_fd, SHUT_RDWR);
		wait_for_(w, &w->downs, (int)i + 1, cases[i].why);
		assert_false(redis_is_up(w->redis));
	}
	peer_greet(w);
	w->ups = 0;
	WAIT_FOR(w, ups, 1);
	world_free(w);
}

static void those_who_wait_are_told_of_the_end(void **state)
{
	static const struct {
		const char *said;
		int error;
	} cases[] = {
		{ "", -ECONNRESET },
		{ "$5\r\nhal", -ECONNRESET },
		{ "\0garbage", -ECONNRESET },
		{ "garbage\r\n", -EPROTO },
		{ "$2147483647\r\n", -ECONNRESET },
	};
	struct world *w = peer_world();

	client_start(w);
	for (size_t i = 0; i < CASES(cases); i++) {
		peer_greet(w);
		WAIT_FOR(w, ups, (int)i + 1);
		w->answers = 0;
		for (int n = 0; n < 3; n++)
			assert_int_equal(command(w, "GET", "k", NULL), 0);
		loop_step(w->loop, 0);
		peer_say(w, cases[i].said);
		shutdown(w->peer_fd, SHUT_WR);
		WAIT_FOR(w, answers, 3);
		assert_int_equal(w->answers, 3);
		assert_int_equal(w->error, cases[i].error);
		assert_int_equal(command(w, "GET", "k", NULL), -ENOTCONN);
	}
	assert_int_equal(redis_stats(w->redis)->lost, 3 * CASES(cases));
	world_free(w);
}

static void an_answer_without_end_is_cut(void **state)
{
	struct world *w = peer_world();

	w->options.max_reply = 50000;
	client_start(w);
	peer_greet(w);
	WAIT_FOR(w, ups, 1);
	assert_int_equal(command(w, "GET", "k", NULL), 0);
	peer_say(w, "$100000000\r\n");
	for (int i = 0; i < 1000 && w->downs == 0; i++) {
		send(w->peer_fd, "0123456789012345678901234567890123456789", 40, MSG_NOSIGNAL);
		send(w->peer_fd, w->order, sizeof(w->order), MSG_NOSIGNAL);
		loop_step(w->loop, 0);
	}
	WAIT_FOR(w, downs, 1);
	assert_int_equal(w->error, -EPROTO);
	world_free(w);
}

static void what_is_beyond_the_bounds_is_refused(void **state)
{
	struct world *w = peer_world();
	static char big[40000];

	memset(big, 'x', sizeof(big) - 1);
	w->options.max_pending = 10;
	w->options.max_out = 60000;
	client_start(w);
	peer_greet(w);
	WAIT_FOR(w, ups, 1);
	assert_int_equal(command(w, "SET", "k", big), 0);
	assert_int_equal(command(w, "SET", "k", big), -ENOBUFS);
	for (int i = 0; i < 9; i++)
		assert_int_equal(command(w, "GET", "k", NULL), 0);
	assert_true(redis_is_full(w->redis));
	assert_int_equal(command(w, "GET", "k", NULL), -ENOBUFS);
	assert_int_equal(redis_stats(w->redis)->refused, 2);
	peer_say(w, "+OK\r\n$1\r\nx\r\n");
	WAIT_FOR(w, answers, 2);
	assert_string_equal(w->text, "x");
	assert_int_equal(command(w, "GET", "k", NULL), 0);
	/* The rest is told when the client goes. */
	redis_free(&w->redis);
	assert_int_equal(w->answers, 11);
	assert_int_equal(w->error, -ECANCELED);
	world_free(w);
}

static void a_connection_to_a_replica_is_made_anew(void **state)
{
	struct world *w = peer_world();

	client_start(w);
	peer_greet(w);
	WAIT_FOR(w, ups, 1);
	assert_int_equal(command(w, "SET", "k", "v"), 0);
	peer_say(w, "-READONLY You can't write against a read only replica.\r\n");
	WAIT_FOR(w, downs, 1);
	assert_int_equal(w->error, -EREMOTEIO);
	peer_greet(w);
	WAIT_FOR(w, ups, 2);
	world_free(w);
}

/* A script's command is repeated once, not for ever. */
static void a_script_unknown_twice_is_an_error(void **state)
{
	struct world *w = peer_world();
	struct redis_script script;
	const struct str args[] = { STR("k") };

	redis_script_init(&script, STR("return 1"));
	client_start(w);
	peer_greet(w);
	WAIT_FOR(w, ups, 1);
	assert_int_equal(redis_eval(w->redis, &script, 1, args, 1, on_answer, w), 0);
	peer_say(w, "$40\r\n0123456789012345678901234567890123456789\r\n-NOSCRIPT no\r\n");
	peer_say(w, "$40\r\n0123456789012345678901234567890123456789\r\n-NOSCRIPT no\r\n");
	WAIT_FOR(w, answers, 1);
	assert_int_equal(w->error, -EREMOTEIO);
	assert_int_equal(w->downs, 0);
	world_free(w);
}

/* --- URLs --------------------------------------------------------------------------------------
 */

static void reads_urls(void **state)
{
	static const struct {
		const char *url, *addr, *user, *password;
		unsigned db;
	} good[] = {
		{ "redis://192.0.2.1", "192.0.2.1:6379", "", "", 0 },
		{ "redis://192.0.2.1:7000/3", "192.0.2.1:7000", "", "", 3 },
		{ "redis://[2001:db8::1]:7000/", "[2001:db8::1]:7000", "", "", 0 },
		{ "redis://:se%20cret%40@192.0.2.1", "192.0.2.1:6379", "", "se cret@", 0 },
		{ "redis://u:p@ss:w@192.0.2.1/1023", "192.0.2.1:6379", "u", "p@ss:w", 1023 },
		{ "unix:/run/redis.sock", "unix:/run/redis.sock", "", "", 0 },
		{ "unix:/run/redis.sock?db=7", "unix:/run/redis.sock", "", "", 7 },
	};
	static const char *const bad[] = {
		"",
		"192.0.2.1:6379",
		"http://192.0.2.1",
		"rediss://192.0.2.1",
		"redis://",
		"redis://localhost",
		"redis://192.0.2.1:0",
		"redis://192.0.2.1:65536",
		"redis://192.0.2.1/1024",
		"redis://192.0.2.1/x",
		"redis://192.0.2.1/1/2",
		"redis://hunter2@192.0.2.1",
		"redis://:hunter2%2@192.0.2.1",
		"redis://:hunter2%zz@192.0.2.1",
		"redis://:hunter2%00@192.0.2.1",
		"redis://unix:/x",
		"unix:",
		"unix:/x?y=1",
		"unix:/x?db=",
	};

	for (size_t i = 0; i < CASES(good); i++) {
		struct redis_url u;
		struct err err = { "" };
		char text[NET_ADDR_LEN];

		if (redis_url_parse(&u, str_from(good[i].url), &err) < 0)
			fail_msg("%s: %s", good[i].url, err.text);
		assert_string_equal(net_format(text, &u.addr), good[i].addr);
		assert_string_equal(u.user, good[i].user);
		assert_string_equal(u.password, good[i].password);
		assert_int_equal(u.db, good[i].db);
	}
	for (size_t i = 0; i < CASES(bad); i++) {
		struct redis_url u;
		struct err err = { "" };

		if (redis_url_parse(&u, str_from(bad[i]), &err) == 0)
			fail_msg("%s was taken", bad[i]);
		assert_true(err.text[0]);
		assert_null(strstr(err.text, "hunter2"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_urls),
		cmocka_unit_test(what_is_not_redis_is_left),
		cmocka_unit_test(those_who_wait_are_told_of_the_end),
		cmocka_unit_test(an_answer_without_end_is_cut),
		cmocka_unit_test(what_is_beyond_the_bounds_is_refused),
		cmocka_unit_test(a_connection_to_a_replica_is_made_anew),
		cmocka_unit_test(a_script_unknown_twice_is_an_error),
		cmocka_unit_test(greets_and_asks),
		cmocka_unit_test(answers_come_in_order),
		cmocka_unit_test(scripts_survive_a_flush_and_a_restart),
		cmocka_unit_test(a_wrong_password_is_said_and_tried_again),
		cmocka_unit_test(a_server_that_stands_still_is_left),
	};

	return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
