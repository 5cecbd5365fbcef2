/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/decap_host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/neighbour.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "lib/cleanup.h"

#define FORWARDING4 "/proc/sys/net/ipv4/conf/lo/forwarding"
#define FORWARDING6 "/proc/sys/net/ipv6/conf/lo/forwarding"
#define NETNS_RUN   "/run/netns"

/* --- the kernel's settings ---------------------------------------------------------------------
 */

static bool is_set(const char *path)
{
	CLEANUP(cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char value = '0';

	return fd >= 0 && read(fd, &value, 1) == 1 && value != '0';
}

static void set(const char *path)
{
	CLEANUP(cleanup_close) int fd = is_set(path) ? -1 : open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "1", 1) != 1)
		return; /* seen by who reads it, see the header */
}

void decap_host_allow_routing(void)
{
	set(FORWARDING4);
	set(FORWARDING6);
}

void decap_host_read(struct decap_host *out)
{
	out->routes_ipv4 = is_set(FORWARDING4);
	out->routes_ipv6 = is_set(FORWARDING6);
}

/* --- netlink: one question, one answer ---------------------------------------------------------
 */

struct question {
	struct nlmsghdr head;
	union {
		struct rtmsg route;
		struct ndmsg neighbour;
		struct rtgenmsg general;
	};
	uint8_t attributes[64];
};

struct answer {
	union {
		struct nlmsghdr head;
		char bytes[4096];
	};
};

static struct question question(uint16_t type, uint16_t flags, size_t body_len)
{
	return (struct question) { .head = { .nlmsg_len = (uint32_t)NLMSG_LENGTH(body_len),
					     .nlmsg_type = type,
					     .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) } };
}

static void question_add(struct question *q, uint16_t type, const void *data, size_t len)
{
	uint32_t at = NLMSG_ALIGN(q->head.nlmsg_len);
	struct rtattr attribute = { .rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(len) };

	memcpy((char *)q + at, &attribute, sizeof(attribute));
	memcpy((char *)q + at + RTA_LENGTH(0), data, len);
	q->head.nlmsg_len = at + (uint32_t)RTA_ALIGN(attribute.rta_len);
}

/* A socket for each question is dear, but here there are few, and none is left over. */
static int ask(const struct question *q, struct answer *out)
{
	CLEANUP(cleanup_close)
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	const struct timeval limit = { .tv_sec = 2 };
	ssize_t len;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (send(fd, q, q->head.nlmsg_len, 0) < 0)
		return -errno;
	len = recv(fd, out->bytes, sizeof(out->bytes), 0);
	if (len < 0)
		return -errno;
	if ((size_t)len < sizeof(out->head) || out->head.nlmsg_len > (size_t)len)
		return -EBADMSG;
	if (out->head.nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(&out->head))->error;
	return 0;
}

/* Copies an attribute's value. False: it is not there, or shorter. */
static bool answer_get(const struct answer *a, size_t body_len, uint16_t type, void *out,
		       size_t len)
{
	size_t at = NLMSG_LENGTH(NLMSG_ALIGN(body_len));
	struct rtattr attribute;

	while (at + sizeof(attribute) <= a->head.nlmsg_len) {
		memcpy(&attribute, a->bytes + at, sizeof(attribute));
		if (attribute.rta_len < sizeof(attribute) ||
		    at + attribute.rta_len > a->head.nlmsg_len)
			return false;
		if ((attribute.rta_type & NLA_TYPE_MASK) == type) {
			if (attribute.rta_len < RTA_LENGTH(len))
				return false;
			memcpy(out, a->bytes + at + RTA_LENGTH(0), len);
			return true;
		}
		at += RTA_ALIGN((size_t)attribute.rta_len);
	}
	return false;
}

/* --- neighbours --------------------------------------------------------------------------------
 */

struct hop {
	uint8_t family;
	uint8_t address[16];
	uint8_t address_len;
	uint32_t ifindex;
};

