/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines on their way from one worker to whoever writes them away: bytes in a ring, one producer,
 * one consumer, no locks. What does not fit is counted and dropped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/metrics.h"
#include "lib/str.h"

struct record_queue {
	_Alignas(64) uint64_t head; /* bytes ever queued, by the producer */
	uint64_t dropped, lines;
	bool is_on;                 /* any thread; while it is off nothing need be queued */
	_Alignas(64) uint64_t tail; /* bytes ever consumed, by the consumer */
	char *bytes;
	size_t size;
};

/* False: out of memory. What was never used costs no memory. */
static inline bool record_queue_init(struct record_queue *q, size_t size)
{
	q->bytes = malloc(size);
	q->size = size;
	return q->bytes != NULL;
}

static inline void record_queue_fini(struct record_queue *q)
{
	free(q->bytes);
	q->bytes = NULL;
}

static inline bool record_queue_is_on(const struct record_queue *q)
{
	return __atomic_load_n(&q->is_on, __ATOMIC_RELAXED);
}

static inline void record_queue_push(struct record_queue *q, struct str line)
{
	uint64_t tail = __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE);
	size_t at = q->head % q->size;
	size_t first = MIN(line.len, q->size - at);

	if (line.len > q->size - (size_t)(q->head - tail)) {
		metrics_inc(&q->dropped, 1);
		return;
	}
	memcpy(q->bytes + at, line.p, first);
	memcpy(q->bytes, line.p + first, line.len - first);
	metrics_inc(&q->lines, 1);
	__atomic_store_n(&q->head, q->head + line.len, __ATOMIC_RELEASE);
}

static inline uint64_t record_queue_head(const struct record_queue *q)
{
	return __atomic_load_n(&q->head, __ATOMIC_ACQUIRE);
}

/* By the consumer: all before `to` is done with. */
static inline void record_queue_consume(struct record_queue *q, uint64_t to)
{
	__atomic_store_n(&q->tail, to, __ATOMIC_RELEASE);
}
