/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service as one worker sees it: its instances, which one to take next, how they behave, and the
 * connections kept to them. Decisions are local to the worker: no lock, no shared state (two random
 * choices need none). Only limits that are given for the whole process are shared (circuit.h).
 */
#pragma once

#include <openssl/ssl.h>

#include "gateway/conf/conf.h"
#include "gateway/upstream/circuit.h"
#include "gateway/upstream/pick.h"
#include "gateway/worker.h"

struct upconn;

/* One instance. Outlives its removal from the list while requests hold it. */
struct endpoint {
	unsigned refs;
	struct net_addr addr;
	uint16_t weight;
	bool is_gone;     /* no longer in the list: no new requests, connections are not kept */
	bool is_failing;  /* active health checks say so */
	bool is_near;     /* of the gateway's own zone */
	bool is_unproven; /* came later than the first list, and has not answered yet */
	unsigned in_flight;
	unsigned counted;        /* of these in the circuit */
	struct circuit *circuit; /* held; shared with other workers. NULL: none */
	uint64_t warm_from_ms;   /* gets its whole share slow_start_ms after that; 0: at once */
	float relief;            /* mean weight of all / its own */
	unsigned failures;       /* consecutive */
	unsigned ejections;      /* consecutive, for the back-off */
	uint64_t told_ms;        /* when the log last said what is wrong with it; 0: never */
	uint64_t ejected_until_ms;
	uint64_t latency_us; /* moving average, weighted by time (peak-sensitive); 0: not known */
	uint64_t latency_at_ms;
	uint64_t mean_us;     /* moving average, over the last dozen requests; 0: not known */
	int64_t wrr_credit;   /* of weighted round robin */
	SSL_SESSION *session; /* to resume; NULL: none */
	struct list idle;     /* upconns, most recently used first */
	unsigned idle_count;
	struct list h2conns; /* HTTP/2 connections that may take more requests */
	uint32_t h2_streams; /* how many at once the service took on the last one; 0: not known */
	uint64_t requests, errors;
};

struct service {
	struct hmap_node node; /* in the worker's services */
	unsigned refs;
	struct worker *worker;
	struct str name;
	int balance; /* enum gw_balance */
	struct picker picker;
	bool prefer_zone;
	uint32_t slow_start_ms, hash_balance_percent;
	uint64_t warming_until_ms; /* nobody is cold from then on */
	struct circuit *circuit;   /* held; shared with other workers. NULL: none */
	struct circuit_rules breaker;
	uint32_t max_concurrent, max_concurrent_per_instance, max_connections; /* 0: no bound */
	unsigned in_flight;
	unsigned counted; /* requests that are in the circuit */
	struct gw_ejection ejection;
	uint32_t idle_timeout_ms, max_idle;
	uint32_t ping_after_ms, ping_timeout_ms; /* HTTP/2 */
	struct tls_client *tls; /* held; NULL: plain. Connections of another one are not kept */
	struct endpoint **endpoints; /* those of the own zone first */
	size_t count;
	uint64_t latency_us;   /* average over all, stands in for an instance not known yet */
	uint64_t retry_budget; /* in thousandths of a retry */
	bool is_known;         /* a list, perhaps an empty one, has come in */
	struct list waiters;   /* service_waiters, until then */
	uint32_t max_pending;
	struct list pending;        /* service_waiters for a place, who comes first goes first */
	struct loop_task serve;     /* a place may be free */
	struct loop_timer look_out; /* ... of those that other workers give back */
};

/* Somebody who waits for the first list, or for a place. Taken off the list before the call. */
struct service_waiter {
	struct list node;
	void (*on_known)(struct service_waiter *waiter);
	struct circuit *circuit; /* held; counts the wait for a place. NULL: none */
};

/* An instance as told by configuration or registry. */
struct service_member {
	struct net_addr addr;
	uint16_t weight;
	bool is_failing, is_near;
	struct circuit *circuit; /* NULL: none */
};

struct service *service_new(struct worker *w, struct str name);
struct service *service_get(struct service *s);
void service_put(struct service *s);
/* Takes a reference to the TLS policy (NULL: plain) if it is another than before. */
void service_configure(struct service *s, const struct gw_service *conf, struct tls_client *tls);
/* What the workers know together of the service; takes a reference. */
void service_use_circuit(struct service *s, struct circuit *circuit);
/* Replaces the list. Instances that stay (by address) keep connections and statistics. */
void service_set_members(struct service *s, const struct service_member *members, size_t count);

/* How an attempt ended, for the instance's statistics. */
enum endpoint_outcome {
	ENDPOINT_OK,        /* answered, below 500 */
	ENDPOINT_ERROR,     /* answered 5xx */
	ENDPOINT_FAILED,    /* no connection, reset, garbage, time-out */
	ENDPOINT_ABANDONED, /* the client left: says nothing about the instance */
};

/*
 * Chooses an instance by the service's policy (pick.h) and counts a request in flight on it; NULL
 * when there is none. When all look unhealthy, all are used rather than none. Balance with
 * endpoint_finish.
 */
struct endpoint *service_choose(struct service *s, const struct pick_query *q);
void endpoint_finish(struct service *s, struct endpoint *e, enum endpoint_outcome outcome,
		     uint64_t latency_us);
struct endpoint *endpoint_get(struct endpoint *e);
void endpoint_put(struct endpoint *e);
/* What is wrong with it, to the log, unless that was told within the last minute. */
void endpoint_tell(const struct service *s, struct endpoint *e, const char *trouble);
bool endpoint_is_ejected(const struct endpoint *e, uint64_t now_ms);
/* It has as many requests as it may have, of all workers. */
bool endpoint_is_full(const struct service *s, const struct endpoint *e);

enum service_verdict { SERVICE_GO, SERVICE_PROBE, SERVICE_BUSY, SERVICE_OPEN };

/* Whether the service takes one request more, which is counted then: balance with service_leave.
 * SERVICE_OPEN: its circuit is, for *retry_ms. Others go first unless `has_waited`. */
enum service_verdict service_enter(struct service *s, bool has_waited, uint64_t *retry_ms);
void service_leave(struct service *s, bool was_probe);
/* After SERVICE_BUSY: the call comes when it is worth asking again. False: too many wait already.
 */
bool service_wait(struct service *s, struct service_waiter *waiter);
/* It was called, or gives up. */
void service_end_wait(struct service_waiter *waiter);
/* The probe said what it can, though its request goes on. */
void service_end_probe(struct service *s);

/* Every request earns a fifth of a retry; true takes one, if there is one. */
void service_earn_retry(struct service *s);
bool service_take_retry(struct service *s);
