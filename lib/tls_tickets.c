/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_tickets.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lib/hash.h"

static const unsigned char *find_key(const struct tls_ticket_keys *k, const unsigned char name[16],
				     size_t *at)
{
	for (*at = 0; *at < k->count; ++*at) {
		if (memcmp(k->keys[*at], name, 16) == 0)
			return k->keys[*at];
	}
	return NULL;
}

int tls_ticket_callback(const struct tls_ticket_keys *k, const EVP_CIPHER *cipher_alg, SSL *ssl,
			unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
			EVP_MAC_CTX *mac, int is_new)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, NULL, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]) { "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	const unsigned char *key = k->keys[0];
	size_t at = 0;

	if (is_new) {
		memcpy(name, key, 16);
		random_bytes(iv, 16);
	} else {
		key = find_key(k, name, &at);
		if (!key)
			return 0; /* full handshake */
	}
	params[0].data = (void *)(uintptr_t)(key + 16);
	params[0].data_size = 32;
	if (!EVP_MAC_CTX_set_params(mac, params) ||
	    !EVP_CipherInit_ex2(cipher, cipher_alg, key + 48, iv, is_new, NULL))
		return -1;
	if (is_new)
		return 1;
	/* Accepted; 2 has a new ticket sent. Clients of TLS 1.3 use each once (RFC 8446 C.4) and
	 * would have none for their next connection; older ones need one only when keys change. */
	return at > 0 || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
}

/* One for the process, or a client would resume only at the worker that it met before, and only
 * until the next reload. */
static unsigned char process_key[TLS_TICKET_KEY_LEN];

static void make_process_key(void)
{
	random_bytes(process_key, sizeof(process_key));
}

void tls_ticket_keys_of_process(struct tls_ticket_keys *out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_process_key);
	memcpy(out->keys[0], process_key, sizeof(process_key));
	out->count = 1;
}

int tls_ticket_keys_load(struct tls_ticket_keys *out, const char *path, struct err *err)
{
	unsigned char bytes[sizeof(out->keys) + 1];
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f)
		return err_set(err, -errno, "%s: cannot read the ticket keys: %s", path,
			       strerror(errno));
	n = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	if (n == 0 || n % TLS_TICKET_KEY_LEN) {
		OPENSSL_cleanse(bytes, sizeof(bytes));
		return err_set(err, -EINVAL,
			       "%s: must hold 1 to %d keys of %d random bytes (make one: openssl "
			       "rand %d > %s)",
			       path, TLS_TICKET_KEYS_MAX, TLS_TICKET_KEY_LEN, TLS_TICKET_KEY_LEN,
			       path);
	}
	memcpy(out->keys, bytes, n);
	out->count = n / TLS_TICKET_KEY_LEN;
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return 0;
}
