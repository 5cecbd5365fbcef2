/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/request_key.h"

#include <netinet/in.h>

#include "gateway/request.h"
#include "gateway/routing/params.h"
#include "lib/hash.h"

static const struct hash_key fixed_key = { { 0x726571756573745fULL, 0x6b65795f6861736bULL } };

const char *request_key_parse(struct request_key *out, struct str text)
{
	static const struct {
		struct str word;
		enum request_key_kind kind;
		bool has_name;
	} kinds[] = {
		{ STR("user"), REQUEST_KEY_USER, false },
		{ STR("ip"), REQUEST_KEY_IP, false },
		{ STR("endpoint"), REQUEST_KEY_ENDPOINT, false },
		{ STR("header:"), REQUEST_KEY_HEADER, true },
		{ STR("cookie:"), REQUEST_KEY_COOKIE, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct str name;

		if (kinds[i].has_name ? !str_starts(text, kinds[i].word)
				      : !str_eq(text, kinds[i].word))
			continue;
		name = str_sub(text, kinds[i].word.len, text.len);
		if (kinds[i].has_name && !http_is_token(name))
			return "must name a header or cookie behind the colon";
		*out = (struct request_key) { kinds[i].kind, name };
		return NULL;
	}
	return "must be \"user\", \"ip\", \"endpoint\", \"header:NAME\" or \"cookie:NAME\"";
}

struct str request_cookie(const struct request *r, struct str name)
{
	struct str value;

	return params_find_cookie(r->headers.fields, r->headers.count, name, &value)
		       ? value
		       : (struct str) { 0 };
}

static struct str value_of(const struct request_key *key, const struct request *r)
{
	const struct http_field *f;

	switch (key->kind) {
	case REQUEST_KEY_USER:
		if (r->identity && r->identity->user)
			return r->identity->user->text;
		break;
	case REQUEST_KEY_ENDPOINT:
		return r->path;
	case REQUEST_KEY_HEADER:
		f = http_find_name(r->headers.fields, r->headers.count, key->name);
		if (f)
			return f->value;
		break;
	case REQUEST_KEY_COOKIE:
		return request_cookie(r, key->name);
	case REQUEST_KEY_IP:
	case REQUEST_KEY_NONE:
		break;
	}
	return (struct str) { 0 };
}

static uint64_t hash_client(const struct net_addr *client)
{
	if (client->sa.sa_family == AF_INET6)
		return hash_sip13(&fixed_key, &client->in6.sin6_addr, 8);
	return hash_sip13(&fixed_key, &client->in.sin_addr, sizeof(client->in.sin_addr));
}

bool request_key_find(const struct request_key *key, const struct request *r, uint64_t *hash)
{
	struct str value = value_of(key, r);

	if (value.p)
		*hash = hash_sip13(&fixed_key, value.p, value.len);
	else if (key->kind == REQUEST_KEY_IP)
		*hash = hash_client(&r->client);
	else
		return false;
	return true;
}

uint64_t request_key_hash(const struct request_key *key, const struct request *r)
{
	uint64_t hash;

	return request_key_find(key, r, &hash) ? hash : hash_client(&r->client);
}
