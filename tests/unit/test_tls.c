/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static SSL_SESSION *newest;
static unsigned tickets;

static int on_session(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(newest);
	newest = session;
	tickets++;
	return 1;
}

/* A certificate signed by itself, in one PEM file with its key. */
static void write_identity(const char *path)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);
	FILE *f = fopen(path, "w");

	assert_non_null(key);
	assert_non_null(f);
	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"a.example.com",
				   -1, -1, 0);
	X509_set_issuer_name(cert, name);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_X509(f, cert), 1);
	assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* One connection with a byte each way; returns whether its session was resumed. */
static bool connect_once(struct tls_server *s, SSL_CTX *client_ctx)
{
	SSL *client = SSL_new(client_ctx), *server;
	int fds[2], rc = -EAGAIN;
	bool is_resumed;
	char byte = 'x';

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	server = tls_server_accept(s, fds[1]);
	assert_non_null(server);
	SSL_set_fd(client, fds[0]);
	SSL_set_connect_state(client);
	if (newest)
		SSL_set_session(client, newest);
	for (int i = 0; i < 10 && (rc != 0 || !SSL_is_init_finished(client)); i++) {
		SSL_do_handshake(client);
		rc = rc ? tls_handshake(server) : 0;
		assert_true(rc == 0 || rc == -EAGAIN);
	}
	assert_int_equal(rc, 0);
	assert_int_equal(tls_write(server, &byte, 1), 1);
	assert_int_equal(SSL_read(client, &byte, 1), 1); /* takes the tickets in as well */
	is_resumed = SSL_session_reused(client) == 1;
	SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(client);
	SSL_free(server);
	close(fds[0]);
	close(fds[1]);
	return is_resumed;
}

/* Clients of TLS 1.3 use a ticket once (RFC 8446 C.4), so each connection has to bring the next;
 * of TLS 1.2 they keep it. */
static void resumes_every_connection_after_the_first(void **state)
{
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	char path[] = "/tmp/test-tls-XXXXXX";
	int fd = mkstemp(path);
	struct tls_certificate identity = { .certificate = path, .key = path };
	struct tls_server_options options = { .certificates = &identity,
					      .certificate_count = 1,
					      .min_version = TLS1_2_VERSION };
	struct tls_server *s;
	struct err err = { "" };

	assert_true(fd >= 0);
	close(fd);
	write_identity(path);
	s = tls_server_new(&options, &err);
	if (!s)
		fail_msg("%s", err.text);
	for (size_t v = 0; v < CASES(versions); v++) {
		SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

		SSL_CTX_set_max_proto_version(ctx, versions[v]);
		SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT |
							    SSL_SESS_CACHE_NO_INTERNAL_STORE);
		SSL_CTX_sess_set_new_cb(ctx, on_session);
		newest = NULL;
		tickets = 0;
		assert_false(connect_once(s, ctx));
		for (int i = 0; i < 4; i++) {
			if (!connect_once(s, ctx))
				fail_msg("version %#x: connection %d was not resumed", versions[v],
					 i + 2);
		}
		assert_int_equal(tickets, versions[v] == TLS1_3_VERSION ? 5 : 1);
		SSL_SESSION_free(newest);
		SSL_CTX_free(ctx);
	}
	tls_server_free(s);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resumes_every_connection_after_the_first),
	};

	return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
