/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all workers must know together of a service or of one instance: how much is in flight there,
 * and whether so much fails that nothing more is sent for a while. Atomics, no lock; any thread.
 * A service without limits and without a breaker never comes here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct circuit;

/* Closed, the circuit lets everything through. When of at least `min_requests` attempts within
 * `window_ms` more than `failure_percent` fail it opens: nothing passes for `open_ms`, then one
 * request, whose end decides. */
struct circuit_rules {
	uint32_t failure_percent; /* 0: never opens */
	uint32_t min_requests, window_ms, open_ms;
};

enum circuit_state { CIRCUIT_CLOSED, CIRCUIT_OPEN, CIRCUIT_HALF_OPEN };

struct circuit_status {
	enum circuit_state state;
	uint32_t in_flight, waiting, connections;
	uint64_t refused_busy, refused_open, opened;
};

/* One reference. NULL when out of memory. */
struct circuit *circuit_new(void);
struct circuit *circuit_get(struct circuit *c);
/* Clears the pointer; NULL inside is fine. */
void circuit_put(struct circuit **c);

/* Counts a request in flight; false when there are `max` already. Balance with circuit_leave. */
bool circuit_enter(struct circuit *c, uint32_t max);
void circuit_leave(struct circuit *c);
bool circuit_is_full(const struct circuit *c, uint32_t max);
/* The same for requests that wait for a place. */
bool circuit_wait(struct circuit *c, uint32_t max);
void circuit_end_wait(struct circuit *c);
/* The same for connections. */
bool circuit_connect(struct circuit *c, uint32_t max);
void circuit_disconnect(struct circuit *c);
/* A request was refused because of circuit_enter or circuit_connect. */
void circuit_count_busy(struct circuit *c);

enum circuit_pass {
	CIRCUIT_PASS,
	CIRCUIT_PROBE, /* the one that tries whether things are well again: circuit_end_probe */
	CIRCUIT_REFUSE,
};

/* May a request go? When not, *retry_ms says for how long. */
enum circuit_pass circuit_ask(struct circuit *c, const struct circuit_rules *rules, uint64_t now_ms,
			      uint64_t *retry_ms);
/* How an attempt ended; true when the circuit opened by that. */
bool circuit_record(struct circuit *c, const struct circuit_rules *rules, bool has_failed,
		    uint64_t now_ms);
/* The probe is over, however: unless its attempts closed the circuit the next may probe. */
void circuit_end_probe(struct circuit *c);

void circuit_get_status(const struct circuit *c, uint64_t now_ms, struct circuit_status *out);
