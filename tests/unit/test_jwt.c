/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/jwt.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/identity/token_cache.h"
#include "lib/base64.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "tests/unit/unit.h"

#define NOW     1800000000LL
#define ALL     ((1U << JWT_ALGS) - 1)
#define SECRET  "0123456789abcdef0123456789abcdef"
#define SECRET2 "another secret of thirty-two byte"

static struct jwt_verifier *verifier;
static const struct str audiences[] = { STR("rider-app") };

static struct jwt_rules rules_of(unsigned algorithms)
{
	return (struct jwt_rules) {
		.issuer = STR("https://id.example.com/rider"),
		.audiences = audiences,
		.audience_count = 1,
		.algorithms = algorithms,
		.leeway_s = 30,
		.user_claim = STR("sub"),
	};
}

static struct jwks *keys_of(const char *json)
{
	struct jwks *keys = NULL;
	struct err err = { "" };

	if (jwks_parse(&keys, str_from(json), true, &err) < 0)
		fail_msg("%s", err.text);
	return keys;
}

/* A set of one secret. */
static struct jwks *secret_keys(const char *secret, const char *kid)
{
	char k[256] = "", json[512];

	base64url_encode(k, secret, strlen(secret));
	snprintf(json, sizeof(json), "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"%s\",\"k\":\"%s\"}]}",
		 kid, k);
	return keys_of(json);
}

/* An HS256 token of these JSON texts, signed with SECRET. */
static char *token_of(const char *header, const char *payload)
{
	static char token[32768];
	unsigned char mac[64];
	size_t len, mac_len = 0;

	len = base64url_encode(token, header, strlen(header));
	token[len++] = '.';
	len += base64url_encode(token + len, payload, strlen(payload));
	assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, SECRET, strlen(SECRET),
				  (unsigned char *)token, len, mac, sizeof(mac), &mac_len));
	token[len++] = '.';
	len += base64url_encode(token + len, mac, mac_len);
	token[len] = '\0';
	return token;
}

static enum jwt_result verify(const struct jwt_rules *rules, struct jwks *keys, const char *token,
			      struct identity **out)
{
	struct identity *id = NULL;
	enum jwt_result result = jwt_verify(verifier, rules, keys, str_from(token), NOW, &id);

	assert_int_equal(result == JWT_OK, id != NULL);
	/* Nothing is left for the next TLS call of this thread to stumble over. */
	assert_int_equal(ERR_peek_error(), 0);
	if (out)
		*out = id;
	else
		identity_put(&id);
	return result;
}

static json_t *vectors(void)
{
	json_t *v = json_load_file("tests/data/jwt/vectors.json", 0, NULL);

	assert_non_null(v); /* run from the top of the tree */
	return v;
}

static struct jwks *vector_keys(const json_t *v)
{
	char *text = json_dumps(json_object_get(v, "jwks"), 0);
	struct jwks *keys = keys_of(text);

	free(text);
	return keys;
}

static void verifies_every_algorithm(void **state)
{
	json_t *v = vectors(), *entry;
	struct jwks *keys = vector_keys(v);
	size_t i;

	assert_int_equal(keys->count, JWT_ALGS);
	json_array_foreach (json_object_get(v, "tokens"), i, entry) {
		const char *alg = json_string_value(json_object_get(entry, "alg"));
		const char *token = json_string_value(json_object_get(entry, "token"));
		unsigned bit = JWT_ALG_BIT(jwt_alg_from(str_from(alg)));
		struct jwt_rules rules = rules_of(bit);
		struct identity *id;

		/* Twice: the contexts are used again. */
		assert_int_equal(verify(&rules, keys, token, NULL), JWT_OK);
		assert_int_equal(verify(&rules, keys, token, &id), JWT_OK);
		assert_true(str_starts(id->user->text, STR("user-")));
		assert_int_equal(id->expires_s, 4102444800 + 30);
		identity_put(&id);
		rules.algorithms = ALL & ~bit;
		assert_int_equal(verify(&rules, keys, token, NULL), JWT_BAD_ALGORITHM);
	}
	assert_int_equal(i, JWT_ALGS);
	jwks_put(&keys);
	json_decref(v);
}

