/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1 messages on the wire (RFC 9112), read strictly: heads by llhttp plus our own checks,
 * bodies by a decoder. No I/O. Whatever two implementations might read differently is refused,
 * because that is how requests are smuggled.
 */
#pragma once

#include "lib/buf.h"
#include "lib/http.h"

struct http1_limits {
	size_t head_bytes;   /* whole head; 431 beyond */
	size_t target_bytes; /* request target; 414 beyond */
	size_t fields;       /* at most HTTP1_FIELDS_MAX; 431 beyond */
};

#define HTTP1_FIELDS_MAX 128
extern const struct http1_limits http1_default_limits; /* 32 KiB, 8 KiB, 100 */

/* How a body ends (RFC 9112 6.3). */
enum http1_framing {
	HTTP1_NO_BODY,
	HTTP1_LENGTH,
	HTTP1_CHUNKED,
	HTTP1_UNTIL_CLOSE, /* responses only; such a connection is never reused */
};

/* A parsed head. All slices point into the bytes that were parsed and live as long as these stay in
 * place. */
struct http1_head {
	struct http_field fields[HTTP1_FIELDS_MAX];
	size_t field_count;
	unsigned minor; /* HTTP/1.0 or 1.1 */

	/* requests */
	struct str method;
	enum http_method method_id;
	struct str target;    /* as sent */
	struct str authority; /* of an absolute-form target, else the Host field; "" in HTTP/1.0
				 without Host */
	struct str path;      /* "/…", or "*" for OPTIONS * */
	struct str query;     /* behind "?", p NULL when there is no "?" */

	/* responses */
	unsigned status;
	struct str reason;

	enum http1_framing framing;
	uint64_t content_length; /* with HTTP1_LENGTH */
	bool has_content_length; /* given, though perhaps without a body (HEAD, 304) */
	bool keeps_alive;        /* what version and Connection say */
	bool expects_continue;   /* HTTP/1.1 and "Expect: 100-continue" */
	bool asks_upgrade;       /* Upgrade field named by Connection */
	bool has_connection;     /* a Connection field, whose members are hop-by-hop too */

	/* Behind a negative result: what was wrong, a constant sentence. */
	const char *problem;
};

/*
 * How far an incomplete head has been looked at, so that each byte is looked at once. Zero it for
 * each message.
 */
struct http1_scan {
	size_t at;
	bool has_line; /* the start line is complete */
};

/*
 * Reads one request head from the front of `bytes`. Returns its length including the empty line; 0
 * when more bytes are needed; or minus the status to answer with (-400, -414, -431, -501, -505),
 * after which the connection's framing is in doubt and it must be closed. One empty line in front
 * is skipped (RFC 9112 2.2).
 */
long http1_parse_request(struct http1_head *out, struct http1_scan *scan, struct str bytes,
			 const struct http1_limits *limits);

/* Whether http1_parse_request takes this method; it answers others with 501. */
bool http1_knows_method(struct str method);

/*
 * The same for a response to a request with the given method. Any negative result means 502.
 * Interim responses (1xx) are returned like others, without body.
 */
long http1_parse_response(struct http1_head *out, struct http1_scan *scan, struct str bytes,
			  const struct http1_limits *limits, enum http_method request_method);

/* Decoder of one body with a known end. Set up by http1_body_init; plain value, nothing to free. */
struct http1_body {
	enum http1_framing framing;
	uint64_t left; /* bytes of the length, or of the current chunk */
	uint8_t state;
	uint8_t digits;         /* of the chunk size */
	uint16_t line_bytes;    /* of the current extension or trailer line */
	uint16_t trailer_bytes; /* of all trailer lines */
	bool has_colon;
	char trailer_name[24]; /* lower case, cut: long enough for the forbidden ones */
	/* Where trailer lines are collected, for http1_next_trailer; NULL: dropped. Set it after
	 * http1_body_init. */
	struct buf *trailers;
};

enum http1_body_result {
	HTTP1_BODY_MORE, /* everything was consumed */
	HTTP1_BODY_DATA, /* *data is a piece of content */
	HTTP1_BODY_END,  /* the body is complete; bytes behind it are the next message */
	HTTP1_BODY_BAD,  /* framing broken: close */
};

void http1_body_init(struct http1_body *b, const struct http1_head *head);
/*
 * Decodes from the front of `bytes`, says in *consumed how much it took. Call again until MORE, END
 * or BAD. A length of 0 or no body gives END at once. UNTIL_CLOSE never ends by itself.
 */
enum http1_body_result http1_body_next(struct http1_body *b, struct str bytes, size_t *consumed,
				       struct str *data);
static inline bool http1_body_is_done(const struct http1_body *b)
{
	return b->framing == HTTP1_NO_BODY;
}

/* Takes the first field off collected trailer lines. False at their end. */
bool http1_next_trailer(struct str *lines, struct http_field *out);

/* Whether bytes must still come: not when a body of known length has them all, but its end was not
 * asked for yet. */
static inline bool http1_body_left(const struct http1_body *b)
{
	return b->framing != HTTP1_NO_BODY && (b->framing != HTTP1_LENGTH || b->left);
}

/* Writes the size line of a chunk of `len` > 0 bytes; the data and a CRLF follow it. */
#define HTTP1_CHUNK_HEAD_MAX 18
size_t http1_chunk_head(char out[static HTTP1_CHUNK_HEAD_MAX], size_t len);
