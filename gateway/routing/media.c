/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/media.h"

#include "lib/http.h"

/* Cuts the next piece off at `sep`, which may stand in a quoted string, too. */
static bool next_piece(struct str *rest, char sep, struct str *out)
{
	bool in_quotes = false;
	size_t i;

	if (!rest->p)
		return false;
	for (i = 0; i < rest->len; i++) {
		if (in_quotes && rest->p[i] == '\\')
			i++;
		else if (rest->p[i] == '"')
			in_quotes = !in_quotes;
		else if (!in_quotes && rest->p[i] == sep)
			break;
	}
	if (i >= rest->len) {
		*out = str_trim(*rest);
		*rest = (struct str) { 0 };
	} else {
		*out = str_trim(str_sub(*rest, 0, i));
		*rest = str_sub(*rest, i + 1, rest->len);
	}
	return true;
}

static void split_parameter(struct str piece, struct str *name, struct str *value)
{
	ptrdiff_t at = str_chr(piece, '=');

	*name = at < 0 ? piece : str_sub(piece, 0, (size_t)at);
	*value = at < 0 ? STR("") : str_sub(piece, (size_t)at + 1, piece.len);
	if (value->len >= 2 && value->p[0] == '"' && value->p[value->len - 1] == '"')
		*value = str_sub(*value, 1, value->len - 1);
}

const char *media_check(struct str type)
{
	static const char complaint[] =
		"must be a media type such as \"application/vnd.example.v2+json\" or "
		"\"application/json;version=2\"";
	struct str piece, name, value;
	ptrdiff_t slash;

	if (!next_piece(&type, ';', &piece))
		return complaint;
	slash = str_chr(piece, '/');
	if (slash < 0 || !http_is_token(str_sub(piece, 0, (size_t)slash)) ||
	    !http_is_token(str_sub(piece, (size_t)slash + 1, piece.len)))
		return complaint;
	if (str_chr(piece, '*') >= 0)
		return "must not have a *: a route without it takes what no other takes";
	while (next_piece(&type, ';', &piece)) {
		split_parameter(piece, &name, &value);
		if (!http_is_token(name) || !http_is_token(value))
			return complaint;
		if (str_ieq(name, STR("q")))
			return "must not have a q, which is the client's";
	}
	return NULL;
}

/* Whether the parameters have this one. */
static bool has_parameter(struct str parameters, struct str name, struct str value)
{
	struct str piece, other, is;

	while (next_piece(&parameters, ';', &piece)) {
		split_parameter(piece, &other, &is);
		if (str_ieq(other, name) && str_ieq(is, value))
			return true;
	}
	return false;
}

/* "0", "1", "0.5", "0.333"; what is none of these is as if it were not there. */
static unsigned read_quality(struct str parameters)
{
	struct str piece, name, value;
	unsigned quality = 0, scale = 1000;

	while (next_piece(&parameters, ';', &piece)) {
		split_parameter(piece, &name, &value);
		if (!str_ieq(name, STR("q")))
			continue;
		for (size_t i = 0; i < value.len; i++) {
			if (i == 1 && value.p[i] == '.')
				continue;
			if (!isdigit((unsigned char)value.p[i]) || i > 4)
				return 1000;
			quality += scale * (unsigned)(value.p[i] - '0');
			scale /= 10;
		}
		return quality > 1000 || value.len == 0 ? 1000 : quality;
	}
	return 1000;
}

static bool range_fits(struct str range, struct str parameters, struct str type, bool wildcards)
{
	struct str name, piece, key, value;
	ptrdiff_t slash;

	if (!next_piece(&type, ';', &name))
		return false;
	slash = str_chr(name, '/');
	if (wildcards &&
	    (str_eq(range, STR("*/*")) ||
	     (str_ends(range, STR("/*")) && slash >= 0 &&
	      str_ieq(str_sub(range, 0, range.len - 1), str_sub(name, 0, (size_t)slash + 1)))))
		return true;
	if (!str_ieq(range, name))
		return false;
	while (next_piece(&type, ';', &piece)) {
		split_parameter(piece, &key, &value);
		if (!has_parameter(parameters, key, value))
			return false;
	}
	return true;
}

unsigned media_quality(struct str list, struct str type, bool wildcards)
{
	struct str element, range;
	unsigned best = 0;

	while (next_piece(&list, ',', &element)) {
		unsigned quality;

		if (!next_piece(&element, ';', &range))
			continue;
		quality = read_quality(element);
		if (quality > best && range_fits(range, element, type, wildcards))
			best = quality;
	}
	return best;
}
