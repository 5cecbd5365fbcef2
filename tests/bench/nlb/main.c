/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nanoseconds per packet of the forwarding program beside two floors: the packet sent back bare,
 * and a constant outer header pushed; and beside other balancers whose object files are given. All
 * cases of a round follow each other, rounds alternate, and the cost of the harness itself is
 * measured among them and taken off.
 *
 * usage: nlb [--json] [--rounds N] [--with OBJECT[:PROGRAM]]...
 *            packets through BPF_PROG_TEST_RUN (root; pins nothing, attaches nothing)
 *        nlb --veth GENERATOR,FORWARDER ...
 *            native programs on the two ends of a veth pair that the caller made for this
 *        nlb --scale [--rounds N]
 *            memory at the limits, time of a pool change
 */
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include <bpf/libbpf.h>

#include "tests/bench/nlb/bench.h"

#define ROUNDS_DEFAULT 9
#define LOOPBACK_INDEX 1 /* test runs come in there */

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static void stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

struct options {
	const char *with[PEERS_MAX];
	size_t with_count;
	const char *veth;
	int rounds;
	bool wants_json, wants_scale;
};

static bool parse(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "with", required_argument, NULL, 'w' },
		{ "veth", required_argument, NULL, 'v' },
		{ "scale", no_argument, NULL, 's' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'j')
			o->wants_json = true;
		else if (c == 's')
			o->wants_scale = true;
		else if (c == 'v')
			o->veth = optarg;
		else if (c == 'r' && atoi(optarg) > 0 && atoi(optarg) <= ROUNDS_MAX)
			o->rounds = atoi(optarg);
		else if (c == 'w' && o->with_count < PEERS_MAX)
			o->with[o->with_count++] = optarg;
		else
			return false;
	}
	return optind == argc;
}

int main(int argc, char **argv)
{
	static struct bench b;
	struct options o = { .rounds = ROUNDS_DEFAULT };

	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "usage: nlb [--json] [--rounds N] [--with OBJECT[:PROGRAM]]... "
				"[--veth GENERATOR,FORWARDER | --scale]\n");
		return 2;
	}
	libbpf_set_print(quiet);
	stay_on_this_cpu();
	if (o.wants_scale)
		return scale_main(o.rounds);
	b.rounds = o.rounds;
	for (size_t i = 0; i < o.with_count; i++)
		peer_open(&b.peers[b.peer_count++], o.with[i]);
	if (o.veth)
		return veth_main(&b, o.veth);
	world_open(&b.world, LOOPBACK_INDEX);
	bench_run(&b);
	if (o.wants_json)
		bench_print_json(&b);
	else
		bench_print_table(&b);
	return 0;
}
