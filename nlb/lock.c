/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "lib/cleanup.h"

/* From the kernel's list of locks: "1: FLOCK  ADVISORY  WRITE 4711 00:1f:1234 0 EOF". */
static pid_t find_holder(int fd)
{
	FILE *locks = fopen("/proc/locks", "re");
	char line[256];
	pid_t holder = 0;
	struct stat st;

	if (!locks)
		return 0;
	while (!holder && fstat(fd, &st) == 0 && fgets(line, sizeof(line), locks)) {
		unsigned major, minor;
		unsigned long inode;
		int pid;

		if (sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%lu", &pid, &major, &minor, &inode) ==
			    4 &&
		    inode == st.st_ino && makedev(major, minor) == st.st_dev && pid > 0)
			holder = pid;
	}
	fclose(locks);
	return holder;
}

int lock_take(const char *directory, pid_t *holder)
{
	CLEANUP(cleanup_close) int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*holder = 0;
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return TAKE_FD(fd);
	if (errno != EWOULDBLOCK)
		return -errno;
	*holder = find_holder(fd);
	return -EWOULDBLOCK;
}
