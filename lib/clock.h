/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic for deadlines, wall clock only for what people and protocols read. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC  1000000000ULL
#define NSEC_PER_MSEC 1000000ULL
#define MSEC_PER_SEC  1000ULL

static inline uint64_t clock_mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static inline uint64_t clock_mono_ms(void)
{
	return clock_mono_ns() / NSEC_PER_MSEC;
}

/* Since the machine was started, sleep included: for stamps that outlive a process and must not
 * jump when the clock is set. */
static inline uint64_t clock_boot_minutes(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec / 60;
}

static inline uint64_t clock_wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * MSEC_PER_SEC + (uint64_t)ts.tv_nsec / NSEC_PER_MSEC;
}

/* Writes "2026-04-02T14:23:01.034Z" (RFC 3339, UTC) and a NUL. */
#define CLOCK_RFC3339_LEN 24
void clock_rfc3339(char out[static CLOCK_RFC3339_LEN + 1], uint64_t wall_ms);
/* Reads RFC 3339 with Z or an offset, fraction optional. Returns 0 or -EINVAL. */
int clock_parse_rfc3339(const char *text, uint64_t *out_wall_ms);
/* Writes "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 5.6.7) and a NUL. */
#define CLOCK_HTTP_DATE_LEN 29
void clock_http_date(char out[static CLOCK_HTTP_DATE_LEN + 1], uint64_t wall_ms);
