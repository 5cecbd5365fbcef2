/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer with a maximum: bytes are appended at the end and consumed at the front.
 * The error is sticky: after a failed append further ones do nothing, and the caller checks
 * buf_failed once at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"

struct buf {
	char *data;
	size_t start, end, cap; /* the content is data[start..end) */
	size_t max;             /* content never grows beyond; 0: no bound */
	bool has_failed;
};

/* Allocates nothing yet. */
void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
/* Empties it and clears the error; keeps the memory unless it is larger than `keep` bytes. */
void buf_reset(struct buf *b, size_t keep);

static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

static inline char *buf_data(const struct buf *b)
{
	return b->data + b->start;
}

static inline struct str buf_str(const struct buf *b)
{
	return str_of(b->data ? buf_data(b) : "", buf_len(b));
}

static inline bool buf_failed(const struct buf *b)
{
	return b->has_failed;
}

/* Room for n more bytes behind the end; NULL (and failed) when that exceeds the maximum or memory.
 */
char *buf_reserve_slowly(struct buf *b, size_t n);
static inline char *buf_reserve(struct buf *b, size_t n)
{
	if (b->data && !b->has_failed && n <= b->cap - b->end &&
	    (!b->max || buf_len(b) + n <= b->max))
		return b->data + b->end;
	return buf_reserve_slowly(b, n);
}

static inline size_t buf_room(const struct buf *b)
{
	return b->cap - b->end;
}

/* Says that n reserved bytes were written. */
static inline void buf_commit(struct buf *b, size_t n)
{
	b->end += n;
}

/* Drops n bytes at the front. */
static inline void buf_consume(struct buf *b, size_t n)
{
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}

void buf_append(struct buf *b, const void *p, size_t n);

static inline void buf_add(struct buf *b, struct str s)
{
	buf_append(b, s.p, s.len);
}

static inline void buf_addz(struct buf *b, const char *z)
{
	buf_append(b, z, strlen(z));
}

static inline void buf_putc(struct buf *b, char c)
{
	buf_append(b, &c, 1);
}

void buf_u64(struct buf *b, uint64_t v);
__attribute__((format(printf, 2, 3))) void buf_printf(struct buf *b, const char *fmt, ...);
