/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker thread: its own event loop, listeners, connections, upstream pools and counters. Workers
 * share nothing on the request path but the configuration snapshot, the limit table and the token
 * cache. Everything here belongs to the worker's thread unless it says otherwise; other threads
 * reach it by loop_post.
 */
#pragma once

#include <pthread.h>

#include "gateway/analytics/record.h"
#include "gateway/conf/conf.h"
#include "gateway/identity/auth_keys.h"
#include "gateway/identity/refusals.h"
#include "gateway/overload.h"
#include "gateway/request.h"
#include "gateway/upstream/mirror.h"
#include "lib/hmap.h"
#include "lib/loop.h"
#include "lib/metrics.h"
#include "lib/tls_server.h"

struct analytics;
struct gateway;
struct jwt_verifier;
struct snapshot;
struct snapshot_auth;
struct worker_auth;
struct tls_files;
struct tls_client;
struct tls_server;
struct service;
struct listeners;
struct conn;
struct versions;

/* Size of the pooled I/O buffers: one TLS record fits. */
#define WORKER_CHUNK (16UL * 1024 + 512)

/* Counters of one route, kept by name over reloads. Written by the worker alone, read by anybody.
 */
struct route_stats {
	struct hmap_node node;
	struct str name;
	uint64_t status_class[6]; /* [2]: 2xx …; [0]: the client left before any answer */
	uint64_t mirrored[MIRROR_RESULTS];
	struct list splits; /* split_stats; grows under stats_lock */
	struct metrics_histogram latency;
};

/* Requests of a route that one of its services got. */
struct split_stats {
	struct list node; /* in route_stats.splits */
	uint64_t requests;
	struct str service; /* the name lies behind it */
};

/* What a worker needs of one configuration: made by the main thread, used by the worker alone,
 * counted. */
struct worker_conf {
	unsigned refs;
	struct snapshot *snapshot;
	struct tls_server **tls;     /* by listener, NULL for plain ones */
	struct tls_client **clients; /* by service, NULL for plain ones */
	struct service **services;   /* by the service's index in the configuration; held */
	struct route_stats *
		*routes; /* by the route's index, the last for requests without one; borrowed */
	struct split_stats **splits; /* by split_at of the route and the split's index; borrowed */
	struct worker_auth *auths;   /* by the index of the auth */
};

/* What a worker has of one way to prove an identity. */
struct worker_auth {
	struct auth_view view;
	uint64_t fingerprint;          /* of the rules and these keys */
	struct jwt_verifier *verifier; /* made when first needed */
};

struct worker_listener {
	struct loop_io io;
	struct worker *worker;
	unsigned index; /* in the configuration; several may have the same */
};

struct worker_stats {
	uint64_t connections_accepted;
	uint64_t accept_pauses; /* over the bound, or no descriptors left */
	uint64_t proxy_refused; /* PROXY headers missing, malformed or late */
	uint64_t handshakes;    /* done, resumed ones too */
	uint64_t handshakes_failed[TLS_FAILURES];
	uint64_t handshakes_resumed;
	uint64_t requests;
	uint64_t http2_floods; /* connections ended for making work on purpose */
	uint64_t reasons[REQUEST_REASONS];
	uint64_t shed[GW_PRIORITIES];
	uint64_t auth_ok, auth_cached, auth_refused, auth_anonymous;
	uint64_t auth_refusals[AUTH_REFUSALS];
	uint64_t upstream_tls, upstream_tls_resumed, upstream_tls_failed;
	uint64_t upstream_connects, upstream_reuses, upstream_retries;
	uint64_t bytes_in, bytes_out;
};

struct worker {
	struct gateway *gateway;
	unsigned index;
	pthread_t thread;
	struct loop *loop;
	struct worker_conf *conf; /* for new requests */
	bool has_thread;

	struct worker_listener *listeners;
	unsigned listener_count;
	struct list conns;
	uint64_t conn_count; /* written by metrics_inc, for other threads to read */
	unsigned conn_max;
	struct loop_timer accept_pause;
	uint64_t proxy_told_ms; /* when the log last told of a bad PROXY header; 0: never */
	bool is_draining;       /* answers with Connection: close, idle connections are closed */
	bool is_stopped;        /* nothing left to finish */
	uint64_t
		drain_until_ms; /* connections are cut then; set before the drain order is posted */
	struct loop_timer drain_timer;
	struct loop_timer goodbye_timer; /* for tunnels, some time before they are cut */
	bool says_goodbye;
	struct list tunnels;
	struct loop_task drain_order, accept_order;
	struct loop_task
		ended; /* posted to the main loop at the end of the thread; the gateway sets run */

	struct hmap services; /* by name, over reloads */
	struct hmap
		stats; /* route_stats by route name; grows under stats_lock, which readers take */
	pthread_mutex_t stats_lock;
	struct worker_stats counters;
	struct overload overload;
	uint64_t queue_delay_ns;     /* as measured last, for other threads to read */
	struct record_ring *records; /* to the writer thread */
	struct analytics *analytics;
	struct versions *versions;

	struct list mirrors; /* copies of requests under way */
	unsigned mirror_count;
	size_t transcode_bytes;    /* of all messages that are being translated */
	struct list idle_requests; /* for reuse */
	unsigned idle_request_count;
	void **chunks; /* free I/O buffers */
	unsigned chunk_count;
	uint64_t http_date_until_ms; /* monotonic: http_date is right before then */
	char http_date[32];
};

/* Makes a worker around its share of the listening sockets (owned from now on). Its thread starts
 * with worker_start. */
int worker_new(struct worker **out, struct gateway *g, unsigned index,
	       const struct listeners *listeners, unsigned conn_max);
/* Starts the thread with its first configuration, taking the reference over. */
int worker_start(struct worker *w, struct worker_conf *conf);
/* From the main thread: begin to accept. */
void worker_post_accept(struct worker *w);
/* From the main thread: take this configuration for everything that begins from now on. Takes the
 * reference over. */
void worker_post_conf(struct worker *w, struct worker_conf *conf);
/* From the main thread: stop accepting, finish what runs, at most until the given monotonic time;
 * then the thread ends. A second one cuts what still runs. */
void worker_post_drain(struct worker *w, uint64_t until_ms);
/* From the main thread: these are the instances of the service from now on. Copied; references to
 * the circuits are taken. */
struct circuit;
struct service_member;
void worker_post_members(struct worker *w, struct str service, struct circuit *circuit,
			 const struct service_member *members, size_t count);
/* Waits for the thread, which must have been drained (or never started). */
void worker_join(struct worker *w);
/* After the join. Of all workers first: each tells the main loop of its end by a task within
 * itself. */
void worker_free(struct worker *w);

/* Main thread: builds contexts and services for one worker; NULL with the sentence in err. */
struct worker_conf *worker_conf_new(struct snapshot *snapshot, const struct tls_files *files,
				    struct err *err);
struct worker_conf *worker_conf_get(struct worker_conf *c);
void worker_conf_put(struct worker_conf *c);
/* With the newest keys. */
struct worker_auth *worker_conf_auth(struct worker_conf *c, const struct snapshot_auth *auth);

/* The text for a Date field, RFC 9110 6.6.1, renewed each second. */
struct str worker_http_date(struct worker *w);
/* A free I/O buffer of WORKER_CHUNK bytes (malloc'ed), or NULL. */
void *worker_chunk_take(struct worker *w);
void worker_chunk_give(struct worker *w, void *chunk);
/* Called whenever a connection or request ended: a draining worker stops after its last one. */
void worker_on_idle(struct worker *w);
