/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of TLS: policy in a context, one SSL object a connection. Not HTTP. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

#include "lib/err.h"

/* Policy shared by any number of connections of one thread. */
struct tls_client;

struct tls_client_options {
	bool verify;         /* the certificate: its chain, its dates, and the name asked for */
	const char *ca_file; /* PEM, whom to trust; NULL: whom the system trusts */
};

/* NULL with the sentence in err. */
struct tls_client *tls_client_new(const struct tls_client_options *options, struct err *err);
/* Connections that are still there stay valid. */
void tls_client_free(struct tls_client **c);

/*
 * A connection on the socket, in connect state; the caller frees it with SSL_free. `name` is sent
 * as SNI and compared with the certificate; an IP address is only compared. NULL when out of
 * memory.
 */
SSL *tls_client_connect(struct tls_client *c, int fd, const char *name);
/* Like tls_handshake, with what went wrong in words. */
int tls_client_handshake(SSL *ssl, const char **problem);