static void no_single_bit_can_change(void **state)
{
	json_t *v = vectors(), *entry;
	struct jwks *keys = vector_keys(v);
	struct jwt_rules rules = rules_of(ALL);
	size_t i;

	json_array_foreach (json_object_get(v, "tokens"), i, entry) {
		const char *alg = json_string_value(json_object_get(entry, "alg"));
		CLEANUP(cleanup_free)
		char *token = strdup(json_string_value(json_object_get(entry, "token")));
		bool is_slow = strcmp(alg, "ES384") == 0 || strcmp(alg, "ES512") == 0;
		size_t first = (size_t)(strchr(token, '.') - token);
		size_t last = (size_t)(strrchr(token, '.') - token);

		for (size_t at = 0; token[at]; at++) {
			/* What costs half a millisecond: the payload with a bit of each byte. */
			bool is_sampled = is_slow && at > first && at < last;

			for (int bit = 0; bit < 8; bit++) {
				if (is_sampled && bit != (int)(at % 7))
					continue;
				token[at] = (char)(token[at] ^ (1 << bit));
				/* A NUL would only cut the token, which is tried below. */
				if (token[at] && verify(&rules, keys, token, NULL) == JWT_OK)
					fail_msg("%s: byte %zu bit %d", alg, at, bit);
				token[at] = (char)(token[at] ^ (1 << bit));
			}
		}
		for (size_t len = strlen(token); len-- > 0;) {
			token[len] = '\0';
			assert_int_not_equal(verify(&rules, keys, token, NULL), JWT_OK);
		}
	}
	jwks_put(&keys);
	json_decref(v);
}

#define GOOD_HEADER "{\"alg\":\"HS256\",\"kid\":\"a\"}"
#define PARTIES     "\"iss\":\"https://id.example.com/rider\",\"aud\":\"rider-app\""
#define GOOD        "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100}"

static void judges_headers(void **state)
{
	static const struct {
		const char *header;
		enum jwt_result want;
	} cases[] = {
		{ GOOD_HEADER, JWT_OK },
		{ "{\"alg\":\"HS256\"}", JWT_OK }, /* without kid: every key is tried */
		{ "{\"alg\":\"HS256\",\"kid\":\"b\"}", JWT_UNKNOWN_KEY },
		{ "{\"alg\":\"HS256\",\"kid\":\"\"}", JWT_UNKNOWN_KEY },
		{ "{\"alg\":\"none\",\"kid\":\"a\"}", JWT_BAD_ALGORITHM },
		{ "{\"alg\":\"None\"}", JWT_BAD_ALGORITHM },
		{ "{\"alg\":\"hs256\"}", JWT_BAD_ALGORITHM },
		{ "{\"alg\":\"\"}", JWT_BAD_ALGORITHM },
		{ "{\"alg\":\"HS384\",\"kid\":\"a\"}", JWT_UNKNOWN_KEY }, /* secret too short */
		{ "{\"alg\":\"RS256\",\"kid\":\"a\"}", JWT_UNKNOWN_KEY }, /* another type of key */
		{ "{\"alg\":\"RS1\",\"kid\":\"a\"}", JWT_BAD_ALGORITHM },
		{ "{\"kid\":\"a\"}", JWT_BAD_HEADER },
		{ "{\"alg\":1}", JWT_BAD_HEADER },
		{ "{\"alg\":[\"HS256\"]}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"kid\":1}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"crit\":[]}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"crit\":null}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"kid\":null}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"b64\":null}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"b64\":false}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"cty\":\"JWT\"}", JWT_BAD_HEADER },
		{ "{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", JWT_OK },
		{ "{\"alg\":\"HS256\",\"jku\":\"https://evil/\",\"x5u\":\"https://evil/\","
		  "\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}}",
		  JWT_OK }, /* verified by our key and by nothing else */
		{ "{\"alg\":\"none\",\"alg\":\"HS256\"}", JWT_MALFORMED },
		{ "[\"HS256\"]", JWT_MALFORMED },
		{ "\"HS256\"", JWT_MALFORMED },
		{ "{\"alg\":\"HS256\"} ", JWT_OK },
		{ "{\"alg\":\"HS256\"}x", JWT_MALFORMED },
		{ "", JWT_MALFORMED },
		{ "{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}",
		  JWT_MALFORMED },
	};
	struct jwks *keys = secret_keys(SECRET, "a");
	struct jwt_rules rules = rules_of(ALL);

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < CASES(cases); i++) {
			enum jwt_result got = verify(&rules, keys, token_of(cases[i].header, GOOD),
						     NULL);

			if (got != cases[i].want)
				fail_msg("%s: %s", cases[i].header, jwt_result_name(got));
		}
	}
	jwks_put(&keys);
}

