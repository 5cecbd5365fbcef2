/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What TLS takes from files: certificates with their keys, and authorities to trust. Loaded once,
 * immutable, counted; contexts of any thread get copies of their own. References belong to the
 * thread that loaded them.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"

#define TLS_DIGEST_LEN 32 /* SHA-256 */

/* A certificate, its chain and its key. */
struct tls_identity {
	unsigned refs;
	X509 *certificate;
	STACK_OF(X509) * chain; /* without the certificate itself */
	EVP_PKEY *key;
	int64_t from_s, until_s; /* Unix time: when it holds */
	unsigned char digest[TLS_DIGEST_LEN];
};

/* From two PEM files: leaf first, then the chain; and the key. NULL with the sentence in err;
 * *is_key says which file is at fault. Dates are not looked at. */
struct tls_identity *tls_identity_load(const char *certificate, const char *key, bool *is_key,
				       struct err *err);
struct tls_identity *tls_identity_get(struct tls_identity *id);
void tls_identity_put(struct tls_identity **id);
/* Puts a copy into the context, beside what it has for other kinds of keys. 0 or -ENOMEM. */
int tls_identity_use(const struct tls_identity *id, SSL_CTX *ctx);

/* Authorities that sign the other side's certificates. */
struct tls_trust {
	unsigned refs;
	STACK_OF(X509) * authorities;
	unsigned char digest[TLS_DIGEST_LEN]; /* of all of them */
};

/* From a PEM file with at least one certificate. */
struct tls_trust *tls_trust_load(const char *path, struct err *err);
struct tls_trust *tls_trust_get(struct tls_trust *t);
void tls_trust_put(struct tls_trust **t);
/* Has the context trust these and nobody else. 0 or -ENOMEM. */
int tls_trust_use(const struct tls_trust *t, SSL_CTX *ctx);

/* The newest reason of OpenSSL's error queue in words, and an empty queue. */
const char *tls_reason(void);
