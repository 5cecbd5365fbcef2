/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conf/auth.h"

#include "gateway/conf/conf.h"
#include "gateway/identity/jwks.h"
#include "gateway/identity/names.h"
#include "lib/cleanup.h"
#include "lib/url.h"

/* --- validators ---------------------------------------------------------------------------- */

static const char *valid_realm(struct str realm)
{
	for (size_t i = 0; i < realm.len; i++) {
		if (!isalnum((unsigned char)realm.p[i]) && !strchr("_.-", realm.p[i]))
			return "must have letters, digits, \"_\", \".\" and \"-\" only";
	}
	return realm.len > 64 ? "must have at most 64 characters" : NULL;
}

static const char *valid_url(struct str text)
{
	struct url url;

	return url_parse(&url, text);
}

/* --- members of a form of their own -------------------------------------------------------- */

static void parse_algorithms(struct conf *c, void *field, const json_t *value)
{
	unsigned mask = 0;
	const json_t *item;
	size_t i;

	if (!json_is_array(value) || json_array_size(value) == 0) {
		conf_error(c, "must be a list of algorithms");
		return;
	}
	json_array_foreach (value, i, item) {
		struct str name = str_of(json_string_value(item), json_string_length(item));
		enum jwt_alg alg = jwt_alg_from(name);
		const char *nearest;

		if (alg != JWT_ALGS) {
			mask |= JWT_ALG_BIT(alg);
			continue;
		}
		nearest = conf_nearest(name, jwt_alg_names);
		conf_error(c, "knows no algorithm \"%.*s\"%s%s%s", STR_ARG(name),
			   nearest ? "; did you mean \"" : "", nearest ? nearest : "",
			   nearest ? "\"?" : "");
	}
	memcpy(field, &mask, sizeof(mask));
}

#define ALGORITHMS_SCHEMA                                                                  \
	"{\"type\":\"array\",\"minItems\":1,\"items\":{\"enum\":[\"HS256\",\"HS384\","     \
	"\"HS512\",\"RS256\",\"RS384\",\"RS512\",\"PS256\",\"PS384\",\"PS512\",\"ES256\"," \
	"\"ES384\",\"ES512\",\"EdDSA\"]}}"

static const char *const places[] = {
	[GW_TOKEN_HEADER] = "header",
	[GW_TOKEN_COOKIE] = "cookie",
	[GW_TOKEN_QUERY] = "query",
	NULL,
};

/* {"header": NAME}, {"cookie": NAME} or {"query": NAME}. */
static void parse_token(struct conf *c, struct gw_token *out, const json_t *value)
{
	for (int place = 0; places[place]; place++) {
		const json_t *name = json_object_get(value, places[place]);

		if (!name || json_object_size(value) != 1)
			continue;
		out->place = place;
		conf_enter(c, places[place]);
		if (conf_string(c, name, &out->name) && !http_is_token(out->name))
			conf_error(c, "must be a name without white space");
		out->id = http_name_id(out->name);
		conf_leave(c);
		return;
	}
	conf_error(c, "must be {\"header\": NAME}, {\"cookie\": NAME} or {\"query\": NAME}, or a "
		      "list of such");
}

static void parse_tokens(struct conf *c, void *field, const json_t *value)
{
	struct gw_tokens *out = field;
	size_t count = json_is_array(value) ? json_array_size(value) : 1;

	if (count == 0 || count > GW_TOKENS_MAX) {
		conf_error(c, "must hold 1 to %d places", GW_TOKENS_MAX);
		return;
	}
	out->list = arena_array(conf_arena(c), struct gw_token, count);
	if (!out->list) {
		conf_error(c, "out of memory");
		return;
	}
	out->count = count;
	for (size_t i = 0; i < count; i++)
		parse_token(c, &out->list[i],
			    json_is_array(value) ? json_array_get(value, i) : value);
}

