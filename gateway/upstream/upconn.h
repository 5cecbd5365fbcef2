/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a service instance, and the pool of those that wait for their next request. One
 * request at a time. Registered once, edge-triggered; while it waits in the pool any event (the
 * service closes, or talks unasked) closes it.
 */
#pragma once

#include "gateway/upstream/service.h"
#include "lib/buf.h"

struct upconn {
	struct loop_io io;
	struct worker *worker;
	struct service *service;   /* held */
	struct endpoint *endpoint; /* held */
	struct list node;          /* in endpoint->idle */
	struct loop_timer idle_timer;
	struct loop_task free;
	SSL *ssl;                /* NULL: plain */
	struct tls_client *tls;  /* held; under which it was made, NULL: plain */
	struct circuit *circuit; /* held: it counts the connection. NULL: nobody does */
	struct buf in;
	bool can_read, can_write, is_connected, has_eof, is_closed;
	bool expects_eof; /* the peer's FIN is in: a short read does not mean that there is nothing
			     more */
	bool is_reused;   /* served a request before this one */
	/* Whoever uses it now; NULL in the pool. */
	void (*on_event)(struct upconn *u, void *arg);
	void *arg;
};

enum upconn_choice {
	UPCONN_ANY,
	UPCONN_CHECKED, /* look at the socket once more before reuse: the request cannot be repeated
			 */
	UPCONN_FRESH,   /* none of the pool */
};

/*
 * A connection for one request: from the pool (most recently used first), or a new one, still
 * connecting. -errno when none can be made, -EUSERS when the service has as many as it may have.
 */
int upconn_take(struct upconn **out, struct service *s, struct endpoint *e,
		enum upconn_choice choice);
/* While it is not connected, on its events: 0 when it can be used, -EAGAIN when it is still
 * waiting, or another -errno, for TLS -EPROTO. */
int upconn_connect(struct upconn *u);
/* Whether the protocol was agreed on (ALPN); in clear there is nothing to agree on: true. */
bool upconn_speaks(const struct upconn *u, struct str protocol);
/* Clean end of a response: back to the pool; closed when the pool is full, the instance gone, or
 * something came after that response. */
void upconn_give(struct upconn *u);
void upconn_close(struct upconn *u);
void upconn_close_idle(struct endpoint *e);

/* Reads once into `in`. The count; 0 at the end of the stream (has_eof); -EAGAIN; or another
 * -errno. */
long upconn_fill(struct upconn *u);
/* Reads once to `out`. */
long upconn_read(struct upconn *u, void *out, size_t len);
/* Sends two pieces, as much as goes: the count, -EAGAIN, or another -errno. */
long upconn_send(struct upconn *u, struct str head, struct str body);
