/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/token.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <unistd.h>

#include "gateway/identity/jwt.h"
#include "lib/base64.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"

#define MAX_AUDIENCES 64
#define ALL_ALGS      ((1U << JWT_ALGS) - 1)

static void print_help(void)
{
	puts("gatewayctl token - keys and tokens for trials, and what a gateway thinks of a "
	     "token\n\n"
	     "usage:\n"
	     "  gatewayctl token new-key [--alg ALG] [--kid ID] NAME\n"
	     "      writes NAME.jwks.json, the key set for auth.*.jwks.file, and NAME.pem, the\n"
	     "      private key; with HS256, HS384 and HS512 the set is the secret. Existing\n"
	     "      files are never replaced. ALG: ES256 (default), ES384, ES512, RS256 … RS512,\n"
	     "      PS256 … PS512, EdDSA, HS256 … HS512\n"
	     "  gatewayctl token sign --key FILE [--alg ALG] [--kid ID] [--issuer I]\n"
	     "      [--audience A]… [--subject S] [--lifetime SECONDS] [--claim NAME=VALUE]…\n"
	     "      prints a token, good for 3600 seconds unless told otherwise. FILE: a private\n"
	     "      key (PEM), or a key set with a secret. VALUE: JSON, else text\n"
	     "  gatewayctl token verify --jwks FILE [--issuer I] [--audience A]… [--alg ALG]…\n"
	     "      [--leeway SECONDS] [--user-claim NAME] [--signature-only] [--json] TOKEN|-\n"
	     "      checks TOKEN (or the one on standard input) as gatewayd does, and says why it "
	     "is\n"
	     "      accepted or not. What is not given is not checked, but for exp, nbf and iat\n\n"
	     "exit status: 0 done, valid; 1 failed, invalid; 2 usage, unusable files\n\n"
	     "example:\n"
	     "  gatewayctl token new-key rider\n"
	     "  gatewayctl token sign --key rider.pem --issuer https://id.example.com/rider \\\n"
	     "      --audience rider-app --subject alice > token\n"
	     "  gatewayctl token verify --jwks rider.jwks.json --audience rider-app - < token");
}

/* What the options said. */
struct options {
	const char *alg, *kid, *key, *jwks, *subject, *user_claim;
	struct str issuer; /* p NULL: not given */
	struct str audiences[MAX_AUDIENCES];
	size_t audience_count;
	unsigned algorithms; /* with verify: all that were named */
	int64_t lifetime_s;
	uint64_t leeway_s;
	json_t *claims; /* of --claim */
	bool is_signature_only, is_json;
};

