/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/address.h"

#include <errno.h>
#include <string.h>

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "lib/cleanup.h"

#ifndef IFA_PROTO /* Linux 5.18 */
#define IFA_PROTO 11
#endif

struct request {
	struct nlmsghdr head;
	struct ifaddrmsg body;
	uint8_t attributes[96];
};

static int open_netlink(void)
{
	const struct timeval limit = { .tv_sec = 2 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static const void *bytes_of(const struct net_addr *a, size_t *len)
{
	bool is6 = a->sa.sa_family == AF_INET6;

	*len = is6 ? 16 : 4;
	return is6 ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr;
}

static void put(struct request *r, uint16_t type, const void *data, size_t len)
{
	size_t at = NLMSG_ALIGN(r->head.nlmsg_len);
	struct rtattr attribute = { .rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(len) };

	memcpy((char *)r + at, &attribute, sizeof(attribute));
	memcpy((char *)r + at + RTA_LENGTH(0), data, len);
	r->head.nlmsg_len = (uint32_t)(at + RTA_ALIGN(attribute.rta_len));
}

/* Sends and waits for the kernel's verdict. */
static int change(struct request *r)
{
	char answer[1024] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	const struct nlmsghdr *head = (const struct nlmsghdr *)(const void *)answer;
	CLEANUP(cleanup_close) int fd = open_netlink();
	const struct nlmsgerr *error;
	ssize_t len;

	if (fd < 0)
		return fd;
	if (send(fd, r, r->head.nlmsg_len, 0) < 0)
		return -errno;
	len = recv(fd, answer, sizeof(answer), 0);
	if (len < 0)
		return -errno;
	if ((size_t)len < NLMSG_LENGTH(sizeof(*error)) || head->nlmsg_type != NLMSG_ERROR)
		return -EBADMSG;
	error = (const struct nlmsgerr *)(const void *)(answer + NLMSG_HDRLEN);
	return error->error;
}

static struct request request_for(uint16_t type, uint16_t flags, uint32_t ifindex,
				  const struct net_addr *address)
{
	struct request r = {
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
			  .nlmsg_type = type,
			  .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags) },
		.body = { .ifa_family = (uint8_t)address->sa.sa_family, .ifa_index = ifindex },
	};
	size_t len;
	const void *bytes = bytes_of(address, &len);

	r.body.ifa_prefixlen = (uint8_t)(len * 8);
	put(&r, IFA_LOCAL, bytes, len);
	put(&r, IFA_ADDRESS, bytes, len);
	return r;
}

int address_add(uint32_t ifindex, const struct net_addr *address, const struct address_mark *mark)
{
	struct request r = request_for(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, address);

	put(&r, IFA_PROTO, &mark->protocol, sizeof(mark->protocol));
	if (address->sa.sa_family == AF_INET)
		put(&r, IFA_LABEL, mark->label, strlen(mark->label) + 1);
	else
		/* Another host may well have it too: no duplicate address detection. */
		r.body.ifa_flags = IFA_F_NODAD;
	return change(&r);
}

int address_remove(uint32_t ifindex, const struct net_addr *address)
{
	struct request r = request_for(RTM_DELADDR, 0, ifindex, address);

	return change(&r);
}

/* --- listing ---------------------------------------------------------------------------------- */

struct listing {
	void (*each)(uint32_t ifindex, const struct net_addr *address, bool is_ours, void *arg);
	const struct address_mark *mark;
	void *arg;
};

/* The kernel's macros cast const away, and let `left` wrap where the last padding is missing. */
static const void *behind(const void *at, size_t len, size_t *left)
{
	size_t step = MIN(NLMSG_ALIGN(len), *left);

	*left -= step;
	return (const char *)at + step;
}

static bool attribute_fits(const struct rtattr *at, size_t left)
{
	return left >= sizeof(*at) && at->rta_len >= sizeof(*at) && at->rta_len <= left;
}

static void read_address(const struct nlmsghdr *head, const struct listing *l)
{
	const struct ifaddrmsg *body = (const void *)((const char *)head + NLMSG_HDRLEN);
	size_t left = head->nlmsg_len - NLMSG_HDRLEN;
	const struct rtattr *at = behind(body, sizeof(*body), &left);
	struct net_addr address = { 0 };
	bool is_ours = false;

	for (; attribute_fits(at, left); at = behind(at, at->rta_len, &left)) {
		const void *data = (const char *)at + RTA_LENGTH(0);
		size_t len = RTA_PAYLOAD(at);

		/* IPv6 has no IFA_LOCAL but on point-to-point links; there it comes first. */
		if ((at->rta_type == IFA_LOCAL || (at->rta_type == IFA_ADDRESS && !address.len)) &&
		    body->ifa_family == AF_INET && len == 4) {
			address.in.sin_family = AF_INET;
			address.len = sizeof(address.in);
			memcpy(&address.in.sin_addr, data, 4);
		} else if (at->rta_type == IFA_ADDRESS && body->ifa_family == AF_INET6 &&
			   len == 16) {
			address.in6.sin6_family = AF_INET6;
			address.len = sizeof(address.in6);
			memcpy(&address.in6.sin6_addr, data, 16);
		} else if (at->rta_type == IFA_PROTO && body->ifa_family == AF_INET6 && len >= 1) {
			is_ours = *(const uint8_t *)data == l->mark->protocol;
		} else if (at->rta_type == IFA_LABEL && body->ifa_family == AF_INET) {
			is_ours = len == strlen(l->mark->label) + 1 &&
				  memcmp(data, l->mark->label, len) == 0;
		}
	}
	if (address.len)
		l->each(body->ifa_index, &address, is_ours, l->arg);
}

/* Returns 1 when the list goes on, 0 at its end, or -errno. */
static int read_part(int fd, const struct listing *l)
{
	char part[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	const struct nlmsghdr *head = (const struct nlmsghdr *)(const void *)part;
	ssize_t got = recv(fd, part, sizeof(part), 0);
	size_t len = (size_t)got;

	if (got < 0)
		return -errno;
	for (; NLMSG_OK(head, len); head = behind(head, head->nlmsg_len, &len)) {
		if (head->nlmsg_type == NLMSG_DONE)
			return 0;
		if (head->nlmsg_type == NLMSG_ERROR)
			return -EBADMSG;
		if (head->nlmsg_type == RTM_NEWADDR)
			read_address(head, l);
	}
	return 1;
}

int address_list(void (*each)(uint32_t ifindex, const struct net_addr *address, bool is_ours,
			      void *arg),
		 const struct address_mark *mark, void *arg)
{
	struct listing l = { each, mark, arg };
	struct request r = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)),
				       .nlmsg_type = RTM_GETADDR,
				       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
	CLEANUP(cleanup_close) int fd = open_netlink();
	int rc;

	if (fd < 0)
		return fd;
	if (send(fd, &r, r.head.nlmsg_len, 0) < 0)
		return -errno;
	do
		rc = read_part(fd, &l);
	while (rc > 0);
	return rc;
}