static bool is_mapped(const uint8_t bytes[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(bytes, mapped, sizeof(mapped)) == 0;
}

/* Who gets the frames for that address: itself, or a router. False: nobody on a wire. */
static bool find_hop(struct hop *hop, const struct net_prefix *address)
{
	struct question q = question(RTM_GETROUTE, 0, sizeof(q.route));
	const struct rtmsg *route;
	struct answer a;
	struct {
		uint16_t family;
		uint8_t address[16];
	} via;

	if (address->bits != 128)
		return false;
	*hop = (struct hop) { .family = AF_INET6, .address_len = 16 };
	memcpy(hop->address, address->bytes, 16);
	if (is_mapped(address->bytes)) {
		*hop = (struct hop) { .family = AF_INET, .address_len = 4 };
		memcpy(hop->address, address->bytes + 12, 4);
	}
	q.route.rtm_family = hop->family;
	q.route.rtm_dst_len = (uint8_t)(hop->address_len * 8);
	question_add(&q, RTA_DST, hop->address, hop->address_len);
	if (ask(&q, &a) != 0 || a.head.nlmsg_type != RTM_NEWROUTE)
		return false;
	route = NLMSG_DATA(&a.head);
	if (route->rtm_type != RTN_UNICAST ||
	    !answer_get(&a, sizeof(*route), RTA_OIF, &hop->ifindex, sizeof(hop->ifindex)))
		return false;
	answer_get(&a, sizeof(*route), RTA_GATEWAY, hop->address, hop->address_len);
	/* IPv4 by way of an IPv6 router. */
	if (answer_get(&a, sizeof(*route), RTA_VIA, &via, 2 + 16) && via.family == AF_INET6) {
		hop->family = AF_INET6;
		hop->address_len = 16;
		memcpy(hop->address, via.address, 16);
	}
	return true;
}

static struct question neighbour_question(uint16_t type, uint16_t flags, const struct hop *hop)
{
	struct question q = question(type, flags, sizeof(q.neighbour));

	q.neighbour.ndm_family = hop->family;
	q.neighbour.ndm_ifindex = (int)hop->ifindex;
	question_add(&q, NDA_DST, hop->address, hop->address_len);
	return q;
}

/* The neighbour's state (NUD_*), 0 if there is none. */
static uint16_t neighbour_state(const struct hop *hop, bool *is_managed)
{
	struct question q = neighbour_question(RTM_GETNEIGH, 0, hop);
	const struct ndmsg *neighbour;
	uint32_t flags = 0;
	struct answer a;

	*is_managed = false;
	if (ask(&q, &a) != 0 || a.head.nlmsg_type != RTM_NEWNEIGH)
		return 0;
	neighbour = NLMSG_DATA(&a.head);
	answer_get(&a, sizeof(*neighbour), NDA_FLAGS_EXT, &flags, sizeof(flags));
	*is_managed = flags & NTF_EXT_MANAGED;
	return neighbour->ndm_state;
}

/* NTF_USE leaves state and address as they are, and starts the search where there are none. */
static void neighbour_set(const struct hop *hop, bool is_managed)
{
	struct question q = neighbour_question(RTM_NEWNEIGH,
					       NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK, hop);
	uint32_t flags = NTF_EXT_MANAGED;
	struct answer a;

	q.neighbour.ndm_flags = NTF_USE;
	if (is_managed)
		question_add(&q, NDA_FLAGS_EXT, &flags, sizeof(flags));
	ask(&q, &a);
}

void decap_host_keep(const struct net_prefix *address)
{
	struct hop hop;
	bool is_managed;

	if (!find_hop(&hop, address))
		return;
	/* A permanent one would become an ordinary one by the flag. */
	if (!(neighbour_state(&hop, &is_managed) & (NUD_PERMANENT | NUD_NOARP)) && !is_managed)
		neighbour_set(&hop, true);
}

void decap_host_release(const struct net_prefix *address)
{
	struct hop hop;
	bool is_managed;

	if (find_hop(&hop, address) && neighbour_state(&hop, &is_managed) && is_managed)
		neighbour_set(&hop, false);
}

/* --- network namespaces ------------------------------------------------------------------------
 */

static int ask_netns(uint16_t type, int fd, int32_t *id)
{
	struct question q = question(type, type == RTM_NEWNSID ? NLM_F_ACK : 0, sizeof(q.general));
	struct answer a;
	int rc;

	question_add(&q, NETNSA_FD, &fd, sizeof(fd));
	if (type == RTM_NEWNSID)
		question_add(&q, NETNSA_NSID, id, sizeof(*id));
	rc = ask(&q, &a);
	if (!rc && type == RTM_GETNSID &&
	    !answer_get(&a, sizeof(q.general), NETNSA_NSID, id, sizeof(*id)))
		rc = -EBADMSG;
	return rc;
}

int decap_host_netns(uint32_t *out, const char *name, struct err *err)
{
	CLEANUP(cleanup_close) int fd = -1;
	char path[PATH_MAX];
	int32_t id = NETNSA_NSID_NOT_ASSIGNED;
	int rc;

	snprintf(path, sizeof(path), strchr(name, '/') ? "%s%s" : "%s/%s",
		 strchr(name, '/') ? "" : NETNS_RUN, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno,
			       "network namespace %s: %s: %s (ip netns list shows those there are)",
			       name, path, strerror(errno));
	rc = ask_netns(RTM_GETNSID, fd, &id);
	if (!rc && id < 0) {
		rc = ask_netns(RTM_NEWNSID, fd, &id);
		if (!rc)
			rc = ask_netns(RTM_GETNSID, fd, &id);
	}
	if (!rc && id < 0)
		rc = -ENOENT;
	if (rc == -EINVAL)
		return err_set(err, rc, "%s is not a network namespace", path);
	if (rc)
		return err_set(err, rc, "network namespace %s: %s", name, strerror(-rc));
	*out = (uint32_t)id;
	return 0;
}