static void judges_claims(void **state)
{
	static const struct {
		const char *payload;
		enum jwt_result want;
	} cases[] = {
		{ GOOD, JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\"}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":\"1800000100\"}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":null}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":true}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1e400}", JWT_MALFORMED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1e300}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":9223372036854775807}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":9223372036854775808}", JWT_MALFORMED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":-1e300}", JWT_EXPIRED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":-1}", JWT_EXPIRED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":0}", JWT_EXPIRED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1799999970}", JWT_EXPIRED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1799999970.9}", JWT_EXPIRED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1799999971}", JWT_OK }, /* leeway */
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"exp\":1}", JWT_MALFORMED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"nbf\":1800000030}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"nbf\":1800000030.1}",
		  JWT_NOT_YET_VALID },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"nbf\":\"0\"}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"nbf\":-5}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"nbf\":null}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":null,\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"iat\":1800000031}",
		  JWT_NOT_YET_VALID },
		{ "{" PARTIES ",\"sub\":\"u1\",\"exp\":1800000100,\"iat\":[]}", JWT_BAD_CLAIM },
		{ "{\"aud\":\"rider-app\",\"sub\":\"u1\",\"exp\":1800000100}", JWT_WRONG_ISSUER },
		{ "{\"iss\":\"https://id.example.com/driver\",\"aud\":\"rider-app\",\"sub\":\"u1\","
		  "\"exp\":1800000100}",
		  JWT_WRONG_ISSUER },
		{ "{\"iss\":[\"https://id.example.com/"
		  "rider\"],\"aud\":\"rider-app\",\"sub\":\"u1\","
		  "\"exp\":1800000100}",
		  JWT_WRONG_ISSUER },
		{ "{\"iss\":\"https://id.example.com/rider\",\"sub\":\"u1\",\"exp\":1800000100}",
		  JWT_WRONG_AUDIENCE },
		{ "{\"iss\":\"https://id.example.com/rider\",\"aud\":[],\"sub\":\"u1\","
		  "\"exp\":1800000100}",
		  JWT_WRONG_AUDIENCE },
		{ "{\"iss\":\"https://id.example.com/rider\",\"aud\":[\"x\",\"rider-app\"],"
		  "\"sub\":\"u1\",\"exp\":1800000100}",
		  JWT_OK },
		{ "{\"iss\":\"https://id.example.com/rider\",\"aud\":\"rider-app2\",\"sub\":\"u1\","
		  "\"exp\":1800000100}",
		  JWT_WRONG_AUDIENCE },
		{ "{" PARTIES ",\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"\",\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":[\"u\"],\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":42,\"exp\":1800000100}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"a\\r\\nX-Admin: 1\",\"exp\":1800000100}", JWT_BAD_CLAIM },
		/* A header's reader trims it: that would be the user "a". */
		{ "{" PARTIES ",\"sub\":\" a\",\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"a \",\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\" \",\"exp\":1800000100}", JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"a b\",\"exp\":1800000100}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u1\",\"tenant\":\"x \",\"exp\":1800000100}",
		  JWT_BAD_CLAIM },
		{ "{" PARTIES ",\"sub\":\"a\\u0000b\",\"exp\":1800000100}", JWT_MALFORMED },
		{ "{" PARTIES ",\"sub\":\"u1\",\"tenant\":\"x\\ny\",\"exp\":1800000100}",
		  JWT_BAD_CLAIM }, /* it would be forwarded */
		{ "{" PARTIES ",\"sub\":\"u1\",\"other\":\"x\\ny\",\"exp\":1800000100}", JWT_OK },
		{ "{" PARTIES ",\"sub\":\"u\xff\",\"exp\":1800000100}", JWT_MALFORMED },
		{ "[]", JWT_MALFORMED },
		{ "", JWT_MALFORMED },
	};
	static const struct str forward[] = { STR("tenant") };
	struct jwks *keys = secret_keys(SECRET, "a");
	struct jwt_rules rules = rules_of(ALL);

	rules.forward = forward;
	rules.forward_count = 1;
	for (size_t i = 0; i < CASES(cases); i++) {
		enum jwt_result got = verify(&rules, keys, token_of(GOOD_HEADER, cases[i].payload),
					     NULL);

		if (got != cases[i].want)
			fail_msg("%s: %s", cases[i].payload, jwt_result_name(got));
	}
	rules.max_lifetime_s = 3600;
	assert_int_equal(verify(&rules, keys, token_of(GOOD_HEADER, GOOD), NULL),
			 JWT_TOO_LONG_LIVED);
	assert_int_equal(
		verify(&rules, keys,
		       token_of(GOOD_HEADER, "{" PARTIES ",\"sub\":\"u\",\"exp\":1800000100,"
					     "\"iat\":1799996500}"),
		       NULL),
		JWT_OK);
	assert_int_equal(
		verify(&rules, keys,
		       token_of(GOOD_HEADER, "{" PARTIES ",\"sub\":\"u\",\"exp\":1800000101,"
					     "\"iat\":1799996500}"),
		       NULL),
		JWT_TOO_LONG_LIVED);
	jwks_put(&keys);
}

