/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a request comes from, once that is proven: the claims of a verified token, or what stands for
 * them with an API key or a client certificate. One block of memory, immutable and
 * reference-counted, so that the token cache and requests of all threads share it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/claims.h"
#include "lib/str.h"

struct identity {
	unsigned refs;
	int64_t expires_s;          /* Unix time from which on it is worth nothing */
	const struct claim *user;   /* the user claim, NULL when the token has none */
	const struct claim *jti;    /* of the token, NULL: none; for revocation */
	const struct claim *sub;    /* the same */
	int64_t issued_s;           /* iat; INT64_MIN when it is not known */
	const struct claim *key_id; /* of the API key, NULL: came by other means */
	size_t claim_count;
	size_t size; /* bytes of the whole block */
	struct claim claims[];
};

/* From the text of a JSON object of claims; NULL when it is none or out of memory. */
struct identity *identity_new(struct str json, struct str user_claim, int64_t expires_s);
/* The same from claims that were parsed already; NULL when out of memory. */
struct identity *identity_from(const struct claims *claims, struct str user_claim,
			       int64_t expires_s);
/* Any thread. identity_put clears the pointer and accepts NULL inside. */
struct identity *identity_ref(struct identity *id);
void identity_put(struct identity **id);

/* By name, or by path for one within an object ("realm_access.roles"; a claim whose own name has
 * dots comes first). NULL when the token has no such claim. */
const struct claim *identity_claim(const struct identity *id, struct str name);
/* Its text where it may be sent in a header, for templates: p NULL when there is no such claim, or
 * it holds control bytes. Lives as long as the identity. */
struct str identity_header_text(const struct identity *id, struct str name);
/* Whether the claim is this word, or holds it: among the words of a string separated by spaces
 * (scope), or in a list. */
bool identity_claim_has(const struct identity *id, struct str name, struct str word);
bool claim_has(const struct claim *claim, struct str word);
