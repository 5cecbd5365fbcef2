/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether what is sent to the gateways arrives: echo requests as long as the longest packet of a
 * tunnel, beside short ones.
 */
#include "nlb/doctor.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "nlb/explain.h"

#define CLIENT_MTU   1500
#define PACKET_MAX   9216
#define SHORT_LEN    64 /* of the whole IP packet */
#define ROUNDS       3
#define ROUND_MS     400
#define GATEWAYS_MAX 4096

enum { SHORT, LONG, SIZES };

/* One gateway's answers. */
struct way {
	const struct doctor_gateway *gw;
	uint16_t len[SIZES];
	bool has_answered[SIZES];
};

struct path {
	int fd[2]; /* IPv4, IPv6; -1: not to be had */
	uint16_t id;
	struct way *ways;
	size_t count;
};

static bool is_ipv6(const struct way *w)
{
	return w->gw->address.sa.sa_family == AF_INET6;
}

static uint16_t checksum(const uint8_t *bytes, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)bytes[i] << 8 | (i + 1 < len ? bytes[i + 1] : 0);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* Never fragmented, and sent however small the kernel believes the path to be. */
static int open_socket(int family)
{
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	const int probe = IP_PMTUDISC_PROBE, room = 4 << 20;

	_Static_assert(IP_PMTUDISC_PROBE == IPV6_PMTUDISC_PROBE, "one number for both");

	if (fd < 0)
		return -1;
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof(probe));
	else
		setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof(probe));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	return fd;
}

/* The sequence number says whose answer it is: gateways are few enough. */
static void send_one(const struct path *p, size_t i, int size)
{
	const struct way *w = &p->ways[i];
	size_t len = w->len[size] - (is_ipv6(w) ? 40U : 20U);
	uint8_t packet[PACKET_MAX] = { 0 };
	struct icmphdr icmp = { .type = is_ipv6(w) ? ICMP6_ECHO_REQUEST : ICMP_ECHO };

	icmp.un.echo.id = htons(p->id);
	icmp.un.echo.sequence = htons((uint16_t)(i * SIZES + (size_t)size));
	memcpy(packet, &icmp, sizeof(icmp));
	if (!is_ipv6(w)) {
		icmp.checksum = checksum(packet, len);
		memcpy(packet, &icmp, sizeof(icmp));
	}
	/* What cannot be sent is not answered either, and that is what counts. */
	(void)!sendto(p->fd[is_ipv6(w)], packet, len, 0, &w->gw->address.sa, w->gw->address.len);
}

static void take_answer(struct path *p, const uint8_t *packet, size_t len, bool is_v6)
{
	size_t header = is_v6 || len < 1 ? 0 : (size_t)(packet[0] & 15) * 4;
	struct icmphdr icmp;
	uint16_t sequence;

	if (len < header + sizeof(icmp))
		return;
	memcpy(&icmp, packet + header, sizeof(icmp));
	sequence = ntohs(icmp.un.echo.sequence);
	if (icmp.type != (is_v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) ||
	    ntohs(icmp.un.echo.id) != p->id || sequence >= p->count * SIZES)
		return;
	p->ways[sequence / SIZES].has_answered[sequence % SIZES] = true;
}

static void receive(struct path *p, uint64_t until_ms)
{
	struct pollfd fds[2] = { { .fd = p->fd[0], .events = POLLIN },
				 { .fd = p->fd[1], .events = POLLIN } };
	uint8_t packet[PACKET_MAX];
	uint64_t now;

	while ((now = clock_mono_ms()) < until_ms) {
		bool is_complete = true;

		for (size_t i = 0; i < p->count; i++)
			is_complete &= p->ways[i].has_answered[SHORT] &&
				       p->ways[i].has_answered[LONG];
		if (is_complete || poll(fds, 2, (int)(until_ms - now)) <= 0)
			return;
		for (int v6 = 0; v6 < 2; v6++) {
			ssize_t len;

			while (fds[v6].fd >= 0 &&
			       (len = recv(fds[v6].fd, packet, sizeof(packet), 0)) > 0)
				take_answer(p, packet, (size_t)len, v6);
		}
	}
}

static void ask_all(struct path *p)
{
	for (int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < p->count; i++) {
			for (int size = 0; size < SIZES; size++) {
				if (p->fd[is_ipv6(&p->ways[i])] >= 0 &&
				    !p->ways[i].has_answered[size])
					send_one(p, i, size);
			}
		}
		receive(p, clock_mono_ms() + ROUND_MS);
	}
}

static void report(struct doctor *d, const struct path *p)
{
	size_t good = 0, silent = 0;
	const struct way *first_silent = NULL;
	char remedy[DOCTOR_REMEDY_LEN];

	for (size_t i = 0; i < p->count; i++) {
		const struct way *w = &p->ways[i];

		if (w->has_answered[LONG]) {
			good++;
			continue;
		}
		if (!w->has_answered[SHORT]) {
			silent++;
			first_silent = first_silent ?: w;
			continue;
		}
		doctor_text(remedy,
			    "ip link set dev INTERFACE mtu %u on %s and on everything between",
			    w->len[LONG], w->gw->name);
		doctor_found(d, DOCTOR_BAD, "path", remedy,
			     "packets of %u bytes do not reach %s, short ones do: something on the "
			     "way has a smaller MTU",
			     w->len[LONG], w->gw->name);
	}
	if (good)
		doctor_good(d, "path", "packets as long as tunnels make them reach %zu of %zu",
			    good, p->count);
	if (first_silent)
		doctor_unknown(d, "path", "%zu answer no echo requests, such as %s", silent,
			       first_silent->gw->name);
}

static bool is_listed_before(const struct doctor_gateway *gateways, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		if (net_addr_eq(&gateways[k].address, &gateways[i].address))
			return true;
	}
	return false;
}

void doctor_check_path(struct doctor *d, const struct doctor_gateway *gateways, size_t count)
{
	CLEANUP(cleanup_close) int v4 = open_socket(AF_INET);
	CLEANUP(cleanup_close) int v6 = open_socket(AF_INET6);
	CLEANUP(cleanup_free) struct way *ways = calloc(count + 1, sizeof(*ways));
	struct path p = { .fd = { v4, v6 }, .id = (uint16_t)getpid(), .ways = ways };

	if (v4 < 0 && v6 < 0) {
		doctor_unknown(d, "path", "cannot try it (needs root)");
		return;
	}
	for (size_t i = 0; ways && i < count && p.count < GATEWAYS_MAX; i++) {
		uint32_t overhead, longest,
			family = gateways[i].address.sa.sa_family == AF_INET6 ? 6 : 4;
		struct way *w = &ways[p.count];

		if (!gateways[i].mtu || is_listed_before(gateways, i))
			continue;
		overhead = explain_overhead(gateways[i].encap, (uint8_t)family, 2);
		*w = (struct way) { .gw = &gateways[i], .len = { [SHORT] = SHORT_LEN } };
		longest = MIN(gateways[i].mtu, (uint32_t)PACKET_MAX);
		w->len[LONG] = (uint16_t)MIN(CLIENT_MTU + overhead, longest);
		if (w->len[LONG] > SHORT_LEN)
			p.count++;
	}
	ask_all(&p);
	report(d, &p);
}
