/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tls_server.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/tls.h"

#define KEY_KINDS 5 /* RSA, RSA-PSS, EC, Ed25519, Ed448: one certificate each in a context */
#define NAME_MAX_ 253

const char *const tls_failure_names[TLS_FAILURES] = {
	[TLS_FAILED_PEER_CLOSED] = "peer_closed",
	[TLS_FAILED_PEER_ALERT] = "peer_alert",
	[TLS_FAILED_NOTHING_SHARED] = "nothing_shared",
	[TLS_FAILED_ALPN] = "alpn",
	[TLS_FAILED_NAME] = "unknown_name",
	[TLS_FAILED_NO_CERTIFICATE] = "no_client_certificate",
	[TLS_FAILED_BAD_CERTIFICATE] = "bad_client_certificate",
	[TLS_FAILED_PROTOCOL] = "protocol",
	[TLS_FAILED_TIMEOUT] = "timeout",
};

/* The certificates for a name, one for each kind of key; borrowed while the server is built. */
struct tls_set {
	const struct tls_identity *of_kind[KEY_KINDS];
};

/* Certificates and a policy. Sessions of one are never resumed at another. */
struct tls_vhost {
	struct tls_server *server;
	SSL_CTX *ctx;
	unsigned char id[TLS_DIGEST_LEN];
	uint64_t policy_id;
	int min_version, verify_mode;
};

struct tls_name {
	struct hmap_node node;
	struct str name; /* lower case; "*.example.com" for wildcards */
	struct tls_set set;
	struct tls_vhost *vhost; /* NULL: there is no certificate for it */
	uint64_t policy_id;
};

struct tls_server {
	struct tls_vhost **vhosts; /* the first is what a handshake begins with */
	size_t vhost_count, vhost_cap;
	struct hmap names;
	uint64_t policy_id;  /* of names that are not in the table */
	bool has_one_policy; /* ... and of all that are */
	bool sni_strict;
	unsigned char *alpn; /* wire form */
	size_t alpn_len;
	struct tls_ticket_keys ticket_keys;
	EVP_CIPHER *ticket_cipher; /* fetched once: a look-up by name takes a lock */
};

/* --- names (RFC 6066 3) -------------------------------------------------------------------- */

/* Lower case without a final dot; the empty slice for what cannot be a name. */
static struct str fold_name(char out[static NAME_MAX_], struct str name)
{
	if (name.len && name.p[name.len - 1] == '.')
		name.len--;
	if (name.len > NAME_MAX_)
		return (struct str) { 0 };
	for (size_t i = 0; i < name.len; i++)
		out[i] = (char)tolower((unsigned char)name.p[i]);
	return str_of(out, name.len);
}

static struct tls_name *find_exact(const struct tls_server *s, struct str name)
{
	for (struct hmap_node *n = hmap_first(&s->names, hash_str(name)); n; n = hmap_next(n)) {
		struct tls_name *found = container_of(n, struct tls_name, node);

		if (str_eq(found->name, name))
			return found;
	}
	return NULL;
}

/* A wildcard stands for exactly one label (RFC 6125 6.4.3). */
static struct tls_name *find_wildcard(const struct tls_server *s, struct str name)
{
	ptrdiff_t dot = name.len ? str_chr(name, '.') : -1;
	char text[NAME_MAX_ + 1];
	size_t len;

	if (dot <= 0)
		return NULL;
	len = name.len - (size_t)dot;
	text[0] = '*';
	memcpy(text + 1, name.p + dot, len);
	return find_exact(s, str_of(text, len + 1));
}

static struct tls_name *find_name(const struct tls_server *s, struct str name)
{
	char folded[NAME_MAX_];
	struct tls_name *found;

	name = fold_name(folded, name);
	found = name.len ? find_exact(s, name) : NULL;
	return found ? found : find_wildcard(s, name);
}

static struct tls_name *add_name(struct tls_server *s, struct str name)
{
	char folded[NAME_MAX_];
	struct tls_name *n;

