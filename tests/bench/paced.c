/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load at a fixed rate for the gateway benchmark, over kept HTTP/1.1 connections with TLS: a
 * request is due when its time has come, whether or not earlier ones were answered, and its latency
 * counts from then. A target that stalls so has all that waited counted against it.
 *
 * usage: paced PORT SECONDS CONNECTIONS RATE USERS_FILE PATH [PATH...]   (loopback only)
 */
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "tests/bench/client.h"

#define EVENTS_MAX 256
#define TICK_NS    100000L

struct link {
	int fd;
	SSL *ssl;
	bool is_ready;
	uint64_t due_ns; /* of the request that is under way; 0: none */
	char in[4096];   /* of the response: its head, then what is left of the body is counted */
	size_t in_len;
	size_t body_left;
	bool has_head;
	struct link *next; /* of those without a request */
};

static struct {
	int epoll_fd, timer_fd;
	uint64_t gap_ns, next_due_ns, late;
	struct link *idle;
	char **requests;
	size_t request_count, next;
	struct client_count count;
} g;

static void make_requests(const char *users_file, char **paths, size_t path_count)
{
	struct client_user *users = client_users(users_file, &g.request_count);

	g.requests = calloc(g.request_count, sizeof(*g.requests));
	for (size_t i = 0; g.requests && i < g.request_count; i++) {
		if (asprintf(&g.requests[i],
			     "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
			     "User-Agent: gatehouse-bench/1\r\nAccept: application/json\r\n"
			     "X-Device-Id: %s\r\n%s%s%s\r\n",
			     paths[i % path_count], users[i].device,
			     users[i].token ? "Authorization: Bearer " : "",
			     users[i].token ? users[i].token : "",
			     users[i].token ? "\r\n" : "") < 0)
			client_die("asprintf");
	}
	client_users_free(users, g.request_count);
}

static void link_rest(struct link *l)
{
	l->due_ns = 0;
	l->next = g.idle;
	g.idle = l;
}

/* Sends what is due. Without a free connection a request waits, and its clock runs. */
static void send_due(void)
{
	uint64_t now = client_now_ns();

	while (g.next_due_ns <= now && g.idle) {
		struct link *l = g.idle;
		const char *request = g.requests[g.next++ % g.request_count];
		int len = (int)strlen(request);

		g.idle = l->next;
		l->due_ns = g.next_due_ns;
		l->in_len = l->body_left = 0;
		l->has_head = false;
		g.next_due_ns += g.gap_ns;
		if (SSL_write(l->ssl, request, len) != len)
			client_die("SSL_write");
	}
	if (g.next_due_ns <= now)
		g.late++;
}

/* The head is complete: how much body follows. */
static void link_take_head(struct link *l, const char *end)
{
	const char *length = strcasestr(l->in, "\r\ncontent-length:");

	l->has_head = true;
	g.count.bad_status += memcmp(l->in, "HTTP/1.1 200", 12) != 0;
	if (!length || length > end) {
		fprintf(stderr, "paced: no Content-Length: %s\n", l->in);
		exit(1);
	}
	l->body_left = strtoul(length + 17, NULL, 10);
}

static void link_take(struct link *l, const char *data, size_t len)
{
	g.count.bytes += len;
	if (!l->has_head) {
		size_t room = sizeof(l->in) - 1 - l->in_len, n = len < room ? len : room;
		const char *end;

		memcpy(l->in + l->in_len, data, n);
		l->in_len += n;
		l->in[l->in_len] = '\0';
		end = strstr(l->in, "\r\n\r\n");
		if (!end)
			return;
		link_take_head(l, end);
		/* What of these bytes is body. */
		len -= n - (l->in_len - (size_t)(end + 4 - l->in));
	}
	l->body_left -= len < l->body_left ? len : l->body_left;
	if (l->body_left == 0 && l->due_ns) {
		client_answered(&g.count, client_now_ns() - l->due_ns);
		link_rest(l);
	}
}

static void link_on_event(struct link *l)
{
	static char chunk[65536];
	int n;

	if (!l->is_ready) {
		n = SSL_do_handshake(l->ssl);
		if (n != 1) {
			if (!client_would_block(l->ssl, n))
				client_die("handshake");
			return;
		}
		l->is_ready = true;
		link_rest(l);
	}
	for (;;) {
		n = SSL_read(l->ssl, chunk, sizeof(chunk));
		if (n <= 0 && !client_would_block(l->ssl, n))
			client_die("connection lost");
		if (n <= 0)
			return;
		link_take(l, chunk, (size_t)n);
	}
}

static void round_of_events(void)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(g.epoll_fd, events, EVENTS_MAX, 100);
	uint64_t ticks;

	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr)
			link_on_event(events[i].data.ptr);
		else if (read(g.timer_fd, &ticks, sizeof(ticks)) < 0)
			continue;
	}
}

static unsigned idle_count(void)
{
	unsigned n = 0;

	for (const struct link *l = g.idle; l; l = l->next)
		n++;
	return n;
}

static void run(unsigned connections, unsigned seconds)
{
	uint64_t began, until;

	while (idle_count() < connections)
		round_of_events();
	began = g.next_due_ns = client_now_ns();
	until = began + seconds * 1000000000ULL;
	while (client_now_ns() < until) {
		send_due();
		round_of_events();
	}
	g.count.duration_ns = client_now_ns() - began;
	/* The log shall have a line for each. */
	g.next_due_ns = UINT64_MAX;
	while (idle_count() < connections)
		round_of_events();
	client_print(&g.count, "\"late\": %llu", (unsigned long long)g.late);
}

int main(int argc, char **argv)
{
	struct itimerspec tick = { { 0, TICK_NS }, { 0, TICK_NS } };
	struct epoll_event ev = { .events = EPOLLIN };
	struct link *links;
	unsigned count;
	SSL_CTX *ctx;

	if (argc < 7 || atoi(argv[4]) < 1) {
		fprintf(stderr, "usage: paced PORT SECONDS CONNECTIONS RATE USERS_FILE PATH...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	count = (unsigned)atoi(argv[3]);
	g.gap_ns = 1000000000ULL / (unsigned)atoi(argv[4]);
	make_requests(argv[5], argv + 6, (size_t)argc - 6);
	ctx = SSL_CTX_new(TLS_client_method());
	g.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	g.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	links = calloc(count, sizeof(*links));
	if (!ctx || g.epoll_fd < 0 || g.timer_fd < 0 || !links ||
	    timerfd_settime(g.timer_fd, 0, &tick, NULL) < 0 ||
	    epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, g.timer_fd, &ev) < 0)
		client_die("start");
	SSL_CTX_set_read_ahead(ctx, 1);
	for (unsigned i = 0; i < count; i++) {
		ev = (struct epoll_event) { .events = EPOLLIN | EPOLLOUT | EPOLLET,
					    .data.ptr = &links[i] };
		links[i].fd = client_connect((uint16_t)atoi(argv[1]));
		links[i].ssl = client_tls(ctx, links[i].fd);
		if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, links[i].fd, &ev) < 0)
			client_die("epoll_ctl");
	}
	run(count, (unsigned)atoi(argv[2]));
	for (unsigned i = 0; i < count; i++) {
		SSL_free(links[i].ssl);
		close(links[i].fd);
	}
	for (size_t i = 0; i < g.request_count; i++)
		free(g.requests[i]);
	free(g.requests);
	free(links);
	SSL_CTX_free(ctx);
	return 0;
}
