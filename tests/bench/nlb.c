/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per packet of the forwarding program beside two floors: the packet sent back bare,
 * and a constant outer header pushed. All cases of a round follow each other, rounds alternate, and
 * the cost of the harness itself is measured among them and taken off.
 *
 * usage: nlb [--json] [--rounds N]   (root; pins nothing, attaches nothing)
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "bpf/nlb_abi.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "nlb.skel.h"
#include "nlb_floor.skel.h"
#include "nlb_harness.skel.h"

#define ROUNDS_DEFAULT   9
#define ROUNDS_MAX       101
#define PACKETS          400000
#define FLOW_BUCKETS_LOG 19 /* 2 M entries per CPU: a million flows find room */
#define GATEWAYS         10

enum vip { VIP_NONE, VIP_IPIP, VIP_IPIP_MOVED, VIP_GUE, VIP_GUE_MOVED, VIPS };
enum program { HARNESS, SWAP, PUSH, NLB, PROGRAMS };
enum { ESTABLISHED = 0x10, SYN = 0x02 };

struct bench_case {
	const char *name;
	enum program program;
	enum vip vip;
	uint32_t flows;
	uint32_t size; /* of the frame */
	uint8_t flags;
	uint32_t verdict;
};

static const struct bench_case cases[] = {
	{ "harness", HARNESS, VIP_IPIP, 1, 64, ESTABLISHED, XDP_TX },
	{ "harness, 64 k flows", HARNESS, VIP_IPIP, 1 << 16, 64, ESTABLISHED, XDP_TX },
	{ "XDP_TX, swapped MACs", SWAP, VIP_IPIP, 1, 64, ESTABLISHED, XDP_TX },
	{ "bare ipip push", PUSH, VIP_IPIP, 1, 64, ESTABLISHED, XDP_TX },
	{ "no VIP (pass)", NLB, VIP_NONE, 1, 64, ESTABLISHED, XDP_PASS },
	{ "ipip, stable slot, 1 flow", NLB, VIP_IPIP, 1, 64, ESTABLISHED, XDP_TX },
	{ "ipip, stable slot, 1 flow, 1400 bytes", NLB, VIP_IPIP, 1, 1400, ESTABLISHED, XDP_TX },
	{ "ipip, table hit, 1 flow", NLB, VIP_IPIP_MOVED, 1, 64, ESTABLISHED, XDP_TX },
	{ "gue, stable slot, 1 flow", NLB, VIP_GUE, 1, 64, ESTABLISHED, XDP_TX },
	{ "gue, table hit, 1 flow", NLB, VIP_GUE_MOVED, 1, 64, ESTABLISHED, XDP_TX },
	{ "ipip, SYN, 1 flow", NLB, VIP_IPIP, 1, 64, SYN, XDP_TX },
	{ "ipip, stable slots, 64 k flows", NLB, VIP_IPIP, 1 << 16, 64, ESTABLISHED, XDP_TX },
	{ "ipip, table hits, 64 k flows", NLB, VIP_IPIP_MOVED, 1 << 16, 64, ESTABLISHED, XDP_TX },
	{ "ipip, SYN, 64 k flows", NLB, VIP_IPIP, 1 << 16, 64, SYN, XDP_TX },
	{ "ipip, stable slots, 1 M flows", NLB, VIP_IPIP, 1 << 20, 64, ESTABLISHED, XDP_TX },
	{ "ipip, table hits, 512 k flows", NLB, VIP_IPIP_MOVED, 1 << 19, 64, ESTABLISHED, XDP_TX },
	{ "ipip, SYN, 512 k flows", NLB, VIP_IPIP, 1 << 19, 64, SYN, XDP_TX },
};

struct bench {
	struct nlb_harness_bpf *harness;
	struct nlb_floor_bpf *floor;
	struct nlb_bpf *nlb;
	int program[PROGRAMS];
	int rounds;
	double ns[ARRAY_SIZE(cases)][ROUNDS_MAX];
};

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

__attribute__((noreturn)) static void die(const char *what, int err)
{
	fprintf(stderr, "bench nlb: %s: %s\n", what, strerror(err));
	exit(1);
}

