/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf) { .max = max };
}

void buf_fini(struct buf *b)
{
	free(b->data);
	buf_init(b, b->max);
}

void buf_reset(struct buf *b, size_t keep)
{
	b->start = b->end = 0;
	b->has_failed = false;
	if (b->cap > keep) {
		free(b->data);
		b->data = NULL;
		b->cap = 0;
	}
}

char *buf_reserve_slowly(struct buf *b, size_t n)
{
	size_t len = buf_len(b);
	size_t cap = b->cap ? b->cap : 256;
	char *data;

	if (b->has_failed)
		return NULL;
	if (n > SIZE_MAX / 4 || len > SIZE_MAX / 4 || (b->max && len + n > b->max)) {
		b->has_failed = true;
		return NULL;
	}
	if (b->data && n <= b->cap - b->end)
		return b->data + b->end;
	/* Moving the content down is worth it only when that frees a good part of the buffer. */
	if (b->data && len + n <= b->cap && b->start >= b->cap / 2) {
		memmove(b->data, b->data + b->start, len);
		b->start = 0;
		b->end = len;
		return b->data + b->end;
	}
	while (cap < len + n)
		cap *= 2;
	data = malloc(cap);
	if (!data) {
		b->has_failed = true;
		return NULL;
	}
	if (b->data)
		memcpy(data, b->data + b->start, len);
	free(b->data);
	b->data = data;
	b->cap = cap;
	b->start = 0;
	b->end = len;
	return data + len;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
	char *at;

	if (n == 0)
		return;
	at = buf_reserve(b, n);
	if (at) {
		memcpy(at, p, n);
		b->end += n;
	}
}

void buf_u64(struct buf *b, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	buf_append(b, digits + at, sizeof(digits) - at);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	int len;
	char *at;

	va_start(ap, fmt);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0) {
		b->has_failed = true;
	} else {
		/* One more for the NUL that vsnprintf writes behind the text. */
		at = buf_reserve(b, (size_t)len + 1);
		if (at) {
			vsnprintf(at, (size_t)len + 1, fmt, again);
			b->end += (size_t)len;
		}
	}
	va_end(again);
}
