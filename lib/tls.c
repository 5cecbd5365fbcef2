/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "lib/cleanup.h"
#include "lib/hash.h"

/* Ticket key files hold one or more keys of this size, the first encrypts: name 16, HMAC 32,
 * AES-256 32. */
#define TICKET_KEY_LEN  80
#define TICKET_KEYS_MAX 16
/* Each costs both sides a key derivation. Enough for 16 TB at the rate that AES-GCM asks for
 * (RFC 8446 5.5). */
#define KEY_UPDATES_MAX 64

struct tls_name {
	struct str name; /* lower case; "*.example.com" for wildcards */
	SSL_CTX *ctx;
};

struct tls_server {
	SSL_CTX **contexts; /* one per certificate; the first is what a handshake begins with */
	size_t context_count;
	struct tls_name *names;
	size_t name_count, name_cap;
	unsigned char *alpn; /* wire form */
	size_t alpn_len;
	unsigned char ticket_keys[TICKET_KEYS_MAX][TICKET_KEY_LEN];
	size_t ticket_key_count;
	EVP_CIPHER *ticket_cipher; /* fetched once: a look-up by name takes a lock */
};

/* --- transport: a socket BIO that remembers whether the socket ran dry
 * --------------------------------- */

struct tls_transport {
	int fd;
	bool is_dry;
	unsigned key_updates; /* that the peer sent */
};

static int transport_read(BIO *bio, char *out, int len)
{
	struct tls_transport *t = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (t->key_updates > KEY_UPDATES_MAX) {
		errno = EPROTO;
		return -1;
	}
	n = recv(t->fd, out, (size_t)len, 0);
	/* Less than asked for: the socket is empty, and asking again would cost a system call to
	 * hear EAGAIN. */
	t->is_dry = n < len;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	return (int)n;
}

static int transport_write(BIO *bio, const char *data, int len)
{
	const struct tls_transport *t = BIO_get_data(bio);
	ssize_t n = send(t->fd, data, (size_t)len, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)n;
}

static long transport_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	/* Nothing is buffered here, so a flush has nothing to do and succeeds. */
	return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static int transport_destroy(BIO *bio)
{
	free(BIO_get_data(bio));
	BIO_set_data(bio, NULL);
	return 1;
}

static BIO_METHOD *transport_method(void)
{
	static BIO_METHOD *method;
	BIO_METHOD *m = __atomic_load_n(&method, __ATOMIC_ACQUIRE);

	if (m)
		return m;
	m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR,
			 "gatehouse socket");
	if (!m)
		return NULL;
	BIO_meth_set_read(m, transport_read);
	BIO_meth_set_write(m, transport_write);
	BIO_meth_set_ctrl(m, transport_ctrl);
	BIO_meth_set_destroy(m, transport_destroy);
	/* Two threads may race here at start-up; the loser's copy is dropped. */
	BIO_METHOD *expected = NULL;
	if (!__atomic_compare_exchange_n(&method, &expected, m, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		BIO_meth_free(m);
		return expected;
	}
	return m;
}

static BIO *transport_new(int fd)
{
	struct tls_transport *t = calloc(1, sizeof(*t));
	BIO *bio = t && transport_method() ? BIO_new(transport_method()) : NULL;

	if (!bio) {
		free(t);
		return NULL;
	}
	t->fd = fd;
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	return bio;
}

/* OpenSSL handles key updates by itself, without a bound and without telling. */
static void on_message(int is_write, int version, int type, const void *bytes, size_t len, SSL *ssl,
		       void *arg)
{
	struct tls_transport *t;

	(void)version;
	(void)arg;
	if (is_write || type != SSL3_RT_HANDSHAKE || len == 0 ||
	    *(const unsigned char *)bytes != SSL3_MT_KEY_UPDATE)
		return;
	t = BIO_get_data(SSL_get_rbio(ssl));
	t->key_updates++;
}

/* --- errors
 * ---------------------------------------------------------------------------------------------- */

/* The newest reason of OpenSSL's error queue in words, and an empty queue. */
static const char *tls_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return reason ? reason : "unknown error";
}

static long tls_result(SSL *ssl, int rc)
{
	int saved = errno;

	switch (SSL_get_error(ssl, rc)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return saved ? -saved : -ECONNRESET;
	default:
		ERR_clear_error();
		return -EPROTO;
	}
}

/* --- connections
 * ------------------------------------------------------------------------------------------- */

int tls_set_socket(SSL *ssl, int fd)
{
	BIO *bio = transport_new(fd);

	if (!bio)
		return -ENOMEM;
	SSL_set_bio(ssl, bio, bio);
	return 0;
}

SSL *tls_server_accept(struct tls_server *s, int fd)
{
	SSL *ssl = SSL_new(s->contexts[0]);

	if (!ssl || tls_set_socket(ssl, fd) != 0) {
		SSL_free(ssl);
		ERR_clear_error();
		return NULL;
	}
	SSL_set_accept_state(ssl);
	return ssl;
}

