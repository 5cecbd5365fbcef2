/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/probe.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "nlb/probe_frame.h"

#define SOURCES_FOR_MS 2000
#define GUE_PORT_BASE  0xc000
#define GUE_PORT_MASK  0x3fff

struct prober {
	struct loop *loop;
	const struct loader *loader;
	struct loop_io in4, in6; /* what comes back */
	int out_fd;
	int port_fd[PROBE_PORTS];
	uint16_t port[PROBE_PORTS];
	struct hmap attempts;
	struct net_addr source[2]; /* IPv4, IPv6; len 0: none */
	uint64_t sources_at_ms;
};

/* --- our own ports -----------------------------------------------------------------------------
 */

static int attach_filter(int fd, struct sock_filter *code, size_t len)
{
	struct sock_fprog program = { .len = (unsigned short)len, .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0
		       ? 0
		       : -errno;
}

/*
 * Takes a TCP port that answers to nothing. Without an owner of the port the kernel would answer
 * the VIP's SYN-ACK with a reset, outside the tunnel, and some other connection of this host could
 * have the port. A listener whose filter drops everything is silent; we read on a packet socket.
 */
static int take_port(uint16_t *port)
{
	struct sock_filter nothing[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct net_addr addr = { .in6.sin6_family = AF_INET6, .len = sizeof(addr.in6) };
	CLEANUP(cleanup_close)
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int off = 0, rc;

	if (fd < 0) { /* a kernel without IPv6 */
		addr = (struct net_addr) { .in.sin_family = AF_INET, .len = sizeof(addr.in) };
		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	} else {
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	}
	if (fd < 0)
		return -errno;
	rc = attach_filter(fd, nothing, ARRAY_SIZE(nothing));
	if (rc)
		return rc;
	if (bind(fd, &addr.sa, addr.len) != 0 || listen(fd, 1) != 0 ||
	    getsockname(fd, &addr.sa, &addr.len) != 0)
		return -errno;
	*port = net_port(&addr);
	return TAKE_FD(fd);
}

/* --- what comes back ---------------------------------------------------------------------------
 */

static int send_frame(const struct probe *probe, uint16_t source_port, uint32_t sequence,
		      uint8_t flags);

static struct probe_attempt *find_attempt(struct prober *p, const struct probe_answer *a)
{
	uint32_t sequence = a->acknowledged - 1;

	for (struct hmap_node *n = hmap_first(&p->attempts, sequence); n; n = hmap_next(n)) {
		struct probe_attempt *attempt = container_of(n, struct probe_attempt, node);
		size_t i = (size_t)(attempt - attempt->probe->attempt);

		if (net_addr_eq(&attempt->probe->vip, &a->from) && p->port[i] == net_port(&a->to))
			return attempt;
	}
	return NULL;
}

static void forget(struct prober *p, struct probe_attempt *attempt)
{
	if (attempt->has_sequence)
		hmap_remove(&p->attempts, &attempt->node);
	attempt->has_sequence = false;
}

static void take_answer(struct prober *p, const uint8_t *packet, size_t len)
{
	struct probe_attempt *attempt;
	struct probe_answer answer;
	struct probe *probe;
	bool is_latest, is_reset;

	if (probe_answer_parse(&answer, packet, len) != 0 || !(answer.flags & PROBE_ACK))
		return;
	attempt = find_attempt(p, &answer);
	if (!attempt)
		return;
	probe = attempt->probe;
	is_reset = answer.flags & PROBE_RST;
	if (!is_reset && !(answer.flags & PROBE_SYN))
		return;
	is_latest = probe->is_waiting && attempt == &probe->attempt[probe->latest];
	/* Half a connection is not left to the gateway, which would repeat its answer for a minute.
	 */
	if (!is_reset)
		send_frame(probe, net_port(&answer.to), attempt->sequence + 1, PROBE_RST);
	else
		forget(p, attempt);
	if (!is_latest)
		return;
	probe->is_waiting = false;
	probe->on_answer(probe, is_reset ? PROBE_REFUSED : PROBE_ACCEPTED);
}

static void receive(struct prober *p, const struct loop_io *io)
{
	uint8_t packet[256];
	ssize_t len;

	while ((len = recv(io->fd, packet, sizeof(packet), MSG_DONTWAIT)) > 0)
		take_answer(p, packet, (size_t)len);
}

static void on_packet4(struct loop_io *io, uint32_t events)
{
	(void)events;
	receive(container_of(io, struct prober, in4), io);
}

static void on_packet6(struct loop_io *io, uint32_t events)
{
	(void)events;
	receive(container_of(io, struct prober, in6), io);
}

/* The rest of a filter: the 16-bit load at `code[at]` was of the destination port. */
static size_t filter_ports(struct sock_filter *code, size_t at, const struct prober *p)
{
	for (uint8_t i = 0; i < PROBE_PORTS; i++)
		code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, p->port[i],
							  PROBE_PORTS - i, 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
	return at;
}

/* Only TCP to our ports wakes us; everything else that this host receives stays in the kernel. */
static int filter_in4(const struct prober *p)
{
	struct sock_filter code[32] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9), /* protocol */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), /* header length */
		BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),  /* destination port */
	};

	return attach_filter(p->in4.fd, code, filter_ports(code, 5, p));
}

