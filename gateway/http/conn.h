/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client connection: socket, TLS, buffers, deadlines, orderly closing. Knows nothing of HTTP; the
 * protocol chosen after the handshake (http1.c) does. Edge-triggered: readiness is remembered in
 * can_read and can_write until the socket says EAGAIN, so an idle keep-alive connection costs no
 * epoll_ctl and no read that finds nothing.
 */
#pragma once

#include <arpa/inet.h>
#include <openssl/ssl.h>

#include "gateway/worker.h"
#include "lib/buf.h"

struct conn_proto {
	/* Something changed: bytes may be readable, output was taken, the request's response moved
	 * on. */
	void (*on_work)(struct conn *c);
	/* The connection is going; let go of requests. Called once. */
	void (*on_close)(struct conn *c);
	/* The deadline passed. Either set a new one, or answer and call conn_finish or conn_close.
	 */
	void (*on_deadline)(struct conn *c);
	/* Whether something for the client is being worked on: a ticket can go along with it. */
	bool (*will_answer)(const struct conn *c);
};

struct conn {
	struct loop_io io;
	struct worker *worker;
	struct worker_conf *conf; /* held while the handshake needs its certificates */
	struct list node;
	SSL *ssl;             /* NULL on plain connections */
	struct net_addr peer; /* as a listed proxy says, or as it is */
	struct str peer_ip;   /* as text, in peer_text */
	char peer_text[INET6_ADDRSTRLEN];
	unsigned listener;
	struct buf in, out;
	const char *tls;                /* version, "" on plain connections */
	uint64_t tls_policy;            /* under which it was made */
	char *client_certificate;       /* verified, as a text for services; NULL: none */
	char *client_names;             /* all names in it, see tls_client_names; NULL: none */
	int64_t client_until_s;         /* ... and the end of its time */
	const struct conn_proto *proto; /* NULL during the handshake */
	void *proto_state;
	struct loop_timer timer;
	/* Monotonic, UINT64_MAX: none. The timer may fire earlier and is then put off. */
	uint64_t deadline_ms; /* the protocol's */
	uint64_t stall_ms;    /* the client takes too little of what is queued */
	uint64_t stall_from_ms;
	int64_t write_credit_ms; /* how long it may still let us wait */
	struct loop_task work, free;
	uint64_t bytes_in, bytes_out;
	bool can_read, can_write;
	bool awaits_proxy; /* the PROXY header comes before everything else */
	bool expects_eof;  /* the peer's FIN is in: a short read does not mean that there is nothing
			      more */
	bool has_eof;      /* the peer sent its last byte */
	bool is_finishing; /* flush what is queued, then close; nothing more is read as requests */
	bool is_closed;
	bool wants_shut;   /* our FIN follows what is queued, but the peer is still read from */
	bool has_shut;     /* our FIN is out */
	bool is_holding;   /* TLS records may be kept back, to go with others */
	bool is_lingering; /* ... and only the peer's is waited for */
};

#define CONN_OUT_HIGH (64UL * 1024) /* so much queued: whoever produces should pause */
#define CONN_OUT_LOW  (16UL * 1024)

/* Takes the accepted socket over. */
void conn_accept(struct worker *w, unsigned listener, int fd, const struct net_addr *peer);
/* Begins a request of this connection; NULL when out of memory. */
struct request *conn_request_new(struct conn *c, const char *protocol,
				 const struct downstream_ops *down, void *down_state);
/* Runs on_work and flushes at the end of this round. */
void conn_kick(struct conn *c);
void conn_set_deadline(struct conn *c, uint64_t delay_ms);
void conn_clear_deadline(struct conn *c);

/* Reads once into `in`. Returns true when there is something new; false when there is nothing now,
 * or has_eof was set, or it closed. */
bool conn_fill(struct conn *c);
/* Makes room in `out`: at least `want` bytes or NULL (out of memory). */
char *conn_reserve(struct conn *c, size_t want, size_t *room);
/* Flush, then close with care that a peer still sending does not lose the answer to a reset. */
void conn_finish(struct conn *c);
/* Flush, then FIN; reading goes on. */
void conn_half_close(struct conn *c);
/* Close now. */
void conn_close(struct conn *c);
static inline bool conn_is_congested(const struct conn *c)
{
	return buf_len(&c->out) >= CONN_OUT_HIGH;
}
