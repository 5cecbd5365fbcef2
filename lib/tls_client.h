/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of TLS: policy in a context, one SSL object a connection. Not HTTP. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

#include "lib/err.h"
#include "lib/tls_identity.h"

/* Policy shared by any number of connections of one thread. Counted. */
struct tls_client;

struct tls_client_options {
	bool verify;         /* the certificate: its chain, its dates, and the name asked for */
	const char *ca_file; /* PEM, whom to trust; NULL: whom the system trusts */
	/* Instead of ca_file, when it is loaded already. */
	const struct tls_trust *trust;
	const struct tls_identity *identity; /* shown when asked for; NULL: none */
	const char *name;                    /* instead of what tls_client_connect is given */
	const char *alpn;                    /* the one protocol spoken; NULL: not said */
	/* Connections live long: buffers only while needed, more read at once (so ask
	 * tls_is_drained), and sessions to resume by tls_client_take_session. */
	bool is_pooled;
};

/* NULL with the sentence in err. */
struct tls_client *tls_client_new(const struct tls_client_options *options, struct err *err);
struct tls_client *tls_client_get(struct tls_client *c);
/* Whether connections of both are as good as each other: same trust, same identity, same name. */
bool tls_client_eq(const struct tls_client *a, const struct tls_client *b);
/* Connections that are still there stay valid. */
void tls_client_free(struct tls_client **c);

/*
 * A connection on the socket, in connect state; the caller frees it with SSL_free. `name` is sent
 * as SNI and compared with the certificate; an IP address is only compared. NULL when out of
 * memory.
 */
SSL *tls_client_connect(struct tls_client *c, int fd, const char *name);
/* The newest session that the server offered, once; NULL: none since. For SSL_set_session. Only
 * with is_pooled. */
SSL_SESSION *tls_client_take_session(SSL *ssl);
/* Like tls_handshake, with what went wrong in words. */
int tls_client_handshake(SSL *ssl, const char **problem);
