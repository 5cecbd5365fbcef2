/* SPDX-License-Identifier: Apache-2.0 */
/* To be preloaded: a program that believes it is the first of January 1970; with WRONG_CLOCK_IF
 * only while that file exists. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *out)
{
	long rc = syscall(SYS_clock_gettime, id, out);
	const char *file = id == CLOCK_REALTIME ? getenv("WRONG_CLOCK_IF") : NULL;

	if (rc == 0 && id == CLOCK_REALTIME && (!file || access(file, F_OK) == 0))
		out->tv_sec %= 86400;
	return (int)rc;
}
