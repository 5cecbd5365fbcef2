/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of limit_store.h: the thread (limit_store.c) and the keys in its hand (limit_share.c).
 */
#pragma once

#include <pthread.h>

#include "gateway/limits/limit_store.h"
#include "gateway/limits/limits_private.h"
#include "lib/hmap.h"
#include "lib/list.h"
#include "lib/loop.h"
#include "lib/metrics.h"

#define MAX_SHARES (1U << 16) /* keys in hand at once */
/* Calls under way: so few that the last of them is answered in time, however many keys there are.
 */
#define MAX_CALLS     1024
#define RULE_NAME_MAX 64

/* A worker's word that somebody wants something of a key. */
struct post {
	struct post *next;
	struct limits_slot slot;
	uint64_t name[2];
	uint64_t token_ns, burst_ns;
	char rule[RULE_NAME_MAX + 1];
};

enum share_state {
	SHARE_TIMED,   /* will be looked at */
	SHARE_QUEUED,  /* is to be asked about, as soon as fewer calls are under way */
	SHARE_ASKED,   /* a call is under way */
	SHARE_COMING,  /* a lease was granted that begins in a moment */
	SHARE_HOLDING, /* a lease lies unused; workers tell when that changes */
};

/* A key in hand. In all states but SHARE_HOLDING its lease is LEASE_BUSY. */
struct share {
	struct hmap_node node; /* by slot.key */
	struct limit_store *store;
	struct limits_slot slot;
	enum share_state state;
	struct loop_timer timer;
	struct list queue_node;
	uint64_t token_ns, burst_ns;
	uint64_t asked_ns; /* 0: not yet */
	uint32_t demand;   /* requests seen before the call under way */
	int64_t want;      /* what it asked for */
	uint32_t coming;   /* granted, for SHARE_COMING */
	char name[];       /* in Redis */
};

struct counters {
	uint64_t failures, asks, answers, errors, granted, settled, returned, keys, round_trip_us;
};

struct limit_store {
	/* any thread */
	_Atomic bool is_common;
	_Atomic bool is_full;
	_Atomic uint32_t gateways;
	_Atomic uint64_t dropped;
	enum limit_failure on_failure;
	_Atomic(struct post *) posts; /* the newest first */
	_Atomic size_t post_count;
	struct loop_task take_posts, stop;

	/* the thread's */
	struct limit_store_options options;
	char prefix[160], connection[64];
	struct loop *loop;
	struct redis *redis;
	struct redis_script script;
	struct hmap shares;
	struct list queue; /* of those that wait for their call */
	struct loop_task run_queue;
	struct loop_timer timer; /* retry, then farewell */
	bool is_stopping;
	bool has_complained;
	pthread_t thread;
	bool has_thread;
	struct counters counters;
};

/* Takes what a worker told in hand, or looks at it again. */
void limit_share_take(struct limit_store *s, const struct post *post);
/* What it holds unused goes back, what it owes is told; it may be gone after this. */
void limit_share_farewell(struct share *share);
void limit_share_free(struct share *share);
/* There is room for calls again; or there will not be, as Redis is gone. */
void limit_share_run_queue(struct limit_store *s);

/* Redis is there and does not do what it is told: it runs out of memory, forbids the key … */
void limit_store_refused(struct limit_store *s, const char *problem);
