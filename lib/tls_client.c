/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_client.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/net.h"
#include "lib/tls.h"

struct tls_client {
	SSL_CTX *ctx;
	bool verify;
};

static int load_trust(SSL_CTX *ctx, const struct tls_client_options *o, struct err *err)
{
	if (!o->verify)
		return 0;
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (o->ca_file && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1) {
		ERR_clear_error();
		return err_set(err, -EINVAL, "%s: holds no PEM certificates to trust", o->ca_file);
	}
	if (!o->ca_file)
		SSL_CTX_set_default_verify_paths(ctx);
	return 0;
}

struct tls_client *tls_client_new(const struct tls_client_options *o, struct err *err)
{
	struct tls_client *c = calloc(1, sizeof(*c));

	if (c)
		c->ctx = SSL_CTX_new(TLS_client_method());
	if (!c || !c->ctx) {
		err_set(err, -ENOMEM, "out of memory");
		tls_client_free(&c);
		return NULL;
	}
	c->verify = o->verify;
	SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					    SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(c->ctx,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
	if (load_trust(c->ctx, o, err) != 0)
		tls_client_free(&c);
	return c;
}

void tls_client_free(struct tls_client **cp)
{
	struct tls_client *c = TAKE_PTR(*cp);

	if (!c)
		return;
	SSL_CTX_free(c->ctx);
	free(c);
}

/* RFC 6066 3: literal addresses are not permitted in SNI. */
static bool set_name(const struct tls_client *c, SSL *ssl, const char *name)
{
	struct net_addr address;
	bool is_address = net_parse_ip(&address, str_from(name), 0) == 0;

	/* What SSL_set_tlsext_host_name() is; its cast drops const, which clang refuses. */
	if (!is_address && SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
				    (void *)(uintptr_t)name) != 1)
		return false;
	if (!c->verify)
		return true;
	return is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
			  : SSL_set1_host(ssl, name) == 1;
}

SSL *tls_client_connect(struct tls_client *c, int fd, const char *name)
{
	SSL *ssl = SSL_new(c->ctx);

	if (!ssl || tls_set_socket(ssl, fd) != 0 || !set_name(c, ssl, name)) {
		SSL_free(ssl);
		ERR_clear_error();
		return NULL;
	}
	SSL_set_connect_state(ssl);
	return ssl;
}

int tls_client_handshake(SSL *ssl, const char **problem)
{
	int rc, error, saved;
	unsigned long code;
	const char *reason;

	errno = 0;
	ERR_clear_error();
	rc = SSL_do_handshake(ssl);
	saved = errno;
	if (rc == 1)
		return 0;
	error = SSL_get_error(ssl, rc);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return -EAGAIN;
	code = ERR_peek_last_error();
	reason = code ? ERR_reason_error_string(code) : NULL;
	if (SSL_get_verify_result(ssl) != X509_V_OK && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE)
		*problem = X509_verify_cert_error_string(SSL_get_verify_result(ssl));
	else if (error == SSL_ERROR_SSL && reason)
		*problem = reason;
	else
		*problem = saved ? strerror(saved) : "closed during the TLS handshake";
	ERR_clear_error();
	return error == SSL_ERROR_SYSCALL && saved ? -saved : -EPROTO;
}
