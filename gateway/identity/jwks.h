/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Web Key Sets (RFC 7517) with the keys parsed and bound to the algorithms that they may
 * verify. Immutable and reference-counted.
 */
#pragma once

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/str.h"

enum jwt_alg {
	JWT_HS256,
	JWT_HS384,
	JWT_HS512,
	JWT_RS256,
	JWT_RS384,
	JWT_RS512,
	JWT_PS256,
	JWT_PS384,
	JWT_PS512,
	JWT_ES256,
	JWT_ES384,
	JWT_ES512,
	JWT_EDDSA,
	JWT_ALGS,
};
#define JWT_ALG_BIT(alg) (1U << (alg))
#define JWT_ALGS_HMAC    (JWT_ALG_BIT(JWT_HS256) | JWT_ALG_BIT(JWT_HS384) | JWT_ALG_BIT(JWT_HS512))

/* "RS256"; the words of a configuration in the order of the enum, ended by NULL. */
extern const char *const jwt_alg_names[JWT_ALGS + 1];
/* JWT_ALGS for unknown names, "none" among them. */
enum jwt_alg jwt_alg_from(struct str name);

#define JWKS_MAX_BYTES (256U << 10)
#define JWKS_MAX_KEYS  64

struct jwks_key {
	struct str kid;        /* p NULL when it has none */
	unsigned algs;         /* what this key may verify: JWT_ALG_BIT */
	EVP_PKEY *pkey;        /* RSA, EC, Ed25519 */
	unsigned char *secret; /* oct */
	size_t secret_len;
};

struct jwks {
	unsigned refs;
	uint64_t id;          /* differs from every other set loaded by this process */
	uint64_t fingerprint; /* of the content; equal content has an equal one in this process */
	size_t count;
	struct jwks_key keys[];
};

/*
 * Reads a set. Strict: a key of a known type that is wrong, too short or private fails the whole
 * set with a sentence that names it by kid or index (a file is fixed by its owner). Not strict:
 * such keys are left out (a URL's owner may publish what we do not know), and secrets as well: who
 * may read them there could sign. Keys for encryption and
 * keys of unknown types or curves are always left out. No usable key is an error. Returns 0,
 * -EINVAL, -ENOMEM.
 */
int jwks_parse(struct jwks **out, struct str json, bool is_strict, struct err *err);
int jwks_load_file(struct jwks **out, const char *file, struct err *err);
/* The same, not strict: a copy of what was at a URL. */
int jwks_load_copy(struct jwks **out, const char *file, struct err *err);

struct jwks *jwks_ref(struct jwks *keys);
void jwks_put(struct jwks **keys);
