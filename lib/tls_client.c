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
	unsigned refs;
	SSL_CTX *ctx;
	bool verify;
	char *name;
	unsigned char digest[TLS_DIGEST_LEN]; /* of all that the options say */
};

static int load_trust(SSL_CTX *ctx, const struct tls_client_options *o, struct err *err)
{
	if (!o->verify)
		return 0;
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	if (o->trust) {
		X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
		return tls_trust_use(o->trust, ctx) < 0 ? err_set(err, -ENOMEM, "out of memory")
							: 0;
	}
	if (o->ca_file && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1) {
		ERR_clear_error();
		return err_set(err, -EINVAL, "%s: holds no PEM certificates to trust", o->ca_file);
	}
	if (!o->ca_file)
		SSL_CTX_set_default_verify_paths(ctx);
	return 0;
}

/* --- sessions ------------------------------------------------------------------------------ */

static int session_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

/* The connection keeps the newest until somebody takes it, or it ends. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
	SSL_SESSION_free(SSL_get_ex_data(ssl, session_index()));
	return SSL_set_ex_data(ssl, session_index(), session);
}

SSL_SESSION *tls_client_take_session(SSL *ssl)
{
	SSL_SESSION *session = SSL_get_ex_data(ssl, session_index());

	SSL_set_ex_data(ssl, session_index(), NULL);
	return session;
}

/* --- contexts ------------------------------------------------------------------------------ */

static bool make_digest(struct tls_client *c, const struct tls_client_options *o)
{
	static const unsigned char none[TLS_DIGEST_LEN];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	const char *name = o->name ? o->name : "", *alpn = o->alpn ? o->alpn : "";
	const char *ca_file = o->ca_file ? o->ca_file : "";
	unsigned char flags[3] = { o->verify, o->is_pooled, o->trust != NULL };
	bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
		  EVP_DigestUpdate(md, flags, sizeof(flags)) &&
		  EVP_DigestUpdate(md, o->trust ? o->trust->digest : none, sizeof(none)) &&
		  EVP_DigestUpdate(md, o->identity ? o->identity->digest : none, sizeof(none)) &&
		  EVP_DigestUpdate(md, name, strlen(name) + 1) &&
		  EVP_DigestUpdate(md, alpn, strlen(alpn) + 1) &&
		  EVP_DigestUpdate(md, ca_file, strlen(ca_file) + 1) &&
		  EVP_DigestFinal_ex(md, c->digest, NULL);

	EVP_MD_CTX_free(md);
	return ok;
}

static int set_alpn(SSL_CTX *ctx, const char *alpn)
{
	unsigned char wire[256];
	size_t len = strlen(alpn);

	wire[0] = (unsigned char)len;
	memcpy(wire + 1, alpn, MIN(len, sizeof(wire) - 1));
	/* The other way round than everything else: 0 is success. */
	return SSL_CTX_set_alpn_protos(ctx, wire, (unsigned)len + 1) == 0 ? 0 : -ENOMEM;
}

static int set_more(struct tls_client *c, const struct tls_client_options *o, struct err *err)
{
	bool ok = make_digest(c, o);

	if (o->is_pooled) {
		/* Here and not when it is first used, which would be in several threads. */
		if (session_index() < 0)
			ok = false;
		SSL_CTX_set_mode(c->ctx, SSL_MODE_RELEASE_BUFFERS);
		SSL_CTX_set_read_ahead(c->ctx, 1);
		SSL_CTX_set_session_cache_mode(c->ctx,
					       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(c->ctx, on_session);
	}
	if (o->name) {
		c->name = strdup(o->name);
		ok = ok && c->name;
	}
	ok = ok && (!o->alpn || set_alpn(c->ctx, o->alpn) == 0);
	ok = ok && (!o->identity || tls_identity_use(o->identity, c->ctx) == 0);
	return ok ? 0 : err_set(err, -ENOMEM, "out of memory");
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
	c->refs = 1;
	c->verify = o->verify;
	SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION);
	/* Not SSL_OP_IGNORE_UNEXPECTED_EOF: an answer that ends with the connection could be cut
	 * short by anybody, unseen. */
	SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(c->ctx,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_msg_callback(c->ctx, tls_watch_message);
	if (load_trust(c->ctx, o, err) != 0 || set_more(c, o, err) != 0)
		tls_client_free(&c);
	return c;
}

void tls_client_free(struct tls_client **cp)
{
	struct tls_client *c = TAKE_PTR(*cp);

	/* Half-built ones have no reference yet. */
	if (!c || (c->refs && --c->refs))
		return;
	SSL_CTX_free(c->ctx);
	free(c->name);
	free(c);
}

struct tls_client *tls_client_get(struct tls_client *c)
{
	c->refs++;
	return c;
}

bool tls_client_eq(const struct tls_client *a, const struct tls_client *b)
{
	return a == b || (a && b && memcmp(a->digest, b->digest, sizeof(a->digest)) == 0);
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

	if (!ssl || tls_set_socket(ssl, fd) != 0 || !set_name(c, ssl, c->name ? c->name : name)) {
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
