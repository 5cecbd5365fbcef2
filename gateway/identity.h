/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a request comes from, once that is proven: the claims of a verified token. One block of
 * memory, immutable and reference-counted, so that the token cache and requests of all threads
 * share it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"

enum claim_kind {
	CLAIM_STRING,
	CLAIM_NUMBER,
	CLAIM_BOOL,
	CLAIM_LIST, /* of strings */
	CLAIM_OTHER,
};

struct claim {
	struct str name;
	enum claim_kind kind;
	/* For people and headers: the string without quotes, the number as JSON writes it, "true",
	 * the list's strings joined by ",", else JSON. Not yet fit for a header: see claim_is_safe.
	 */
	struct str text;
	struct str json; /* as typed: "\"u1\"", "42", "[\"a\"]" */
};

struct identity {
	unsigned refs;
	int64_t expires_s;        /* Unix time from which on it is worth nothing */
	const struct claim *user; /* the user claim, NULL when the token has none */
	size_t claim_count;
	size_t size; /* bytes of the whole block */
	struct claim claims[];
};

/* From a JSON object of claims; NULL when out of memory. Members that are null are left out. */
struct identity *identity_new(const json_t *claims, struct str user_claim, int64_t expires_s);
/* Any thread. identity_put clears the pointer and accepts NULL inside. */
struct identity *identity_ref(struct identity *id);
void identity_put(struct identity **id);

/* NULL when the token has no such claim. */
const struct claim *identity_claim(const struct identity *id, struct str name);
/* Whether the claim is this word, or holds it: among the words of a string separated by spaces
 * (scope), or in a list. */
bool identity_claim_has(const struct identity *id, struct str name, struct str word);
/* No control bytes: may be sent as a header field value. */
bool claim_is_safe(const struct claim *claim);
