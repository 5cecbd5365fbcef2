/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/pins.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include "lib/cleanup.h"
#include "nlb/link.h"
#include "nlb/lock.h"

#define LAYOUT_PIN  "layout"
#define BPF_FS      "/sys/fs/bpf"
#define LINK        "link"
#define KERNEL_BTF  "/sys/kernel/btf/vmlinux"
#define KERNEL_MIN  "5.15"
#define RIGHTS      "CAP_BPF and CAP_NET_ADMIN are needed: run it as root"
#define BPF_FS_HELP "mount it: mount -t bpf bpf " BPF_FS

const char *pins_mode_name(enum pins_mode mode)
{
	static const char *const names[] = { "auto", "native", "generic" };

	return names[mode];
}

static const char *pin_path(char out[static PATH_MAX], const char *directory, const char *name)
{
	snprintf(out, PATH_MAX, "%s/%s", directory, name);
	return out;
}

int pins_get(const char *directory, const char *name)
{
	char path[PATH_MAX];
	int fd = bpf_obj_get(pin_path(path, directory, name));

	return fd >= 0 ? fd : -errno;
}

/* --- what has to be there --------------------------------------------------------------------- */

static int check_kernel(struct err *err)
{
	struct utsname un;
	unsigned major = 0, minor = 0;

	if (uname(&un) == 0 && sscanf(un.release, "%u.%u", &major, &minor) == 2 &&
	    (major < 5 || (major == 5 && minor < 15)))
		return err_set(err, -ENOSYS,
			       "kernel %s is too old: " KERNEL_MIN " or newer is needed",
			       un.release);
	if (access(KERNEL_BTF, R_OK) != 0)
		return err_set(err, -ENOSYS,
			       "this kernel has no BTF (" KERNEL_BTF
			       " is missing): use one built with "
			       "CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are");
	return 0;
}

static bool denied(int rc)
{
	return rc == -EPERM || rc == -EACCES;
}

/* Looks at the nearest folder that exists: 1, 0 or -errno. */
static int is_bpf_fs(const char *directory)
{
	char path[PATH_MAX];
	struct statfs fs;
	char *slash;

	snprintf(path, sizeof(path), "%s", directory);
	while (statfs(path, &fs) != 0) {
		slash = strrchr(path, '/');
		if (errno != ENOENT)
			return -errno;
		if (!slash || slash == path)
			return 0;
		*slash = '\0';
	}
	return fs.f_type == BPF_FS_MAGIC;
}

static int check_bpf_fs(const char *directory, struct err *err)
{
	size_t len = strlen(BPF_FS);
	int rc = is_bpf_fs(directory);

	if (rc > 0)
		return 0;
	if (rc < 0)
		return denied(rc) ? err_set(err, rc, "%s: no permission; " RIGHTS, directory)
				  : err_set(err, rc, "%s: %s", directory, strerror(-rc));
	if (strncmp(directory, BPF_FS "/", len + 1) == 0) {
		if (mount("bpf", BPF_FS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") == 0)
			return 0;
		if (denied(-errno))
			return err_set(err, -errno,
				       "no BPF file system on " BPF_FS
				       ", and no permission to mount it; run it as root");
		return err_set(err, -errno,
			       "no BPF file system on " BPF_FS
			       " and mounting it failed (%s); " BPF_FS_HELP,
			       strerror(errno));
	}
	return err_set(err, -ENOTDIR,
		       "%s is not on a BPF file system; choose a pin directory below " BPF_FS,
		       directory);
}

static int make_directories(const char *directory)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", directory);
	for (char *at = path + 1;; at++) {
		char c = *at;

		if (c != '/' && c != '\0')
			continue;
		*at = '\0';
		if (mkdir(path, 0700) != 0 && errno != EEXIST)
			return -errno;
		*at = c;
		if (c == '\0')
			return 0;
	}
}

/* --- whose program is on the interface ---------------------------------------------------------
 */

static int link_info(int fd, struct bpf_link_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, len);
	return bpf_obj_get_info_by_fd(fd, info, &len) ? -errno : 0;
}

static void program_name(uint32_t id, char out[static BPF_OBJ_NAME_LEN])
{
	CLEANUP(cleanup_close) int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = { 0 };
	__u32 len = sizeof(info);

	snprintf(out, BPF_OBJ_NAME_LEN, "?");
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.name[0])
		snprintf(out, BPF_OBJ_NAME_LEN, "%s", info.name);
}