static void takes_three_parts_and_no_more(void **state)
{
	struct jwks *keys = secret_keys(SECRET, "a");
	struct jwt_rules rules = rules_of(ALL);
	char *good = strdup(token_of(GOOD_HEADER, GOOD)), text[32768];
	char *dot = strrchr(good, '.');
	char *big = malloc(20000);

	assert_int_equal(verify(&rules, keys, good, NULL), JWT_OK);
	assert_int_equal(verify(&rules, keys, "", NULL), JWT_MISSING);
	assert_int_equal(verify(&rules, keys, "abc", NULL), JWT_MALFORMED);
	assert_int_equal(verify(&rules, keys, "..", NULL), JWT_MALFORMED);
	snprintf(text, sizeof(text), "%s.", good);
	assert_int_equal(verify(&rules, keys, text, NULL), JWT_MALFORMED);
	snprintf(text, sizeof(text), "%s.%s", good, dot + 1);
	assert_int_equal(verify(&rules, keys, text, NULL), JWT_MALFORMED);
	snprintf(text, sizeof(text), "%s=", good);
	assert_int_equal(verify(&rules, keys, text, NULL), JWT_MALFORMED);
	*dot = '\0';
	snprintf(text, sizeof(text), "%s", good);
	assert_int_equal(verify(&rules, keys, text, NULL), JWT_MALFORMED);
	snprintf(text, sizeof(text), "%s.", good);
	assert_int_equal(verify(&rules, keys, text, NULL), JWT_BAD_SIGNATURE);
	memset(big, 'a', 19999);
	big[19999] = '\0';
	assert_int_equal(verify(&rules, keys, big, NULL), JWT_TOO_LONG);
	free(big);
	free(good);
	jwks_put(&keys);
}

static void a_new_key_set_replaces_the_old_one(void **state)
{
	struct jwks *a = secret_keys(SECRET, "a"), *b = secret_keys(SECRET2, "a");
	struct jwt_rules rules = rules_of(ALL);
	const char *token = token_of(GOOD_HEADER, GOOD);

	assert_int_not_equal(a->id, b->id);
	assert_int_not_equal(a->fingerprint, b->fingerprint);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(verify(&rules, a, token, NULL), JWT_OK);
		/* The same kid, another domain's key. */
		assert_int_equal(verify(&rules, b, token, NULL), JWT_BAD_SIGNATURE);
	}
	jwks_put(&a);
	jwks_put(&b);
}

