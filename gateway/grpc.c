/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/grpc.h"

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
