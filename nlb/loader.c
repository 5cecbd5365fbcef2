/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/loader.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "nlb.skel.h"
#include "nlb/link.h"
#include "nlb/lock.h"
#include "nlb/vipmap.h"

#define MTU_USUAL 1500

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static uint32_t interface_mtu(const char *interface)
{
	CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &request) != 0)
		return 0;
	return (uint32_t)request.ifr_mtu;
}

/* Which VIP needs the most of the link. Gateways of the registry may turn out to be IPv6 later. */
static int check_mtu(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	l->mtu = interface_mtu(l->pins.interface);
	for (size_t i = 0; i < conf->vips_count; i++) {
		const struct nlb_conf_vip *vip = &conf->vips[i];
		uint8_t family = nlb_conf_vip_family(vip);
		uint32_t overhead = nlb_conf_vip_overhead(vip, family ? family : 4);
		uint32_t least = nlb_conf_vip_mtu_min(vip) + overhead;
		uint32_t headers = vip->address.sa.sa_family == AF_INET6 ? 60 : 40;

		if (l->mtu < least)
			return err_set(
				err, -EMSGSIZE,
				"interface %s has an MTU of %u, too small for the "
				"encapsulation of vip=%.*s (%u bytes): raise it to %u, at the "
				"very least to %u (ip link set dev %s mtu %u)",
				l->pins.interface, l->mtu, STR_ARG(vip->name), overhead,
				MTU_USUAL + overhead, least, l->pins.interface,
				MTU_USUAL + overhead);
		if (l->mtu < MTU_USUAL + overhead)
			log_warn("interface=%s vip=%.*s: with its MTU of %u packets over %u bytes "
				 "do "
				 "not fit the tunnel, and their senders are told so; raise the MTU "
				 "to "
				 "%u, or let gateways advertise an MSS of %u",
				 l->pins.interface, STR_ARG(vip->name), l->mtu, l->mtu - overhead,
				 MTU_USUAL + overhead, l->mtu - overhead - headers);
	}
	return 0;
}

static uint32_t round_up_to_power_of_two(uint32_t v)
{
	uint32_t out = 1;

	while (out < v)
		out *= 2;
	return out;
}

/* The coarse clock steps once per tick. */
static uint32_t kernel_hz(void)
{
	struct timespec step;

	if (clock_getres(CLOCK_REALTIME_COARSE, &step) != 0 || step.tv_sec || step.tv_nsec <= 0)
		return 250;
	return (uint32_t)((NSEC_PER_SEC + (uint64_t)step.tv_nsec / 2) / (uint64_t)step.tv_nsec);
}

static void on_map_replaced(const char *map, bool is_copied, void *arg)
{
	const struct loader *l = arg;

	log_warn("interface=%s: map %s has another size or layout now and %s", l->pins.interface,
		 map, is_copied ? "takes over what was in it" : "starts empty");
}

/* What entries refer to in one another: identifiers of VIPs and gateways. */
static const char *const state_maps[] = { "config",  "vips4",    "vips6",
					  "allowed", "gateways", "gateway_stats",
					  "rings",   "flows",    "fragments",
					  NULL };

/* Also sizes that no map shows: a ring is an inner map. */
static uint64_t layout_version(void)
{
	static const uint32_t parts[] = { NLB_ABI_VERSION,
					  NLB_RING_SLOTS,
					  sizeof(struct nlb_slot),
					  sizeof(struct nlb_gateway),
					  sizeof(struct nlb_flow),
					  sizeof(struct nlb_vip),
					  sizeof(struct nlb_config),
					  NLB_MAX_GATEWAYS,
					  sizeof(struct nlb_fragment) };
	uint64_t h = 1;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		h = hash_mix64(h + parts[i]);
	return h | 1;
}

