/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_server.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/tls.h"
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

static struct tls_server *server_of(const char *path, int min_version)
{
	struct err err = { "" };
	bool is_key;
	struct tls_identity *id = tls_identity_load(path, path, &is_key, &err);
	const struct tls_identity *identities[] = { id };
	struct tls_server_options options = { .identities = identities,
					      .identity_count = 1,
					      .policy = { .min_version = min_version } };
	struct tls_server *s = id ? tls_server_new(&options, &err) : NULL;

	if (!s)
		fail_msg("%s", err.text);
	tls_identity_put(&id);
	return s;
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
	struct tls_server *s;

	assert_true(fd >= 0);
	close(fd);
	write_identity(path);
	s = server_of(path, TLS1_2_VERSION);
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

/* TLS 1.2 and 1.3 keep what binds a session to its server in different places. */
static SSL_CTX *client_of(int version)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	SSL_CTX_set_max_proto_version(ctx, version);
	SSL_CTX_set_session_cache_mode(ctx,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	newest = NULL;
	return ctx;
}

static void resumes_at_another_worker_but_not_under_another_certificate(void **state)
{
	/* What tells them apart stands behind the 32 bytes that a session's context may have. */
	static const char paths[2][64] = { "/tmp/test-tls-a-long-common-beginning-a.pem",
					   "/tmp/test-tls-a-long-common-beginning-b.pem" };
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct tls_server *first, *same, *other, *stricter;

	for (size_t i = 0; i < 2; i++)
		write_identity(paths[i]);
	first = server_of(paths[0], TLS1_2_VERSION);
	same = server_of(paths[0], TLS1_2_VERSION);
	other = server_of(paths[1], TLS1_2_VERSION);
	stricter = server_of(paths[0], TLS1_3_VERSION);
	for (size_t v = 0; v < CASES(versions); v++) {
		SSL_CTX *ctx = client_of(versions[v]);

		assert_false(connect_once(first, ctx));
		assert_true(connect_once(same, ctx));
		assert_false(connect_once(other, ctx));
		assert_false(connect_once(first, ctx));
		if (versions[v] == TLS1_3_VERSION)
			assert_false(connect_once(stricter, ctx));
		SSL_SESSION_free(newest);
		SSL_CTX_free(ctx);
	}
	newest = NULL;
	tls_server_free(first);
	tls_server_free(same);
	tls_server_free(other);
	tls_server_free(stricter);
	unlink(paths[0]);
	unlink(paths[1]);
}

/* As many key updates as the client likes, each with a byte of data; says how many it got through.
 */
static int update_keys(struct tls_server *s, int wanted)
{
	SSL_CTX *ctx = client_of(TLS1_3_VERSION);
	SSL *client = SSL_new(ctx), *server;
	int fds[2], rc = -EAGAIN, done = 0;
	char byte = 'x';
	long n = 1;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	server = tls_server_accept(s, fds[1]);
	SSL_set_fd(client, fds[0]);
	SSL_set_connect_state(client);
	for (int i = 0; i < 10 && (rc != 0 || !SSL_is_init_finished(client)); i++) {
		SSL_do_handshake(client);
		rc = rc ? tls_handshake(server) : 0;
	}
	for (; done < wanted && n == 1; done++) {
		assert_int_equal(SSL_key_update(client, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_write(client, &byte, 1), 1);
		n = tls_read(server, &byte, 1);
	}
	assert_true(n == 1 || n == -EPROTO);
	done -= n != 1;
	SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(client);
	SSL_free(server);
	SSL_SESSION_free(newest);
	newest = NULL;
	SSL_CTX_free(ctx);
	close(fds[0]);
	close(fds[1]);
	return done;
}

static void ends_a_connection_of_endless_key_updates(void **state)
{
	static const char path[] = "/tmp/test-tls-key-updates.pem";
	struct tls_server *s;

	write_identity(path);
	s = server_of(path, TLS1_3_VERSION);
	assert_int_equal(update_keys(s, 60), 60);
	assert_in_range(update_keys(s, 1000), 60, 70);
	tls_server_free(s);
	unlink(path);
}

/* Reads what is there; the count so far, of bytes that must come in their order. */
static size_t take_in(SSL *client, size_t have)
{
	char bytes[4096];
	int n;

	while ((n = SSL_read(client, bytes, sizeof(bytes))) > 0) {
		for (int i = 0; i < n; i++, have++)
			assert_int_equal((unsigned char)bytes[i], have / 512 & 0xff);
	}
	return have;
}

/* Also when the socket takes only a part at a time, and whoever comes behind what waits. */
static void keeps_records_until_they_are_let_go(void **state)
{
	static const char path[] = "/tmp/test-tls-hold.pem";
	struct tls_server *s;
	SSL_CTX *ctx = client_of(TLS1_3_VERSION);
	SSL *client = SSL_new(ctx), *server;
	int fds[2], rc = -EAGAIN, small = 1, blocked = 0;
	char bytes[512];
	size_t have;

	write_identity(path);
	s = server_of(path, TLS1_3_VERSION);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	server = tls_server_accept(s, fds[1]);
	SSL_set_fd(client, fds[0]);
	SSL_set_connect_state(client);
	for (int i = 0; i < 10 && (rc != 0 || !SSL_is_init_finished(client)); i++) {
		SSL_do_handshake(client);
		rc = rc ? tls_handshake(server) : 0;
	}
	assert_int_equal(take_in(client, 0), 0); /* the ticket */
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	tls_hold(server);
	for (int i = 0; i < 24; i++) {
		memset(bytes, i, sizeof(bytes));
		assert_int_equal(tls_write(server, bytes, sizeof(bytes)), sizeof(bytes));
	}
	assert_int_equal(take_in(client, 0), 0);
	have = 0;
	while ((rc = tls_release(server)) == -EAGAIN && blocked++ < 100)
		have = take_in(client, have);
	assert_int_equal(rc, 0);
	assert_true(blocked > 0);
	assert_int_equal(take_in(client, have), 24 * sizeof(bytes));

	tls_hold(server);
	memset(bytes, 24, sizeof(bytes));
	assert_int_equal(tls_write(server, bytes, sizeof(bytes)), sizeof(bytes));
	tls_stop_holding(server);
	assert_int_equal(take_in(client, 24 * sizeof(bytes)), 24 * sizeof(bytes));
	memset(bytes, 25, sizeof(bytes));
	while (tls_write(server, bytes, sizeof(bytes)) == -EAGAIN && blocked++ < 200)
		take_in(client, 24 * sizeof(bytes));
	assert_int_equal(take_in(client, 24 * sizeof(bytes)), 26 * sizeof(bytes));
	SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(client);
	SSL_free(server);
	SSL_SESSION_free(newest);
	newest = NULL;
	SSL_CTX_free(ctx);
	close(fds[0]);
	close(fds[1]);
	tls_server_free(s);
	unlink(path);
}

/* Forward secrecy: no key of the exchange outlives it; and the connection does not miss them. */
static void forgets_the_keys_of_the_exchange(void **state)
{
	static const char path[] = "/tmp/test-tls-forget.pem";
	static const char *const groups[] = { "X25519:P-256", "P-256", "P-384:P-256" };
	struct tls_server *s;

	write_identity(path);
	s = server_of(path, TLS1_2_VERSION);
	for (size_t i = 0; i < 2 * CASES(groups); i++) {
		int version = i < CASES(groups) ? TLS1_3_VERSION : TLS1_2_VERSION;
		SSL_CTX *ctx = client_of(version);
		SSL *client = SSL_new(ctx), *server;
		EVP_PKEY *key = NULL;
		enum tls_failure why;
		int fds[2], rc = -EAGAIN;
		char byte = 'x';

		SSL_set1_groups_list(client, groups[i % CASES(groups)]);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		server = tls_server_accept(s, fds[1]);
		SSL_set_fd(client, fds[0]);
		SSL_set_connect_state(client);
		for (int j = 0; j < 10 && (rc != 0 || !SSL_is_init_finished(client)); j++) {
			SSL_do_handshake(client);
			rc = rc ? tls_server_handshake(server, &why) : 0;
		}
		assert_int_equal(rc, 0);
		if (SSL_get_tmp_key(server, &key)) {
			assert_true(i2d_PUBKEY(key, NULL) <= 0);
			EVP_PKEY_free(key);
		}
		if (SSL_get_peer_tmp_key(server, &key)) {
			assert_true(i2d_PUBKEY(key, NULL) <= 0);
			EVP_PKEY_free(key);
		}
		if (version == TLS1_3_VERSION)
			assert_int_equal(SSL_key_update(client, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_write(client, &byte, 1), 1);
		assert_int_equal(tls_read(server, &byte, 1), 1);
		assert_int_equal(tls_write(server, &byte, 1), 1);
		assert_int_equal(SSL_read(client, &byte, 1), 1);
		SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(client);
		SSL_free(server);
		SSL_SESSION_free(newest);
		newest = NULL;
		SSL_CTX_free(ctx);
		close(fds[0]);
		close(fds[1]);
	}
	tls_server_free(s);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(resumes_every_connection_after_the_first),
		cmocka_unit_test(resumes_at_another_worker_but_not_under_another_certificate),
		cmocka_unit_test(ends_a_connection_of_endless_key_updates),
		cmocka_unit_test(keeps_records_until_they_are_let_go),
		cmocka_unit_test(forgets_the_keys_of_the_exchange),
	};

	return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}
