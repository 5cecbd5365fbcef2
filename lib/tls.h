/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS on OpenSSL 3: the byte transport that connections of either side use. Contexts are in
 * tls_server.h and tls_client.h; connections themselves are their owner's.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>

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
/*
 * From now on records are kept, to leave together in one system call and one packet. Afterwards
 * either tls_release sends them (0; -EAGAIN: try again when the socket is writable; or another
 * -errno), or tls_stop_holding leaves them to go with the next record.
 */
void tls_hold(SSL *ssl);
int tls_release(SSL *ssl);
void tls_stop_holding(SSL *ssl);
/* "TLSv1.3"; the empty string before the handshake. */
const char *tls_version_name(const SSL *ssl);
/* For SSL_CTX_set_msg_callback, on objects with tls_set_socket: OpenSSL handles key updates by
 * itself, without a bound and without telling; after too many the connection fails. */
void tls_watch_message(int is_write, int version, int type, const void *bytes, size_t len, SSL *ssl,
		       void *arg);
