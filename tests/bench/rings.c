/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rings are like: how evenly slots are shared, how many change hands when a gateway leaves or
 * comes, and how long building takes. As a table, or with --json for `make bench`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "nlb/rings.h"

#define RUNS      7
#define COUNT_MAX 4000

struct figures {
	double imbalance;           /* largest share over the mean, - 1 */
	double out, removed, added; /* slots that changed hands, of all */
	double build_ms;
};

static const struct hash_key key = { { 0x6761746568, 0x6f757365 } };
static struct ring_member members[COUNT_MAX + 1];
static char names[COUNT_MAX + 1][24];
static struct nlb_slot rings[3][NLB_RING_SLOTS];

static void make_members(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "10.%u.%u.%u", (unsigned)(i >> 16),
				   (unsigned)(i >> 8 & 255), (unsigned)(i & 255));

		members[i] = (struct ring_member) { .id = (uint16_t)(i + 1),
						    .identity = str_of(names[i], (size_t)len),
						    .weight = 1,
						    .takes_new = true,
						    .takes_known = true };
	}
}

static int build(struct nlb_slot *out, const struct nlb_slot *before, size_t count)
{
	int moved = ring_build(out, before, members, count, &key, false, 0);

	if (moved < 0) {
		fprintf(stderr, "rings: %s\n", strerror(-moved));
		exit(1);
	}
	return moved;
}

static double imbalance_of(const struct nlb_slot *ring, size_t count)
{
	static uint32_t owned[COUNT_MAX + 2];
	uint32_t most = 0;

	memset(owned, 0, sizeof(owned));
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		owned[ring[s].gateway]++;
		most = MAX(most, owned[ring[s].gateway]);
	}
	return most * (double)count / NLB_RING_SLOTS - 1;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median_build_ms(size_t count)
{
	double ms[RUNS];

	for (int i = 0; i < RUNS; i++) {
		uint64_t begin = clock_mono_ns();

		build(rings[1], rings[0], count);
		ms[i] = (double)(clock_mono_ns() - begin) / 1e6;
	}
	qsort(ms, RUNS, sizeof(ms[0]), compare);
	return ms[RUNS / 2];
}

/* Disruption is the mean over several gateways: which one leaves makes a difference. */
static struct figures measure(size_t count)
{
	struct figures f = { 0 };
	size_t step = MAX(count / 10, (size_t)1), tried = 0;

	make_members(count + 1);
	build(rings[0], NULL, count);
	f.imbalance = imbalance_of(rings[0], count);
	f.added = build(rings[1], rings[0], count + 1) / (double)NLB_RING_SLOTS;
	f.build_ms = median_build_ms(count);
	for (size_t out = 0; out < count; out += step, tried++) {
		struct ring_member gone = members[out];

		members[out].takes_new = false;
		f.out += build(rings[1], rings[0], count) / (double)NLB_RING_SLOTS;
		members[out] = members[count - 1];
		f.removed += build(rings[1], rings[0], count - 1) / (double)NLB_RING_SLOTS;
		members[out] = gone;
	}
	f.out /= (double)tried;
	f.removed /= (double)tried;
	return f;
}

int main(int argc, char **argv)
{
	static const size_t counts[] = { 10, 100, 1000, COUNT_MAX };
	bool is_json = argc > 1 && strcmp(argv[1], "--json") == 0;

	if (is_json)
		printf("[");
	else
		printf("%8s %10s %22s %22s %22s %9s\n", "gateways", "imbalance",
		       "one is out (x 1/N)", "one removed (x 1/N)", "one added (x 1/N)", "build");
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		double n = (double)counts[i];
		struct figures f = measure(counts[i]);

		if (is_json)
			printf("%s{\"gateways\":%zu,\"imbalance\":%.5f,\"out_per_share\":%.3f,"
			       "\"removed_per_share\":%.3f,"
			       "\"added_per_share\":%.3f,\"build_ms\":%.2f}",
			       i ? "," : "", counts[i], f.imbalance, f.out * n, f.removed * n,
			       f.added * (n + 1), f.build_ms);
		else
			printf("%8zu %9.2f%% %14.3f%% (%.2f) %14.3f%% (%.2f) %14.3f%% (%.2f) %6.1f "
			       "ms\n",
			       counts[i], f.imbalance * 100, f.out * 100, f.out * n,
			       f.removed * 100, f.removed * n, f.added * 100, f.added * (n + 1),
			       f.build_ms);
	}
	if (is_json)
		printf("]\n");
	return 0;
}