static void ecdsa_takes_two_numbers_that_are_not_zero(void **state)
{
	json_t *v = vectors(), *entry;
	struct jwks *keys = vector_keys(v);
	struct jwt_rules rules = rules_of(ALL);
	size_t i;

	json_array_foreach (json_object_get(v, "tokens"), i, entry) {
		const char *token = json_string_value(json_object_get(entry, "token"));
		const char *dot = strrchr(token, '.');
		unsigned char raw[256] = { 0 };
		char text[4096];
		size_t len;

		if (strcmp(json_string_value(json_object_get(entry, "alg")), "ES256") != 0)
			continue;
		/* The same numbers with a leading zero each are another spelling: 66 bytes. */
		assert_int_equal(base64url_decode(raw + 128, str_from(dot + 1)), 64);
		memcpy(raw + 1, raw + 128, 32);
		memcpy(raw + 34, raw + 160, 32);
		len = (size_t)(dot + 1 - token);
		memcpy(text, token, len);
		len += base64url_encode(text + len, raw, 66);
		text[len] = '\0';
		assert_int_equal(verify(&rules, keys, text, NULL), JWT_BAD_SIGNATURE);
		/* All zero; r zero; s zero; DER; one byte short. */
		static const unsigned char one[] = { 0x30, 6, 2, 1, 1, 2, 1, 1 };
		const struct {
			size_t at, len;
		} shapes[] = { { 0, 64 }, { 63, 64 }, { 31, 64 }, { 0, 8 }, { 0, 63 } };

		for (size_t s = 0; s < CASES(shapes); s++) {
			memset(raw, 0, sizeof(raw));
			if (s == 1 || s == 2)
				raw[shapes[s].at] = 1;
			if (s == 3)
				memcpy(raw, one, sizeof(one));
			len = (size_t)(dot + 1 - token);
			memcpy(text, token, len);
			len += base64url_encode(text + len, raw, shapes[s].len);
			text[len] = '\0';
			assert_int_equal(verify(&rules, keys, text, NULL), JWT_BAD_SIGNATURE);
		}
	}
	jwks_put(&keys);
	json_decref(v);
}

