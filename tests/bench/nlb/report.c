/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of a run, for people and for `make bench`. */
#include <stdio.h>

#include "lib/buf.h"
#include "lib/json.h"
#include "tests/bench/nlb/bench.h"

/*
 * The ratio to XDP_TX alone is of the whole figures: what is left of such a program without the
 * harness is less than a nanosecond.
 */
static double ratio_to_tx(const struct bench *b, size_t c)
{
	double base = bench_result(b, case_base(c)).median;
	double tx = bench_result(b, CASE_HARNESS4).median + bench_result(b, CASE_TX).median;

	return (base + bench_result(b, c).median) / tx;
}

static double ratio_to_push(const struct bench *b, size_t c)
{
	return bench_result(b, c).median / bench_result(b, CASE_PUSH).median;
}

static void add_result(struct json_writer *w, const char *prefix, struct result r)
{
	char key[48];

	snprintf(key, sizeof(key), "%s", prefix);
	json_add_double(w, key, r.median);
	snprintf(key, sizeof(key), "%s_min", prefix);
	json_add_double(w, key, r.low);
	snprintf(key, sizeof(key), "%s_max", prefix);
	json_add_double(w, key, r.high);
}

static void add_case(struct json_writer *w, struct bench *b, size_t c)
{
	struct peer *p = bench_peer(b, &cases[c]);

	json_open(w, NULL, '{');
	json_addz(w, "name", cases[c].name);
	add_result(w, "ns", bench_result(b, c));
	if (cases[c].subject != SUBJECT_HARNESS) {
		json_add_double(w, "to_xdp_tx", ratio_to_tx(b, c));
		json_add_double(w, "to_ipip_push", ratio_to_push(b, c));
	}
	if (p) {
		json_addz(w, "peer", p->name);
		add_result(w, "peer_ns", bench_peer_result(b, c));
		add_result(w, "to_peer", bench_peer_ratio(b, c));
		if (cases[c].goal > 0)
			json_add_double(w, "goal", cases[c].goal);
	}
	json_close(w, '}');
}

void bench_print_json(struct bench *b)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	json_add_u64(&w, "rounds", (uint64_t)b->rounds);
	json_add_u64(&w, "packets_per_round", PACKETS);
	json_open(&w, "cases", '[');
	for (size_t c = 0; c < case_count; c++)
		add_case(&w, b, c);
	json_close(&w, ']');
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

static void print_peer(struct bench *b, size_t c)
{
	struct peer *p = bench_peer(b, &cases[c]);
	struct result r;

	if (!p)
		return;
	r = bench_peer_result(b, c);
	printf("  %8.1f %6.1f .. %6.1f  x%5.2f", r.median, r.low, r.high,
	       bench_peer_ratio(b, c).median);
	if (cases[c].goal > 0)
		printf(" (goal %.1f)", cases[c].goal);
	printf("  %s", p->name);
}

void bench_print_table(struct bench *b)
{
	printf("%-40s %8s %16s %8s %8s%s\n", "ns per packet, harness taken off", "median",
	       "min .. max", "x XDP_TX", "x push", b->peer_count ? "    peer" : "");
	for (size_t c = 0; c < case_count; c++) {
		struct result r = bench_result(b, c);

		printf("%-40s %8.1f %6.1f .. %6.1f", cases[c].name, r.median, r.low, r.high);
		if (cases[c].subject == SUBJECT_HARNESS)
			printf("  (not taken off)");
		else
			printf(" %8.1f %8.1f", ratio_to_tx(b, c), ratio_to_push(b, c));
		print_peer(b, c);
		putchar('\n');
	}
}
