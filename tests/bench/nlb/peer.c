/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/nlb/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/nlb_abi.h"
#include "lib/cleanup.h"
#include "lib/clock.h"

/* Katran's default, shared among two cores. Ours has half of it: most of what Katran records, the
 * ring knows here. */
#define CONNECTIONS_PER_CPU 4000000U

/* vip_map: address (IPv4 in the first four bytes), port as on the wire; value: flags, number. */
struct peer_vip_key {
	uint8_t address[16];
	__be16 port;
	uint8_t protocol, pad;
};
struct peer_vip {
	uint32_t flags, number;
};

/* reals and pckt_srcs: an address, of which family the flags say. */
struct peer_address {
	uint8_t address[16];
	uint8_t flags, pad[3];
};
#define PEER_ADDRESS_IPV6 1

/* stats: two figures each. Behind those of the VIPs there are some of the whole. */
struct peer_figures {
	uint64_t v1, v2;
};
enum { FIGURES_MISSES = 1, FIGURES_RATE = 2 };

static noreturn void refuse(const struct peer *p, const char *what)
{
	fprintf(stderr, "bench nlb: %s: %s\n", p->name, what);
	exit(1);
}

static struct bpf_map *find_map(const struct peer *p, const char *name)
{
	return bpf_object__find_map_by_name(p->object, name);
}

static struct bpf_map *map_of(const struct peer *p, const char *name)
{
	struct bpf_map *map = find_map(p, name);

	if (!map) {
		fprintf(stderr,
			"bench nlb: %s has no map \"%s\": only programs with Katran's maps can be "
			"filled\n",
			p->name, name);
		exit(1);
	}
	return map;
}

static void put(const struct peer *p, const char *name, uint32_t key, const void *value)
{
	must(bpf_map_update_elem(bpf_map__fd(map_of(p, name)), &key, value, BPF_ANY), name);
}

static struct bpf_program *choose_program(const struct peer *p, const char *name)
{
	struct bpf_program *program;

	bpf_object__for_each_program (program, p->object) {
		if (!name || strcmp(bpf_program__name(program), name) == 0 ||
		    strcmp(bpf_program__section_name(program), name) == 0)
			return program;
	}
	refuse(p, "no such program in it");
}

/* What a connection table is like. */
struct table {
	enum bpf_map_type type;
	uint32_t key_size, value_size, flags;
};

/* The library forgets it when the object is loaded. */
static struct table table_of(const struct peer *p)
{
	struct bpf_map *map = bpf_map__inner_map(map_of(p, "lru_mapping"));

	if (!map)
		refuse(p, "lru_mapping does not say what is in it");
	return (struct table) { .type = bpf_map__type(map),
				.key_size = bpf_map__key_size(map),
				.value_size = bpf_map__value_size(map),
				.flags = bpf_map__map_flags(map) };
}

static struct table load(struct peer *p, const char *path, const char *program_name)
{
	struct bpf_program *program, *other;
	struct table table;

	p->object = bpf_object__open_file(path, NULL);
	if (!p->object)
		die(path, errno);
	program = choose_program(p, program_name);
	bpf_object__for_each_program (other, p->object) {
		bpf_program__set_autoload(other, other == program);
	}
	bpf_program__set_type(program, BPF_PROG_TYPE_XDP);
	table = table_of(p);
	must(bpf_object__load(p->object), path);
	p->program = bpf_program__fd(program);
	p->vips_max = bpf_map__max_entries(map_of(p, "vip_map"));
	p->kind = find_map(p, "pckt_srcs") ? PEER_GUE : PEER_IPIP;
	return table;
}

static void set_ring(const struct peer *p, enum vip vip)
{
	uint32_t base = vips[vip].gateway_family == 6 ? GATEWAYS + 1 : 1, count = NLB_RING_SLOTS;
	CLEANUP(cleanup_free) uint32_t *keys = calloc(count, sizeof(*keys));
	CLEANUP(cleanup_free) uint32_t *gateways = calloc(count, sizeof(*gateways));

	if (!keys || !gateways)
		die("ring", ENOMEM);
	for (uint32_t s = 0; s < count; s++) {
		keys[s] = vip * NLB_RING_SLOTS + s;
		gateways[s] = base + s * 7 % GATEWAYS;
	}
	must(bpf_map_update_batch(bpf_map__fd(map_of(p, "ch_rings")), keys, gateways, &count, NULL),
	     "ch_rings");
}

