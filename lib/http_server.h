/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 server for the daemons' own APIs and admin ports, on one event loop, in one thread: a
 * handler sees complete requests (body included) and answers now, later, or by a stream. Not a
 * proxy: what gatewayd serves to clients does not come through here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/http1.h"
#include "lib/net.h"
#include "lib/str.h"

struct http_conn;
struct http_server;
struct http_shared;
struct loop;
struct tls_server;

#define HTTP_PARAMS_MAX 4

/*
 * One request, valid until it is answered: until http_respond (or its kin), http_stream_end, or
 * until on_gone returned. If on_request returns without an answer, method, path, query, body and
 * head are emptied; params and whatever else is in the arena stay.
 */
struct http_request {
	struct str method;
	struct str path;  /* as sent: percent-encoded, begins with "/" */
	struct str query; /* as sent, without the "?" */
	struct str body;
	struct str params[HTTP_PARAMS_MAX]; /* {…} of the route's pattern in its order, decoded */
	enum http_method method_id;
	/* All header fields. */
	const struct http1_head *head;
	const struct net_addr *peer;
	bool is_local;       /* by a unix socket, whose file permissions are the access control */
	struct arena *arena; /* lives as long as the request */

	/* The handler's own, for requests that wait or stream. */
	void *user;
	/* The peer went away (or was cut off) before the answer was complete. Called once, by the
	 * loop, never from within a function of this header but http_server_stop and _free. The
	 * request is freed when it returns. */
	void (*on_gone)(struct http_request *req);
};

/* Zero means the default given here. */
struct http_server_config {
	size_t max_head;         /* 16 KiB */
	size_t max_body;         /* 256 KiB */
	size_t max_stream_queue; /* 1 MiB beside the first piece: a slower reader is cut off */
	size_t max_queued; /* 512 MiB in large answers that are not sent yet, of all together */
	uint32_t max_connections;  /* 1024 */
	uint32_t head_timeout_ms;  /* 10 s from the first byte to the end of the head */
	uint32_t body_timeout_ms;  /* 30 s for the whole body */
	uint32_t idle_timeout_ms;  /* 75 s between requests */
	uint32_t write_timeout_ms; /* 20 s beside what a reader of 16 KB a second needs */
	/* Must answer, or remember the request and answer later. */
	void (*on_request)(struct http_request *req, void *arg);
	void *arg;
};

/* NULL when out of memory. The configuration is copied. */
struct http_server *http_server_new(struct loop *loop, const struct http_server_config *config);
/* Begins to listen; callable several times. Returns 0 or -errno with the sentence in err. `mode`
 * are the file permissions of a unix socket (0: 0660), ignored for TCP. */
int http_server_listen(struct http_server *s, const struct net_addr *addr, unsigned mode,
		       struct err *err);
/* The same with a socket that listens already, owned from now on, also when it fails. */
int http_server_adopt(struct http_server *s, int fd, struct err *err);
/* New connections, but those of unix sockets, speak TLS from now on, with this: owned from now on,
 * unless it returns -ENOMEM. Handshakes in progress end as they began. */
int http_server_set_tls(struct http_server *s, struct tls_server *server);
/* The descriptor of the i-th listener, still the server's; -1 when there is none. */
int http_server_listener(const struct http_server *s, unsigned i);
/* The address of the i-th listener, for those that asked for port 0. */
int http_server_address(const struct http_server *s, unsigned i, struct net_addr *out);
/*
 * Graceful end: no new connections, idle ones close, requests in progress (also those that wait)
 * are answered with "Connection: close"; streams are ended. on_stopped, which may be NULL, is
 * called by the loop when the last connection is gone; there the server may be freed.
 */
void http_server_stop(struct http_server *s, void (*on_stopped)(void *arg), void *arg);
/* The same when somebody else goes on with the listening sockets: the files of unix sockets stay.
 */
void http_server_release(struct http_server *s);
/* Closes everything at once (calls on_gone of what is open) and clears the pointer. Not from within
 * a handler. */
void http_server_free(struct http_server **s);