static int check_foreign(const struct pins *p, struct err *err)
{
	CLEANUP(cleanup_close) int fd = pins_get(p->dir, p->link);
	struct bpf_link_info info;
	char name[BPF_OBJ_NAME_LEN];
	__u32 id = 0;

	if (bpf_xdp_query_id((int)p->ifindex, 0, &id) != 0 || id == 0)
		return 0;
	if (fd >= 0 && link_info(fd, &info) == 0 && info.prog_id == id &&
	    info.xdp.ifindex == p->ifindex)
		return 0;
	program_name(id, name);
	if (strcmp(name, "decap") == 0)
		return err_set(err, -EBUSY,
			       "interface %s has the decapsulating program of a gateway host, and "
			       "takes only one; take that off first: nlbctl decap detach %s",
			       p->interface, p->interface);
	if (strcmp(name, "nlb") == 0)
		return err_set(err, -EBUSY,
			       "interface %s has the forwarding program of a load balancer, and "
			       "takes only one; take that off first: nlbctl detach %s",
			       p->interface, p->interface);
	return err_set(
		err, -EBUSY,
		"interface %s has an XDP program of somebody else (\"%s\", id %u), which is never "
		"replaced; take it off first: ip link set dev %s xdp off (where a BPF link holds "
		"it: "
		"bpftool link detach id, with the number that bpftool link shows)",
		p->interface, name, id, p->interface);
}

int pins_open(struct pins *p, const char *directory, const char *interface, struct err *err)
{
	CLEANUP(cleanup_close) int link = -1;
	int rc;

	*p = (struct pins) { 0 };
	snprintf(p->interface, sizeof(p->interface), "%s", interface);
	snprintf(p->link, sizeof(p->link), "%s", LINK);
	p->ifindex = if_nametoindex(interface);
	if (!p->ifindex)
		return err_set(err, -ENODEV,
			       "interface %s does not exist (ip link shows those there are)",
			       interface);
	rc = check_kernel(err);
	if (!rc)
		rc = check_bpf_fs(directory, err);
	if (rc)
		return rc;
	if (snprintf(p->dir, sizeof(p->dir), "%s", directory) >= (int)sizeof(p->dir))
		return err_set(err, -ENAMETOOLONG, "the pin directory's path is too long");
	rc = check_foreign(p, err);
	if (rc)
		return rc;

	link = pins_get(p->dir, p->link);
	p->was_empty = link < 0;
	rc = make_directories(p->dir);
	if (denied(rc))
		return err_set(err, rc, "%s: no permission; " RIGHTS, p->dir);
	if (rc)
		return err_set(err, rc, "%s: %s", p->dir, strerror(-rc));
	return 0;
}

/* --- loading ---------------------------------------------------------------------------------- */

static int pin_again(const struct pins *p, const char *name, int fd, struct err *err)
{
	char path[PATH_MAX];

	unlink(pin_path(path, p->dir, name));
	if (bpf_obj_pin(fd, path) != 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

static bool has_shape(int fd, const struct bpf_map *map)
{
	struct bpf_map_info info = { 0 };
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == bpf_map__type(map) &&
	       info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map) &&
	       info.map_flags == bpf_map__map_flags(map);
}

static bool is_one_of(const char *name, const char *const *list)
{
	for (; list && *list; list++) {
		if (strcmp(*list, name) == 0)
			return true;
	}
	return false;
}

/* The version that is pinned beside the maps; 0: none. */
static uint64_t pinned_layout(const struct pins *p)
{
	CLEANUP(cleanup_close) int fd = pins_get(p->dir, LAYOUT_PIN);
	uint64_t version = 0;
	__u32 zero = 0;

	if (fd >= 0)
		bpf_map_lookup_elem(fd, &zero, &version);
	return version;
}

static int pin_layout(const struct pins *p, uint64_t version, struct err *err)
{
	CLEANUP(cleanup_close)
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, LAYOUT_PIN, sizeof(__u32), sizeof(version), 1,
				NULL);
	__u32 zero = 0;

	if (fd < 0 || bpf_map_update_elem(fd, &zero, &version, BPF_ANY) != 0)
		return err_set(err, -errno, "map " LAYOUT_PIN ": %s", strerror(errno));
	return pin_again(p, LAYOUT_PIN, fd, err);
}

