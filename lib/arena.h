/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bump allocator: many small allocations that die together (a request, a configuration). Not
 * thread-safe. arena_reset keeps the first chunk, so a connection's arena costs no allocation per
 * request.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#include "lib/str.h"

struct arena_chunk;

struct arena {
	struct arena_chunk *chunks; /* newest first */
	char *at, *end;
	size_t chunk_size;
	size_t total, max; /* bytes held in chunks; at most max */
};

/* Allocates nothing yet. `chunk_size` bytes are taken at a time, at most `max` in all (0: no
 * bound). */
void arena_init(struct arena *a, size_t chunk_size, size_t max);
void arena_fini(struct arena *a);
/* Forgets everything but keeps one chunk. */
void arena_reset(struct arena *a);

/* Uninitialised memory aligned for any type; NULL when out of memory or over the bound. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_zalloc(struct arena *a, size_t size);
/* Copies; the copy is NUL-terminated behind its length. A NULL p in the result means out of memory.
 */
struct str arena_str(struct arena *a, struct str s);
char *arena_strz(struct arena *a, struct str s);
__attribute__((format(printf, 2, 3))) char *arena_printf(struct arena *a, const char *fmt, ...);

#define arena_new(a, type)      ((type *)arena_zalloc((a), sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_zalloc((a), sizeof(type) * (n)))
