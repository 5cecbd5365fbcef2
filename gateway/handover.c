/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>

#include "gateway/admin.h"
#include "gateway/gateway.h"
#include "gateway/identity/keyring.h"
#include "gateway/upstream/pools.h"
#include "lib/daemon.h"
#include "lib/http_client.h"
#include "lib/http_server.h"
#include "lib/log.h"

#define ANSWER_MS      5000  /* for the running one to send its sockets, and to let go */
#define READY_MS       10000 /* until every service has a list */
#define READY_CHECK_MS 20
#define HEAD_MAX       4096

/* What is said after the sockets. */
static const char ready[] = "ready\n", released[] = "released\n";

struct handover {
	struct gateway *gateway;
	struct loop_io io;
	struct loop_timer timer;
	uint64_t until_ms;
	bool is_ready; /* and the other one was told */
	pid_t pid;     /* of the other one */
	char got[sizeof(released)];
	size_t got_len;
};

static struct handover *handover_new(struct gateway *g, int fd)
{
	struct handover *h = calloc(1, sizeof(*h));
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (!h) {
		close(fd);
		return NULL;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		peer.pid = 0;
	h->gateway = g;
	h->io.fd = fd;
	h->pid = peer.pid;
	return h;
}

void handover_free(struct handover **hp)
{
	struct handover *h = TAKE_PTR(*hp);

	if (!h)
		return;
	loop_timer_stop(h->gateway->loop, &h->timer);
	loop_io_remove(h->gateway->loop, &h->io);
	close(h->io.fd);
	free(h);
}

/* Reads on. 1: the word is there; 0: not yet; -1: the other one is gone or says something else. */
static int hear(struct handover *h, const char *word)
{
	size_t want = strlen(word);
	ssize_t n = recv(h->io.fd, h->got + h->got_len, want - h->got_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	h->got_len += (size_t)n;
	if (memcmp(h->got, word, h->got_len) != 0)
		return -1;
	return h->got_len == want;
}

static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* --- the one that runs
 * ---------------------------------------------------------------------------------------------------
 */

static void on_word_of_new(struct loop_io *io, uint32_t events)
{
	struct handover *h = container_of(io, struct handover, io);
	struct gateway *g = h->gateway;
	char text[32];

	(void)events;
	switch (hear(h, ready)) {
	case 0:
		return;
	case 1:
		log_info("upgrade: process %d takes over", (int)h->pid);
		/* Only what the main process says counts to systemd, and that is still this one. */
		snprintf(text, sizeof(text), "MAINPID=%d", (int)h->pid);
		daemon_notify(text);
		gateway_let_go(g);
		if (!say(h->io.fd, released))
			log_error("upgrade: process %d left in the last moment", (int)h->pid);
		break;
	default:
		log_error("upgrade: process %d left before it was ready, this one goes on",
			  (int)h->pid);
	}
	handover_free(&g->handover);
}

static int send_sockets(const struct gateway *g, int fd)
{
	int *fds = NULL;
	size_t count = 0;
	int rc;

	for (unsigned i = 0; i < g->worker_count; i++)
		count += g->workers[i]->listener_count;
	fds = calloc(count + ADMIN_LISTENERS_MAX, sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	count = 0;
	for (unsigned i = 0; i < g->worker_count; i++) {
		for (unsigned j = 0; j < g->workers[i]->listener_count; j++)
			fds[count++] = g->workers[i]->listeners[j].io.fd;
	}
	count += admin_listeners(g->admin, fds + count);
	rc = sockets_send(fd, fds, count);
	free(fds);
	return rc;
}

void handover_give(struct gateway *g, struct http_request *req)
{
	struct str domain = { 0 };
	struct handover *h;
	int fd;

	if (g->state != GATEWAY_RUNNING) {
		http_problem(req, 409, "it is %s", gateway_state_name(g->state));
		return;
	}
	if (g->handover) {
		http_problem(req, 409, "process %d is about to take over already",
			     (int)g->handover->pid);
		return;
	}
	if (http_query(req, "domain", &domain) < 0 || !str_eq(domain, g->snapshot->conf.domain)) {
		http_problem(req, 409, "it serves the domain %.*s, not %.*s",
			     STR_ARG(g->snapshot->conf.domain), STR_ARG(domain));
		return;
	}
	fd = http_detach(req);
	if (fd < 0) {
		http_problem(req, 503, "%s", strerror(-fd));
		return;
	}
	h = handover_new(g, fd);
	if (!h)
		return;
	h->io.on_event = on_word_of_new;
	g->handover = h;
	if (!say(fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
		     "Upgrade: gatehouse-sockets\r\n\r\n") ||
	    send_sockets(g, fd) < 0 || loop_io_add(g->loop, &h->io, EPOLLIN) < 0) {
		log_error("upgrade: cannot send the sockets to process %d", (int)h->pid);
		handover_free(&g->handover);
	}
}

/* --- the new one
 * ----------------------------------------------------------------------------------------------------------
 */

static bool wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ANSWER_MS) > 0;
}

/* Byte by byte, for behind it come descriptors, which a longer read would lose. */
static int read_head(int fd, char head[static HEAD_MAX])
{
	size_t len = 0;

	while (len < HEAD_MAX - 1) {
		if (!wait_readable(fd) || recv(fd, head + len, 1, 0) <= 0)
			return -ECONNRESET;
		head[++len] = '\0';
		if (len >= 4 && memcmp(head + len - 4, "\r\n\r\n", 4) == 0)
			return 0;
	}
	return -EMSGSIZE;
}

static int tell_refusal(int fd, const char *path, struct err *err)
{
	char body[HEAD_MAX] = "";
	size_t len = 0;
	ssize_t n;
	json_t *json;
	const char *detail;
	int rc;

	while (len < sizeof(body) && wait_readable(fd) &&
	       (n = recv(fd, body + len, sizeof(body) - len, 0)) > 0)
		len += (size_t)n;
	json = json_loadb(body, len, 0, NULL);
	detail = json_string_value(json_object_get(json, "detail"));
	rc = err_set(err, -EPERM, "cannot take over from the gatewayd at %s: %s", path,
		     detail ? detail : "it does not know how, restart it instead");
	json_decref(json);
	return rc;
}

static int ask(int fd, const char *path, struct str domain, struct err *err)
{
	char head[HEAD_MAX] = "";
	struct buf text;
	int rc;

	buf_init(&text, 0);
	buf_addz(&text, "POST /handover?domain=");
	http_encode(&text, domain);
	buf_addz(&text, " HTTP/1.1\r\nHost: gatewayd\r\nConnection: close\r\n"
			"Content-Length: 0\r\n\r\n");
	rc = send(fd, buf_data(&text), buf_len(&text), MSG_NOSIGNAL) < 0 ? -errno : 0;
	buf_fini(&text);
	if (rc == 0)
		rc = read_head(fd, head);
	if (rc < 0)
		return err_set(err, rc, "no gatewayd answers at %s: %s", path, strerror(-rc));
	return str_starts(str_from(head), STR("HTTP/1.1 101 ")) ? 0 : tell_refusal(fd, path, err);
}

int handover_take(struct gateway *g, const struct snapshot *snapshot, struct err *err)
{
	const struct gw_conf *conf = &snapshot->conf;
	CLEANUP(cleanup_close) int fd = -1;
	struct net_addr addr;
	int rc;

	if (!conf->admin.socket.p)
		return err_set(err, -EINVAL,
			       "--take-over needs admin.socket, by which the sockets come");
	if (net_parse_unix(&addr, conf->admin.socket) < 0)
		return err_set(err, -EINVAL, "admin.socket: %s is too long for a unix socket",
			       conf->admin.socket.p);
	fd = net_connect(&addr);
	if (fd < 0)
		return err_set(err, fd,
			       "no gatewayd to take over from at %s: %s; start without --take-over",
			       conf->admin.socket.p, strerror(-fd));
	rc = ask(fd, conf->admin.socket.p, conf->domain, err);
	if (rc == 0)
		rc = sockets_receive(&g->inherited, fd, ANSWER_MS, err);
	if (rc < 0)
		return rc;
	g->handover = handover_new(g, TAKE_FD(fd));
	return g->handover ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static void on_word_of_old(struct loop_io *io, uint32_t events)
{
	struct handover *h = container_of(io, struct handover, io);
	struct gateway *g = h->gateway;
	int rc;

	(void)events;
	rc = h->is_ready ? hear(h, released) : -1;
	if (rc == 0)
		return;
	if (rc < 0) {
		handover_free(&g->handover);
		gateway_fail(g, "the gatewayd to take over from has ended");
		return;
	}
	log_info("upgrade: took over");
	handover_free(&g->handover);
	gateway_go_live(g);
}

static void on_check(struct loop_timer *timer)
{
	struct handover *h = container_of(timer, struct handover, timer);
	struct gateway *g = h->gateway;

	if (!h->is_ready && pools_are_ready(g->pools) && keyring_is_ready(g->keyring)) {
		h->is_ready = true;
		h->until_ms = loop_now_ms(g->loop) + ANSWER_MS;
		/* If it is gone, the descriptor tells. */
		say(h->io.fd, ready);
	}
	if (loop_now_ms(g->loop) < h->until_ms) {
		loop_timer_start(g->loop, timer, READY_CHECK_MS);
		return;
	}
	gateway_fail(g, h->is_ready ? "the gatewayd to take over from does not let go"
				    : "no list of some service's instances, or no answer about "
				      "the keys of some issuer, within 10 s; the "
				      "gatewayd to take over from goes on");
	handover_free(&g->handover);
}

void handover_finish(struct gateway *g)
{
	struct handover *h = g->handover;

	h->io.on_event = on_word_of_old;
	h->timer.on_fire = on_check;
	h->until_ms = loop_now_ms(g->loop) + READY_MS;
	if (loop_io_add(g->loop, &h->io, EPOLLIN) < 0) {
		gateway_fail(g, "out of memory");
		return;
	}
	on_check(&h->timer);
}
