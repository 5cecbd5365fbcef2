/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 load for the gateway benchmark: every connection keeps so many requests going, those of
 * all users in turn. Tokens are never indexed (RFC 7541 7.1.3): a connection carries those of many
 * users.
 *
 * usage: streams PORT SECONDS CONNECTIONS STREAMS USERS_FILE PATH [PATH...]   (loopback only)
 */
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#include "tests/bench/client.h"

#define EVENTS_MAX 256
#define OUT_MAX    (64UL * 1024)

struct link {
	int fd;
	SSL *ssl;
	nghttp2_session *session; /* NULL during the handshake */
	char out[OUT_MAX];        /* not written yet */
	size_t out_len;
};

struct request {
	uint64_t began_ns;
	bool is_good;
};

static struct {
	int epoll_fd;
	unsigned streams;
	char **paths;
	size_t path_count;
	struct client_user *users;
	size_t user_count, next;
	size_t under_way;
	bool is_over;
	struct client_count count;
} g;

static nghttp2_nv field(const char *name, const char *value, uint8_t flags)
{
	return (nghttp2_nv) {
		.name = (uint8_t *)(uintptr_t)name,
		.value = (uint8_t *)(uintptr_t)value,
		.namelen = strlen(name),
		.valuelen = strlen(value),
		.flags = flags,
	};
}

static void submit(nghttp2_session *session)
{
	const struct client_user *user = &g.users[g.next % g.user_count];
	struct request *r = calloc(1, sizeof(*r));
	char bearer[4096];
	nghttp2_nv nv[9];
	size_t n = 0;

	if (!r)
		client_die("calloc");
	nv[n++] = field(":method", "GET", 0);
	nv[n++] = field(":scheme", "https", 0);
	nv[n++] = field(":authority", "127.0.0.1", 0);
	nv[n++] = field(":path", g.paths[g.next++ % g.path_count], 0);
	nv[n++] = field("user-agent", "gatehouse-bench/1", 0);
	nv[n++] = field("accept", "application/json", 0);
	nv[n++] = field("x-device-id", user->device, 0);
	if (user->token) {
		snprintf(bearer, sizeof(bearer), "Bearer %s", user->token);
		nv[n++] = field("authorization", bearer, NGHTTP2_NV_FLAG_NO_INDEX);
	}
	r->began_ns = client_now_ns();
	if (nghttp2_submit_request(session, NULL, nv, n, NULL, r) < 0)
		client_die("nghttp2_submit_request");
	g.under_way++;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *arg)
{
	struct request *r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	if (r && name_len == 7 && memcmp(name, ":status", 7) == 0)
		r->is_good = value_len == 3 && memcmp(value, "200", 3) == 0;
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t len, void *arg)
{
	(void)session;
	(void)flags;
	(void)id;
	(void)data;
	(void)arg;
	g.count.bytes += len;
	return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *arg)
{
	struct request *r = nghttp2_session_get_stream_user_data(session, id);

	(void)arg;
	g.count.broken += error != 0;
	g.count.bad_status += !r->is_good;
	client_answered(&g.count, client_now_ns() - r->began_ns);
	g.under_way--;
	if (!g.is_over)
		submit(session);
	free(r);
	return 0;
}

static void start_session(struct link *l)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20 },
	};
	nghttp2_session_callbacks *cb;
	const unsigned char *alpn;
	unsigned len;

	SSL_get0_alpn_selected(l->ssl, &alpn, &len);
	if (len != 2 || memcmp(alpn, "h2", 2) != 0) {
		fprintf(stderr, "streams: the target does not speak HTTP/2\n");
		exit(1);
	}
	if (nghttp2_session_callbacks_new(&cb))
		client_die("nghttp2");
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	if (nghttp2_session_client_new(&l->session, cb, l) ||
	    nghttp2_submit_settings(l->session, NGHTTP2_FLAG_NONE, settings, 2) ||
	    nghttp2_session_set_local_window_size(l->session, NGHTTP2_FLAG_NONE, 0, 1 << 24))
		client_die("nghttp2");
	nghttp2_session_callbacks_del(cb);
	for (unsigned i = 0; i < g.streams; i++)
		submit(l->session);
}

