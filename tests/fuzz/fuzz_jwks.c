/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Web Key Sets. First byte: strict or as an issuer publishes them. */
#include "gateway/identity/jwks.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	bool is_strict = fuzz_take(&bytes) & 1;
	struct jwks *keys = NULL, *again = NULL;
	struct err err = { "" };
	int rc = jwks_parse(&keys, bytes, is_strict, &err);

	if (rc) {
		FUZZ_CHECK(!keys && err.text[0]);
		return 0;
	}
	FUZZ_CHECK(keys->count <= JWKS_MAX_KEYS);
	for (size_t i = 0; i < keys->count; i++) {
		FUZZ_CHECK(keys->keys[i].algs && keys->keys[i].algs < JWT_ALG_BIT(JWT_ALGS));
		FUZZ_CHECK(!keys->keys[i].pkey != !keys->keys[i].secret);
	}
	FUZZ_CHECK(jwks_parse(&again, bytes, is_strict, &err) == 0);
	FUZZ_CHECK(again->fingerprint == keys->fingerprint && again->id != keys->id);
	jwks_put(&again);
	jwks_put(&keys);
	return 0;
}