/* Whether the maps of the group have to be made anew, all of them. */
static bool must_rebuild(const struct pins *p, const struct bpf_object *object,
			 const struct pins_layout *layout)
{
	bool any_there = false, all_fit = true;
	const struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		const char *name = bpf_map__name(map);
		CLEANUP(cleanup_close) int fd = pins_get(p->dir, name);

		if (fd < 0 || !is_one_of(name, layout->state))
			continue;
		any_there = true;
		if (!has_shape(fd, map) &&
		    !(layout->resizable && strcmp(layout->resizable, name) == 0))
			all_fit = false;
	}
	return any_there && (!all_fit || pinned_layout(p) != layout->version);
}

static void former_name(char out[static BPF_OBJ_NAME_LEN + 16], const char *name)
{
	snprintf(out, BPF_OBJ_NAME_LEN + 16, "%s-former", name);
}

/* Out of the way of the new map; not gone, since loading may fail yet. */
static void set_aside(const struct pins *p, const char *name)
{
	char from[PATH_MAX], to[PATH_MAX], former[BPF_OBJ_NAME_LEN + 16];

	former_name(former, name);
	rename(pin_path(from, p->dir, name), pin_path(to, p->dir, former));
}

/* After a failure: as if nothing had happened. */
static void take_back(const struct pins *p, const struct bpf_object *object)
{
	char from[PATH_MAX], to[PATH_MAX], former[BPF_OBJ_NAME_LEN + 16];
	const struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		former_name(former, bpf_map__name(map));
		if (access(pin_path(from, p->dir, former), F_OK) == 0)
			rename(from, pin_path(to, p->dir, bpf_map__name(map)));
	}
}

/* As many entries as fit. Returns false when the maps hold different things. */
static bool copy_entries(int from, int to)
{
	struct bpf_map_info a = { 0 }, b = { 0 };
	__u32 len = sizeof(a), count = 0;
	int cpus = libbpf_num_possible_cpus();

	if (bpf_obj_get_info_by_fd(from, &a, &len) != 0 ||
	    bpf_obj_get_info_by_fd(to, &b, &len) != 0 || a.type != b.type ||
	    a.key_size != b.key_size || a.value_size != b.value_size || cpus < 1)
		return false;
	/* Per CPU maps give all values at once, each in words of eight bytes. */
	CLEANUP(cleanup_free) char *value = calloc((size_t)cpus, (a.value_size + 7U) & ~7U);
	CLEANUP(cleanup_free) char *key = calloc(1, a.key_size);

	if (!value || !key)
		return false;
	for (int rc = bpf_map_get_next_key(from, NULL, key); rc == 0 && count < a.max_entries;
	     rc = bpf_map_get_next_key(from, key, key), count++) {
		if (bpf_map_lookup_elem(from, key, value) == 0)
			bpf_map_update_elem(to, key, value, BPF_ANY);
	}
	return true;
}

/* What was set aside is of use once more where it can be copied, then it is let go. */
static void drop_former(const struct pins *p, const struct bpf_object *object,
			const struct pins_layout *layout,
			void (*on_replaced)(const char *map, bool is_copied, void *arg), void *arg)
{
	char path[PATH_MAX], former[BPF_OBJ_NAME_LEN + 16];
	const struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		const char *name = bpf_map__name(map);

		former_name(former, name);
		CLEANUP(cleanup_close) int fd = pins_get(p->dir, former);
		bool is_copied = fd >= 0 && !is_one_of(name, layout->state) &&
				 copy_entries(fd, bpf_map__fd(map));

		if (fd < 0)
			continue;
		unlink(pin_path(path, p->dir, former));
		if (on_replaced)
			on_replaced(name, is_copied, arg);
	}
}

static int load(struct bpf_object *object, struct err *err)
{
	int rc = bpf_object__load(object);

	if (denied(rc))
		return err_set(err, rc, "the kernel refuses to load BPF programs (%s); " RIGHTS,
			       strerror(-rc));
	if (rc == -ENOMEM)
		return err_set(err, rc,
			       "not enough memory for the BPF maps; lower \"flows_per_cpu\"");
	if (rc)
		return err_set(err, rc,
			       "loading the BPF program: %s (kernel " KERNEL_MIN " or newer?)",
			       strerror(-rc));
	return 0;
}

int pins_load(struct pins *p, struct bpf_object *object, const struct pins_layout *layout,
	      void (*on_replaced)(const char *map, bool is_copied, void *arg), void *arg,
	      struct err *err)
{
	bool rebuilds = must_rebuild(p, object, layout);
	char path[PATH_MAX];
	struct bpf_map *map;
	int rc;