static void *map_memory(int fd, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int open_maps(struct loader *l, struct err *err)
{
	struct nlb_maps *m = &l->maps;
	__u32 zero = 0;

	m->config = bpf_map__fd(l->skel->maps.config);
	m->vips4 = bpf_map__fd(l->skel->maps.vips4);
	m->vips6 = bpf_map__fd(l->skel->maps.vips6);
	m->blocked = bpf_map__fd(l->skel->maps.blocked);
	m->allowed = bpf_map__fd(l->skel->maps.allowed);
	m->gateway_stats = bpf_map__fd(l->skel->maps.gateway_stats);
	m->reasons = bpf_map__fd(l->skel->maps.reasons);
	m->rings = bpf_map__fd(l->skel->maps.rings);
	m->gateways = map_memory(bpf_map__fd(l->skel->maps.gateways),
				 sizeof(*m->gateways) * NLB_MAX_GATEWAYS);
	m->flows = map_memory(bpf_map__fd(l->skel->maps.flows),
			      sizeof(*m->flows) * m->flow_buckets);
	if (!m->gateways || !m->flows)
		return err_set(err, -errno, "mapping the BPF maps: %s", strerror(errno));
	/* What does not come from the configuration file stays as it is there. */
	bpf_map_lookup_elem(m->config, &zero, &l->config);
	return 0;
}

static int take_lock(struct loader *l, struct err *err)
{
	pid_t holder;

	l->lock_fd = lock_take(l->pins.dir, &holder);
	if (l->lock_fd >= 0)
		return 0;
	l->pins.was_empty = false; /* what is there is the other's */
	if (l->lock_fd == -EWOULDBLOCK && !holder)
		return err_set(
			err, l->lock_fd,
			"interface %s is another's: an nlbd in a container, or nlbctl detach "
			"just now; try again",
			l->pins.interface);
	if (l->lock_fd == -EWOULDBLOCK)
		return err_set(err, l->lock_fd,
			       "another nlbd (process %d) has interface %s; stop it first", holder,
			       l->pins.interface);
	return err_set(err, l->lock_fd, "%s: cannot lock it: %s", l->pins.dir,
		       strerror(-l->lock_fd));
}

int loader_open(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	struct pins_layout layout = { .state = state_maps, .resizable = "flows" };
	char directory[PATH_MAX];
	uint32_t buckets;
	int rc;

	*l = (struct loader) { .lock_fd = -1, .former_fd = -1 };
	libbpf_set_print(quiet);
	snprintf(directory, sizeof(directory), "%s/%s", conf->pin_directory.p, conf->interface.p);
	rc = pins_open(&l->pins, directory, conf->interface.p, err);
	if (!rc)
		rc = take_lock(l, err);
	if (rc)
		goto fail;

	l->skel = nlb_bpf__open();
	if (!l->skel) {
		rc = err_set(err, -errno, "opening the BPF object: %s", strerror(errno));
		goto fail;
	}
	l->maps.cpus = libbpf_num_possible_cpus();
	l->maps.hz = kernel_hz();
	buckets = round_up_to_power_of_two(conf->flows_per_cpu) / NLB_FLOW_WAYS;
	l->maps.flow_buckets_per_cpu = buckets;
	l->maps.flow_buckets = buckets * (uint32_t)l->maps.cpus;
	bpf_map__set_max_entries(l->skel->maps.flows, l->maps.flow_buckets);
	layout.version = layout_version();
	rc = pins_load(&l->pins, l->skel->obj, &layout, on_map_replaced, l, err);
	if (!rc)
		rc = open_maps(l, err);
	if (rc)
		goto fail;
	return 0;
fail:
	loader_abort(l);
	return rc;
}

/* Better ones first: global unicast, then unique local; nothing of the link alone. */
static int rank6(const struct in6_addr *a)
{
	if ((a->s6_addr[0] & 0xe0) == 0x20)
		return 2;
	return (a->s6_addr[0] & 0xfe) == 0xfc;
}

/* The interface's first address of the family. False when it has none. */
static bool interface_address(const char *interface, bool is_v6, uint8_t out[16])
{
	struct ifaddrs *all, *it;
	bool is_found = false;
	int best = 0;

	if (getifaddrs(&all) != 0)
		return false;
	for (it = all; it; it = it->ifa_next) {
		const struct sockaddr *sa = it->ifa_addr;

		if (!sa || strcmp(it->ifa_name, interface) != 0)
			continue;
		if (sa->sa_family == AF_INET && !is_v6 && !is_found) {
			memcpy(out, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
			is_found = true;
		} else if (sa->sa_family == AF_INET6 && is_v6) {
			const struct sockaddr_in6 *in6 = (const void *)sa;

			if (rank6(&in6->sin6_addr) <= best)
				continue;
			best = rank6(&in6->sin6_addr);
			memcpy(out, &in6->sin6_addr, 16);
			is_found = true;
		}
	}
	freeifaddrs(all);
	return is_found;
}

/* Whose gateways are known to need an outer header of that family; NULL: nobody's. */
static const struct nlb_conf_vip *who_needs_source(const struct nlb_conf *conf, uint8_t family)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		const struct nlb_conf_vip *vip = &conf->vips[i];

		if (vip->encap + 1 != NLB_ENCAP_L2 && nlb_conf_vip_family(vip) == family)
			return vip;
	}
	return NULL;
}

