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
#include "nlb/lock.h"

#define MTU_MIN        1280 /* what must fit inside a tunnel; less breaks too many clients */
#define MTU_USUAL      1500
#define UDP_TIMEOUT_S  30
#define ICMP_PER_CPU_S 10000
#define CLIENT_MSS     40 /* IP and TCP headers below an MTU */

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

static int check_mtu(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	uint32_t overhead = 0;

	for (size_t i = 0; i < conf->vips_count; i++)
		overhead = MAX(overhead, nlb_conf_vip_overhead(&conf->vips[i]));
	l->mtu = interface_mtu(l->pins.interface);
	if (l->mtu < MTU_MIN + overhead)
		return err_set(err, -EMSGSIZE,
			       "interface %s has an MTU of %u, too small for encapsulation: raise "
			       "it to %u or "
			       "more (ip link set dev %s mtu %u)",
			       l->pins.interface, l->mtu, MTU_MIN + overhead, l->pins.interface,
			       MTU_USUAL + overhead);
	if (l->mtu < MTU_USUAL + overhead)
		log_warn("interface=%s: with its MTU of %u packets over %u bytes do not fit the "
			 "tunnel and are "
			 "dropped; raise the MTU to %u, or let gateways advertise an MSS of %u",
			 l->pins.interface, l->mtu, l->mtu - overhead, MTU_USUAL + overhead,
			 l->mtu - overhead - CLIENT_MSS);
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

static void on_map_replaced(const char *map, void *arg)
{
	const struct loader *l = arg;

	log_warn("interface=%s: map %s has another size or layout now and starts empty",
		 l->pins.interface, map);
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
	if (l->lock_fd == -EWOULDBLOCK)
		return err_set(err, l->lock_fd,
			       "another nlbd (process %d) has interface %s; stop it first", holder,
			       l->pins.interface);
	return err_set(err, l->lock_fd, "%s: cannot lock it: %s", l->pins.dir,
		       strerror(-l->lock_fd));
}

int loader_open(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	char directory[PATH_MAX];
	uint32_t buckets;
	int rc;

	*l = (struct loader) { .lock_fd = -1 };
	libbpf_set_print(quiet);
	snprintf(directory, sizeof(directory), "%s/%s", conf->pin_directory.p, conf->interface.p);
	rc = pins_open(&l->pins, directory, conf->interface.p, err);
	if (!rc)
		rc = take_lock(l, err);
	if (!rc)
		rc = check_mtu(l, conf, err);
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
	rc = pins_load(&l->pins, l->skel->obj, on_map_replaced, l, err);
	if (!rc)
		rc = open_maps(l, err);
	if (rc)
		goto fail;
	log_info("interface=%s: flow table for %u connections on each of %d CPUs, %zu MiB",
		 l->pins.interface, buckets * NLB_FLOW_WAYS, l->maps.cpus,
		 (size_t)l->maps.flow_buckets * sizeof(struct nlb_flow_bucket) >> 20);
	return 0;
fail:
	loader_abort(l);
	return rc;
}

/* The interface's first IPv4 address; 0 when it has none. */
static uint32_t interface_address(const char *interface)
{
	struct ifaddrs *all, *it;
	uint32_t address = 0;

	if (getifaddrs(&all) != 0)
		return 0;
	for (it = all; it && !address; it = it->ifa_next) {
		if (it->ifa_addr && it->ifa_addr->sa_family == AF_INET &&
		    strcmp(it->ifa_name, interface) == 0)
			address = ((struct sockaddr_in *)(void *)it->ifa_addr)->sin_addr.s_addr;
	}
	freeifaddrs(all);
	return address;
}

int loader_configure(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	struct nlb_config config = { .flow_bucket_mask = l->maps.flow_buckets_per_cpu - 1,
				     .new_flows_per_tick = conf->new_flows_per_cpu_s / l->maps.hz,
				     .hz = l->maps.hz,
				     .udp_timeout = UDP_TIMEOUT_S * l->maps.hz,
				     .icmp_per_tick = MAX(ICMP_PER_CPU_S / l->maps.hz, 1U),
				     .flags = NLB_CONFIG_READY };
	struct hash_key unused;
	uint32_t source, zero = 0;

	_Static_assert(sizeof(config.hash_key) == sizeof(uint64_t) * NLB_HASH_KEYS, "same words");
	uint64_t keys[NLB_HASH_KEYS];

	nlb_conf_hash_keys(conf, &unused, keys);
	memcpy(config.hash_key, keys, sizeof(keys));
	if (conf->source.has_ipv4) {
		uint32_t host_bits = 128U - conf->source.ipv4.bits;
		uint32_t mask = host_bits ? (uint32_t)((1ULL << host_bits) - 1) : 0;

		memcpy(&source, conf->source.ipv4.bytes + 12, sizeof(source));
		config.source_vary[0] = htonl(mask);
		source &= ~config.source_vary[0];
	} else {
		source = interface_address(l->pins.interface);
		if (!source)
			return err_set(err, -EADDRNOTAVAIL,
				       "interface %s has no IPv4 address: set source_address.ipv4",
				       l->pins.interface);
	}
	memcpy(config.source[0], &source, sizeof(source));
	config.flags |= l->config.flags & NLB_CONFIG_BLOCKED;
	if (bpf_map_update_elem(l->maps.config, &zero, &config, BPF_ANY) != 0)
		return err_set(err, -errno, "writing the BPF configuration: %s", strerror(errno));
	l->config = config;
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

int loader_attach(struct loader *l, const struct nlb_conf *conf, struct err *err)
{
	_Static_assert((int)NLB_XDP_AUTO == (int)PINS_AUTO &&
			       (int)NLB_XDP_NATIVE == (int)PINS_NATIVE &&
			       (int)NLB_XDP_GENERIC == (int)PINS_GENERIC,
		       "one order");
	l->mode = (enum pins_mode)conf->xdp_mode;
	return pins_attach(&l->pins, bpf_program__fd(l->skel->progs.nlb), &l->mode, err);
}

void loader_close(struct loader *l)
{
	if (l->maps.gateways)
		munmap(l->maps.gateways, sizeof(*l->maps.gateways) * NLB_MAX_GATEWAYS);
	if (l->maps.flows)
		munmap(l->maps.flows, sizeof(*l->maps.flows) * l->maps.flow_buckets);
	nlb_bpf__destroy(l->skel);
	if (l->lock_fd >= 0)
		close(l->lock_fd);
	*l = (struct loader) { .lock_fd = -1 };
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
