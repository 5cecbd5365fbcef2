/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http.h"

#include "lib/cleanup.h"
#include "lib/scan.h"

static const struct str names[HTTP_NAMES] = {
	[HTTP_ACCEPT] = STR("accept"),
	[HTTP_ACCEPT_ENCODING] = STR("accept-encoding"),
	[HTTP_AUTHORIZATION] = STR("authorization"),
	[HTTP_CACHE_CONTROL] = STR("cache-control"),
	[HTTP_CONNECTION] = STR("connection"),
	[HTTP_CONTENT_ENCODING] = STR("content-encoding"),
	[HTTP_CONTENT_LENGTH] = STR("content-length"),
	[HTTP_CONTENT_TYPE] = STR("content-type"),
	[HTTP_COOKIE] = STR("cookie"),
	[HTTP_DATE] = STR("date"),
	[HTTP_EXPECT] = STR("expect"),
	[HTTP_FORWARDED] = STR("forwarded"),
	[HTTP_HOST] = STR("host"),
	[HTTP_HTTP2_SETTINGS] = STR("http2-settings"),
	[HTTP_KEEP_ALIVE] = STR("keep-alive"),
	[HTTP_LOCATION] = STR("location"),
	[HTTP_ORIGIN] = STR("origin"),
	[HTTP_PROXY_AUTHENTICATE] = STR("proxy-authenticate"),
	[HTTP_PROXY_AUTHORIZATION] = STR("proxy-authorization"),
	[HTTP_PROXY_CONNECTION] = STR("proxy-connection"),
	[HTTP_RETRY_AFTER] = STR("retry-after"),
	[HTTP_SERVER] = STR("server"),
	[HTTP_SET_COOKIE] = STR("set-cookie"),
	[HTTP_TE] = STR("te"),
	[HTTP_TRACEPARENT] = STR("traceparent"),
	[HTTP_TRACESTATE] = STR("tracestate"),
	[HTTP_TRAILER] = STR("trailer"),
	[HTTP_TRANSFER_ENCODING] = STR("transfer-encoding"),
	[HTTP_UPGRADE] = STR("upgrade"),
	[HTTP_USER_AGENT] = STR("user-agent"),
	[HTTP_VIA] = STR("via"),
	[HTTP_X_FORWARDED_CLIENT_CERT] = STR("x-forwarded-client-cert"),
	[HTTP_X_FORWARDED_FOR] = STR("x-forwarded-for"),
	[HTTP_X_FORWARDED_HOST] = STR("x-forwarded-host"),
	[HTTP_X_FORWARDED_PROTO] = STR("x-forwarded-proto"),
	[HTTP_X_REAL_IP] = STR("x-real-ip"),
	[HTTP_X_REQUEST_ID] = STR("x-request-id"),
};

#define NAME_LEN_MAX      24
#define NAMES_PER_LEN_MAX 8

/* Ids by the length of the name, so that a look-up compares with a handful at most. Ends with
 * HTTP_OTHER. */
static uint8_t names_by_len[NAME_LEN_MAX][NAMES_PER_LEN_MAX];

/* RFC 9110 5.6.2 tchar. */
static bool is_tchar[256];
static bool is_host_char[256];

__attribute__((constructor)) static void http_init_tables(void)
{
	for (unsigned c = '0'; c <= '9'; c++)
		is_tchar[c] = is_host_char[c] = true;
	for (unsigned c = 'a'; c <= 'z'; c++)
		is_tchar[c] = is_tchar[c - 32] = is_host_char[c] = is_host_char[c - 32] = true;
	for (const char *p = "!#$%&'*+-.^_`|~"; *p; p++)
		is_tchar[(unsigned char)*p] = true;
	/* unreserved and sub-delims of RFC 3986; "%" is left out: no host needs it. */
	for (const char *p = "-._~!$&'()*+,;="; *p; p++)
		is_host_char[(unsigned char)*p] = true;
	for (unsigned id = 1; id < HTTP_NAMES; id++) {
		uint8_t *row = names_by_len[names[id].len];
		unsigned at = 0;

		while (row[at])
			at++;
		row[at] = (uint8_t)id;
	}
}

enum http_name http_name_id(struct str name)
{
	const uint8_t *row;

	if (name.len >= NAME_LEN_MAX)
		return HTTP_OTHER;
	row = names_by_len[name.len];
	for (unsigned i = 0; i < NAMES_PER_LEN_MAX && row[i]; i++) {
		if ((name.p[0] | 0x20) == names[row[i]].p[0] && str_ieq(name, names[row[i]]))
			return row[i];
	}
	return HTTP_OTHER;
}

