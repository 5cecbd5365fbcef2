/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the HTTP server share: server, connections, requests in progress. */
#pragma once

#include "lib/clock.h"
#include "lib/http_server.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/tls_server.h"

#define HTTP_LISTENERS_MAX 8
#define HTTP_SPARES_MAX    32
#define HTTP_SPARE_CAP_MAX 65536
#define HTTP_OUT_MAX       (256UL << 20)

enum conn_state {
	CONN_READING,   /* a request, or waits for one */
	CONN_WAITING,   /* a handler has the request */
	CONN_STREAMING, /* a handler writes the answer piece by piece */
	CONN_LINGERING, /* everything is said; only swallows what the peer still sends */
};

/* What the deadline is about. */
enum conn_phase {
	PHASE_NONE,
	PHASE_HANDSHAKE,
	PHASE_IDLE,
	PHASE_HEAD,
	PHASE_BODY,
	PHASE_WRITE,
	PHASE_LINGER
};

/* Certificates and policy, until the last handshake that began with them is over. */
struct http_tls {
	struct tls_server *server;
	size_t refs;
};

struct http_shared {
	struct http_server *server;
	size_t refs, len;
	char bytes[];
};

struct pending {
	struct http_request req;
	struct http_conn *conn;
	struct arena arena;
	struct buf headers; /* added to the answer */
	struct list node;   /* among the spare ones */
};

struct http_conn {
	struct http_server *server;
	struct loop_io io;
	struct loop_timer timer; /* never later than deadline_ms, often earlier */
	struct loop_task again;
	struct list node; /* in server->idle or ->busy */
	struct net_addr peer;
	SSL *ssl;             /* NULL without TLS */
	struct http_tls *tls; /* until the handshake is done */
	struct buf in, out;
	struct http_shared *tail; /* sent after the first tail_after bytes of `out` */
	size_t tail_at, tail_after;
	size_t charged; /* of server->queued, for `out` */
	uint64_t write_from_ms;
	int64_t write_credit_ms; /* how long the reader may still let us wait */
	struct http1_scan scan;
	struct http1_body body;
	size_t head_len, body_end, raw_at; /* of a body in progress, offsets into `in` */
	uint64_t deadline_ms;
	size_t lingered;
	size_t stream_grace; /* of a large first piece: it may be queued beyond the bound */
	struct pending *pending;
	enum conn_state state;
	enum conn_phase phase;
	bool is_local;
	bool can_read, can_write;   /* edge-triggered: true until the socket says EAGAIN */
	bool has_hangup, is_at_end; /* the peer sends no more; and all of it was read */
	bool has_head;              /* of the request being read; its body follows */
	bool closes;                /* after what is in `out` */
	bool is_refused;            /* framing is in doubt: nothing more is parsed */
	bool is_cut_off;            /* a stream's reader was too slow */
	bool has_streamed;          /* the first piece of the present stream */
	bool is_running;            /* conn_run is on the stack */
	bool is_http10, is_head_request, is_chunked;
};

struct listener {
	struct http_server *server;
	struct loop_io io;
	bool is_local;
};

struct http_server {
	struct loop *loop;
	struct http_server_config config;
	struct http1_limits limits;
	struct listener listeners[HTTP_LISTENERS_MAX];
	unsigned listener_count;
	struct http_tls *tls; /* for new connections; NULL without */
	struct loop_timer accept_again;
	struct list idle, busy; /* connections; idle (or in the handshake): longest first */
	struct buf spare_bufs[HTTP_SPARES_MAX];
	unsigned spare_buf_count;
	struct list spare_pendings;
	unsigned spare_pending_count;
	struct buf scratch;
	size_t queued;          /* bytes of memory in `out`s and in shared bodies */
	struct http1_head head; /* of the request being handled */
	char date[sizeof("Date: \r\n") + CLOCK_HTTP_DATE_LEN];
	uint64_t date_s;
	struct http_server_stats stats;
	bool is_stopping;
	void (*on_stopped)(void *arg);
	void *stopped_arg;
	struct loop_task stopped;
};

/* --- http_server.c --------------------------------------------------------------------------- */

/* Buffers from the server's stock: an idle connection holds none. */
void http_buf_borrow(struct http_server *s, struct buf *b, size_t max);
void http_buf_return(struct http_server *s, struct buf *b);
/* NULL when out of memory. */
struct pending *http_pending_new(struct http_server *s);
void http_pending_free(struct http_server *s, struct pending *p);
/* The last connection of a server that stops has gone? */
void http_server_check_stopped(struct http_server *s);

/* --- http_shared.c --------------------------------------------------------------------------- */

/* Bytes that wait to be sent, the next ones of them, and that so many were sent. */
size_t http_conn_unsent(const struct http_conn *c);
struct str http_conn_next_out(const struct http_conn *c);
void http_conn_sent(struct http_conn *c, size_t n);
/* Queues shared bytes behind what is in `out`; one at a time. */
void http_conn_add_shared(struct http_conn *c, struct http_shared *shared);
/* Brings server->queued up to date with `out`. */
void http_conn_charge(struct http_conn *c);
/* Whether so much more may be queued by all connections together. */
bool http_server_has_room(const struct http_server *s, size_t more);

/* --- http_conn.c ----------------------------------------------------------------------------- */

/* Takes the descriptor over. */
void http_conn_start(struct http_server *s, int fd, const struct net_addr *peer, bool is_local);
void http_conn_close(struct http_conn *c);
/* The peer is gone: tells the handler that still has the request. */
void http_conn_drop_request(struct http_conn *c);
/* The request was answered. */
void http_conn_answered(struct http_conn *c);
/* Runs the connection at the end of the round, when something happened outside of its own events.
 */
void http_conn_kick(struct http_conn *c);

/* --- http_tls.c ------------------------------------------------------------------------------ */

/* NULL inside is fine. */
void http_tls_put(struct http_tls **tls);
/* Gives a new connection its TLS, if the server has it. 0 or -ENOMEM. */
int http_tls_accept(struct http_conn *c);
/* 0 when the handshake is done, -EAGAIN, or another -errno: it failed. */
int http_tls_handshake(struct http_conn *c);
/* Says that nothing more will be sent. */
void http_tls_shutdown(struct http_conn *c);

/* --- http_answer.c --------------------------------------------------------------------------- */

/* Answers without a handler, and ends the connection: its framing is in doubt. */
void http_conn_refuse(struct http_conn *c, unsigned status, const char *detail);
