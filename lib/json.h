/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON written straight into a buffer, without a tree: for log lines, API answers and errors.
 * Reading is jansson's. The writer puts the commas; keys and values are escaped (RFC 8259 7), bytes
 * that are no UTF-8 become U+FFFD.
 */
#pragma once

#include "lib/buf.h"

/* `s` with quotes, escaped. (Not json_string, nor any other name of jansson's: both are linked.) */
void json_quote(struct buf *out, struct str s);
/* Well-formed UTF-8 without NUL. */
bool json_is_text(struct str s);

struct json_writer {
	struct buf *out;
	bool needs_comma;
};

static inline struct json_writer json_writer(struct buf *out)
{
	return (struct json_writer) { .out = out };
}

/* `key` is NULL inside arrays and at the top. */
void json_open(struct json_writer *w, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json_writer *w, char bracket);                 /* '}' or ']' */
void json_add_str(struct json_writer *w, const char *key, struct str value);
void json_addz(struct json_writer *w, const char *key, const char *value);
void json_add_u64(struct json_writer *w, const char *key, uint64_t value);
void json_add_i64(struct json_writer *w, const char *key, int64_t value);
void json_add_double(struct json_writer *w, const char *key, double value);
/* 1234 is 1.234, without the arithmetic of floating point. */
void json_add_thousandths(struct json_writer *w, const char *key, uint64_t value);
void json_add_bool(struct json_writer *w, const char *key, bool value);
void json_add_null(struct json_writer *w, const char *key);
/* A value that is JSON already. */
void json_add_raw(struct json_writer *w, const char *key, struct str json);
/* A member whose key is not a constant. */
void json_add_pair(struct json_writer *w, struct str key, struct str value);
