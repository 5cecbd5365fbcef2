/* SPDX-License-Identifier: Apache-2.0 */
/* base64url without padding (RFC 4648 5), read strictly: one text for each sequence of bytes. */
#pragma once

#include <stddef.h>

#include "lib/str.h"

#define BASE64URL_DECODED_MAX(text_len) ((text_len) / 4 * 3 + 3)
#define BASE64URL_ENCODED_LEN(len)      (((len)*4 + 2) / 3)

/*
 * `out` has room for BASE64URL_DECODED_MAX(text.len). Returns the number of bytes, or -EINVAL for
 * anything outside the alphabet (also "=" and white space), an impossible length, or unused bits
 * that are not zero.
 */
long base64url_decode(void *out, struct str text);
/* Writes BASE64URL_ENCODED_LEN(len) characters, no NUL. Returns their number. */
size_t base64url_encode(char *out, const void *data, size_t len);
