/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/names.h"

#include "lib/cleanup.h"
#include "lib/json.h"

static const struct {
	struct str prefix;
	char separator; /* which a star does not cover; 0: it covers everything */
	bool ignores_case;
	const char *claim;
} kinds[] = {
	{ STR("uri:"), '/', false, "uri" },
	{ STR("dns:"), '.', true, "dns" },
	{ STR("email:"), '@', true, "email" },
	{ STR("cn:"), 0, false, "cn" },
};

static size_t kind_of(struct str name)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(kinds) && !str_starts(name, kinds[i].prefix))
		i++;
	return i;
}

const char *names_check_pattern(struct str pattern)
{
	size_t kind = kind_of(pattern);

	if (kind == ARRAY_SIZE(kinds) || pattern.len == kinds[kind].prefix.len)
		return "must be \"uri:…\", \"dns:…\", \"email:…\" or \"cn:…\"";
	for (size_t i = 0, stars = 0; i < pattern.len; i++) {
		stars += pattern.p[i] == '*';
		if (stars > 2)
			return "may have at most two \"*\"";
	}
	return NULL;
}

/* Recursion goes no deeper than there are stars. */
static bool glob(struct str pattern, struct str text, size_t kind)
{
	size_t at = 0;

	for (; at < pattern.len && pattern.p[at] != '*'; at++) {
		char a = pattern.p[at], b = at < text.len ? text.p[at] : 0;

		if (at >= text.len || (kinds[kind].ignores_case ? tolower((unsigned char)a) !=
									  tolower((unsigned char)b)
								: a != b))
			return false;
	}
	text = str_sub(text, at, text.len);
	if (at == pattern.len)
		return text.len == 0;
	pattern = str_sub(pattern, at + 1, pattern.len);
	if (pattern.len == 0 && kinds[kind].separator == '/')
		return text.len > 0;
	for (size_t len = 0; len <= text.len; len++) {
		if (len && text.p[len - 1] == kinds[kind].separator)
			return false;
		if (len && glob(pattern, str_sub(text, len, text.len), kind))
			return true;
	}
	return false;
}

bool names_fit(struct str pattern, struct str name)
{
	size_t kind = kind_of(name);

	if (kind == ARRAY_SIZE(kinds) || !str_starts(pattern, kinds[kind].prefix))
		return false;
	return glob(str_sub(pattern, kinds[kind].prefix.len, pattern.len),
		    str_sub(name, kinds[kind].prefix.len, name.len), kind);
}

struct str names_find(struct str names, const struct str *patterns, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct str rest = names, name;

		while (str_split(&rest, '\n', &name)) {
			if (name.len && names_fit(patterns[i], name))
				return str_sub(name, kinds[kind_of(name)].prefix.len, name.len);
		}
	}
	return (struct str) { 0 };
}

void names_write_claims(struct str names, struct str user, struct buf *out)
{
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_add_str(&w, "sub", user);
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		struct str rest = names, name;

		json_open(&w, kinds[kind].claim, '[');
		while (str_split(&rest, '\n', &name)) {
			if (name.len && kind_of(name) == kind)
				json_add_str(&w, NULL,
					     str_sub(name, kinds[kind].prefix.len, name.len));
		}
		json_close(&w, ']');
	}
	json_close(&w, '}');
}
