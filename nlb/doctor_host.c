/* SPDX-License-Identifier: Apache-2.0 */
/* What any host needs: kernel, BPF file system, rights, JIT. */
#include "nlb/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

#include <linux/magic.h>

#include "lib/cleanup.h"

#define KERNEL_BTF "/sys/kernel/btf/vmlinux"
#define BPF_FS     "/sys/fs/bpf"
#define JIT        "/proc/sys/net/core/bpf_jit_enable"

static void check_kernel(struct doctor *d)
{
	unsigned major = 0, minor = 0;
	struct utsname un;

	if (uname(&un) != 0 || sscanf(un.release, "%u.%u", &major, &minor) != 2) {
		doctor_unknown(d, "kernel", "its version cannot be told");
		return;
	}
	if (major < 5 || (major == 5 && minor < 15))
		doctor_found(d, DOCTOR_BAD, "kernel", "install kernel 5.15 or newer",
			     "%s is too old", un.release);
	else if (access(KERNEL_BTF, R_OK) != 0)
		doctor_found(d, DOCTOR_BAD, "kernel",
			     "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of "
			     "distributions are",
			     "%s has no BTF (%s is missing)", un.release, KERNEL_BTF);
	else
		doctor_good(d, "kernel", "%s with BTF", un.release);
}

static void check_bpf_fs(struct doctor *d)
{
	struct statfs fs;

	if (statfs(BPF_FS, &fs) == 0 && fs.f_type == BPF_FS_MAGIC)
		doctor_good(d, "bpffs", "mounted on " BPF_FS);
	else
		doctor_found(d, DOCTOR_BAD, "bpffs", "mount -t bpf bpf " BPF_FS,
			     "there is no BPF file system on " BPF_FS
			     ": nothing outlives nlbd or nlbctl");
}

static void check_rights(struct doctor *d)
{
	if (d->is_admin && d->has_raw)
		doctor_good(d, "rights", "may look into maps and programs and send probes");
	else
		doctor_unknown(d, "rights",
			       "cannot look into maps and programs or send probes (needs root)");
}

/* Containers do not see the setting, but a program of ours that is loaded tells as well. */
void doctor_check_jit(struct doctor *d)
{
	FILE *file = fopen(JIT, "re");
	int value = -1;

	if (file && fscanf(file, "%d", &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	if (value < 0 && d->has_program)
		value = d->is_compiled;
	if (value == 0)
		doctor_found(d, DOCTOR_BAD, "jit", "sysctl -w net.core.bpf_jit_enable=1",
			     "BPF programs are interpreted, which is many times slower");
	else if (value > 0)
		doctor_good(d, "jit", "BPF programs are compiled");
	else
		doctor_unknown(d, "jit",
			       "cannot tell whether BPF programs are compiled (needs "
			       "root, and a program of ours)");
}

void doctor_check_host(struct doctor *d)
{
	check_kernel(d);
	check_bpf_fs(d);
	check_rights(d);
}
