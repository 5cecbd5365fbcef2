/* SPDX-License-Identifier: Apache-2.0 */
/* The other side's certificate as a text for services. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/hex.h"
#include "lib/tls_server.h"

#define TEXT_MAX 4096

/* What would end or split the value is not worth quoting: such a name is left out. */
static bool is_plain(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c <= ' ' || c >= 0x7f || c == '"' || c == ';' || c == ',' || c == '\\')
			return false;
	}
	return s.len > 0;
}

static void write_names(struct buf *out, const X509 *x)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		struct str name;

		if (g->type != GEN_DNS && g->type != GEN_URI)
			continue;
		name = str_of((const char *)ASN1_STRING_get0_data(g->d.ia5),
			      (size_t)ASN1_STRING_length(g->d.ia5));
		if (is_plain(name) && buf_len(out) + name.len + 8 <= TEXT_MAX)
			buf_printf(out, ";%s=%.*s", g->type == GEN_DNS ? "DNS" : "URI",
				   STR_ARG(name));
	}
	GENERAL_NAMES_free(names);
}

/* RFC 2253, with everything escaped that is not printable ASCII. */
static void write_subject(struct buf *out, const X509 *x)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long len;

	if (!bio)
		return;
	if (X509_NAME_print_ex(bio, X509_get_subject_name(x), 0, XN_FLAG_RFC2253) >= 0) {
		len = BIO_get_mem_data(bio, &text);
		if (len > 0 && len < TEXT_MAX / 2)
			buf_printf(out, ";Subject=\"%.*s\"", (int)len, text);
	}
	BIO_free(bio);
}

/* The certificate that the client showed and that was found good, or NULL. */
static const X509 *good_certificate(const SSL *ssl)
{
	const X509 *x = SSL_get0_peer_certificate(ssl);

	return x && SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE &&
			       SSL_get_verify_result(ssl) == X509_V_OK
		       ? x
		       : NULL;
}

/* The text's own memory, which the caller frees; NULL when something went wrong. */
static char *finish(struct buf *out)
{
	ERR_clear_error();
	buf_putc(out, '\0');
	if (!buf_failed(out))
		return buf_data(out);
	buf_fini(out);
	return NULL;
}

char *tls_client_certificate(const SSL *ssl)
{
	const X509 *x = good_certificate(ssl);
	unsigned char digest[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE], *at = hex;
	unsigned len;
	struct buf out;

	if (!x || !X509_digest(x, EVP_sha256(), digest, &len))
		return NULL;
	hex_put(&at, digest, len);
	buf_init(&out, TEXT_MAX);
	buf_printf(&out, "Hash=%.*s", (int)(at - hex), hex);
	write_subject(&out, x);
	write_names(&out, x);
	return finish(&out);
}

/* A name that people and headers can take: printable, no line break, UTF-8 as OpenSSL made it. */
static void add_name(struct buf *out, const char *kind, const unsigned char *p, int len)
{
	struct str name = str_of((const char *)p, (size_t)(len > 0 ? len : 0));

	for (size_t i = 0; i < name.len; i++) {
		if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f)
			return;
	}
	if (name.len && name.p[0] != ' ' && name.p[name.len - 1] != ' ' &&
	    buf_len(out) + name.len + 8 <= TEXT_MAX)
		buf_printf(out, "%s:%.*s\n", kind, STR_ARG(name));
}

static void add_alternatives(struct buf *out, const X509 *x, int type, const char *kind)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		/* IA5: what is not ASCII does not belong there. */
		if (g->type == type &&
		    is_plain(str_of((const char *)ASN1_STRING_get0_data(g->d.ia5),
				    (size_t)ASN1_STRING_length(g->d.ia5))))
			add_name(out, kind, ASN1_STRING_get0_data(g->d.ia5),
				 ASN1_STRING_length(g->d.ia5));
	}
	GENERAL_NAMES_free(names);
}

static void add_common_names(struct buf *out, const X509 *x)
{
	const X509_NAME *subject = X509_get_subject_name(x);

	for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
		const ASN1_STRING *value =
			X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
		unsigned char *utf8 = NULL;
		int len = ASN1_STRING_to_UTF8(&utf8, value);

		if (len > 0)
			add_name(out, "cn", utf8, len);
		OPENSSL_free(utf8);
	}
}

static int64_t end_of(const X509 *x)
{
	struct tm tm;

	return ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

char *tls_client_names(const SSL *ssl, int64_t *until_s)
{
	const X509 *x = good_certificate(ssl);
	struct buf out;

	if (!x)
		return NULL;
	buf_init(&out, TEXT_MAX + 1);
	add_alternatives(&out, x, GEN_URI, "uri");
	add_alternatives(&out, x, GEN_DNS, "dns");
	add_alternatives(&out, x, GEN_EMAIL, "email");
	add_common_names(&out, x);
	*until_s = end_of(x);
	return finish(&out);
}
