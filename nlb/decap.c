/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/decap.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "decap.skel.h"
#include "lib/cleanup.h"

#define REASON_NAME(id, name, verdict, help) name,

const char *const decap_reason_names[DECAP_REASON_COUNT] = { DECAP_REASONS(REASON_NAME) };

/* Beside the forwarding program's own pins, which an NLB on the same interface would have. */
static void pin_folder(char out[static PATH_MAX], const char *pin_directory, const char *interface)
{
	snprintf(out, PATH_MAX, "%s/%s/decap", pin_directory, interface);
}

static struct decap_source_key source_key(const struct net_prefix *p)
{
	struct decap_source_key key = { .prefix_len = p->bits };

	memcpy(key.address, p->bytes, sizeof(key.address));
	return key;
}

static bool wants(const struct net_prefix *list, size_t count, const void *address, uint32_t bits)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].bits == bits && memcmp(list[i].bytes, address, 16) == 0)
			return true;
	}
	return false;
}

/* New entries first, then the old ones go: what stays allowed is allowed at every moment. */
static int set_sources(int fd, const struct decap_settings *s)
{
	struct decap_source_key stale[DECAP_LIST_MAX], key, *previous = NULL;
	size_t count = 0;
	__u32 one = 1;

	for (size_t i = 0; i < s->source_count; i++) {
		key = source_key(&s->sources[i]);
		if (bpf_map_update_elem(fd, &key, &one, BPF_ANY) != 0)
			return -errno;
	}
	while (count < DECAP_LIST_MAX && bpf_map_get_next_key(fd, previous, &key) == 0) {
		if (!wants(s->sources, s->source_count, key.address, key.prefix_len))
			stale[count++] = key;
		previous = &key;
	}
	while (count > 0)
		bpf_map_delete_elem(fd, &stale[--count]);
	return 0;
}

