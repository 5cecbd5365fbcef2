/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upgrade.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "gateway/gateway.h"
#include "lib/http_server.h"
#include "lib/log.h"

struct upgrade {
	struct gateway *gateway;
	struct loop_io io; /* a pidfd: readable when the process has ended */
	pid_t pid;
	struct http_request *req; /* who waits for it; NULL: has left */
};

static void on_gone(struct http_request *req)
{
	struct upgrade *u = req->user;

	u->req = NULL;
}

void upgrade_free(struct upgrade **up)
{
	struct upgrade *u = TAKE_PTR(*up);

	if (!u)
		return;
	if (u->req)
		u->req->on_gone = NULL;
	loop_io_remove(u->gateway->loop, &u->io);
	cleanup_close(&u->io.fd);
	free(u);
}

/* Why it failed is in its own words in the log that both write to. */
static void on_ended(struct loop_io *io, uint32_t events)
{
	struct upgrade *u = container_of(io, struct upgrade, io);
	struct gateway *g = u->gateway;
	int status = 0;

	(void)events;
	if (waitpid(u->pid, &status, WNOHANG) <= 0)
		return;
	log_error("upgrade: process %d ended with %s %d before it took over, this one goes on",
		  (int)u->pid, WIFSIGNALED(status) ? "signal" : "status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (u->req)
		http_problem(
			u->req, 422,
			"the new process, %d, ended with %s %d before it took over; nothing has "
			"changed, and the log of gatewayd says why",
			(int)u->pid, WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	u->req = NULL;
	upgrade_free(&g->upgrade);
}

/* With the same arguments, and an empty signal mask: ours is full. */
static int spawn(const struct gateway *g, pid_t *out)
{
	static char take_over[] = "--take-over";
	posix_spawnattr_t attr;
	sigset_t none;
	char **argv;
	size_t n = 0, k = 0;
	int rc;

	while (g->argv[n])
		n++;
	argv = calloc(n + 2, sizeof(*argv));
	if (!argv)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(g->argv[i], take_over) != 0)
			argv[k++] = g->argv[i];
	}
	argv[k] = take_over;
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	rc = -posix_spawn(out, g->program, NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	free(argv);
	return rc;
}

void upgrade_start(struct gateway *g, struct http_request *req)
{
	struct upgrade *u;
	int rc;

	if (g->state != GATEWAY_RUNNING) {
		http_problem(req, 409, "it is %s", gateway_state_name(g->state));
		return;
	}
	if (g->upgrade || g->handover) {
		http_problem(req, 409, "an upgrade is under way already");
		return;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		http_problem(req, 503, "out of memory");
		return;
	}
	u->gateway = g;
	u->io.on_event = on_ended;
	u->io.fd = -1;
	rc = spawn(g, &u->pid);
	if (rc == 0) {
		u->io.fd = (int)syscall(SYS_pidfd_open, u->pid, 0);
		rc = u->io.fd < 0 ? -errno : loop_io_add(g->loop, &u->io, EPOLLIN);
	}
	if (rc < 0) {
		http_problem(req, 503, "cannot start %s: %s", g->program, strerror(-rc));
		cleanup_close(&u->io.fd);
		free(u);
		return;
	}
	log_info("upgrade: started %s as process %d", g->program, (int)u->pid);
	u->req = req;
	req->user = u;
	req->on_gone = on_gone;
	g->upgrade = u;
}

void upgrade_done(struct gateway *g)
{
	const struct upgrade *u = g->upgrade;
	struct http_request *req = u ? u->req : NULL;
	char text[64];

	if (req) {
		req->on_gone = NULL;
		snprintf(text, sizeof(text), "{\"upgraded\":true,\"pid\":%d}", (int)u->pid);
		http_respond_json(req, 200, str_from(text));
		g->upgrade->req = NULL;
	}
	upgrade_free(&g->upgrade);
}