	take_back(p, object); /* one that was killed in the middle of this */
	bpf_object__for_each_map (map, object) {
		const char *name = bpf_map__name(map);
		CLEANUP(cleanup_close) int fd = pins_get(p->dir, name);

		if (fd >= 0 &&
		    ((rebuilds && is_one_of(name, layout->state)) || !has_shape(fd, map)))
			set_aside(p, name);
		rc = bpf_map__set_pin_path(map, pin_path(path, p->dir, name));
		if (rc)
			return err_set(err, rc, "%s: %s", path, strerror(-rc));
	}

	rc = load(object, err);
	if (rc) {
		take_back(p, object);
		return rc;
	}
	drop_former(p, object, layout, on_replaced, arg);
	/* Last, and so never beside maps of before: who is killed on the way makes them anew. */
	return pin_layout(p, layout->version, err);
}

/* --- attaching -------------------------------------------------------------------------------- */

static enum pins_mode attached_mode(const struct pins *p)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);

	if (bpf_xdp_query((int)p->ifindex, 0, &opts) == 0 && opts.attach_mode == XDP_ATTACHED_SKB)
		return PINS_GENERIC;
	return PINS_NATIVE;
}

static int attach_anew(struct pins *p, int prog_fd, enum pins_mode *mode, struct err *err)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	CLEANUP(cleanup_close) int fd = -1;
	int rc = -EOPNOTSUPP;

	if (*mode != PINS_GENERIC) {
		opts.flags = XDP_FLAGS_DRV_MODE;
		fd = bpf_link_create(prog_fd, (int)p->ifindex, BPF_XDP, &opts);
		rc = fd < 0 ? -errno : 0;
		p->native_rc = rc;
	}
	if (fd < 0 && *mode != PINS_NATIVE) {
		opts.flags = XDP_FLAGS_SKB_MODE;
		fd = bpf_link_create(prog_fd, (int)p->ifindex, BPF_XDP, &opts);
		rc = fd < 0 ? -errno : 0;
	}
	if (rc == -EPERM)
		return err_set(err, rc, "attaching to %s: no permission; " RIGHTS, p->interface);
	if (rc == -EBUSY || rc == -EEXIST)
		return err_set(
			err, rc,
			"interface %s has an XDP program of somebody else; take it off first: "
			"ip link set dev %s xdp off, or bpftool link detach id, with the number "
			"that bpftool link shows",
			p->interface, p->interface);
	if (rc && link_feature(p->interface, "rx-lro") == 1)
		return err_set(err, rc,
			       "interface %s does not take an XDP program in %s mode (%s) while "
			       "large receive offload is on: ethtool -K %s lro off",
			       p->interface, pins_mode_name(*mode), strerror(-rc), p->interface);
	if (rc)
		return err_set(err, rc,
			       "interface %s does not take an XDP program in %s mode (%s): its "
			       "driver has no XDP (use \"generic\"), or its MTU of %u is more than "
			       "one page holds",
			       p->interface, pins_mode_name(*mode), strerror(-rc),
			       link_mtu(p->interface));
	*mode = attached_mode(p);
	return pin_again(p, p->link, fd, err);
}

/* Our own link, if it can be used for this mode. Returns a descriptor or -1. */
static int usable_link(const struct pins *p, enum pins_mode mode)
{
	CLEANUP(cleanup_close) int fd = pins_get(p->dir, p->link);
	struct bpf_link_info info;

	if (fd < 0 || link_info(fd, &info) != 0 || info.xdp.ifindex != p->ifindex)
		return -1;
	return mode == PINS_AUTO || mode == attached_mode(p) ? TAKE_FD(fd) : -1;
}

int pins_attach(struct pins *p, int prog_fd, enum pins_mode *mode, struct err *err)
{
	CLEANUP(cleanup_close) int fd = usable_link(p, *mode);
	char path[PATH_MAX];
	int rc;

	if (fd >= 0) {
		if (bpf_link_update(fd, prog_fd, NULL) != 0)
			return err_set(err, -errno, "replacing our program on %s: %s", p->interface,
				       strerror(errno));
		*mode = attached_mode(p);
	} else {
		/* A link whose interface is gone, or in another mode than is wanted now. */
		fd = pins_get(p->dir, p->link);
		if (fd >= 0) {
			bpf_link_detach(fd);
			unlink(pin_path(path, p->dir, p->link));
		}
		rc = attach_anew(p, prog_fd, mode, err);
		if (rc)
			return rc;
	}
	return pin_again(p, "prog", prog_fd, err);
}

