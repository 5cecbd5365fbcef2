/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 client for the daemons' own calls (registry, health checks, key sets) on one event loop,
 * and a synchronous form for command-line tools. One request at a time per connection. It follows
 * no redirects and never blocks on names: addresses are resolved beforehand.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/http1.h"
#include "lib/net.h"
#include "lib/str.h"

struct loop;
struct http_client;
struct http_call;
struct tls_client;

/* Where a base URL leads: "http://192.0.2.1:8761", "https://[2001:db8::1]:443/base",
 * "unix:/run/gatehouse/x.sock". */
struct http_base {
	struct net_addr addr;
	bool is_tls;
	char host[264]; /* for the Host field */
	char path[256]; /* "" or "/base", without a slash at the end */
};
enum http_base_flags {
	HTTP_BASE_RESOLVE = 1, /* names too, which blocks: for command-line tools only */
	HTTP_BASE_TLS = 2,     /* "https:" too: the caller looks at is_tls */
};
/* Returns 0 or -EINVAL, -EHOSTUNREACH with the sentence in err. */
int http_base_parse(struct http_base *out, struct str url, unsigned flags, struct err *err);
/* The host without its port and brackets: what a certificate has to be for. */
struct str http_base_name(const struct http_base *base);

/* Appends a path segment or query value, everything but letters, digits, "-._~" as %XX. */
void http_encode(struct buf *out, struct str text);

#define HTTP_NO_TIMEOUT UINT32_MAX

struct http_result {
	int error;                     /* 0 when a complete answer came, else -errno */
	const char *problem;           /* with an error: a short sentence, never NULL */
	unsigned status;               /* 0 if no head came */
	struct str body;               /* unless it was streamed */
	const struct http1_head *head; /* NULL if no head came */
};

/* All of it is copied by http_call_start. Zero means the default given here. */
struct http_request_spec {
	const struct net_addr *addr;
	struct tls_client
		*tls;        /* NULL: no TLS; borrowed for the call's life. Never kept for reuse */
	struct str tls_name; /* for SNI and the certificate; the address */
	enum http_method method; /* GET */
	struct str host;         /* Host field; the address */
	struct str target[3];    /* joined: base path, path, "?query" … */
	struct str headers;      /* further lines, each "Name: value\r\n" */
	struct str content_type; /* with a body; application/json */
	struct str body;
	bool is_repeatable; /* may be sent again if a kept connection turns out closed, though
			       the method does not say so */
	bool closes;        /* neither takes nor leaves a kept connection */
	size_t max_body;    /* of an answer that is not streamed, 1 MiB */
	uint32_t connect_timeout_ms;  /* 2 s */
	uint32_t response_timeout_ms; /* 5 s from the request to the complete head */
	uint32_t idle_timeout_ms;     /* 10 s without a byte of the body */
	uint32_t total_timeout_ms;    /* HTTP_NO_TIMEOUT */

	/* The head of the final answer came. May be NULL. */
	void (*on_head)(struct http_call *call, const struct http1_head *head, void *arg);
	/* A piece of the body: if set, the answer is streamed and the result has no body. Pieces of
	 * a status other than 200 are not streamed but collected. */
	void (*on_data)(struct http_call *call, struct str data, void *arg);
	/* The end, good or bad. Exactly once unless cancelled; the call is freed when it returns.
	 */
	void (*on_done)(struct http_call *call, const struct http_result *result, void *arg);
	void *arg;
};

/* Keeps up to `keep` idle connections for reuse (0: none). NULL when out of memory. */
struct http_client *http_client_new(struct loop *loop, unsigned keep);
/* Cancels the calls in progress (their on_done is not called). Not from within a callback. */
void http_client_free(struct http_client **client);

/* Starts a call; no callback runs before the loop's next round. NULL when out of memory, or (a bug)
 * when the target or a header holds bytes that cannot be sent. */
struct http_call *http_call_start(struct http_client *client, const struct http_request_spec *spec);
/* Ends it without on_done and clears the pointer. Allowed from within its callbacks; NULL inside is
 * fine. */
void http_call_cancel(struct http_call **call);

/* --- for command-line tools ------------------------------------------------------------------ */

struct http_answer {
	unsigned status;
	struct buf body;
};

/* Runs one request on a loop of its own. The callbacks of the spec, except on_done, work. Returns 0
 * with *out to be released by http_answer_fini, or -errno with the sentence in err. */
int http_fetch(struct http_answer *out, const struct http_request_spec *spec, struct err *err);
void http_answer_fini(struct http_answer *a);
