/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/identity.h"

#include <stdlib.h>

#include "lib/cleanup.h"

/* Where the copy of a text lies, which was in one of the two blocks. */
static struct str moved(struct str s, const struct claims *from, char *json, char *extra)
{
	bool is_extra = from->extra.len && s.p >= from->extra.p &&
			s.p <= from->extra.p + from->extra.len;

	return str_of(is_extra ? extra + (s.p - from->extra.p) : json + (s.p - from->json.p),
		      s.len);
}

struct identity *identity_from(const struct claims *claims, struct str user_claim,
			       int64_t expires_s)
{
	size_t head = sizeof(struct identity) + claims->count * sizeof(struct claim);
	size_t size = head + claims->json.len + claims->extra.len;
	struct identity *id = malloc(size);
	char *json, *extra;

	if (!id)
		return NULL;
	*id = (struct identity) {
		.refs = 1,
		.expires_s = expires_s,
		.issued_s = INT64_MIN,
		.claim_count = claims->count,
		.size = size,
	};
	json = (char *)id + head;
	extra = json + claims->json.len;
	if (claims->json.len)
		memcpy(json, claims->json.p, claims->json.len);
	if (claims->extra.len)
		memcpy(extra, claims->extra.p, claims->extra.len);
	for (size_t i = 0; i < claims->count; i++) {
		const struct claim *from = &claims->list[i];

		id->claims[i] = (struct claim) {
			.name = moved(from->name, claims, json, extra),
			.kind = from->kind,
			.parent = from->parent,
			.text = moved(from->text, claims, json, extra),
			.json = moved(from->json, claims, json, extra),
		};
	}
	id->user = identity_claim(id, user_claim);
	id->jti = identity_claim(id, STR("jti"));
	id->sub = identity_claim(id, STR("sub"));
	return id;
}

struct identity *identity_new(struct str json, struct str user_claim, int64_t expires_s)
{
	struct claims claims;

	return claims_parse(&claims, json) == 0 ? identity_from(&claims, user_claim, expires_s)
						: NULL;
}

struct identity *identity_ref(struct identity *id)
{
	__atomic_fetch_add(&id->refs, 1, __ATOMIC_RELAXED);
	return id;
}

void identity_put(struct identity **id)
{
	if (*id && __atomic_fetch_sub(&(*id)->refs, 1, __ATOMIC_ACQ_REL) == 1)
		free(*id);
	*id = NULL;
}

const struct claim *identity_claim(const struct identity *id, struct str name)
{
	return claims_find(id->claims, id->claim_count, name);
}

struct str identity_header_text(const struct identity *id, struct str name)
{
	const struct claim *claim = identity_claim(id, name);

	return claim && claim_is_safe(claim) ? claim->text : (struct str) { 0 };
}

/* Looks in the JSON text, not in the joined one: an item may hold a comma. */
static bool list_has(struct str json, struct str word)
{
	char room[CLAIMS_MAX_BYTES];
	struct str item;
	bool is_string;

	while (claims_next_item(&json, &item, &is_string, room)) {
		if (str_eq(item, word))
			return true;
	}
	return false;
}

bool claim_has(const struct claim *claim, struct str word)
{
	struct str rest, item;

	if (claim->kind == CLAIM_LIST)
		return list_has(claim->json, word);
	if (claim->kind == CLAIM_OTHER)
		return claim->json.p[0] == '[' && list_has(claim->json, word);
	if (str_eq(claim->text, word))
		return true;
	rest = claim->kind == CLAIM_STRING ? claim->text : (struct str) { 0 };
	while (str_split(&rest, ' ', &item)) {
		if (item.len && str_eq(item, word))
			return true;
	}
	return false;
}

bool identity_claim_has(const struct identity *id, struct str name, struct str word)
{
	const struct claim *claim = identity_claim(id, name);

	return claim && claim_has(claim, word);
}
