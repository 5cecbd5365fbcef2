/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/jwks.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdlib.h>

#include "lib/base64.h"
#include "lib/cleanup.h"
#include "lib/hash.h"

#define RSA_MIN_BITS 2048
#define RSA_MAX_BITS 8192 /* a larger one is a way to burn our time */
#define MAX_MEMBER   2048 /* bytes of one decoded number */

const char *const jwt_alg_names[JWT_ALGS + 1] = {
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
	"PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", NULL,
};

enum jwt_alg jwt_alg_from(struct str name)
{
	unsigned alg = 0;

	while (alg < JWT_ALGS && !str_eqz(name, jwt_alg_names[alg]))
		alg++;
	return (enum jwt_alg)alg;
}

#define RSA_ALGS                                                                    \
	(JWT_ALG_BIT(JWT_RS256) | JWT_ALG_BIT(JWT_RS384) | JWT_ALG_BIT(JWT_RS512) | \
	 JWT_ALG_BIT(JWT_PS256) | JWT_ALG_BIT(JWT_PS384) | JWT_ALG_BIT(JWT_PS512))

/* What became of one entry of the set. */
enum key_verdict {
	KEY_GOOD,
	KEY_LEFT_OUT, /* not for us: encryption, unknown type */
	KEY_WRONG,
	KEY_NO_MEMORY,
};

/* One entry while it is being read. */
struct entry {
	const json_t *json;
	struct jwks_key *key;
	bool is_strict;
	const char *problem; /* with KEY_WRONG: "n is not base64url" */
};

static enum key_verdict wrong(struct entry *e, const char *problem)
{
	ERR_clear_error(); /* what OpenSSL left there must not confuse a TLS connection later */
	e->problem = problem;
	return KEY_WRONG;
}

static struct str member(const struct entry *e, const char *name)
{
	const json_t *value = json_object_get(e->json, name);

	return json_is_string(value) ? str_of(json_string_value(value), json_string_length(value))
				     : (struct str) { 0 };
}

/* A base64url member. Returns its bytes, 0 when missing or wrong. */
static size_t binary(const struct entry *e, const char *name, unsigned char out[MAX_MEMBER])
{
	struct str text = member(e, name);
	long len;

	if (text.len == 0 || BASE64URL_DECODED_MAX(text.len) > MAX_MEMBER)
		return 0;
	len = base64url_decode(out, text);
	return len > 0 ? (size_t)len : 0;
}

static EVP_PKEY *pkey_from(const char *type, OSSL_PARAM_BLD *builder)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *pkey = NULL;

	if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
	    EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
		pkey = NULL;
	EVP_PKEY_CTX_free(ctx);
	OSSL_PARAM_free(params);
	return pkey;
}

static enum key_verdict read_rsa(struct entry *e)
{
	unsigned char n_bytes[MAX_MEMBER], e_bytes[MAX_MEMBER];
	size_t n_len = binary(e, "n", n_bytes), e_len = binary(e, "e", e_bytes);
	enum key_verdict verdict = KEY_GOOD;
	OSSL_PARAM_BLD *builder;
	BIGNUM *n, *exponent;

	if (n_len == 0)
		return wrong(e, "\"n\" is missing or no base64url");
	if (e_len == 0)
		return wrong(e, "\"e\" is missing or no base64url");
	n = BN_bin2bn(n_bytes, (int)n_len, NULL);
	exponent = BN_bin2bn(e_bytes, (int)e_len, NULL);
	builder = OSSL_PARAM_BLD_new();
	if (!n || !exponent || !builder ||
	    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n) != 1 ||
	    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, exponent) != 1)
		verdict = KEY_NO_MEMORY;
	else if (BN_num_bits(n) < RSA_MIN_BITS)
		verdict = wrong(e, "an RSA key must have at least 2048 bits");
	else if (BN_num_bits(n) > RSA_MAX_BITS)
		verdict = wrong(e, "an RSA key must have at most 8192 bits");
	/* With e = 1 every message is its own signature. */
	else if (!BN_is_odd(n) || !BN_is_odd(exponent) || BN_is_one(exponent) ||
		 BN_num_bits(exponent) > 64)
		verdict = wrong(e, "\"n\" or \"e\" is not that of an RSA key");
	else if (!(e->key->pkey = pkey_from("RSA", builder)))
		verdict = wrong(e, "OpenSSL does not take it as an RSA key");
	BN_free(n);
	BN_free(exponent);
	OSSL_PARAM_BLD_free(builder);
	e->key->algs = RSA_ALGS;
	return verdict;
}

