/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/nlb/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <netinet/in.h>

#include "lib/clock.h"
#include "nlb_harness.skel.h"

uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* --- one run -----------------------------------------------------------------------------------
 */

static struct bpf_program *harness_of(struct nlb_harness_bpf *h, const struct bench_case *c)
{
	if (c->tunnel != TUNNEL_NONE)
		return h->progs.harness_tunnel;
	return vips[c->vip].family == 6 ? h->progs.harness6 : h->progs.harness4;
}

static void set_harness(struct nlb_harness_bpf *h, const struct bench_case *c,
			const uint8_t *packet, uint32_t next_flow, int program)
{
	uint32_t zero = 0;
	uint16_t type;

	memcpy(&type, packet + 12, sizeof(type));
	memcpy(h->bss->outer, packet, sizeof(h->bss->outer));
	h->bss->flow_mask = c->flows - 1;
	h->bss->flow_step = c->in_order;
	h->bss->flow_state = next_flow;
	h->bss->source = c->is_blocked ? SOURCE_BAD : SOURCE;
	h->bss->packet_size = c->size;
	h->bss->link_type = type;
	must(bpf_map_update_elem(bpf_map__fd(h->maps.under_test), &zero, &program, BPF_ANY),
	     "prog array");
}

/* Whether the packet came out as such a verdict lets expect: an outer header more, or one less. */
static bool is_plausible(const struct bench_case *c, uint32_t verdict, uint32_t size)
{
	if (verdict != c->verdict)
		return false;
	if (c->subject == SUBJECT_DECAP)
		return size < c->size;
	if (c->subject == SUBJECT_PUSH || (c->subject == SUBJECT_NLB && verdict == XDP_TX))
		return c->vip == VIP_L2 ? size == c->size : size > c->size;
	return size == c->size;
}

/* Returns nanoseconds per packet, the harness's included. */
static double run(struct world *w, const struct bench_case *c, uint32_t packets, int program,
		  uint32_t *next_flow)
{
	struct nlb_harness_bpf *h = w->harness;
	uint8_t in[PACKET_MAX], out[PACKET_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = c->size,
		    .data_out = out, .data_size_out = sizeof(out), .repeat = (int)packets);
	uint64_t begin, end;

	make_packet(in, c, &w->local);
	set_harness(h, c, in, *next_flow, program);
	begin = thread_cpu_ns();
	must(bpf_prog_test_run_opts(bpf_program__fd(harness_of(h, c)), &opts), "test run");
	end = thread_cpu_ns();
	if (!is_plausible(c, opts.retval, opts.data_size_out)) {
		fprintf(stderr, "bench nlb: %s: verdict %u with %u bytes, not %u\n", c->name,
			opts.retval, opts.data_size_out, c->verdict);
		exit(1);
	}
	*next_flow = h->bss->flow_state;
	return (double)(end - begin) / packets;
}

static double run_ours(struct bench *b, size_t c, uint32_t packets)
{
	world_prepare(&b->world, &cases[c]);
	return run(&b->world, &cases[c], packets, b->world.program[cases[c].subject],
		   &b->next_flow[c][0]);
}

static double run_peer(struct bench *b, size_t c, struct peer *p, uint32_t packets)
{
	peer_prepare(p, cases[c].is_flood);
	return run(&b->world, &cases[c], packets, p->program, &b->next_flow[c][1]);
}

struct peer *bench_peer(struct bench *b, const struct bench_case *c)
{
	for (size_t i = 0; i < b->peer_count; i++) {
		if (b->peers[i].kind == c->peer)
			return &b->peers[i];
	}
	return NULL;
}

/* --- all of them -------------------------------------------------------------------------------
 */

/* Every connection of this case begins, one after the other. */
static void begin_connections(struct bench *b, const struct bench_case *of)
{
	struct bench_case c = *of;
	struct peer *p = bench_peer(b, of);
	uint32_t ours = 0, theirs = 0;

	c.flags = 0x02;
	c.in_order = true;
	for (uint32_t done = 0; done < of->flows; done += PACKETS) {
		uint32_t count = of->flows - done < PACKETS ? of->flows - done : PACKETS;

		world_prepare(&b->world, &c);
		run(&b->world, &c, count, b->world.program[SUBJECT_NLB], &ours);
		if (p) {
			peer_prepare(p, false);
			run(&b->world, &c, count, p->program, &theirs);
		}
	}
}