static void key_sets_are_read_strictly(void **state)
{
#define K32 "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
#define OCT "\"kty\":\"oct\",\"k\":\"" K32 "\""
	static const struct {
		const char *json, *want; /* NULL: good */
	} cases[] = {
		{ "{\"keys\":[{" OCT "}]}", NULL },
		{ "{\"keys\":[{" OCT ",\"alg\":\"HS256\",\"use\":\"sig\"}]}", NULL },
		{ "{\"keys\":[{" OCT ",\"key_ops\":[\"sign\",\"verify\"]}]}", NULL },
		{ "{\"keys\":[{" OCT "},{\"kty\":\"new\"},{\"kty\":\"EC\",\"crv\":\"secp256k1\"}]}",
		  NULL },
		{ "{\"keys\":[]}", "no key that can verify" },
		{ "{\"keys\":{}}", "no list \"keys\"" },
		{ "[]", "no list \"keys\"" },
		{ "{\"keys\":[", "line 1" },
		{ "{\"keys\":[1]}", "keys[0]: is not an object" },
		{ "{\"keys\":[{\"k\":\"x\"}]}", "keys[0]: \"kty\" is missing" },
		{ "{\"keys\":[{" OCT ",\"use\":\"enc\"}]}", "no key that can verify" },
		{ "{\"keys\":[{" OCT ",\"key_ops\":[\"encrypt\"]}]}", "no key that can verify" },
		{ "{\"keys\":[{" OCT ",\"key_ops\":\"verify\"}]}", "no key that can verify" },
		{ "{\"keys\":[{" OCT ",\"alg\":\"RS256\"}]}", "\"alg\" does not go with this key" },
		{ "{\"keys\":[{" OCT ",\"alg\":\"HS512\"}]}", "\"alg\" does not go with this key" },
		{ "{\"keys\":[{" OCT ",\"alg\":\"HS256\",\"alg\":\"none\"}]}", "duplicate" },
		{ "{\"keys\":[{" OCT "},{\"kty\":\"oct\",\"kid\":\"short\",\"k\":\"AAAA\"}]}",
		  "keys[1] (kid \"short\"): a secret must have at least 32 bytes" },
		{ "{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"}]}", "\"k\" is missing or no base64url" },
		{ "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
		  "an RSA key must have at least 2048 bits" },
		{ "{\"keys\":[{\"kty\":\"RSA\",\"e\":\"AQAB\"}]}", "\"n\" is missing" },
		{ "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}",
		  "not a coordinate of the curve" },
		{ "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" K32 "\",\"y\":\"" K32
		  "\"}]}",
		  "no point of the curve" },
		{ "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}]}",
		  "not 32 bytes" },
		{ "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"d\":\"AQAB\"}]}",
		  "private key" },
		{ "{\"keys\":[{" OCT ",\"kid\":7}]}", "\"kid\" is not a string" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct jwks *keys = NULL;
		struct err err = { "" };
		int rc = jwks_parse(&keys, str_from(cases[i].json), true, &err);

		if ((rc == 0) != !cases[i].want ||
		    (cases[i].want && !strstr(err.text, cases[i].want)))
			fail_msg("%s: %d %s", cases[i].json, rc, err.text);
		jwks_put(&keys);
		assert_int_equal(ERR_peek_error(), 0);
	}
	/* A URL's owner may publish keys that we cannot use beside good ones. What is a secret no
	 * more is none of the good ones. */
	struct jwks *keys = NULL;
	struct err err;

	assert_int_equal(
		jwks_parse(&keys,
			   STR("{\"keys\":[{" OCT "},{\"kty\":\"RSA\",\"n\":\"AQAB\","
			       "\"e\":\"AQAB\"},{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":"
			       "\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"),
			   false, &err),
		0);
	assert_int_equal(keys->count, 1);
	assert_int_equal(keys->keys[0].algs, JWT_ALG_BIT(JWT_EDDSA));
	jwks_put(&keys);
	assert_int_equal(jwks_parse(&keys, STR("{\"keys\":[{" OCT "}]}"), false, &err), -EINVAL);
	assert_int_equal(jwks_load_file(&keys, "/nonexistent.json", &err), -EINVAL);
	assert_string_equal(err.text, "cannot read /nonexistent.json: No such file or directory");
}

/* n such that every message would be its own signature. */
static void an_rsa_exponent_of_one_is_refused(void **state)
{
	json_t *v = vectors(), *key;
	struct err err = { "" };
	size_t i;

	json_array_foreach (json_object_get(json_object_get(v, "jwks"), "keys"), i, key) {
		struct jwks *keys = NULL;
		char *text;
		json_t *set;

		if (strcmp(json_string_value(json_object_get(key, "kty")), "RSA") != 0)
			continue;
		json_object_set_new(key, "e", json_string("AQ"));
		set = json_pack("{s[O]}", "keys", key);
		text = json_dumps(set, 0);
		assert_int_equal(jwks_parse(&keys, str_from(text), true, &err), -EINVAL);
		assert_non_null(strstr(err.text, "\"e\""));
		free(text);
		json_decref(set);
	}
	json_decref(v);
}

