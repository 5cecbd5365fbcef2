/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's live frames make the load: a program that runs on frames of a pool and sends each
 * out of the generator's end. What the forwarder's end sends back ends at a program of the
 * generator's, which must be there: veth takes nothing back by XDP otherwise. A frame's whole way
 * runs on this core.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "nlb_floor.skel.h"
#include "nlb_harness.skel.h"
#include "tests/bench/nlb/bench.h"

#define FRAMES     2000000U
#define BATCH      64
#define VARIANTS   (4 + PEERS_MAX)
#define SETTLE_MAX 200 /* milliseconds that the last frames may take */

struct variant {
	const char *name;
	int program;
	enum vip vip;
	bool is_dropping;
	double mpps[ROUNDS_MAX], lost[ROUNDS_MAX];
};

struct pair {
	int generator, forwarder;
};

static struct pair parse_pair(const char *text)
{
	char names[2][IF_NAMESIZE];
	struct pair pair;

	if (sscanf(text, "%15[^,],%15s", names[0], names[1]) != 2)
		die(text, EINVAL);
	pair.generator = (int)if_nametoindex(names[0]);
	pair.forwarder = (int)if_nametoindex(names[1]);
	if (!pair.generator || !pair.forwarder)
		die(text, ENODEV);
	return pair;
}

static void attach(int ifindex, int program)
{
	must(bpf_xdp_attach(ifindex, program, XDP_FLAGS_DRV_MODE, NULL), "attaching natively");
}

/* Generates `frames`; returns how long it took until the last of them was seen, in seconds. */
static double generate(struct bench *b, const struct pair *pair, const struct bench_case *c,
		       uint32_t frames)
{
	struct nlb_harness_bpf *h = b->world.harness;
	uint8_t packet[PACKET_MAX];
	struct xdp_md md = { .data_end = c->size, .ingress_ifindex = (uint32_t)pair->generator };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = c->size,
		    .ctx_in = &md, .ctx_size_in = sizeof(md), .repeat = (int)frames,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = BATCH);
	uint16_t type;
	uint64_t begin;

	make_packet(packet, c, &b->world.local);
	memcpy(&type, packet + 12, sizeof(type));
	h->bss->flow_mask = c->flows - 1;
	h->bss->flow_step = c->in_order;
	h->bss->source = SOURCE;
	h->bss->packet_size = c->size;
	h->bss->link_type = type;
	h->bss->received = 0;
	begin = clock_mono_ns();
	must(bpf_prog_test_run_opts(bpf_program__fd(h->progs.generate), &opts), "live frames");
	return (double)(clock_mono_ns() - begin) / NSEC_PER_SEC;
}

static void measure(struct bench *b, const struct pair *pair, struct variant *v, int round)
{
	struct bench_case c = { .vip = v->vip, .flows = 1 << 16, .size = 64, .flags = 0x10 };
	struct bench_case beginning = c;
	volatile __u64 *received = &b->world.harness->bss->received;
	double seconds;

	beginning.flags = 0x02;
	beginning.in_order = true;
	attach(pair->forwarder, v->program);
	for (size_t i = 0; i < b->peer_count; i++)
		peer_prepare(&b->peers[i], false);
	generate(b, pair, &beginning, c.flows); /* connections begin; it warms up */
	seconds = generate(b, pair, &c, FRAMES);
	for (int i = 0; i < SETTLE_MAX && !v->is_dropping && *received < FRAMES; i++)
		usleep(1000);
	v->mpps[round] = (v->is_dropping ? FRAMES : (double)*received) / seconds / 1e6;
	v->lost[round] = v->is_dropping ? 0 : 1 - (double)*received / FRAMES;
	must(bpf_xdp_detach(pair->forwarder, XDP_FLAGS_DRV_MODE, NULL), "detaching");
}

static struct variant variant(const char *name, int program, enum vip vip)
{
	return (struct variant) { .name = name, .program = program, .vip = vip };
}

static size_t list_variants(struct bench *b, struct variant *v)
{
	struct world *w = &b->world;
	size_t n = 0;

	v[n++] = variant("drop", bpf_program__fd(w->harness->progs.receive), VIP_IPIP);
	v[0].is_dropping = true;
	v[n++] = variant("XDP_TX, swapped MACs", w->program[SUBJECT_SWAP], VIP_IPIP);
	v[n++] = variant("ipip", w->program[SUBJECT_NLB], VIP_IPIP);
	v[n++] = variant("gue, two second choices", w->program[SUBJECT_NLB], VIP_GUE_SECOND);
	for (size_t i = 0; i < b->peer_count; i++) {
		struct peer *p = &b->peers[i];

		v[n++] = variant(p->name, p->program,
				 p->kind == PEER_GUE ? VIP_GUE_SECOND : VIP_IPIP);
	}
	return n;
}

static void print(struct bench *b, struct variant *v, size_t count)
{
	struct json_writer w;
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	json_open(&w, NULL, '[');
	for (size_t i = 0; i < count; i++) {
		struct result mpps = result_of(v[i].mpps, (size_t)b->rounds);

		json_open(&w, NULL, '{');
		json_addz(&w, "name", v[i].name);
		json_add_double(&w, "mpps", mpps.median);
		json_add_double(&w, "mpps_min", mpps.low);
		json_add_double(&w, "mpps_max", mpps.high);
		json_add_double(&w, "lost", result_of(v[i].lost, (size_t)b->rounds).median);
		json_close(&w, '}');
	}
	json_close(&w, ']');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

/*
 * Packets are counted against the clock here, since a thread's own time lacks what interrupts take:
 * others on this core have to wait. Runs are short.
 */
static void run_undisturbed(void)
{
	struct sched_param first = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
		fprintf(stderr, "bench nlb: not scheduled before others: %s\n", strerror(errno));
}

int veth_main(struct bench *b, const char *interfaces)
{
	static struct variant variants[VARIANTS];
	struct pair pair = parse_pair(interfaces);
	size_t count;

	run_undisturbed();
	world_open(&b->world, (uint32_t)pair.forwarder);
	world_prepare(&b->world, &cases[CASE_TX]);
	attach(pair.generator, bpf_program__fd(b->world.harness->progs.receive));
	count = list_variants(b, variants);
	for (int round = 0; round < b->rounds; round++) {
		for (size_t i = 0; i < count; i++)
			measure(b, &pair, &variants[i], round);
	}
	print(b, variants, count);
	return 0;
}
