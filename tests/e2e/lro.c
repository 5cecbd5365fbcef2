/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for a network card with large receive offload, which no virtual device has: preloaded,
 * it has ethtool's questions answered as if "rx-lro" were on for the interface under test. With
 * LRO_REFUSES_NATIVE set it also refuses XDP in the driver, as such cards do.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

static int lro_at = -1;

int ioctl(int fd, unsigned long request, ...)
{
	int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	struct ifreq *ifr;
	va_list ap;
	int rc;

	va_start(ap, request);
	ifr = va_arg(ap, void *);
	va_end(ap);
	rc = real(fd, request, ifr);
	if (rc == 0 && request == SIOCETHTOOL) {
		struct ethtool_gstrings *names = (void *)ifr->ifr_data;
		struct ethtool_gfeatures *states = (void *)ifr->ifr_data;

		if (names->cmd == ETHTOOL_GSTRINGS) {
			for (size_t i = 0; i < names->len; i++)
				if (!strcmp((char *)names->data + i * ETH_GSTRING_LEN, "rx-lro"))
					lro_at = (int)i;
		} else if (names->cmd == ETHTOOL_GFEATURES && lro_at >= 0) {
			states->features[lro_at / 32].active |= 1U << (lro_at % 32);
		}
	}
	return rc;
}

long syscall(long number, ...)
{
	long (*real)(long, ...) = dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_bpf && a[0] == BPF_LINK_CREATE && getenv("LRO_REFUSES_NATIVE") &&
	    ((union bpf_attr *)a[1])->link_create.flags & XDP_FLAGS_DRV_MODE) {
		errno = EINVAL;
		return -1;
	}
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