/* The case that has most of the VIP's connections begins them all. */
static void prepare_vip(struct bench *b, enum vip vip)
{
	const struct bench_case *most = NULL;

	for (size_t c = 0; c < case_count; c++) {
		if (cases[c].subject == SUBJECT_NLB && cases[c].vip == vip && !cases[c].in_order &&
		    !cases[c].is_blocked && (!most || cases[c].flows > most->flows))
			most = &cases[c];
	}
	if (most && vips[vip].encap && !vips[vip].is_empty)
		begin_connections(b, most);
	if (vips[vip].is_moved)
		world_move(&b->world, vip);
}

static void check_hits(struct bench *b, uint64_t misses_before)
{
	uint64_t hits, misses;

	world_hits(&b->world, &hits, &misses);
	misses -= misses_before;
	if (hits < 19 * misses) {
		fprintf(stderr,
			"bench nlb: %llu misses beside %llu hits: \"table hit\" would be no true "
			"name\n",
			(unsigned long long)misses, (unsigned long long)hits);
		exit(1);
	}
	for (size_t i = 0; i < b->peer_count; i++) {
		misses = peer_misses(&b->peers[i]);
		if (misses > (uint64_t)b->rounds * PACKETS / 20) {
			fprintf(stderr, "bench nlb: %s forgot connections: %llu misses\n",
				b->peers[i].name, (unsigned long long)misses);
			exit(1);
		}
	}
}

/* Packets of one connection are quick, so there are more of them in a run. */
static uint32_t packets_of(const struct bench_case *c)
{
	return c->flows == 1 ? 4 * PACKETS : PACKETS;
}

static void run_round(struct bench *b, int round)
{
	for (size_t c = 0; c < case_count; c++) {
		struct peer *p = bench_peer(b, &cases[c]);

		b->ns[c][round] = run_ours(b, c, packets_of(&cases[c]));
		if (p)
			b->peer_ns[c][round] = run_peer(b, c, p, packets_of(&cases[c]));
	}
}

void bench_run(struct bench *b)
{
	uint64_t hits, misses;

	if (case_count > CASES_MAX)
		die("more cases than there is room for", ENOSPC);
	for (enum vip vip = 0; vip < VIPS; vip++)
		prepare_vip(b, vip);
	world_hits(&b->world, &hits, &misses);
	run_round(b, 0); /* warms up */
	for (int round = 0; round < b->rounds; round++)
		run_round(b, round);
	check_hits(b, misses);
}

/* --- results -----------------------------------------------------------------------------------
 */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct result result_of(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return (struct result) { values[count / 2], values[0], values[count - 1] };
}

/* Of the harness itself it is what it costs; of all else what is left when that is taken off. */
static double net(const struct bench *b, size_t c, int round)
{
	if (cases[c].subject == SUBJECT_HARNESS)
		return b->ns[c][round];
	return b->ns[c][round] - b->ns[case_base(c)][round];
}

static double peer_net(const struct bench *b, size_t c, int round)
{
	return b->peer_ns[c][round] - b->ns[case_base(c)][round];
}

struct result bench_result(const struct bench *b, size_t c)
{
	double values[ROUNDS_MAX] = { 0 };

	for (int r = 0; r < b->rounds; r++)
		values[r] = net(b, c, r);
	return result_of(values, (size_t)b->rounds);
}

struct result bench_peer_result(const struct bench *b, size_t c)
{
	double values[ROUNDS_MAX] = { 0 };

	for (int r = 0; r < b->rounds; r++)
		values[r] = peer_net(b, c, r);
	return result_of(values, (size_t)b->rounds);
}

struct result bench_peer_ratio(const struct bench *b, size_t c)
{
	double values[ROUNDS_MAX] = { 0 };

	for (int r = 0; r < b->rounds; r++)
		values[r] = net(b, c, r) / peer_net(b, c, r);
	return result_of(values, (size_t)b->rounds);
}
