/* SPDX-License-Identifier: Apache-2.0 */
/* What the load programs of the registry benchmark share: connections, times, the line printed. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"

/* What is registered, here and there: three bytes of its address, version, lease. */
#define LEASES_INSTANCE                                                                      \
	"{\"address\":\"10.%u.%u.%u\",\"port\":8080,\"zone\":\"zone-a\",\"version\":\"%u\"," \
	"\"lease_s\":%u,\"metadata\":{\"git\":\"0123456789ab\",\"team\":\"core\"}}"

#define LEASES_SAMPLES (1U << 20)

struct leases_times {
	uint32_t *us;
	size_t count;
};

static inline uint64_t leases_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

__attribute__((noreturn)) static inline void leases_die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline int leases_connect(uint16_t port)
{
	const struct sockaddr_in addr = { .sin_family = AF_INET,
					  .sin_port = htons(port),
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		leases_die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* What is beyond the samples is left out. */
static inline void leases_note(struct leases_times *t, uint64_t ns)
{
	if (!t->us)
		t->us = calloc(LEASES_SAMPLES, sizeof(*t->us));
	if (t->us && t->count < LEASES_SAMPLES)
		t->us[t->count++] = (uint32_t)(ns / 1000);
}

static inline int leases_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static inline uint32_t leases_percentile(struct leases_times *t, unsigned per_mille)
{
	return t->count ? t->us[(t->count - 1) * per_mille / 1000] : 0;
}

static inline void leases_print(uint64_t done, uint64_t bad, uint64_t ns, struct leases_times *t,
				uint64_t event_bytes)
{
	if (t->count)
		qsort(t->us, t->count, sizeof(*t->us), leases_compare);
	printf("{\"done\":%" PRIu64 ",\"bad\":%" PRIu64
	       ",\"seconds\":%.3f,\"p50_us\":%u,\"p99_us\":%u,\"event_bytes\":%" PRIu64 "}\n",
	       done, bad, (double)ns / 1e9, leases_percentile(t, 500), leases_percentile(t, 990),
	       event_bytes);
	free(t->us);
}
