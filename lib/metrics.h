/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes metrics in Prometheus' text format (version 0.0.4). Counters live with their owners,
 * mostly one per thread; this only puts them on paper when somebody scrapes.
 */
#pragma once

#include "lib/buf.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Begins a family; `type` is "counter", "gauge" or "histogram". */
void metrics_family(struct buf *out, const char *name, const char *type, const char *help);

struct metrics_label {
	const char *name;
	struct str value;
};

#define METRICS_LABELS(...) ((const struct metrics_label[]) { __VA_ARGS__, { .name = NULL } })

/* `labels` ends with an entry whose name is NULL; NULL: none. */
void metrics_u64(struct buf *out, const char *name, const struct metrics_label *labels,
		 uint64_t value);
void metrics_double(struct buf *out, const char *name, const struct metrics_label *labels,
		    double value);

/* What every program shows of itself: version, start time, CPU time, memory, descriptors. */
void metrics_process(struct buf *out, const char *program);

/*
 * A latency histogram with fixed bounds from 50 µs to 60 s, for one writing thread. Readers of
 * other threads may see a sample in the sum that is not yet in its bucket, never a torn number.
 */
#define METRICS_BUCKETS 20
struct metrics_histogram {
	uint64_t count[METRICS_BUCKETS + 1]; /* the last one: longer than all bounds */
	uint64_t sum_us;
};

/* Upper bound of bucket i, below METRICS_BUCKETS. */
uint32_t metrics_bound_us(unsigned i);

void metrics_observe_us(struct metrics_histogram *h, uint64_t us);
/* Adds `from` to `to`, for summing threads up. */
void metrics_histogram_add(struct metrics_histogram *to, const struct metrics_histogram *from);
/* Seconds, as Prometheus wants them. */
void metrics_write_histogram(struct buf *out, const char *name, const struct metrics_label *labels,
			     const struct metrics_histogram *h);

/* A counter that its thread alone writes and any thread reads. */
static inline void metrics_inc(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + by,
			 __ATOMIC_RELAXED);
}

/* The same for a value that goes up and down. */
static inline void metrics_set(uint64_t *gauge, uint64_t value)
{
	__atomic_store_n(gauge, value, __ATOMIC_RELAXED);
}

static inline uint64_t metrics_get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}