static enum key_verdict read_ec(struct entry *e)
{
	static const struct {
		const char *crv, *group;
		size_t len;
		enum jwt_alg alg;
	} curves[] = {
		{ "P-256", "prime256v1", 32, JWT_ES256 },
		{ "P-384", "secp384r1", 48, JWT_ES384 },
		{ "P-521", "secp521r1", 66, JWT_ES512 },
	};
	unsigned char x[MAX_MEMBER], y[MAX_MEMBER], point[1 + 2 * 66];
	size_t curve = 0, len;
	OSSL_PARAM_BLD *builder;

	while (curve < ARRAY_SIZE(curves) && !str_eqz(member(e, "crv"), curves[curve].crv))
		curve++;
	if (curve == ARRAY_SIZE(curves))
		return KEY_LEFT_OUT;
	len = curves[curve].len;
	/* RFC 7518 6.2.1.2: always the full length of a coordinate. */
	if (binary(e, "x", x) != len || binary(e, "y", y) != len)
		return wrong(e, "\"x\" or \"y\" is missing or not a coordinate of the curve");
	point[0] = 4; /* uncompressed (SEC 1, 2.3.3) */
	memcpy(point + 1, x, len);
	memcpy(point + 1 + len, y, len);
	builder = OSSL_PARAM_BLD_new();
	if (!builder ||
	    OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME,
					    curves[curve].group, 0) != 1 ||
	    OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point,
					     1 + 2 * len) != 1) {
		OSSL_PARAM_BLD_free(builder);
		return KEY_NO_MEMORY;
	}
	e->key->pkey = pkey_from("EC", builder);
	OSSL_PARAM_BLD_free(builder);
	e->key->algs = JWT_ALG_BIT(curves[curve].alg);
	return e->key->pkey ? KEY_GOOD : wrong(e, "\"x\" and \"y\" are no point of the curve");
}

static enum key_verdict read_okp(struct entry *e)
{
	unsigned char x[MAX_MEMBER];
	size_t len;

	if (!str_eqz(member(e, "crv"), "Ed25519"))
		return KEY_LEFT_OUT;
	len = binary(e, "x", x);
	if (len != 32)
		return wrong(e, "\"x\" is missing or not 32 bytes of base64url");
	e->key->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, len);
	e->key->algs = JWT_ALG_BIT(JWT_EDDSA);
	return e->key->pkey ? KEY_GOOD : wrong(e, "OpenSSL does not take it as an Ed25519 key");
}

static enum key_verdict read_oct(struct entry *e)
{
	unsigned char secret[MAX_MEMBER];
	size_t len = binary(e, "k", secret);

	if (len == 0)
		return wrong(e, "\"k\" is missing or no base64url");
	/* RFC 7518 3.2: at least as long as the hash. */
	if (len < 32) {
		OPENSSL_cleanse(secret, len);
		return wrong(e, "a secret must have at least 32 bytes");
	}
	e->key->secret = malloc(len);
	if (e->key->secret) {
		memcpy(e->key->secret, secret, len);
		e->key->secret_len = len;
	}
	OPENSSL_cleanse(secret, len);
	e->key->algs = JWT_ALG_BIT(JWT_HS256);
	if (len >= 48)
		e->key->algs |= JWT_ALG_BIT(JWT_HS384);
	if (len >= 64)
		e->key->algs |= JWT_ALG_BIT(JWT_HS512);
	return e->key->secret ? KEY_GOOD : KEY_NO_MEMORY;
}

