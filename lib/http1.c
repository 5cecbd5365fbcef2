/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/http1.h"

#include <errno.h>
#include <llhttp/llhttp.h>

#include "lib/cleanup.h"
#include "lib/hex.h"
#include "lib/scan.h"

const struct http1_limits http1_default_limits = {
	.head_bytes = 32UL * 1024,
	.target_bytes = 8UL * 1024,
	.fields = 100,
};

/* --- finding the end of the head ------------------------------------------------------------- */

static long refuse(struct http1_head *head, int status, const char *problem)
{
	head->problem = problem;
	return -status;
}

/*
 * A complete line without its CRLF: no control bytes. llhttp 8.1 takes a lone CR for a line end
 * (CVE-2023-30589) and others a lone LF, so neither may get through here.
 */
static const char *line_problem(const char *p, size_t len)
{
	return http_is_field_value(str_of(p, len)) ? NULL : "control byte in the message head";
}

/* Length of the head with its empty line, 0 for "not complete", or -status. */
static long find_head_end(struct http1_head *head, struct http1_scan *scan, struct str bytes,
			  const struct http1_limits *limits)
{
	while (scan->at < bytes.len) {
		const char *line = bytes.p + scan->at;
		const char *lf = memchr(line, '\n', bytes.len - scan->at);
		size_t len;

		if (!lf)
			break;
		len = (size_t)(lf - line);
		if (len == 0 || line[len - 1] != '\r')
			return refuse(head, 400, "line ends without CR");
		len--;
		if (line_problem(line, len))
			return refuse(head, 400, line_problem(line, len));
		scan->at += len + 2;
		if (scan->at > limits->head_bytes)
			return refuse(head, 431, "message head too large");
		if (len == 0 && scan->has_line)
			return (long)scan->at;
		if (len == 0 && scan->at > 2)
			return refuse(head, 400, "more than one empty line before the message");
		if (len > 0 && (line[0] == ' ' || line[0] == '\t'))
			return refuse(head, 400, "line begins with white space");
		if (len > 0 && !scan->has_line && len > limits->target_bytes + 64)
			return refuse(head, 414, "request target too long");
		scan->has_line |= len > 0;
	}
	if (!scan->has_line && bytes.len - scan->at > limits->target_bytes + 64)
		return refuse(head, 414, "request target too long");
	if (bytes.len > limits->head_bytes)
		return refuse(head, 431, "message head too large");
	return 0;
}

/* --- llhttp's callbacks: they only note slices -------------------------------------------------
 */

struct parse {
	struct http1_head *head;
	const struct http1_limits *limits;
	bool has_too_many_fields;
};

/* The head is one piece in memory, so a span that comes in parts continues the slice. */
static void slice_extend(struct str *s, const char *at, size_t len)
{
	if (s->len == 0)
		s->p = at;
	s->len += len;
}

static int on_method(llhttp_t *ll, const char *at, size_t len)
{
	slice_extend(&((struct parse *)ll->data)->head->method, at, len);
	return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t len)
{
	slice_extend(&((struct parse *)ll->data)->head->target, at, len);
	return 0;
}

static int on_status(llhttp_t *ll, const char *at, size_t len)
{
	slice_extend(&((struct parse *)ll->data)->head->reason, at, len);
	return 0;
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
	struct parse *parse = ll->data;
	struct http1_head *head = parse->head;

	if (head->field_count >= MIN(parse->limits->fields, (size_t)HTTP1_FIELDS_MAX)) {
		parse->has_too_many_fields = true;
		return -1;
	}
	slice_extend(&head->fields[head->field_count].name, at, len);
	return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t len)
{
	struct http1_head *head = ((struct parse *)ll->data)->head;

	slice_extend(&head->fields[head->field_count].value, at, len);
	return 0;
}

static int on_value_complete(llhttp_t *ll)
{
	struct http1_head *head = ((struct parse *)ll->data)->head;

	head->field_count++;
	if (head->field_count < HTTP1_FIELDS_MAX)
		head->fields[head->field_count] = (struct http_field) { 0 };
	return 0;
}

static int on_headers_complete(llhttp_t *ll)
{
	(void)ll;
	/* The body is decoded elsewhere; pausing also keeps llhttp's own ideas about upgrades out.
	 */
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_method = on_method,
	.on_url = on_url,
	.on_status = on_status,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_header_value_complete = on_value_complete,
	.on_headers_complete = on_headers_complete,
};

static void head_reset(struct http1_head *head)
{
	/* Not the whole field array: 5 KiB of zeroes per message would show in a profile. */
	head->fields[0] = (struct http_field) { 0 };
	memset((char *)head + offsetof(struct http1_head, field_count), 0,
	       sizeof(*head) - offsetof(struct http1_head, field_count));
}

