/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as hexadecimal digits, and digits read. */
#pragma once

#include <stddef.h>

/* Writes 2 * n digits at *at and moves it behind them. */
static inline void hex_put(char **at, const unsigned char *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*(*at)++ = digits[bytes[i] >> 4];
		*(*at)++ = digits[bytes[i] & 15];
	}
}

/* The value of a digit of either case, or -1. */
static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
