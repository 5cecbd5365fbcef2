/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/proxy_protocol.h"

#include <errno.h>
#include <string.h>

#include "lib/cleanup.h"

#define V1_MAX       107 /* with its CRLF, the specification's worst case */
#define V2_FIXED     16UL
#define V2_TCP4      0x11
#define V2_TCP6      0x21
#define V2_UNIX      0x31
#define TLV_CHECKSUM 0x03

static const unsigned char signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
					     0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

/* --- version 1: a line of text ------------------------------------------------------------- */

static bool parse_port(struct str text, uint16_t *out)
{
	unsigned value = 0;

	if (text.len == 0 || text.len > 5 || (text.len > 1 && text.p[0] == '0'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text.p[i] - '0');
	}
	*out = (uint16_t)value;
	return value <= UINT16_MAX;
}

static bool parse_address(struct net_addr *out, struct str ip, struct str port, sa_family_t family)
{
	uint16_t number;

	return parse_port(port, &number) && net_parse_ip(out, ip, number) == 0 &&
	       out->sa.sa_family == family;
}

/* "TCP4 source destination port port", single spaces. */
static bool parse_words(struct proxy_header *h, struct str line)
{
	struct str word[5];
	sa_family_t family;

	for (size_t i = 0; i < 5; i++) {
		if (!str_split(&line, ' ', &word[i]))
			return false;
	}
	if (line.len)
		return false;
	if (str_eq(word[0], STR("TCP4")))
		family = AF_INET;
	else if (str_eq(word[0], STR("TCP6")))
		family = AF_INET6;
	else
		return false;
	return parse_address(&h->from, word[1], word[3], family) &&
	       parse_address(&h->to, word[2], word[4], family);
}

static long parse_v1(struct proxy_header *out, const char *data, size_t len)
{
	const char *end = memchr(data, '\n', MIN(len, (size_t)V1_MAX));
	struct proxy_header h = { 0 };
	struct str line;

	if (!end)
		return len < V1_MAX ? -EAGAIN : -EPROTO;
	if (end == data || end[-1] != '\r')
		return -EPROTO;
	line = str_of(data + 6, (size_t)(end - 1 - (data + 6)));
	/* What follows UNKNOWN is to be ignored. */
	h.is_local = str_eq(line, STR("UNKNOWN")) || str_starts(line, STR("UNKNOWN "));
	if (!h.is_local && (line.len == 0 || line.p[line.len - 1] == ' ' || !parse_words(&h, line)))
		return -EPROTO;
	net_unmap(&h.from);
	net_unmap(&h.to);
	*out = h;
	return end + 1 - data;
}

/* --- version 2: binary --------------------------------------------------------------------- */

static size_t be16(const unsigned char *p)
{
	return (size_t)p[0] << 8 | p[1];
}

/* CRC32c bit by bit: rare, and never more than a few kilobytes. */
static uint32_t crc32c(uint32_t crc, const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82f63b78U & -(crc & 1));
	}
	return crc;
}

/* Over the whole header, its own four bytes taken as zero. */
static bool checksum_fits(const unsigned char *header, size_t len, const unsigned char *sum)
{
	static const unsigned char zero[4];
	size_t before = (size_t)(sum - header);
	uint32_t crc = crc32c(UINT32_MAX, header, before);

	crc = crc32c(crc, zero, sizeof(zero));
	crc = ~crc32c(crc, sum + 4, len - before - 4);
	return crc == ((uint32_t)be16(sum) << 16 | (uint32_t)be16(sum + 2));
}

/* Each is a type, a length and as many bytes; together they must fill the rest exactly. */
static bool tlvs_are_sound(const unsigned char *header, size_t len, size_t at)
{
	while (at < len) {
		size_t size;

		if (len - at < 3)
			return false;
		size = be16(header + at + 1);
		if (size > len - at - 3)
			return false;
		if (header[at] == TLV_CHECKSUM &&
		    (size != 4 || !checksum_fits(header, len, header + at + 3)))
			return false;
		at += 3 + size;
	}
	return true;
}

static void set_ipv4(struct net_addr *out, const unsigned char *ip, const unsigned char *port)
{
	*out = (struct net_addr) { .in = { .sin_family = AF_INET }, .len = sizeof(out->in) };
	memcpy(&out->in.sin_addr, ip, 4);
	memcpy(&out->in.sin_port, port, 2);
}

static void set_ipv6(struct net_addr *out, const unsigned char *ip, const unsigned char *port)
{
	*out = (struct net_addr) { .in6 = { .sin6_family = AF_INET6 }, .len = sizeof(out->in6) };
	memcpy(&out->in6.sin6_addr, ip, 16);
	memcpy(&out->in6.sin6_port, port, 2);
	net_unmap(out);
}

/* Fills in the addresses; how many bytes they take, or -EPROTO for what TCP cannot carry. */
static long parse_v2_addresses(struct proxy_header *h, unsigned family, const unsigned char *p,
			       size_t len)
{
	switch (family) {
	case 0:
		/* UNSPEC: all that follows is to be ignored. */
		h->is_local = true;
		return (long)len;
	case V2_TCP4:
		if (len < 12)
			return -EPROTO;
		set_ipv4(&h->from, p, p + 8);
		set_ipv4(&h->to, p + 4, p + 10);
		return 12;
	case V2_TCP6:
		if (len < 36)
			return -EPROTO;
		set_ipv6(&h->from, p, p + 32);
		set_ipv6(&h->to, p + 16, p + 34);
		return 36;
	case V2_UNIX:
		h->is_local = true;
		return len < 216 ? -EPROTO : 216;
	default:
		return -EPROTO;
	}
}

static long parse_v2(struct proxy_header *out, const unsigned char *data, size_t len)
{
	struct proxy_header h = { 0 };
	size_t total;
	long taken;

	/* Nonsense is told as soon as it is there, not when as much as it announces has come. */
	if (len > 12 && data[12] != 0x20 && data[12] != 0x21)
		return -EPROTO;
	if (len < V2_FIXED)
		return -EAGAIN;
	total = V2_FIXED + be16(data + 14);
	if (total > PROXY_HEADER_MAX)
		return -EPROTO;
	if (len < total)
		return -EAGAIN;
	if (data[12] == 0x20) {
		h.is_local = true;
	} else {
		taken = parse_v2_addresses(&h, data[13], data + V2_FIXED, total - V2_FIXED);
		if (taken < 0 || !tlvs_are_sound(data, total, V2_FIXED + (size_t)taken))
			return -EPROTO;
	}
	*out = h;
	return (long)total;
}

long proxy_header_parse(struct proxy_header *out, const void *data, size_t len)
{
	if (memcmp(data, signature, MIN(len, sizeof(signature))) == 0)
		return len < sizeof(signature) ? -EAGAIN : parse_v2(out, data, len);
	if (memcmp(data, "PROXY ", MIN(len, (size_t)6)) == 0)
		return len < 6 ? -EAGAIN : parse_v1(out, data, len);
	return -EPROTO;
}