/* --- the programs ------------------------------------------------------------------------------
 */

static void must(int rc, const char *what)
{
	if (rc < 0)
		die(what, -rc);
}

static void load(struct bench *b)
{
	b->harness = nlb_harness_bpf__open_and_load();
	b->floor = nlb_floor_bpf__open_and_load();
	b->nlb = nlb_bpf__open();
	if (!b->harness || !b->floor || !b->nlb)
		die("loading the programs (root needed)", errno);
	bpf_map__set_max_entries(b->nlb->maps.flows, (uint32_t)libbpf_num_possible_cpus()
							     << FLOW_BUCKETS_LOG);
	must(nlb_bpf__load(b->nlb), "loading the forwarding program");
	b->program[HARNESS] = bpf_program__fd(b->floor->progs.nothing);
	b->program[SWAP] = bpf_program__fd(b->floor->progs.swap_macs);
	b->program[PUSH] = bpf_program__fd(b->floor->progs.push_ipip);
	b->program[NLB] = bpf_program__fd(b->nlb->progs.nlb);
}

/* --- the world of the forwarding program -------------------------------------------------------
 */

static uint32_t vip_address(enum vip vip)
{
	return htonl(0xcb007100U + (uint32_t)vip);
}

static void set_ring(struct bench *b, __u32 id, uint16_t flags, uint16_t shift)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ring", 4, sizeof(struct nlb_slot),
				NLB_RING_SLOTS, &opts);
	struct nlb_slot *slots;

	must(fd, "ring");
	slots = mmap(NULL, sizeof(*slots) * NLB_RING_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     0);
	if (slots == MAP_FAILED)
		die("ring", errno);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint16_t gw = (uint16_t)((s * 7 + shift) % GATEWAYS);

		slots[s] = (struct nlb_slot) { .gateway = (uint16_t)(1 + gw),
					       .earlier = { (uint16_t)(1 + (gw + 1) % GATEWAYS),
							    (uint16_t)(1 + (gw + 2) % GATEWAYS) },
					       .flags = flags };
	}
	munmap(slots, sizeof(*slots) * NLB_RING_SLOTS);
	must(bpf_map_update_elem(bpf_map__fd(b->nlb->maps.rings), &id, &fd, BPF_ANY), "ring");
	close(fd);
}

static void configure(struct bench *b)
{
	struct nlb_config config = { .flow_bucket_mask = (1U << FLOW_BUCKETS_LOG) - 1,
				     .new_flows_per_tick = UINT32_MAX,
				     .flow_regions = NLB_FLOW_REGIONS,
				     .source = { { 10, 0, 0, 2 } },
				     .hz = 250,
				     .flags = NLB_CONFIG_READY };
	__u32 zero = 0;

	for (int i = 0; i < NLB_HASH_KEYS; i++)
		config.hash_key[i] = 0x9e3779b97f4a7c15ULL * (2 * (uint64_t)i + 1) | 1;
	must(bpf_map_update_elem(bpf_map__fd(b->nlb->maps.config), &zero, &config, BPF_ANY),
	     "config");

	for (__u32 id = 1; id <= GATEWAYS; id++) {
		struct nlb_gateway gw = { .address = { 10, 0, 0, (uint8_t)(20 + id) },
					  .next_hop_mac = { 2, 0, 0, 0, 1, (uint8_t)id },
					  .source_mac = { 2, 0, 0, 0, 0, 1 },
					  .ifindex = 1, /* test runs come in on the loopback */
					  .generation = 1,
					  .mtu = 1600,
					  .family = 4,
					  .flags = NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED };

		must(bpf_map_update_elem(bpf_map__fd(b->nlb->maps.gateways), &id, &gw, BPF_ANY),
		     "gateway");
	}
	for (int v = VIP_IPIP; v < VIPS; v++) {
		struct nlb_vip4_key key = { vip_address((enum vip)v), htons(443), IPPROTO_TCP, 0 };
		struct nlb_vip4_key address = { .address = key.address };
		struct nlb_vip vip = { .id = (uint16_t)v,
				       .encap = v >= VIP_GUE ? NLB_ENCAP_GUE : NLB_ENCAP_IPIP };

		must(bpf_map_update_elem(bpf_map__fd(b->nlb->maps.vips4), &key, &vip, BPF_ANY),
		     "vip");
		must(bpf_map_update_elem(bpf_map__fd(b->nlb->maps.vips4), &address, &vip, BPF_ANY),
		     "vip");
		set_ring(b, (__u32)v, 0, 0);
	}
}

