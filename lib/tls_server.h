/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of TLS: which certificate and which policy a name has. Certificates of several
 * kinds of keys stand beside each other under one name; OpenSSL picks what the client can verify.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "lib/str.h"
#include "lib/tls_identity.h"
#include "lib/tls_tickets.h"

enum tls_client_auth {
	TLS_CLIENT_AUTH_OFF,
	TLS_CLIENT_AUTH_REQUEST, /* asked for; one that is sent must be good */
	TLS_CLIENT_AUTH_REQUIRE,
};

struct tls_policy {
	enum tls_client_auth client_auth;
	const struct tls_trust *client_ca; /* NULL only when client_auth is off */
	int min_version;                   /* TLS1_2_VERSION or TLS1_3_VERSION */
};

/* A policy of its own for a name. */
struct tls_host {
	struct str name; /* "api.example.com" or "*.example.com" */
	struct tls_policy policy;
};

struct tls_server_options {
	const struct tls_identity *const *identities; /* the first is the default's */
	size_t identity_count;
	const char *const *alpn; /* in order of preference, e.g. "h2", "http/1.1" */
	size_t alpn_count;
	struct tls_policy policy; /* of all names that are none of hosts */
	const struct tls_host *hosts;
	size_t host_count;
	bool sni_strict;                           /* no default: unknown names are refused */
	const struct tls_ticket_keys *ticket_keys; /* copied; NULL: of this process alone */
};

/* Certificates and policies of one listener, for one thread: OpenSSL 3.0 contends when threads
 * share a context. */
struct tls_server;

/* NULL with the sentence in err. Keeps nothing of the options. */
struct tls_server *tls_server_new(const struct tls_server_options *options, struct err *err);
void tls_server_free(struct tls_server *s);
/* A connection on the socket, in accept state; NULL when out of memory. The caller frees it with
 * SSL_free; the server must live until the end of the handshake. */
SSL *tls_server_accept(struct tls_server *s, int fd);

/* Why a handshake failed. */
enum tls_failure {
	TLS_FAILED_PEER_CLOSED,
	TLS_FAILED_PEER_ALERT,     /* the client did not like something: our certificate, mostly */
	TLS_FAILED_NOTHING_SHARED, /* version, cipher, group, signature algorithm */
	TLS_FAILED_ALPN,
	TLS_FAILED_NAME,           /* unknown, with sni_strict */
	TLS_FAILED_NO_CERTIFICATE, /* the client has to show one */
	TLS_FAILED_BAD_CERTIFICATE,
	TLS_FAILED_PROTOCOL,
	TLS_FAILED_TIMEOUT, /* never by tls_server_handshake */
	TLS_FAILURES,
};

extern const char *const tls_failure_names[TLS_FAILURES];

/* 0 when done, -EAGAIN when waiting for the client, or another -errno with the reason in *why. */
int tls_server_handshake(SSL *ssl, enum tls_failure *why);

/* The policy under which a connection was made (after the handshake), or a name would be served:
 * equal numbers, equal policies, also over reloads. */
uint64_t tls_connection_policy(const SSL *ssl);
uint64_t tls_server_policy(const struct tls_server *s, struct str host);

/*
 * The client's verified certificate in the form of X-Forwarded-Client-Cert:
 * Hash=…;Subject="…";URI=…;DNS=…. The text is malloc'ed; NULL when the client showed none.
 */
char *tls_client_certificate(const SSL *ssl);

/*
 * All names in that certificate, a line each: "uri:…", "dns:…", "email:…", "cn:…"; those with
 * control characters or bad UTF-8 are left out. *until_s is the end of its time (Unix). The text is
 * malloc'ed; NULL when the client showed none.
 */
char *tls_client_names(const SSL *ssl, int64_t *until_s);