static void claims_keep_their_types(void **state)
{
	struct jwks *keys = secret_keys(SECRET, "a");
	struct jwt_rules rules = rules_of(ALL);
	struct identity *id;

	assert_int_equal(verify(&rules, keys,
				token_of(GOOD_HEADER,
					 "{" PARTIES ",\"sub\":98765,\"exp\":1800000100,"
					 "\"scope\":\"read pay\",\"roles\":[\"a\",\"b,c\"],"
					 "\"ok\":true,\"nil\":null,\"o\":{\"x\":1},\"e\":\"\"}"),
				&id),
			 JWT_OK);
	assert_true(str_eqz(id->user->text, "98765") && str_eqz(id->user->json, "98765"));
	assert_true(
		str_eqz(identity_claim(id, STR("iss"))->json, "\"https://id.example.com/rider\""));
	assert_true(str_eqz(identity_claim(id, STR("roles"))->text, "a,b,c"));
	assert_true(str_eqz(identity_claim(id, STR("ok"))->text, "true"));
	assert_true(str_eqz(identity_claim(id, STR("o"))->text, "{\"x\":1}"));
	assert_null(identity_claim(id, STR("nil")));
	assert_true(identity_claim_has(id, STR("scope"), STR("pay")));
	assert_true(identity_claim_has(id, STR("scope"), STR("read")));
	assert_false(identity_claim_has(id, STR("scope"), STR("rea")));
	assert_false(identity_claim_has(id, STR("scope"), STR("")));
	assert_true(identity_claim_has(id, STR("roles"), STR("b,c")));
	assert_false(identity_claim_has(id, STR("roles"), STR("b")));
	assert_true(identity_claim_has(id, STR("ok"), STR("true")));
	assert_false(identity_claim_has(id, STR("none"), STR("x")));
	identity_put(&id);
	jwks_put(&keys);
}

static struct identity *identity_until(int64_t expires_s)
{
	struct identity *id = identity_new(STR("{\"sub\":\"u\"}"), STR("sub"), expires_s);

	assert_non_null(id);
	return id;
}

static void the_cache_remembers_until_exp(void **state)
{
	struct token_cache *c = token_cache_new(1024);
	struct identity *id = identity_until(100), *got;
	struct token_key key = token_cache_key(c, 1, STR("token"));
	struct token_key other = token_cache_key(c, 2, STR("token"));
	struct token_key changed = token_cache_key(c, 1, STR("tokeN"));
	struct token_cache_stats stats;

	assert_null(token_cache_get(c, &key, 50));
	token_cache_put(c, &key, id, 50);
	got = token_cache_get(c, &key, 99);
	assert_ptr_equal(got, id);
	identity_put(&got);
	assert_null(token_cache_get(c, &other, 50)); /* another issuer, other rules or keys */
	assert_null(token_cache_get(c, &changed, 50));
	assert_null(token_cache_get(c, &key, 100));
	assert_null(token_cache_get(c, &key, 50)); /* gone, not only hidden */
	token_cache_put(c, &key, id, 100);
	assert_null(token_cache_get(c, &key, 99)); /* an expired one is not taken */
	token_cache_put(c, &key, id, 50);
	token_cache_put(c, &key, id, 50);
	token_cache_stats(c, &stats);
	assert_int_equal(stats.tokens, 1);
	assert_int_equal(stats.hits, 1);
	token_cache_clear(c);
	assert_null(token_cache_get(c, &key, 50));
	token_cache_stats(c, &stats);
	assert_int_equal(stats.tokens, 0);
	assert_int_equal(id->refs, 1);
	identity_put(&id);
	token_cache_free(&c);
}

static void the_cache_is_bounded(void **state)
{
	struct token_cache *c = token_cache_new(1024);
	struct token_cache_stats stats;
	struct token_key hot = token_cache_key(c, 1, STR("hot"));
	struct identity *id = identity_until(100), *got;
	char text[32];

	token_cache_put(c, &hot, id, 1);
	for (int i = 0; i < 50000; i++) {
		int len = snprintf(text, sizeof(text), "token %d", i);
		struct token_key key = token_cache_key(c, 1, str_of(text, (size_t)len));

		token_cache_put(c, &key, id, 1);
		/* What is used stays. */
		got = token_cache_get(c, &hot, 1);
		assert_non_null(got);
		identity_put(&got);
	}
	token_cache_stats(c, &stats);
	assert_int_equal(stats.tokens, 1024);
	assert_int_equal(stats.evictions, 50001 - 1024);
	token_cache_free(&c);
	assert_int_equal(id->refs, 1);
	identity_put(&id);
}