#define TOKEN_SCHEMA                                                                            \
	"{\"type\":\"object\",\"additionalProperties\":false,\"minProperties\":1,"              \
	"\"maxProperties\":1,\"properties\":{\"header\":{\"type\":\"string\",\"minLength\":1}," \
	"\"cookie\":{\"type\":\"string\",\"minLength\":1},"                                     \
	"\"query\":{\"type\":\"string\",\"minLength\":1}}}"
#define TOKENS_SCHEMA                                                                     \
	"{\"anyOf\":[" TOKEN_SCHEMA ",{\"type\":\"array\",\"minItems\":1,\"maxItems\":4," \
	"\"items\":" TOKEN_SCHEMA "}]}"

void gw_parse_auth_names(struct conf *c, void *field, const json_t *value)
{
	struct gw_auth_names *out = field;
	size_t count = json_is_array(value) ? json_array_size(value) : 1;

	if (count == 0 || count > GW_AUTHS_MAX) {
		conf_error(c, "must hold 1 to %d names", GW_AUTHS_MAX);
		return;
	}
	out->names = arena_array(conf_arena(c), struct str, count);
	out->to = arena_array(conf_arena(c), struct gw_auth *, count);
	if (!out->names || !out->to) {
		conf_error(c, "out of memory");
		return;
	}
	out->is_list = json_is_array(value);
	for (size_t i = 0; i < count; i++) {
		const json_t *name = out->is_list ? json_array_get(value, i) : value;

		if (!conf_string(c, name, &out->names[i]))
			return;
		for (size_t j = 0; j < i; j++) {
			if (str_eq(out->names[i], out->names[j]))
				conf_error(c, "names \"%s\" twice", out->names[i].p);
		}
	}
	out->count = count;
}

/* --- require ------------------------------------------------------------------------------- */

/* The list that is being gathered: a claim may have several conditions. */
struct requires
{
	struct conf *c;
	struct gw_requires *out;
	struct str claim;
};

static struct gw_require *add_require(struct requires *r, enum gw_require_kind kind,
				      const json_t *value)
{
	size_t count = json_is_array(value) ? json_array_size(value) : 1;
	struct gw_require *require = &r->out->claims[r->out->count];

	*require = (struct gw_require) { .claim = r->claim, .kind = kind };
	require->words = arena_array(conf_arena(r->c), struct gw_word, count + 1);
	if (!require->words || count == 0) {
		conf_error(r->c, require->words ? "must not be empty" : "out of memory");
		return NULL;
	}
	r->out->count++;
	return require;
}

/* A word or a list of words. */
static void parse_words(struct requires *r, enum gw_require_kind kind, const json_t *value)
{
	struct gw_require *require = add_require(r, kind, value);
	size_t count = json_is_array(value) ? json_array_size(value) : 1;

	for (size_t i = 0; require && i < count; i++) {
		const json_t *word = json_is_array(value) ? json_array_get(value, i) : value;

		require->words[i].is_string = true;
		if (!conf_string(r->c, word, &require->words[i].text))
			return;
		if (require->words[i].text.len == 0)
			conf_error(r->c, "must not hold an empty word");
		require->words_count = i + 1;
	}
}

/* A string, a number or a boolean, or a list of them where `is_list`. */
static void parse_values(struct requires *r, const json_t *value, bool is_list)
{
	struct gw_require *require;

	if (json_is_array(value) != is_list) {
		conf_error(r->c, is_list ? "must be a list of values" : "must be one value");
		return;
	}
	require = add_require(r, GW_REQUIRE_IS, value);
	for (size_t i = 0; require && i < (is_list ? json_array_size(value) : 1); i++) {
		const json_t *item = is_list ? json_array_get(value, i) : value;
		char *text;

		if (!json_is_string(item) && !json_is_number(item) && !json_is_boolean(item)) {
			conf_error(r->c, "must be a string, a number or a boolean");
			return;
		}
		require->words_count = i + 1;
		require->words[i].is_string = json_is_string(item);
		if (json_is_string(item)) {
			if (!conf_string(r->c, item, &require->words[i].text))
				return;
			continue;
		}
		text = json_dumps(item, JSON_ENCODE_ANY);
		require->words[i].text = arena_str(conf_arena(r->c), str_from(text ? text : ""));
		free(text);
	}
}

