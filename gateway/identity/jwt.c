/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/jwt.h"

#include <math.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <stdlib.h>

#include "gateway/identity/claims.h"
#include "lib/base64.h"
#include "lib/cleanup.h"

#define MAX_HEADER     512 /* a longer one is not remembered */
#define MAX_KEYS_TRIED 4   /* for a token without kid */

static const struct {
	const char *name, *text;
} results[JWT_RESULTS] = {
	[JWT_OK] = { "ok", "the token is valid" },
	[JWT_MISSING] = { "missing", "there is no token" },
	[JWT_TOO_LONG] = { "too_long", "the token is too long" },
	[JWT_MALFORMED] = { "malformed", "the token is malformed" },
	[JWT_BAD_HEADER] = { "bad_header", "the token's header is not acceptable" },
	[JWT_BAD_ALGORITHM] = { "bad_algorithm", "the token's algorithm is not allowed" },
	[JWT_UNKNOWN_KEY] = { "unknown_key", "the token's key is not known" },
	[JWT_BAD_SIGNATURE] = { "bad_signature", "the token's signature is wrong" },
	[JWT_BAD_CLAIM] = { "bad_claim", "a claim of the token is missing or malformed" },
	[JWT_EXPIRED] = { "expired", "the token has expired" },
	[JWT_TOO_LONG_LIVED] = { "too_long_lived", "the token is valid for longer than allowed" },
	[JWT_NOT_YET_VALID] = { "not_yet_valid", "the token is not valid yet" },
	[JWT_WRONG_ISSUER] = { "wrong_issuer", "the token was issued by somebody else" },
	[JWT_WRONG_AUDIENCE] = { "wrong_audience", "the token is meant for somebody else" },
	[JWT_NO_KEYS] = { "no_keys", "the keys that verify tokens are not there yet" },
	[JWT_INTERNAL] = { "internal", "the token could not be checked" },
};

const char *jwt_result_name(enum jwt_result r)
{
	return results[r].name;
}

const char *jwt_result_text(enum jwt_result r)
{
	return results[r].text;
}

/* --- algorithms ---------------------------------------------------------------------------- */

enum family { FAMILY_HMAC, FAMILY_RSA, FAMILY_PSS, FAMILY_ECDSA, FAMILY_EDDSA };

static const struct {
	enum family family;
	const char *hash;
	unsigned hash_index;  /* into fetched.md */
	size_t signature_len; /* where it is fixed */
} algs[JWT_ALGS] = {
	[JWT_HS256] = { FAMILY_HMAC, "SHA256", 0, 32 },
	[JWT_HS384] = { FAMILY_HMAC, "SHA384", 1, 48 },
	[JWT_HS512] = { FAMILY_HMAC, "SHA512", 2, 64 },
	[JWT_RS256] = { FAMILY_RSA, "SHA256", 0, 0 },
	[JWT_RS384] = { FAMILY_RSA, "SHA384", 1, 0 },
	[JWT_RS512] = { FAMILY_RSA, "SHA512", 2, 0 },
	[JWT_PS256] = { FAMILY_PSS, "SHA256", 0, 0 },
	[JWT_PS384] = { FAMILY_PSS, "SHA384", 1, 0 },
	[JWT_PS512] = { FAMILY_PSS, "SHA512", 2, 0 },
	[JWT_ES256] = { FAMILY_ECDSA, "SHA256", 0, 64 },
	[JWT_ES384] = { FAMILY_ECDSA, "SHA384", 1, 96 },
	[JWT_ES512] = { FAMILY_ECDSA, "SHA512", 2, 132 },
	[JWT_EDDSA] = { FAMILY_EDDSA, NULL, 0, 64 },
};

/* Fetched once: OpenSSL 3 takes locks and searches its providers each time. */
static struct {
	EVP_MD *md[3];
	EVP_MAC *hmac;
} fetched;
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

