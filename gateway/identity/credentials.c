/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/credentials.h"

#include "gateway/snapshot.h"

/* --- finding ------------------------------------------------------------------------------- */

static bool is_field(const struct http_field *f, const struct gw_token *token)
{
	return token->id != HTTP_OTHER ? f->id == token->id
				       : f->id == HTTP_OTHER && str_ieq(f->name, token->name);
}

/* What is behind the scheme: "Bearer TOKEN" (RFC 6750 2.1), the scheme in any case. In
 * Authorization it must be there, elsewhere it may. Empty: something else stands there. */
static struct str behind_scheme(struct str value, const struct gw_auth *auth,
				const struct gw_token *token)
{
	struct str scheme = auth->type == GW_AUTH_JWT ? STR("Bearer ") : STR("ApiKey ");

	value = str_trim(value);
	if (str_istarts(value, scheme))
		return str_trim(str_sub(value, scheme.len, value.len));
	return token->id == HTTP_AUTHORIZATION ? STR("") : value;
}

static void note(enum credential *found, struct str *out, struct str value)
{
	if (*found == CREDENTIAL_FOUND) {
		*found = CREDENTIAL_TWICE;
	} else if (*found == CREDENTIAL_ABSENT) {
		*found = CREDENTIAL_FOUND;
		*out = value;
	}
}

static enum credential find_header(const struct request *r, const struct gw_auth *auth,
				   const struct gw_token *token, struct str *out)
{
	enum credential found = CREDENTIAL_ABSENT;
	struct str value = { 0 };

	for (size_t i = 0; i < r->headers.count; i++) {
		const struct http_field *f = &r->headers.fields[i];

		if (is_field(f, token))
			note(&found, &value, f->value);
	}
	if (found != CREDENTIAL_FOUND)
		return found;
	value = behind_scheme(value, auth, token);
	if (value.len == 0)
		return CREDENTIAL_ABSENT;
	*out = value;
	return CREDENTIAL_FOUND;
}

/* The next NAME=VALUE of a list; false at its end. */
static bool next_pair(struct str *rest, char separator, struct str *name, struct str *value)
{
	struct str item;
	ptrdiff_t eq;

	if (!str_split(rest, separator, &item))
		return false;
	item = separator == ';' ? str_trim(item) : item;
	eq = str_chr(item, '=');
	*name = eq < 0 ? item : str_sub(item, 0, (size_t)eq);
	*value = eq < 0 ? STR("") : str_sub(item, (size_t)eq + 1, item.len);
	return true;
}

static void find_pair(struct str list, char separator, const struct gw_token *token,
		      enum credential *found, struct str *out)
{
	struct str name, value;

	while (next_pair(&list, separator, &name, &value)) {
		if (str_eq(name, token->name))
			note(found, out, value);
	}
}

static enum credential find_one(const struct request *r, const struct gw_auth *auth,
				const struct gw_token *token, struct str *out)
{
	enum credential found = CREDENTIAL_ABSENT;
	struct str value = { 0 };

	switch (token->place) {
	case GW_TOKEN_COOKIE:
		for (size_t i = 0; i < r->headers.count; i++) {
			if (r->headers.fields[i].id == HTTP_COOKIE)
				find_pair(r->headers.fields[i].value, ';', token, &found, &value);
		}
		break;
	case GW_TOKEN_QUERY:
		find_pair(r->query, '&', token, &found, &value);
		break;
	default:
		return find_header(r, auth, token, out);
	}
	if (found == CREDENTIAL_FOUND && value.len == 0)
		return CREDENTIAL_ABSENT;
	if (found == CREDENTIAL_FOUND)
		*out = value;
	return found;
}

enum credential credential_find(const struct request *r, const struct gw_auth *auth,
				struct str *out)
{
	for (size_t i = 0; i < auth->tokens.count; i++) {
		enum credential found = find_one(r, auth, &auth->tokens.list[i], out);

		if (found != CREDENTIAL_ABSENT)
			return found;
	}
	return CREDENTIAL_ABSENT;
}

/* --- taking out ---------------------------------------------------------------------------- */

static void strip_header(struct request *r, const struct gw_token *token)
{
	size_t to = 0;

	for (size_t i = 0; i < r->headers.count; i++) {
		if (!is_field(&r->headers.fields[i], token))
			r->headers.fields[to++] = r->headers.fields[i];
	}
	r->headers.count = to;
}

static bool has_pair(struct str list, char separator, struct str wanted)
{
	struct str name, value;

	while (next_pair(&list, separator, &name, &value)) {
		if (str_eq(name, wanted))
			return true;
	}
	return false;
}

/* The list without the pairs of that name; p NULL: out of memory. */
static struct str without_pair(struct request *r, struct str list, char separator,
			       struct str unwanted)
{
	char *begin = arena_alloc(&r->arena, list.len + 1), *at = begin;
	struct str rest = list, name, value, item;

	if (!begin)
		return (struct str) { 0 };
	while (str_split(&rest, separator, &item)) {
		struct str one = item;

		next_pair(&one, separator, &name, &value);
		if (str_eq(name, unwanted))
			continue;
		if (at > begin)
			*at++ = separator;
		else if (separator == ';')
			item = str_trim(item);
		if (item.len)
			at = mempcpy(at, item.p, item.len);
	}
	return str_of(begin, (size_t)(at - begin));
}

static bool strip_cookie(struct request *r, struct str name)
{
	size_t to = 0;

	for (size_t i = 0; i < r->headers.count; i++) {
		struct http_field f = r->headers.fields[i];

		if (f.id == HTTP_COOKIE && has_pair(f.value, ';', name)) {
			f.value = without_pair(r, f.value, ';', name);
			if (!f.value.p)
				return false;
			if (f.value.len == 0)
				continue;
		}
		r->headers.fields[to++] = f;
	}
	r->headers.count = to;
	return true;
}

static bool strip_query(struct request *r, struct str name)
{
	struct str rest;

	if (!r->query.p || !has_pair(r->query, '&', name))
		return true;
	rest = without_pair(r, r->query, '&', name);
	if (!rest.p)
		return false;
	r->query = rest.len ? rest : (struct str) { 0 };
	return true;
}

static bool strip_one(struct request *r, const struct gw_token *token)
{
	if (token->place == GW_TOKEN_COOKIE)
		return strip_cookie(r, token->name);
	if (token->place == GW_TOKEN_QUERY)
		return strip_query(r, token->name);
	strip_header(r, token);
	return true;
}

/* Only the auth that was used has something to keep. */
static bool is_kept(const struct request *r, const struct gw_token *token)
{
	const struct gw_auth *auth = r->auth ? r->auth->conf : NULL;

	for (size_t i = 0; auth && auth->keep_token && i < auth->tokens.count; i++) {
		if (auth->tokens.list[i].place == token->place &&
		    str_eq(auth->tokens.list[i].name, token->name))
			return true;
	}
	return false;
}

bool credentials_strip(struct request *r)
{
	for (size_t i = 0; i < r->route->auth_count; i++) {
		const struct gw_tokens *tokens = &r->route->auths[i]->conf->tokens;

		for (size_t j = 0; j < tokens->count; j++) {
			if (!is_kept(r, &tokens->list[j]) && !strip_one(r, &tokens->list[j]))
				return false;
		}
	}
	return true;
}