static void parse_conditions(struct requires *r, const json_t *value)
{
	static const char *const names[] = { "equals", "one_of", "contains", "contains_one_of",
					     NULL };
	const char *key;
	json_t *item;

	if (json_object_size(value) == 0)
		conf_error(r->c, "must not be empty");
	/* jansson's iterators take no const. */
	json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
		unsigned which = 0;

		while (names[which] && strcmp(names[which], key) != 0)
			which++;
		conf_enter(r->c, key);
		if (which < 2)
			parse_values(r, item, which == 1);
		else if (names[which])
			parse_words(r, which == 2 ? GW_REQUIRE_ALL : GW_REQUIRE_ANY, item);
		else
			conf_error(r->c, "is no condition; there are \"equals\", \"one_of\", "
					 "\"contains\" and \"contains_one_of\"");
		conf_leave(r->c);
	}
}

void gw_parse_require(struct conf *c, void *field, const json_t *value)
{
	struct gw_requires list = { 0 };
	struct requires r = { .c = c, .out = &list };
	const char *key;
	json_t *item;

	if (!json_is_object(value)) {
		conf_error(c, "must be an object of claims");
		return;
	}
	list.claims = arena_array(conf_arena(c), struct gw_require,
				  GW_CONDITIONS * json_object_size(value) + 1);
	if (!list.claims) {
		conf_error(c, "out of memory");
		return;
	}
	json_object_foreach ((json_t *)(uintptr_t)value, key, item) {
		r.claim = arena_str(conf_arena(c), str_from(key));
		conf_enter(c, key);
		if (json_is_object(item))
			parse_conditions(&r, item);
		else
			parse_words(&r, GW_REQUIRE_ANY, item);
		conf_leave(c);
	}
	*(struct gw_requires *)field = list;
}

/* --- rules between members ----------------------------------------------------------------- */

static void check_jwks_url(struct conf *c, const struct gw_auth *auth)
{
	const struct gw_jwks *jwks = &auth->jwks;
	struct url url;

	if (jwks->has_file == jwks->has_url)
		conf_error_at(c, "jwks", "must have a \"file\" or a \"url\"%s",
			      jwks->has_file ? ", not both" : "");
	if (!jwks->url.p || url_parse(&url, jwks->url))
		return;
	if (!url.is_https && !jwks->allow_http)
		conf_error_at(c, "jwks.url",
			      "must begin with \"https://\": over http anybody on the way can put "
			      "his own key in; \"allow_http\" permits it all the same");
	if (!url.is_https && jwks->allow_http)
		conf_warn_at(c, "jwks.allow_http",
			     "is on: anybody on the way can put his own key in");
	if (!url.is_https && jwks->ca.p)
		conf_error_at(c, "jwks.ca", "is of no use without \"https://\"");
	if (auth->algorithms & JWT_ALGS_HMAC)
		conf_error_at(
			c, "algorithms",
			"HS256, HS384 and HS512 need \"jwks.file\": whoever can read a secret "
			"at a URL can sign");
}

