/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifies JSON Web Tokens (RFC 7515, 7519) strictly: compact form, signature by a key of the set,
 * times, issuer, audience. No I/O, no clock. Does not look at Authorization fields (jwt_bearer
 * does) and not into the cache (token_cache.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/identity.h"
#include "gateway/identity/jwks.h"
#include "lib/str.h"

#define JWT_MAX_BYTES 8192

enum jwt_result {
	JWT_OK,
	JWT_MISSING,       /* no token at all */
	JWT_TOO_LONG,      /* over JWT_MAX_BYTES */
	JWT_MALFORMED,     /* not three canonical base64url parts of JSON objects */
	JWT_BAD_HEADER,    /* crit, b64, wrong types, nested token */
	JWT_BAD_ALGORITHM, /* not allowed for this issuer, "none" among them */
	JWT_UNKNOWN_KEY,   /* no key with that kid and algorithm: a refetch may help */
	JWT_BAD_SIGNATURE,
	JWT_BAD_CLAIM, /* exp missing, a date that is no number, a user claim that is unfit */
	JWT_EXPIRED,
	JWT_TOO_LONG_LIVED, /* exp - iat over the bound, or no iat to tell */
	JWT_NOT_YET_VALID,  /* nbf or iat in the future */
	JWT_WRONG_ISSUER,
	JWT_WRONG_AUDIENCE,
	JWT_INTERNAL, /* out of memory: 500, not 401 */
	JWT_NO_KEYS,  /* there is no key set yet; never by jwt_verify */
	JWT_RESULTS,
};

/* "expired", for metrics and logs. */
const char *jwt_result_name(enum jwt_result r);
/* "the token has expired", for error_description and --verify; nothing secret, a constant. */
const char *jwt_result_text(enum jwt_result r);

/* What one issuer's tokens must fulfil. The strings outlive it. */
struct jwt_rules {
	struct str issuer;           /* p NULL: any */
	const struct str *audiences; /* the token must have one of them; none: not checked */
	size_t audience_count;
	unsigned algorithms; /* JWT_ALG_BIT */
	int64_t leeway_s;
	int64_t max_lifetime_s;    /* exp - iat at most; 0: no bound */
	struct str user_claim;     /* "sub"; must be there as a string or a number */
	const struct str *forward; /* claims that become header values: refused when they hold
				      control bytes */
	size_t forward_count;
};

/* Per thread: the prepared OpenSSL contexts of one key set. Not to be shared. */
struct jwt_verifier;
struct jwt_verifier *jwt_verifier_new(void);
void jwt_verifier_free(struct jwt_verifier **v);

/*
 * On JWT_OK *out is a new identity, owned by the caller; otherwise untouched. The verifier drops
 * its contexts when `keys` is another set than before, so use one verifier per issuer. now_s is
 * Unix time.
 */
enum jwt_result jwt_verify(struct jwt_verifier *v, const struct jwt_rules *rules, struct jwks *keys,
			   struct str token, int64_t now_s, struct identity **out);

/* The first half of it alone: form, header, algorithm, signature. Says nothing of the claims, so
 * the gateway never decides by it; for tools. */
enum jwt_result jwt_verify_signature(struct jwt_verifier *v, unsigned algorithms, struct jwks *keys,
				     struct str token);

/* Whether it says that this issuer made it, unproven: to choose whom to ask. */
bool jwt_is_by(struct str token, struct str issuer);