static void fetch(void)
{
	fetched.md[0] = EVP_MD_fetch(NULL, "SHA256", NULL);
	fetched.md[1] = EVP_MD_fetch(NULL, "SHA384", NULL);
	fetched.md[2] = EVP_MD_fetch(NULL, "SHA512", NULL);
	fetched.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
}

/* A key made ready for one algorithm. One of the two is set. */
struct prepared {
	EVP_PKEY_CTX *pkey;
	EVP_MAC_CTX *mac;
};

struct jwt_verifier {
	struct jwks *keys; /* the set that `prepared` belongs to; held */
	struct prepared (*prepared)[JWT_ALGS];
	EVP_MD_CTX *md;
	/* The last header seen: an issuer's tokens nearly all have the same one. */
	size_t header_len;
	char header_text[MAX_HEADER];
	enum jwt_alg header_alg;
	bool header_has_kid;
	size_t header_kid_len;
	char header_kid[MAX_HEADER];
	unsigned char bytes[BASE64URL_DECODED_MAX(JWT_MAX_BYTES)];
};

struct jwt_verifier *jwt_verifier_new(void)
{
	struct jwt_verifier *v = calloc(1, sizeof(*v));

	pthread_once(&fetch_once, fetch);
	if (v)
		v->md = EVP_MD_CTX_new();
	if (!v || !v->md || !fetched.md[0] || !fetched.md[1] || !fetched.md[2] || !fetched.hmac) {
		free(v);
		return NULL;
	}
	return v;
}

static void verifier_drop_keys(struct jwt_verifier *v)
{
	for (size_t i = 0; v->keys && v->prepared && i < v->keys->count; i++) {
		for (size_t alg = 0; alg < JWT_ALGS; alg++) {
			EVP_PKEY_CTX_free(v->prepared[i][alg].pkey);
			EVP_MAC_CTX_free(v->prepared[i][alg].mac);
		}
	}
	free(v->prepared);
	v->prepared = NULL;
	jwks_put(&v->keys);
}

void jwt_verifier_free(struct jwt_verifier **v)
{
	if (!*v)
		return;
	verifier_drop_keys(*v);
	EVP_MD_CTX_free((*v)->md);
	free(*v);
	*v = NULL;
}

static bool verifier_use(struct jwt_verifier *v, struct jwks *keys)
{
	if (v->keys && v->keys->id == keys->id)
		return true;
	verifier_drop_keys(v);
	v->prepared = calloc(keys->count, sizeof(*v->prepared));
	if (!v->prepared)
		return false;
	v->keys = jwks_ref(keys);
	return true;
}

static EVP_PKEY_CTX *prepare_pkey(const struct jwks_key *key, enum jwt_alg alg)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	const EVP_MD *md = fetched.md[algs[alg].hash_index];
	bool is_good = ctx && EVP_PKEY_verify_init(ctx) == 1;

	if (is_good && algs[alg].family == FAMILY_RSA)
		is_good = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
	/* RFC 7518 3.5: MGF1 with the same hash, salt as long as the hash. */
	if (is_good && algs[alg].family == FAMILY_PSS)
		is_good = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
			  EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1 &&
			  EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1;
	if (is_good && EVP_PKEY_CTX_set_signature_md(ctx, md) == 1)
		return ctx;
	EVP_PKEY_CTX_free(ctx);
	return NULL;
}

static EVP_MAC_CTX *prepare_mac(const struct jwks_key *key, enum jwt_alg alg)
{
	char hash[8];
	OSSL_PARAM params[2];
	EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(fetched.hmac);

	memcpy(hash, algs[alg].hash, 7);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, hash, 0);
	params[1] = OSSL_PARAM_construct_end();
	if (ctx && EVP_MAC_init(ctx, key->secret, key->secret_len, params) == 1)
		return ctx;
	EVP_MAC_CTX_free(ctx);
	return NULL;
}