bool http_is_token(struct str s)
{
	bool ok = s.len > 0;

	for (size_t i = 0; i < s.len; i++)
		ok &= is_tchar[(unsigned char)s.p[i]];
	return ok;
}

bool http_is_field_value(struct str s)
{
	unsigned bad = 0;
	size_t i = 0;

	while (i < s.len) {
		/* Hardly any value has a tab. */
		if (s.len - i >= SCAN_WIDTH && !scan_has_control(scan_load(s.p + i))) {
			i += SCAN_WIDTH;
			continue;
		}
		for (size_t end = MIN(s.len, i + SCAN_WIDTH); i < end; i++) {
			unsigned char c = (unsigned char)s.p[i];

			bad |= ((c < 0x20) & (c != '\t')) | (c == 0x7f);
		}
	}
	return !bad;
}

static bool is_port(struct str s)
{
	uint64_t port = 0;

	return s.len == 0 || (str_u64(s, &port) && port <= UINT16_MAX && s.len <= 5);
}

bool http_is_host(struct str s)
{
	size_t at = 0;

	if (s.len == 0 || s.len > 255)
		return false;
	if (s.p[0] == '[') {
		ptrdiff_t end = str_chr(s, ']');

		if (end < 3)
			return false;
		for (ptrdiff_t i = 1; i < end; i++) {
			if (!isxdigit((unsigned char)s.p[i]) && s.p[i] != ':' && s.p[i] != '.')
				return false;
		}
		at = (size_t)end + 1;
	} else {
		while (at < s.len && is_host_char[(unsigned char)s.p[at]])
			at++;
		if (at == 0)
			return false;
	}
	return at == s.len || (s.p[at] == ':' && is_port(str_sub(s, at + 1, s.len)));
}

static const struct str methods[HTTP_METHODS] = {
	[METHOD_OTHER] = STR(""),      [METHOD_GET] = STR("GET"),
	[METHOD_HEAD] = STR("HEAD"),   [METHOD_POST] = STR("POST"),
	[METHOD_PUT] = STR("PUT"),     [METHOD_DELETE] = STR("DELETE"),
	[METHOD_PATCH] = STR("PATCH"), [METHOD_OPTIONS] = STR("OPTIONS"),
	[METHOD_TRACE] = STR("TRACE"), [METHOD_CONNECT] = STR("CONNECT"),
};

enum http_method http_method_id(struct str method)
{
	for (unsigned m = 1; m < HTTP_METHODS; m++) {
		if (str_eq(method, methods[m]))
			return m;
	}
	return METHOD_OTHER;
}

const char *http_method_name(enum http_method m)
{
	return methods[m].p;
}

const char *http_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" },
		{ 201, "Created" },
		{ 202, "Accepted" },
		{ 204, "No Content" },
		{ 206, "Partial Content" },
		{ 301, "Moved Permanently" },
		{ 302, "Found" },
		{ 303, "See Other" },
		{ 304, "Not Modified" },
		{ 307, "Temporary Redirect" },
		{ 308, "Permanent Redirect" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 406, "Not Acceptable" },
		{ 408, "Request Timeout" },
		{ 409, "Conflict" },
		{ 410, "Gone" },
		{ 411, "Length Required" },
		{ 413, "Content Too Large" },
		{ 414, "URI Too Long" },
		{ 415, "Unsupported Media Type" },
		{ 417, "Expectation Failed" },
		{ 421, "Misdirected Request" },
		{ 422, "Unprocessable Content" },
		{ 426, "Upgrade Required" },
		{ 429, "Too Many Requests" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
		{ 505, "HTTP Version Not Supported" },
		{ 507, "Insufficient Storage" },
		{ 100, "Continue" },
		{ 101, "Switching Protocols" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		if (reasons[i].status == status)
			return reasons[i].reason;
	}
	return "";
}

const struct http_field *http_find(const struct http_field *fields, size_t count, enum http_name id)
{
	for (size_t i = 0; i < count; i++) {
		if (fields[i].id == id)
			return &fields[i];
	}
	return NULL;
}

const struct http_field *http_find_name(const struct http_field *fields, size_t count,
					struct str name)
{
	for (size_t i = 0; i < count; i++) {
		if (str_ieq(fields[i].name, name))
			return &fields[i];
	}
	return NULL;
}

bool http_list_has(struct str list, struct str token)
{
	struct str item;

	while (str_split(&list, ',', &item)) {
		if (str_ieq(str_trim(item), token))
			return true;
	}
	return false;
}