__attribute__((format(printf, 1, 2))) static int usage(const char *fmt, ...)
{
	va_list args;

	fputs("gatewayctl token: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputs("\nTry: gatewayctl token --help\n", stderr);
	return 2;
}

static int fail(int status, const char *what, const char *why)
{
	fprintf(stderr, "gatewayctl token: %s%s%s\n", what, why ? ": " : "", why ? why : "");
	return status;
}

/* --- keys ---------------------------------------------------------------------------------- */

/* How a private key goes with an algorithm. */
static const struct {
	const char *kty, *crv;
	const char *hash; /* NULL: the signature hashes by itself */
	size_t coordinate_len;
} algs[JWT_ALGS] = {
	[JWT_HS256] = { "oct", NULL, "SHA256", 0 },
	[JWT_HS384] = { "oct", NULL, "SHA384", 0 },
	[JWT_HS512] = { "oct", NULL, "SHA512", 0 },
	[JWT_RS256] = { "RSA", NULL, "SHA256", 0 },
	[JWT_RS384] = { "RSA", NULL, "SHA384", 0 },
	[JWT_RS512] = { "RSA", NULL, "SHA512", 0 },
	[JWT_PS256] = { "RSA", NULL, "SHA256", 0 },
	[JWT_PS384] = { "RSA", NULL, "SHA384", 0 },
	[JWT_PS512] = { "RSA", NULL, "SHA512", 0 },
	[JWT_ES256] = { "EC", "P-256", "SHA256", 32 },
	[JWT_ES384] = { "EC", "P-384", "SHA384", 48 },
	[JWT_ES512] = { "EC", "P-521", "SHA512", 66 },
	[JWT_EDDSA] = { "OKP", "Ed25519", NULL, 0 },
};

static bool is_secret(enum jwt_alg alg)
{
	return alg <= JWT_HS512;
}

static bool is_pss(enum jwt_alg alg)
{
	return alg >= JWT_PS256 && alg <= JWT_PS512;
}

/* The algorithm that a key signs by when none is named; JWT_ALGS: none. */
static enum jwt_alg default_alg(const EVP_PKEY *pkey)
{
	switch (EVP_PKEY_get_base_id(pkey)) {
	case EVP_PKEY_RSA:
		return JWT_RS256;
	case EVP_PKEY_ED25519:
		return JWT_EDDSA;
	case EVP_PKEY_EC:
		break;
	default:
		return JWT_ALGS;
	}
	switch (EVP_PKEY_get_bits(pkey)) {
	case 256:
		return JWT_ES256;
	case 384:
		return JWT_ES384;
	case 521:
		return JWT_ES512;
	default:
		return JWT_ALGS;
	}
}

static EVP_PKEY *new_pkey(enum jwt_alg alg)
{
	if (strcmp(algs[alg].kty, "RSA") == 0)
		return EVP_RSA_gen(2048);
	if (strcmp(algs[alg].kty, "EC") == 0)
		return EVP_EC_gen(algs[alg].crv);
	return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

static void set_binary(json_t *jwk, const char *name, const void *data, size_t len)
{
	char text[BASE64URL_ENCODED_LEN(1024) + 1];

	json_object_set_new(jwk, name, json_stringn(text, base64url_encode(text, data, len)));
}

/* A number of the key, `len` bytes of it or as many as it needs. */
static void set_number(json_t *jwk, const char *name, const EVP_PKEY *pkey, const char *param,
		       size_t len)
{
	unsigned char bytes[1024];
	BIGNUM *n = NULL;
	int written;

	if (EVP_PKEY_get_bn_param(pkey, param, &n) != 1)
		return;
	if (len == 0)
		len = (size_t)BN_num_bytes(n);
	written = len <= sizeof(bytes) ? BN_bn2binpad(n, bytes, (int)len) : -1;
	BN_free(n);
	if (written > 0)
		set_binary(jwk, name, bytes, (size_t)written);
}

/* The members that are the public key, no others: the thumbprint is over these. */
static json_t *public_jwk(const EVP_PKEY *pkey, enum jwt_alg alg)
{
	json_t *jwk = json_pack("{ss}", "kty", algs[alg].kty);
	unsigned char raw[32];
	size_t raw_len = sizeof(raw);

	if (algs[alg].crv)
		json_object_set_new(jwk, "crv", json_string(algs[alg].crv));
	if (alg == JWT_EDDSA) {
		if (EVP_PKEY_get_raw_public_key(pkey, raw, &raw_len) == 1)
			set_binary(jwk, "x", raw, raw_len);
	} else if (algs[alg].crv) {
		size_t len = algs[alg].coordinate_len;

		set_number(jwk, "x", pkey, OSSL_PKEY_PARAM_EC_PUB_X, len);
		set_number(jwk, "y", pkey, OSSL_PKEY_PARAM_EC_PUB_Y, len);
	} else {
		set_number(jwk, "n", pkey, OSSL_PKEY_PARAM_RSA_N, 0);
		set_number(jwk, "e", pkey, OSSL_PKEY_PARAM_RSA_E, 0);
	}
	return jwk;
}

/* RFC 7638: the same key has the same name wherever it is computed. */
#define THUMBPRINT_LEN BASE64URL_ENCODED_LEN(32)
static bool thumbprint(const json_t *jwk, char out[static THUMBPRINT_LEN + 1])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char *text = json_dumps(jwk, JSON_COMPACT | JSON_SORT_KEYS);
	size_t len = 0;
	bool ok = text && EVP_Q_digest(NULL, "SHA256", NULL, text, strlen(text), digest, &len) == 1;

	free(text);
	if (ok)
		out[base64url_encode(out, digest, len)] = '\0';
	return ok;
}

/* --- new-key ------------------------------------------------------------------------------- */

static FILE *create(const char *path, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

	if (fd >= 0 && !file)
		close(fd);
	return file;
}

static int write_set(const char *path, json_t *jwk, mode_t mode)
{
	FILE *file = create(path, mode);
	json_t *set = json_pack("{s[O]}", "keys", jwk);
	bool ok = file && set && json_dumpf(set, file, JSON_INDENT(2)) == 0 &&
		  fputc('\n', file) == '\n';

	json_decref(set);
	if (file && fclose(file) != 0)
		ok = false;
	return ok ? 0 : fail(2, path, strerror(errno));
}

static int write_pem(const char *path, const EVP_PKEY *pkey)
{
	FILE *file = create(path, 0600);
	bool ok = file && PEM_write_PKCS8PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL) == 1;

	if (file && fclose(file) != 0)
		ok = false;
	return ok ? 0 : fail(2, path, strerror(errno));
}

