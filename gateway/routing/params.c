/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/params.h"

static bool split_pair(struct str pair, struct str *name, struct str *value)
{
	ptrdiff_t at = str_chr(pair, '=');

	*name = at < 0 ? pair : str_sub(pair, 0, (size_t)at);
	*value = at < 0 ? STR("") : str_sub(pair, (size_t)at + 1, pair.len);
	return at >= 0;
}

bool params_next_cookie(struct params_cookies *it, struct str *name, struct str *value)
{
	struct str pair;

	for (;;) {
		while (str_split(&it->rest, ';', &pair)) {
			if (split_pair(str_trim(pair), name, value))
				return true;
		}
		while (it->at < it->count &&
		       (it->fields[it->at].id != HTTP_COOKIE || it->fields[it->at].name.len == 0))
			it->at++;
		if (it->at == it->count)
			return false;
		it->rest = it->fields[it->at++].value;
	}
}

bool params_next_query(struct str *rest, struct str *name, struct str *value)
{
	struct str pair;

	while (str_split(rest, '&', &pair)) {
		if (pair.len == 0)
			continue;
		split_pair(pair, name, value);
		return true;
	}
	return false;
}

bool params_find_cookie(const struct http_field *fields, size_t count, struct str name,
			struct str *value)
{
	struct params_cookies it = { .fields = fields, .count = count };
	struct str found;

	while (params_next_cookie(&it, &found, value)) {
		if (str_eq(found, name))
			return true;
	}
	return false;
}

bool params_find_query(struct str query, struct str name, struct str *value)
{
	struct str found;

	while (params_next_query(&query, &found, value)) {
		if (params_equal(found, name))
			return true;
	}
	return false;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that begins at *at, which moves behind it. */
static char decode_next(struct str s, size_t *at, bool plus)
{
	char c = s.p[(*at)++];
	int high, low;

	if (c == '+' && plus)
		return ' ';
	if (c != '%' || *at + 2 > s.len)
		return c;
	high = hex_value(s.p[*at]);
	low = hex_value(s.p[*at + 1]);
	if (high < 0 || low < 0)
		return c;
	*at += 2;
	return (char)(high << 4 | low);
}

/* How many bytes of `raw` decode to all of `want`; SIZE_MAX when they do not. */
static size_t match_decoded(struct str raw, struct str want)
{
	size_t at = 0;

	for (size_t i = 0; i < want.len; i++) {
		if (at == raw.len || decode_next(raw, &at, true) != want.p[i])
			return SIZE_MAX;
	}
	return at;
}

bool params_equal(struct str raw, struct str want)
{
	return match_decoded(raw, want) == raw.len;
}

bool params_begins(struct str raw, struct str want)
{
	return match_decoded(raw, want) != SIZE_MAX;
}

bool params_decode_into(char *out, size_t room, struct str raw, struct str *result)
{
	size_t len = 0;

	for (size_t at = 0; at < raw.len;) {
		if (len == room)
			return false;
		out[len++] = decode_next(raw, &at, true);
	}
	*result = str_of(out, len);
	return true;
}

struct str params_decode(struct arena *a, struct str raw, bool plus)
{
	char *out = arena_alloc(a, raw.len + 1);
	size_t len = 0;

	if (!out)
		return (struct str) { 0 };
	for (size_t at = 0; at < raw.len;)
		out[len++] = decode_next(raw, &at, plus);
	return str_of(out, len);
}

struct str params_encode(struct arena *a, struct str plain)
{
	static const char digits[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, 3 * plain.len + 1);
	size_t len = 0;

	if (!out)
		return (struct str) { 0 };
	for (size_t i = 0; i < plain.len; i++) {
		unsigned char c = (unsigned char)plain.p[i];

		if (isalnum(c) || (c && strchr("-._~", c))) {
			out[len++] = (char)c;
			continue;
		}
		out[len++] = '%';
		out[len++] = digits[c >> 4];
		out[len++] = digits[c & 15];
	}
	return str_of(out, len);
}
