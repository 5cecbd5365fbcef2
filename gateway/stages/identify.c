/* SPDX-License-Identifier: Apache-2.0 */
/* Who speaks, and under which name the request is known: client address, request id, trace. */
#include "gateway/http/cors.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"
#include "lib/hash.h"
#include "lib/hex.h"

#define REQUEST_ID_MAX 128

static bool is_trusted(const struct gw_conf *conf, const struct net_addr *a)
{
	for (size_t i = 0; i < conf->trusted_proxies_count; i++) {
		if (net_prefix_has(&conf->trusted_proxies[i], a))
			return true;
	}
	return false;
}

/*
 * The client as listed proxies tell it: counted from the right, the first address that is not one
 * of theirs. What stands further left was written by strangers.
 */
static void read_forwarded_for(struct request *r, const struct gw_conf *conf)
{
	for (size_t i = r->headers.count; i-- > 0;) {
		struct str list = r->headers.fields[i].value;

		if (r->headers.fields[i].id != HTTP_X_FORWARDED_FOR)
			continue;
		while (list.len) {
			size_t at = list.len;
			struct net_addr a;
			struct str item;

			while (at > 0 && list.p[at - 1] != ',')
				at--;
			item = str_trim(str_sub(list, at, list.len));
			list.len = at ? at - 1 : 0;
			if (net_parse_ip(&a, item, 0) < 0)
				return;
			net_unmap(&a);
			r->client = a;
			r->client_ip = item;
			if (!is_trusted(conf, &a))
				return;
		}
	}
}

static bool is_id_char(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '_' || c == '.' || c == ':' ||
	       c == '/' || c == '+' || c == '=';
}

static bool is_request_id(struct str s)
{
	if (s.len == 0 || s.len > REQUEST_ID_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (!is_id_char(s.p[i]))
			return false;
	}
	return true;
}

enum stage_result stage_identify(struct request *r)
{
	const struct gw_conf *conf = &r->conf->snapshot->conf;

	cors_note_origin(r);
	if (conf->trusted_proxies_count && is_trusted(conf, &r->client)) {
		const struct http_field *id = http_find(r->headers.fields, r->headers.count,
							HTTP_X_REQUEST_ID);

		r->is_from_proxy = true;
		if (id && is_request_id(id->value))
			r->request_id = id->value;
		read_forwarded_for(r, conf);
	}
	if (!r->request_id.len)
		request_make_id(r);
	return STAGE_NEXT;
}

/*
 * W3C Trace Context: version, 16 bytes trace id, 8 bytes parent id, flags, all lower-case hex, ids
 * not zero. Of later versions than 00, which may go on behind a dash, what 00 knows of is read; ff
 * is none.
 */
static bool is_traceparent(struct str s)
{
	bool has_trace = false, has_parent = false;

	if (s.len < 55 || (s.len > 55 && (str_starts(s, STR("00")) || s.p[55] != '-')) ||
	    str_starts(s, STR("ff")))
		return false;
	for (size_t i = 0; i < 55; i++) {
		if (i == 2 || i == 35 || i == 52) {
			if (s.p[i] != '-')
				return false;
			continue;
		}
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
		if (i < 3)
			continue;
		has_trace |= i < 35 && s.p[i] != '0';
		has_parent |= i > 35 && i < 52 && s.p[i] != '0';
	}
	return has_trace && has_parent;
}

/* The client's, if it is the only one and valid; else NULL. */
static const struct http_field *find_traceparent(const struct request *r)
{
	const struct http_field *found = NULL;

	for (size_t i = 0; i < r->headers.count; i++) {
		const struct http_field *f = &r->headers.fields[i];

		if (f->id != HTTP_TRACEPARENT || !f->name.len)
			continue;
		if (found || !is_traceparent(f->value))
			return NULL;
		found = f;
	}
	return found;
}

/* Sampled and random are kept; others have no meaning yet, and must be zero then. */
static void copy_flags(char *to, struct str flags)
{
	char low = flags.p[1];
	unsigned bits = (unsigned)(low <= '9' ? low - '0' : low - 'a' + 10) & 3;

	to[0] = '0';
	to[1] = (char)('0' + bits);
}

struct str identify_traceparent(struct request *r)
{
	const struct http_field *field = find_traceparent(r);
	char *text = arena_alloc(&r->arena, 55);
	unsigned char bytes[24];
	char *at = text;

	if (!text)
		return STR("");
	random_bytes(bytes, sizeof(bytes));
	memcpy(at, "00-", 3);
	at += 3;
	if (field) {
		memcpy(at, field->value.p + 3, 32);
		at += 32;
	} else {
		hex_put(&at, bytes, 16);
	}
	*at++ = '-';
	hex_put(&at, bytes + 16, 8);
	memcpy(at, "-01", 3);
	if (field)
		copy_flags(at + 1, str_sub(field->value, 53, 55));
	else /* it would speak of a trace that is none */
		headers_remove_id(&r->headers, HTTP_TRACESTATE);
	r->trace_id = str_of(text + 3, 32);
	return str_of(text, 55);
}