bool http1_knows_method(struct str method)
{
#define METHOD_NAME(number, name, text) STR(#text),
	static const struct str names[] = { HTTP_METHOD_MAP(METHOD_NAME) };
#undef METHOD_NAME

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(method, names[i]))
			return true;
	}
	return false;
}

static long run_llhttp(struct http1_head *head, llhttp_type_t type, struct str bytes,
		       const struct http1_limits *limits, unsigned *major)
{
	struct parse parse = { .head = head, .limits = limits };
	llhttp_errno_t rc;
	llhttp_t ll;

	llhttp_init(&ll, type, &settings);
	ll.data = &parse;
	rc = llhttp_execute(&ll, bytes.p, bytes.len);
	if (parse.has_too_many_fields)
		return refuse(head, 431, "too many header fields");
	if (rc != HPE_PAUSED) {
		/* A well-formed method that llhttp does not know is not malformed (RFC 9110 9.1).
		 */
		if (rc == HPE_INVALID_METHOD) {
			ptrdiff_t space = str_chr(bytes, ' ');

			if (space > 0 && http_is_token(str_sub(bytes, 0, (size_t)space)))
				return refuse(head, 501, "unknown method");
		}
		if (rc == HPE_INVALID_VERSION)
			return refuse(head, 505, "HTTP version is not 1.0 or 1.1");
		return refuse(head, 400, llhttp_errno_name(rc));
	}
	head->minor = ll.http_minor;
	head->status = ll.status_code;
	*major = ll.http_major;
	return 0;
}

/* --- what the fields mean for framing ------------------------------------------------------------
 */

/* Names are tokens, values are trimmed, ids are filled in. */
static const char *finish_fields(struct http1_head *head)
{
	for (size_t i = 0; i < head->field_count; i++) {
		struct http_field *f = &head->fields[i];

		if (!http_is_token(f->name))
			return "field name is not a token";
		f->value = str_trim(f->value);
		f->id = http_name_id(f->name);
	}
	return NULL;
}

static const char *read_content_length(struct http1_head *head, struct str value)
{
	/* Two equal ones, or "5,5", could be collapsed; a peer that sends them is broken or
	 * hostile. */
	if (head->has_content_length)
		return "more than one Content-Length";
	if (!str_u64(value, &head->content_length) || head->content_length > INT64_MAX)
		return "Content-Length is not a number";
	head->has_content_length = true;
	return NULL;
}

static void read_connection(struct http1_head *head, struct str value, bool *has_close,
			    bool *has_keep_alive)
{
	head->has_connection = true;
	*has_close |= http_list_has(value, STR("close"));
	*has_keep_alive |= http_list_has(value, STR("keep-alive"));
	head->asks_upgrade |= http_list_has(value, STR("upgrade"));
}

/* Reads the fields that frame the message. Returns 0 or -status. */
static long read_framing(struct http1_head *head, bool *is_chunked)
{
	bool has_upgrade = false, has_close = false, has_keep_alive = false;
	const char *problem = finish_fields(head);

	for (size_t i = 0; i < head->field_count && !problem; i++) {
		struct str value = head->fields[i].value;

		switch (head->fields[i].id) {
		case HTTP_CONTENT_LENGTH:
			problem = read_content_length(head, value);
			break;
		case HTTP_TRANSFER_ENCODING:
			if (*is_chunked)
				problem = "more than one Transfer-Encoding";
			else if (!str_ieq(value, STR("chunked")))
				return refuse(head,
					      str_chr(value, ',') >= 0 || !http_is_token(value)
						      ? 400
						      : 501,
					      "Transfer-Encoding is not exactly \"chunked\"");
			*is_chunked = true;
			break;
		case HTTP_CONNECTION:
			read_connection(head, value, &has_close, &has_keep_alive);
			break;
		case HTTP_UPGRADE:
			has_upgrade = true;
			break;
		case HTTP_EXPECT:
			if (head->minor >= 1 && str_ieq(value, STR("100-continue")))
				head->expects_continue = true;
			break;
		default:
			break;
		}
	}
	if (!problem && *is_chunked && head->has_content_length)
		problem = "both Content-Length and Transfer-Encoding";
	if (!problem && *is_chunked && head->minor == 0)
		problem = "Transfer-Encoding in an HTTP/1.0 message";
	if (problem)
		return refuse(head, 400, problem);
	head->asks_upgrade &= has_upgrade && head->minor >= 1;
	head->keeps_alive = !has_close && (head->minor >= 1 || has_keep_alive);
	return 0;
}