long tls_read(SSL *ssl, void *out, size_t len)
{
	size_t n = 0;
	int rc;

	errno = 0;
	rc = SSL_read_ex(ssl, out, len, &n);
	return rc == 1 ? (long)n : tls_result(ssl, rc);
}

long tls_write(SSL *ssl, const void *data, size_t len)
{
	size_t n = 0;
	long result;
	int rc;

	errno = 0;
	rc = SSL_write_ex(ssl, data, len, &n);
	if (rc == 1)
		return (long)n;
	result = tls_result(ssl, rc);
	return result ? result : -EPIPE;
}

int tls_handshake(SSL *ssl)
{
	long result;
	int rc;

	errno = 0;
	rc = SSL_do_handshake(ssl);
	if (rc == 1)
		return 0;
	result = tls_result(ssl, rc);
	return result ? (int)result : -ECONNRESET;
}

bool tls_is_drained(SSL *ssl)
{
	const struct tls_transport *t = BIO_get_data(SSL_get_rbio(ssl));

	return t->is_dry && !SSL_has_pending(ssl);
}

const char *tls_version_name(const SSL *ssl)
{
	return SSL_is_init_finished(ssl) ? SSL_get_version(ssl) : "";
}

/* --- choice of the certificate by name (RFC 6066 3)
 * ----------------------------------------------------------- */

static SSL_CTX *find_name(const struct tls_server *s, struct str name)
{
	for (size_t i = 0; i < s->name_count; i++) {
		struct str have = s->names[i].name;
		ptrdiff_t dot;

		if (str_ieq(have, name))
			return s->names[i].ctx;
		if (!str_starts(have, STR("*.")))
			continue;
		/* A wildcard stands for exactly one label (RFC 6125 6.4.3). */
		dot = str_chr(name, '.');
		if (dot > 0 &&
		    str_ieq(str_sub(have, 1, have.len), str_sub(name, (size_t)dot, name.len)))
			return s->names[i].ctx;
	}
	return NULL;
}

/* The first host_name of a server_name extension, or an empty slice. */
static struct str sni_of(SSL *ssl)
{
	const unsigned char *p;
	size_t len, name_len;

	/* list length (2), name type (1) of 0, name length (2), name */
	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &len) || len < 5 ||
	    p[2] != 0)
		return (struct str) { 0 };
	name_len = (size_t)p[3] << 8 | p[4];
	return name_len <= len - 5 ? str_of((const char *)p + 5, name_len) : (struct str) { 0 };
}

/*
 * Before OpenSSL looks at tickets, not in the servername callback, which TLS 1.3 calls after it
 * accepted a ticket: a session must only ever be resumed under the certificate that it was made
 * for.
 */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
	struct str name = sni_of(ssl);
	SSL_CTX *ctx = name.len ? find_name(arg, name) : NULL;

	(void)alert;
	if (ctx && ctx != SSL_get_SSL_CTX(ssl))
		SSL_set_SSL_CTX(ssl, ctx);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		   const unsigned char *in, unsigned in_len, void *arg)
{
	const struct tls_server *s = arg;
	unsigned char *chosen;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, out_len, s->alpn, (unsigned)s->alpn_len, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301 3.2: no_application_protocol */
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int add_name(struct tls_server *s, struct str name, SSL_CTX *ctx)
{
	char *copy;

	/* The first certificate that has a name keeps it. */
	for (size_t i = 0; i < s->name_count; i++) {
		if (str_ieq(s->names[i].name, name))
			return 0;
	}
	if (s->name_count == s->name_cap) {
		size_t cap = s->name_cap ? s->name_cap * 2 : 16;
		struct tls_name *names = realloc(s->names, cap * sizeof(*names));

		if (!names)
			return -ENOMEM;
		s->names = names;
		s->name_cap = cap;
	}
	copy = strndup(name.p, name.len);
	if (!copy)
		return -ENOMEM;
	s->names[s->name_count++] = (struct tls_name) { str_of(copy, name.len), ctx };
	return 0;
}

static int add_names_of(struct tls_server *s, X509 *x509, SSL_CTX *ctx)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
	int rc = 0;

	for (int i = 0; rc == 0 && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_DNS)
			rc = add_name(s,
				      str_of((const char *)ASN1_STRING_get0_data(name->d.dNSName),
					     (size_t)ASN1_STRING_length(name->d.dNSName)),
				      ctx);
	}
	GENERAL_NAMES_free(names);
	return rc;
}

/* --- session tickets (RFC 5077, RFC 8446 4.6.1)
 * ------------------------------------------------------------------ */

static int server_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