/* The outer source address: fixed bits, and those that follow the flow. */
static void use_source(struct nlb_config *config, const struct net_prefix *prefix, int is_v6)
{
	const uint8_t *bytes = is_v6 ? prefix->bytes : prefix->bytes + 12;
	uint32_t host_bits = 128U - prefix->bits, last, vary;
	size_t len = is_v6 ? 16 : 4;

	vary = htonl(host_bits ? (uint32_t)((1ULL << host_bits) - 1) : 0);
	memcpy(config->source[is_v6], bytes, len);
	memcpy(&last, bytes + len - sizeof(last), sizeof(last));
	last &= ~vary;
	memcpy(config->source[is_v6] + len - sizeof(last), &last, sizeof(last));
	config->source_vary[is_v6] = vary;
}

static int set_sources(struct loader *l, const struct nlb_conf *conf, struct nlb_config *config,
		       bool has_source[2], struct err *err)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		const struct nlb_conf_vip *who = who_needs_source(conf, is_v6 ? 6 : 4);

		has_source[is_v6] = true;
		if (conf->has_source[is_v6])
			use_source(config, &conf->source[is_v6], is_v6);
		else if (!interface_address(l->pins.interface, is_v6, config->source[is_v6]))
			has_source[is_v6] = false;
		if (!has_source[is_v6] && who)
			return err_set(err, -EADDRNOTAVAIL,
				       "interface %s has no IPv%d address, which tunnels to the "
				       "gateways of vip=%.*s need as their source: set "
				       "source_address.ipv%d",
				       l->pins.interface, is_v6 ? 6 : 4, STR_ARG(who->name),
				       is_v6 ? 6 : 4);
	}
	return 0;
}

static bool takes_every_port(const struct nlb_conf *conf)
{
	for (size_t i = 0; i < conf->vips_count; i++) {
		if (!conf->vips[i].port)
			return true;
	}
	return false;
}

static uint32_t vip_filter(const struct nlb_conf *conf)
{
	uint32_t filter = 0;

	for (size_t i = 0; i < conf->vips_count; i++) {
		struct vip_key key = vip_key_of(&conf->vips[i]);
		__be32 address[4];

		memcpy(address, key.address, sizeof(address));
		filter |= nlb_vip_bit(address, key.family == 6);
	}
	return filter;
}

/* A limit per second as one per tick: never none unless none was asked for. */
static uint32_t per_tick(uint32_t per_second, uint32_t hz)
{
	return (per_second + hz - 1) / hz;
}

