/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/circuit.h"

#include <stdlib.h>

struct circuit {
	unsigned refs;
	uint32_t in_flight, waiting, connections;
	uint64_t refused_busy, refused_open, opened;
	/* The breaker. open_until_ms 0: closed; in the past: half open. */
	uint64_t open_until_ms;
	uint64_t probe_until_ms; /* somebody tries, and so long nobody else; 0: nobody does */
	uint64_t window_from_ms;
	/* Attempts and failures of the window in one word, so that both begin anew together. */
	uint64_t counts;
};

#define ATTEMPT 1ULL
#define FAILURE (1ULL << 32)

#define LOAD(p)     __atomic_load_n((p), __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define ADD(p, v)   __atomic_add_fetch((p), (v), __ATOMIC_RELAXED)

struct circuit *circuit_new(void)
{
	struct circuit *c = calloc(1, sizeof(*c));

	if (c)
		c->refs = 1;
	return c;
}

struct circuit *circuit_get(struct circuit *c)
{
	ADD(&c->refs, 1);
	return c;
}

void circuit_put(struct circuit **cp)
{
	struct circuit *c = *cp;

	*cp = NULL;
	if (c && __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(c);
}

/* --- limits -------------------------------------------------------------------------------- */

/* Adds first and looks then: two that come at once never both find the last place free. */
static bool take(uint32_t *count, uint32_t max)
{
	if (ADD(count, 1) <= max)
		return true;
	__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
	return false;
}

static void leave(uint32_t *count)
{
	__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
}

bool circuit_enter(struct circuit *c, uint32_t max)
{
	return take(&c->in_flight, max);
}

void circuit_leave(struct circuit *c)
{
	leave(&c->in_flight);
}

bool circuit_is_full(const struct circuit *c, uint32_t max)
{
	return LOAD(&c->in_flight) >= max;
}

bool circuit_wait(struct circuit *c, uint32_t max)
{
	return take(&c->waiting, max);
}

void circuit_end_wait(struct circuit *c)
{
	leave(&c->waiting);
}

bool circuit_connect(struct circuit *c, uint32_t max)
{
	return take(&c->connections, max);
}

void circuit_disconnect(struct circuit *c)
{
	leave(&c->connections);
}

void circuit_count_busy(struct circuit *c)
{
	ADD(&c->refused_busy, 1);
}

/* --- the breaker --------------------------------------------------------------------------- */

enum circuit_pass circuit_ask(struct circuit *c, const struct circuit_rules *rules, uint64_t now_ms,
			      uint64_t *retry_ms)
{
	uint64_t until = LOAD(&c->open_until_ms), probe = LOAD(&c->probe_until_ms);

	if (until == 0 || rules->failure_percent == 0)
		return CIRCUIT_PASS;
	/* One that hangs, or whose client takes its time, must not keep the service from all. */
	if (now_ms >= until && now_ms >= probe &&
	    __atomic_compare_exchange_n(&c->probe_until_ms, &probe, now_ms + rules->open_ms, false,
					__ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return CIRCUIT_PROBE;
	ADD(&c->refused_open, 1);
	*retry_ms = until > now_ms ? until - now_ms : 1;
	return CIRCUIT_REFUSE;
}

static void begin_window(struct circuit *c, uint64_t now_ms)
{
	STORE(&c->counts, 0);
	STORE(&c->window_from_ms, now_ms);
}

static void open_up(struct circuit *c, const struct circuit_rules *rules, uint64_t now_ms)
{
	begin_window(c, now_ms);
	STORE(&c->open_until_ms, now_ms + rules->open_ms);
	ADD(&c->opened, 1);
}

bool circuit_record(struct circuit *c, const struct circuit_rules *rules, bool has_failed,
		    uint64_t now_ms)
{
	uint64_t until = LOAD(&c->open_until_ms), counts, attempts, failures;

	if (until) {
		/* What began before it opened ends now, and decides nothing. */
		if (now_ms < until)
			return false;
		if (has_failed) {
			open_up(c, rules, now_ms);
		} else {
			begin_window(c, now_ms);
			STORE(&c->open_until_ms, 0);
		}
		return has_failed;
	}
	if (now_ms - LOAD(&c->window_from_ms) >= rules->window_ms)
		begin_window(c, now_ms);
	counts = ADD(&c->counts, has_failed ? ATTEMPT + FAILURE : ATTEMPT);
	attempts = counts & (FAILURE - 1);
	failures = counts / FAILURE;
	if (!has_failed || attempts < rules->min_requests ||
	    failures * 100 <= attempts * rules->failure_percent)
		return false;
	open_up(c, rules, now_ms);
	return true;
}

void circuit_end_probe(struct circuit *c)
{
	__atomic_store_n(&c->probe_until_ms, 0, __ATOMIC_RELEASE);
}

void circuit_get_status(const struct circuit *c, uint64_t now_ms, struct circuit_status *out)
{
	uint64_t until = LOAD(&c->open_until_ms);

	*out = (struct circuit_status) {
		.state = until == 0 ? CIRCUIT_CLOSED
				    : (now_ms < until ? CIRCUIT_OPEN : CIRCUIT_HALF_OPEN),
		.in_flight = LOAD(&c->in_flight),
		.waiting = LOAD(&c->waiting),
		.connections = LOAD(&c->connections),
		.refused_busy = LOAD(&c->refused_busy),
		.refused_open = LOAD(&c->refused_open),
		.opened = LOAD(&c->opened),
	};
}
