/* SPDX-License-Identifier: Apache-2.0 */
/* What all HTTP versions share (RFC 9110): methods, fields with interned names, status phrases,
 * hosts, dates. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/str.h"

/* Field names that some code treats specially; all others are HTTP_OTHER. The order is the table's
 * in http.c. */
enum http_name {
	HTTP_OTHER,
	HTTP_ACCEPT,
	HTTP_ACCEPT_ENCODING,
	HTTP_AUTHORIZATION,
	HTTP_CACHE_CONTROL,
	HTTP_CONNECTION,
	HTTP_CONTENT_ENCODING,
	HTTP_CONTENT_LENGTH,
	HTTP_CONTENT_TYPE,
	HTTP_COOKIE,
	HTTP_DATE,
	HTTP_EXPECT,
	HTTP_FORWARDED,
	HTTP_HOST,
	HTTP_HTTP2_SETTINGS,
	HTTP_KEEP_ALIVE,
	HTTP_LOCATION,
	HTTP_ORIGIN,
	HTTP_PROXY_AUTHENTICATE,
	HTTP_PROXY_AUTHORIZATION,
	HTTP_PROXY_CONNECTION,
	HTTP_RETRY_AFTER,
	HTTP_SERVER,
	HTTP_SET_COOKIE,
	HTTP_TE,
	HTTP_TRACEPARENT,
	HTTP_TRACESTATE,
	HTTP_TRAILER,
	HTTP_TRANSFER_ENCODING,
	HTTP_UPGRADE,
	HTTP_USER_AGENT,
	HTTP_VIA,
	HTTP_X_FORWARDED_CLIENT_CERT,
	HTTP_X_FORWARDED_FOR,
	HTTP_X_FORWARDED_HOST,
	HTTP_X_FORWARDED_PROTO,
	HTTP_X_REAL_IP,
	HTTP_X_REQUEST_ID,
	HTTP_NAMES,
};

/* A header or trailer field. The slices point into whatever buffer it was parsed from. */
struct http_field {
	struct str name, value;
	enum http_name id;
};

/* Case-insensitive; HTTP_OTHER for names without an id. */
enum http_name http_name_id(struct str name);
/* RFC 9110 5.6.2: a non-empty token. */
bool http_is_token(struct str s);
/* No NUL, CR, LF or other control byte but the tab (RFC 9110 5.5). */
bool http_is_field_value(struct str s);
/* uri-host [ ":" port ] of RFC 9110 7.2, without user information. */
bool http_is_host(struct str s);

/* Methods that routing and retries know; others are METHOD_OTHER. */
enum http_method {
	METHOD_OTHER,
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_DELETE,
	METHOD_PATCH,
	METHOD_OPTIONS,
	METHOD_TRACE,
	METHOD_CONNECT,
	HTTP_METHODS,
};

enum http_method http_method_id(struct str method);
const char *http_method_name(enum http_method m);
/* RFC 9110 9.2.2: repeating the request has the effect of sending it once. */
static inline bool http_is_idempotent(enum http_method m)
{
	return m == METHOD_GET || m == METHOD_HEAD || m == METHOD_PUT || m == METHOD_DELETE ||
	       m == METHOD_OPTIONS || m == METHOD_TRACE;
}

/* "Not Found"; "" for unknown codes. */
const char *http_reason(unsigned status);

/* First field of that id or name, or NULL. */
const struct http_field *http_find(const struct http_field *fields, size_t count,
				   enum http_name id);
const struct http_field *http_find_name(const struct http_field *fields, size_t count,
					struct str name);
/* Whether a comma-separated list value holds the token, case-insensitively. */
bool http_list_has(struct str list, struct str token);
