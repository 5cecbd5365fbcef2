/* SPDX-License-Identifier: Apache-2.0 */
/* A slice of bytes that somebody else owns: not terminated, may hold NUL, never freed through this.
 */
#pragma once

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct str {
	const char *p;
	size_t len;
};

#define STR(literal) ((struct str) { .p = "" literal, .len = sizeof(literal) - 1 })
/* For printf's %.*s. */
#define STR_ARG(s) (int)(s).len, (s).p

static inline struct str str_from(const char *z)
{
	return (struct str) { .p = z, .len = z ? strlen(z) : 0 };
}

static inline struct str str_of(const char *p, size_t len)
{
	return (struct str) { .p = p, .len = len };
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

static inline bool str_eqz(struct str a, const char *z)
{
	return str_eq(a, str_from(z));
}

static inline bool str_ieq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || strncasecmp(a.p, b.p, a.len) == 0);
}

static inline bool str_starts(struct str s, struct str prefix)
{
	return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.p, prefix.p, prefix.len) == 0);
}

static inline bool str_istarts(struct str s, struct str prefix)
{
	return s.len >= prefix.len && strncasecmp(s.p, prefix.p, prefix.len) == 0;
}

static inline bool str_ends(struct str s, struct str suffix)
{
	return s.len >= suffix.len &&
	       (suffix.len == 0 || memcmp(s.p + s.len - suffix.len, suffix.p, suffix.len) == 0);
}

/* Position of c, or -1. */
static inline ptrdiff_t str_chr(struct str s, char c)
{
	const char *at = s.len ? (const char *)memchr(s.p, c, s.len) : NULL;

	return at ? at - s.p : -1;
}

static inline struct str str_sub(struct str s, size_t from, size_t to)
{
	return (struct str) { .p = s.p + from, .len = to - from };
}

/* Optional white space of HTTP (RFC 9110 5.6.3): spaces and tabs at both ends. */
static inline struct str str_trim(struct str s)
{
	while (s.len && (s.p[0] == ' ' || s.p[0] == '\t')) {
		s.p++;
		s.len--;
	}
	while (s.len && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
		s.len--;
	return s;
}

/* Without the newlines at its end. */
static inline struct str str_chomp(struct str s)
{
	while (s.len && s.p[s.len - 1] == '\n')
		s.len--;
	return s;
}

/*
 * Cuts the next piece off *rest at `sep`. Returns false when nothing is left. "a,,b" gives "a", "",
 * "b". A *rest whose p is NULL is finished.
 */
static inline bool str_split(struct str *rest, char sep, struct str *out)
{
	ptrdiff_t at;

	if (!rest->p)
		return false;
	at = str_chr(*rest, sep);
	if (at < 0) {
		*out = *rest;
		*rest = (struct str) { 0 };
		return true;
	}
	*out = str_sub(*rest, 0, (size_t)at);
	*rest = str_sub(*rest, (size_t)at + 1, rest->len);
	return true;
}

/* Decimal digits only, no sign, no white space. Returns false on anything else or on overflow. */
static inline bool str_u64(struct str s, uint64_t *out)
{
	uint64_t v = 0;

	if (s.len == 0 || s.len > 20)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

		if (digit > 9 || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*out = v;
	return true;
}