	name = fold_name(folded, name);
	n = find_exact(s, name);
	if (n)
		return n;
	n = calloc(1, sizeof(*n) + name.len);
	if (!n)
		return NULL;
	if (name.len)
		memcpy(n + 1, name.p, name.len);
	n->name = str_of((char *)(n + 1), name.len);
	if (hmap_insert(&s->names, &n->node, hash_str(n->name)) == 0)
		return n;
	free(n);
	return NULL;
}

uint64_t tls_server_policy(const struct tls_server *s, struct str host)
{
	const struct tls_name *n = s->has_one_policy ? NULL : find_name(s, host);

	return n ? n->policy_id : s->policy_id;
}

/* --- callbacks of OpenSSL ------------------------------------------------------------------ */

static int vhost_index(void)
{
	static int index = -1;

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

static struct tls_vhost *vhost_of(const SSL *ssl)
{
	return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), vhost_index());
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
 * accepted a ticket: a session must only ever be resumed under the certificate and the policy that
 * it was made for.
 */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls_server *s = arg;
	const struct tls_name *name = find_name(s, sni_of(ssl));
	const struct tls_vhost *v = name ? name->vhost : NULL;

	if (!v && s->sni_strict) {
		*alert = SSL_AD_UNRECOGNIZED_NAME;
		return SSL_CLIENT_HELLO_ERROR;
	}
	if (!v)
		v = s->vhosts[0];
	if (v->ctx != SSL_get_SSL_CTX(ssl)) {
		SSL_set_SSL_CTX(ssl, v->ctx);
		/* Not part of what a context brings along. */
		SSL_set_min_proto_version(ssl, v->min_version);
		SSL_set_verify(ssl, v->verify_mode, NULL);
	}
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

static int on_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher,
		     EVP_MAC_CTX *mac, int is_new)
{
	const struct tls_server *s = vhost_of(ssl)->server;

	return tls_ticket_callback(&s->ticket_keys, s->ticket_cipher, ssl, name, iv, cipher, mac,
				   is_new);
}

/* --- contexts ------------------------------------------------------------------------------ */

static const unsigned char no_digest[TLS_DIGEST_LEN];

static uint64_t policy_id(const struct tls_policy *p)
{
	uint32_t bytes[2 + TLS_DIGEST_LEN / 4] = { (uint32_t)p->client_auth,
						   (uint32_t)p->min_version };
	unsigned char digest[EVP_MAX_MD_SIZE] = { 0 };
	uint64_t id;

	if (p->client_auth != TLS_CLIENT_AUTH_OFF)
		memcpy(bytes + 2, p->client_ca->digest, TLS_DIGEST_LEN);
	EVP_Digest(bytes, sizeof(bytes), digest, NULL, EVP_sha256(), NULL);
	memcpy(&id, digest, sizeof(id));
	return id;
}

/*
 * What a ticket says of its origin must be the same where it is used: certificates, policy, and the
 * host that has one of its own.
 */
static bool make_id(unsigned char out[TLS_DIGEST_LEN], const struct tls_set *set, uint64_t policy,
		    struct str host)
{
	unsigned char bytes[(KEY_KINDS + 1UL) * TLS_DIGEST_LEN + sizeof(policy)];
	size_t len = 0;

	for (size_t i = 0; i < KEY_KINDS; i++, len += TLS_DIGEST_LEN)
		memcpy(bytes + len, set->of_kind[i] ? set->of_kind[i]->digest : no_digest,
		       TLS_DIGEST_LEN);
	if (!EVP_Digest(host.len ? host.p : "", host.len, bytes + len, NULL, EVP_sha256(), NULL))
		return false;
	len += TLS_DIGEST_LEN;
	memcpy(bytes + len, &policy, sizeof(policy));
	len += sizeof(policy);
	return EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1;
}

static bool set_client_auth(SSL_CTX *ctx, const struct tls_policy *p)
{
	STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();

	if (!names || tls_trust_use(p->client_ca, ctx) < 0) {
		sk_X509_NAME_free(names);
		return false;
	}
	for (int i = 0; i < sk_X509_num(p->client_ca->authorities); i++) {
		const X509 *x = sk_X509_value(p->client_ca->authorities, i);
		X509_NAME *name = X509_NAME_dup(X509_get_subject_name(x));

		if (!name || !sk_X509_NAME_push(names, name)) {
			X509_NAME_free(name);
			sk_X509_NAME_pop_free(names, X509_NAME_free);
			return false;
		}
	}
	SSL_CTX_set0_CA_list(ctx, names);
	return true;
}