int loader_configure(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	struct nlb_config config = { .flow_bucket_mask = l->maps.flow_buckets_per_cpu - 1,
				     .new_flows_per_tick = per_tick(conf->new_flows_per_cpu_s,
								    l->maps.hz),
				     .hz = l->maps.hz,
				     .udp_timeout = conf->udp_timeout_s * l->maps.hz,
				     .icmp_per_tick = per_tick(conf->icmp_per_cpu_s, l->maps.hz),
				     .vip_filter = vip_filter(conf),
				     .flags = NLB_CONFIG_READY };
	struct hash_key unused;
	bool has_source[2];
	uint32_t zero = 0;
	int rc;

	config.flow_regions = (uint32_t)MIN(l->maps.cpus, NLB_FLOW_REGIONS);
	_Static_assert(sizeof(config.hash_key) == sizeof(uint64_t) * NLB_HASH_KEYS, "same words");
	uint64_t keys[NLB_HASH_KEYS];

	nlb_conf_hash_keys(conf, &unused, keys);
	memcpy(config.hash_key, keys, sizeof(keys));
	if ((l->config.flags & NLB_CONFIG_READY) &&
	    memcmp(l->config.hash_key, keys, sizeof(keys)) != 0)
		log_warn("interface=%s: hash_seed is another than before: connections of before "
			 "meet other gateways, and most of them break",
			 l->pins.interface);
	rc = check_mtu(l, conf, err);
	if (!rc)
		rc = set_sources(l, conf, &config, has_source, err);
	if (rc)
		return rc;
	if (takes_every_port(conf))
		config.flags |= NLB_CONFIG_ANY_PORT;
	config.flags |= l->config.flags & NLB_CONFIG_BLOCKED;
	if (bpf_map_update_elem(l->maps.config, &zero, &config, BPF_ANY) != 0)
		return err_set(err, -errno, "writing the BPF configuration: %s", strerror(errno));
	l->config = config;
	memcpy(l->maps.has_source, has_source, sizeof(has_source));
	return 0;
}

void loader_set_flag(struct loader *l, uint32_t flag, bool on)
{
	uint32_t flags = on ? l->config.flags | flag : l->config.flags & ~flag;
	uint32_t zero = 0;

	if (flags == l->config.flags)
		return;
	l->config.flags = flags;
	bpf_map_update_elem(l->maps.config, &zero, &l->config, BPF_ANY);
}

/* What people would like to know of how it was attached. */
static void tell_attached(const struct pins *p, enum pins_mode mode)
{
	/* Merged packets are larger than any tunnel, and XDP never sees the single ones. */
	static const struct {
		const char *feature, *option;
	} merging[] = { { "rx-lro", "lro" }, { "rx-gro-hw", "rx-gro-hw" } };

	if (mode == PINS_GENERIC && p->native_rc)
		log_warn("interface=%s: its driver does not take a program in native mode (%s): "
			 "generic mode is used, which is several times slower",
			 p->interface, strerror(-p->native_rc));
	for (size_t i = 0; i < ARRAY_SIZE(merging); i++) {
		if (link_feature(p->interface, merging[i].feature) == 1)
			log_warn("interface=%s: %s is on, which merges packets before they are "
				 "forwarded, and then they do not fit: ethtool -K %s %s off",
				 p->interface, merging[i].feature, p->interface, merging[i].option);
	}
}

/* Whether they can be had is found out before packets meet the program on any of them. */
static int open_others(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	for (size_t i = 0; i < conf->interfaces_count; i++) {
		int rc = pins_open_another(&l->others[i], &l->pins, conf->interfaces[i].p, err);

		if (rc)
			return rc;
		l->other_modes[i] = (enum pins_mode)conf->xdp_mode;
		l->other_former_fds[i] = -1;
		l->other_count = i + 1;
	}
	return 0;
}

static int attach_others(struct loader *l, struct err *err)
{
	for (size_t i = 0; i < l->other_count; i++) {
		int rc;

		if (l->other_former_fds[i] >= 0)
			continue;
		rc = pins_attach(&l->others[i], bpf_program__fd(l->skel->progs.nlb),
				 &l->other_modes[i], err);

		if (rc)
			return rc;
		tell_attached(&l->others[i], l->other_modes[i]);
	}
	pins_keep_others(&l->pins, l->others, l->other_count);
	return 0;
}