static json_t *secret_jwk(enum jwt_alg alg)
{
	json_t *jwk = json_pack("{ss}", "kty", "oct");
	unsigned char secret[64];
	size_t len = 32 + 16 * (size_t)(alg - JWT_HS256);

	random_bytes(secret, len);
	set_binary(jwk, "k", secret, len);
	OPENSSL_cleanse(secret, sizeof(secret));
	return jwk;
}

/* Names the key: as told, else by its thumbprint, a secret by chance. */
static bool name_key(json_t *jwk, const char *kid, enum jwt_alg alg)
{
	char name[THUMBPRINT_LEN + 1] = "";
	unsigned char bytes[12];

	if (!kid && is_secret(alg)) {
		random_bytes(bytes, sizeof(bytes));
		name[base64url_encode(name, bytes, sizeof(bytes))] = '\0';
	} else if (!kid && !thumbprint(jwk, name)) {
		return false;
	}
	return json_object_set_new(jwk, "kid", json_string(kid ? kid : name)) == 0 &&
	       json_object_set_new(jwk, "alg", json_string(jwt_alg_names[alg])) == 0 &&
	       json_object_set_new(jwk, "use", json_string("sig")) == 0;
}

static int new_key(const struct options *o, const char *name)
{
	enum jwt_alg alg = o->alg ? jwt_alg_from(str_from(o->alg)) : JWT_ES256;
	EVP_PKEY *pkey = is_secret(alg) ? NULL : new_pkey(alg);
	json_t *jwk = is_secret(alg) ? secret_jwk(alg) : NULL;
	struct buf set, pem;
	int status = 0;

	if (pkey)
		jwk = public_jwk(pkey, alg);
	buf_init(&set, 0);
	buf_init(&pem, 0);
	buf_printf(&set, "%s.jwks.json%c", name, 0);
	buf_printf(&pem, "%s.pem%c", name, 0);
	if (!jwk || !name_key(jwk, o->kid, alg))
		status = fail(1, "cannot make a key", NULL);
	if (!status && pkey)
		status = write_pem(buf_str(&pem).p, pkey);
	if (!status)
		status = write_set(buf_str(&set).p, jwk, pkey ? 0644 : 0600);
	if (!status)
		printf("%s (key set for auth.*.jwks.file, kid %s)\n%s (%s)\n", buf_str(&set).p,
		       json_string_value(json_object_get(jwk, "kid")),
		       pkey ? buf_str(&pem).p : buf_str(&set).p,
		       pkey ? "private key, keep it where tokens are signed"
			    : "is the secret as well, keep it from others");
	json_decref(jwk);
	EVP_PKEY_free(pkey);
	buf_fini(&set);
	buf_fini(&pem);
	return status;
}