static int filter_in6(const struct prober *p)
{
	struct sock_filter code[32] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6), /* next header */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 40 + 2), /* destination port */
	};

	return attach_filter(p->in6.fd, code, filter_ports(code, 4, p));
}

/* --- what goes out -----------------------------------------------------------------------------
 */

/* Better the higher: 0 means no answer could come there. */
static int source_rank(const struct ifaddrs *it, const char *interface)
{
	const struct sockaddr_in6 *in6 = (const void *)it->ifa_addr;
	const struct sockaddr_in6 *mask6 = (const void *)it->ifa_netmask;
	const struct sockaddr_in *mask = (const void *)it->ifa_netmask;
	bool is_single;

	if (!it->ifa_addr || !mask || (it->ifa_flags & IFF_LOOPBACK))
		return 0;
	if (it->ifa_addr->sa_family == AF_INET)
		is_single = mask->sin_addr.s_addr == UINT32_MAX;
	else if (it->ifa_addr->sa_family == AF_INET6 && !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
		is_single = mask6->sin6_addr.s6_addr[15] == 0xff;
	else
		return 0;
	/* A single address may be a VIP, which other hosts have as well. */
	return 1 + (strcmp(it->ifa_name, interface) == 0) * 2 + !is_single;
}

static void find_sources(struct prober *p)
{
	struct ifaddrs *all;
	int best[2] = { 0, 0 };

	p->sources_at_ms = loop_now_ms(p->loop);
	p->source[0].len = p->source[1].len = 0;
	if (getifaddrs(&all) != 0)
		return;
	for (const struct ifaddrs *it = all; it; it = it->ifa_next) {
		int rank = source_rank(it, p->loader->pins.interface);
		bool is6 = rank && it->ifa_addr->sa_family == AF_INET6;

		if (rank <= best[is6])
			continue;
		best[is6] = rank;
		p->source[is6].len = is6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
		memcpy(&p->source[is6].un, it->ifa_addr, p->source[is6].len);
	}
	freeifaddrs(all);
}

/* As the forwarding program has it, bits that follow the flow included. */
static void outer_source(const struct prober *p, bool is6, struct net_addr *out)
{
	struct nlb_config config = { 0 };
	uint32_t zero = 0, vary;

	bpf_map_lookup_elem(p->loader->maps.config, &zero, &config);
	vary = config.source_vary[is6] & (uint32_t)random_fast();
	*out = (struct net_addr) { 0 };
	if (is6) {
		out->in6.sin6_family = AF_INET6;
		memcpy(&out->in6.sin6_addr, config.source[1], 16);
		out->in6.sin6_addr.s6_addr32[3] |= vary;
	} else {
		out->in.sin_family = AF_INET;
		memcpy(&out->in.sin_addr, config.source[0], 4);
		out->in.sin_addr.s_addr |= vary;
	}
}

static int send_frame(const struct probe *probe, uint16_t source_port, uint32_t sequence,
		      uint8_t flags)
{
	const struct prober *p = probe->prober;
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_ifindex = (int)probe->hop->ifindex,
				  .sll_halen = ETH_ALEN };
	struct probe_frame f = {
		.gateway = probe->gateway,
		.source = p->source[probe->vip.sa.sa_family == AF_INET6],
		.vip = probe->vip,
		.encap = probe->encap,
		.sequence = sequence,
		.gue_port = (uint16_t)(GUE_PORT_BASE | (random_fast() & GUE_PORT_MASK)),
		.flags = flags,
	};
	uint8_t frame[PROBE_FRAME_MAX];
	size_t len;

	f.source.in.sin_port = htons(source_port);
	memcpy(f.to_mac, probe->hop->mac, ETH_ALEN);
	memcpy(f.from_mac, probe->hop->source_mac, ETH_ALEN);
	if (probe->encap != NLB_ENCAP_L2)
		outer_source(p, probe->gateway.sa.sa_family == AF_INET6, &f.outer_source);
	len = probe_frame_write(frame, &f);
	memcpy(to.sll_addr, f.to_mac, ETH_ALEN);
	to.sll_protocol = htons((uint16_t)(frame[12] << 8 | frame[13]));
	if (sendto(p->out_fd, frame, len, MSG_DONTWAIT, (const struct sockaddr *)&to, sizeof(to)) <
	    0)
		return -errno;
	return 0;
}