/* --- requests ------------------------------------------------------------------------------------
 */

static const char *target_problem(struct str target)
{
	for (size_t i = 0; i < target.len; i++) {
		unsigned char c = (unsigned char)target.p[i];

		if (c <= 0x20 || c >= 0x7f || c == '#')
			return "forbidden byte in the request target";
	}
	return target.len ? NULL : "empty request target";
}

/* llhttp skips runs of spaces; others would see another target there. */
static bool is_exact_request_line(const struct http1_head *head, struct str bytes)
{
	size_t version = head->method.len + 1 + head->target.len;

	return head->method.p == bytes.p && head->target.p == bytes.p + head->method.len + 1 &&
	       bytes.len > version + 10 && memcmp(bytes.p + version, " HTTP/1.", 8) == 0 &&
	       memcmp(bytes.p + version + 9, "\r\n", 2) == 0;
}

/* Splits the target (RFC 9112 3.2) into authority, path and query. */
static const char *split_target(struct http1_head *head)
{
	struct str rest = head->target;
	ptrdiff_t at;

	if (rest.p[0] == '*') {
		if (rest.len != 1 || head->method_id != METHOD_OPTIONS)
			return "asterisk target without OPTIONS";
	} else if (rest.p[0] != '/') {
		/* absolute-form */
		if (str_istarts(rest, STR("http://")))
			rest = str_sub(rest, 7, rest.len);
		else if (str_istarts(rest, STR("https://")))
			rest = str_sub(rest, 8, rest.len);
		else
			return "request target is neither a path nor an http URI";
		for (at = 0; (size_t)at < rest.len && rest.p[at] != '/' && rest.p[at] != '?'; at++)
			;
		head->authority = str_sub(rest, 0, (size_t)at);
		rest = str_sub(rest, (size_t)at, rest.len);
		if (!http_is_host(head->authority))
			return "bad authority in the request target";
	}
	at = str_chr(rest, '?');
	head->path = at < 0 ? rest : str_sub(rest, 0, (size_t)at);
	head->query = (struct str) { 0 };
	if (at >= 0)
		head->query = str_sub(rest, (size_t)at + 1, rest.len);
	if (head->path.len == 0)
		head->path = STR("/");
	return NULL;
}

static const char *check_host(struct http1_head *head)
{
	const struct http_field *host = NULL;

	for (size_t i = 0; i < head->field_count; i++) {
		if (head->fields[i].id != HTTP_HOST)
			continue;
		if (host)
			return "more than one Host";
		host = &head->fields[i];
	}
	if (!host)
		return head->minor >= 1 ? "no Host" : NULL;
	if (!http_is_host(host->value))
		return "bad Host";
	if (head->authority.len && !str_ieq(head->authority, host->value))
		return "Host differs from the request target's authority";
	head->authority = host->value;
	return NULL;
}

long http1_parse_request(struct http1_head *head, struct http1_scan *scan, struct str bytes,
			 const struct http1_limits *limits)
{
	unsigned major = 0;
	bool is_chunked = false;
	const char *problem;
	long len, rc;

	head->problem = NULL;
	len = find_head_end(head, scan, bytes, limits);
	if (len <= 0)
		return len;
	head_reset(head);
	if (bytes.p[0] == '\r')
		bytes = str_sub(bytes, 2, (size_t)len);
	else
		bytes.len = (size_t)len;
	rc = run_llhttp(head, HTTP_REQUEST, bytes, limits, &major);
	if (rc < 0)
		return rc;
	if (major == 0)
		return refuse(head, 400, "HTTP/0.9 request");
	if (major != 1 || head->minor > 1)
		return refuse(head, 505, "HTTP version is not 1.0 or 1.1");
	if (head->target.len > limits->target_bytes)
		return refuse(head, 414, "request target too long");
	if (!is_exact_request_line(head, bytes))
		return refuse(head, 400, "request line is not exactly method, target and version");
	head->method_id = http_method_id(head->method);
	if (head->method_id == METHOD_CONNECT)
		return refuse(head, 501, "CONNECT is not supported");
	problem = target_problem(head->target);
	if (!problem)
		problem = split_target(head);
	if (problem)
		return refuse(head, 400, problem);
	rc = read_framing(head, &is_chunked);
	if (rc < 0)
		return rc;
	problem = check_host(head);
	if (problem)
		return refuse(head, 400, problem);
	if (is_chunked)
		head->framing = HTTP1_CHUNKED;
	else if (head->has_content_length && head->content_length > 0)
		head->framing = HTTP1_LENGTH;
	else
		head->framing = HTTP1_NO_BODY;
	return len;
}

