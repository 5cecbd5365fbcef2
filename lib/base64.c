/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base64.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Value plus one; 0: not in the alphabet. */
#define V(c) [(unsigned char)(c)]
static const uint8_t values[256] = {
	V('A') = 1,  V('B') = 2,  V('C') = 3,  V('D') = 4,  V('E') = 5,  V('F') = 6,  V('G') = 7,
	V('H') = 8,  V('I') = 9,  V('J') = 10, V('K') = 11, V('L') = 12, V('M') = 13, V('N') = 14,
	V('O') = 15, V('P') = 16, V('Q') = 17, V('R') = 18, V('S') = 19, V('T') = 20, V('U') = 21,
	V('V') = 22, V('W') = 23, V('X') = 24, V('Y') = 25, V('Z') = 26, V('a') = 27, V('b') = 28,
	V('c') = 29, V('d') = 30, V('e') = 31, V('f') = 32, V('g') = 33, V('h') = 34, V('i') = 35,
	V('j') = 36, V('k') = 37, V('l') = 38, V('m') = 39, V('n') = 40, V('o') = 41, V('p') = 42,
	V('q') = 43, V('r') = 44, V('s') = 45, V('t') = 46, V('u') = 47, V('v') = 48, V('w') = 49,
	V('x') = 50, V('y') = 51, V('z') = 52, V('0') = 53, V('1') = 54, V('2') = 55, V('3') = 56,
	V('4') = 57, V('5') = 58, V('6') = 59, V('7') = 60, V('8') = 61, V('9') = 62, V('-') = 63,
	V('_') = 64,
};

long base64url_decode(void *out, struct str text)
{
	unsigned char *to = out;
	uint32_t bits = 0;
	size_t i;

	if (text.len % 4 == 1)
		return -EINVAL;
	for (i = 0; i < text.len; i++) {
		uint8_t value = values[(unsigned char)text.p[i]];

		if (value == 0)
			return -EINVAL;
		bits = bits << 6 | (value - 1U);
		if (i % 4 == 3) {
			*to++ = (unsigned char)(bits >> 16);
			*to++ = (unsigned char)(bits >> 8);
			*to++ = (unsigned char)bits;
			bits = 0;
		}
	}
	if (i % 4 == 2) {
		if (bits & 0xf)
			return -EINVAL;
		*to++ = (unsigned char)(bits >> 4);
	} else if (i % 4 == 3) {
		if (bits & 0x3)
			return -EINVAL;
		*to++ = (unsigned char)(bits >> 10);
		*to++ = (unsigned char)(bits >> 2);
	}
	return to - (unsigned char *)out;
}

size_t base64url_encode(char *out, const void *data, size_t len)
{
	const unsigned char *p = data;
	char *to = out;

	for (; len >= 3; p += 3, len -= 3) {
		uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

		*to++ = alphabet[bits >> 18];
		*to++ = alphabet[bits >> 12 & 63];
		*to++ = alphabet[bits >> 6 & 63];
		*to++ = alphabet[bits & 63];
	}
	if (len > 0) {
		uint32_t bits = (uint32_t)p[0] << 16 | (len == 2 ? (uint32_t)p[1] << 8 : 0);

		*to++ = alphabet[bits >> 18];
		*to++ = alphabet[bits >> 12 & 63];
		if (len == 2)
			*to++ = alphabet[bits >> 6 & 63];
	}
	return (size_t)(to - out);
}