/* --- running -----------------------------------------------------------------------------------
 */

static void make_packet(uint8_t *p, const struct bench_case *c)
{
	uint32_t address = vip_address(c->vip);

	memset(p, 0, c->size);
	memset(p, 2, 12);
	p[12] = 8;
	p[14] = 0x45;
	p[16] = (uint8_t)((c->size - 14) >> 8);
	p[17] = (uint8_t)(c->size - 14);
	p[20] = 0x40;
	p[22] = 64;
	p[23] = IPPROTO_TCP;
	memcpy(p + 30, &address, 4);
	p[36] = 443 >> 8;
	p[37] = 443 & 0xff;
	p[46] = 5 << 4;
	p[47] = c->flags;
}

/* What this thread really got: others may be running on the same core. */
static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Returns nanoseconds per packet. */
static double run(struct bench *b, const struct bench_case *c, uint32_t packets, bool in_order)
{
	struct nlb_harness_bpf *h = b->harness;
	uint8_t in[2048], out[2048];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = c->size,
		    .data_out = out, .data_size_out = sizeof(out), .repeat = (int)packets);
	uint32_t zero = 0;
	uint64_t begin;

	must(bpf_map_update_elem(bpf_map__fd(h->maps.under_test), &zero, &b->program[c->program],
				 BPF_ANY),
	     "prog array");
	make_packet(in, c);
	h->bss->flow_mask = c->flows - 1;
	h->bss->flow_step = in_order;
	h->bss->packet_size = c->size;
	begin = thread_cpu_ns();
	must(bpf_prog_test_run_opts(bpf_program__fd(h->progs.harness), &opts), "test run");
	if (opts.retval != c->verdict) {
		fprintf(stderr, "bench nlb: %s: verdict %u, want %u\n", c->name, opts.retval,
			c->verdict);
		exit(1);
	}
	return (double)(thread_cpu_ns() - begin) / packets;
}

static void stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Connections that began before their slots moved: the table has them all. */
static void record_flows(struct bench *b, enum vip vip, uint32_t flows)
{
	struct bench_case c = { "recording", NLB, vip, flows, 64, SYN, XDP_TX };

	run(b, &c, c.flows, true);
	set_ring(b, (__u32)vip, NLB_SLOT_MOVED, 1);
}

static uint64_t counter(struct bench *b, size_t offset)
{
	int cpus = libbpf_num_possible_cpus();
	CLEANUP(cleanup_free)
	struct nlb_gateway_stats *values = calloc((size_t)MAX(cpus, 1), sizeof(*values));
	uint64_t sum = 0, one;

	if (!values)
		die("counters", ENOMEM);
	for (__u32 id = 1; id <= GATEWAYS; id++) {
		if (bpf_map_lookup_elem(bpf_map__fd(b->nlb->maps.gateway_stats), &id, values) != 0)
			continue;
		for (int cpu = 0; cpu < cpus; cpu++) {
			memcpy(&one, (char *)&values[cpu] + offset, sizeof(one));
			sum += one;
		}
	}
	return sum;
}

static void measure(struct bench *b)
{
	uint64_t hits, misses;

	record_flows(b, VIP_IPIP_MOVED, 1 << 19);
	record_flows(b, VIP_GUE_MOVED, 1);
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
		run(b, &cases[c], PACKETS / 4, false); /* warms up */
	for (int round = 0; round < b->rounds; round++) {
		for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
			b->ns[c][round] = run(b, &cases[c], PACKETS, false);
	}
	hits = counter(b, offsetof(struct nlb_gateway_stats, flow_hits));
	misses = counter(b, offsetof(struct nlb_gateway_stats, flow_misses));
	if (hits < 19 * misses) {
		fprintf(stderr,
			"bench nlb: %llu misses beside %llu hits: \"table hit\" would be no true "
			"name\n",
			(unsigned long long)misses, (unsigned long long)hits);
		exit(1);
	}
}

