/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/nlb/packet.h"

#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "bpf/nlb_abi.h"

enum { LINK_LEN = 14, IPV4_LEN = 20, IPV6_LEN = 40 };

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static void address6(uint8_t out[16], uint32_t v)
{
	memset(out, 0, 16);
	put32(out, 0x20010db8);
	put32(out + 12, v);
}

static void address4(uint8_t out[16], uint32_t v)
{
	memset(out, 0, 16);
	put32(out, v);
}

void vip_address(uint8_t out[16], enum vip vip)
{
	uint32_t v = 0xcb007100U + (uint32_t)vip;

	if (vips[vip].family == 6)
		address6(out, v);
	else
		address4(out, v);
}

void gateway_address(uint8_t out[16], uint32_t id)
{
	if (id > GATEWAYS)
		address6(out, 0x0a000014U + id);
	else
		address4(out, 0x0a000014U + id);
}

void nlb_address(uint8_t out[16], uint8_t family)
{
	if (family == 6)
		address6(out, 0x0a000002);
	else
		address4(out, 0x0a000002);
}

static void put_ipv4(uint8_t *p, uint32_t len, uint8_t protocol, const uint8_t *source,
		     const uint8_t *destination)
{
	uint32_t sum = 0;

	p[0] = 0x45;
	put16(p + 2, len);
	p[6] = 0x40;
	p[8] = 64;
	p[9] = protocol;
	memcpy(p + 12, source, 4);
	memcpy(p + 16, destination, 4);
	for (int i = 0; i < IPV4_LEN; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	put16(p + 10, ~(sum + (sum >> 16)));
}

static void put_ipv6(uint8_t *p, uint32_t payload_len, uint8_t protocol, const uint8_t *source,
		     const uint8_t *destination)
{
	p[0] = 0x60;
	put16(p + 4, payload_len);
	p[6] = protocol;
	p[7] = 64;
	memcpy(p + 8, source, 16);
	memcpy(p + 24, destination, 16);
}

static void put_l4(uint8_t *p, uint32_t len, uint8_t protocol, uint8_t flags, uint32_t source_port,
		   uint32_t port)
{
	put16(p, source_port);
	put16(p + 2, port);
	if (protocol == IPPROTO_UDP) {
		put16(p + 4, len);
		return;
	}
	p[12] = 5 << 4;
	p[13] = flags;
}

static void make_plain(uint8_t *p, const struct bench_case *c)
{
	const struct vip_spec *v = &vips[c->vip];
	uint32_t header_len = v->family == 6 ? IPV6_LEN : IPV4_LEN;
	uint32_t l4_len = c->size - LINK_LEN - header_len;
	uint8_t source[16], vip[16];

	vip_address(vip, c->vip);
	if (v->family == 6) {
		address6(source, SOURCE);
		put16(p + 12, 0x86dd);
		put_ipv6(p + LINK_LEN, l4_len, v->protocol, source, vip);
	} else {
		address4(source, SOURCE);
		put16(p + 12, 0x0800);
		put_ipv4(p + LINK_LEN, header_len + l4_len, v->protocol, source, vip);
	}
	put_l4(p + LINK_LEN + header_len, l4_len, v->protocol, c->flags, 1024, SERVICE_PORT);
}

/* GUE with second choices: two addresses, as the load balancer names them. */
static uint32_t put_gue(uint8_t *p, uint32_t len, bool has_second)
{
	uint32_t words = has_second ? 3 : 0;
	uint8_t hop[16];

	put16(p, 0xc123);
	put16(p + 2, NLB_GUE_PORT);
	put16(p + 4, len);
	p[8] = (uint8_t)words;
	p[9] = IPPROTO_IPIP;
	if (has_second) {
		p[12] = NLB_GUE_PRIVATE_TYPE;
		p[14] = 2;
		p[15] = 4;
		for (uint32_t i = 0; i < 2; i++) {
			gateway_address(hop, 2 + i);
			memcpy(p + 16 + (size_t)4 * i, hop, 4);
		}
	}
	return (uint32_t)sizeof(struct nlb_gue) + 8 + words * 4;
}

/* What is inside is a packet of the local connection. */
static void make_tunnelled(uint8_t *p, const struct bench_case *c,
			   const struct local_connection *local)
{
	static const uint8_t self[4] = { 127, 0, 0, 1 };
	bool is_gue = c->tunnel != TUNNEL_IPIP;
	uint32_t len = c->size - LINK_LEN;
	uint8_t source[16], gateway[16];
	uint8_t *at = p + LINK_LEN;

	nlb_address(source, 4);
	gateway_address(gateway, 1);
	put16(p + 12, 0x0800);
	put_ipv4(at, len, is_gue ? IPPROTO_UDP : IPPROTO_IPIP, source, gateway);
	at += IPV4_LEN;
	if (is_gue)
		at += put_gue(at, len - IPV4_LEN, c->tunnel == TUNNEL_GUE_SECOND);
	len = (uint32_t)(p + c->size - at);
	put_ipv4(at, len, IPPROTO_TCP, self, self);
	put_l4(at + IPV4_LEN, len - IPV4_LEN, IPPROTO_TCP, c->flags, local->client_port,
	       local->service_port);
}

void make_packet(uint8_t *out, const struct bench_case *c, const struct local_connection *local)
{
	memset(out, 0, c->size);
	memset(out, 2, 12);
	if (c->tunnel != TUNNEL_NONE)
		make_tunnelled(out, c, local);
	else
		make_plain(out, c);
}
