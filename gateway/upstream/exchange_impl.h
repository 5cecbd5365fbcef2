/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of an exchange share: exchange.c decides (which instance, whether to try again,
 * how long to wait), a struct upstream_ops speaks the service's protocol. Everything belongs to the
 * worker's thread.
 */
#pragma once

#include "gateway/upstream/exchange.h"
#include "gateway/upstream/h2conn.h"
#include "lib/http1.h"

#define EXCHANGE_TRIED_MAX   8
#define EXCHANGE_INTERIM_MAX 16            /* 1xx responses before the final one */
#define EXCHANGE_BODY_HIGH   (64UL * 1024) /* unsent request body beyond this: the client waits */

struct exchange;
struct upconn;

enum exchange_phase {
	PHASE_PLACE, /* for one request less at the service */
	PHASE_LIST,  /* for the service's instances */
	PHASE_CONNECT,
	PHASE_RESPONSE,
	PHASE_BODY,
};

/* One protocol towards services. Calls may end the attempt, or the exchange: look at is_done. */
struct upstream_ops {
	/* Once for each request. False: out of memory. */
	bool (*prepare)(struct exchange *x);
	/* Takes or makes a connection to x->endpoint and begins an attempt. 0 or -errno. */
	int (*open)(struct exchange *x);
	/* There is more in x->body, or it is complete. Only from PHASE_RESPONSE on. */
	void (*send)(struct exchange *x);
	/* The client takes more of the response. */
	void (*receive)(struct exchange *x);
	/* The attempt ends before the response is complete. Also called when there is none. */
	void (*close)(struct exchange *x);
	/* The response is complete: keeps the connection if it is at a clean end. */
	void (*finish)(struct exchange *x);
};

extern const struct upstream_ops upstream_http1, upstream_http2;

/* An attempt over HTTP/1.1. */
struct exchange_http1 {
	struct upconn *u;
	struct str head; /* of the request, in the arena: the same for every attempt */
	size_t head_sent;
	struct http1_scan scan;
	struct http1_body decoder; /* of the response */
	struct buf trailers;       /* of the response, as they came */
	bool response_keeps;       /* the connection may be used again afterwards */
};

/* An attempt over HTTP/2. */
struct exchange_http2 {
	struct h2stream stream;
	const nghttp2_nv *fields; /* of the request, in the arena: the same for every attempt */
	size_t field_count;
	unsigned status;
	struct headers answer; /* head, interim head or trailers, as far as they are in */
	size_t answer_bytes;
	size_t owed;   /* bytes for which the service gets no window yet */
	bool has_head; /* what comes now are trailers */
};

struct exchange {
	struct request *r;
	struct service *service;
	struct endpoint *endpoint; /* in flight there */
	const struct upstream_ops *wire;
	struct exchange_http1 h1;
	struct exchange_http2 h2;
	struct buf body; /* of the request as it goes on the wire */
	size_t body_sent;
	uint64_t body_total;                        /* bytes ever put into `body` */
	struct endpoint *tried[EXCHANGE_TRIED_MAX]; /* held */
	unsigned tried_count, retries_left, interim;
	struct {
		unsigned status;
		enum request_reason reason;
		const char *detail;
	} failure; /* of the last attempt: the answer when there is nobody else to ask */
	struct service_waiter waiter; /* in PHASE_PLACE and PHASE_LIST */
	enum exchange_phase phase;
	struct loop_timer timer;
	uint64_t phase_deadline_ms, request_deadline_ms;
	uint64_t attempt_ns;
	uint64_t retry_ms;  /* what a refusal tells the client; 0: a second */
	bool is_chunked;    /* the request body goes in chunks */
	bool body_complete; /* the client sent all of it */
	bool can_replay;    /* `body` still holds it from the first byte */
	bool was_sent;      /* the service may have seen some of the request */
	bool has_answer;    /* at least a byte of the response came: too late to try elsewhere */
	bool is_reused;     /* the connection served a request before this one */
	bool is_paused;     /* the client is slow */
	bool was_stale;     /* an attempt met a kept connection that the service had closed */
	bool was_refused;   /* the service said once that it did nothing with the request */
	bool is_grpc;
	bool is_client_deadline; /* request_deadline_ms is what the client asked for */
	bool is_entered;         /* counts as a request in flight: service_leave */
	bool is_probe;           /* ... and decides whether the service's circuit closes */
	bool is_done;
};

/* A response head, whatever protocol it came by. The fields are copied, their bytes are not. */
struct exchange_head {
	unsigned status;
	const struct http_field *fields;
	size_t field_count;
	bool has_body, has_length;
	uint64_t length;
};

/* What remains of the request body to be sent. */
static inline size_t exchange_body_left(const struct exchange *x)
{
	return buf_len(&x->body) - x->body_sent;
}

void exchange_set_phase(struct exchange *x, enum exchange_phase phase, uint64_t timeout_ms);
/* Something moved: the wait of the phase begins anew. */
void exchange_moved(struct exchange *x, enum exchange_phase phase);
/* The connection can take the request. */
void exchange_connected(struct exchange *x);
/* Some of the body went out: what need not be kept goes, and the client is asked for more. */
void exchange_body_moved(struct exchange *x);
/* Sends the head to the client. False: answered otherwise. */
bool exchange_begin_response(struct exchange *x, const struct exchange_head *head);
/* Trailers of the response came. The fields are copied, their bytes are not. */
void exchange_take_trailers(struct exchange *x, const struct headers *trailers);
/* An interim head (1xx but 101), which goes on to the client where it may. */
void exchange_pass_interim(struct exchange *x, const struct exchange_head *head);
/* The service switched protocols (101): sends the head, of `len` bytes on the connection, which is
 * a tunnel from then on. HTTP/1.1 only. */
void exchange_become_tunnel(struct exchange *x, const struct exchange_head *head, size_t len);
/* The response is complete. */
void exchange_finish(struct exchange *x);
/* The attempt failed: another one if that is safe, else this answer. */
void exchange_attempt_failed(struct exchange *x, unsigned status, enum request_reason reason,
			     const char *detail);
/* The service told that it did nothing with the request: it may be repeated whatever it is. */
void exchange_refused(struct exchange *x);
/* No further attempt. */
void exchange_give_up(struct exchange *x, unsigned status, enum request_reason reason,
		      const char *detail);
