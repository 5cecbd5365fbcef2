/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load for the registry benchmark, over keep-alive connections with one request under way on each.
 * Prints one line of JSON.
 *
 * usage: leases PORT register FIRST COUNT CONNECTIONS [LEASE_S]
 *        leases PORT renew INSTANCES SECONDS CONNECTIONS [A_SECOND]
 *        leases PORT watch WATCHERS WRITES
 *        leases PORT hold WATCHERS 0              until it is killed     (loopback only)
 */
#include <sys/epoll.h>

#include "tests/bench/leases.h"

#define APPS 200 /* the instances are spread over so many */

struct conn {
	int fd;
	uint64_t began_ns;
	size_t got;
	char in[4096];
};

static struct {
	const char *mode;
	uint16_t port;
	uint64_t next, end; /* which instance, and where it ends */
	uint64_t instances; /* renew: from the beginning again after so many */
	uint64_t until_ns;  /* renew */
	unsigned lease_s;
	uint64_t rate; /* so many a second; 0: as many as go */
	uint64_t began_ns, asked;
	uint64_t done, bad;
	struct leases_times times;
} g;

static size_t write_request(char *out, size_t size, uint64_t n)
{
	char body[512];
	int len;

	if (g.instances)
		return (size_t)snprintf(out, size,
					"POST /v1/apps/app-%" PRIu64 "/instances/instance-%" PRIu64
					"/renew HTTP/1.1\r\nHost: registry\r\nContent-Length: "
					"0\r\n\r\n",
					n % APPS, n);
	len = snprintf(body, sizeof(body), LEASES_INSTANCE, (unsigned)(n >> 16 & 255),
		       (unsigned)(n >> 8 & 255), (unsigned)(n & 255), (unsigned)(n % 3), g.lease_s);
	return (size_t)snprintf(out, size,
				"PUT /v1/apps/app-%" PRIu64 "/instances/instance-%" PRIu64
				" HTTP/1.1\r\nHost: registry\r\nContent-Length: %d\r\n\r\n%s",
				n % APPS, n, len, body);
}

static void wait_for_turn(void)
{
	uint64_t due_ns, now_ns = leases_now_ns();

	if (!g.rate)
		return;
	due_ns = g.began_ns + g.asked++ * 1000000000 / g.rate;
	if (due_ns > now_ns)
		usleep((useconds_t)((due_ns - now_ns) / 1000));
}

/* False when there is nothing more to ask. */
static bool ask(struct conn *c)
{
	char request[1024];
	uint64_t n;
	size_t len;

	if (g.instances ? leases_now_ns() > g.until_ns : g.next == g.end)
		return false;
	wait_for_turn();
	n = g.next++;
	if (g.instances && g.next == g.instances)
		g.next = 0;
	len = write_request(request, sizeof(request), n);
	c->began_ns = leases_now_ns();
	c->got = 0;
	if (send(c->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
		leases_die("send");
	return true;
}

/* Answers are small and come whole, or nearly. */
static bool is_complete(struct conn *c)
{
	const char *end, *length;

	c->in[c->got] = '\0';
	end = strstr(c->in, "\r\n\r\n");
	if (!end)
		return false;
	length = strstr(c->in, "Content-Length: ");
	return !length || c->got >= (size_t)(end + 4 - c->in) + strtoul(length + 16, NULL, 10);
}

/* False when the connection has done its part. */
static bool on_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->got, sizeof(c->in) - 1 - c->got, 0);

	if (n <= 0)
		leases_die("recv");
	c->got += (size_t)n;
	if (!is_complete(c))
		return true;
	g.done++;
	g.bad += strncmp(c->in + 9, "20", 2) != 0;
	leases_note(&g.times, leases_now_ns() - c->began_ns);
	return ask(c);
}

static void run(unsigned connections)
{
	struct conn *conns = calloc(connections, sizeof(*conns));
	int epoll_fd = epoll_create1(0);
	unsigned open = 0;
	uint64_t began_ns;

	if (!conns || epoll_fd < 0)
		leases_die("start");
	for (unsigned i = 0; i < connections; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &conns[i] };

		conns[i].fd = leases_connect(g.port);
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conns[i].fd, &ev) < 0)
			leases_die("epoll_ctl");
	}
	began_ns = g.began_ns = leases_now_ns();
	for (unsigned i = 0; i < connections; i++)
		open += ask(&conns[i]);
	while (open) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll_fd, events, 64, 10000);

		if (n <= 0)
			leases_die("no answer within 10 s");
		for (int i = 0; i < n; i++)
			open -= !on_readable(events[i].data.ptr);
	}
	leases_print(g.done, g.bad, leases_now_ns() - began_ns, &g.times, 0);
	free(conns);
}

