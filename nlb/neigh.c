/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/neigh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define DEBOUNCE_MS     20
#define REFRESH_MS      2000
#define DEBOUNCE_MAX_MS 500
#define HOPS_CACHED     4096
#define LINKS_CACHED    64
#define NUD_USABLE      (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY)

/* An address in the form that netlink has it. */
struct ip {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t bytes[16];
};

/*
 * What was found out in this round of the loop. VIPs share gateways and gateways share links, and
 * nothing can have been noticed in between.
 */
struct cached_hop {
	uint64_t round_ns;
	struct ip to;
	struct next_hop hop;
};

struct cached_link {
	uint64_t round_ns;
	uint32_t ifindex;
	uint16_t mtu;
	uint8_t mac[6];
};

struct neigh {
	struct loop *loop;
	struct cached_hop *hops; /* HOPS_CACHED, found by their hash; a collision asks again */
	struct cached_link links[LINKS_CACHED];
	uint64_t pause_ms;     /* to the answer to the next note: longer when asking takes long */
	struct loop_io events; /* change notes */
	struct loop_timer timer;
	int request_fd; /* questions and answers */
	uint32_t sequence;
	bool is_soon; /* the timer is set for a change */
	void (*on_change)(void *arg);
	void *arg;
};

struct request {
	struct nlmsghdr head;
	union {
		struct rtmsg route;
		struct ndmsg neighbour;
	};
	uint8_t attributes[64];
};

static int netlink_socket(uint32_t groups, int flags)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = groups };
	CLEANUP(cleanup_close)
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);
	const struct timeval limit = { .tv_sec = 1 };

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return TAKE_FD(fd);
}

/* --- change notes ------------------------------------------------------------------------------
 */

static void on_timer(struct loop_timer *timer)
{
	struct neigh *n = container_of(timer, struct neigh, timer);

	uint64_t begin = clock_mono_ms();

	n->is_soon = false;
	loop_timer_start(n->loop, &n->timer, REFRESH_MS);
	n->on_change(n->arg);
	/* With thousands of gateways asking takes a while; notes must not keep us at it all day. */
	n->pause_ms = MIN(MAX(10 * (clock_mono_ms() - begin), (uint64_t)DEBOUNCE_MS),
			  (uint64_t)DEBOUNCE_MAX_MS);
}