int loader_attach(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	_Static_assert((int)NLB_XDP_AUTO == (int)PINS_AUTO &&
			       (int)NLB_XDP_NATIVE == (int)PINS_NATIVE &&
			       (int)NLB_XDP_GENERIC == (int)PINS_GENERIC,
		       "one order");
	int rc = open_others(l, conf, err);

	l->mode = (enum pins_mode)conf->xdp_mode;
	if (rc)
		return rc;
	l->former_fd = pins_former(&l->pins, &l->mode, bpf_map__fd(l->skel->maps.gateways));
	if (l->former_fd >= 0) {
		log_warn("interface=%s: the maps were made anew: the former program forwards with "
			 "the old ones until the gateways of all VIPs are known; counters begin "
			 "at zero, and gateways drained by hand have to be drained again",
			 l->pins.interface);
		for (size_t i = 0; i < l->other_count; i++)
			l->other_former_fds[i] = pins_former(&l->others[i], &l->other_modes[i],
							     bpf_map__fd(l->skel->maps.gateways));
		return attach_others(l, err);
	}
	rc = pins_attach(&l->pins, bpf_program__fd(l->skel->progs.nlb), &l->mode, err);
	if (rc)
		return rc;
	tell_attached(&l->pins, l->mode);
	return attach_others(l, err);
}

bool loader_is_waiting(const struct loader *l)
{
	return l->former_fd >= 0;
}

int loader_replace_former(struct loader *l, struct err *err)
{
	int rc = pins_replace(&l->pins, l->former_fd, bpf_program__fd(l->skel->progs.nlb), err);

	for (size_t i = 0; !rc && i < l->other_count; i++) {
		if (l->other_former_fds[i] < 0)
			continue;
		rc = pins_replace(&l->others[i], l->other_former_fds[i],
				  bpf_program__fd(l->skel->progs.nlb), err);
		cleanup_close(&l->other_former_fds[i]);
		l->other_former_fds[i] = -1;
	}
	if (rc)
		return rc;
	close(TAKE_FD(l->former_fd));
	log_info("interface=%s: the new program has taken over", l->pins.interface);
	return 0;
}

void loader_tell_memory(const struct loader *l, size_t vips)
{
	const size_t ring = sizeof(struct nlb_slot) * NLB_RING_SLOTS;
	const size_t flows = (size_t)l->maps.flow_buckets * sizeof(struct nlb_flow_bucket);
	const size_t others = sizeof(struct nlb_gateway) * NLB_MAX_GATEWAYS +
			      sizeof(struct nlb_gateway_stats) * NLB_MAX_GATEWAYS *
				      (size_t)l->maps.cpus +
			      sizeof(struct nlb_rate_bucket) * NLB_RATE_BUCKETS;

	log_info(
		"memory: %zu MiB in all; flow table for %u connections on each of %d CPUs %zu MiB, "
		"rings of %zu VIPs %.1f MiB (%zu KiB each), gateways and source rates %zu KiB",
		(flows + vips * ring + others) >> 20, l->maps.flow_buckets_per_cpu * NLB_FLOW_WAYS,
		l->maps.cpus, flows >> 20, vips, (double)(vips * ring) / (1 << 20), ring >> 10,
		others >> 10);
}

void loader_close(struct loader *l)
{
	if (l->maps.gateways)
		munmap(l->maps.gateways, sizeof(*l->maps.gateways) * NLB_MAX_GATEWAYS);
	if (l->maps.flows)
		munmap(l->maps.flows, sizeof(*l->maps.flows) * l->maps.flow_buckets);
	nlb_bpf__destroy(l->skel);
	cleanup_close(&l->lock_fd);
	cleanup_close(&l->former_fd);
	*l = (struct loader) { .lock_fd = -1, .former_fd = -1 };
}

void loader_abort(struct loader *l)
{
	pins_undo(&l->pins);
	loader_close(l);
}

uint64_t loader_clock(const struct loader *l)
{
	uint64_t now = 0;
	/* Programs of this type write their answer where their input was. */
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &now, .ctx_size_in = sizeof(now));

	bpf_prog_test_run_opts(bpf_program__fd(l->skel->progs.read_clock), &opts);
	return now;
}

uint32_t loader_ticks(const struct loader *l)
{
	return (uint32_t)loader_clock(l);
}
