/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/arena.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"

struct arena_chunk {
	struct arena_chunk *next;
	size_t size; /* bytes behind the header */
	alignas(max_align_t) char data[];
};

void arena_init(struct arena *a, size_t chunk_size, size_t max)
{
	*a = (struct arena) { .chunk_size = chunk_size, .max = max };
}

void arena_fini(struct arena *a)
{
	struct arena_chunk *next;

	for (struct arena_chunk *c = a->chunks; c; c = next) {
		next = c->next;
		free(c);
	}
	arena_init(a, a->chunk_size, a->max);
}

void arena_reset(struct arena *a)
{
	struct arena_chunk *keep = a->chunks;
	struct arena_chunk *next;

	if (!keep)
		return;
	/* Keep an ordinary chunk, not one that a single huge request made. */
	for (struct arena_chunk *c = keep->next; c; c = next) {
		next = c->next;
		if (keep->size > a->chunk_size && c->size <= a->chunk_size) {
			free(keep);
			keep = c;
		} else {
			free(c);
		}
	}
	if (keep->size > 4 * a->chunk_size) {
		free(keep);
		arena_init(a, a->chunk_size, a->max);
		return;
	}
	keep->next = NULL;
	a->chunks = keep;
	a->at = keep->data;
	a->end = keep->data + keep->size;
	a->total = keep->size;
}

static void *arena_alloc_slow(struct arena *a, size_t size)
{
	size_t want = MAX(size, a->chunk_size);
	struct arena_chunk *c;

	if (a->max && (want > a->max || a->total > a->max - want))
		return NULL;
	c = malloc(sizeof(*c) + want);
	if (!c)
		return NULL;
	c->size = want;
	c->next = a->chunks;
	a->chunks = c;
	a->total += want;
	a->at = c->data + size;
	a->end = c->data + want;
	return c->data;
}

void *arena_alloc(struct arena *a, size_t size)
{
	void *p = a->at;

	if (size > SIZE_MAX - alignof(max_align_t))
		return NULL;
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	if (!p || size > (size_t)(a->end - a->at))
		return arena_alloc_slow(a, size);
	a->at += size;
	return p;
}

void *arena_zalloc(struct arena *a, size_t size)
{
	void *p = arena_alloc(a, size);

	if (p)
		memset(p, 0, size);
	return p;
}

char *arena_strz(struct arena *a, struct str s)
{
	char *p = arena_alloc(a, s.len + 1);

	if (!p)
		return NULL;
	if (s.len)
		memcpy(p, s.p, s.len);
	p[s.len] = '\0';
	return p;
}

struct str arena_str(struct arena *a, struct str s)
{
	char *p = arena_strz(a, s);

	return str_of(p, p ? s.len : 0);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;
	int len;
	char *p;

	va_start(ap, fmt);
	va_copy(again, ap);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	p = len < 0 ? NULL : arena_alloc(a, (size_t)len + 1);
	if (p)
		vsnprintf(p, (size_t)len + 1, fmt, again);
	va_end(again);
	return p;
}
