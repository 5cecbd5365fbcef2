/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a token costs that the gateway has not seen before, beside the check of its signature alone:
 * the rest is base64, JSON, claims, the identity, and its place in the cache. Run from the top of
 * the tree; prints nanoseconds of CPU time, the best of some rounds.
 */
#include "gateway/identity/jwt.c" /* check_signature is what there is to compare with */

#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <stdio.h>
#include <time.h>

#include "gateway/identity/token_cache.h"

#define NOW    1800000000LL
#define ROUNDS 15
#define TOKENS 400 /* a round */

/* With as many claims as identity providers put into theirs. */
static const char payload[] =
	"{\"iss\":\"https://id.example.com/rider\",\"sub\":\"0c6f8a1e-51b3-4c9e-9b0e-%08d\","
	"\"aud\":[\"rider-app\",\"account\"],\"exp\":1800000600,\"nbf\":1799999990,"
	"\"iat\":1799999990,\"jti\":\"f2d0b7aa-0a39-4f3b-8f6d-2f6f3c1f9e11\",\"typ\":\"Bearer\","
	"\"azp\":\"rider-app\",\"session_state\":\"b4d1c0de-8a4f-4a53-8f0b-6f5d3c9a1b22\","
	"\"acr\":\"1\",\"scope\":\"openid profile email trips\",\"email_verified\":true,"
	"\"tenant\":\"T-17\",\"name\":\"Eva \\u017divkovi\\u0107\",\"email\":\"eva@example.com\","
	"\"realm_access\":{\"roles\":[\"offline_access\",\"uma_authorization\",\"rider\"]}}";

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

struct issuer {
	EVP_PKEY *pkey; /* NULL: the secret */
	char secret[32];
	struct jwks *keys;
	enum jwt_alg alg;
};

static size_t sign(const struct issuer *issuer, char *token, size_t len, unsigned char *out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t out_len = 512;

	if (!issuer->pkey)
		EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, issuer->secret, 32,
			  (unsigned char *)token, len, out, 512, &out_len);
	else if (!ctx ||
		 EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, issuer->pkey, NULL) != 1 ||
		 EVP_DigestSign(ctx, out, &out_len, (unsigned char *)token, len) != 1)
		abort();
	EVP_MD_CTX_free(ctx);
	if (issuer->alg == JWT_ES256) {
		const unsigned char *at = out;
		ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)out_len);

		BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, 32);
		BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + 32, 32);
		ECDSA_SIG_free(sig);
		out_len = 64;
	}
	return out_len;
}

static char *make(const struct issuer *issuer, int number)
{
	char *token = malloc(4096), text[2048];
	unsigned char signature[512];
	size_t len, signature_len;
	char header[64];

	snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"kid\":\"k\"}",
		 jwt_alg_names[issuer->alg]);
	snprintf(text, sizeof(text), payload, number);
	len = base64url_encode(token, header, strlen(header));
	token[len++] = '.';
	len += base64url_encode(token + len, text, strlen(text));
	token[len] = '\0';
	signature_len = sign(issuer, token, len, signature);
	token[len++] = '.';
	len += base64url_encode(token + len, signature, signature_len);
	token[len] = '\0';
	return token;
}

