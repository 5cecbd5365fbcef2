/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/claims.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "lib/cleanup.h"

#define MAX_NUMBER 64 /* bytes; nobody means more digits */

/* A member's name, for the search for repeated ones. */
struct member {
	struct str name;
	uint32_t hash;
	unsigned object;
};

/* One for each thread: what is read is used at once or copied. */
static _Thread_local struct {
	struct claim claims[CLAIMS_MAX];
	struct member members[CLAIMS_MAX];
	char json[CLAIMS_MAX_BYTES];
	char extra[2 * CLAIMS_MAX_BYTES]; /* decoded strings and, of lists, joined ones */
} scratch;

struct reader {
	const unsigned char *p, *end;
	char *json, *extra; /* where the next byte goes */
	unsigned members, claims, objects;
	int depth;
};

static void skip_space(struct reader *r)
{
	while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
		r->p++;
}

/* The next byte that is no white space, which stays there; -1 at the end. */
static int peek(struct reader *r)
{
	skip_space(r);
	return r->p < r->end ? *r->p : -1;
}

/* What is written is never longer than what was read. */
static void copy(struct reader *r, size_t len)
{
	memcpy(r->json, r->p, len);
	r->json += len;
	r->p += len;
}

static bool take(struct reader *r, char c)
{
	if (peek(r) != c)
		return false;
	copy(r, 1);
	return true;
}

/* --- strings ------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 sequence at p (RFC 3629: shortest form, no surrogates); 0: none. */
static size_t utf8_len(const unsigned char *p, const unsigned char *end)
{
	size_t len = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	if (len == 0 || (size_t)(end - p) < len)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

static char *put_utf8(char *to, uint32_t c)
{
	if (c < 0x80) {
		*to++ = (char)c;
		return to;
	}
	if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
	} else {
		if (c < 0x10000) {
			*to++ = (char)(0xe0 | c >> 12);
		} else {
			*to++ = (char)(0xf0 | c >> 18);
			*to++ = (char)(0x80 | (c >> 12 & 0x3f));
		}
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
	}
	*to++ = (char)(0x80 | (c & 0x3f));
	return to;
}

/* Four hex digits; -1: not there. */
static int32_t hex4(const unsigned char *p, const unsigned char *end)
{
	int32_t value = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		unsigned char c = p[i];

		value = value << 4;
		if (c >= '0' && c <= '9')
			value |= c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			value |= (c | 0x20) - 'a' + 10;
		else
			return -1;
	}
	return value;
}

/* Decodes the escape at p, behind its backslash. Returns its length there, 0 when it is none. A NUL
 * and halves of surrogate pairs are none: readers in other languages make different things of them.
 */