/* --- responses -----------------------------------------------------------------------------------
 */

long http1_parse_response(struct http1_head *head, struct http1_scan *scan, struct str bytes,
			  const struct http1_limits *limits, enum http_method request_method)
{
	unsigned major = 0;
	bool is_chunked = false;
	long len, rc;

	head->problem = NULL;
	len = find_head_end(head, scan, bytes, limits);
	if (len <= 0)
		return len;
	head_reset(head);
	if (bytes.p[0] == '\r')
		return refuse(head, 502, "empty line before the response");
	bytes.len = (size_t)len;
	rc = run_llhttp(head, HTTP_RESPONSE, bytes, limits, &major);
	if (rc < 0)
		return rc;
	if (major != 1 || head->minor > 1 || head->status < 100 || head->status > 599)
		return refuse(head, 502, "bad status line");
	rc = read_framing(head, &is_chunked);
	if (rc < 0)
		return rc;
	/* RFC 9112 6.3 */
	if (request_method == METHOD_HEAD || head->status < 200 || head->status == 204 ||
	    head->status == 304) {
		if (is_chunked && (head->status < 200 || head->status == 204))
			return refuse(head, 502, "Transfer-Encoding in a response without a body");
		head->framing = HTTP1_NO_BODY;
	} else if (is_chunked) {
		head->framing = HTTP1_CHUNKED;
	} else if (head->has_content_length) {
		head->framing = head->content_length ? HTTP1_LENGTH : HTTP1_NO_BODY;
	} else {
		head->framing = HTTP1_UNTIL_CLOSE;
		head->keeps_alive = false;
	}
	return len;
}

/* --- bodies --------------------------------------------------------------------------------------
 */

enum chunk_state {
	CHUNK_SIZE,
	CHUNK_EXT,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	TRAILER_START,
	TRAILER_LINE,
	TRAILER_LF,
	TRAILER_END_LF,
};

#define CHUNK_DIGITS_MAX  16
#define CHUNK_EXT_MAX     256
#define TRAILER_BYTES_MAX 8192

void http1_body_init(struct http1_body *b, const struct http1_head *head)
{
	*b = (struct http1_body) { .framing = head->framing, .state = CHUNK_SIZE };
	if (head->framing == HTTP1_LENGTH)
		b->left = head->content_length;
}

static bool is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

/* Fields that change what the message means must not come behind it (RFC 9110 6.5.1). */
static bool trailer_is_forbidden(const struct http1_body *b)
{
	switch (http_name_id(str_from(b->trailer_name))) {
	case HTTP_CONTENT_LENGTH:
	case HTTP_TRANSFER_ENCODING:
	case HTTP_HOST:
	case HTTP_CONNECTION:
	case HTTP_AUTHORIZATION:
	case HTTP_COOKIE:
	case HTTP_SET_COOKIE:
	case HTTP_EXPECT:
	case HTTP_TE:
	case HTTP_TRAILER:
	case HTTP_UPGRADE:
	case HTTP_CONTENT_TYPE:
	case HTTP_CONTENT_ENCODING:
	case HTTP_X_FORWARDED_FOR:
	case HTTP_X_FORWARDED_HOST:
	case HTTP_X_FORWARDED_PROTO:
		return true;
	default:
		return false;
	}
}

static bool trailer_byte(struct http1_body *b, char c)
{
	if (++b->trailer_bytes > TRAILER_BYTES_MAX)
		return false;
	if (b->trailers)
		buf_putc(b->trailers, c);
	if (b->has_colon)
		return !is_control(c);
	if (c == ':') {
		b->has_colon = true;
		return b->line_bytes > 0 && !trailer_is_forbidden(b);
	}
	if (!http_is_token(str_of(&c, 1)))
		return false;
	if (b->line_bytes + 1U < sizeof(b->trailer_name)) {
		b->trailer_name[b->line_bytes] = (char)tolower((unsigned char)c);
		b->trailer_name[b->line_bytes + 1] = '\0';
	}
	if (b->line_bytes < UINT16_MAX)
		b->line_bytes++;
	return true;
}