static void check_type(struct conf *c, const struct gw_auth *auth)
{
	static const struct {
		const char *member;
		unsigned types; /* bits of enum gw_auth_type that may have it */
		unsigned needs;
	} rules[] = {
		{ "issuer", 1U << GW_AUTH_JWT, 1U << GW_AUTH_JWT },
		{ "audiences", 1U << GW_AUTH_JWT, 0 },
		{ "algorithms", 1U << GW_AUTH_JWT, 1U << GW_AUTH_JWT },
		{ "jwks", 1U << GW_AUTH_JWT, 1U << GW_AUTH_JWT },
		{ "leeway_s", 1U << GW_AUTH_JWT, 0 },
		{ "max_lifetime_s", 1U << GW_AUTH_JWT, 0 },
		{ "token", 1U << GW_AUTH_JWT | 1U << GW_AUTH_API_KEY, 0 },
		{ "keep_token", 1U << GW_AUTH_JWT | 1U << GW_AUTH_API_KEY, 0 },
		{ "keys_file", 1U << GW_AUTH_API_KEY, 1U << GW_AUTH_API_KEY },
		{ "allow", 1U << GW_AUTH_MTLS, 1U << GW_AUTH_MTLS },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		bool has = conf_has(c, rules[i].member);

		if (!has && rules[i].needs & 1U << auth->type)
			conf_error_at(c, rules[i].member, "is required");
		else if (has && !(rules[i].types & 1U << auth->type))
			conf_error_at(c, rules[i].member, "is not for \"type\": \"%s\"",
				      gw_auth_types[auth->type]);
	}
}

/* Where a credential stands unless the file says it. */
static void fill_in_tokens(struct gw_auth *auth)
{
	static struct gw_token bearer = { GW_TOKEN_HEADER, STR("Authorization"),
					  HTTP_AUTHORIZATION };
	static struct gw_token api_key = { GW_TOKEN_HEADER, STR("X-API-Key"), HTTP_OTHER };

	if (auth->tokens.count || auth->type == GW_AUTH_MTLS)
		return;
	auth->tokens = (struct gw_tokens) { auth->type == GW_AUTH_JWT ? &bearer : &api_key, 1 };
}

static void check_auth(struct conf *c, void *object)
{
	struct gw_auth *auth = object;

	check_type(c, auth);
	if (auth->type == GW_AUTH_JWT && conf_has(c, "jwks"))
		check_jwks_url(c, auth);
	fill_in_tokens(auth);
	for (size_t i = 0; i < auth->tokens.count; i++) {
		if (auth->type == GW_AUTH_JWT && auth->tokens.list[i].place == GW_TOKEN_QUERY)
			conf_error_at(c, "token",
				      "must be no query parameter: such tokens end up in logs, "
				      "histories and Referer headers (RFC 6750 5.3)");
	}
	for (size_t i = 0; i < auth->forward_count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (!str_ieq(auth->forward[i].value, auth->forward[j].value))
				continue;
			conf_enter_name(c, "forward", auth->forward[i].name);
			conf_error(c, "is sent as %s already, for the claim \"%s\"",
				   auth->forward[i].value.p, auth->forward[j].name.p);
			conf_leave(c);
		}
	}
}

/* --- rows ---------------------------------------------------------------------------------- */

const char *const gw_auth_types[] = {
	[GW_AUTH_JWT] = "jwt",
	[GW_AUTH_API_KEY] = "api_key",
	[GW_AUTH_MTLS] = "mtls",
	NULL,
};

/* Also of one that is not there: the auth's check knows. */
static void check_jwks(struct conf *c, void *object)
{
	struct gw_jwks *jwks = object;

	jwks->has_file = conf_has(c, "file");
	jwks->has_url = conf_has(c, "url");
}

