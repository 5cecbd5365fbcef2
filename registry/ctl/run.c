/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registryctl register … -- COMMAND: a service that knows nothing of registries. Its parent
 * registers it once its port answers, renews while it lives, takes it out of service before it is
 * told to stop, and out of the registry when it has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/loop.h"
#include "registry/ctl/ctl.h"

#define PROBE_MS         200  /* from one try of the port to the next */
#define PROBE_TIMEOUT_MS 2000 /* for an answer */
#define CANNOT_START     126
#define NOT_FOUND        127

struct run {
	const struct ctl *o;
	const char *app;
	const struct reg_instance *instance;
	struct loop *loop;
	struct reg_client *client;
	struct reg_self *self;
	struct net_addr addr;
	struct loop_io probe; /* fd -1: none */
	struct loop_timer probe_again, drain;
	pid_t child;   /* 0: has ended */
	int stop_with; /* the signal that was asked for; 0: none */
	int status;    /* what to exit with */
};

void ctl_on_event(enum reg_client_event event, const char *detail, void *arg)
{
	(void)arg;
	/* That all is well is said where it matters, once. */
	if (event != REG_CLIENT_CONNECTED)
		fprintf(stderr, "registryctl: %s\n", detail);
}

/* --- the command ----------------------------------------------------------------------------- */

/* In the child: becomes the command, or says by the pipe why not. */
__attribute__((noreturn)) static void become(char *const *command, pid_t parent, int failed_fd)
{
	sigset_t none;
	int problem;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Its own group: Ctrl-C goes to us, who drain first. So it may not read from the terminal
	 * either. */
	setpgid(0, 0);
	if (isatty(STDIN_FILENO)) {
		int null = open("/dev/null", O_RDONLY);

		if (null >= 0 && dup2(null, STDIN_FILENO) == STDIN_FILENO && null != STDIN_FILENO)
			close(null);
	}
	unsetenv(CTL_TOKEN_ENV); /* ours, not the service's */
	/* Should we be killed, nobody would renew it nor tell it to end. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(CANNOT_START);
	execvp(command[0], command);
	problem = errno;
	if (write(failed_fd, &problem, sizeof(problem)) < 0)
		problem = 0;
	_exit(problem == ENOENT ? NOT_FOUND : CANNOT_START);
}

/* DONE, or the exit status after saying why. */
static int start_command(struct run *r)
{
	char *const *command = r->o->command;
	pid_t parent = getpid();
	int failed[2], problem = 0;
	ssize_t n;

	if (pipe2(failed, O_CLOEXEC) < 0)
		return ctl_fail("cannot make a pipe");
	r->child = fork();
	if (r->child == 0)
		become(command, parent, failed[1]);
	close(failed[1]);
	if (r->child < 0) {
		close(failed[0]);
		r->child = 0;
		fprintf(stderr, "registryctl: cannot start %s: %s\n", command[0], strerror(errno));
		return CANNOT_START;
	}
	do {
		n = read(failed[0], &problem, sizeof(problem));
	} while (n < 0 && errno == EINTR);
	close(failed[0]);
	if (n <= 0)
		return DONE;
	fprintf(stderr, "registryctl: cannot start %s: %s\n", command[0], strerror(problem));
	waitpid(r->child, NULL, 0);
	r->child = 0;
	return problem == ENOENT ? NOT_FOUND : CANNOT_START;
}

/* --- is it there yet? ------------------------------------------------------------------------ */

static void run_register(struct run *r)
{
	struct err err;

	r->self = reg_self_start(r->client, str_from(r->app), r->instance, &err);
	if (!r->self)
		fprintf(stderr, "registryctl: %s\n", err.text);
}

static void probe_end(struct run *r)
{
	loop_timer_stop(r->loop, &r->probe_again);
	if (r->probe.fd < 0)
		return;
	loop_io_remove(r->loop, &r->probe);
	close(TAKE_FD(r->probe.fd));
}

static void probe_on_event(struct loop_io *io, uint32_t events)
{
	struct run *r = container_of(io, struct run, probe);
	bool is_there = net_socket_error(io->fd) == 0 && !(events & (EPOLLHUP | EPOLLERR));

	probe_end(r);
	if (is_there)
		run_register(r);
	else
		loop_timer_start(r->loop, &r->probe_again, PROBE_MS);
}

static void probe_start(struct run *r)
{
	probe_end(r);
	r->probe.fd = net_connect(&r->addr);
	if (r->probe.fd >= 0 && loop_io_add(r->loop, &r->probe, EPOLLOUT) < 0)
		close(TAKE_FD(r->probe.fd));
	loop_timer_start(r->loop, &r->probe_again, r->probe.fd < 0 ? PROBE_MS : PROBE_TIMEOUT_MS);
}

static void probe_on_timer(struct loop_timer *timer)
{
	probe_start(container_of(timer, struct run, probe_again));
}

/* --- the end --------------------------------------------------------------------------------- */

static void on_left(void *arg)
{
	loop_stop(((struct run *)arg)->loop);
}

static void run_on_ended(struct run *r, int status)
{
	r->child = 0;
	r->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	loop_timer_stop(r->loop, &r->drain);
	probe_end(r);
	if (r->self)
		reg_self_stop(&r->self, on_left, r);
	else
		loop_stop(r->loop);
}

/* Others than ours come too where we are process 1 of a container. */
static void on_child(int signo, void *arg)
{
	struct run *r = arg;
	pid_t pid;
	int status;

	(void)signo;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == r->child)
			run_on_ended(r, status);
	}
}