static bool check_hmac(struct jwt_verifier *v, size_t key, enum jwt_alg alg, struct str input,
		       const unsigned char *signature, size_t len)
{
	struct prepared *p = &v->prepared[key][alg];
	unsigned char mac[64];
	size_t mac_len = 0;

	/* Initialised again without a key, it keeps the one it has. */
	if (p->mac ? EVP_MAC_init(p->mac, NULL, 0, NULL) != 1
		   : !(p->mac = prepare_mac(&v->keys->keys[key], alg)))
		return false;
	return EVP_MAC_update(p->mac, (const unsigned char *)input.p, input.len) == 1 &&
	       EVP_MAC_final(p->mac, mac, &mac_len, sizeof(mac)) == 1 && mac_len == len &&
	       CRYPTO_memcmp(mac, signature, len) == 0;
}

/* An unsigned number of `len` bytes as a DER INTEGER. Returns its length, 0 when the number is 0.
 */
static size_t der_integer(unsigned char *out, const unsigned char *p, size_t len)
{
	size_t pad;

	while (len && *p == 0) {
		p++;
		len--;
	}
	if (len == 0)
		return 0;
	pad = *p >> 7; /* keeps it positive */
	out[0] = 2;
	out[1] = (unsigned char)(len + pad);
	out[2] = 0;
	memcpy(out + 2 + pad, p, len);
	return 2 + pad + len;
}

/* R and S side by side (RFC 7518 3.4) as the SEQUENCE that OpenSSL wants; 0 when one of them is 0.
 */
#define DER_MAX 160
static size_t der_signature(unsigned char out[DER_MAX], const unsigned char *raw, size_t raw_len)
{
	unsigned char integers[DER_MAX];
	size_t r = der_integer(integers, raw, raw_len / 2);
	size_t s = der_integer(integers + r, raw + raw_len / 2, raw_len / 2);
	size_t head = 0;

	if (r == 0 || s == 0)
		return 0;
	out[head++] = 0x30;
	if (r + s > 127)
		out[head++] = 0x81;
	out[head++] = (unsigned char)(r + s);
	memcpy(out + head, integers, r + s);
	return head + r + s;
}

static bool check_digest(struct jwt_verifier *v, size_t key, enum jwt_alg alg, struct str input,
			 const unsigned char *signature, size_t len)
{
	struct prepared *p = &v->prepared[key][alg];
	unsigned char digest[EVP_MAX_MD_SIZE], der[DER_MAX];
	unsigned digest_len = 0;

	if (algs[alg].family == FAMILY_ECDSA) {
		len = der_signature(der, signature, len);
		signature = der;
		if (len == 0)
			return false;
	}
	if (!p->pkey)
		p->pkey = prepare_pkey(&v->keys->keys[key], alg);
	return p->pkey && EVP_DigestInit_ex2(v->md, fetched.md[algs[alg].hash_index], NULL) == 1 &&
	       EVP_DigestUpdate(v->md, input.p, input.len) == 1 &&
	       EVP_DigestFinal_ex(v->md, digest, &digest_len) == 1 &&
	       EVP_PKEY_verify(p->pkey, signature, len, digest, digest_len) == 1;
}

/* Ed25519 hashes by itself and has no prepared form in OpenSSL 3.0. */
static bool check_eddsa(const struct jwks_key *key, struct str input,
			const unsigned char *signature, size_t len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool is_good = ctx &&
		       EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, key->pkey, NULL) == 1 &&
		       EVP_DigestVerify(ctx, signature, len, (const unsigned char *)input.p,
					input.len) == 1;

	EVP_MD_CTX_free(ctx);
	return is_good;
}

static bool check_signature(struct jwt_verifier *v, size_t key, enum jwt_alg alg, struct str input,
			    const unsigned char *signature, size_t len)
{
	bool is_good;

	if (len == 0 || (algs[alg].signature_len && len != algs[alg].signature_len))
		return false;
	if (algs[alg].family == FAMILY_HMAC)
		is_good = check_hmac(v, key, alg, input, signature, len);
	else if (algs[alg].family == FAMILY_EDDSA)
		is_good = check_eddsa(&v->keys->keys[key], input, signature, len);
	else
		is_good = check_digest(v, key, alg, input, signature, len);
	/* What OpenSSL left behind would be taken for a failure of the next TLS call. */
	if (!is_good)
		ERR_clear_error();
	return is_good;
}

