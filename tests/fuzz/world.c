/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/world.h"

#include <sys/mman.h>

#include "gateway/gateway.h"
#include "gateway/http/conn.h"
#include "gateway/listeners.h"
#include "gateway/upstream/service.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/peer.h"

#define QUIET_ROUNDS 3    /* without a byte moved: nothing more will come by itself */
#define ROUNDS_MAX   4000 /* of one connection, in all */
#define OUTPUT_MAX   (1UL << 20)

/* No time limit of these ends within an input's time, or outcomes would depend on the machine. */
static const char config_format[] =
	"{\"instance\":\"fuzz\",\"domain\":\"fuzz\",\"workers\":1,"
	"\"listeners\":[{\"bind\":\"127.0.0.1:1\"}],"
	"\"services\":{"
	"\"s\":{\"endpoints\":[{\"address\":\"127.0.0.1:1\"}],\"protocol\":\"%s\",\"retries\":1},"
	"\"s2\":{\"endpoints\":[{\"address\":\"127.0.0.1:1\"}]}},"
	"\"defaults\":{\"max_body_bytes\":4096,\"request\":{\"set\":{\"X-User-Id\":\"none\"},"
	"\"remove\":[\"X-Secret\"]},\"response\":{\"remove\":[\"X-Internal-*\"]}},"
	"\"routes\":["
	"{\"name\":\"fixed\",\"match\":{\"path\":\"/fixed\"},"
	"\"respond\":{\"status\":200,\"body\":\"pong\"}},"
	"{\"name\":\"ws\",\"match\":{\"path\":\"/ws\"},\"service\":\"s\",\"websocket\":%s},"
	"{\"name\":\"template\",\"match\":{\"path\":\"/t/{id}/x\"},\"service\":\"s\","
	"\"rewrite_path\":\"/r/${path.id}/{id}/${query.q}\",\"request\":{\"set\":{\"X-T\":"
	"\"${path.id},${query.q},${cookie.c},${header.X-In},${request.host}\"}},"
	"\"response\":{\"set\":{\"X-R\":\"${query.q}${request.path}\"}}},"
	"{\"name\":\"prefix\",\"match\":{\"path\":\"/p/*\"},\"service\":\"s\","
	"\"rewrite_prefix\":\"/q/\",\"request\":{\"add\":{\"X-Rest\":\"${request.rest}\"}}},"
	"{\"name\":\"elsewhere\",\"match\":{\"path\":\"/l/*\"},\"redirect\":{\"location\":"
	"\"https://a.example/${request.rest}?q=${query.q}\"}},"
	"{\"name\":\"split\",\"match\":{\"path\":\"/c\",\"cookies\":{\"a\":\"b\"},"
	"\"query\":{\"x\":\"y\"},\"headers\":{\"X-A\":\"1\"}},\"split\":["
	"{\"service\":\"s\",\"weight\":1},{\"service\":\"s2\",\"weight\":1}],"
	"\"sticky\":[\"cookie:lane\",\"header:X-Lane\"]},"
	"{\"name\":\"mirror\",\"match\":{\"path\":\"/m\"},\"service\":\"s\","
	"\"mirror\":{\"service\":\"s2\",\"percent\":100}},"
	"{\"name\":\"all\",\"match\":{\"path\":\"/*\"},\"service\":\"s\"}]}";

static struct gateway gateway;
static struct worker *worker;
static int listen_fd;
static struct net_addr service_addr;

static struct snapshot *load(const char *service_protocol)
{
	struct conf_errors errors = { 0 };
	/* Which HTTP/2 would have to carry otherwise. */
	const char *websocket = strcmp(service_protocol, "http/1.1") ? "false" : "true";
	struct snapshot *snapshot;
	struct buf told;
	char path[64];
	int fd = memfd_create("gateway.json", MFD_CLOEXEC);

	if (fd < 0 || dprintf(fd, config_format, service_protocol, websocket) < 0)
		peer_die("memfd_create");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (snapshot_load(&snapshot, path, &errors) < 0) {
		buf_init(&told, 0);
		conf_errors_write(&errors, "world", &told);
		buf_putc(&told, '\0');
		fputs(buf_data(&told), stderr);
		exit(2);
	}
	conf_errors_fini(&errors);
	close(fd);
	return snapshot;
}

static void stop(void)
{
	worker_free(worker);
	limits_table_free(&gateway.limits);
	token_cache_free(&gateway.token_cache);
	snapshot_put(&gateway.snapshot);
	close(listen_fd);
}

