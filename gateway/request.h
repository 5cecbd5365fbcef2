/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request and its response on the way through the gateway, whatever HTTP version the client
 * speaks. The downstream side (http1.c) owns it and fills it in; the stages of pipeline.c decide; a
 * sink (upstream/exchange.c) takes the body and produces the response. Everything the request needs
 * lives in its arena and dies with it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gateway/http/headers.h"
#include "gateway/identity/identity.h"
#include "gateway/limits/limits.h"
#include "gateway/routing/router.h"
#include "lib/arena.h"
#include "lib/http.h"
#include "lib/list.h"
#include "lib/net.h"

struct request;
struct worker;
struct worker_conf;
struct transcode;
struct gw_service;
struct mirror;
struct snapshot_auth;
struct snapshot_route;

/* What the downstream side does for whoever answers. All calls only queue; nothing is freed under
 * the caller. */
struct downstream_ops {
	/* The final head, from request->response. Once per request. */
	void (*head)(struct request *r);
	/* A piece of the response body, copied. Returns false when the client is slow: pause until
	 * sink->resume. */
	bool (*data)(struct request *r, struct str data);
	/*
	 * The same without a copy, for bodies that go through unchanged: room to write into (NULL
	 * when there is none now), then the count that was written there.
	 */
	char *(*reserve)(struct request *r, size_t want, size_t *room);
	bool (*commit)(struct request *r, size_t len);
	/*
	 * The response is complete. In a tunnel: the service sent its last byte; the client may go
	 * on. Said again, after the sink let go, when that is over as well.
	 */
	void (*end)(struct request *r);
	/* The response cannot be completed: the client must notice, so the connection (or stream)
	 * is cut. */
	void (*abort)(struct request *r);
	/* More request body is wanted (also the first time, when a sink was set). */
	void (*read_body)(struct request *r);
	/* An interim head (1xx) from request->response, if the client's version of HTTP has such.
	 * Any number of times, before the final one. */
	void (*interim)(struct request *r);
};

/* Whoever takes the request body and is told of the client's fate. */
struct sink_ops {
	/* A piece of the body, copied if it must outlive the call. Returns false: enough, wait for
	 * read_body. */
	bool (*data)(struct request *r, struct str data);
	/* The body is complete. Not called for a request without a body. */
	void (*end)(struct request *r);
	/* The client took what was queued; more response body may be sent. */
	void (*resume)(struct request *r);
	/* The client is gone or broke the framing of its body. The sink lets go of the request at
	 * once. */
	void (*cancel)(struct request *r);
};

/* Who ended the request and why, for the record and the metrics. Keep request_reasons[] in step. */
enum request_reason {
	REASON_NONE, /* the service answered, all went well */
	REASON_BAD_REQUEST,
	REASON_MISDIRECTED, /* the host has another TLS policy than the connection */
	REASON_NO_ROUTE,
	REASON_METHOD,
	REASON_VERSION_GONE,
	REASON_UNAUTHENTICATED,
	REASON_FORBIDDEN,
	REASON_NO_KEYS, /* to check a token with, yet */
	REASON_REVOKED, /* a WebSocket whose identity is worth nothing any more */
	REASON_RATE_LIMITED,
	REASON_OVERLOADED, /* shed: the worker's queue is too long */
	REASON_TOO_LARGE,
	REASON_FIXED,     /* a route that answers by itself */
	REASON_PREFLIGHT, /* a browser's question, see cors.h */
	REASON_NO_INSTANCE,
	REASON_SERVICE_BUSY, /* as many requests or connections as it may have */
	REASON_CIRCUIT_OPEN, /* too much of it fails */
	REASON_CONNECT_FAILED,
	REASON_CONNECT_TIMEOUT,
	REASON_SERVICE_RESET,
	REASON_SERVICE_GARBAGE,
	REASON_RESPONSE_TIMEOUT,
	REASON_REQUEST_TIMEOUT,
	REASON_CLIENT_GONE,
	REASON_CLIENT_TIMEOUT,
	REASON_TUNNEL_IDLE, /* nothing moved in a WebSocket for too long */
	REASON_INTERNAL,
	REQUEST_REASONS,
};

extern const char *const request_reasons[REQUEST_REASONS];

struct response {
	unsigned status;
	struct headers
		headers; /* without hop-by-hop fields, Content-Length and Transfer-Encoding */
	bool has_body;
	bool has_length;
	uint64_t length;         /* with has_length: of the body, or what HEAD and 304 announce */
	struct headers trailers; /* complete before downstream's end */
};

/* Room in a request's field array for what the stages add: identity, ids, forwarding. */
#define REQUEST_SPARE_FIELDS 32UL

/* Response headers that one of the stages wants on whatever response comes. */
#define REQUEST_EXTRA_FIELDS 8

struct request {
	struct arena arena;
	struct worker *worker;
	struct worker_conf *conf; /* held: a request ends under the configuration it began with */

