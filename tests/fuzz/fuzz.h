/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the harnesses have in common. A harness is one function that is given bytes; it may crash
 * in what it calls, and it says itself what else must never be, with FUZZ_CHECK. libFuzzer calls
 * it with bytes of its own invention, driver.c with those of files.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                  \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(stderr, "%s:%d: wrong: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                               \
		}                                                                              \
	} while (0)

static inline struct str fuzz_str(const uint8_t *data, size_t size)
{
	return str_of((const char *)data, size);
}

/* Takes the first byte off: what a harness is told beside the bytes proper. 0 when there is none.
 */
static inline uint8_t fuzz_take(struct str *bytes)
{
	uint8_t first = bytes->len ? (uint8_t)bytes->p[0] : 0;

	if (bytes->len)
		*bytes = str_sub(*bytes, 1, bytes->len);
	return first;
}

/* A copy of exactly this size, so that reading one byte too far is found out. Free it. */
static inline char *fuzz_copy(struct str s)
{
	char *copy = calloc(1, s.len ? s.len : 1);

	if (!copy)
		abort();
	if (s.len)
		memcpy(copy, s.p, s.len);
	return copy;
}
