/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transcode/http_rule.h"

#include <errno.h>

#include "lib/cleanup.h"
#include "lib/http_server.h"
#include "lib/json.h"

/* --- reading templates --------------------------------------------------------------------- */

struct reader {
	struct http_rule *rule;
	struct str text;
	size_t at;
	struct err *err;
};

static int fail(struct reader *in, const char *what)
{
	char shown[201] = "";

	memcpy(shown, in->text.p, MIN(in->text.len, sizeof(shown) - 1));
	return err_set(in->err, -EINVAL, "path template \"%s\": %s at byte %zu", shown, what,
		       in->at);
}

static bool take(struct reader *in, char c)
{
	if (in->at >= in->text.len || in->text.p[in->at] != c)
		return false;
	in->at++;
	return true;
}

static struct str take_until(struct reader *in, const char *ends)
{
	size_t from = in->at;

	while (in->at < in->text.len && !strchr(ends, in->text.p[in->at]))
		in->at++;
	return str_sub(in->text, from, in->at);
}

static int add_segment(struct reader *in, struct str literal)
{
	struct http_rule *rule = in->rule;

	if (rule->has_rest)
		return fail(in, "nothing may follow \"**\"");
	if (rule->segment_count >= HTTP_RULE_SEGMENTS_MAX)
		return fail(in, "too many segments");
	rule->segments[rule->segment_count++].literal = literal;
	return 0;
}

/* "*", "**" or a literal. */
static int read_plain(struct reader *in, const char *ends)
{
	struct str word = take_until(in, ends);

	if (str_eq(word, STR("**"))) {
		if (in->rule->has_rest)
			return fail(in, "a second \"**\"");
		in->rule->has_rest = true;
		return 0;
	}
	if (str_eq(word, STR("*")))
		return add_segment(in, (struct str) { 0 });
	if (word.len == 0)
		return fail(in, "an empty segment");
	for (size_t i = 0; i < word.len; i++) {
		if (strchr("{}*=", word.p[i]))
			return fail(in, "a character that has no place in a segment");
	}
	return add_segment(in, word);
}

static bool is_field_path(struct str s)
{
	bool begins = true;

	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c == '.' ? begins
			     : !(isalpha((unsigned char)c) || c == '_' ||
				 (!begins && isdigit((unsigned char)c))))
			return false;
		begins = c == '.';
	}
	return !begins;
}

static int read_variable(struct reader *in)
{
	struct http_rule *rule = in->rule;
	struct http_rule_variable *v = &rule->variables[rule->variable_count];
	int rc;

	if (rule->variable_count >= HTTP_RULE_VARIABLES_MAX)
		return fail(in, "too many variables");
	*v = (struct http_rule_variable) { .from = rule->segment_count };
	v->field = take_until(in, "=}");
	if (!is_field_path(v->field))
		return fail(in, "a variable must name a field");
	if (take(in, '=')) {
		do {
			rc = read_plain(in, "/}");
		} while (rc == 0 && take(in, '/'));
	} else {
		rc = add_segment(in, (struct str) { 0 });
	}
	if (rc < 0)
		return rc;
	if (!take(in, '}'))
		return fail(in, "no \"}\" for \"{\"");
	v->to = rule->segment_count;
	v->is_rest = rule->has_rest;
	rule->variable_count++;
	return 0;
}

int http_rule_parse(struct http_rule *rule, struct str text, struct err *err)
{
	struct reader in = { .rule = rule, .text = text, .err = err };
	int rc;

	*rule = (struct http_rule) { 0 };
	if (!take(&in, '/'))
		return fail(&in, "it must begin with \"/\"");
	if (in.at == text.len)
		return 0;
	do {
		rc = take(&in, '{') ? read_variable(&in) : read_plain(&in, "/:");
		if (rc < 0)
			return rc;
	} while (take(&in, '/'));
	if (take(&in, ':')) {
		rule->verb = str_sub(text, in.at, text.len);
		if (rule->verb.len == 0 || str_chr(rule->verb, '/') >= 0)
			return fail(&in, "a verb must be the last word");
		in.at = text.len;
	}
	return in.at == text.len ? 0 : fail(&in, "\"/\" or the end expected");
}

/* --- matching ------------------------------------------------------------------------------ */

/* Cuts ":verb" off; false when it is not there. */
static bool cut_verb(struct str *path, struct str verb)
{
	if (path->len <= verb.len + 1 || !str_ends(*path, verb) ||
	    path->p[path->len - verb.len - 1] != ':')
		return false;
	path->len -= verb.len + 1;
	return true;
}

bool http_rule_match(const struct http_rule *rule, struct str path, struct http_rule_value *values)
{
	size_t begins[HTTP_RULE_SEGMENTS_MAX + 1], ends[HTTP_RULE_SEGMENTS_MAX], at = 1;

	if (path.len == 0 || path.p[0] != '/' || (rule->verb.p && !cut_verb(&path, rule->verb)))
		return false;
	for (size_t i = 0; i < rule->segment_count; i++) {
		struct str literal = rule->segments[i].literal, here;

		begins[i] = at;
		while (at < path.len && path.p[at] != '/')
			at++;
		ends[i] = MIN(at, path.len);
		if (begins[i] >= path.len || ends[i] == begins[i])
			return false;
		here = str_sub(path, begins[i], ends[i]);
		if (literal.p && !str_eq(here, literal))
			return false;
		at++; /* the slash */
	}
	if (!rule->has_rest && at < path.len + 1 && !(rule->segment_count == 0 && path.len == 1))
		return false;
	begins[rule->segment_count] = MIN(at, path.len);
	for (size_t i = 0; i < rule->variable_count; i++) {
		const struct http_rule_variable *v = &rule->variables[i];
		size_t to = v->is_rest ? path.len : ends[v->to - 1];

		values[i].field = v->field;
		values[i].value = str_sub(path, begins[v->from], to);
		values[i].is_long = v->is_rest || v->to - v->from > 1;
	}
	return true;
}

int http_rule_compare(const struct http_rule *a, const struct http_rule *b)
{
	size_t n = MIN(a->segment_count, b->segment_count);

	for (size_t i = 0; i < n; i++) {
		bool is_a = a->segments[i].literal.p, is_b = b->segments[i].literal.p;

		if (is_a != is_b)
			return is_a ? -1 : 1;
	}
	if (a->segment_count != b->segment_count)
		return a->segment_count > b->segment_count ? -1 : 1;
	if (a->has_rest != b->has_rest)
		return a->has_rest ? 1 : -1;
	/* A path may end in what another rule has as its verb. */
	return (b->verb.p != NULL) - (a->verb.p != NULL);
}

/* --- values -------------------------------------------------------------------------------- */

/* "%2F" as what decodes to "%2F". */
static struct str guard_slashes(struct arena *a, struct str text)
{
	char *out = arena_alloc(a, text.len * 5 / 3 + 1), *at = out;

	if (!out)
		return (struct str) { 0 };
	for (size_t i = 0; i < text.len; i++) {
		if (str_istarts(str_sub(text, i, text.len), STR("%2f"))) {
			at = mempcpy(at, "%252F", 5);
			i += 2;
		} else {
			*at++ = text.p[i];
		}
	}
	return str_of(out, (size_t)(at - out));
}

struct str http_rule_decode(struct arena *a, const struct http_rule_value *value)
{
	struct str text = value->is_long ? guard_slashes(a, value->value) : value->value, out;

	if (!text.p || http_decode(a, text, false, &out) < 0 || !json_is_text(out))
		return (struct str) { 0 };
	return out;
}