/* --- sign ---------------------------------------------------------------------------------- */

/* What a token is signed with. */
struct signing_key {
	EVP_PKEY *pkey;
	unsigned algs; /* that it may be used for */
	enum jwt_alg alg;
	char *kid; /* NULL: none */
};

static void signing_key_fini(struct signing_key *key)
{
	EVP_PKEY_free(key->pkey);
	free(key->kid);
}

static int load_secret(struct signing_key *out, const char *file)
{
	struct jwks *set = NULL;
	struct err err;

	if (jwks_load_file(&set, file, &err) < 0)
		return fail(2, "neither a PEM file with a private key nor a key set", err.text);
	for (size_t i = 0; i < set->count && !out->pkey; i++) {
		const struct jwks_key *key = &set->keys[i];

		if (!key->secret)
			continue;
		out->pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key->secret,
							 key->secret_len);
		out->algs = key->algs;
		out->kid = key->kid.p ? strndup(key->kid.p, key->kid.len) : NULL;
	}
	jwks_put(&set);
	if (!out->pkey)
		return fail(2, file, "holds no secret; sign with the private key instead");
	out->alg = JWT_HS256;
	while (!(out->algs & JWT_ALG_BIT(out->alg)))
		out->alg++;
	return 0;
}

static int load_private(struct signing_key *out, const char *file)
{
	char name[THUMBPRINT_LEN + 1];
	json_t *jwk;

	out->alg = default_alg(out->pkey);
	if (out->alg == JWT_ALGS)
		return fail(2, file, "is a key of a kind that tokens are not signed with");
	out->algs = JWT_ALG_BIT(out->alg);
	if (out->alg == JWT_RS256)
		out->algs |= JWT_ALG_BIT(JWT_RS384) | JWT_ALG_BIT(JWT_RS512) |
			     JWT_ALG_BIT(JWT_PS256) | JWT_ALG_BIT(JWT_PS384) |
			     JWT_ALG_BIT(JWT_PS512);
	jwk = public_jwk(out->pkey, out->alg);
	if (thumbprint(jwk, name))
		out->kid = strdup(name);
	json_decref(jwk);
	return 0;
}

static int load_key(struct signing_key *out, const struct options *o)
{
	FILE *file = fopen(o->key, "re");
	int status;

	if (!file)
		return fail(2, o->key, strerror(errno));
	out->pkey = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	fclose(file);
	status = out->pkey ? load_private(out, o->key) : load_secret(out, o->key);
	if (status)
		return status;
	if (o->alg) {
		out->alg = jwt_alg_from(str_from(o->alg));
		if (!(out->algs & JWT_ALG_BIT(out->alg)))
			return fail(2, o->alg, "does not go with this key");
	}
	if (o->kid) {
		free(out->kid);
		out->kid = strdup(o->kid);
	}
	return 0;
}

/* OpenSSL's DER as the two numbers side by side (RFC 7518 3.4). Returns the length, 0 on error. */
static size_t raw_ecdsa(unsigned char *signature, size_t len, size_t coordinate_len)
{
	const unsigned char *at = signature;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
	int size = (int)coordinate_len;
	bool ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), signature, size) == size &&
		  BN_bn2binpad(ECDSA_SIG_get0_s(sig), signature + size, size) == size;

	ECDSA_SIG_free(sig);
	return ok ? 2 * coordinate_len : 0;
}

/* Returns the signature's length, 0 on error. */
static size_t make_signature(const struct signing_key *key, struct str input,
			     unsigned char out[static 1024])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *pctx = NULL;
	size_t len = 1024;
	bool ok = ctx && EVP_DigestSignInit_ex(ctx, &pctx, algs[key->alg].hash, NULL, NULL,
					       key->pkey, NULL) == 1;

	if (ok && is_pss(key->alg))
		ok = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
		     EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_DigestSign(ctx, out, &len, (const unsigned char *)input.p, input.len) == 1;
	EVP_MD_CTX_free(ctx);
	if (!ok)
		return 0;
	return algs[key->alg].coordinate_len ? raw_ecdsa(out, len, algs[key->alg].coordinate_len)
					     : len;
}