/* RFC 7517 4.2 and 4.3: whether its owner means it for verifying. */
static bool is_for_verifying(const struct entry *e)
{
	const json_t *use = json_object_get(e->json, "use");
	const json_t *ops = json_object_get(e->json, "key_ops");
	size_t i;
	const json_t *op;

	if (use && !str_eqz(member(e, "use"), "sig"))
		return false;
	if (!ops)
		return true;
	json_array_foreach (ops, i, op) {
		if (json_is_string(op) && strcmp(json_string_value(op), "verify") == 0)
			return true;
	}
	return false;
}

static enum key_verdict read_key(struct entry *e)
{
	struct str kty = member(e, "kty");
	const json_t *alg = json_object_get(e->json, "alg"), *kid = json_object_get(e->json, "kid");
	enum key_verdict verdict;

	if (!json_is_object(e->json))
		return wrong(e, "is not an object");
	if (kid && !json_is_string(kid))
		return wrong(e, "\"kid\" is not a string");
	if (!is_for_verifying(e))
		return KEY_LEFT_OUT;
	if (!str_eqz(kty, "oct") && json_object_get(e->json, "d"))
		return wrong(e, "holds a private key; a gateway needs the public part only");
	if (str_eqz(kty, "RSA"))
		verdict = read_rsa(e);
	else if (str_eqz(kty, "EC"))
		verdict = read_ec(e);
	else if (str_eqz(kty, "OKP"))
		verdict = read_okp(e);
	else if (str_eqz(kty, "oct"))
		verdict = e->is_strict ? read_oct(e) : KEY_LEFT_OUT;
	else
		return kty.p ? KEY_LEFT_OUT : wrong(e, "\"kty\" is missing");
	if (verdict != KEY_GOOD || !alg)
		return verdict;
	/* The owner bound it to one algorithm. */
	if (jwt_alg_from(member(e, "alg")) == JWT_ALGS)
		return KEY_LEFT_OUT;
	e->key->algs &= JWT_ALG_BIT(jwt_alg_from(member(e, "alg")));
	if (e->key->algs == 0)
		return wrong(e, "\"alg\" does not go with this key (type, curve or length)");
	return KEY_GOOD;
}

static void key_fini(struct jwks_key *key)
{
	EVP_PKEY_free(key->pkey);
	if (key->secret)
		OPENSSL_cleanse(key->secret, key->secret_len);
	free(key->secret);
	free((void *)(uintptr_t)key->kid.p);
	*key = (struct jwks_key) { 0 };
}

static int keep_kid(struct jwks_key *key, const struct entry *e)
{
	struct str kid = member(e, "kid");
	char *copy;

	if (!kid.p)
		return 0;
	copy = malloc(kid.len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, kid.p, kid.len + 1);
	key->kid = str_of(copy, kid.len);
	return 0;
}

static int entry_error(struct err *err, const struct entry *e, size_t index)
{
	struct str kid = member(e, "kid");

	if (kid.len)
		return err_set(err, -EINVAL, "keys[%zu] (kid \"%.*s\"): %s", index,
			       (int)MIN(kid.len, (size_t)100), kid.p, e->problem);
	return err_set(err, -EINVAL, "keys[%zu]: %s", index, e->problem);
}

static int read_keys(struct jwks *set, const json_t *list, bool is_strict, struct err *err)
{
	const json_t *json;
	size_t i;

	json_array_foreach (list, i, json) {
		struct entry e = {
			.json = json,
			.key = &set->keys[set->count],
			.is_strict = is_strict,
		};
		enum key_verdict verdict = read_key(&e);

		if (verdict == KEY_GOOD && keep_kid(e.key, &e) < 0)
			verdict = KEY_NO_MEMORY;
		if (verdict == KEY_GOOD) {
			set->count++;
			continue;
		}
		key_fini(e.key);
		if (verdict == KEY_NO_MEMORY)
			return err_set(err, -ENOMEM, "out of memory");
		if (verdict == KEY_WRONG && is_strict)
			return entry_error(err, &e, i);
	}
	if (set->count == 0)
		return err_set(err, -EINVAL, "holds no key that can verify a signature");
	return 0;
}