void world_start(const char *service_protocol)
{
	const struct listeners none = { NULL, 0 };
	struct worker_conf *conf;
	struct err err;

	log_init("fuzz", LOG_TEXT, LOG_ERROR);
	listen_fd = peer_listen(&service_addr);
	gateway.limits = limits_table_new(64);
	gateway.token_cache = token_cache_new(64);
	gateway.snapshot = load(service_protocol);
	conf = worker_conf_new(gateway.snapshot, NULL, &err);
	if (!conf || worker_new(&worker, &gateway, 0, &none, 1000) < 0)
		peer_die("worker");
	worker_post_conf(worker, conf);
	loop_step(worker->loop, 0);
	atexit(stop);
}

/* --- one run ------------------------------------------------------------------------------- */

struct run {
	const struct world_script *script;
	struct world_result *out;
	int client_fd;
	size_t sent;
	bool client_done; /* sent everything, or cannot any more */
	int fds[WORLD_SERVICE_CONNS];
	size_t answered[WORLD_SERVICE_CONNS];
	size_t rounds;
};

/* As peer_receive, within bounds. */
static bool drain(int fd, struct buf *out)
{
	FUZZ_CHECK(buf_len(out) < OUTPUT_MAX);
	return peer_receive(fd, out);
}

static bool accept_service(struct run *r)
{
	int fd;

	if (r->out->service_conns == WORLD_SERVICE_CONNS)
		return false;
	fd = peer_accept(listen_fd);
	if (fd < 0)
		return false;
	r->fds[r->out->service_conns] = fd;
	buf_init(&r->out->service[r->out->service_conns].received, 0);
	r->out->service_conns++;
	return true;
}

static bool play_service(struct run *r, size_t i)
{
	const struct world_script *s = r->script;
	struct buf *received = &r->out->service[i].received;
	bool moved;

	if (r->fds[i] < 0)
		return false;
	moved = drain(r->fds[i], received);
	if (!s->answer_at_once &&
	    (!buf_len(received) || !memmem(buf_data(received), buf_len(received), "\r\n\r\n", 4)))
		return moved;
	moved |= peer_send(r->fds[i], s->answer, &r->answered[i], s->answer_piece);
	if (s->answer_closes && r->answered[i] == s->answer.len) {
		close(r->fds[i]);
		r->fds[i] = -1;
		return true;
	}
	return moved;
}

/* One round of everybody; whether a byte moved. */
static bool play(struct run *r)
{
	bool moved = false;

	FUZZ_CHECK(++r->rounds < ROUNDS_MAX);
	loop_step(worker->loop, 0);
	while (accept_service(r))
		moved = true;
	for (size_t i = 0; i < r->out->service_conns; i++)
		moved |= play_service(r, i);
	if (r->client_fd >= 0) {
		moved |= peer_send(r->client_fd, r->script->client, &r->sent,
				   r->script->client_piece);
		moved |= drain(r->client_fd, &r->out->client);
	}
	return moved;
}

static void play_until_quiet(struct run *r)
{
	unsigned quiet = 0;

	while (quiet < QUIET_ROUNDS)
		quiet = play(r) ? 0 : quiet + 1;
}

static void restart_service(bool is_there)
{
	const struct service_member member = { .addr = service_addr, .weight = 100 };

	for (size_t i = 0; i < gateway.snapshot->conf.services_count; i++)
		service_set_members(worker->conf->services[i], &member, is_there ? 1 : 0);
}

/* The next input shall not meet connections of this one. */
static void end_service(struct run *r)
{
	int fd;

	for (size_t i = 0; i < r->out->service_conns; i++) {
		if (r->fds[i] >= 0)
			close(r->fds[i]);
		r->fds[i] = -1;
	}
	while ((fd = peer_accept(listen_fd)) >= 0)
		close(fd);
}

void world_run(const struct world_script *script, struct world_result *out)
{
	struct run r = { .script = script, .out = out };
	struct net_addr peer;
	int pair[2];

	*out = (struct world_result) { .service_conns = 0 };
	buf_init(&out->client, 0);
	restart_service(true);
	if (net_parse_ip(&peer, STR("192.0.2.1"), 1) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		peer_die("socketpair");
	r.client_fd = pair[0];
	conn_accept(worker, 0, pair[1], &peer);
	play_until_quiet(&r);
	shutdown(r.client_fd, SHUT_WR);
	play_until_quiet(&r);
	close(r.client_fd);
	r.client_fd = -1;
	play_until_quiet(&r);
	/* A client that only ended its side may still wait for an answer. None comes now. */
	restart_service(false);
	end_service(&r);
	play_until_quiet(&r);
	FUZZ_CHECK(worker->conn_count == 0 && list_empty(&worker->conns));
}

void world_result_fini(struct world_result *r)
{
	buf_fini(&r->client);
	for (size_t i = 0; i < r->service_conns; i++)
		buf_fini(&r->service[i].received);
}
