/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/link.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>

#include "lib/cleanup.h"

/* --- ethtool and ioctl ------------------------------------------------------------------------
 */

static int ask_interface(const char *interface, unsigned long request, struct ifreq *ifr)
{
	CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", interface);
	if (fd < 0 || ioctl(fd, request, ifr) != 0)
		return -errno;
	return 0;
}

static int ask_ethtool(const char *interface, void *command)
{
	struct ifreq ifr = { .ifr_data = command };

	return ask_interface(interface, SIOCETHTOOL, &ifr);
}

const char *link_driver(const char *interface, char out[static LINK_DRIVER_LEN])
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };

	out[0] = '\0';
	if (ask_ethtool(interface, &info) == 0)
		snprintf(out, LINK_DRIVER_LEN, "%.31s", info.driver);
	return out;
}

/* How many features there are. */
static int count_features(const char *interface)
{
	/* struct ethtool_sset_info, whose last member has room for one length. */
	struct {
		uint32_t cmd, reserved;
		uint64_t sset_mask;
		uint32_t length;
	} ask = { .cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ULL << ETH_SS_FEATURES };
	int rc = ask_ethtool(interface, &ask);

	return rc ? rc : (int)ask.length;
}

int link_feature(const char *interface, const char *feature)
{
	int count = count_features(interface), rc, at = -1;
	size_t blocks;

	if (count <= 0)
		return count ? count : -EOPNOTSUPP;
	blocks = ((size_t)count + 31) / 32;
	CLEANUP(cleanup_free)
	struct ethtool_gstrings *names = calloc(1,
						sizeof(*names) + (size_t)count * ETH_GSTRING_LEN);
	CLEANUP(cleanup_free)
	struct ethtool_gfeatures *states =
		calloc(1, sizeof(*states) + blocks * sizeof(states->features[0]));

	if (!names || !states)
		return -ENOMEM;
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_FEATURES;
	names->len = (uint32_t)count;
	rc = ask_ethtool(interface, names);
	states->cmd = ETHTOOL_GFEATURES;
	states->size = (uint32_t)blocks;
	if (!rc)
		rc = ask_ethtool(interface, states);
	if (rc)
		return rc;
	for (int i = 0; i < count && at < 0; i++) {
		if (strncmp((const char *)names->data + (size_t)i * ETH_GSTRING_LEN, feature,
			    ETH_GSTRING_LEN) == 0)
			at = i;
	}
	if (at < 0)
		return -ENOENT;
	return states->features[at / 32].active >> (at % 32) & 1;
}

uint32_t link_mtu(const char *interface)
{
	struct ifreq ifr = { 0 };

	return ask_interface(interface, SIOCGIFMTU, &ifr) == 0 ? (uint32_t)ifr.ifr_mtu : 0;
}

/* --- sysctl, lo -------------------------------------------------------------------------------
 */

static int read_sysctl(const char *scope, const char *name)
{
	char path[160];
	FILE *file;
	int value;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/%s", scope, name);
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fscanf(file, "%d", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

void link_sysctl(const char *interface, const char *name, int *all, int *own)
{
	*all = read_sysctl("all", name);
	*own = read_sysctl(interface, name);
}

static bool is_same_ip(const struct sockaddr *a, const struct net_addr *b)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)a;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)a;

	if (!a || a->sa_family != b->sa.sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return in->sin_addr.s_addr == b->in.sin_addr.s_addr;
	return a->sa_family == AF_INET6 &&
	       memcmp(&in6->sin6_addr, &b->in6.sin6_addr, sizeof(in6->sin6_addr)) == 0;
}

bool link_loopback_has(const struct net_addr *address)
{
	struct ifaddrs *all, *it;
	bool has = false;

	if (getifaddrs(&all) != 0)
		return false;
	for (it = all; it && !has; it = it->ifa_next)
		has = (it->ifa_flags & IFF_LOOPBACK) && is_same_ip(it->ifa_addr, address);
	freeifaddrs(all);
	return has;
}

/* --- netlink ----------------------------------------------------------------------------------
 */

struct request {
	struct nlmsghdr head;
	union {
		struct rtmsg route;
		struct ndmsg neighbour;
		struct genlmsghdr generic;
	};
	uint8_t attributes[64];
};

