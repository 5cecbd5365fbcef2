/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/view.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "lib/cleanup.h"
#include "nlb.skel.h"
#include "nlb/pins.h"

/* --- opening ----------------------------------------------------------------------------------
 */

size_t view_interfaces(const char *pin_directory, char out[VIEW_INTERFACES_MAX][16])
{
	DIR *dir = opendir(pin_directory);
	struct dirent *entry;
	size_t count = 0;

	if (!dir)
		return 0;
	while (count < VIEW_INTERFACES_MAX && (entry = readdir(dir))) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%s/config", pin_directory, entry->d_name);
		if (entry->d_name[0] == '.' || strlen(entry->d_name) > 15 ||
		    access(path, F_OK) != 0)
			continue;
		snprintf(out[count++], 16, "%.15s", entry->d_name);
	}
	closedir(dir);
	return count;
}

/* A bare "no such file" would hide that the folder cannot even be looked into. */
static int find_interface(const char *pin_directory, char out[static 16], struct err *err)
{
	char found[VIEW_INTERFACES_MAX][16];
	size_t count = view_interfaces(pin_directory, found);

	if (count == 1) {
		snprintf(out, 16, "%s", found[0]);
		return 0;
	}
	if (count > 1)
		return err_set(err, -EINVAL,
			       "several interfaces forward (%s, %s …): name one with --interface",
			       found[0], found[1]);
	if (access(pin_directory, R_OK | X_OK) != 0 && errno == EACCES)
		return err_set(err, -EPERM, "%s: no permission; run it as root", pin_directory);
	return err_set(err, -ENOENT,
		       "nothing forwards on this host (no maps below %s); start nlbd first",
		       pin_directory);
}

static const struct {
	const char *name;
	size_t offset;
	uint32_t value_size; /* 0: whatever it is */
} maps[] = {
#define MAP(field, size)                                   \
	{                                                  \
#field, offsetof(struct view, field), size \
	}
	MAP(vips4, sizeof(struct nlb_vip)),
	MAP(vips6, sizeof(struct nlb_vip)),
	MAP(rings, sizeof(__u32)),
	MAP(gateways, sizeof(struct nlb_gateway)),
	MAP(gateway_stats, sizeof(struct nlb_gateway_stats)),
	MAP(reasons, sizeof(__u64)),
	MAP(flows, sizeof(struct nlb_flow_bucket)),
	MAP(blocked, sizeof(struct nlb_block)),
	MAP(allowed, sizeof(__u32)),
	MAP(source_rates, sizeof(struct nlb_rate_bucket)),
#undef MAP
};

static int *map_field(struct view *v, size_t i)
{
	return (int *)(void *)((char *)v + maps[i].offset);
}

/* Whether values are as long as we think; a daemon of another version may have made the map. */
static bool has_value_size(int fd, uint32_t size)
{
	struct bpf_map_info info = { 0 };
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.value_size == size;
}

static int open_map(const struct view *v, const char *name, uint32_t value_size, int *out,
		    struct err *err)
{
	int fd = pins_get(v->dir, name);

	if (fd == -EPERM || fd == -EACCES)
		return err_set(err, -EPERM, "%s: no permission; run it as root", v->dir);
	if (fd == -ENOENT)
		return err_set(err, -ENOENT,
			       "nothing forwards on %s (%s/%s is missing); start nlbd first",
			       v->interface, v->dir, name);
	if (fd < 0)
		return err_set(err, fd, "%s/%s: %s", v->dir, name, strerror(-fd));
	if (!has_value_size(fd, value_size)) {
		close(fd);
		return err_set(err, -EPROTO,
			       "the map %s/%s was made by another version; restart nlbd, or use "
			       "its nlbctl",
			       v->dir, name);
	}
	*out = fd;
	return 0;
}

/*
 * The kernel's tick, which flow entries are stamped with. Only a BPF program can read it; the one
 * that can is loaded alone, without any map. 0 when that is not possible.
 */
static uint64_t read_ticks(void)
{
	uint64_t now = 0;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &now, .ctx_size_in = sizeof(now));
	struct nlb_bpf *skel = nlb_bpf__open();
	struct bpf_program *program;
	struct bpf_map *map;

	if (!skel)
		return 0;
	bpf_object__for_each_program (program, skel->obj)
		bpf_program__set_autoload(program, program == skel->progs.read_clock);
	bpf_object__for_each_map (map, skel->obj)
		bpf_map__set_autocreate(map, false);
	if (nlb_bpf__load(skel) == 0)
		bpf_prog_test_run_opts(bpf_program__fd(skel->progs.read_clock), &opts);
	nlb_bpf__destroy(skel);
	return now;
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

