/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/grpc.h"

#include "lib/base64.h"
#include "lib/cleanup.h"
#include "lib/hex.h"

static const struct {
	const char *name;
	unsigned http;
} statuses[] = {
	{ "OK", 200 },
	{ "CANCELLED", 499 },
	{ "UNKNOWN", 500 },
	{ "INVALID_ARGUMENT", 400 },
	{ "DEADLINE_EXCEEDED", 504 },
	{ "NOT_FOUND", 404 },
	{ "ALREADY_EXISTS", 409 },
	{ "PERMISSION_DENIED", 403 },
	{ "RESOURCE_EXHAUSTED", 429 },
	{ "FAILED_PRECONDITION", 400 },
	{ "ABORTED", 409 },
	{ "OUT_OF_RANGE", 400 },
	{ "UNIMPLEMENTED", 501 },
	{ "INTERNAL", 500 },
	{ "UNAVAILABLE", 503 },
	{ "DATA_LOSS", 500 },
	{ "UNAUTHENTICATED", 401 },
};

unsigned grpc_http_status(unsigned status)
{
	return statuses[status < ARRAY_SIZE(statuses) ? status : GRPC_UNKNOWN].http;
}

const char *grpc_status_name(unsigned status)
{
	return statuses[status < ARRAY_SIZE(statuses) ? status : GRPC_UNKNOWN].name;
}

bool grpc_is_content_type(struct str type)
{
	static const char name[] = "application/grpc";
	size_t len = sizeof(name) - 1;

	if (type.len < len || !str_ieq(str_sub(type, 0, len), str_of(name, len)))
		return false;
	return type.len == len || type.p[len] == '+' || type.p[len] == ';' || type.p[len] == ' ';
}

enum grpc_status grpc_status_of(unsigned status)
{
	switch (status) {
	case 400:
	case 431:
		return GRPC_INTERNAL;
	case 401:
		return GRPC_UNAUTHENTICATED;
	case 403:
		return GRPC_PERMISSION_DENIED;
	case 404:
	case 405:
	case 406:
	case 410:
	case 415:
	case 501:
		return GRPC_UNIMPLEMENTED;
	case 408:
	case 504:
		return GRPC_DEADLINE_EXCEEDED;
	case 413:
	case 414:
	case 429:
		return GRPC_RESOURCE_EXHAUSTED;
	case 502:
	case 503:
		return GRPC_UNAVAILABLE;
	default:
		return GRPC_UNKNOWN;
	}
}

bool grpc_is_fault(unsigned status)
{
	return status == GRPC_UNKNOWN || status == GRPC_INTERNAL || status == GRPC_UNAVAILABLE ||
	       status == GRPC_DATA_LOSS;
}

bool grpc_parse_status(struct str value, unsigned *out)
{
	uint64_t n;

	if (value.len > 3 || !str_u64(value, &n) || (value.len > 1 && value.p[0] == '0'))
		return false;
	*out = (unsigned)n;
	return true;
}

static uint64_t unit_us(char unit)
{
	switch (unit) {
	case 'H':
		return 3600UL * 1000 * 1000;
	case 'M':
		return 60UL * 1000 * 1000;
	case 'S':
		return 1000UL * 1000;
	case 'm':
		return 1000;
	case 'u':
		return 1;
	default:
		return 0;
	}
}

bool grpc_parse_timeout(struct str value, uint64_t *out_ms)
{
	uint64_t n, us;
	char unit;

	if (value.len < 2 || value.len > 9 || !str_u64(str_sub(value, 0, value.len - 1), &n))
		return false;
	unit = value.p[value.len - 1];
	us = unit == 'n' ? (n + 999) / 1000 : n * unit_us(unit);
	if (unit != 'n' && unit_us(unit) == 0)
		return false;
	*out_ms = (us + 999) / 1000;
	return true;
}

struct str grpc_message(struct arena *a, struct str text)
{
	static const char hex[] = "0123456789ABCDEF";
	char *out = arena_alloc(a, text.len * 3 + 1), *at = out;

	if (!out)
		return (struct str) { 0 };
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c >= 0x20 && c < 0x7f && c != '%') {
			*at++ = (char)c;
			continue;
		}
		*at++ = '%';
		*at++ = hex[c >> 4];
		*at++ = hex[c & 15];
	}
	return str_of(out, (size_t)(at - out));
}

struct str grpc_decode_message(struct arena *a, struct str value)
{
	char *out = arena_alloc(a, value.len + 1);
	size_t n = 0;

	if (!out)
		return (struct str) { 0 };
	for (size_t i = 0; i < value.len; i++) {
		int high = value.p[i] == '%' && value.len - i > 2 ? hex_digit(value.p[i + 1]) : -1;
		int low = high < 0 ? -1 : hex_digit(value.p[i + 2]);

		if (low < 0) {
			out[n++] = value.p[i];
			continue;
		}
		out[n++] = (char)(high << 4 | low);
		i += 2;
	}
	return str_of(out, n);
}

struct str grpc_decode_binary(struct arena *a, struct str value)
{
	char *text = arena_alloc(a, value.len + 1), *out = arena_alloc(a, value.len + 1);
	long len;

	if (!text || !out)
		return (struct str) { 0 };
	while (value.len && value.p[value.len - 1] == '=')
		value.len--;
	for (size_t i = 0; i < value.len; i++) {
		text[i] = value.p[i];
		if (text[i] == '+')
			text[i] = '-';
		else if (text[i] == '/')
			text[i] = '_';
	}
	len = base64url_decode(out, str_of(text, value.len));
	if (len < 0)
		return (struct str) { 0 };
	return str_of(out, (size_t)len);
}

size_t grpc_get_length(const char *head)
{
	const unsigned char *p = (const unsigned char *)head + 1;

	return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

void grpc_put_length(char *head, size_t len)
{
	for (int i = 4; i > 0; i--, len >>= 8)
		head[i] = (char)(len & 0xff);
}