static void request_init(struct request *r, uint16_t type, size_t body_len)
{
	memset(r, 0, sizeof(*r));
	r->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(body_len);
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = NLM_F_REQUEST;
}

static void request_add(struct request *r, uint16_t type, const void *data, size_t len)
{
	struct rtattr *attribute =
		(struct rtattr *)(void *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(len);
	memcpy(RTA_DATA(attribute), data, len);
	r->head.nlmsg_len =
		(uint32_t)(NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(attribute->rta_len));
}

struct answer {
	_Alignas(struct nlmsghdr) char bytes[8192];
	struct nlmsghdr *head;
};

/* One question, one message. Returns 0 or -errno. */
static int ask_netlink(int family, const struct request *r, struct answer *a)
{
	CLEANUP(cleanup_close) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family);
	const struct timeval limit = { .tv_sec = 1 };
	ssize_t len;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (send(fd, r, r->head.nlmsg_len, 0) < 0)
		return -errno;
	len = recv(fd, a->bytes, sizeof(a->bytes), 0);
	if (len < 0)
		return -errno;
	a->head = (struct nlmsghdr *)(void *)a->bytes;
	if ((size_t)len < sizeof(*a->head) || a->head->nlmsg_len > (size_t)len)
		return -EBADMSG;
	if (a->head->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(a->head))->error ?: -ENOENT;
	return 0;
}

/* An attribute among `left` bytes of them. */
static const struct rtattr *find(const void *base, size_t left, uint16_t type)
{
	const struct rtattr *a = base;

	while (left >= sizeof(*a) && a->rta_len >= sizeof(*a) && a->rta_len <= left) {
		size_t step = RTA_ALIGN((size_t)a->rta_len);

		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
		if (step > left)
			return NULL;
		left -= step;
		a = (const struct rtattr *)(const void *)((const char *)a + step);
	}
	return NULL;
}

static const struct rtattr *find_in(const struct answer *a, size_t body_len, uint16_t type)
{
	const char *base = (const char *)NLMSG_DATA(a->head) + NLMSG_ALIGN(body_len);
	size_t before = NLMSG_LENGTH(NLMSG_ALIGN(body_len));

	return a->head->nlmsg_len < before ? NULL : find(base, a->head->nlmsg_len - before, type);
}

static const void *payload(const struct rtattr *a)
{
	return (const char *)a + RTA_LENGTH(0);
}

static bool copy(const struct rtattr *a, void *out, size_t len)
{
	if (!a || RTA_PAYLOAD(a) < len)
		return false;
	memcpy(out, payload(a), len);
	return true;
}

static void address_bytes(const struct net_addr *a, const void **bytes, size_t *len)
{
	if (a->sa.sa_family == AF_INET6) {
		*bytes = &a->in6.sin6_addr;
		*len = sizeof(a->in6.sin6_addr);
	} else {
		*bytes = &a->in.sin_addr;
		*len = sizeof(a->in.sin_addr);
	}
}

static void read_via(const struct answer *a, struct link_route *out)
{
	const struct rtattr *gateway = find_in(a, sizeof(struct rtmsg), RTA_GATEWAY);
	const struct rtattr *via = find_in(a, sizeof(struct rtmsg), RTA_VIA);
	const struct rtvia *other = via && RTA_PAYLOAD(via) >= sizeof(*other) ? payload(via) : NULL;
	struct net_addr address = { 0 };
	const void *bytes = NULL;
	size_t len = 0;

	if (gateway) {
		bytes = payload(gateway);
		len = RTA_PAYLOAD(gateway);
	} else if (other) {
		bytes = other->rtvia_addr;
		len = RTA_PAYLOAD(via) - sizeof(*other);
	}
	if (len == 4) {
		address.in.sin_family = AF_INET;
		memcpy(&address.in.sin_addr, bytes, 4);
		address.len = sizeof(address.in);
	} else if (len == 16) {
		address.in6.sin6_family = AF_INET6;
		memcpy(&address.in6.sin6_addr, bytes, 16);
		address.len = sizeof(address.in6);
	} else {
		return;
	}
	out->via = address;
}