int view_open(struct view *v, const char *pin_directory, const char *interface, struct err *err)
{
	__u32 zero = 0;
	int rc = 0, config = -1;

	*v = (struct view) { 0 };
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++)
		*map_field(v, i) = -1;
	libbpf_set_print(quiet);
	if (interface)
		snprintf(v->interface, sizeof(v->interface), "%s", interface);
	else
		rc = find_interface(pin_directory, v->interface, err);
	if (rc)
		return rc;
	if (snprintf(v->dir, sizeof(v->dir), "%s/%s", pin_directory, v->interface) >=
	    (int)sizeof(v->dir))
		return err_set(err, -ENAMETOOLONG, "the pin directory's path is too long");
	rc = open_map(v, "config", sizeof(v->config), &config, err);
	if (!rc && bpf_map_lookup_elem(config, &zero, &v->config) != 0)
		rc = err_set(err, -errno, "%s/config: %s", v->dir, strerror(errno));
	cleanup_close(&config);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(maps); i++)
		rc = open_map(v, maps[i].name, maps[i].value_size, map_field(v, i), err);
	if (rc) {
		view_close(v);
		return rc;
	}
	v->cpus = libbpf_num_possible_cpus();
	v->now = read_ticks();
	return 0;
}

void view_close(struct view *v)
{
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		cleanup_close(map_field(v, i));
		*map_field(v, i) = -1;
	}
}

/* --- addresses --------------------------------------------------------------------------------
 */

void view_mapped(uint8_t out[static 16], const struct net_addr *a)
{
	memset(out, 0, 16);
	if (a->sa.sa_family == AF_INET6) {
		memcpy(out, &a->in6.sin6_addr, 16);
		return;
	}
	out[10] = out[11] = 0xff;
	memcpy(out + 12, &a->in.sin_addr, 4);
}

static void set_address(struct net_addr *out, bool is_ipv6, const uint8_t *bytes, __be16 port)
{
	*out = (struct net_addr) { 0 };
	if (is_ipv6) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = port;
		memcpy(&out->in6.sin6_addr, bytes, 16);
		out->len = sizeof(out->in6);
	} else {
		out->in.sin_family = AF_INET;
		out->in.sin_port = port;
		memcpy(&out->in.sin_addr, bytes, 4);
		out->len = sizeof(out->in);
	}
}

void view_gateway_address(const struct nlb_gateway *gw, struct net_addr *out)
{
	set_address(out, gw->family == 6, gw->address, 0);
}

/* --- looking up -------------------------------------------------------------------------------
 */

bool view_vip(const struct view *v, const struct net_addr *address, uint16_t port, uint8_t protocol,
	      struct nlb_vip *out)
{
	struct nlb_vip4_key key4 = { .port = htons(port), .protocol = protocol };
	struct nlb_vip6_key key6 = { .port = htons(port), .protocol = protocol };

	if (address->sa.sa_family == AF_INET) {
		key4.address = address->in.sin_addr.s_addr;
		return bpf_map_lookup_elem(v->vips4, &key4, out) == 0;
	}
	memcpy(key6.address, &address->in6.sin6_addr, sizeof(key6.address));
	return bpf_map_lookup_elem(v->vips6, &key6, out) == 0;
}

bool view_slot(const struct view *v, uint16_t vip, uint32_t index, struct nlb_slot *out)
{
	CLEANUP(cleanup_close) int ring = -1;
	__u32 key = vip, id = 0;

	if (bpf_map_lookup_elem(v->rings, &key, &id) != 0)
		return false;
	ring = bpf_map_get_fd_by_id(id);
	return ring >= 0 && bpf_map_lookup_elem(ring, &index, out) == 0;
}

bool view_gateway(const struct view *v, uint16_t id, struct nlb_gateway *out)
{
	__u32 key = id;

	return id && bpf_map_lookup_elem(v->gateways, &key, out) == 0;
}

void view_gateway_stats(const struct view *v, uint16_t id, struct nlb_gateway_stats *out)
{
	CLEANUP(cleanup_free)
	struct nlb_gateway_stats *values = calloc((size_t)MAX(v->cpus, 1), sizeof(*values));
	__u32 key = id;

	*out = (struct nlb_gateway_stats) { 0 };
	if (!values || bpf_map_lookup_elem(v->gateway_stats, &key, values) != 0)
		return;
	for (int cpu = 0; cpu < v->cpus; cpu++) {
		out->packets += values[cpu].packets;
		out->bytes += values[cpu].bytes;
		out->connections += values[cpu].connections;
		out->flow_hits += values[cpu].flow_hits;
		out->flow_misses += values[cpu].flow_misses;
		out->unrecorded += values[cpu].unrecorded;
	}
}

