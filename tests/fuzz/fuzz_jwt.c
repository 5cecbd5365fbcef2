/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens: as they come, and with the input as header and claims (the first line is the header),
 * signed rightly, so that what is behind the signature is reached as well.
 */
#include "gateway/identity/jwt.h"

#include <openssl/evp.h>

#include "lib/base64.h"
#include "lib/cleanup.h"
#include "tests/fuzz/fuzz.h"

#define NOW    1800000000LL
#define SECRET "0123456789abcdef0123456789abcdef"
#define KEYS                                                                 \
	"{\"keys\":[{\"kty\":\"oct\",\"kid\":\"k\",\"alg\":\"HS256\",\"k\":" \
	"\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},{\"kty\":\"OKP\"," \
	"\"crv\":\"Ed25519\",\"kid\":\"e\",\"x\":"                           \
	"\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"

static struct jwks *keys;
static struct jwt_verifier *verifier;

static void check_identity(const struct identity *id)
{
	FUZZ_CHECK(id->expires_s > NOW - 30);
	FUZZ_CHECK(id->user && str_eqz(id->user->name, "sub"));
	FUZZ_CHECK(id->user->kind == CLAIM_STRING || id->user->kind == CLAIM_NUMBER);
	FUZZ_CHECK(identity_claim_has(id, STR("aud"), STR("app")));
	for (size_t i = 0; i < id->claim_count; i++) {
		bool is_sent = id->claims[i].parent < 0 && (str_eqz(id->claims[i].name, "email") ||
							    str_eqz(id->claims[i].name, "sub"));

		if (is_sent)
			FUZZ_CHECK(claim_is_safe(&id->claims[i]));
	}
}

static enum jwt_result verify(struct str token)
{
	static const struct str audiences[] = { STR("app") };
	static const struct str forward[] = { STR("sub"), STR("email") };
	static const struct jwt_rules rules = {
		.issuer = STR("https://id.example.com"),
		.audiences = audiences,
		.audience_count = ARRAY_SIZE(audiences),
		.algorithms = JWT_ALG_BIT(JWT_HS256) | JWT_ALG_BIT(JWT_EDDSA),
		.leeway_s = 30,
		.max_lifetime_s = 86400,
		.user_claim = STR("sub"),
		.forward = forward,
		.forward_count = ARRAY_SIZE(forward),
	};
	struct identity *id = NULL;
	enum jwt_result result = jwt_verify(verifier, &rules, keys, token, NOW, &id);

	FUZZ_CHECK(result < JWT_RESULTS && (result == JWT_OK) == (id != NULL));
	FUZZ_CHECK(jwt_result_name(result) && jwt_result_text(result));
	if (id)
		check_identity(id);
	identity_put(&id);
	return result;
}

static void verify_signed(struct str bytes)
{
	struct str header;
	unsigned char mac[64];
	size_t len, mac_len = 0;
	char *token;

	if (!str_split(&bytes, '\n', &header))
		return;
	token = malloc(bytes.len * 2 + header.len * 2 + 128);
	if (!token)
		abort();
	len = base64url_encode(token, header.p, header.len);
	token[len++] = '.';
	len += base64url_encode(token + len, bytes.p, bytes.len);
	if (!EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, SECRET, strlen(SECRET),
		       (unsigned char *)token, len, mac, sizeof(mac), &mac_len))
		abort();
	token[len++] = '.';
	len += base64url_encode(token + len, mac, mac_len);
	FUZZ_CHECK(verify(str_of(token, len)) != JWT_BAD_SIGNATURE);
	free(token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	char *copy = fuzz_copy(bytes);

	if (!keys && jwks_parse(&keys, STR(KEYS), true, NULL) < 0)
		abort();
	if (!verifier)
		verifier = jwt_verifier_new();
	bytes = str_of(copy, bytes.len);
	verify(bytes);
	if (jwt_is_by(bytes, STR("https://id.example.com")))
		FUZZ_CHECK(verify(bytes) != JWT_WRONG_ISSUER);
	verify_signed(bytes);
	free(copy);
	return 0;
}