static void *crowd_run(void *arg)
{
	struct token_cache *c = arg;
	char text[32];

	for (int i = 0; i < 20000; i++) {
		int len = snprintf(text, sizeof(text), "token %d", i % 500);
		struct token_key key = token_cache_key(c, 1, str_of(text, (size_t)len));
		struct identity *id = token_cache_get(c, &key, 1);

		if (!id) {
			id = identity_until(100 + i % 500);
			token_cache_put(c, &key, id, 1);
		}
		/* Whoever else put it there, it is the identity of this token. */
		assert_int_equal(id->expires_s, 100 + i % 500);
		identity_put(&id);
	}
	return NULL;
}

static void threads_share_the_cache(void **state)
{
	struct token_cache *c = token_cache_new(256); /* too small for all: much is evicted */
	struct token_cache_stats stats;
	pthread_t threads[4];

	for (size_t i = 0; i < CASES(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, c), 0);
	for (size_t i = 0; i < CASES(threads); i++)
		pthread_join(threads[i], NULL);
	token_cache_stats(c, &stats);
	assert_int_equal(stats.hits + stats.misses, 4 * 20000);
	assert_true(stats.evictions > 0 && stats.hits > 0);
	token_cache_free(&c);
}

static uint64_t time_per(int count, const struct jwt_rules *rules, struct jwks *keys,
			 const char *token)
{
	uint64_t begin = clock_mono_ns();

	for (int i = 0; i < count; i++)
		assert_int_equal(verify(rules, keys, token, NULL), JWT_OK);
	return (clock_mono_ns() - begin) / (uint64_t)count;
}

static void prints_what_it_costs(void **state)
{
	json_t *v = vectors(), *entry;
	struct jwks *keys = vector_keys(v);
	struct token_cache *c = token_cache_new(1024);
	struct jwt_rules rules = rules_of(ALL);
	struct identity *id;
	struct token_key key;
	const char *token = NULL;
	uint64_t begin;
	size_t i;

	json_array_foreach (json_object_get(v, "tokens"), i, entry) {
		const char *alg = json_string_value(json_object_get(entry, "alg"));

		token = json_string_value(json_object_get(entry, "token"));
		print_message("%s: %" PRIu64 " ns\n", alg, time_per(300, &rules, keys, token));
	}
	assert_int_equal(verify(&rules, keys, token, &id), JWT_OK);
	begin = clock_mono_ns();
	for (i = 0; i < 10000; i++) {
		struct identity *got;

		key = token_cache_key(c, 1, str_from(token));
		got = token_cache_get(c, &key, NOW);
		if (!got)
			token_cache_put(c, &key, id, NOW);
		identity_put(&got);
	}
	print_message("from the cache (%zu bytes): %" PRIu64 " ns\n", strlen(token),
		      (clock_mono_ns() - begin) / 10000);
	identity_put(&id);
	token_cache_free(&c);
	jwks_put(&keys);
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verifies_every_algorithm),
		cmocka_unit_test(no_single_bit_can_change),
		cmocka_unit_test(judges_headers),
		cmocka_unit_test(judges_claims),
		cmocka_unit_test(takes_three_parts_and_no_more),
		cmocka_unit_test(a_new_key_set_replaces_the_old_one),
		cmocka_unit_test(ecdsa_takes_two_numbers_that_are_not_zero),
		cmocka_unit_test(key_sets_are_read_strictly),
		cmocka_unit_test(an_rsa_exponent_of_one_is_refused),
		cmocka_unit_test(claims_keep_their_types),
		cmocka_unit_test(the_cache_remembers_until_exp),
		cmocka_unit_test(the_cache_is_bounded),
		cmocka_unit_test(threads_share_the_cache),
		cmocka_unit_test(prints_what_it_costs),
	};
	int rc;

	verifier = jwt_verifier_new();
	rc = cmocka_run_group_tests_name("jwt", tests, NULL, NULL);
	jwt_verifier_free(&verifier);
	return rc;
}