static void forward(const struct run *r, int signo)
{
	if (r->child)
		kill(r->child, signo);
}

static void on_drained(struct loop_timer *timer)
{
	struct run *r = container_of(timer, struct run, drain);

	forward(r, r->stop_with);
}

/* The first one begins the drain, another one ends it. */
static void on_stop(int signo, void *arg)
{
	struct run *r = arg;
	bool is_first = r->stop_with == 0;

	r->stop_with = signo;
	probe_end(r);
	if (is_first && r->self && r->o->drain_ms) {
		reg_self_set_status(r->self, REG_OUT_OF_SERVICE);
		loop_timer_start(r->loop, &r->drain, r->o->drain_ms);
		return;
	}
	loop_timer_stop(r->loop, &r->drain);
	forward(r, signo);
}

static void on_other(int signo, void *arg)
{
	forward(arg, signo);
}

static bool watch_signals(struct run *r)
{
	static const int others[] = { SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		if (loop_signal(r->loop, others[i], on_other, r) < 0)
			return false;
	}
	return loop_signal(r->loop, SIGTERM, on_stop, r) == 0 &&
	       loop_signal(r->loop, SIGINT, on_stop, r) == 0 &&
	       loop_signal(r->loop, SIGCHLD, on_child, r) == 0;
}

int ctl_run(const struct ctl *o, const char *app, const struct reg_instance *instance)
{
	struct str url = str_from(o->url);
	const struct reg_client_config config = { .urls = &url,
						  .url_count = 1,
						  .may_resolve = true,
						  .access = ctl_access(o),
						  .on_event = ctl_on_event };
	struct run r = { .o = o, .app = app, .instance = instance, .loop = loop_new() };
	struct err err = { "cannot make an event loop" };
	int status = FAILED;

	r.probe = (struct loop_io) { .fd = -1, .on_event = probe_on_event };
	r.probe_again.on_fire = probe_on_timer;
	r.drain.on_fire = on_drained;
	reg_instance_addr(instance, &r.addr);
	if (r.loop)
		r.client = reg_client_new(r.loop, &config, &err);
	if (!r.client || !watch_signals(&r))
		status = ctl_fail(err.text);
	else
		status = start_command(&r);
	if (status == DONE) {
		if (o->at_once)
			run_register(&r);
		else
			probe_start(&r);
		loop_run(r.loop);
		status = r.status;
	}
	probe_end(&r);
	reg_client_free(&r.client);
	loop_free(r.loop);
	return status;
}
