/* SPDX-License-Identifier: Apache-2.0 */
/* An interface with a program of ours: is it there, in which mode, and do offloads get in its way?
 */
#include "nlb/doctor.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <linux/if_link.h>

#include "lib/cleanup.h"
#include "nlb/link.h"

/* The program that the pinned link attaches; 0 when there is none (any more). */
static uint32_t pinned_program(const struct doctor_interface *i, uint32_t ifindex)
{
	CLEANUP(cleanup_close) int fd = pins_get(i->folder, i->link);
	struct bpf_link_info info = { 0 };
	__u32 len = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) != 0 || info.xdp.ifindex != ifindex)
		return 0;
	return info.prog_id;
}

static bool program_info(uint32_t id, struct bpf_prog_info *info)
{
	CLEANUP(cleanup_close) int fd = bpf_prog_get_fd_by_id(id);
	__u32 len = sizeof(*info);

	memset(info, 0, len);
	return fd >= 0 && bpf_obj_get_info_by_fd(fd, info, &len) == 0;
}

static void check_mode(struct doctor *d, const struct doctor_interface *i)
{
	char driver[LINK_DRIVER_LEN], remedy[DOCTOR_REMEDY_LEN];

	if (i->mode == PINS_NATIVE) {
		doctor_good(d, "xdp-mode", "%s: native", i->name);
		return;
	}
	link_driver(i->name, driver);
	doctor_text(remedy,
		    "use a driver with XDP, an MTU within a page and no LRO; then attach again "
		    "with mode native, which tells what the driver objects to");
	doctor_found(d, DOCTOR_WARNING, "xdp-mode", remedy,
		     "%s: generic, several times slower than native (driver %s)", i->name,
		     *driver ? driver : "unknown");
}

static void report_foreign(struct doctor *d, const struct doctor_interface *i, uint32_t id)
{
	char remedy[DOCTOR_REMEDY_LEN];
	struct bpf_prog_info info;
	bool is_known = program_info(id, &info);

	doctor_text(remedy,
		    "ip link set dev %s xdp off; then %s (where a BPF link holds it: bpftool link "
		    "detach id, with the number that bpftool link shows)",
		    i->name, i->remedy);
	doctor_found(d, DOCTOR_BAD, "program", remedy,
		     "%s has an XDP program of somebody else (\"%s\", id %u) where ours should be",
		     i->name, is_known && info.name[0] ? info.name : "?", id);
}

void doctor_check_foreign(struct doctor *d, const struct doctor_interface *i)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	uint32_t ifindex = if_nametoindex(i->name);
	struct bpf_prog_info info;

	if (!d->is_admin || !ifindex || bpf_xdp_query((int)ifindex, 0, &opts) != 0)
		return;
	if (!opts.prog_id || opts.prog_id == pinned_program(i, ifindex))
		return;
	/* Without its pins (no BPF file system) ours looks like anybody's, but for its name. */
	if (program_info(opts.prog_id, &info) && strcmp(info.name, "decap") != 0 &&
	    strcmp(info.name, "nlb") != 0)
		report_foreign(d, i, opts.prog_id);
}

void doctor_check_program(struct doctor *d, struct doctor_interface *i)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	uint32_t ifindex = if_nametoindex(i->name);
	struct bpf_prog_info info;
	bool is_known;

	if (!ifindex) {
		doctor_found(d, DOCTOR_BAD, "program", "ip link shows those there are",
			     "interface %s does not exist", i->name);
		return;
	}
	if (bpf_xdp_query((int)ifindex, 0, &opts) != 0) {
		doctor_unknown(d, "program", "%s: cannot tell which XDP program it has", i->name);
		return;
	}
	if (!opts.prog_id) {
		doctor_found(d, DOCTOR_BAD, "program", i->remedy,
			     "%s has no XDP program: tunnels and virtual IPs mean nothing to it",
			     i->name);
		return;
	}
	if (!d->is_admin) {
		doctor_unknown(d, "program",
			       "%s has an XDP program, but cannot tell whose (needs root)",
			       i->name);
		return;
	}
	if (opts.prog_id != pinned_program(i, ifindex)) {
		report_foreign(d, i, opts.prog_id);
		return;
	}
	is_known = program_info(opts.prog_id, &info);
	d->has_program = is_known;
	d->is_compiled = info.jited_prog_len > 0;
	i->is_attached = true;
	i->mode = opts.attach_mode == XDP_ATTACHED_SKB ? PINS_GENERIC : PINS_NATIVE;
	doctor_good(d, "program", "ours is on %s", i->name);
	check_mode(d, i);
}

/* What merges packets before the program sees them. */
static int check_merging(struct doctor *d, const struct doctor_interface *i)
{
	/* GRO in software comes after a native program, but before a generic one. */
	static const struct {
		const char *feature, *option, *what;
		bool is_for_generic_only;
	} merging[] = {
		{ "rx-lro", "lro", "LRO", false },
		{ "rx-gro-hw", "rx-gro-hw", "GRO in hardware", false },
		{ "rx-gro", "gro", "GRO", true },
	};
	char remedy[DOCTOR_REMEDY_LEN];
	int found = 0;

	for (size_t m = 0; m < ARRAY_SIZE(merging); m++) {
		if (merging[m].is_for_generic_only && i->mode != PINS_GENERIC)
			continue;
		if (link_feature(i->name, merging[m].feature) != 1)
			continue;
		found++;
		doctor_text(remedy, "ethtool -K %s %s off", i->name, merging[m].option);
		doctor_found(d, DOCTOR_BAD, "offloads", remedy,
			     "%s: %s merges packets, and what is merged does not fit the tunnel",
			     i->name, merging[m].what);
	}
	return found;
}

/*
 * Between two ends of a virtual pair a checksum that the "hardware" is to compute never is. The
 * kernel knows and does not mind; behind XDP the packet goes on as it is.
 */
static int check_checksums(struct doctor *d, const struct doctor_interface *i)
{
	char driver[LINK_DRIVER_LEN], remedy[DOCTOR_REMEDY_LEN];

	if (strcmp(link_driver(i->name, driver), "veth") != 0 ||
	    link_feature(i->name, "tx-checksum-ip-generic") != 1)
		return 0;
	doctor_text(remedy, "ethtool -K %s tx off (and the same on its other end)", i->name);
	doctor_found(d, DOCTOR_WARNING, "offloads", remedy,
		     "%s is a veth and leaves checksums out: packets that XDP sends on arrive with "
		     "wrong ones",
		     i->name);
	return 1;
}

void doctor_check_offloads(struct doctor *d, const struct doctor_interface *i)
{
	if (link_feature(i->name, "rx-gro") < 0) {
		doctor_unknown(d, "offloads", "%s: its offloads cannot be told", i->name);
		return;
	}
	if (check_merging(d, i) + check_checksums(d, i) == 0)
		doctor_good(d, "offloads", "%s: none that gets in the way", i->name);
}