struct http_server_stats {
	uint64_t accepted, requests;
	uint64_t refused;      /* connections over the maximum */
	uint64_t bad_requests; /* malformed or too large; the connection was closed */
	uint64_t timeouts;     /* any deadline but the idle one */
	uint64_t slow_readers; /* streams cut off */
	uint64_t failed_handshakes;
	uint32_t connections, waiting, streams; /* now */
};
const struct http_server_stats *http_server_stats(const struct http_server *s);
/* The same as metrics, each name with this prefix ("gatehouse_registry_api"). */
void http_server_metrics(const struct http_server *s, const char *prefix, struct buf *out);

/* --- reading a request ----------------------------------------------------------------------- */

/* First header of that name in any case; a NULL p when there is none. From within on_request only.
 */
struct str http_header(const struct http_request *req, const char *name);
/* First value of a query parameter, decoded ("+" is a space) into the request's arena. Returns 0,
 * -ENOENT, or -EINVAL if it is not properly encoded. */
int http_query(const struct http_request *req, const char *name, struct str *out);
/* Decodes %XX, and "+" if asked, into the arena. -EINVAL on bad encoding or a NUL. */
int http_decode(struct arena *a, struct str text, bool plus_is_space, struct str *out);

/* --- answering ------------------------------------------------------------------------------- */

/* Empty, and shared by all requests of the server: a place to write a body into right before
 * http_respond. */
struct buf *http_scratch(struct http_request *req);
/* Adds a header to the answer that follows. One whose value holds control characters is dropped. */
void http_add_header(struct http_request *req, const char *name, struct str value);
/* Answers and ends the request. `type` NULL: no Content-Type. 204 and 304 have no body; HEAD gets
 * the length alone. The body is copied. */
void http_respond(struct http_request *req, unsigned status, const char *type, struct str body);
void http_respond_json(struct http_request *req, unsigned status, struct str body);
/* RFC 9457, `detail` for people. */
__attribute__((format(printf, 3, 4))) void http_problem(struct http_request *req, unsigned status,
							const char *detail, ...);
/* The same about one member of the request: "field" says which. */
__attribute__((format(printf, 4, 5))) void http_problem_field(struct http_request *req,
							      unsigned status, const char *field,
							      const char *detail, ...);

/*
 * Ends the request without an answer: the connection's descriptor is the caller's, who speaks
 * something else over it. From within on_request only. Returns it, or -errno (with TLS -ENOTSUP)
 * and nothing happened.
 */
int http_detach(struct http_request *req);

/* --- bytes that many answers share ---------------------------------------------------------------
 */

/*
 * A large body, written once for everybody who asks for the same. Counted: whoever made it puts it
 * after use; answers that are not sent yet hold it. NULL when out of memory, or when readers are so
 * slow that max_queued would be passed: answer with 503.
 */
struct http_shared *http_shared_new(struct http_request *req, struct str bytes);
/* NULL inside is fine. */
void http_shared_put(struct http_shared **shared);
/* As http_respond, without a copy. */
void http_respond_shared(struct http_request *req, unsigned status, const char *type,
			 struct http_shared *body);
/* As http_stream_write, for the first piece of a stream. */
bool http_stream_write_shared(struct http_request *req, struct http_shared *data);

/* --- streaming ------------------------------------------------------------------------------- */

/* Sends the head of an answer without an end; then http_stream_write until http_stream_end. Returns
 * false when the request was a HEAD: it is answered and gone. */
bool http_stream_start(struct http_request *req, unsigned status, const char *type);
/* Queued, and sent at the end of the loop's round. Returns false when the reader is too slow: what
 * was queued is lost, nothing more is taken, and on_gone follows. */
bool http_stream_write(struct http_request *req, struct str data);
size_t http_stream_queued(const struct http_request *req);
void http_stream_end(struct http_request *req);

/* --- routing --------------------------------------------------------------------------------- */

/* Pattern segments are literal or "{name}" (any one segment, not empty). The last may be "{name*}"
 * (the rest of the path, perhaps empty, still encoded). GET takes HEAD too. */
struct http_route {
	enum http_method method;
	const char *pattern;
	void (*handle)(struct http_request *req, void *arg);
	bool is_local_only; /* 403 unless by a unix socket */
};

/* Calls the first match in the table; answers 404, 405 with Allow, OPTIONS, and 400 for a
 * parameter with bad encoding. */
void http_route(struct http_request *req, const struct http_route *table, size_t count, void *arg);