static int verify_mode(const struct tls_policy *p)
{
	switch (p->client_auth) {
	case TLS_CLIENT_AUTH_REQUEST:
		return SSL_VERIFY_PEER;
	case TLS_CLIENT_AUTH_REQUIRE:
		return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	default:
		return SSL_VERIFY_NONE;
	}
}

static void set_options(struct tls_server *s, SSL_CTX *ctx)
{
	char groups[] = "X25519:P-256:P-384"; /* OpenSSL's macro takes no const */

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
	/* Who is in the file is trusted: an authority in it need not be a root. In every context,
	 * since connections keep what that of the default says. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	/* 0-RTT can be replayed. */
	SSL_CTX_set_max_early_data(ctx, 0);
	SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20");
	SSL_CTX_set1_groups_list(ctx, groups);
	SSL_CTX_set_client_hello_cb(ctx, on_client_hello, s);
	if (s->alpn_len)
		SSL_CTX_set_alpn_select_cb(ctx, on_alpn, s);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
	SSL_CTX_set_msg_callback(ctx, tls_watch_message);
}

static bool fill_context(struct tls_vhost *v, const struct tls_set *set, const struct tls_policy *p)
{
	SSL_CTX *ctx = v->ctx;

	set_options(v->server, ctx);
	SSL_CTX_set_min_proto_version(ctx, p->min_version);
	SSL_CTX_set_verify(ctx, v->verify_mode, NULL);
	if (p->client_auth != TLS_CLIENT_AUTH_OFF && !set_client_auth(ctx, p))
		return false;
	for (size_t i = 0; i < KEY_KINDS; i++) {
		if (set->of_kind[i] && tls_identity_use(set->of_kind[i], ctx) < 0)
			return false;
	}
	return SSL_CTX_set_ex_data(ctx, vhost_index(), v) == 1 &&
	       SSL_CTX_set_session_id_context(ctx, v->id, sizeof(v->id)) == 1;
}

static struct tls_vhost *vhost_new(struct tls_server *s, const struct tls_set *set,
				   const struct tls_policy *p, const unsigned char *id)
{
	struct tls_vhost *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->server = s;
	v->policy_id = policy_id(p);
	v->min_version = p->min_version;
	v->verify_mode = verify_mode(p);
	memcpy(v->id, id, sizeof(v->id));
	v->ctx = SSL_CTX_new(TLS_server_method());
	if (v->ctx && fill_context(v, set, p))
		return v;
	SSL_CTX_free(v->ctx);
	free(v);
	return NULL;
}

/* The one for these certificates under this policy; made when first asked for. */
static struct tls_vhost *vhost_get(struct tls_server *s, const struct tls_set *set,
				   const struct tls_policy *p, struct str host)
{
	unsigned char id[TLS_DIGEST_LEN];
	struct tls_vhost *v;

	if (!make_id(id, set, policy_id(p), host))
		return NULL;
	for (size_t i = 0; i < s->vhost_count; i++) {
		if (memcmp(s->vhosts[i]->id, id, sizeof(id)) == 0)
			return s->vhosts[i];
	}
	if (s->vhost_count == s->vhost_cap) {
		size_t cap = s->vhost_cap ? s->vhost_cap * 2 : 8;
		struct tls_vhost **vhosts = realloc(s->vhosts, cap * sizeof(*vhosts));

		if (!vhosts)
			return NULL;
		s->vhosts = vhosts;
		s->vhost_cap = cap;
	}
	v = vhost_new(s, set, p, id);
	if (v)
		s->vhosts[s->vhost_count++] = v;
	return v;
}

/* --- from the options to the table --------------------------------------------------------- */

static size_t kind_of(const struct tls_identity *id)
{
	switch (EVP_PKEY_get_base_id(id->key)) {
	case EVP_PKEY_RSA:
		return 0;
	case EVP_PKEY_RSA_PSS:
		return 1;
	case EVP_PKEY_EC:
		return 2;
	case EVP_PKEY_ED25519:
		return 3;
	default:
		return 4;
	}
}