/*
 * A port asks with one sequence as long as nobody resets it. If the gateway has half a connection
 * of it still, because its answer or our reset was lost, then this is the same SYN once more, which
 * is answered; one with another sequence would not be, for the minute that the half lasts.
 */
static int draw_sequence(struct prober *p, struct probe_attempt *attempt, struct probe *probe)
{
	int rc;

	if (attempt->has_sequence)
		return 0;
	attempt->probe = probe;
	random_bytes(&attempt->sequence, sizeof(attempt->sequence));
	rc = hmap_insert(&p->attempts, &attempt->node, attempt->sequence);
	attempt->has_sequence = rc == 0;
	return rc;
}

int probe_send(struct probe *probe, struct prober *p)
{
	unsigned i = (probe->latest + 1) % PROBE_PORTS;
	struct probe_attempt *attempt = &probe->attempt[i];
	int rc;

	probe->prober = p;
	if (!p->sources_at_ms || loop_now_ms(p->loop) - p->sources_at_ms > SOURCES_FOR_MS)
		find_sources(p);
	if (!p->source[probe->vip.sa.sa_family == AF_INET6].len)
		return -EADDRNOTAVAIL;
	rc = draw_sequence(p, attempt, probe);
	if (rc)
		return rc;
	probe->latest = i;
	rc = send_frame(probe, p->port[i], attempt->sequence, PROBE_SYN);
	probe->is_waiting = rc == 0;
	return rc;
}

void probe_give_up(struct probe *probe)
{
	probe->is_waiting = false;
}

void probe_stop(struct probe *probe)
{
	probe->is_waiting = false;
	for (unsigned i = 0; i < PROBE_PORTS && probe->prober; i++)
		forget(probe->prober, &probe->attempt[i]);
}

/* --- start and end -----------------------------------------------------------------------------
 */

static int open_in(struct prober *p, struct loop_io *io, uint16_t protocol)
{
	/* Without a protocol nothing is received before the filter is in place. */
	struct sockaddr_ll addr = { .sll_family = AF_PACKET, .sll_protocol = htons(protocol) };
	int rc;

	io->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (io->fd < 0)
		return -errno;
	rc = protocol == ETH_P_IPV6 ? filter_in6(p) : filter_in4(p);
	if (!rc && bind(io->fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0)
		rc = -errno;
	return rc ? rc : loop_io_add(p->loop, io, EPOLLIN);
}

int prober_new(struct prober **out, struct loop *loop, const struct loader *loader, struct err *err)
{
	struct prober *p = calloc(1, sizeof(*p));
	int rc = 0;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->loop = loop;
	p->loader = loader;
	p->in4 = (struct loop_io) { .fd = -1, .on_event = on_packet4 };
	p->in6 = (struct loop_io) { .fd = -1, .on_event = on_packet6 };
	p->out_fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->out_fd < 0)
		rc = -errno;
	for (int i = 0; i < PROBE_PORTS; i++)
		p->port_fd[i] = -1;
	for (int i = 0; i < PROBE_PORTS && !rc; i++) {
		p->port_fd[i] = take_port(&p->port[i]);
		rc = MIN(p->port_fd[i], 0);
	}
	if (!rc)
		rc = open_in(p, &p->in4, ETH_P_IP);
	if (!rc)
		rc = open_in(p, &p->in6, ETH_P_IPV6);
	if (rc == 0) {
		*out = p;
		return 0;
	}
	prober_free(&p);
	if (rc == -EPERM || rc == -EACCES)
		return err_set(
			err, rc,
			"checks through the tunnel need CAP_NET_RAW when nlbd starts; run it "
			"as root, or set \"tunnel\": false in every \"health\"");
	return err_set(err, rc, "sockets for checks through the tunnel: %s", strerror(-rc));
}

void prober_free(struct prober **pp)
{
	struct prober *p = TAKE_PTR(*pp);
	struct loop_io *in[2];

	if (!p)
		return;
	in[0] = &p->in4;
	in[1] = &p->in6;
	for (size_t i = 0; i < ARRAY_SIZE(in); i++) {
		if (in[i]->fd < 0)
			continue;
		loop_io_remove(p->loop, in[i]);
		close(in[i]->fd);
	}
	for (int i = 0; i < PROBE_PORTS; i++)
		cleanup_close(&p->port_fd[i]);
	cleanup_close(&p->out_fd);
	hmap_fini(&p->attempts);
	free(p);
}
