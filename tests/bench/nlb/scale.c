/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At the limits: 512 VIPs with a ring each, all gateways, and a million connections per CPU. The
 * kernel says what the maps take. Then one gateway of a VIP with 1,000 goes and comes: a ring is
 * built aside, written and put in place, as nlbd does it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include "bpf/nlb_abi.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "nlb.skel.h"
#include "nlb/ringmap.h"
#include "tests/bench/nlb/bench.h"

#define GATEWAYS_OF_VIP 1000
#define BUCKETS_PER_CPU (1U << 18) /* of four */

static const struct hash_key key = { { 0x6761746568, 0x6f757365 } };
static struct ring_member members[GATEWAYS_OF_VIP];
static char names[GATEWAYS_OF_VIP][24];

/* What the kernel has allocated for a map, in bytes. */
static uint64_t memory_of(int fd)
{
	char path[64], line[128];
	uint64_t bytes = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "memlock:", 8) == 0)
			bytes = strtoull(line + 8, NULL, 10);
	}
	if (f)
		fclose(f);
	return bytes;
}

static void make_members(void)
{
	for (size_t i = 0; i < GATEWAYS_OF_VIP; i++) {
		int len = snprintf(names[i], sizeof(names[i]), "10.0.%zu.%zu", i >> 8, i & 255);

		members[i] = (struct ring_member) { .id = (uint16_t)(i + 1),
						    .identity = str_of(names[i], (size_t)len),
						    .weight = 1,
						    .takes_new = true,
						    .takes_known = true };
	}
}

static struct nlb_bpf *load(void)
{
	struct nlb_bpf *nlb = nlb_bpf__open();

	if (!nlb)
		die("the forwarding program", errno);
	bpf_map__set_max_entries(nlb->maps.flows,
				 (uint32_t)libbpf_num_possible_cpus() * BUCKETS_PER_CPU);
	must(nlb_bpf__load(nlb), "loading the forwarding program (root needed)");
	return nlb;
}

static uint64_t fill_rings(struct nlb_bpf *nlb, struct ring *first)
{
	uint64_t bytes = 0;

	for (uint16_t vip = 0; vip < NLB_MAX_VIPS; vip++) {
		struct ring ring = { .fd = -1 };

		/* Building them is not what is counted here; a few gateways do. */
		must(ring_replace(&ring, bpf_map__fd(nlb->maps.rings), vip, members,
				  vip ? 4 : GATEWAYS_OF_VIP, &key, true),
		     "ring");
		bytes += memory_of(ring.fd);
		if (vip)
			ring_release(&ring);
		else
			*first = ring;
	}
	return bytes;
}

static struct result change_pool(struct nlb_bpf *nlb, struct ring *ring, int rounds)
{
	double ms[ROUNDS_MAX];

	for (int r = 0; r < rounds; r++) {
		uint64_t begin;

		members[GATEWAYS_OF_VIP / 2].takes_new = r % 2;
		begin = clock_mono_ns();
		must(ring_replace(ring, bpf_map__fd(nlb->maps.rings), 0, members, GATEWAYS_OF_VIP,
				  &key, false),
		     "ring");
		ms[r] = (double)(clock_mono_ns() - begin) / 1e6;
	}
	return result_of(ms, (size_t)rounds);
}

int scale_main(int rounds)
{
	struct nlb_bpf *nlb = load();
	struct ring ring = { .fd = -1 };
	uint64_t rings, flows = memory_of(bpf_map__fd(nlb->maps.flows)), others = 0;
	struct bpf_map *map;
	struct json_writer w;
	struct result ms;
	struct buf out;

	make_members();
	rings = fill_rings(nlb, &ring);
	ms = change_pool(nlb, &ring, rounds);
	bpf_object__for_each_map (map, nlb->obj) {
		if (map != nlb->maps.flows)
			others += memory_of(bpf_map__fd(map));
	}
	buf_init(&out, 1 << 16);
	w = json_writer(&out);
	json_open(&w, NULL, '{');
	json_add_u64(&w, "vips", NLB_MAX_VIPS);
	json_add_u64(&w, "gateways", NLB_MAX_GATEWAYS - 1);
	json_add_u64(&w, "connections_per_cpu", (uint64_t)BUCKETS_PER_CPU * NLB_FLOW_WAYS);
	json_add_u64(&w, "cpus", (uint64_t)libbpf_num_possible_cpus());
	json_add_u64(&w, "flow_bytes", flows);
	json_add_u64(&w, "ring_bytes", rings);
	json_add_u64(&w, "other_bytes", others);
	json_add_u64(&w, "pool_gateways", GATEWAYS_OF_VIP);
	json_add_double(&w, "pool_change_ms", ms.median);
	json_add_double(&w, "pool_change_ms_min", ms.low);
	json_add_double(&w, "pool_change_ms_max", ms.high);
	json_close(&w, '}');
	printf("%.*s\n", STR_ARG(buf_str(&out)));
	buf_fini(&out);
	ring_release(&ring);
	nlb_bpf__destroy(nlb);
	return 0;
}
