/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS set-up on OpenSSL 3: server contexts with certificates chosen by SNI, and the byte transport
 * that connections use. Connections themselves are their owner's.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/str.h"

struct tls_certificate {
	const char *certificate; /* PEM file, leaf first, then the chain */
	const char *key;         /* PEM file */
};

struct tls_server_options {
	const struct tls_certificate *certificates; /* the first is the default for unknown names */
	size_t certificate_count;
	const char *const *alpn; /* in order of preference, e.g. "h2", "http/1.1" */
	size_t alpn_count;
	int min_version;         /* TLS1_2_VERSION or TLS1_3_VERSION */
	const char *ticket_keys; /* file shared by all gateways, NULL: keys of this process alone */
};

/* What looking at a certificate found. */
struct tls_finding {
	bool is_key;     /* the key's file is at fault, not the certificate's */
	bool is_expired; /* can be used, but clients refuse it */
	bool is_early;   /* ... because its time has not come yet */
};

/* Whether both files can be read and belong together. 0, or -errno with the sentence in err. */
int tls_check_certificate(const struct tls_certificate *c, struct tls_finding *out,
			  struct err *err);
int tls_check_ticket_keys(const char *path, struct err *err);

/* Certificates and policy of one listener, for one thread: OpenSSL 3.0 contends when threads share
 * a context. */
struct tls_server;

/* Loads everything and checks that keys fit; not the dates, so that one certificate that has run
 * out takes no other with it. NULL with the sentence in err. */
struct tls_server *tls_server_new(const struct tls_server_options *options, struct err *err);
void tls_server_free(struct tls_server *s);
/* A connection on the socket, in accept state; NULL when out of memory. The caller frees it with
 * SSL_free. */
SSL *tls_server_accept(struct tls_server *s, int fd);

/* Gives an SSL object its socket, which stays the caller's to close. 0 or -ENOMEM. */
int tls_set_socket(SSL *ssl, int fd);

/*
 * Reads at most `len` bytes: the count; 0 when the peer closed cleanly; -EAGAIN when there is
 * nothing now; -EPROTO on a TLS error; -ECONNRESET and others from the socket. tls_is_drained says
 * whether another read could find more.
 */
long tls_read(SSL *ssl, void *out, size_t len);
/* Writes at most one record's worth: the count, -EAGAIN, or another -errno. */
long tls_write(SSL *ssl, const void *data, size_t len);
/* 0 when done, -EAGAIN when waiting for the peer, or another -errno. */
int tls_handshake(SSL *ssl);
/* True when the last socket read got less than it asked for and nothing is buffered: only a new
 * event can bring more. */
bool tls_is_drained(SSL *ssl);
/* "TLSv1.3"; the empty string before the handshake. */
const char *tls_version_name(const SSL *ssl);