	/* --- as received; slices into the arena or the connection's buffer, stable until the
	 * request ends */
	const struct downstream_ops *down;
	void *down_state;              /* the downstream's own */
	const char *protocol;          /* "HTTP/1.1" */
	const char *tls;               /* "TLSv1.3", "" for plain text */
	uint64_t tls_policy;           /* of the connection, see tls_server.h */
	struct str client_certificate; /* verified, as for X-Forwarded-Client-Cert; len 0: none */
	struct str client_names;       /* in that certificate, see tls_client_names; p NULL: none */
	int64_t client_until_s;        /* ... and the end of its time */
	struct str peer_ip;            /* of the connection, as text */
	struct str client_ip;          /* the client's, as text */
	bool is_from_proxy;            /* the peer is a trusted proxy */
	struct net_addr client; /* of the connection; behind a trusted proxy, what that says */
	unsigned listener;      /* index in the configuration */
	bool has_connection;    /* a Connection field is there */
	enum http_method method_id;
	struct str method;
	struct str scheme;    /* "http" or "https" */
	struct str authority; /* as sent, may hold a port */
	struct str raw_path;
	struct str query; /* p is NULL when there is none */
	struct headers headers;
	bool has_body, has_length;
	uint64_t length;
	struct headers trailers; /* complete before the sink's end */
	bool accepts_trailers;   /* TE: trailers */
	struct str upgrade; /* what the client wants to switch to: Upgrade or :protocol; p NULL:
			       nothing */
	bool is_connect;    /* ... asked by an extended CONNECT (RFC 8441) */

	/* --- decided by the stages */
	struct router_match match;          /* of the route: variables, the rest behind a prefix */
	struct str path;                    /* normalised: what is matched is what is forwarded */
	struct str upstream_path;           /* after rewriting */
	const struct snapshot_route *route; /* NULL until routed */
	const struct gw_service *service;
	struct identity *identity;        /* held; NULL while anonymous */
	const struct snapshot_auth *auth; /* by which it was proven */
	struct str request_id;
	struct str trace_id;
	struct str origin;           /* of the page that sent it, where routes have a policy */
	uint64_t max_body;           /* bytes; 0: no bound */
	struct limits_verdict limit; /* the strictest so far; rule is NULL when none applied */
	struct str limited_by;       /* name of the limit that refused */
	struct str shadowed_by;      /* of one in shadow that would have */
	struct http_field extra[REQUEST_EXTRA_FIELDS];
	size_t extra_count;
	struct str websocket_accept; /* what the service must answer to become one; p NULL: the
					request is an ordinary one */
	/*
	 * The service switched protocols: from the head of the response on both directions are
	 * opaque bytes, ended one by one, and the request is over when the sink let go of it.
	 */
	bool is_tunnel;
	bool is_preflight; /* a browser's question about a later request, for whose route it is */
	unsigned stage;    /* next one to run */

	struct transcode *transcode; /* HTTP/JSON towards a gRPC service; NULL: none */

	const struct sink_ops *sink; /* NULL: nobody takes the body */
	void *sink_state;
	struct mirror *mirror; /* a copy that waits for the body; NULL: none */
	bool is_mirror;        /* it is a copy itself: neither recorded nor tried twice */

	/* --- the response */
	struct response response;
	enum request_reason reason;
	bool has_head; /* the head went out */
	bool is_ended; /* the response is complete or cut */

	/* --- for the record */
	uint64_t begin_ns; /* first byte of the head seen */
	uint64_t wall_ms;
	uint64_t forward_ns;   /* first instance chosen */
	uint64_t connected_ns; /* connection to the last instance ready */
	uint64_t answered_ns;  /* its response head complete */
	uint64_t bytes_in, bytes_out;
	struct net_addr upstream; /* last instance tried, len 0 when none */
	unsigned attempts;
	unsigned reset_code; /* HTTP/2's, with which the service reset its response; 0: none */
	bool has_grpc_status;
	unsigned grpc_status;
};

/*
 * Begins a request in this worker, with the current configuration. NULL when out of memory. The
 * caller fills in what was received and calls pipeline_run; request_free records it and lets
 * everything go.
 */
struct request *request_new(struct worker *worker);
void request_free(struct request *r);

/* Frees the requests that the worker keeps for reuse. */
void request_free_idle(struct worker *w);

/* gRPC over HTTP/2: errors are told as grpc-status. */
bool request_is_grpc(const struct request *r);
/* Gives it an id of its own; stays without one when out of memory. */
void request_make_id(struct request *r);
/* Adds a header to whatever response will be sent; dropped beyond REQUEST_EXTRA_FIELDS. */
void request_add_extra(struct request *r, struct str name, struct str value);
/* The client's Host without its port; compare case-insensitively. */
struct str request_host(const struct request *r);
/* Starts the response: status, no body, room for headers of which `copy` (may be empty) are the
 * first. False: out of memory. */
bool response_init(struct request *r, unsigned status, const struct http_field *copy, size_t count);
/* Finishes a response head (extra fields in) and sends it. */
void response_send_head(struct request *r);
/* A whole response of the gateway's own. An empty content_type means no body. */
struct headers_rules;
void response_send_fixed(struct request *r, unsigned status, const struct headers_rules *rules,
			 struct str content_type, struct str body);
/* The same without rules that add headers. */
void response_send(struct request *r, unsigned status, struct str content_type, struct str body);
/* Microseconds since the request began. */
uint64_t request_elapsed_us(const struct request *r);