static json_t *claims_of(const struct options *o)
{
	json_int_t now_s = (json_int_t)(clock_wall_ms() / MSEC_PER_SEC);
	json_t *claims = json_pack("{sIsI}", "iat", now_s, "exp", now_s + o->lifetime_s);
	json_t *audiences = json_array();

	if (o->issuer.p)
		json_object_set_new(claims, "iss", json_string(o->issuer.p));
	if (o->subject)
		json_object_set_new(claims, "sub", json_string(o->subject));
	for (size_t i = 0; i < o->audience_count; i++)
		json_array_append_new(audiences, json_string(o->audiences[i].p));
	if (o->audience_count == 1)
		json_object_set(claims, "aud", json_array_get(audiences, 0));
	else if (o->audience_count)
		json_object_set(claims, "aud", audiences);
	json_decref(audiences);
	json_object_update(claims, o->claims);
	return claims;
}

static void add_part(struct buf *out, json_t *part)
{
	char *text = json_dumps(part, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;
	char *room = text ? buf_reserve(out, BASE64URL_ENCODED_LEN(len)) : NULL;

	if (room)
		buf_commit(out, base64url_encode(room, text, len));
	else
		out->has_failed = true;
	free(text);
	json_decref(part);
}

static int sign(const struct options *o)
{
	struct signing_key key = { 0 };
	char text[BASE64URL_ENCODED_LEN(1024)];
	unsigned char signature[1024];
	struct buf token;
	size_t len = 0;
	json_t *header;
	int status;

	if (!o->key)
		return usage("sign needs --key FILE");
	status = load_key(&key, o);
	if (status) {
		signing_key_fini(&key);
		return status;
	}
	buf_init(&token, 1U << 20);
	header = json_pack("{ssss}", "alg", jwt_alg_names[key.alg], "typ", "JWT");
	if (key.kid)
		json_object_set_new(header, "kid", json_string(key.kid));
	add_part(&token, header);
	buf_putc(&token, '.');
	add_part(&token, claims_of(o));
	if (!buf_failed(&token))
		len = make_signature(&key, buf_str(&token), signature);
	if (len == 0)
		status = fail(1, "cannot sign", NULL);
	else
		printf("%.*s.%.*s\n", STR_ARG(buf_str(&token)),
		       (int)base64url_encode(text, signature, len), text);
	if (!status && buf_len(&token) + 1 + BASE64URL_ENCODED_LEN(len) > JWT_MAX_BYTES)
		fail(0, "note: gateways refuse tokens of more than 8192 bytes", NULL);
	signing_key_fini(&key);
	buf_fini(&token);
	return status;
}

/* --- verify -------------------------------------------------------------------------------- */

/* The n-th part as JSON, for showing only; NULL when it is none. */
static json_t *part_of(struct str token, unsigned n)
{
	struct str rest = token, part = { 0 };
	CLEANUP(cleanup_free) char *bytes = malloc(BASE64URL_DECODED_MAX(token.len));
	long len;

	for (unsigned i = 0; i <= n; i++) {
		if (!str_split(&rest, '.', &part))
			return NULL;
	}
	len = bytes ? base64url_decode(bytes, part) : -1;
	return len < 0 ? NULL : json_loadb(bytes, (size_t)len, 0, NULL);
}

static void add_member(struct buf *out, const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

	buf_printf(out, "%s %s", name, text ? text : "is missing");
	free(text);
}

/* A date claim, and the date in words where it has one. */
static void add_date(struct buf *out, const json_t *claims, const char *name)
{
	json_t *value = json_object_get(claims, name);
	double s = json_number_value(value);
	char date[CLOCK_RFC3339_LEN + 1];

	if (!value)
		return;
	buf_addz(out, buf_len(out) ? ", " : "");
	add_member(out, claims, name);
	if (!json_is_number(value) || s < 0 || s > 2e11)
		return;
	clock_rfc3339(date, (uint64_t)s * MSEC_PER_SEC);
	buf_printf(out, " (%s)", date);
}

static void add_dates(struct buf *out, const json_t *claims)
{
	char date[CLOCK_RFC3339_LEN + 1];

	add_date(out, claims, "exp");
	add_date(out, claims, "nbf");
	add_date(out, claims, "iat");
	clock_rfc3339(date, clock_wall_ms());
	buf_printf(out, "%snow it is %s", buf_len(out) ? ", " : "exp is missing, ", date);
}

static void add_keys(struct buf *out, const struct jwks *keys)
{
	buf_addz(out, "; the set has");
	for (size_t i = 0; i < keys->count; i++) {
		buf_addz(out, i ? ", " : " ");
		if (keys->keys[i].kid.p)
			buf_printf(out, "\"%.*s\"", STR_ARG(keys->keys[i].kid));
		else
			buf_addz(out, "a key without kid");
		for (unsigned alg = 0; alg < JWT_ALGS; alg++) {
			if (keys->keys[i].algs & JWT_ALG_BIT(alg))
				buf_printf(out, " %s", jwt_alg_names[alg]);
		}
	}
}

/* What of the token made the gateway say so. */
static void explain(struct buf *out, enum jwt_result result, struct str token,
		    const struct jwks *keys)
{
	json_t *header = part_of(token, 0), *claims = part_of(token, 1);

	switch (result) {
	case JWT_TOO_LONG:
		buf_printf(out, "%zu bytes, at most %d are accepted", token.len, JWT_MAX_BYTES);
		break;
	case JWT_MALFORMED:
		if (!json_is_object(header))
			buf_addz(out, "the header is no base64url of a JSON object");
		else if (!json_is_object(claims))
			buf_addz(out, "the payload is no base64url of a JSON object");
		else
			buf_addz(out, "not exactly three parts of base64url, or a member twice");
		break;
	case JWT_BAD_HEADER:
		buf_addz(out, "crit, b64, cty or a member of the wrong type");
		break;
	case JWT_BAD_ALGORITHM:
		add_member(out, header, "alg");
		break;
	case JWT_UNKNOWN_KEY:
	case JWT_BAD_SIGNATURE:
		add_member(out, header, "alg");
		buf_addz(out, ", ");
		add_member(out, header, "kid");
		add_keys(out, keys);
		break;
	case JWT_WRONG_ISSUER:
		add_member(out, claims, "iss");
		break;
	case JWT_WRONG_AUDIENCE:
		add_member(out, claims, "aud");
		break;
	case JWT_BAD_CLAIM:
	case JWT_EXPIRED:
	case JWT_TOO_LONG_LIVED:
	case JWT_NOT_YET_VALID:
		add_dates(out, claims);
		break;
	case JWT_OK:
	case JWT_MISSING:
	case JWT_INTERNAL:
	case JWT_NO_KEYS:
	case JWT_RESULTS:
		break;
	}
	json_decref(header);
	json_decref(claims);
}

static void print_verdict(const struct options *o, enum jwt_result result, struct str token,
			  const struct jwks *keys)
{
	json_t *claims = result == JWT_OK ? part_of(token, 1) : NULL;
	char *shown = claims ? json_dumps(claims, o->is_json ? JSON_COMPACT : JSON_INDENT(2))
			     : NULL;
	json_t *document;
	struct buf why;

	buf_init(&why, 0);
	explain(&why, result, token, keys);
	if (o->is_json) {
		document = json_pack("{sbsssssssO?}", "valid", result == JWT_OK, "result",
				     jwt_result_name(result), "text", jwt_result_text(result),
				     "detail", "", "claims", claims);
		json_object_set_new(document, "detail",
				    json_stringn_nocheck(buf_str(&why).p, buf_len(&why)));
		json_dumpf(document, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(document);
	} else if (result == JWT_OK) {
		puts(o->is_signature_only ? "valid signature; the claims were not checked"
					  : "valid");
		if (shown)
			puts(shown);
		if (!o->is_signature_only && !o->user_claim && !json_object_get(claims, "sub"))
			puts("note: without \"sub\" a gateway accepts it only where "
			     "auth.*.user_claim "
			     "is another claim");
	} else {
		printf("invalid: %s: %s%s%.*s%s\n", jwt_result_name(result),
		       jwt_result_text(result), buf_len(&why) ? " (" : "", STR_ARG(buf_str(&why)),
		       buf_len(&why) ? ")" : "");
	}
	buf_fini(&why);
	free(shown);
	json_decref(claims);
}

/* From the argument, or all of standard input without white space around it. */
static struct str read_token(const char *arg, struct buf *in)
{
	struct str token;
	size_t n;

	if (strcmp(arg, "-") != 0)
		return str_from(arg);
	do {
		char *room = buf_reserve(in, 4096);

		n = room ? fread(room, 1, 4096, stdin) : 0;
		buf_commit(in, n);
	} while (n);
	token = buf_str(in);
	while (token.len && isspace((unsigned char)token.p[token.len - 1]))
		token.len--;
	while (token.len && isspace((unsigned char)token.p[0]))
		token = str_sub(token, 1, token.len);
	return token;
}

static int verify(const struct options *o, const char *arg)
{
	struct jwt_rules rules = {
		.issuer = o->issuer,
		.audiences = o->audiences,
		.audience_count = o->audience_count,
		.algorithms = o->algorithms ? o->algorithms : ALL_ALGS,
		.leeway_s = (int64_t)o->leeway_s,
		.user_claim = str_from(o->user_claim),
	};
	int64_t now_s = (int64_t)(clock_wall_ms() / MSEC_PER_SEC);
	struct jwt_verifier *verifier;
	struct identity *id = NULL;
	struct jwks *keys = NULL;
	enum jwt_result result;
	struct str token;
	struct buf in;
	struct err err;

	if (!o->jwks)
		return usage("verify needs --jwks FILE");
	if (jwks_load_file(&keys, o->jwks, &err) < 0)
		return fail(2, "key set", err.text);
	buf_init(&in, 1U << 20);
	token = read_token(arg, &in);
	verifier = jwt_verifier_new();
	if (!verifier)
		result = JWT_INTERNAL;
	else if (o->is_signature_only)
		result = jwt_verify_signature(verifier, rules.algorithms, keys, token);
	else
		result = jwt_verify(verifier, &rules, keys, token, now_s, &id);
	print_verdict(o, result, token, keys);
	identity_put(&id);
	jwt_verifier_free(&verifier);
	jwks_put(&keys);
	buf_fini(&in);
	return result != JWT_OK;
}

/* --- options ------------------------------------------------------------------------------- */

static int add_claim(struct options *o, const char *text)
{
	const char *eq = strchr(text, '=');
	json_t *value;

	if (!eq || eq == text)
		return usage("--claim wants NAME=VALUE, not \"%s\"", text);
	value = json_loads(eq + 1, JSON_DECODE_ANY, NULL);
	if (!value)
		value = json_string(eq + 1);
	if (!value || json_object_setn_new(o->claims, text, (size_t)(eq - text), value) < 0)
		return usage("--claim wants UTF-8, not \"%s\"", text);
	return 0;
}

static int add_audience(struct options *o, const char *text)
{
	if (o->audience_count == MAX_AUDIENCES)
		return usage("at most %d audiences", MAX_AUDIENCES);
	o->audiences[o->audience_count++] = str_from(text);
	return 0;
}

static int set_alg(struct options *o, const char *name)
{
	enum jwt_alg alg = jwt_alg_from(str_from(name));

	if (alg == JWT_ALGS)
		return usage("there is no algorithm \"%s\"", name);
	o->alg = name;
	o->algorithms |= JWT_ALG_BIT(alg);
	return 0;
}

static int set_seconds(uint64_t *out, const char *text)
{
	if (!str_u64(str_from(text), out) || *out > 100ULL * 366 * 86400)
		return usage("seconds are a number, not \"%s\"", text);
	return 0;
}

/* Below 0: a token that is over already, to see it refused. */
static int set_lifetime(struct options *o, const char *text)
{
	bool is_past = text[0] == '-';
	uint64_t seconds = 0;

	if (set_seconds(&seconds, text + is_past))
		return usage("seconds are a number, not \"%s\"", text);
	o->lifetime_s = is_past ? -(int64_t)seconds : (int64_t)seconds;
	return 0;
}

static int run(const struct options *o, const char *command, int argc, char **argv)
{
	if (strcmp(command, "new-key") == 0)
		return argc == 1 ? new_key(o, argv[0]) : usage("new-key needs one NAME");
	if (strcmp(command, "sign") == 0)
		return argc == 0 ? sign(o) : usage("sign takes options only");
	if (strcmp(command, "verify") == 0)
		return argc == 1 ? verify(o, argv[0])
				 : usage("verify needs one TOKEN, or - for standard input");
	return usage("no such command: %s", command);
}

int ctl_token(int argc, char **argv)
{
	enum {
		OPT_ALG = 256,
		OPT_KID,
		OPT_KEY,
		OPT_JWKS,
		OPT_ISSUER,
		OPT_AUDIENCE,
		OPT_SUBJECT,
		OPT_LIFETIME,
		OPT_LEEWAY,
		OPT_CLAIM,
		OPT_USER_CLAIM,
		OPT_SIGNATURE_ONLY,
		OPT_JSON,
	};
	static const struct option options[] = {
		{ "alg", required_argument, NULL, OPT_ALG },
		{ "kid", required_argument, NULL, OPT_KID },
		{ "key", required_argument, NULL, OPT_KEY },
		{ "jwks", required_argument, NULL, OPT_JWKS },
		{ "issuer", required_argument, NULL, OPT_ISSUER },
		{ "audience", required_argument, NULL, OPT_AUDIENCE },
		{ "subject", required_argument, NULL, OPT_SUBJECT },
		{ "lifetime", required_argument, NULL, OPT_LIFETIME },
		{ "leeway", required_argument, NULL, OPT_LEEWAY },
		{ "claim", required_argument, NULL, OPT_CLAIM },
		{ "user-claim", required_argument, NULL, OPT_USER_CLAIM },
		{ "signature-only", no_argument, NULL, OPT_SIGNATURE_ONLY },
		{ "json", no_argument, NULL, OPT_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct options o = { .lifetime_s = 3600, .claims = json_object() };
	int opt, status = 0;

	while (status == 0 && (opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case OPT_ALG:
			status = set_alg(&o, optarg);
			break;
		case OPT_KID:
			o.kid = optarg;
			break;
		case OPT_KEY:
			o.key = optarg;
			break;
		case OPT_JWKS:
			o.jwks = optarg;
			break;
		case OPT_ISSUER:
			o.issuer = str_from(optarg);
			break;
		case OPT_AUDIENCE:
			status = add_audience(&o, optarg);
			break;
		case OPT_SUBJECT:
			o.subject = optarg;
			break;
		case OPT_LIFETIME:
			status = set_lifetime(&o, optarg);
			break;
		case OPT_LEEWAY:
			status = set_seconds(&o.leeway_s, optarg);
			break;
		case OPT_CLAIM:
			status = add_claim(&o, optarg);
			break;
		case OPT_USER_CLAIM:
			o.user_claim = optarg;
			break;
		case OPT_SIGNATURE_ONLY:
			o.is_signature_only = true;
			break;
		case OPT_JSON:
			o.is_json = true;
			break;
		case 'h':
			print_help();
			json_decref(o.claims);
			return 0;
		default:
			status = usage("bad option");
		}
	}
	if (status == 0 && optind == argc)
		status = usage("new-key, sign or verify?");
	if (status == 0)
		status = run(&o, argv[optind], argc - optind - 1, argv + optind + 1);
	json_decref(o.claims);
	return status;
}
