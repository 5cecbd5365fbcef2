/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/nlb/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/nlb_abi.h"
#include "decap.skel.h"
#include "lib/cleanup.h"
#include "nlb.skel.h"
#include "nlb_floor.skel.h"
#include "nlb_harness.skel.h"

#define RING_BYTES (sizeof(struct nlb_slot) * NLB_RING_SLOTS)
#define MTU        1600
#define BLOCKS     1000

noreturn void die(const char *what, int err)
{
	fprintf(stderr, "bench nlb: %s: %s\n", what, strerror(err));
	exit(1);
}

int must(int rc, const char *what)
{
	if (rc < 0)
		die(what, -rc);
	return rc;
}

static void put(const struct bpf_map *map, const void *key, const void *value)
{
	must(bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY), bpf_map__name(map));
}

/* --- the load balancer -------------------------------------------------------------------------
 */

static void load(struct world *w)
{
	w->harness = nlb_harness_bpf__open_and_load();
	w->floor = nlb_floor_bpf__open_and_load();
	w->decap = decap_bpf__open_and_load();
	w->nlb = nlb_bpf__open();
	if (!w->harness || !w->floor || !w->decap || !w->nlb)
		die("loading the programs (root needed)", errno);
	bpf_map__set_max_entries(w->nlb->maps.flows, (uint32_t)libbpf_num_possible_cpus()
							     << FLOW_BUCKETS_LOG);
	must(nlb_bpf__load(w->nlb), "loading the forwarding program");
	w->program[SUBJECT_HARNESS] = bpf_program__fd(w->floor->progs.nothing);
	w->program[SUBJECT_SWAP] = bpf_program__fd(w->floor->progs.swap_macs);
	w->program[SUBJECT_PUSH] = bpf_program__fd(w->floor->progs.push_ipip);
	w->program[SUBJECT_NLB] = bpf_program__fd(w->nlb->progs.nlb);
	w->program[SUBJECT_DECAP] = bpf_program__fd(w->decap->progs.decap);
}

void world_prepare(struct world *w, const struct bench_case *c)
{
	struct nlb_config config = { .flow_bucket_mask = (1U << FLOW_BUCKETS_LOG) - 1,
				     .new_flows_per_tick = c->is_flood ? 1 : UINT32_MAX,
				     .flow_regions = NLB_FLOW_REGIONS,
				     .udp_timeout = UINT32_MAX,
				     .hz = 250,
				     .flags = NLB_CONFIG_READY };
	__u32 zero = 0;

	for (enum vip vip = 0; vip < VIPS; vip++) {
		__be32 address[4];

		vip_address((uint8_t *)address, vip);
		if (vips[vip].encap && !c->is_unfiltered)
			config.vip_filter |= nlb_vip_bit(address, vips[vip].family == 6);
	}
	if (c->has_blocks)
		config.flags |= NLB_CONFIG_BLOCKED;
	nlb_address(config.source[0], 4);
	nlb_address(config.source[1], 6);
	for (uint64_t i = 0; i < NLB_HASH_KEYS; i++)
		config.hash_key[i] = (0x9e3779b97f4a7c15ULL * (2 * i + 1)) | 1;
	put(w->nlb->maps.config, &zero, &config);
}

static void set_gateways(struct world *w)
{
	for (__u32 id = 1; id <= 2 * GATEWAYS; id++) {
		struct nlb_gateway gw = { .next_hop_mac = { 2, 0, 0, 0, 1, (uint8_t)id },
					  .source_mac = { 2, 0, 0, 0, 0, 1 },
					  .ifindex = w->ifindex,
					  .generation = 1,
					  .mtu = MTU,
					  .family = id > GATEWAYS ? 6 : 4,
					  .flags = NLB_GATEWAY_USABLE | NLB_GATEWAY_RESOLVED };

		gateway_address(gw.address, id);
		put(w->nlb->maps.gateways, &id, &gw);
	}
}

static void set_ring(struct world *w, enum vip vip, bool is_moved)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	CLEANUP(cleanup_close)
	int fd = must(bpf_map_create(BPF_MAP_TYPE_ARRAY, "ring", sizeof(__u32),
				     sizeof(struct nlb_slot), NLB_RING_SLOTS, &opts),
		      "ring");
	struct nlb_slot *slots = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint32_t base = vips[vip].gateway_family == 6 ? GATEWAYS + 1 : 1;

	if (slots == MAP_FAILED)
		die("ring", errno);
	for (uint32_t s = 0; s < NLB_RING_SLOTS; s++) {
		uint32_t gw = (s * 7 + is_moved) % GATEWAYS;

		slots[s].gateway = (uint16_t)(base + gw);
		for (uint32_t i = 0; i < 2 && vips[vip].has_earlier; i++)
			slots[s].earlier[i] = (uint16_t)(base + (gw + 1 + i) % GATEWAYS);
		slots[s].flags = is_moved ? NLB_SLOT_MOVED : 0;
	}
	munmap(slots, RING_BYTES);
	put(w->nlb->maps.rings, &(__u32) { vip }, &fd);
}