/* --- parts --------------------------------------------------------------------------------- */

struct parts {
	struct str header, payload, signature;
	struct str input; /* header.payload, what was signed */
};

static bool cut(struct str token, struct parts *out)
{
	ptrdiff_t first = str_chr(token, '.'), second;
	struct str rest;

	if (first < 0)
		return false;
	rest = str_sub(token, (size_t)first + 1, token.len);
	second = str_chr(rest, '.');
	if (second < 0)
		return false;
	out->header = str_sub(token, 0, (size_t)first);
	out->payload = str_sub(rest, 0, (size_t)second);
	out->signature = str_sub(rest, (size_t)second + 1, rest.len);
	out->input = str_sub(token, 0, (size_t)(first + second) + 1);
	return str_chr(out->signature, '.') < 0;
}

/* A part that is a JSON object without repeated members. */
static bool parse_part(struct jwt_verifier *v, struct str text, struct claims *out)
{
	long len = base64url_decode(v->bytes, text);

	return len > 0 && claims_parse(out, str_of((const char *)v->bytes, (size_t)len)) == 0;
}

static const struct claim *find(const struct claims *claims, const char *name)
{
	for (size_t i = 0; i < claims->count; i++) {
		if (claims->list[i].parent < 0 && str_eqz(claims->list[i].name, name))
			return &claims->list[i];
	}
	return NULL;
}

/* Takes what counts from a header into the verifier. jku, x5u, jwk and x5c are never looked at. */
static enum jwt_result take_header(struct jwt_verifier *v, const struct claims *header)
{
	const struct claim *alg = find(header, "alg"), *kid = find(header, "kid");
	const struct claim *cty = find(header, "cty"), *b64 = find(header, "b64");

	if (find(header, "crit") || (b64 && !str_eqz(b64->json, "true")))
		return JWT_BAD_HEADER;
	if (!alg || alg->kind != CLAIM_STRING ||
	    (kid && (kid->kind != CLAIM_STRING || kid->text.len >= MAX_HEADER)))
		return JWT_BAD_HEADER;
	/* A token within a token: the outer signature says nothing of the inner claims. */
	if (cty && (cty->kind != CLAIM_STRING || str_ieq(cty->text, STR("JWT"))))
		return JWT_BAD_HEADER;
	v->header_alg = jwt_alg_from(alg->text);
	v->header_has_kid = kid != NULL;
	v->header_kid_len = kid ? kid->text.len : 0;
	if (v->header_kid_len)
		memcpy(v->header_kid, kid->text.p, v->header_kid_len);
	return JWT_OK;
}

static enum jwt_result read_header(struct jwt_verifier *v, struct str text)
{
	enum jwt_result result;
	struct claims header;

	if (v->header_len && str_eq(str_of(v->header_text, v->header_len), text))
		return JWT_OK;
	v->header_len = 0;
	if (!parse_part(v, text, &header))
		return JWT_MALFORMED;
	result = take_header(v, &header);
	if (result == JWT_OK && text.len <= MAX_HEADER) {
		memcpy(v->header_text, text.p, text.len);
		v->header_len = text.len;
	}
	return result;
}

/* A key without kid is for any token; a token without kid may be by any key. */
static bool key_suits(const struct jwt_verifier *v, const struct jwks_key *key)
{
	return (key->algs & JWT_ALG_BIT(v->header_alg)) &&
	       (!v->header_has_kid || !key->kid.p ||
		str_eq(key->kid, str_of(v->header_kid, v->header_kid_len)));
}