/* All frames that are ready, in as few records as possible. */
static void link_write(struct link *l)
{
	for (;;) {
		const uint8_t *data;
		ssize_t n = 0;
		int sent;

		while (l->out_len < OUT_MAX / 2 &&
		       (n = nghttp2_session_mem_send(l->session, &data)) > 0) {
			if ((size_t)n > OUT_MAX - l->out_len)
				client_die("frame");
			memcpy(l->out + l->out_len, data, (size_t)n);
			l->out_len += (size_t)n;
		}
		if (n < 0)
			client_die("nghttp2_session_mem_send");
		if (l->out_len == 0)
			return;
		sent = SSL_write(l->ssl, l->out, (int)l->out_len);
		if (sent <= 0)
			return;
		l->out_len -= (size_t)sent;
		memmove(l->out, l->out + sent, l->out_len);
	}
}

/* The connection must not end while there are requests. */
static void link_on_event(struct link *l)
{
	static uint8_t chunk[65536];
	int n;

	if (!l->session) {
		n = SSL_do_handshake(l->ssl);
		if (n != 1) {
			if (!client_would_block(l->ssl, n))
				client_die("handshake");
			return;
		}
		start_session(l);
	}
	for (;;) {
		n = SSL_read(l->ssl, chunk, sizeof(chunk));
		if (n <= 0 && !client_would_block(l->ssl, n))
			client_die("connection lost");
		if (n <= 0)
			break;
		if (nghttp2_session_mem_recv(l->session, chunk, (size_t)n) != n)
			client_die("nghttp2_session_mem_recv");
	}
	link_write(l);
}

static void run(struct link *links, unsigned count, unsigned seconds)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t began = client_now_ns(), until = began + seconds * 1000000000ULL;

	/* What was asked is answered: the target's work and its log then belong to our count. */
	do {
		int n = epoll_wait(g.epoll_fd, events, EVENTS_MAX, 100);

		for (int i = 0; i < n; i++)
			link_on_event(events[i].data.ptr);
		g.is_over = client_now_ns() >= until;
	} while (!g.is_over || g.under_way);
	g.count.duration_ns = client_now_ns() - began;
	client_print(&g.count, "\"streams\": %u", count * g.streams);
	for (unsigned i = 0; i < count; i++) {
		nghttp2_session_del(links[i].session);
		SSL_free(links[i].ssl);
		close(links[i].fd);
	}
}

int main(int argc, char **argv)
{
	static const unsigned char alpn[] = "\2h2";
	struct link *links;
	unsigned count;
	SSL_CTX *ctx;

	if (argc < 7) {
		fprintf(stderr,
			"usage: streams PORT SECONDS CONNECTIONS STREAMS USERS_FILE PATH...\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	count = (unsigned)atoi(argv[3]);
	g.streams = (unsigned)atoi(argv[4]);
	g.users = client_users(argv[5], &g.user_count);
	g.paths = argv + 6;
	g.path_count = (size_t)argc - 6;
	ctx = SSL_CTX_new(TLS_client_method());
	g.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	links = calloc(count, sizeof(*links));
	if (!ctx || g.epoll_fd < 0 || !links)
		client_die("start");
	SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	for (unsigned i = 0; i < count; i++) {
		struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET,
					  .data.ptr = &links[i] };

		links[i].fd = client_connect((uint16_t)atoi(argv[1]));
		links[i].ssl = client_tls(ctx, links[i].fd);
		if (epoll_ctl(g.epoll_fd, EPOLL_CTL_ADD, links[i].fd, &ev) < 0)
			client_die("epoll_ctl");
	}
	run(links, count, (unsigned)atoi(argv[2]));
	SSL_CTX_free(ctx);
	client_users_free(g.users, g.user_count);
	free(links);
	return 0;
}
