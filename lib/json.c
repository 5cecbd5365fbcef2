/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/json.h"

#include <math.h>
#include <stdio.h>

#include "lib/scan.h"

/* Bytes that can be copied as they are: neither control, quote, backslash nor part of a multi-byte
 * character. */
static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Length of the well-formed UTF-8 sequence at p (Unicode table 3-7), or 0. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
	unsigned char c = p[0];
	unsigned char low = 0x80, high = 0xbf;
	size_t len;

	if (c >= 0xc2 && c <= 0xdf) {
		len = 2;
	} else if (c >= 0xe0 && c <= 0xef) {
		len = 3;
		if (c == 0xe0)
			low = 0xa0;
		if (c == 0xed)
			high = 0x9f; /* surrogates */
	} else if (c >= 0xf0 && c <= 0xf4) {
		len = 4;
		if (c == 0xf0)
			low = 0x90;
		if (c == 0xf4)
			high = 0x8f;
	} else {
		return 0;
	}
	if (left < len || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return len;
}

bool json_is_text(struct str s)
{
	for (size_t i = 0; i < s.len;) {
		const unsigned char *p = (const unsigned char *)s.p + i;
		size_t len = *p < 0x80 ? *p != 0 : utf8_sequence(p, s.len - i);

		if (len == 0)
			return false;
		i += len;
	}
	return true;
}

static size_t json_escape_one(struct buf *out, const unsigned char *p, size_t left)
{
	char text[8];
	size_t len;

	switch (*p) {
	case '"':
		buf_append(out, "\\\"", 2);
		return 1;
	case '\\':
		buf_append(out, "\\\\", 2);
		return 1;
	case '\n':
		buf_append(out, "\\n", 2);
		return 1;
	case '\r':
		buf_append(out, "\\r", 2);
		return 1;
	case '\t':
		buf_append(out, "\\t", 2);
		return 1;
	default:
		break;
	}
	if (*p < 0x20 || *p == 0x7f) {
		snprintf(text, sizeof(text), "\\u%04x", *p);
		buf_append(out, text, 6);
		return 1;
	}
	len = utf8_sequence(p, left);
	if (len == 0) {
		buf_append(out, "\\ufffd", 6);
		return 1;
	}
	buf_append(out, p, len);
	return len;
}

/* Where the first byte is that cannot be copied as it is. */
static size_t plain_len(const unsigned char *p, size_t len)
{
	size_t at = 0;

	while (len - at >= SCAN_WIDTH) {
		uint64_t word = scan_load(p + at);

		if (scan_has_control(word) | scan_has_high(word) | scan_has(word, '"') |
		    scan_has(word, '\\'))
			break;
		at += SCAN_WIDTH;
	}
	while (at < len && is_plain(p[at]))
		at++;
	return at;
}

void json_quote(struct buf *out, struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p;
	size_t at = plain_len(p, s.len);
	char *text;

	/* Nearly all are copied as they are. */
	if (at == s.len) {
		text = buf_reserve(out, s.len + 2);
		if (!text)
			return;
		text[0] = '"';
		if (s.len)
			memcpy(text + 1, s.p, s.len);
		text[s.len + 1] = '"';
		buf_commit(out, s.len + 2);
		return;
	}
	at = 0;
	buf_putc(out, '"');
	while (at < s.len) {
		size_t plain = at + plain_len(p + at, s.len - at);

		buf_append(out, p + at, plain - at);
		at = plain;
		if (at < s.len)
			at += json_escape_one(out, p + at, s.len - at);
	}
	buf_putc(out, '"');
}

static void json_begin(struct json_writer *w, const char *key)
{
	if (w->needs_comma)
		buf_putc(w->out, ',');
	w->needs_comma = true;
	if (key) {
		json_quote(w->out, str_from(key));
		buf_putc(w->out, ':');
	}
}

void json_open(struct json_writer *w, const char *key, char bracket)
{
	json_begin(w, key);
	buf_putc(w->out, bracket);
	w->needs_comma = false;
}

void json_close(struct json_writer *w, char bracket)
{
	buf_putc(w->out, bracket);
	w->needs_comma = true;
}

void json_add_str(struct json_writer *w, const char *key, struct str value)
{
	json_begin(w, key);
	json_quote(w->out, value);
}

void json_addz(struct json_writer *w, const char *key, const char *value)
{
	if (value)
		json_add_str(w, key, str_from(value));
	else
		json_add_null(w, key);
}

void json_add_u64(struct json_writer *w, const char *key, uint64_t value)
{
	json_begin(w, key);
	buf_u64(w->out, value);
}

void json_add_i64(struct json_writer *w, const char *key, int64_t value)
{
	json_begin(w, key);
	if (value < 0)
		buf_putc(w->out, '-');
	buf_u64(w->out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void json_add_double(struct json_writer *w, const char *key, double value)
{
	json_begin(w, key);
	/* JSON knows neither infinity nor NaN. */
	if (isfinite(value))
		buf_printf(w->out, "%.6g", value);
	else
		buf_addz(w->out, "null");
}

void json_add_thousandths(struct json_writer *w, const char *key, uint64_t value)
{
	unsigned rest = (unsigned)(value % 1000);
	char text[4] = { '.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10),
			 (char)('0' + rest % 10) };

	json_begin(w, key);
	buf_u64(w->out, value / 1000);
	buf_append(w->out, text, sizeof(text));
}

void json_add_bool(struct json_writer *w, const char *key, bool value)
{
	json_begin(w, key);
	buf_addz(w->out, value ? "true" : "false");
}

void json_add_null(struct json_writer *w, const char *key)
{
	json_begin(w, key);
	buf_addz(w->out, "null");
}

void json_add_raw(struct json_writer *w, const char *key, struct str json)
{
	json_begin(w, key);
	buf_add(w->out, json);
}

void json_add_pair(struct json_writer *w, struct str key, struct str value)
{
	json_begin(w, NULL);
	json_quote(w->out, key);
	buf_putc(w->out, ':');
	json_quote(w->out, value);
}