/* --- watchers -------------------------------------------------------------------------------- */

static void write_all(int fd, const char *text, size_t len)
{
	if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		leases_die("send");
}

static void change(int fd, unsigned version)
{
	char body[512], request[1024], in[4096];
	int len = snprintf(body, sizeof(body), LEASES_INSTANCE, 1U, 2U, version & 255, version,
			   300U);

	len = snprintf(request, sizeof(request),
		       "PUT /v1/apps/watched/instances/one HTTP/1.1\r\nHost: registry\r\n"
		       "Content-Length: %d\r\n\r\n%s",
		       len, body);
	write_all(fd, request, (size_t)len);
	if (recv(fd, in, sizeof(in), 0) <= 0)
		leases_die("recv");
	if (strncmp(in + 9, "20", 2) != 0)
		leases_die("a change was refused");
}

__attribute__((noreturn)) static void hold(int epoll_fd)
{
	static char sink[65536];

	puts("open");
	fflush(stdout);
	for (;;) {
		struct epoll_event ev;

		if (epoll_wait(epoll_fd, &ev, 1, -1) == 1 &&
		    recv(((struct conn *)ev.data.ptr)->fd, sink, sizeof(sink), 0) <= 0)
			leases_die("a watch ended");
	}
}

/* One connection a watcher, as gateways have it; a change waits for everybody to see the last. */
static void watch(unsigned watchers, unsigned writes, bool is_held)
{
	static const char request[] =
		"GET /v1/watch?apps=watched HTTP/1.1\r\nHost: registry\r\n\r\n";
	struct conn *conns = calloc(watchers, sizeof(*conns));
	int epoll_fd = epoll_create1(0), writer = leases_connect(g.port);
	uint64_t began_ns = leases_now_ns(), bytes = 0;

	if (!conns || epoll_fd < 0)
		leases_die("start");
	change(writer, 100000);
	for (unsigned i = 0; i < watchers; i++) {
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &conns[i] };

		conns[i].fd = leases_connect(g.port);
		write_all(conns[i].fd, request, sizeof(request) - 1);
		for (conns[i].got = 0; conns[i].got < sizeof(conns[i].in) - 1;) {
			ssize_t n = recv(conns[i].fd, conns[i].in + conns[i].got,
					 sizeof(conns[i].in) - 1 - conns[i].got, 0);

			if (n <= 0)
				leases_die("a watch ended");
			conns[i].got += (size_t)n;
			conns[i].in[conns[i].got] = '\0';
			if (strstr(conns[i].in, "event: reset"))
				break;
		}
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conns[i].fd, &ev) < 0)
			leases_die("epoll_ctl");
	}
	if (is_held)
		hold(epoll_fd);
	for (unsigned w = 0; w < writes; w++) {
		uint64_t written_ns = leases_now_ns();
		unsigned seen = 0;

		change(writer, w);
		while (seen < watchers) {
			struct epoll_event events[256];
			int count = epoll_wait(epoll_fd, events, 256, 10000);

			if (count <= 0)
				leases_die("a change was not seen within 10 s");
			for (int i = 0; i < count; i++) {
				struct conn *c = events[i].data.ptr;
				ssize_t n = recv(c->fd, c->in, sizeof(c->in) - 1, 0);

				if (n <= 0)
					leases_die("a watch ended");
				c->in[n] = '\0';
				/* Comments come in between. */
				if (!strstr(c->in, "event: "))
					continue;
				bytes += (uint64_t)n;
				seen++;
				leases_note(&g.times, leases_now_ns() - written_ns);
			}
		}
	}
	leases_print(writes, 0, leases_now_ns() - began_ns, &g.times,
		     bytes / MAX(watchers, 1U) / MAX(writes, 1U));
	free(conns);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	g.port = (uint16_t)atoi(argv[1]);
	g.mode = argv[2];
	if (strcmp(g.mode, "watch") == 0 || strcmp(g.mode, "hold") == 0) {
		watch((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]), g.mode[0] == 'h');
		return 0;
	}
	if (argc < 6)
		return 2;
	if (strcmp(g.mode, "register") == 0) {
		g.next = strtoull(argv[3], NULL, 10);
		g.end = g.next + strtoull(argv[4], NULL, 10);
		g.lease_s = argc > 6 ? (unsigned)atoi(argv[6]) : 600;
	} else {
		g.rate = argc > 6 ? strtoull(argv[6], NULL, 10) : 0;
		g.instances = strtoull(argv[3], NULL, 10);
		g.until_ns = leases_now_ns() + strtoull(argv[4], NULL, 10) * 1000000000;
	}
	run((unsigned)atoi(argv[5]));
	return 0;
}