static bool uses_map(__u32 prog_id, int map_fd)
{
	CLEANUP(cleanup_close) int fd = bpf_prog_get_fd_by_id(prog_id);
	struct bpf_map_info map = { 0 };
	struct bpf_prog_info prog = { 0 };
	__u32 ids[64], len = sizeof(map);

	if (fd < 0 || bpf_obj_get_info_by_fd(map_fd, &map, &len) != 0)
		return false;
	prog.nr_map_ids = ARRAY_SIZE(ids);
	prog.map_ids = (uintptr_t)ids;
	len = sizeof(prog);
	if (bpf_obj_get_info_by_fd(fd, &prog, &len) != 0)
		return false;
	for (__u32 i = 0; i < prog.nr_map_ids && i < ARRAY_SIZE(ids); i++) {
		if (ids[i] == map.id)
			return true;
	}
	return false;
}

int pins_former(const struct pins *p, enum pins_mode *mode, int map_fd)
{
	CLEANUP(cleanup_close) int fd = usable_link(p, *mode);
	struct bpf_link_info info;

	if (fd < 0 || link_info(fd, &info) != 0 || uses_map(info.prog_id, map_fd))
		return -1;
	*mode = attached_mode(p);
	return TAKE_FD(fd);
}

int pins_replace(const struct pins *p, int link_fd, int prog_fd, struct err *err)
{
	char path[PATH_MAX];

	if (bpf_link_update(link_fd, prog_fd, NULL) != 0)
		return err_set(err, -errno, "replacing our program on %s: %s", p->interface,
			       strerror(errno));
	/* By then we may have no right to the folder any more; it is for others to look at. */
	if (unlink(pin_path(path, p->dir, "prog")) == 0)
		bpf_obj_pin(prog_fd, path);
	return 0;
}

int pins_open_another(struct pins *out, const struct pins *first, const char *interface,
		      struct err *err)
{
	*out = *first;
	snprintf(out->interface, sizeof(out->interface), "%s", interface);
	snprintf(out->link, sizeof(out->link), LINK "-%s", out->interface);
	out->ifindex = if_nametoindex(interface);
	if (!out->ifindex)
		return err_set(err, -ENODEV,
			       "interface %s does not exist (ip link shows those there are)",
			       interface);
	return check_foreign(out, err);
}

static bool is_kept(const char *name, const struct pins *others, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(others[i].link, name) == 0)
			return true;
	}
	return false;
}

static void detach_others(const char *directory, const struct pins *kept, size_t count)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	char path[PATH_MAX];

	while (dir && (entry = readdir(dir))) {
		CLEANUP(cleanup_close) int fd = -1;

		if (strncmp(entry->d_name, LINK "-", strlen(LINK) + 1) != 0 ||
		    is_kept(entry->d_name, kept, count))
			continue;
		fd = pins_get(directory, entry->d_name);
		if (fd >= 0)
			bpf_link_detach(fd);
		unlink(pin_path(path, directory, entry->d_name));
	}
	if (dir)
		closedir(dir);
}

void pins_keep_others(const struct pins *first, const struct pins *others, size_t count)
{
	detach_others(first->dir, others, count);
}

/* --- removing --------------------------------------------------------------------------------- */

/* Returns how many there were. Folders in it are another's. */
static unsigned remove_pins(const char *directory)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;
	unsigned count = 0;
	char path[PATH_MAX];

	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.' &&
		    unlink(pin_path(path, directory, entry->d_name)) == 0)
			count++;
	}
	closedir(dir);
	rmdir(directory);
	return count;
}

int pins_remove(const char *directory, struct err *err)
{
	CLEANUP(cleanup_close) int link = pins_get(directory, "link"), lock = -1;
	bool has_link = link >= 0;
	pid_t holder;

	if (denied(link))
		return err_set(err, link, "%s: no permission; " RIGHTS, directory);
	lock = lock_take(directory, &holder);
	if (lock == -EWOULDBLOCK)
		return err_set(
			err, lock,
			"nlbd (process %d) is at work there and would lose its maps; stop it "
			"first",
			holder);
	if (has_link && bpf_link_detach(link) != 0 && errno != ENOLINK)
		return err_set(err, -errno, "detaching: %s", strerror(errno));
	detach_others(directory, NULL, 0);
	if (remove_pins(directory) == 0)
		return err_set(err, -ENOENT, "nothing of ours is attached (no pins in %s)",
			       directory);
	return 0;
}

void pins_undo(struct pins *p)
{
	if (p->was_empty && p->dir[0])
		remove_pins(p->dir);
}