static size_t unescape(const unsigned char *p, const unsigned char *end, char **to)
{
	static const char letters[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
	int32_t c, low;

	if (p == end)
		return 0;
	for (size_t i = 0; *p != 'u' && i < sizeof(letters) - 1; i += 2) {
		if (*p == (unsigned char)letters[i]) {
			*(*to)++ = letters[i + 1];
			return 1;
		}
	}
	c = *p == 'u' ? hex4(p + 1, end) : -1;
	if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff))
		return 0;
	if (c < 0xd800 || c > 0xdbff) {
		*to = put_utf8(*to, (uint32_t)c);
		return 5;
	}
	if (end - p < 11 || p[5] != '\\' || p[6] != 'u')
		return 0;
	low = hex4(p + 7, end);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*to = put_utf8(*to, 0x10000 + ((uint32_t)(c - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
	return 11;
}

/* The decoded text of a string whose quotes are cut off and which was seen to be sound. */
static struct str decode(struct str raw, char *to)
{
	const unsigned char *p = (const unsigned char *)raw.p, *end = p + raw.len;
	char *begin = to;

	while (p < end) {
		if (*p == '\\')
			p += 1 + unescape(p + 1, end, &to);
		else
			*to++ = (char)*p++;
	}
	return str_of(begin, (size_t)(to - begin));
}

/* Letters that end nothing and need no second look. */
static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static bool read_string(struct reader *r, struct str *text)
{
	const unsigned char *p = r->p + 1; /* behind the quote */
	bool has_escape = false;
	char ignored[4], *to;
	size_t len;

	for (;;) {
		while (p < r->end && is_plain(*p))
			p++;
		if (p == r->end)
			return false;
		if (*p == '"')
			break;
		if (*p == '\\') {
			to = ignored;
			len = unescape(p + 1, r->end, &to);
			has_escape = true;
			p += len ? 1 : 0;
		} else {
			len = utf8_len(p, r->end);
		}
		if (len == 0)
			return false;
		p += len;
	}
	*text = str_of(r->json + 1, (size_t)(p - r->p) - 1);
	copy(r, (size_t)(p - r->p) + 1);
	if (has_escape) {
		*text = decode(*text, r->extra);
		r->extra += text->len;
	}
	return true;
}

/* --- numbers and words --------------------------------------------------------------------- */

static bool skip_digits(const unsigned char **p, const unsigned char *end)
{
	const unsigned char *begin = *p;

	while (*p < end && **p >= '0' && **p <= '9')
		(*p)++;
	return *p > begin;
}

static bool fits_64_bits(const char *text)
{
	errno = 0;
	return strtoll(text, NULL, 10) != 0 && errno == 0;
}

/* Integers beyond 64 bits and reals beyond a double are refused: nobody could tell what they mean.
 */
static bool read_number(struct reader *r)
{
	const unsigned char *p = r->p;
	char text[MAX_NUMBER];
	bool is_real = false;
	size_t len;

	p += p < r->end && *p == '-';
	if (p < r->end && *p == '0')
		p++;
	else if (!skip_digits(&p, r->end))
		return false;
	if (p < r->end && *p == '.') {
		is_real = true;
		p++;
		if (!skip_digits(&p, r->end))
			return false;
	}
	if (p < r->end && (*p | 0x20) == 'e') {
		is_real = true;
		p++;
		p += p < r->end && (*p == '+' || *p == '-');
		if (!skip_digits(&p, r->end))
			return false;
	}
	len = (size_t)(p - r->p);
	if (len >= sizeof(text))
		return false;
	memcpy(text, r->p, len);
	text[len] = '\0';
	if (is_real ? isinf(strtod(text, NULL)) : len > 18 && !fits_64_bits(text))
		return false;
	copy(r, len);
	return true;
}

static bool read_word(struct reader *r, struct str word)
{
	if ((size_t)(r->end - r->p) < word.len || memcmp(r->p, word.p, word.len) != 0)
		return false;
	copy(r, word.len);
	return true;
}

/* --- lists and objects --------------------------------------------------------------------- */

struct value {
	enum claim_kind kind;
	struct str text;
};

static bool read_value(struct reader *r, int claim, struct value *out);

/* Whether it is the first member of that name in its object. */
static bool note_member(struct reader *r, struct str name, unsigned object)
{
	uint32_t hash = 2166136261U;

	for (size_t i = 0; i < name.len; i++)
		hash = (hash ^ (unsigned char)name.p[i]) * 16777619U;
	for (unsigned i = 0; i < r->members; i++) {
		const struct member *m = &scratch.members[i];

		if (m->hash == hash && m->object == object && str_eq(m->name, name))
			return false;
	}
	if (r->members == CLAIMS_MAX)
		return false;
	scratch.members[r->members++] = (struct member) { name, hash, object };
	return true;
}

/* `parent` -2: within a list, where members have no path. */
static bool read_member(struct reader *r, int parent, unsigned object)
{
	struct claim *claim = NULL;
	struct value value;
	struct str name;
	int index = -2;
	char *begin;

	if (peek(r) != '"' || !read_string(r, &name) || !note_member(r, name, object) ||
	    !take(r, ':'))
		return false;
	skip_space(r);
	begin = r->json;
	if (parent != -2) {
		index = (int)r->claims++;
		claim = &scratch.claims[index];
	}
	if (!read_value(r, index, &value))
		return false;
	if (claim)
		*claim = (struct claim) {
			.name = name,
			.kind = value.kind,
			.parent = parent,
			.text = value.text,
			.json = str_of(begin, (size_t)(r->json - begin)),
		};
	return true;
}

static bool read_object(struct reader *r, int claim)
{
	unsigned object = r->objects++;

	if (++r->depth > CLAIMS_MAX_DEPTH || !take(r, '{'))
		return false;
	if (peek(r) != '}') {
		do {
			if (!read_member(r, claim, object))
				return false;
		} while (take(r, ','));
	}
	r->depth--;
	return take(r, '}');
}

/* A list of one string is that string, others are joined. */
static struct str join(struct reader *r, struct str json)
{
	char *begin = r->extra;
	struct str item;
	bool is_string;

	while (claims_next_item(&json, &item, &is_string, r->extra + (r->extra > begin))) {
		if (r->extra > begin)
			*r->extra++ = ',';
		memmove(r->extra, item.p, item.len);
		r->extra += item.len;
	}
	return str_of(begin, (size_t)(r->extra - begin));
}

static bool read_list(struct reader *r, bool is_claim, struct value *out)
{
	char *begin = r->json, *extra = r->extra;
	bool is_all_strings = true;
	struct value item;
	size_t count = 0;

	if (++r->depth > CLAIMS_MAX_DEPTH || !take(r, '['))
		return false;
	if (peek(r) != ']') {
		do {
			skip_space(r);
			if (!read_value(r, -2, &item))
				return false;
			is_all_strings &= item.kind == CLAIM_STRING;
			count++;
		} while (take(r, ','));
	}
	r->depth--;
	if (!take(r, ']'))
		return false;
	out->text = str_of(begin, (size_t)(r->json - begin));
	if (!is_claim || count == 0 || !is_all_strings)
		return true;
	out->kind = CLAIM_LIST;
	if (count == 1) {
		out->text = item.text;
		return true;
	}
	r->extra = extra; /* the items' own texts are needed no more */
	out->text = join(r, out->text);
	return true;
}

/* `claim`: its index, -2 when it is within a list. The next byte is no white space. */
static bool read_value(struct reader *r, int claim, struct value *out)
{
	char *begin = r->json;
	bool is_good;

	*out = (struct value) { .kind = CLAIM_OTHER };
	if (r->p == r->end)
		return false;
	switch (*r->p) {
	case '"':
		out->kind = CLAIM_STRING;
		return read_string(r, &out->text);
	case '{':
		is_good = read_object(r, claim);
		break;
	case '[':
		return read_list(r, claim != -2, out);
	case 't':
	case 'f':
		out->kind = CLAIM_BOOL;
		is_good = read_word(r, *r->p == 't' ? STR("true") : STR("false"));
		break;
	case 'n':
		out->kind = CLAIM_NULL;
		is_good = read_word(r, STR("null"));
		break;
	default:
		out->kind = CLAIM_NUMBER;
		is_good = read_number(r);
	}
	out->text = str_of(begin, (size_t)(r->json - begin));
	return is_good;
}

int claims_parse(struct claims *out, struct str text)
{
	struct reader r = {
		.p = (const unsigned char *)text.p,
		.end = (const unsigned char *)text.p + text.len,
		.json = scratch.json,
		.extra = scratch.extra,
	};

	*out = (struct claims) { 0 };
	if (text.len > CLAIMS_MAX_BYTES || peek(&r) != '{' || !read_object(&r, -1) ||
	    peek(&r) != -1)
		return -EINVAL;
	*out = (struct claims) {
		.list = scratch.claims,
		.count = r.claims,
		.json = str_of(scratch.json, (size_t)(r.json - scratch.json)),
		.extra = str_of(scratch.extra, (size_t)(r.extra - scratch.extra)),
	};
	return 0;
}

/* --- use ----------------------------------------------------------------------------------- */

static bool is_at(const struct claim *list, const struct claim *claim, struct str path)
{
	while (claim->parent >= 0) {
		size_t len = claim->name.len;

		if (path.len <= len + 1 || path.p[path.len - len - 1] != '.' ||
		    !str_ends(path, claim->name))
			return false;
		path.len -= len + 1;
		claim = &list[claim->parent];
	}
	return str_eq(claim->name, path);
}

static const struct claim *unless_null(const struct claim *claim)
{
	return claim->kind == CLAIM_NULL ? NULL : claim;
}

const struct claim *claims_find(const struct claim *list, size_t count, struct str name)
{
	for (size_t i = 0; i < count; i++) {
		if (list[i].parent < 0 && str_eq(list[i].name, name))
			return unless_null(&list[i]);
	}
	if (str_chr(name, '.') < 0)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (list[i].parent >= 0 && is_at(list, &list[i], name))
			return unless_null(&list[i]);
	}
	return NULL;
}

bool claim_is_safe(const struct claim *claim)
{
	struct str text = claim->text;

	/* Whoever reads the header trims it (RFC 9110 5.5): " a" would become the user "a". */
	if (text.len && (text.p[0] == ' ' || text.p[text.len - 1] == ' '))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.p[i];

		if (c < 0x20 || c == 0x7f)
			return false;
	}
	return true;
}

/* Where the value at the begin of the text ends; the text is sound JSON without white space. */
static size_t value_len(struct str text)
{
	bool in_string = false;
	int depth = 0;
	size_t i = 0;

	for (; i < text.len; i++) {
		char c = text.p[i];

		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (in_string)
			continue;
		else if (c == '[' || c == '{')
			depth++;
		else if ((c == ',' || c == ']') && depth == 0)
			break;
		else if (c == ']' || c == '}')
			depth--;
	}
	return i;
}

bool claims_next_item(struct str *rest, struct str *item, bool *is_string, char *room)
{
	size_t len;

	/* "[a,b]", then ",b]", then "]". */
	if (rest->len < 2)
		return false;
	*rest = str_sub(*rest, 1, rest->len);
	len = value_len(*rest);
	if (len == 0)
		return false; /* "[]" */
	*item = str_sub(*rest, 0, len);
	*rest = str_sub(*rest, len, rest->len);
	*is_string = item->p[0] == '"';
	if (!*is_string)
		return true;
	*item = str_sub(*item, 1, len - 1);
	if (memchr(item->p, '\\', item->len))
		*item = decode(*item, room);
	return true;
}