/* What changed does not matter: asking anew for every gateway is cheap and cannot miss anything. */
static void on_note(struct loop_io *io, uint32_t events)
{
	struct neigh *n = container_of(io, struct neigh, events);
	char buffer[16384];

	(void)events;
	while (recv(io->fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0 || errno == ENOBUFS)
		errno = 0;
	if (n->is_soon)
		return;
	n->is_soon = true;
	loop_timer_start(n->loop, &n->timer, n->pause_ms);
}

int neigh_new(struct neigh **out, struct loop *loop, void (*on_change)(void *arg), void *arg,
	      struct err *err)
{
	struct neigh *n = calloc(1, sizeof(*n));
	int rc;

	if (n)
		n->hops = calloc(HOPS_CACHED, sizeof(*n->hops));
	if (!n || !n->hops) {
		free(n);
		return err_set(err, -ENOMEM, "out of memory");
	}
	n->loop = loop;
	n->pause_ms = DEBOUNCE_MS;
	n->on_change = on_change;
	n->arg = arg;
	n->timer.on_fire = on_timer;
	n->events.on_event = on_note;
	n->request_fd = netlink_socket(0, 0);
	n->events.fd = netlink_socket(
		RTMGRP_NEIGH | RTMGRP_LINK | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, SOCK_NONBLOCK);
	rc = n->request_fd < 0 ? n->request_fd : n->events.fd < 0 ? n->events.fd : 0;
	if (!rc)
		rc = loop_io_add(loop, &n->events, EPOLLIN);
	if (rc) {
		cleanup_close(&n->request_fd);
		cleanup_close(&n->events.fd);
		free(n->hops);
		free(n);
		return err_set(err, rc, "asking the kernel for routes and neighbours: %s",
			       strerror(-rc));
	}
	loop_timer_start(loop, &n->timer, REFRESH_MS);
	*out = n;
	return 0;
}

void neigh_free(struct neigh **np)
{
	struct neigh *n = *np;

	if (!n)
		return;
	loop_timer_stop(n->loop, &n->timer);
	loop_io_remove(n->loop, &n->events);
	close(n->events.fd);
	close(n->request_fd);
	free(n->hops);
	free(n);
	*np = NULL;
}

/* --- questions ---------------------------------------------------------------------------------
 */

static void request_init(struct request *r, uint16_t type, uint16_t flags, size_t body_len)
{
	memset(r, 0, sizeof(*r));
	r->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(body_len);
	r->head.nlmsg_type = type;
	r->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
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

/* Sends and waits for the answer. Returns its length, 0 for a bare acknowledgement, or -errno. */
static ssize_t ask(struct neigh *n, struct request *r, char *answer, size_t size)
{
	struct nlmsghdr *head = (struct nlmsghdr *)(void *)answer;
	ssize_t len;

	r->head.nlmsg_seq = ++n->sequence;
	if (send(n->request_fd, r, r->head.nlmsg_len, 0) < 0)
		return -errno;
	do {
		len = recv(n->request_fd, answer, size, 0);
		if (len < 0)
			return -errno;
		if ((size_t)len < sizeof(*head) || head->nlmsg_len > (size_t)len)
			return -EBADMSG;
		/* An answer that came too late for an earlier question is passed over. */
	} while (head->nlmsg_seq != n->sequence);
	if (head->nlmsg_type == NLMSG_ERROR)
		return ((struct nlmsgerr *)NLMSG_DATA(head))->error;
	return len;
}

static const struct rtattr *find(struct nlmsghdr *head, size_t body_len, uint16_t type)
{
	const char *base = (const char *)NLMSG_DATA(head) + NLMSG_ALIGN(body_len);
	const struct rtattr *attribute = (const struct rtattr *)(const void *)base;
	size_t left = head->nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(body_len));

	while (left >= sizeof(*attribute) && attribute->rta_len >= sizeof(*attribute) &&
	       attribute->rta_len <= left) {
		size_t step = RTA_ALIGN((size_t)attribute->rta_len);

		if (attribute->rta_type == type)
			return attribute;
		if (step > left)
			return NULL;
		left -= step;
		attribute = (const struct rtattr *)(const void *)((const char *)attribute + step);
	}
	return NULL;
}

/* An attribute of four bytes inside another one; `out` is left alone when it is not there. */
static void find_nested(const struct rtattr *in, uint16_t type, uint32_t *out)
{
	const char *at = (const char *)in + RTA_LENGTH(0);
	size_t left = RTA_PAYLOAD(in);
	struct rtattr head;

	while (left >= sizeof(head)) {
		memcpy(&head, at, sizeof(head));
		if (head.rta_len < sizeof(head) || head.rta_len > left)
			return;
		if (head.rta_type == type && RTA_PAYLOAD(&head) >= sizeof(*out))
			memcpy(out, at + RTA_LENGTH(0), sizeof(*out));
		if (RTA_ALIGN((size_t)head.rta_len) > left)
			return;
		left -= RTA_ALIGN((size_t)head.rta_len);
		at += RTA_ALIGN((size_t)head.rta_len);
	}
}

static bool copy(struct nlmsghdr *head, size_t body_len, uint16_t type, void *out, size_t len)
{
	const struct rtattr *a = find(head, body_len, type);

	if (!a || RTA_PAYLOAD(a) < len)
		return false;
	memcpy(out, (const char *)a + RTA_LENGTH(0), len);
	return true;
}

static size_t ip_len(const struct ip *ip)
{
	return ip->family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
}

static struct ip ip_of(const struct net_addr *a)
{
	struct ip ip = { .family = (uint8_t)a->sa.sa_family };

	if (ip.family == AF_INET)
		memcpy(ip.bytes, &a->in.sin_addr, sizeof(a->in.sin_addr));
	else
		memcpy(ip.bytes, &a->in6.sin6_addr, sizeof(a->in6.sin6_addr));
	return ip;
}

/* The next hop of a route: an address of its family, of the other one, or the destination itself.
 */
static void read_via(struct nlmsghdr *head, const struct ip *to, struct ip *via)
{
	struct {
		uint16_t family;
		uint8_t bytes[16];
	} other = { 0 };

	*via = *to;
	if (copy(head, sizeof(struct rtmsg), RTA_GATEWAY, via->bytes, ip_len(to)))
		return;
	if (!copy(head, sizeof(struct rtmsg), RTA_VIA, &other, sizeof(other)) &&
	    !copy(head, sizeof(struct rtmsg), RTA_VIA, &other, sizeof(other.family) + 4))
		return;
	via->family = (uint8_t)other.family;
	memcpy(via->bytes, other.bytes, sizeof(via->bytes));
}

/* The next hop's address, the interface and the route's own MTU, if it has one. Returns NULL, or
 * what is wrong. */
static const char *ask_route(struct neigh *n, const struct ip *to, struct ip *via,
			     uint32_t *ifindex, uint32_t *mtu)
{
	char answer[4096] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *head = (struct nlmsghdr *)(void *)answer;
	const struct rtattr *metrics;
	struct request r;
	ssize_t len;

	request_init(&r, RTM_GETROUTE, 0, sizeof(r.route));
	r.route.rtm_family = to->family;
	r.route.rtm_dst_len = (uint8_t)(8 * ip_len(to));
	request_add(&r, RTA_DST, to->bytes, ip_len(to));
	len = ask(n, &r, answer, sizeof(answer));
	if (len <= 0)
		return "no route";
	if (((const struct rtmsg *)NLMSG_DATA(head))->rtm_type != RTN_UNICAST)
		return "no route to another host";
	if (!copy(head, sizeof(struct rtmsg), RTA_OIF, ifindex, sizeof(*ifindex)))
		return "no route";
	read_via(head, to, via);
	metrics = find(head, sizeof(struct rtmsg), RTA_METRICS);
	if (metrics)
		find_nested(metrics, RTAX_MTU, mtu);
	return NULL;
}

/* Returns the neighbour's state, 0 when it is not known. */
static uint16_t ask_neighbour(struct neigh *n, const struct ip *via, uint32_t ifindex,
			      uint8_t mac[6])
{
	char answer[4096] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *head = (struct nlmsghdr *)(void *)answer;
	struct request r;
	uint16_t state;

	request_init(&r, RTM_GETNEIGH, 0, sizeof(r.neighbour));
	r.neighbour.ndm_family = via->family;
	r.neighbour.ndm_ifindex = (int)ifindex;
	request_add(&r, NDA_DST, via->bytes, ip_len(via));
	if (ask(n, &r, answer, sizeof(answer)) <= 0)
		return 0;
	state = ((const struct ndmsg *)NLMSG_DATA(head))->ndm_state;
	if ((state & NUD_USABLE) && !copy(head, sizeof(struct ndmsg), NDA_LLADDR, mac, 6))
		return 0;
	return state;
}

/* As if a packet were waiting for the neighbour: the kernel asks on the segment. */
static void trigger(struct neigh *n, const struct ip *via, uint32_t ifindex)
{
	char answer[1024] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct request r;

	request_init(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, sizeof(r.neighbour));
	r.neighbour.ndm_family = via->family;
	r.neighbour.ndm_ifindex = (int)ifindex;
	r.neighbour.ndm_flags = NTF_USE;
	request_add(&r, NDA_DST, via->bytes, ip_len(via));
	ask(n, &r, answer, sizeof(answer));
}

/* Our own address on that link, and its MTU. */
static bool ask_link(struct cached_link *link)
{
	CLEANUP(cleanup_close) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	if (fd < 0 || !if_indextoname(link->ifindex, request.ifr_name))
		return false;
	if (ioctl(fd, SIOCGIFMTU, &request) != 0)
		return false;
	link->mtu = (uint16_t)MIN(request.ifr_mtu, UINT16_MAX);
	if (ioctl(fd, SIOCGIFHWADDR, &request) != 0)
		return false;
	memcpy(link->mac, request.ifr_hwaddr.sa_data, sizeof(link->mac));
	return true;
}

static bool find_link(struct neigh *n, struct next_hop *hop)
{
	struct cached_link *link = &n->links[hop->ifindex % LINKS_CACHED];

	if (link->ifindex != hop->ifindex || link->round_ns != loop_now_ns(n->loop)) {
		link->ifindex = hop->ifindex;
		link->round_ns = 0;
		if (!ask_link(link))
			return false;
		link->round_ns = loop_now_ns(n->loop);
	}
	hop->mtu = link->mtu;
	memcpy(hop->source_mac, link->mac, sizeof(hop->source_mac));
	return true;
}

static const char *unresolved(const struct ip *via, uint16_t state)
{
	if (via->family == AF_INET)
		return state & NUD_FAILED ? "does not answer ARP" : "waiting for ARP";
	return state & NUD_FAILED ? "does not answer neighbour discovery"
				  : "waiting for neighbour discovery";
}

static void resolve(struct neigh *n, const struct ip *to, struct next_hop *hop)
{
	uint32_t mtu = 0;
	struct ip via;
	uint16_t state;

	hop->is_resolved = false;
	hop->problem = ask_route(n, to, &via, &hop->ifindex, &mtu);
	if (hop->problem)
		return;
	if (!find_link(n, hop)) {
		hop->problem = "its interface is gone";
		return;
	}
	if (mtu && mtu < hop->mtu)
		hop->mtu = (uint16_t)mtu;
	state = ask_neighbour(n, &via, hop->ifindex, hop->mac);
	hop->is_resolved = state & NUD_USABLE;
	/* A stale entry is used and proven at the same time, so a changed address is noticed. */
	if (!hop->is_resolved || (state & NUD_STALE))
		trigger(n, &via, hop->ifindex);
	if (!hop->is_resolved)
		hop->problem = unresolved(&via, state);
}

void neigh_resolve(struct neigh *n, const struct net_addr *to, struct next_hop *hop)
{
	struct ip ip = ip_of(to);
	uint64_t hash = ip.family, now = loop_now_ns(n->loop), word;
	struct cached_hop *cached;

	for (size_t i = 0; i < sizeof(ip.bytes); i += sizeof(word)) {
		memcpy(&word, ip.bytes + i, sizeof(word));
		hash = hash_mix64(hash + word);
	}
	cached = &n->hops[hash % HOPS_CACHED];
	if (cached->round_ns == now && memcmp(&cached->to, &ip, sizeof(ip)) == 0) {
		*hop = cached->hop;
		return;
	}
	resolve(n, &ip, hop);
	*cached = (struct cached_hop) { .round_ns = now, .to = ip, .hop = *hop };
}