/* The first certificate that has a name keeps it, among those with its kind of key. */
static void set_add(struct tls_set *set, const struct tls_identity *id)
{
	const struct tls_identity **at = &set->of_kind[kind_of(id)];

	if (!*at)
		*at = id;
}

static bool set_is_empty(const struct tls_set *set)
{
	for (size_t i = 0; i < KEY_KINDS; i++) {
		if (set->of_kind[i])
			return false;
	}
	return true;
}

static void set_fill(struct tls_set *set, const struct tls_set *from)
{
	for (size_t i = 0; i < KEY_KINDS; i++) {
		if (!set->of_kind[i])
			set->of_kind[i] = from->of_kind[i];
	}
}

/* Enters the names of a certificate; the first of them in *first, unless that is NULL. */
static int add_names_of(struct tls_server *s, const struct tls_identity *id,
			struct tls_name **first)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(id->certificate, NID_subject_alt_name, NULL, NULL);
	int rc = 0;

	for (int i = 0; rc == 0 && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		struct tls_name *n;

		if (g->type != GEN_DNS)
			continue;
		n = add_name(s, str_of((const char *)ASN1_STRING_get0_data(g->d.dNSName),
				       (size_t)ASN1_STRING_length(g->d.dNSName)));
		if (n)
			set_add(&n->set, id);
		if (n && first && !*first)
			*first = n;
		rc = n ? 0 : -ENOMEM;
	}
	GENERAL_NAMES_free(names);
	return rc;
}

/* The host with a policy of its own that a name falls under; wildcards after exact ones. */
static const struct tls_host *host_of(const struct tls_server_options *o, struct str name)
{
	const struct tls_host *found = NULL;
	ptrdiff_t dot = str_chr(name, '.');

	for (size_t i = 0; i < o->host_count; i++) {
		struct str host = o->hosts[i].name;

		if (str_ieq(host, name))
			return &o->hosts[i];
		if (str_starts(host, STR("*.")) && dot > 0 &&
		    str_ieq(str_sub(host, 1, host.len), str_sub(name, (size_t)dot, name.len)))
			found = &o->hosts[i];
	}
	return found;
}

static int resolve_name(struct tls_server *s, const struct tls_server_options *o,
			struct tls_name *n, const struct tls_set *fallback)
{
	const struct tls_host *host = host_of(o, n->name);
	const struct tls_policy *policy = host ? &host->policy : &o->policy;
	const struct tls_name *wildcard = find_wildcard(s, n->name);
	struct tls_set set = n->set;

	n->policy_id = policy_id(policy);
	if (n->policy_id != s->policy_id)
		s->has_one_policy = false;
	if (wildcard && wildcard != n)
		set_fill(&set, &wildcard->set);
	if (set_is_empty(&set) && !s->sni_strict)
		set = *fallback;
	if (set_is_empty(&set))
		return 0;
	n->vhost = vhost_get(s, &set, policy, host ? host->name : (struct str) { 0 });
	return n->vhost ? 0 : -ENOMEM;
}

static int build_names(struct tls_server *s, const struct tls_server_options *o)
{
	struct tls_name *first = NULL;
	struct tls_set fallback = { 0 };

	for (size_t i = 0; i < o->identity_count; i++) {
		if (add_names_of(s, o->identities[i], i == 0 ? &first : NULL) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < o->host_count; i++) {
		if (!add_name(s, o->hosts[i].name))
			return -ENOMEM;
	}
	/* The default: the first certificate, and those that stand beside it. */
	if (first)
		fallback = first->set;
	else
		set_add(&fallback, o->identities[0]);
	s->policy_id = policy_id(&o->policy);
	s->has_one_policy = true;
	if (!vhost_get(s, &fallback, &o->policy, (struct str) { 0 }))
		return -ENOMEM;
	hmap_for_each (node, &s->names) {
		if (resolve_name(s, o, container_of(node, struct tls_name, node), &fallback) < 0)
			return -ENOMEM;
	}
	return 0;
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

	if (s) {
		s->sni_strict = o->sni_strict;
		s->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
		if (o->ticket_keys)
			s->ticket_keys = *o->ticket_keys;
		else
			tls_ticket_keys_of_process(&s->ticket_keys);
	}
	if (!s || !s->ticket_cipher || build_alpn(s, o) < 0 || build_names(s, o) < 0) {
		err_set(err, -ENOMEM, "cannot make a TLS context: %s", tls_reason());
		tls_server_free(s);
		return NULL;
	}
	return s;
}

void tls_server_free(struct tls_server *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->vhost_count; i++) {
		SSL_CTX_free(s->vhosts[i]->ctx);
		free(s->vhosts[i]);
	}
	hmap_for_each (node, &s->names)
		free(container_of(node, struct tls_name, node));
	hmap_fini(&s->names);
	EVP_CIPHER_free(s->ticket_cipher);
	OPENSSL_cleanse(&s->ticket_keys, sizeof(s->ticket_keys));
	free(s->vhosts);
	free(s->alpn);
	free(s);
}

