/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/find.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NLB_SOCKET "nlb.sock" /* nlbd's, in the same folder */

static bool is_socket(DIR *dir, const char *name)
{
	struct stat st;

	return strcmp(name, NLB_SOCKET) != 0 && fstatat(dirfd(dir), name, &st, 0) == 0 &&
	       S_ISSOCK(st.st_mode);
}

int ctl_find_socket(const char *folder, struct buf *out)
{
	DIR *dir = opendir(folder);
	const char *why = dir ? NULL : strerror(errno);
	struct buf found;
	struct dirent *entry;
	unsigned count = 0;

	buf_init(&found, 0);
	while (dir && (entry = readdir(dir))) {
		if (!is_socket(dir, entry->d_name))
			continue;
		buf_printf(&found, "%s%s/%s", count ? ", " : "", folder, entry->d_name);
		count++;
	}
	if (dir)
		closedir(dir);
	if (count == 1)
		buf_add(out, buf_str(&found));
	else if (why)
		fprintf(stderr,
			"gatewayctl: which gatewayd? %s: %s; name its admin.socket: --socket "
			"PATH\n",
			folder, why);
	else if (count == 0)
		fprintf(stderr,
			"gatewayctl: no gatewayd has a socket in %s; is it running? another "
			"admin.socket: --socket PATH\n",
			folder);
	else
		fprintf(stderr, "gatewayctl: which gatewayd? --socket with one of: %.*s\n",
			STR_ARG(buf_str(&found)));
	buf_fini(&found);
	return count == 1 ? 0 : -1;
}