void view_reasons(const struct view *v, uint64_t out[NLB_REASON_COUNT])
{
	CLEANUP(cleanup_free)
	uint64_t *values = calloc((size_t)MAX(v->cpus, 1), sizeof(*values));

	memset(out, 0, sizeof(*out) * NLB_REASON_COUNT);
	for (__u32 r = 0; values && r < NLB_REASON_COUNT; r++) {
		if (bpf_map_lookup_elem(v->reasons, &r, values) != 0)
			continue;
		for (int cpu = 0; cpu < v->cpus; cpu++)
			out[r] += values[cpu];
	}
}

bool view_flow_bucket(const struct view *v, int cpu, uint64_t hash, struct nlb_flow_bucket *out)
{
	uint32_t mask = v->config.flow_bucket_mask;
	uint32_t index = (uint32_t)cpu * (mask + 1) + ((uint32_t)hash & mask);

	return bpf_map_lookup_elem(v->flows, &index, out) == 0;
}

bool view_rate_bucket(const struct view *v, uint64_t tag, struct nlb_rate_bucket *out)
{
	uint32_t index = (uint32_t)tag & (NLB_RATE_BUCKETS - 1);

	return bpf_map_lookup_elem(v->source_rates, &index, out) == 0;
}

/* --- lists of prefixes ------------------------------------------------------------------------
 */

static bool prefix_has(const struct nlb_prefix_key *key, const uint8_t address[static 16])
{
	uint32_t bytes = key->prefix_len / 8, bits = key->prefix_len % 8;

	if (key->prefix_len > 128 || memcmp(key->address, address, bytes) != 0)
		return false;
	return !bits || (key->address[bytes] ^ address[bytes]) >> (8 - bits) == 0;
}

bool view_blocked(const struct view *v, const struct net_addr *source, struct view_block *out)
{
	struct nlb_prefix_key wanted = { .prefix_len = 128 }, key, *previous = NULL;
	bool is_found = false;

	view_mapped(wanted.address, source);
	if (bpf_map_lookup_elem(v->blocked, &wanted, &out->value) != 0)
		return false;
	/* The look-up does not tell which prefix it was; a person wants to know. */
	out->key = wanted;
	while (bpf_map_get_next_key(v->blocked, previous, &key) == 0) {
		previous = &key;
		if (!prefix_has(&key, wanted.address) ||
		    (is_found && key.prefix_len < out->key.prefix_len))
			continue;
		out->key = key;
		is_found = true;
	}
	return true;
}

bool view_allowed(const struct view *v, uint16_t vip, const struct net_addr *source)
{
	struct nlb_allow_key key = { .prefix_len = 32 + 128, .vip = vip };
	__u32 value;

	view_mapped(key.address, source);
	return bpf_map_lookup_elem(v->allowed, &key, &value) == 0;
}

/* --- all services -----------------------------------------------------------------------------
 */

static bool each_vip4(const struct view *v,
		      bool (*each)(const struct view_service *service, void *arg), void *arg)
{
	struct nlb_vip4_key key, *previous = NULL;
	struct view_service service;

	while (bpf_map_get_next_key(v->vips4, previous, &key) == 0) {
		previous = &key;
		if (!key.protocol || bpf_map_lookup_elem(v->vips4, &key, &service.vip) != 0)
			continue;
		set_address(&service.address, false, (const uint8_t *)&key.address, key.port);
		service.protocol = key.protocol;
		if (!each(&service, arg))
			return false;
	}
	return true;
}

static bool each_vip6(const struct view *v,
		      bool (*each)(const struct view_service *service, void *arg), void *arg)
{
	struct nlb_vip6_key key, *previous = NULL;
	struct view_service service;

	while (bpf_map_get_next_key(v->vips6, previous, &key) == 0) {
		previous = &key;
		if (!key.protocol || bpf_map_lookup_elem(v->vips6, &key, &service.vip) != 0)
			continue;
		set_address(&service.address, true, key.address, key.port);
		service.protocol = key.protocol;
		if (!each(&service, arg))
			return false;
	}
	return true;
}

void view_services(const struct view *v,
		   bool (*each)(const struct view_service *service, void *arg), void *arg)
{
	if (each_vip4(v, each, arg))
		each_vip6(v, each, arg);
}