/* One byte of framing. Returns false when it breaks the grammar of RFC 9112 7.1. */
static bool chunk_byte(struct http1_body *b, char c)
{
	int digit;

	switch ((enum chunk_state)b->state) {
	case CHUNK_SIZE:
		digit = hex_digit(c);
		if (digit >= 0) {
			if (++b->digits > CHUNK_DIGITS_MAX || b->left > (UINT64_MAX >> 4))
				return false;
			b->left = b->left << 4 | (uint64_t)digit;
			return b->left <= INT64_MAX;
		}
		if (b->digits == 0)
			return false;
		b->line_bytes = 0;
		b->state = c == ';' ? CHUNK_EXT : CHUNK_SIZE_LF;
		return c == ';' || c == '\r';
	case CHUNK_EXT:
		if (c == '\r') {
			b->state = CHUNK_SIZE_LF;
			return true;
		}
		return !is_control(c) && ++b->line_bytes <= CHUNK_EXT_MAX;
	case CHUNK_SIZE_LF:
		b->state = b->left ? CHUNK_DATA : TRAILER_START;
		return c == '\n';
	case CHUNK_DATA:
		return false;
	case CHUNK_DATA_CR:
		b->state = CHUNK_DATA_LF;
		return c == '\r';
	case CHUNK_DATA_LF:
		b->state = CHUNK_SIZE;
		b->digits = 0;
		return c == '\n';
	case TRAILER_START:
		b->line_bytes = 0;
		b->has_colon = false;
		b->trailer_name[0] = '\0';
		if (c == '\r') {
			b->state = TRAILER_END_LF;
			return true;
		}
		b->state = TRAILER_LINE;
		return trailer_byte(b, c);
	case TRAILER_LINE:
		if (c == '\r') {
			b->state = TRAILER_LF;
			if (b->trailers)
				buf_putc(b->trailers, '\n');
			return b->has_colon;
		}
		return trailer_byte(b, c);
	case TRAILER_LF:
		b->state = TRAILER_START;
		return c == '\n';
	case TRAILER_END_LF:
		b->framing = HTTP1_NO_BODY; /* done */
		return c == '\n';
	}
	return false;
}

static enum http1_body_result body_take(struct http1_body *b, struct str bytes, size_t *consumed,
					struct str *data)
{
	size_t n = MIN((uint64_t)bytes.len, b->left);

	*data = str_sub(bytes, 0, n);
	*consumed += n;
	b->left -= n;
	return HTTP1_BODY_DATA;
}

static enum http1_body_result chunked_next(struct http1_body *b, struct str bytes, size_t *consumed,
					   struct str *data)
{
	while (*consumed < bytes.len) {
		if (b->state == CHUNK_DATA) {
			body_take(b, str_sub(bytes, *consumed, bytes.len), consumed, data);
			if (b->left == 0)
				b->state = CHUNK_DATA_CR;
			return HTTP1_BODY_DATA;
		}
		if (!chunk_byte(b, bytes.p[*consumed]))
			return HTTP1_BODY_BAD;
		++*consumed;
		if (b->framing == HTTP1_NO_BODY)
			return HTTP1_BODY_END;
	}
	return HTTP1_BODY_MORE;
}

enum http1_body_result http1_body_next(struct http1_body *b, struct str bytes, size_t *consumed,
				       struct str *data)
{
	*consumed = 0;
	*data = (struct str) { 0 };
	switch (b->framing) {
	case HTTP1_NO_BODY:
		return HTTP1_BODY_END;
	case HTTP1_LENGTH:
		if (b->left == 0) {
			b->framing = HTTP1_NO_BODY;
			return HTTP1_BODY_END;
		}
		return bytes.len ? body_take(b, bytes, consumed, data) : HTTP1_BODY_MORE;
	case HTTP1_CHUNKED:
		return chunked_next(b, bytes, consumed, data);
	case HTTP1_UNTIL_CLOSE:
		*data = bytes;
		*consumed = bytes.len;
		return bytes.len ? HTTP1_BODY_DATA : HTTP1_BODY_MORE;
	}
	return HTTP1_BODY_BAD;
}

bool http1_next_trailer(struct str *lines, struct http_field *out)
{
	struct str line;
	ptrdiff_t colon;

	if (!str_split(lines, '\n', &line))
		return false;
	/* The decoder let nothing else through. */
	colon = str_chr(line, ':');
	if (colon <= 0)
		return false;
	out->name = str_sub(line, 0, (size_t)colon);
	out->value = str_trim(str_sub(line, (size_t)colon + 1, line.len));
	out->id = http_name_id(out->name);
	return true;
}

size_t http1_chunk_head(char out[static HTTP1_CHUNK_HEAD_MAX], size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char digits[16];
	size_t n = 0, at = 0;

	do {
		digits[n++] = hex[len & 15];
		len >>= 4;
	} while (len);
	while (n)
		out[at++] = digits[--n];
	out[at++] = '\r';
	out[at++] = '\n';
	return at;
}
