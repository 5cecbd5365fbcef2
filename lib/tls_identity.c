/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_identity.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/cleanup.h"

const char *tls_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return reason ? reason : "unknown error";
}

/* --- certificates and keys ----------------------------------------------------------------- */

static int load_pair(SSL_CTX *ctx, const char *certificate, const char *key, bool *is_key,
		     struct err *err)
{
	*is_key = false;
	if (access(certificate, R_OK) < 0)
		return err_set(err, -errno, "%s: cannot read the certificate: %s", certificate,
			       strerror(errno));
	if (SSL_CTX_use_certificate_chain_file(ctx, certificate) != 1)
		return err_set(err, -EINVAL, "%s: not a PEM certificate: %s", certificate,
			       tls_reason());
	*is_key = true;
	if (access(key, R_OK) < 0)
		return err_set(err, -errno, "%s: cannot read the key: %s", key, strerror(errno));
	if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
		unsigned long code = ERR_peek_error();

		if (ERR_GET_LIB(code) == ERR_LIB_X509) {
			ERR_clear_error();
			return err_set(err, -EINVAL, "%s: is not the key of %s", key, certificate);
		}
		return err_set(err, -EINVAL, "%s: not a PEM private key: %s", key, tls_reason());
	}
	if (SSL_CTX_check_private_key(ctx) != 1) {
		ERR_clear_error();
		return err_set(err, -EINVAL, "%s: is not the key of %s", key, certificate);
	}
	return 0;
}

static int64_t unix_time(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* Takes what the context read over. */
static bool take_over(struct tls_identity *id, SSL_CTX *ctx)
{
	STACK_OF(X509) *chain = NULL;
	unsigned len = 0;

	id->certificate = SSL_CTX_get0_certificate(ctx);
	id->key = SSL_CTX_get0_privatekey(ctx);
	if (!id->certificate || !X509_up_ref(id->certificate)) {
		id->certificate = NULL;
		id->key = NULL;
		return false;
	}
	if (!EVP_PKEY_up_ref(id->key)) {
		id->key = NULL;
		return false;
	}
	SSL_CTX_get0_chain_certs(ctx, &chain);
	if (chain) {
		id->chain = X509_chain_up_ref(chain);
		if (!id->chain)
			return false;
	}
	id->from_s = unix_time(X509_get0_notBefore(id->certificate));
	id->until_s = unix_time(X509_get0_notAfter(id->certificate));
	return X509_digest(id->certificate, EVP_sha256(), id->digest, &len) == 1;
}

struct tls_identity *tls_identity_load(const char *certificate, const char *key, bool *is_key,
				       struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	struct tls_identity *id = calloc(1, sizeof(*id));

	if (id)
		id->refs = 1;
	if (!ctx || !id) {
		err_set(err, -ENOMEM, "cannot make a TLS context: %s", tls_reason());
		tls_identity_put(&id);
	} else if (load_pair(ctx, certificate, key, is_key, err) < 0) {
		tls_identity_put(&id);
	} else if (!take_over(id, ctx)) {
		err_set(err, -ENOMEM, "%s: %s", certificate, tls_reason());
		tls_identity_put(&id);
	}
	SSL_CTX_free(ctx);
	return id;
}

struct tls_identity *tls_identity_get(struct tls_identity *id)
{
	id->refs++;
	return id;
}

void tls_identity_put(struct tls_identity **idp)
{
	struct tls_identity *id = TAKE_PTR(*idp);

	if (!id || --id->refs)
		return;
	X509_free(id->certificate);
	sk_X509_pop_free(id->chain, X509_free);
	EVP_PKEY_free(id->key);
	free(id);
}

/*
 * Copies, not references: each handshake counts up and down on what it uses, and threads that share
 * it would fight over the cache line (OpenSSL 3.0 even takes a lock in the key).
 */
int tls_identity_use(const struct tls_identity *id, SSL_CTX *ctx)
{
	X509 *certificate = X509_dup(id->certificate);
	EVP_PKEY *key = EVP_PKEY_dup(id->key);
	STACK_OF(X509) *chain = NULL;
	bool ok = certificate && key;

	if (id->chain)
		chain = sk_X509_deep_copy(id->chain, X509_dup, X509_free);
	ok = ok && (chain || !id->chain) &&
	     SSL_CTX_use_cert_and_key(ctx, certificate, key, chain, 1) == 1;
	X509_free(certificate);
	EVP_PKEY_free(key);
	sk_X509_pop_free(chain, X509_free);
	ERR_clear_error();
	return ok ? 0 : -ENOMEM;
}

/* --- authorities --------------------------------------------------------------------------- */

static bool read_authorities(struct tls_trust *t, BIO *bio)
{
	CLEANUP(cleanup_free) unsigned char *digests = NULL;
	size_t count = 0;
	X509 *x;

	while ((x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		unsigned char *more = realloc(digests, (count + 1) * TLS_DIGEST_LEN);
		unsigned len;

		if (more)
			digests = more;
		if (!more ||
		    !X509_digest(x, EVP_sha256(), digests + count * TLS_DIGEST_LEN, &len) ||
		    !sk_X509_push(t->authorities, x)) {
			X509_free(x);
			return false;
		}
		count++;
	}
	/* The end of the file is the only good reason to stop. */
	if (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		return false;
	ERR_clear_error();
	return EVP_Digest(digests, count * TLS_DIGEST_LEN, t->digest, NULL, EVP_sha256(), NULL) ==
	       1;
}

struct tls_trust *tls_trust_load(const char *path, struct err *err)
{
	struct tls_trust *t = calloc(1, sizeof(*t));
	BIO *bio = BIO_new_file(path, "re");

	if (t) {
		t->refs = 1;
		t->authorities = sk_X509_new_null();
	}
	if (!bio) {
		err_set(err, -errno, "%s: cannot read the certificates to trust: %s", path,
			strerror(errno));
		tls_trust_put(&t);
	} else if (!t || !t->authorities) {
		err_set(err, -ENOMEM, "out of memory");
		tls_trust_put(&t);
	} else if (!read_authorities(t, bio)) {
		err_set(err, -EINVAL, "%s: holds no PEM certificates to trust", path);
		tls_trust_put(&t);
	}
	ERR_clear_error();
	BIO_free(bio);
	return t;
}

struct tls_trust *tls_trust_get(struct tls_trust *t)
{
	t->refs++;
	return t;
}

void tls_trust_put(struct tls_trust **tp)
{
	struct tls_trust *t = TAKE_PTR(*tp);

	if (!t || --t->refs)
		return;
	sk_X509_pop_free(t->authorities, X509_free);
	free(t);
}

int tls_trust_use(const struct tls_trust *t, SSL_CTX *ctx)
{
	X509_STORE *store = X509_STORE_new();
	bool ok = store != NULL;

	for (int i = 0; ok && i < sk_X509_num(t->authorities); i++) {
		X509 *copy = X509_dup(sk_X509_value(t->authorities, i));

		ok = copy && X509_STORE_add_cert(store, copy) == 1;
		X509_free(copy);
	}
	if (ok) {
		SSL_CTX_set_cert_store(ctx, store);
		return 0;
	}
	X509_STORE_free(store);
	ERR_clear_error();
	return -ENOMEM;
}