static int set_vips(int fd, const struct decap_settings *s)
{
	struct decap_vip_key stale[DECAP_LIST_MAX], key, *previous = NULL;
	size_t count = 0;
	__u32 one = 1;

	for (size_t i = 0; i < s->vip_count; i++) {
		if (bpf_map_update_elem(fd, s->vips[i].bytes, &one, BPF_ANY) != 0)
			return -errno;
	}
	while (count < DECAP_LIST_MAX && bpf_map_get_next_key(fd, previous, &key) == 0) {
		if (!wants(s->vips, s->vip_count, key.address, 128))
			stale[count++] = key;
		previous = &key;
	}
	while (count > 0)
		bpf_map_delete_elem(fd, &stale[--count]);
	return 0;
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static void read_sources(int fd, struct decap_settings *s)
{
	struct decap_source_key key, *previous = NULL;

	while (s->source_count < DECAP_LIST_MAX && bpf_map_get_next_key(fd, previous, &key) == 0) {
		struct net_prefix *p = &s->sources[s->source_count++];

		p->bits = (uint8_t)key.prefix_len;
		memcpy(p->bytes, key.address, sizeof(p->bytes));
		previous = &key;
	}
}

static int set_lists(struct decap_bpf *skel, const struct decap_settings *settings, struct err *err)
{
	int rc = set_sources(bpf_map__fd(skel->maps.decap_sources), settings);
	__u32 zero = 0;

	if (!rc)
		rc = set_vips(bpf_map__fd(skel->maps.decap_vips), settings);
	if (!rc && bpf_map_update_elem(bpf_map__fd(skel->maps.decap_config), &zero,
				       &settings->config, BPF_ANY) != 0)
		rc = -errno;
	return rc ? err_set(err, rc, "writing to the BPF maps: %s", strerror(-rc)) : 0;
}

/* The sources of an earlier attachment, whose neighbours are kept resolved; NULL: none. */
static struct decap_settings *former_settings(const char *folder)
{
	CLEANUP(cleanup_close) int fd = pins_get(folder, "decap_sources");
	struct decap_settings *s = fd < 0 ? NULL : calloc(1, sizeof(*s));

	if (s)
		read_sources(fd, s);
	return s;
}

static void release_former(const struct decap_settings *former, const struct decap_settings *now)
{
	for (size_t i = 0; former && i < former->source_count; i++) {
		const struct net_prefix *p = &former->sources[i];

		if (!now || !wants(now->sources, now->source_count, p->bytes, p->bits))
			decap_host_release(p);
	}
}

/* Every map stands for itself, and its settings are written anew. */
static const struct pins_layout layout = { .version = 1 };

int decap_attach(const char *pin_directory, const char *interface,
		 const struct decap_settings *settings, enum pins_mode *mode, struct err *err)
{
	struct decap_bpf *skel;
	char folder[PATH_MAX];
	struct pins pins;
	int rc;

	libbpf_set_print(quiet);
	pin_folder(folder, pin_directory, interface);
	CLEANUP(cleanup_free) struct decap_settings *former = former_settings(folder);
	rc = pins_open(&pins, folder, interface, err);
	if (rc)
		return rc;
	skel = decap_bpf__open();
	if (!skel) {
		rc = err_set(err, -errno, "opening the BPF object: %s", strerror(errno));
		pins_undo(&pins);
		return rc;
	}
	rc = pins_load(&pins, skel->obj, &layout, NULL, NULL, err);
	if (!rc)
		rc = set_lists(skel, settings, err);
	if (!rc)
		rc = pins_attach(&pins, bpf_program__fd(skel->progs.decap), mode, err);
	decap_bpf__destroy(skel);
	if (rc) {
		pins_undo(&pins);
		return rc;
	}
	decap_host_allow_routing();
	release_former(former, settings);
	for (size_t i = 0; i < settings->source_count; i++)
		decap_host_keep(&settings->sources[i]);
	return 0;
}

int decap_detach(const char *pin_directory, const char *interface, struct err *err)
{
	char folder[PATH_MAX];
	int rc;

	pin_folder(folder, pin_directory, interface);
	CLEANUP(cleanup_free) struct decap_settings *former = former_settings(folder);
	rc = pins_remove(folder, err);
	if (!rc)
		release_former(former, NULL);
	return rc;
}

static void read_vips(int fd, struct decap_settings *s)
{
	struct decap_vip_key key, *previous = NULL;

	while (s->vip_count < DECAP_LIST_MAX && bpf_map_get_next_key(fd, previous, &key) == 0) {
		struct net_prefix *p = &s->vips[s->vip_count++];

		p->bits = 128;
		memcpy(p->bytes, key.address, sizeof(p->bytes));
		previous = &key;
	}
}

static void read_reasons(int fd, uint64_t out[DECAP_REASON_COUNT])
{
	int cpus = libbpf_num_possible_cpus();
	CLEANUP(cleanup_free) uint64_t *values = calloc((size_t)MAX(cpus, 1), sizeof(*values));

	for (__u32 r = 0; values && r < DECAP_REASON_COUNT; r++) {
		if (bpf_map_lookup_elem(fd, &r, values) != 0)
			continue;
		for (int cpu = 0; cpu < cpus; cpu++)
			out[r] += values[cpu];
	}
}

int decap_status(const char *pin_directory, const char *interface, struct decap_status *out,
		 struct err *err)
{
	char folder[PATH_MAX];

	pin_folder(folder, pin_directory, interface);
	CLEANUP(cleanup_close) int link = pins_get(folder, "link");
	CLEANUP(cleanup_close) int sources = pins_get(folder, "decap_sources");
	CLEANUP(cleanup_close) int vips = pins_get(folder, "decap_vips");
	CLEANUP(cleanup_close) int reasons = pins_get(folder, "decap_reasons");
	CLEANUP(cleanup_close) int config = pins_get(folder, "decap_config");
	__u32 zero = 0;

	memset(out, 0, sizeof(*out));
	if (link == -EPERM || link == -EACCES)
		return err_set(err, link, "%s: no permission; run it as root", folder);
	if (link < 0 || sources < 0 || vips < 0 || reasons < 0)
		return err_set(
			err, -ENOENT,
			"no decapsulation on %s; attach it: nlbctl decap attach %s --source NLB",
			interface, interface);
	read_sources(sources, &out->settings);
	read_vips(vips, &out->settings);
	if (config >= 0 && bpf_map_lookup_elem(config, &zero, &out->settings.config) != 0)
		return err_set(err, -errno, "reading the BPF maps: %s", strerror(errno));
	decap_host_read(&out->host);
	read_reasons(reasons, out->reasons);
	return 0;
}

/* In the form of the maps; false for addresses that only this host knows. */
static bool take_address(struct net_prefix *out, const struct sockaddr *sa)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;

	*out = (struct net_prefix) { .bits = 128 };
	if (sa->sa_family == AF_INET) {
		out->bytes[10] = out->bytes[11] = 0xff;
		memcpy(out->bytes + 12, &in->sin_addr, 4);
		return ntohl(in->sin_addr.s_addr) >> 24 != 127;
	}
	if (sa->sa_family != AF_INET6)
		return false;
	memcpy(out->bytes, &in6->sin6_addr, 16);
	return !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) && !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr);
}

int decap_find_vips(struct decap_settings *settings)
{
	struct ifaddrs *all, *it;

	if (getifaddrs(&all) != 0)
		return -errno;
	for (it = all; it && settings->vip_count < DECAP_LIST_MAX; it = it->ifa_next) {
		if (it->ifa_addr && (it->ifa_flags & IFF_LOOPBACK) &&
		    take_address(&settings->vips[settings->vip_count], it->ifa_addr))
			settings->vip_count++;
	}
	freeifaddrs(all);
	return 0;
}