static const unsigned char *find_ticket_key(const struct tls_server *s,
					    const unsigned char name[16], size_t *at)
{
	for (*at = 0; *at < s->ticket_key_count; ++*at) {
		if (memcmp(s->ticket_keys[*at], name, 16) == 0)
			return s->ticket_keys[*at];
	}
	return NULL;
}

static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
		     EVP_MAC_CTX *mac, int is_new)
{
	const struct tls_server *s = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), server_index());
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, NULL, 0),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]) { "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	const unsigned char *key = s->ticket_keys[0];
	size_t at = 0;

	if (is_new) {
		memcpy(name, key, 16);
		random_bytes(iv, 16);
	} else {
		key = find_ticket_key(s, name, &at);
		if (!key)
			return 0; /* full handshake */
	}
	params[0].data = (void *)(uintptr_t)(key + 16);
	params[0].data_size = 32;
	if (!EVP_MAC_CTX_set_params(mac, params) ||
	    !EVP_CipherInit_ex2(cipher, s->ticket_cipher, key + 48, iv, is_new, NULL))
		return -1;
	if (is_new)
		return 1;
	/* Accepted; 2 has a new ticket sent. Clients of TLS 1.3 use each once (RFC 8446 C.4) and
	 * would have none for their next connection; older ones need one only when keys change. */
	return at > 0 || SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
}

/* One for the process, or a client would resume only at the worker that it met before, and only
 * until the next reload. */
static unsigned char process_key[TICKET_KEY_LEN];

static void make_process_key(void)
{
	random_bytes(process_key, sizeof(process_key));
}

static int load_ticket_keys(struct tls_server *s, const char *path, struct err *err)
{
	FILE *f;
	size_t n;

	if (!path) {
		static pthread_once_t once = PTHREAD_ONCE_INIT;

		pthread_once(&once, make_process_key);
		memcpy(s->ticket_keys[0], process_key, TICKET_KEY_LEN);
		s->ticket_key_count = 1;
		return 0;
	}
	f = fopen(path, "re");
	if (!f)
		return err_set(err, -errno, "%s: cannot read the ticket keys: %s", path,
			       strerror(errno));
	n = fread(s->ticket_keys, 1, sizeof(s->ticket_keys), f);
	fclose(f);
	if (n == 0 || n % TICKET_KEY_LEN)
		return err_set(err, -EINVAL,
			       "%s: must hold 1 to %d keys of %d random bytes (make one: openssl "
			       "rand %d > %s)",
			       path, TICKET_KEYS_MAX, TICKET_KEY_LEN, TICKET_KEY_LEN, path);
	s->ticket_key_count = n / TICKET_KEY_LEN;
	return 0;
}

/* --- contexts
 * ------------------------------------------------------------------------------------------------------
 */

static int load_certificate(SSL_CTX *ctx, const struct tls_certificate *c, bool *is_key,
			    struct err *err)
{
	*is_key = false;
	if (access(c->certificate, R_OK) < 0)
		return err_set(err, -errno, "%s: cannot read the certificate: %s", c->certificate,
			       strerror(errno));
	if (SSL_CTX_use_certificate_chain_file(ctx, c->certificate) != 1)
		return err_set(err, -EINVAL, "%s: not a PEM certificate: %s", c->certificate,
			       tls_reason());
	*is_key = true;
	if (access(c->key, R_OK) < 0)
		return err_set(err, -errno, "%s: cannot read the key: %s", c->key, strerror(errno));
	if (SSL_CTX_use_PrivateKey_file(ctx, c->key, SSL_FILETYPE_PEM) != 1) {
		unsigned long code = ERR_peek_error();

		if (ERR_GET_LIB(code) == ERR_LIB_X509) {
			ERR_clear_error();
			return err_set(err, -EINVAL, "%s: is not the key of %s", c->key,
				       c->certificate);
		}
		return err_set(err, -EINVAL, "%s: not a PEM private key: %s", c->key, tls_reason());
	}
	if (SSL_CTX_check_private_key(ctx) != 1) {
		ERR_clear_error();
		return err_set(err, -EINVAL, "%s: is not the key of %s", c->key, c->certificate);
	}
	return 0;
}

int tls_check_certificate(const struct tls_certificate *c, struct tls_finding *out, struct err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	const X509 *x509;
	int rc;

	*out = (struct tls_finding) { 0 };
	if (!ctx)
		return err_set(err, -ENOMEM, "cannot make a TLS context: %s", tls_reason());
	rc = load_certificate(ctx, c, &out->is_key, err);
	if (rc == 0) {
		x509 = SSL_CTX_get0_certificate(ctx);
		out->is_expired = X509_cmp_current_time(X509_get0_notAfter(x509)) < 0;
		out->is_early = X509_cmp_current_time(X509_get0_notBefore(x509)) > 0;
	}
	SSL_CTX_free(ctx);
	return rc;
}