int link_route(const struct net_addr *to, struct link_route *out)
{
	const struct rtattr *metrics;
	const void *bytes;
	struct request r;
	struct answer a;
	size_t len;
	int rc;

	address_bytes(to, &bytes, &len);
	request_init(&r, RTM_GETROUTE, sizeof(r.route));
	r.route.rtm_family = (uint8_t)to->sa.sa_family;
	r.route.rtm_dst_len = (uint8_t)(8 * len);
	request_add(&r, RTA_DST, bytes, len);
	rc = ask_netlink(NETLINK_ROUTE, &r, &a);
	if (rc)
		return rc;
	*out = (struct link_route) { .via = *to };
	out->is_unicast = ((const struct rtmsg *)NLMSG_DATA(a.head))->rtm_type == RTN_UNICAST;
	copy(find_in(&a, sizeof(struct rtmsg), RTA_OIF), &out->ifindex, sizeof(out->ifindex));
	read_via(&a, out);
	metrics = find_in(&a, sizeof(struct rtmsg), RTA_METRICS);
	if (metrics) {
		copy(find(payload(metrics), RTA_PAYLOAD(metrics), RTAX_MTU), &out->mtu,
		     sizeof(out->mtu));
		copy(find(payload(metrics), RTA_PAYLOAD(metrics), RTAX_ADVMSS), &out->advmss,
		     sizeof(out->advmss));
	}
	return 0;
}

enum link_neighbour_state link_neighbour(const struct net_addr *via, uint32_t ifindex,
					 uint8_t mac[static 6])
{
	const void *bytes;
	struct request r;
	struct answer a;
	uint16_t state;
	size_t len;

	address_bytes(via, &bytes, &len);
	request_init(&r, RTM_GETNEIGH, sizeof(r.neighbour));
	r.neighbour.ndm_family = (uint8_t)via->sa.sa_family;
	r.neighbour.ndm_ifindex = (int)ifindex;
	request_add(&r, NDA_DST, bytes, len);
	if (ask_netlink(NETLINK_ROUTE, &r, &a) != 0)
		return LINK_NEIGHBOUR_UNKNOWN;
	state = ((const struct ndmsg *)NLMSG_DATA(a.head))->ndm_state;
	if (state & NUD_FAILED)
		return LINK_NEIGHBOUR_FAILED;
	if (copy(find_in(&a, sizeof(struct ndmsg), NDA_LLADDR), mac, 6))
		return LINK_NEIGHBOUR_KNOWN;
	return LINK_NEIGHBOUR_UNKNOWN;
}

/* --- XDP features -----------------------------------------------------------------------------
 */

/* Of linux/netdev.h, which kernels' headers before 6.3 do not have. */
#define NETDEV_FAMILY       "netdev"
#define NETDEV_CMD_GET      1
#define NETDEV_IFINDEX      1
#define NETDEV_XDP_FEATURES 3
#define NETDEV_XDP_NDO_XMIT 4ULL

int link_takes_xdp(uint32_t ifindex)
{
	struct request r;
	struct answer a;
	uint64_t features;
	uint16_t family;
	int rc;

	request_init(&r, GENL_ID_CTRL, sizeof(r.generic));
	r.generic.cmd = CTRL_CMD_GETFAMILY;
	request_add(&r, CTRL_ATTR_FAMILY_NAME, NETDEV_FAMILY, sizeof(NETDEV_FAMILY));
	rc = ask_netlink(NETLINK_GENERIC, &r, &a);
	if (rc)
		return rc;
	if (!copy(find_in(&a, sizeof(r.generic), CTRL_ATTR_FAMILY_ID), &family, sizeof(family)))
		return -EBADMSG;
	request_init(&r, family, sizeof(r.generic));
	r.generic.cmd = NETDEV_CMD_GET;
	request_add(&r, NETDEV_IFINDEX, &ifindex, sizeof(ifindex));
	rc = ask_netlink(NETLINK_GENERIC, &r, &a);
	if (rc)
		return rc;
	if (!copy(find_in(&a, sizeof(r.generic), NETDEV_XDP_FEATURES), &features, sizeof(features)))
		return -EBADMSG;
	return (features & NETDEV_XDP_NDO_XMIT) != 0;
}