static uint64_t next_id(void)
{
	static uint64_t last;

	return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

static int jwks_from(struct jwks **out, const json_t *root, struct str text, bool is_strict,
		     struct err *err)
{
	const json_t *list = json_object_get(root, "keys");
	struct jwks *set;
	int rc;

	if (!json_is_array(list))
		return err_set(err, -EINVAL, "is no key set: there is no list \"keys\"");
	if (json_array_size(list) > JWKS_MAX_KEYS)
		return err_set(err, -EINVAL, "holds more than %d keys", JWKS_MAX_KEYS);
	set = calloc(1, sizeof(*set) + (json_array_size(list) + 1) * sizeof(set->keys[0]));
	if (!set)
		return err_set(err, -ENOMEM, "out of memory");
	set->refs = 1;
	set->id = next_id();
	set->fingerprint = hash_str(text);
	rc = read_keys(set, list, is_strict, err);
	if (rc < 0) {
		jwks_put(&set);
		return rc;
	}
	*out = set;
	return 0;
}

int jwks_parse(struct jwks **out, struct str json, bool is_strict, struct err *err)
{
	json_error_t syntax;
	json_t *root;
	int rc;

	if (json.len > JWKS_MAX_BYTES)
		return err_set(err, -EINVAL, "is larger than %u KiB", JWKS_MAX_BYTES >> 10);
	root = json_loadb(json.p ? json.p : "", json.len, JSON_REJECT_DUPLICATES, &syntax);
	if (!root)
		return err_set(err, -EINVAL, "line %d, column %d: %s", syntax.line, syntax.column,
			       syntax.text);
	rc = jwks_from(out, root, json, is_strict, err);
	json_decref(root);
	return rc;
}

static int load(struct jwks **out, const char *file, bool is_strict, struct err *err)
{
	CLEANUP(cleanup_close) int fd = open(file, O_RDONLY | O_CLOEXEC);
	CLEANUP(cleanup_free) char *text = malloc(JWKS_MAX_BYTES + 1);
	size_t len = 0;
	struct err inner;
	ssize_t n;
	int rc;

	if (fd < 0 || !text)
		return err_set(err, -EINVAL, "cannot read %s: %s", file, strerror(errno));
	do {
		n = read(fd, text + len, JWKS_MAX_BYTES + 1 - len);
		len += n > 0 ? (size_t)n : 0;
	} while ((n > 0 && len <= JWKS_MAX_BYTES) || (n < 0 && errno == EINTR));
	if (n < 0)
		return err_set(err, -EINVAL, "cannot read %s: %s", file, strerror(errno));
	rc = jwks_parse(out, str_of(text, len), is_strict, &inner);
	OPENSSL_cleanse(text, len);
	return rc < 0 ? err_set(err, rc, "%s: %.400s", file, inner.text) : 0;
}

int jwks_load_file(struct jwks **out, const char *file, struct err *err)
{
	return load(out, file, true, err);
}

int jwks_load_copy(struct jwks **out, const char *file, struct err *err)
{
	return load(out, file, false, err);
}

struct jwks *jwks_ref(struct jwks *keys)
{
	__atomic_fetch_add(&keys->refs, 1, __ATOMIC_RELAXED);
	return keys;
}

void jwks_put(struct jwks **keys)
{
	if (*keys && __atomic_fetch_sub(&(*keys)->refs, 1, __ATOMIC_ACQ_REL) == 1) {
		for (size_t i = 0; i < (*keys)->count; i++)
			key_fini(&(*keys)->keys[i]);
		free(*keys);
	}
	*keys = NULL;
}