static void set_vip(const struct peer *p, enum vip vip)
{
	struct peer_vip_key key = { .port = htons(SERVICE_PORT), .protocol = vips[vip].protocol };
	struct peer_vip value = { .number = vip };

	vip_address(key.address, vip);
	must(bpf_map_update_elem(bpf_map__fd(map_of(p, "vip_map")), &key, &value, BPF_ANY),
	     "vip_map");
	set_ring(p, vip);
}

/* One table for each CPU, in place of the small one that serves all of them. */
static void set_tables(const struct peer *p, const struct table *table)
{
	int cpus = must(libbpf_num_possible_cpus(), "number of CPUs");

	for (int cpu = 0; cpu < cpus; cpu++) {
		LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = table->flags);
		CLEANUP(cleanup_close)
		int fd = must(bpf_map_create(table->type, "flows", table->key_size,
					     table->value_size, CONNECTIONS_PER_CPU, &opts),
			      "connection table");

		put(p, "lru_mapping", (uint32_t)cpu, &fd);
	}
}

static void set_addresses(const struct peer *p)
{
	static const uint8_t router[8] = { 2, 0, 0, 0, 1, 1 };
	struct peer_address a = { 0 };

	for (uint32_t id = 1; id <= 2 * GATEWAYS; id++) {
		a.flags = id > GATEWAYS ? PEER_ADDRESS_IPV6 : 0;
		gateway_address(a.address, id);
		put(p, "reals", id, &a);
	}
	put(p, "ctl_array", 0, router);
	for (uint32_t i = 0; i < 2 && p->kind == PEER_GUE; i++) {
		a.flags = i ? PEER_ADDRESS_IPV6 : 0;
		nlb_address(a.address, i ? 6 : 4);
		put(p, "pckt_srcs", i, &a);
	}
}

static void set_name(struct peer *p, const char *path)
{
	const char *base = strrchr(path, '/');
	char *dot;

	snprintf(p->name, sizeof(p->name), "%s", base ? base + 1 : path);
	dot = strchr(p->name, '.');
	if (dot)
		*dot = '\0';
}

void peer_open(struct peer *p, const char *spec)
{
	CLEANUP(cleanup_free) char *path = strdup(spec);
	char *colon = path ? strchr(path, ':') : NULL;
	struct table table;

	if (!path)
		die(spec, ENOMEM);
	if (colon)
		*colon++ = '\0';
	set_name(p, path);
	table = load(p, path, colon);
	set_addresses(p);
	set_tables(p, &table);
	for (enum vip vip = 0; vip < VIPS; vip++) {
		if (vips[vip].encap && !vips[vip].is_empty)
			set_vip(p, vip);
	}
}

static struct peer_figures *figures(int *cpus)
{
	struct peer_figures *f;

	*cpus = must(libbpf_num_possible_cpus(), "number of CPUs");
	f = calloc((size_t)*cpus, sizeof(*f));
	if (!f)
		die("counters", ENOMEM);
	return f;
}

/*
 * It counts the new connections of each second (v1) since its beginning (v2), and above a fixed
 * number records no more. A run's beginning is long ago: all are recorded, if they are fewer. A
 * run that begins beyond that number is a flood.
 */
void peer_prepare(struct peer *p, bool is_flood)
{
	int cpus;
	CLEANUP(cleanup_free) struct peer_figures *f = figures(&cpus);

	for (int i = 0; i < cpus && is_flood; i++)
		f[i] = (struct peer_figures) { UINT32_MAX, clock_mono_ns() };
	put(p, "stats", p->vips_max + FIGURES_RATE, f);
}

uint64_t peer_misses(struct peer *p)
{
	uint32_t key = p->vips_max + FIGURES_MISSES;
	int cpus;
	CLEANUP(cleanup_free) struct peer_figures *f = figures(&cpus);
	uint64_t sum = 0;

	must(bpf_map_lookup_elem(bpf_map__fd(map_of(p, "stats")), &key, f), "stats");
	for (int i = 0; i < cpus; i++)
		sum += f[i].v2;
	return sum;
}
