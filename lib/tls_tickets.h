/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session ticket keys (RFC 5077, RFC 8446 4.6.1): the file that all gateways of a domain share. The
 * first key seals, all of them open.
 */
#pragma once

#include <openssl/ssl.h>
#include <stddef.h>

#include "lib/err.h"

#define TLS_TICKET_KEY_LEN  80 /* name 16, HMAC 32, AES-256 32 */
#define TLS_TICKET_KEYS_MAX 16

struct tls_ticket_keys {
	unsigned char keys[TLS_TICKET_KEYS_MAX][TLS_TICKET_KEY_LEN];
	size_t count;
};

/* 0, or -errno with the sentence in err. */
int tls_ticket_keys_load(struct tls_ticket_keys *out, const char *path, struct err *err);
/* One key of this process alone: the same for all threads and as long as it runs. */
void tls_ticket_keys_of_process(struct tls_ticket_keys *out);

/* OpenSSL's ticket callback on these keys; `cipher` is AES-256-CBC. */
int tls_ticket_callback(const struct tls_ticket_keys *k, const EVP_CIPHER *cipher_alg, SSL *ssl,
			unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
			EVP_MAC_CTX *mac, int is_new);