static enum jwt_result check_keys(struct jwt_verifier *v, const struct parts *parts)
{
	enum jwt_result result = JWT_UNKNOWN_KEY;
	long len = base64url_decode(v->bytes, parts->signature);
	unsigned tried = 0;

	if (len < 0)
		return JWT_MALFORMED;
	for (size_t i = 0; i < v->keys->count && tried < MAX_KEYS_TRIED; i++) {
		if (!key_suits(v, &v->keys->keys[i]))
			continue;
		if (check_signature(v, i, v->header_alg, parts->input, v->bytes, (size_t)len))
			return JWT_OK;
		result = JWT_BAD_SIGNATURE;
		tried++;
	}
	return result;
}

/* --- claims -------------------------------------------------------------------------------- */

enum presence { ABSENT, PRESENT, UNFIT };

/*
 * A NumericDate (RFC 7519 2): a number, perhaps with a fraction or below zero, rounded to the
 * strict side. Strings are no dates. Numbers beyond 1e308 do not get past the JSON parser.
 */
static enum presence numeric_date(const struct claims *claims, const char *name, bool round_up,
				  int64_t *out)
{
	const struct claim *claim = find(claims, name);
	char text[65]; /* claims_parse takes no longer numbers */
	double real;

	if (!claim)
		return ABSENT;
	if (claim->kind != CLAIM_NUMBER || claim->text.len >= sizeof(text))
		return UNFIT;
	memcpy(text, claim->text.p, claim->text.len);
	text[claim->text.len] = '\0';
	if (!strpbrk(text, ".eE")) {
		*out = strtoll(text, NULL, 10);
		return PRESENT;
	}
	real = strtod(text, NULL);
	real = round_up ? ceil(real) : floor(real);
	/* Far beyond what any clock shows; the conversion would be undefined. */
	if (real > 1e15)
		*out = INT64_MAX;
	else if (real < -1e15)
		*out = INT64_MIN;
	else
		*out = (int64_t)real;
	return PRESENT;
}

static int64_t saturating_add(int64_t a, int64_t b)
{
	int64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return a > 0 ? INT64_MAX : INT64_MIN;
	return sum;
}

static enum jwt_result check_times(const struct jwt_rules *rules, const struct claims *claims,
				   int64_t now_s, int64_t *expires_s, int64_t *issued_s)
{
	int64_t exp = 0, nbf = INT64_MIN, iat = INT64_MIN;
	enum presence has_iat = numeric_date(claims, "iat", false, &iat);
	int64_t latest_s = saturating_add(now_s, rules->leeway_s);

	if (numeric_date(claims, "exp", false, &exp) != PRESENT ||
	    numeric_date(claims, "nbf", true, &nbf) == UNFIT || has_iat == UNFIT)
		return JWT_BAD_CLAIM;
	*issued_s = iat;
	*expires_s = saturating_add(exp, rules->leeway_s);
	if (now_s >= *expires_s)
		return JWT_EXPIRED;
	if (nbf > latest_s || iat > latest_s)
		return JWT_NOT_YET_VALID;
	if (rules->max_lifetime_s &&
	    (has_iat == ABSENT || exp > saturating_add(iat, rules->max_lifetime_s)))
		return JWT_TOO_LONG_LIVED;
	return JWT_OK;
}

static bool is_one_of(const struct claim *claim, const struct str *words, size_t count)
{
	bool is_list = claim->kind == CLAIM_LIST || claim->kind == CLAIM_OTHER;

	for (size_t i = 0; i < count; i++) {
		if (is_list ? claim_has(claim, words[i])
			    : claim->kind == CLAIM_STRING && str_eq(claim->text, words[i]))
			return true;
	}
	return false;
}

static enum jwt_result check_parties(const struct jwt_rules *rules, const struct claims *claims)
{
	const struct claim *iss = find(claims, "iss"), *aud = find(claims, "aud");

