/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long after an instance was deregistered a gateway still sends requests to it: is two
 * instances, the clients of the gateway, and whoever deregisters, all in one thread, so that there
 * is one clock. Counted from the moment before the registry is told. Prints one line of JSON.
 *
 * usage: cutover REGISTRY_PORT GATEWAY_PORT ROUNDS CONNECTIONS      (loopback only)
 */
#include <netinet/in.h>
#include <sys/epoll.h>

#include "tests/bench/leases.h"

#define SETTLE_NS 150000000ULL /* after a cut: what has not come by now does not come */
#define STUCK_NS  10000000000ULL

enum kind { LISTENER, INSTANCE, CLIENT };

struct end {
	enum kind kind;
	unsigned instance; /* 0: stays, 1: comes and goes */
	int fd;
	size_t got;
	char in[8192];
};

static struct {
	int epoll_fd, registry_fd;
	uint16_t ports[2];
	uint64_t requests[2], last_ns[2]; /* that reached an instance, and when the last one did */
	uint64_t answers;
	struct leases_times times;
} g;

static struct end *end_new(enum kind kind, int fd, unsigned instance)
{
	struct end *e = calloc(1, sizeof(*e));
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = e };

	if (!e)
		leases_die("calloc");
	e->kind = kind;
	e->fd = fd;
	e->instance = instance;
	if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		leases_die("epoll_ctl");
	return e;
}

static void end_free(struct end *e)
{
	close(e->fd);
	free(e);
}

static void listen_as(unsigned instance)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 256) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		leases_die("listen");
	g.ports[instance] = ntohs(addr.sin_port);
	end_new(LISTENER, fd, instance);
}

/* What the registry says, whole; 20x is expected. */
static void tell(const char *method, unsigned instance)
{
	char body[512] = "", text[1024], in[2048];
	int len;

	if (method[0] == 'P')
		snprintf(body, sizeof(body),
			 "{\"address\":\"127.0.0.1\",\"port\":%u,\"lease_s\":300}",
			 (unsigned)g.ports[instance]);
	len = snprintf(text, sizeof(text),
		       "%s /v1/apps/cutover/instances/i%u HTTP/1.1\r\nHost: r\r\n"
		       "Content-Length: %zu\r\n\r\n%s",
		       method, instance, strlen(body), body);
	if (send(g.registry_fd, text, (size_t)len, MSG_NOSIGNAL) != len ||
	    recv(g.registry_fd, in, sizeof(in), 0) <= 0 || strncmp(in + 9, "20", 2) != 0)
		leases_die("the registry refused");
}

static void ask(const struct end *e)
{
	static const char request[] = "GET /cutover HTTP/1.1\r\nHost: bench.example.com\r\n\r\n";

	if (send(e->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
		leases_die("send");
}

static void on_request(struct end *e)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

	g.requests[e->instance]++;
	g.last_ns[e->instance] = leases_now_ns();
	if (send(e->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0)
		e->got = 0; /* the gateway hung up; the next read says so */
}

static void on_answer(const struct end *e)
{
	if (strncmp(e->in + 9, "200", 3) != 0)
		leases_die("a request failed");
	g.answers++;
	ask(e);
}

static bool has_answer(const struct end *e)
{
	const char *end = strstr(e->in, "\r\n\r\n");

	return end && e->got >= (size_t)(end + 4 - e->in) + 2;
}

static void on_event(struct end *e)
{
	ssize_t n;

	if (e->kind == LISTENER) {
		int fd = accept4(e->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			end_new(INSTANCE, fd, e->instance);
		return;
	}
	n = recv(e->fd, e->in + e->got, sizeof(e->in) - 1 - e->got, 0);
	if (n <= 0) {
		if (e->kind == CLIENT)
			leases_die("the gateway closed a connection");
		end_free(e);
		return;
	}
	e->got += (size_t)n;
	e->in[e->got] = '\0';
	if (e->kind == INSTANCE ? !strstr(e->in, "\r\n\r\n") : !has_answer(e))
		return;
	e->got = 0;
	if (e->kind == INSTANCE)
		on_request(e);
	else
		on_answer(e);
}

static void turn(void)
{
	struct epoll_event events[64];
	int count = epoll_wait(g.epoll_fd, events, 64, 1000);

	if (count < 0)
		leases_die("epoll_wait");
	for (int i = 0; i < count; i++)
		on_event(events[i].data.ptr);
}

static void run_until(uint64_t ns)
{
	while (leases_now_ns() < ns)
		turn();
}

/* Until the instance gets requests. */
static void await(unsigned instance)
{
	uint64_t before = g.requests[instance], began_ns = leases_now_ns();

	while (g.requests[instance] < before + 5) {
		turn();
		if (leases_now_ns() - began_ns > STUCK_NS)
			leases_die("an instance gets no requests");
	}
}

static void cut(void)
{
	uint64_t told_ns;

	tell("PUT", 1);
	await(1);
	run_until(leases_now_ns() + SETTLE_NS / 3);
	told_ns = leases_now_ns();
	tell("DELETE", 1);
	run_until(told_ns + SETTLE_NS);
	leases_note(&g.times, g.last_ns[1] > told_ns ? g.last_ns[1] - told_ns : 0);
}

int main(int argc, char **argv)
{
	uint64_t began_ns = leases_now_ns();
	unsigned rounds, connections;

	if (argc != 5)
		return 2;
	rounds = (unsigned)atoi(argv[3]);
	connections = (unsigned)atoi(argv[4]);
	g.epoll_fd = epoll_create1(0);
	g.registry_fd = leases_connect((uint16_t)atoi(argv[1]));
	listen_as(0);
	listen_as(1);
	tell("PUT", 0);
	usleep(300000); /* the gateway knows it */
	for (unsigned i = 0; i < connections; i++)
		ask(end_new(CLIENT, leases_connect((uint16_t)atoi(argv[2])), 0));
	await(0);
	for (unsigned i = 0; i < rounds; i++)
		cut();
	tell("DELETE", 0);
	leases_print(g.answers, 0, leases_now_ns() - began_ns, &g.times, 0);
	return 0;
}
