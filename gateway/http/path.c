/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/path.h"

#include <errno.h>

#include "lib/cleanup.h"
#include "lib/hex.h"

enum byte_class {
	BYTE_PLAIN,  /* kept as it is */
	BYTE_ENCODE, /* allowed by nobody's grammar but sent by some: written as %XX */
	BYTE_SLASH,
	BYTE_PERCENT,
	BYTE_PARAMETER, /* ; */
	BYTE_BACKSLASH,
	BYTE_BAD,
};

/* RFC 3986: pchar is unreserved / sub-delims / ":" / "@"; the rest is another byte class. */
static const uint8_t byte_classes[256] = {
	[0 ... 0x20] = BYTE_BAD,
	['!'] = BYTE_PLAIN,
	['"'] = BYTE_ENCODE,
	['#'] = BYTE_BAD,
	['$'] = BYTE_PLAIN,
	['%'] = BYTE_PERCENT,
	['&' ... '.'] = BYTE_PLAIN,
	['/'] = BYTE_SLASH,
	['0' ... ':'] = BYTE_PLAIN,
	[';'] = BYTE_PARAMETER,
	['<'] = BYTE_ENCODE,
	['='] = BYTE_PLAIN,
	['>'] = BYTE_ENCODE,
	['?'] = BYTE_BAD,
	['@' ... 'Z'] = BYTE_PLAIN,
	['['] = BYTE_ENCODE,
	['\\'] = BYTE_BACKSLASH,
	[']' ... '^'] = BYTE_ENCODE,
	['_'] = BYTE_PLAIN,
	['`'] = BYTE_ENCODE,
	['a' ... 'z'] = BYTE_PLAIN,
	['{' ... '}'] = BYTE_ENCODE,
	['~'] = BYTE_PLAIN,
	[0x7f] = BYTE_BAD,
	[0x80 ... 0xff] = BYTE_ENCODE,
};

static bool is_unreserved(unsigned char c)
{
	return isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

/* Nothing to do: plain bytes, single slashes, no segment that begins with a dot. */
static bool is_clean(struct str path)
{
	unsigned char before = 0;

	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.p[i];

		if (byte_classes[c] > BYTE_PLAIN && c != '/')
			return false;
		if (before == '/' && (c == '/' || c == '.'))
			return false;
		before = c;
	}
	return true;
}

static size_t write_escape(char *out, unsigned char c)
{
	static const char digits[] = "0123456789ABCDEF";

	out[0] = '%';
	out[1] = digits[c >> 4];
	out[2] = digits[c & 15];
	return 3;
}

/* Whether an escape stands for something that is refused; the sentence, or NULL. */
static const char *refuse_escape(unsigned char c, unsigned allow)
{
	if (c == 0 && !(allow & PATH_ALLOW_NUL))
		return "the path holds %00";
	if (c == '/' && !(allow & PATH_ALLOW_ENCODED_SLASH))
		return "the path holds an encoded slash";
	if (c == '\\' && !(allow & PATH_ALLOW_BACKSLASH))
		return "the path holds a backslash";
	return NULL;
}

/*
 * Decodes unreserved escapes, writes all others in upper case and bytes that need it as escapes.
 * `out` has room for three times the path. Slashes and dots are looked at afterwards, so that %2e
 * counts as a dot and a decoded byte is never decoded again.
 */
static const char *decode(struct str path, unsigned allow, char *out, size_t *out_len)
{
	size_t len = 0;

	for (size_t i = 0; i < path.len; i++) {
		unsigned char c = (unsigned char)path.p[i];
		const char *problem;
		int high, low;

		switch ((enum byte_class)byte_classes[c]) {
		case BYTE_BAD:
			return "the path holds a byte that is not allowed there";
		case BYTE_PARAMETER:
			if (!(allow & PATH_ALLOW_PARAMETERS))
				return "the path holds a parameter (;)";
			out[len++] = ';';
			break;
		case BYTE_BACKSLASH:
			if (!(allow & PATH_ALLOW_BACKSLASH))
				return "the path holds a backslash";
			len += write_escape(out + len, c);
			break;
		case BYTE_ENCODE:
			len += write_escape(out + len, c);
			break;
		case BYTE_PERCENT:
			high = i + 2 < path.len ? hex_digit(path.p[i + 1]) : -1;
			low = i + 2 < path.len ? hex_digit(path.p[i + 2]) : -1;
			if (high < 0 || low < 0)
				return "the path holds a % without two hexadecimal digits";
			i += 2;
			c = (unsigned char)(high << 4 | low);
			problem = refuse_escape(c, allow);
			if (problem)
				return problem;
			if (is_unreserved(c))
				out[len++] = (char)c;
			else
				len += write_escape(out + len, c);
			break;
		case BYTE_PLAIN:
		case BYTE_SLASH:
		default:
			out[len++] = (char)c;
			break;
		}
	}
	*out_len = len;
	return NULL;
}

/*
 * Merges slashes and removes dot segments, in place. ".." above the root stays at the root (RFC
 * 3986 5.2.4). Parameters of a dot segment ("..;x") are no disguise for it: some services cut them
 * off first.
 */
static size_t remove_dots(char *p, size_t len)
{
	size_t from = 0, to = 0; /* p[0..to) is done and does not end in a slash, unless empty */

	while (from < len) {
		struct str segment;
		size_t end = from + 1, name;

		while (end < len && p[end] != '/')
			end++;
		segment = str_of(p + from + 1, end - from - 1);
		name = segment.len;
		if (str_chr(segment, ';') >= 0)
			name = (size_t)str_chr(segment, ';');
		if (name == 2 && segment.p[0] == '.' && segment.p[1] == '.') {
			while (to > 0 && p[--to] != '/')
				;
		} else if (!(name == 1 && segment.p[0] == '.') && segment.len > 0) {
			memmove(p + to, p + from, end - from);
			to += end - from;
			from = end;
			continue;
		}
		/* An empty or dot segment at the end leaves its slash. */
		if (end == len)
			p[to++] = '/';
		from = end;
	}
	return to;
}

int path_normalise(struct str *out, struct str path, unsigned allow, struct arena *a,
		   const char **problem)
{
	size_t len = 0;
	char *p;

	if (path.len == 0 || path.p[0] != '/') {
		*problem = "the path does not begin with a slash";
		return -EINVAL;
	}
	if (is_clean(path)) {
		*out = path;
		return 0;
	}
	p = path.len < SIZE_MAX / 3 ? arena_alloc(a, 3 * path.len) : NULL;
	if (!p)
		return -ENOMEM;
	*problem = decode(path, allow, p, &len);
	if (*problem)
		return -EINVAL;
	*out = str_of(p, remove_dots(p, len));
	return 0;
}
