/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/probe_frame.h"

#include <errno.h>
#include <string.h>

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define TTL            64
#define WINDOW         1024
#define OPTION_MSS     2
#define OPTION_MSS_LEN 4
#define MSS            1220 /* fits whatever the tunnel's path is; no data ever follows */

/* --- checksums (RFC 1071) --------------------------------------------------------------------- */

static uint32_t sum_words(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	return len % 2 ? sum + (uint32_t)(p[len - 1] << 8) : sum;
}

static uint16_t sum_finish(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static bool is_ipv6(const struct net_addr *a)
{
	return a->sa.sa_family == AF_INET6;
}

static const void *address_bytes(const struct net_addr *a, size_t *len)
{
	*len = is_ipv6(a) ? sizeof(a->in6.sin6_addr) : sizeof(a->in.sin_addr);
	return is_ipv6(a) ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr;
}

static uint16_t transport_checksum(const struct net_addr *from, const struct net_addr *to,
				   uint8_t protocol, const void *segment, size_t len)
{
	size_t address_len;
	const void *address = address_bytes(from, &address_len);
	uint32_t sum = (uint32_t)protocol + (uint32_t)len;

	sum = sum_words(sum, address, address_len);
	address = address_bytes(to, &address_len);
	sum = sum_words(sum, address, address_len);
	return sum_finish(sum_words(sum, segment, len));
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Fills the frame from its end, so that every header knows what it carries. */
struct back {
	uint8_t bytes[PROBE_FRAME_MAX];
	size_t at; /* what is written so far begins here */
};

static void *back_push(struct back *b, size_t len)
{
	b->at -= len;
	return memset(b->bytes + b->at, 0, len);
}

static size_t back_len(const struct back *b)
{
	return sizeof(b->bytes) - b->at;
}

static void push_tcp(struct back *b, const struct probe_frame *f)
{
	size_t options = f->flags & PROBE_SYN ? OPTION_MSS_LEN : 0;
	size_t len = sizeof(struct tcphdr) + options;
	struct tcphdr *tcp = back_push(b, len);
	uint8_t *option = (uint8_t *)(tcp + 1);

	tcp->source = f->source.in.sin_port;
	tcp->dest = f->vip.in.sin_port;
	tcp->seq = htonl(f->sequence);
	tcp->doff = options ? 6 : 5;
	tcp->syn = !!(f->flags & PROBE_SYN);
	tcp->rst = !!(f->flags & PROBE_RST);
	tcp->window = f->flags & PROBE_SYN ? htons(WINDOW) : 0;
	if (options) {
		option[0] = OPTION_MSS;
		option[1] = OPTION_MSS_LEN;
		option[2] = MSS >> 8;
		option[3] = MSS & 0xff;
	}
	tcp->check = transport_checksum(&f->source, &f->vip, IPPROTO_TCP, tcp, len);
}

static void push_ip(struct back *b, const struct net_addr *from, const struct net_addr *to,
		    uint8_t protocol)
{
	size_t payload = back_len(b);

	if (is_ipv6(to)) {
		struct ipv6hdr *ip = back_push(b, sizeof(*ip));

		ip->version = 6;
		ip->payload_len = htons((uint16_t)payload);
		ip->nexthdr = protocol;
		ip->hop_limit = TTL;
		memcpy(&ip->saddr, &from->in6.sin6_addr, sizeof(ip->saddr));
		memcpy(&ip->daddr, &to->in6.sin6_addr, sizeof(ip->daddr));
	} else {
		struct iphdr *ip = back_push(b, sizeof(*ip));

		ip->version = 4;
		ip->ihl = sizeof(*ip) / 4;
		ip->tot_len = htons((uint16_t)(sizeof(*ip) + payload));
		ip->frag_off = htons(0x4000); /* don't fragment */
		ip->ttl = TTL;
		ip->protocol = protocol;
		ip->saddr = from->in.sin_addr.s_addr;
		ip->daddr = to->in.sin_addr.s_addr;
		ip->check = sum_finish(sum_words(0, ip, sizeof(*ip)));
	}
}

static void push_gue(struct back *b, const struct probe_frame *f, uint8_t inner)
{
	struct nlb_gue *gue = back_push(b, sizeof(*gue));
	struct udphdr *udp;

	gue->protocol = inner;
	udp = back_push(b, sizeof(*udp));
	udp->source = htons(f->gue_port);
	udp->dest = htons(NLB_GUE_PORT);
	udp->len = htons((uint16_t)back_len(b));
	/* No checksum, as the forwarding program sends it (RFC 6935 for IPv6): the inner packet has
	 * its own. */
}

size_t probe_frame_write(uint8_t out[static PROBE_FRAME_MAX], const struct probe_frame *f)
{
	struct back b = { .at = sizeof(b.bytes) };
	uint8_t inner = is_ipv6(&f->vip) ? IPPROTO_IPV6 : IPPROTO_IPIP;
	bool leaves_as_ipv6 = is_ipv6(f->encap == NLB_ENCAP_L2 ? &f->vip : &f->gateway);
	struct ethhdr *eth;

	push_tcp(&b, f);
	push_ip(&b, &f->source, &f->vip, IPPROTO_TCP);
	if (f->encap == NLB_ENCAP_GUE)
		push_gue(&b, f, inner);
	if (f->encap != NLB_ENCAP_L2)
		push_ip(&b, &f->outer_source, &f->gateway,
			f->encap == NLB_ENCAP_GUE ? IPPROTO_UDP : inner);
	eth = back_push(&b, sizeof(*eth));
	memcpy(eth->h_dest, f->to_mac, ETH_ALEN);
	memcpy(eth->h_source, f->from_mac, ETH_ALEN);
	eth->h_proto = htons(leaves_as_ipv6 ? ETH_P_IPV6 : ETH_P_IP);
	memcpy(out, b.bytes + b.at, back_len(&b));
	return back_len(&b);
}

/* --- reading ---------------------------------------------------------------------------------- */

int probe_answer_parse(struct probe_answer *out, const uint8_t *packet, size_t len)
{
	struct probe_answer a = { 0 };
	struct tcphdr tcp;
	size_t header;

	if (len < sizeof(struct iphdr))
		return -EBADMSG;
	if (packet[0] >> 4 == 4) {
		struct iphdr ip;

		memcpy(&ip, packet, sizeof(ip));
		header = ip.ihl * 4UL;
		if (ip.protocol != IPPROTO_TCP || header < sizeof(ip) ||
		    (ip.frag_off & htons(0x3fff)))
			return -EBADMSG;
		a.from.in.sin_family = a.to.in.sin_family = AF_INET;
		a.from.len = a.to.len = sizeof(a.from.in);
		a.from.in.sin_addr.s_addr = ip.saddr;
		a.to.in.sin_addr.s_addr = ip.daddr;
	} else {
		struct ipv6hdr ip;

		header = sizeof(ip);
		if (packet[0] >> 4 != 6 || len < header)
			return -EBADMSG;
		memcpy(&ip, packet, sizeof(ip));
		if (ip.nexthdr != IPPROTO_TCP)
			return -EBADMSG;
		a.from.in6.sin6_family = a.to.in6.sin6_family = AF_INET6;
		a.from.len = a.to.len = sizeof(a.from.in6);
		memcpy(&a.from.in6.sin6_addr, &ip.saddr, sizeof(ip.saddr));
		memcpy(&a.to.in6.sin6_addr, &ip.daddr, sizeof(ip.daddr));
	}
	if (len < header + sizeof(tcp))
		return -EBADMSG;
	memcpy(&tcp, packet + header, sizeof(tcp));
	a.from.in.sin_port = tcp.source;
	a.to.in.sin_port = tcp.dest;
	a.acknowledged = ntohl(tcp.ack_seq);
	a.flags = (uint8_t)((tcp.syn ? PROBE_SYN : 0) | (tcp.rst ? PROBE_RST : 0) |
			    (tcp.ack ? PROBE_ACK : 0));
	*out = a;
	return 0;
}