int tls_check_ticket_keys(const char *path, struct err *err)
{
	struct tls_server s = { 0 };
	int rc = load_ticket_keys(&s, path, err);

	OPENSSL_cleanse(s.ticket_keys, sizeof(s.ticket_keys));
	return rc;
}

/*
 * A session of one certificate's hosts is never resumed for another's, nor under a stricter policy
 * than it was made under: what a ticket says of its origin must be the same here.
 */
static int set_session_context(SSL_CTX *ctx, const struct tls_server_options *o)
{
	unsigned char bytes[EVP_MAX_MD_SIZE + sizeof(o->min_version)], id[EVP_MAX_MD_SIZE];
	unsigned len = 0, id_len = 0;

	if (!X509_digest(SSL_CTX_get0_certificate(ctx), EVP_sha256(), bytes, &len))
		return -ENOMEM;
	memcpy(bytes + len, &o->min_version, sizeof(o->min_version));
	if (!EVP_Digest(bytes, len + sizeof(o->min_version), id, &id_len, EVP_sha256(), NULL) ||
	    !SSL_CTX_set_session_id_context(ctx, id, id_len))
		return -ENOMEM;
	return 0;
}

static SSL_CTX *context_new(struct tls_server *s, const struct tls_server_options *o,
			    const struct tls_certificate *certificate, struct err *err)
{
	char groups[] = "X25519:P-256:P-384"; /* OpenSSL's macro takes no const */
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	bool is_key;

	if (!ctx) {
		err_set(err, -ENOMEM, "cannot make a TLS context: %s", tls_reason());
		return NULL;
	}
	SSL_CTX_set_min_proto_version(ctx, o->min_version);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					 SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA | SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	/* Record header and body in one read: two system calls less per request. */
	SSL_CTX_set_read_ahead(ctx, 1);
	/* Tickets hold the state; a cache would be one lock more and know nothing of the other
	 * gateways. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 1);
	SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
	SSL_CTX_set1_groups_list(ctx, groups);
	SSL_CTX_set_client_hello_cb(ctx, on_client_hello, s);
	if (s->alpn_len)
		SSL_CTX_set_alpn_select_cb(ctx, on_alpn, s);
	SSL_CTX_set_ex_data(ctx, server_index(), s);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
	SSL_CTX_set_msg_callback(ctx, on_message);
	if (load_certificate(ctx, certificate, &is_key, err) < 0) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	if (set_session_context(ctx, o) < 0) {
		err_set(err, -ENOMEM, "cannot make a TLS context: %s", tls_reason());
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

static int build_alpn(struct tls_server *s, const struct tls_server_options *o)
{
	size_t len = 0;

	for (size_t i = 0; i < o->alpn_count; i++)
		len += 1 + strlen(o->alpn[i]);
	if (len == 0)
		return 0;
	s->alpn = malloc(len);
	if (!s->alpn)
		return -ENOMEM;
	for (size_t i = 0; i < o->alpn_count; i++) {
		size_t n = strlen(o->alpn[i]);

		s->alpn[s->alpn_len++] = (unsigned char)n;
		memcpy(s->alpn + s->alpn_len, o->alpn[i], n);
		s->alpn_len += n;
	}
	return 0;
}

struct tls_server *tls_server_new(const struct tls_server_options *o, struct err *err)
{
	struct tls_server *s = calloc(1, sizeof(*s));

	if (s)
		s->contexts = calloc(o->certificate_count, sizeof(*s->contexts));
	if (s)
		s->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
	if (!s || !s->contexts || !s->ticket_cipher || build_alpn(s, o) < 0) {
		err_set(err, -ENOMEM, "out of memory");
		tls_server_free(s);
		return NULL;
	}
	if (load_ticket_keys(s, o->ticket_keys, err) < 0) {
		tls_server_free(s);
		return NULL;
	}
	for (size_t i = 0; i < o->certificate_count; i++) {
		SSL_CTX *ctx = context_new(s, o, &o->certificates[i], err);

		if (!ctx) {
			tls_server_free(s);
			return NULL;
		}
		s->contexts[s->context_count++] = ctx;
		if (add_names_of(s, SSL_CTX_get0_certificate(ctx), ctx) < 0) {
			err_set(err, -ENOMEM, "out of memory");
			tls_server_free(s);
			return NULL;
		}
	}
	return s;
}

void tls_server_free(struct tls_server *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->context_count; i++)
		SSL_CTX_free(s->contexts[i]);
	for (size_t i = 0; i < s->name_count; i++)
		free((char *)(uintptr_t)s->names[i].name.p);
	EVP_CIPHER_free(s->ticket_cipher);
	OPENSSL_cleanse(s->ticket_keys, sizeof(s->ticket_keys));
	free(s->names);
	free(s->contexts);
	free(s->alpn);
	free(s);
}