	if (rules->issuer.p &&
	    (!iss || iss->kind != CLAIM_STRING || !str_eq(iss->text, rules->issuer)))
		return JWT_WRONG_ISSUER;
	if (rules->audience_count &&
	    (!aud || !is_one_of(aud, rules->audiences, rules->audience_count)))
		return JWT_WRONG_AUDIENCE;
	return JWT_OK;
}

/* What becomes a header or a log line must be fit for it. */
static bool is_fit(const struct jwt_rules *rules, const struct identity *id)
{
	if (rules->user_claim.len &&
	    (!id->user || (id->user->kind != CLAIM_STRING && id->user->kind != CLAIM_NUMBER) ||
	     id->user->text.len == 0 || !claim_is_safe(id->user)))
		return false;
	for (size_t i = 0; i < rules->forward_count; i++) {
		const struct claim *claim = identity_claim(id, rules->forward[i]);

		if (claim && !claim_is_safe(claim))
			return false;
	}
	return true;
}

static enum jwt_result check_claims(const struct jwt_rules *rules, const struct claims *claims,
				    int64_t now_s, struct identity **out)
{
	enum jwt_result result;
	struct identity *id;
	int64_t expires_s = 0, issued_s = INT64_MIN;

	result = check_parties(rules, claims);
	if (result == JWT_OK)
		result = check_times(rules, claims, now_s, &expires_s, &issued_s);
	if (result != JWT_OK)
		return result;
	id = identity_from(claims, rules->user_claim, expires_s);
	if (!id)
		return JWT_INTERNAL;
	id->issued_s = issued_s;
	if (!is_fit(rules, id)) {
		identity_put(&id);
		return JWT_BAD_CLAIM;
	}
	*out = id;
	return JWT_OK;
}

/* Everything about a token but its claims; on JWT_OK *parts are its parts. */
static enum jwt_result check_token(struct jwt_verifier *v, unsigned algorithms, struct jwks *keys,
				   struct str token, struct parts *parts)
{
	enum jwt_result result;

	if (token.len == 0)
		return JWT_MISSING;
	if (token.len > JWT_MAX_BYTES)
		return JWT_TOO_LONG;
	if (!cut(token, parts))
		return JWT_MALFORMED;
	result = read_header(v, parts->header);
	if (result != JWT_OK)
		return result;
	if (v->header_alg == JWT_ALGS || !(algorithms & JWT_ALG_BIT(v->header_alg)))
		return JWT_BAD_ALGORITHM;
	if (!verifier_use(v, keys))
		return JWT_INTERNAL;
	return check_keys(v, parts);
}

enum jwt_result jwt_verify(struct jwt_verifier *v, const struct jwt_rules *rules, struct jwks *keys,
			   struct str token, int64_t now_s, struct identity **out)
{
	enum jwt_result result;
	struct claims claims;
	struct parts parts;

	result = check_token(v, rules->algorithms, keys, token, &parts);
	if (result != JWT_OK)
		return result;
	if (!parse_part(v, parts.payload, &claims))
		return JWT_MALFORMED;
	return check_claims(rules, &claims, now_s, out);
}

enum jwt_result jwt_verify_signature(struct jwt_verifier *v, unsigned algorithms, struct jwks *keys,
				     struct str token)
{
	struct parts parts;

	return check_token(v, algorithms, keys, token, &parts);
}

bool jwt_is_by(struct str token, struct str issuer)
{
	unsigned char bytes[BASE64URL_DECODED_MAX(JWT_MAX_BYTES)];
	const struct claim *iss;
	struct claims claims;
	struct parts parts;
	long len;

	if (token.len > JWT_MAX_BYTES || !cut(token, &parts))
		return false;
	len = base64url_decode(bytes, parts.payload);
	if (len <= 0 || claims_parse(&claims, str_of((const char *)bytes, (size_t)len)) < 0)
		return false;
	iss = find(&claims, "iss");
	return iss && iss->kind == CLAIM_STRING && str_eq(iss->text, issuer);
}
