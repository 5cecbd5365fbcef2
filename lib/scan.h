/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight bytes at a time: whether any of them is of a kind. Heads and log lines are read to their
 * end by every request, and compilers do not vectorise loops whose length they do not know at -O2.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define SCAN_WIDTH 8
#define SCAN_ONES  0x0101010101010101ULL
#define SCAN_HIGHS 0x8080808080808080ULL

static inline uint64_t scan_load(const void *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* Not zero when one of the bytes is c. */
static inline uint64_t scan_has(uint64_t word, unsigned char c)
{
	uint64_t differs = word ^ (SCAN_ONES * c);

	return (differs - SCAN_ONES) & ~differs & SCAN_HIGHS;
}

/* Not zero when one of the bytes is below 0x20, or DEL. */
static inline uint64_t scan_has_control(uint64_t word)
{
	return ((word - SCAN_ONES * 0x20) & ~word & SCAN_HIGHS) | scan_has(word, 0x7f);
}

/* Not zero when one of the bytes is not ASCII. */
static inline uint64_t scan_has_high(uint64_t word)
{
	return word & SCAN_HIGHS;
}