static const struct conf_row jwks_rows[] = {
	{ CONF_STRING("file", struct gw_jwks, file), .flags = CONF_NULL,
	  .help = "Key set (RFC 7517), read again when it changes." },
	{ CONF_STRING("url", struct gw_jwks, url), .flags = CONF_NULL, .valid = valid_url,
	  .max = 1024,
	  .help = "Where the issuer publishes the key set instead: fetched beside requests, the "
		  "last good one stays." },
	{ CONF_STRING("ca", struct gw_jwks, ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities to trust there; the system's when not given." },
	{ CONF_BOOL("allow_http", struct gw_jwks, allow_http), .def = "false",
	  .help = "Lets the URL be http://, where anybody on the way can put his own key in." },
	{ CONF_INT("refresh_s", struct gw_jwks, refresh_s), .min = 1, .max = 86400, .def = "300",
	  .help = "How often it is fetched at least; a shorter max-age of the issuer counts." },
	{ CONF_INT("timeout_ms", struct gw_jwks, timeout_ms), .min = 100, .max = 60000,
	  .def = "5000", .help = "Time for one fetch." },
	{ CONF_STRING("cache", struct gw_jwks, cache), .flags = CONF_NULL,
	  .help = "File with a copy of the last good set, for starts while the URL is away." },
	{ 0 },
};
static const struct conf_object jwks_object = CONF_OBJECT_OF(struct gw_jwks, jwks_rows,
							     .check = check_jwks);

static const struct conf_row auth_rows[] = {
	{ CONF_ENUM("type", struct gw_auth, type, gw_auth_types), .flags = CONF_REQUIRED,
	  .help = "How callers prove who they are: a JSON Web Token, an API key, a client "
		  "certificate." },
	{ CONF_STRING("issuer", struct gw_auth, issuer), .help = "The iss claim must be this." },
	{ CONF_STRINGS("audiences", struct gw_auth, audiences), .max = 64,
	  .help = "The aud claim must hold one of these; not checked when not given." },
	{ CONF_CUSTOM("algorithms", struct gw_auth, algorithms, parse_algorithms),
	  .schema = ALGORITHMS_SCHEMA, .help = "Signature algorithms accepted from this issuer." },
	{ CONF_OBJECT("jwks", struct gw_auth, jwks, &jwks_object),
	  .help = "Keys that verify the signatures." },
	{ CONF_CUSTOM("token", struct gw_auth, tokens, parse_tokens), .schema = TOKENS_SCHEMA,
	  .help = "Where the token or key stands, in the order of search: by default in "
		  "Authorization: Bearer, API keys in X-API-Key." },
	{ CONF_BOOL("keep_token", struct gw_auth, keep_token), .def = "false",
	  .help = "Services get the token or key as well; else it is taken out." },
	{ CONF_STRING("keys_file", struct gw_auth, keys_file),
	  .help = "API keys, as `gatewayctl api-key new` writes them; read again when it "
		  "changes." },
	{ CONF_STRINGS("allow", struct gw_auth, allow), .max = 256, .valid = names_check_pattern,
	  .help = "Names in client certificates that are let in, the first that fits being the "
		  "user: \"uri:spiffe://example.com/*\", \"dns:*.example.com\", "
		  "\"email:*@example.com\", \"cn:billing\"." },
	{ CONF_INT("leeway_s", struct gw_auth, leeway_s), .max = 3600, .def = "30",
	  .help = "How far clocks may differ." },
	{ CONF_INT("max_lifetime_s", struct gw_auth, max_lifetime_s), .max = 315360000, .def = "0",
	  .help = "Longest time from iat to exp; 0: not checked." },
	{ CONF_STRING("user_claim", struct gw_auth, user_claim), .def = "\"sub\"",
	  .help = "Claim that names the user, for limits and the access log." },
	{ CONF_PAIRS("forward", struct gw_auth, forward), .def = "{\"sub\":\"X-User-Id\"}",
	  .valid = headers_check_name, .max = 32,
	  .help = "Claims that services get, as request headers; \"a.b\" is b within a. Clients "
		  "can never set these." },
	{ CONF_STRING("realm", struct gw_auth, realm), .valid = valid_realm,
	  .help = "Named in WWW-Authenticate; the domain when not given." },
	{ 0 },
};
const struct conf_object gw_auth_object =
	CONF_OBJECT_OF(struct gw_auth, auth_rows, .name_offset = offsetof(struct gw_auth, name),
		       .check = check_auth);