void world_move(struct world *w, enum vip vip)
{
	set_ring(w, vip, true);
}

static void set_vip(struct world *w, enum vip vip)
{
	const struct vip_spec *v = &vips[vip];
	struct nlb_vip value = { .id = (uint16_t)vip, .encap = v->encap };
	uint8_t address[16];

	vip_address(address, vip);
	for (int i = 0; i < 2; i++) { /* the service, then the address alone */
		__be16 port = i ? 0 : htons(SERVICE_PORT);
		uint8_t protocol = i ? 0 : v->protocol;
		struct nlb_vip4_key key4 = { .port = port, .protocol = protocol };
		struct nlb_vip6_key key6 = { .port = port, .protocol = protocol };

		memcpy(&key4.address, address, sizeof(key4.address));
		memcpy(key6.address, address, sizeof(key6.address));
		if (v->family == 6)
			put(w->nlb->maps.vips6, &key6, &value);
		else
			put(w->nlb->maps.vips4, &key4, &value);
	}
	if (!v->is_empty)
		set_ring(w, vip, false);
}

/* One that the benchmark's bad client is in, and others beside it. */
static void set_blocks(struct world *w)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct nlb_prefix_key key = { .prefix_len = 96 + 24 };
	struct nlb_block block = { 0 };

	memcpy(key.address, mapped, sizeof(mapped));
	for (uint32_t i = 0; i <= BLOCKS; i++) {
		uint32_t network = htonl(i == BLOCKS ? SOURCE_BAD : 0x2d000000U + (i << 8));

		memcpy(key.address + 12, &network, 4);
		put(w->nlb->maps.blocked, &key, &block);
	}
}

/* --- the gateway's half ------------------------------------------------------------------------
 */

/* Stays open until the program ends. */
static void connect_locally(struct world *w)
{
	struct sockaddr_in service = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in client = service;
	socklen_t len = sizeof(service);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int from = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || from < 0 ||
	    bind(listener, (struct sockaddr *)&service, sizeof(service)) != 0 ||
	    listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&service, &len) != 0 ||
	    connect(from, (struct sockaddr *)&service, sizeof(service)) != 0 ||
	    getsockname(from, (struct sockaddr *)&client, &len) != 0)
		die("a connection over the loopback", errno);
	w->local.service_port = ntohs(service.sin_port);
	w->local.client_port = ntohs(client.sin_port);
}

static void set_decap(struct world *w)
{
	struct decap_source_key source = { .prefix_len = 128, .address = { [10] = 0xff, 0xff } };
	struct decap_vip_key vip = { .address = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };
	uint8_t address[16];
	__u32 one = 1;

	nlb_address(address, 4);
	memcpy(source.address + 12, address, 4);
	put(w->decap->maps.decap_sources, &source, &one);
	put(w->decap->maps.decap_vips, &vip, &one);
	connect_locally(w);
}

void world_open(struct world *w, uint32_t ifindex)
{
	*w = (struct world) { .ifindex = ifindex };
	load(w);
	set_gateways(w);
	for (enum vip vip = 0; vip < VIPS; vip++) {
		if (vips[vip].encap)
			set_vip(w, vip);
	}
	set_blocks(w);
	set_decap(w);
}

void world_hits(struct world *w, uint64_t *hits, uint64_t *misses)
{
	int cpus = MAX(libbpf_num_possible_cpus(), 1);
	CLEANUP(cleanup_free)
	struct nlb_gateway_stats *values = calloc((size_t)cpus, sizeof(*values));

	if (!values)
		die("counters", ENOMEM);
	*hits = *misses = 0;
	for (__u32 id = 1; id <= 2 * GATEWAYS; id++) {
		must(bpf_map_lookup_elem(bpf_map__fd(w->nlb->maps.gateway_stats), &id, values),
		     "counters");
		for (int cpu = 0; cpu < cpus; cpu++) {
			*hits += values[cpu].flow_hits;
			*misses += values[cpu].flow_misses;
		}
	}
}
