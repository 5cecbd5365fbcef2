/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of a flood, so many and no more, out of one interface of a lab as fast as it takes them.
 *
 * usage: flood INTERFACE NEXT-HOP-MAC VIP PORT KIND COUNT [CPU]
 * KIND: syn, udp, fragment (later fragments, whose first was never sent), first (first fragments
 * of UDP) or echo. Sources are random in 198.18.0.0/15 (RFC 2544). On a CPU of its own choice the
 * sender does the receiver's work too, and so nothing is lost in a queue between them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <linux/if_packet.h>

#define BATCH     64
#define COUNT_MAX 2000000UL
#define TIME_S    20

enum kind { SYN, UDP, FRAGMENT, FIRST, ECHO, KINDS };
static const char *const kind_names[KINDS] = { "syn", "udp", "fragment", "first", "echo" };

struct frame {
	struct ether_header eth;
	struct iphdr ip;
	union {
		struct tcphdr tcp;
		struct udphdr udp;
		struct icmphdr icmp;
	} u;
} __attribute__((packed));

static uint64_t state = 88172645463325252ULL;

/* xorshift64: the same packets in every run. */
static uint32_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

static uint32_t sum(const void *data, size_t len, uint32_t start)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		start += (uint32_t)(p[i] << 8 | p[i + 1]);
	return start;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return htons((uint16_t)~s);
}

static void fill_transport(struct frame *f, enum kind kind, uint16_t port)
{
	uint32_t pseudo = sum(&f->ip.saddr, 8, 0) + f->ip.protocol;

	memset(&f->u, 0, sizeof(f->u));
	if (kind == ECHO) {
		f->u.icmp.type = ICMP_ECHO;
		f->u.icmp.un.echo.id = (uint16_t)next_random();
		f->u.icmp.checksum = fold(sum(&f->u.icmp, sizeof(f->u.icmp), 0));
	} else if (kind == SYN) {
		f->u.tcp.source = (uint16_t)next_random();
		f->u.tcp.dest = htons(port);
		f->u.tcp.seq = next_random();
		f->u.tcp.doff = 5;
		f->u.tcp.syn = 1;
		f->u.tcp.window = 0xffff;
		pseudo += sizeof(f->u.tcp);
		f->u.tcp.check = fold(sum(&f->u.tcp, sizeof(f->u.tcp), pseudo));
	} else {
		f->u.udp.source = (uint16_t)next_random();
		f->u.udp.dest = htons(port);
		f->u.udp.len = htons(sizeof(f->u.udp));
	}
}

static size_t fill(struct frame *f, enum kind kind, in_addr_t vip, uint16_t port)
{
	static const size_t sizes[KINDS] = { [SYN] = sizeof(struct tcphdr),
					     [UDP] = sizeof(struct udphdr),
					     [FRAGMENT] = sizeof(struct udphdr),
					     [FIRST] = sizeof(struct udphdr),
					     [ECHO] = sizeof(struct icmphdr) };
	uint16_t fragment = kind == FRAGMENT ? 100 : kind == FIRST ? IP_MF : IP_DF;

	f->ip = (struct iphdr) { .version = 4,
				 .ihl = 5,
				 .tot_len = htons((uint16_t)(sizeof(f->ip) + sizes[kind])),
				 .id = (uint16_t)next_random(),
				 .frag_off = htons(fragment),
				 .ttl = 64,
				 .protocol = kind == ECHO  ? IPPROTO_ICMP
					     : kind == SYN ? IPPROTO_TCP
							   : IPPROTO_UDP,
				 .saddr = htonl(0xc6120000U | (next_random() & 0x1ffffU)),
				 .daddr = vip };
	f->ip.check = fold(sum(&f->ip, sizeof(f->ip), 0));
	fill_transport(f, kind, port);
	return sizeof(f->eth) + sizeof(f->ip) + sizes[kind];
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* How many were sent of so many, at most TIME_S long. */
static unsigned long flood(int fd, struct frame *frames, enum kind kind, in_addr_t vip,
			   uint16_t port, unsigned long count)
{
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];
	double end = seconds() + TIME_S;
	unsigned long done = 0;

	while (done < count && seconds() < end) {
		unsigned size = count - done < BATCH ? (unsigned)(count - done) : BATCH;
		int sent;

		for (unsigned i = 0; i < size; i++) {
			parts[i] = (struct iovec) { &frames[i], fill(&frames[i], kind, vip, port) };
			messages[i].msg_hdr = (struct msghdr) { .msg_iov = &parts[i],
								.msg_iovlen = 1 };
		}
		sent = sendmmsg(fd, messages, size, 0);
		if (sent < 0 && errno != ENOBUFS && errno != EAGAIN) {
			perror("flood: sendmmsg");
			exit(1);
		}
		done += sent > 0 ? (unsigned long)sent : 0;
	}
	return done;
}

static int open_socket(const char *interface)
{
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_ifindex = (int)if_nametoindex(interface) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (!to.sll_ifindex || fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
		fprintf(stderr, "flood: %s: %s\n", interface, strerror(errno));
		exit(1);
	}
	return fd;
}

static bool parse_mac(const char *text, uint8_t mac[ETH_ALEN])
{
	return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		      &mac[4], &mac[5]) == ETH_ALEN;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		perror("flood: sched_setaffinity");
}

int main(int argc, char **argv)
{
	struct ether_header eth = { .ether_shost = { 2, 0, 0, 0, 0, 0x66 },
				    .ether_type = htons(ETHERTYPE_IP) };
	static struct frame frames[BATCH];
	unsigned long count, done;
	enum kind kind = SYN;
	in_addr_t vip;
	double began;

	while (argc > 5 && kind < KINDS && strcmp(argv[5], kind_names[kind]) != 0)
		kind++;
	if (argc < 7 || kind == KINDS || !parse_mac(argv[2], eth.ether_dhost) ||
	    inet_pton(AF_INET, argv[3], &vip) != 1) {
		fputs("usage: flood INTERFACE NEXT-HOP-MAC VIP PORT "
		      "syn|udp|fragment|first|echo COUNT [CPU]\n",
		      stderr);
		return 2;
	}
	count = strtoul(argv[6], NULL, 10);
	if (count > COUNT_MAX)
		count = COUNT_MAX;
	if (argc > 7)
		stay_on(atoi(argv[7]));
	for (unsigned i = 0; i < BATCH; i++)
		frames[i].eth = eth;
	began = seconds();
	done = flood(open_socket(argv[1]), frames, kind, vip, (uint16_t)atoi(argv[4]), count);
	printf("%lu %.3f\n", done, seconds() - began);
	return 0;
}
