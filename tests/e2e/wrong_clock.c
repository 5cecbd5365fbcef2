/* SPDX-License-Identifier: Apache-2.0 */
/* To be preloaded: a program that believes it is the first of January 1970. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *out)
{
	long rc = syscall(SYS_clock_gettime, id, out);

	if (rc == 0 && id == CLOCK_REALTIME)
		out->tv_sec %= 86400;
	return (int)rc;
}