/* --- connections --------------------------------------------------------------------------- */

SSL *tls_server_accept(struct tls_server *s, int fd)
{
	SSL *ssl = SSL_new(s->vhosts[0]->ctx);

	if (!ssl || tls_set_socket(ssl, fd) != 0) {
		SSL_free(ssl);
		ERR_clear_error();
		return NULL;
	}
	SSL_set_accept_state(ssl);
	return ssl;
}

static enum tls_failure classify(unsigned long code)
{
	if (ERR_GET_LIB(code) != ERR_LIB_SSL)
		return TLS_FAILED_PROTOCOL;
	switch (ERR_GET_REASON(code)) {
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SUITABLE_GROUPS:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
		return TLS_FAILED_NOTHING_SHARED;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		return TLS_FAILED_ALPN;
	case SSL_R_CALLBACK_FAILED:
		return TLS_FAILED_NAME;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return TLS_FAILED_NO_CERTIFICATE;
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return TLS_FAILED_BAD_CERTIFICATE;
	default:
		return ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET ? TLS_FAILED_PEER_ALERT
								    : TLS_FAILED_PROTOCOL;
	}
}

/* A ticket says that the certificate was good when it was made. */
static bool has_expired(const SSL *ssl)
{
	const X509 *x = SSL_get0_peer_certificate(ssl);

	return x && X509_cmp_current_time(X509_get0_notAfter(x)) <= 0;
}

/* Nothing is left of the old key in one of another type. */
static void key_empty(EVP_PKEY *key)
{
	EVP_PKEY_set_type(key, EVP_PKEY_get_base_id(key) == EVP_PKEY_X25519 ? EVP_PKEY_X448
									    : EVP_PKEY_X25519);
	EVP_PKEY_free(key);
}

/*
 * OpenSSL keeps the keys of the exchange for as long as the connection lives, for nothing: a
 * quarter of an idle connection's memory, and our half is just what forward secrecy wants gone.
 */
static void forget_key_exchange(SSL *ssl)
{
	EVP_PKEY *key;

	if (SSL_get_tmp_key(ssl, &key))
		key_empty(key);
	if (SSL_get_peer_tmp_key(ssl, &key))
		key_empty(key);
	ERR_clear_error();
}

int tls_server_handshake(SSL *ssl, enum tls_failure *why)
{
	unsigned long code;
	int rc, saved;

	errno = 0;
	ERR_clear_error();
	rc = SSL_do_handshake(ssl);
	saved = errno;
	if (rc == 1) {
		forget_key_exchange(ssl);
		*why = TLS_FAILED_BAD_CERTIFICATE;
		return SSL_session_reused(ssl) && has_expired(ssl) ? -EPROTO : 0;
	}
	switch (SSL_get_error(ssl, rc)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		*why = TLS_FAILED_PEER_CLOSED;
		return -ECONNRESET;
	case SSL_ERROR_SYSCALL:
		*why = TLS_FAILED_PEER_CLOSED;
		ERR_clear_error();
		return saved ? -saved : -ECONNRESET;
	default:
		code = ERR_peek_error();
		*why = code ? classify(code) : TLS_FAILED_PEER_CLOSED;
		ERR_clear_error();
		return -EPROTO;
	}
}

uint64_t tls_connection_policy(const SSL *ssl)
{
	return vhost_of(ssl)->policy_id;
}