static void measure(const struct issuer *issuer)
{
	static const struct str audiences[] = { STR("rider-app") }, forward[] = { STR("sub") };
	struct jwt_rules rules = {
		.issuer = STR("https://id.example.com/rider"),
		.audiences = audiences,
		.audience_count = 1,
		.algorithms = JWT_ALG_BIT(issuer->alg),
		.leeway_s = 30,
		.user_claim = STR("sub"),
		.forward = forward,
		.forward_count = 1,
	};
	struct jwt_verifier *v = jwt_verifier_new();
	uint64_t best_all = UINT64_MAX, best_signature = UINT64_MAX;
	char *tokens[TOKENS];

	for (int i = 0; i < TOKENS; i++)
		tokens[i] = make(issuer, i);
	for (int round = 0; round < ROUNDS; round++) {
		struct token_cache *cache = token_cache_new(4096);
		uint64_t begin = cpu_ns(), all, signatures = 0;

		for (int i = 0; i < TOKENS; i++) {
			struct str token = str_from(tokens[i]);
			struct token_key key = token_cache_key(cache, 1, token);
			struct identity *id = token_cache_get(cache, &key, NOW);

			if (id || jwt_verify(v, &rules, issuer->keys, token, NOW, &id) != JWT_OK)
				abort();
			token_cache_put(cache, &key, id, NOW);
			identity_put(&id);
		}
		all = (cpu_ns() - begin) / TOKENS;
		for (int i = 0; i < TOKENS; i++) {
			struct parts parts;
			long len;

			cut(str_from(tokens[i]), &parts);
			len = base64url_decode(v->bytes, parts.signature);
			begin = cpu_ns();
			if (!check_signature(v, 0, issuer->alg, parts.input, v->bytes, (size_t)len))
				abort();
			signatures += cpu_ns() - begin;
		}
		best_all = MIN(best_all, all);
		best_signature = MIN(best_signature, signatures / TOKENS);
		token_cache_free(&cache);
	}
	printf("%s: %6llu ns, of it %6llu ns for the signature, %5lld ns for the rest (%zu "
	       "bytes)\n",
	       jwt_alg_names[issuer->alg], (unsigned long long)best_all,
	       (unsigned long long)best_signature, (long long)(best_all - best_signature),
	       strlen(tokens[0]));
	for (int i = 0; i < TOKENS; i++)
		free(tokens[i]);
	jwt_verifier_free(&v);
}

/* The set as it comes over the wire, so that the keys are those of the gateway. */
static struct jwks *key_set(struct issuer *issuer)
{
	char text[2048], k[64] = "", n[1024] = "";
	struct jwks *keys = NULL;
	unsigned char bytes[512];
	BIGNUM *x = NULL, *y = NULL;
	struct err err;

	if (!issuer->pkey) {
		base64url_encode(k, issuer->secret, 32);
		snprintf(text, sizeof(text),
			 "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"k\",\"k\":\"%s\"}]}", k);
	} else if (issuer->alg == JWT_RS256) {
		EVP_PKEY_get_bn_param(issuer->pkey, OSSL_PKEY_PARAM_RSA_N, &x);
		BN_bn2binpad(x, bytes, 256);
		base64url_encode(n, bytes, 256);
		snprintf(text, sizeof(text),
			 "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"k\",\"n\":\"%s\",\"e\":\"AQAB\"}]}",
			 n);
	} else {
		EVP_PKEY_get_bn_param(issuer->pkey, OSSL_PKEY_PARAM_EC_PUB_X, &x);
		EVP_PKEY_get_bn_param(issuer->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &y);
		BN_bn2binpad(x, bytes, 32);
		base64url_encode(k, bytes, 32);
		BN_bn2binpad(y, bytes, 32);
		base64url_encode(n, bytes, 32);
		snprintf(text, sizeof(text),
			 "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\",\"x\":\"%s\","
			 "\"y\":\"%s\"}]}",
			 k, n);
	}
	BN_free(x);
	BN_free(y);
	if (jwks_parse(&keys, str_from(text), true, &err) < 0)
		abort();
	return keys;
}

int main(void)
{
	struct issuer issuers[] = {
		{ .alg = JWT_HS256, .secret = "0123456789abcdef0123456789abcde" },
		{ .alg = JWT_RS256, .pkey = EVP_RSA_gen(2048) },
		{ .alg = JWT_ES256, .pkey = EVP_EC_gen("P-256") },
	};

	for (size_t i = 0; i < ARRAY_SIZE(issuers); i++) {
		issuers[i].keys = key_set(&issuers[i]);
		measure(&issuers[i]);
		jwks_put(&issuers[i].keys);
		EVP_PKEY_free(issuers[i].pkey);
	}
	return 0;
}