/* --- results -----------------------------------------------------------------------------------
 */

struct result {
	double median, low, high;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/*
 * What the harness costs with as many flows is taken off round by round. The ratio to XDP_TX alone
 * is of the whole figures: what is left of such a program without the harness is less than a
 * nanosecond.
 */
static double ratio_to_tx(const struct result *harness, const struct result *r,
			  const struct result *tx)
{
	return (harness->median + r->median) / (harness->median + tx->median);
}

static struct result result_of(struct bench *b, size_t c)
{
	double net[ROUNDS_MAX] = { 0 };
	size_t base = cases[c].flows > 1 ? 1 : 0;

	for (int r = 0; r < b->rounds; r++)
		net[r] = b->ns[c][r] - (cases[c].program == HARNESS ? 0 : b->ns[base][r]);
	qsort(net, (size_t)b->rounds, sizeof(net[0]), compare);
	return (struct result) { net[b->rounds / 2], net[0], net[b->rounds - 1] };
}

static void cpu_model(char *out, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(out, size, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "model name : %127[^\n]", out) == 1)
			break;
	}
	if (f)
		fclose(f);
}

static void print_json(struct bench *b)
{
	struct result harness = result_of(b, 0), tx = result_of(b, 2), push = result_of(b, 3);
	struct json_writer w;
	struct utsname un;
	char cpu[128];
	struct buf out;

	buf_init(&out, 1 << 20);
	w = json_writer(&out);
	cpu_model(cpu, sizeof(cpu));
	uname(&un);
	json_open(&w, NULL, '{');
	json_addz(&w, "bench", "nlb");
	json_addz(&w, "cpu", cpu);
	json_addz(&w, "kernel", un.release);
	json_add_u64(&w, "rounds", (uint64_t)b->rounds);
	json_add_u64(&w, "packets_per_round", PACKETS);
	json_open(&w, "cases", '[');
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct result r = result_of(b, c);

		json_open(&w, NULL, '{');
		json_addz(&w, "name", cases[c].name);
		json_add_double(&w, "ns", r.median);
		json_add_double(&w, "ns_min", r.low);
		json_add_double(&w, "ns_max", r.high);
		if (cases[c].program != HARNESS) {
			json_add_double(&w, "to_xdp_tx", ratio_to_tx(&harness, &r, &tx));
			json_add_double(&w, "to_ipip_push", r.median / push.median);
		}
		json_close(&w, '}');
	}
	json_close(&w, ']');
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
}

static void print_table(struct bench *b)
{
	struct result harness = result_of(b, 0), tx = result_of(b, 2), push = result_of(b, 3);

	printf("%-38s %8s %15s %9s %9s\n", "NLB, ns per packet, harness taken off", "median",
	       "min .. max", "x XDP_TX", "x push");
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct result r = result_of(b, c);

		printf("%-38s %8.1f %6.1f .. %5.1f", cases[c].name, r.median, r.low, r.high);
		if (cases[c].program == HARNESS)
			printf("    (not taken off)\n");
		else
			printf(" %9.1f %9.1f\n", ratio_to_tx(&harness, &r, &tx),
			       r.median / push.median);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "rounds", required_argument, NULL, 'r' },
						 { 0 } };
	static struct bench b = { .rounds = ROUNDS_DEFAULT };
	bool wants_json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'j')
			wants_json = true;
		else if (c == 'r' && atoi(optarg) > 0 && atoi(optarg) <= ROUNDS_MAX)
			b.rounds = atoi(optarg);
		else
			return 2;
	}
	libbpf_set_print(quiet);
	stay_on_this_cpu();
	load(&b);
	configure(&b);
	measure(&b);
	if (wants_json)
		print_json(&b);
	else
		print_table(&b);
	return 0;
}
