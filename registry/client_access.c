/* SPDX-License-Identifier: Apache-2.0 */
/* What the client shows the registries, and whom it takes for one. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/tls_client.h"
#include "registry/client_private.h"

struct http_request_spec reg_client_request(const struct reg_client *c, size_t url)
{
	const struct http_base *base = &c->urls[url].base;

	return (struct http_request_spec) {
		.addr = &base->addr,
		.host = str_from(base->host),
		.target = { str_from(base->path) },
		.headers = c->headers ? str_from(c->headers) : str_of("", 0),
		.tls = base->is_tls ? c->tls : NULL,
		.tls_name = http_base_name(base),
	};
}

static bool wants_tls(const struct reg_client *c)
{
	for (size_t i = 0; i < c->url_count; i++) {
		if (c->urls[i].base.is_tls)
			return true;
	}
	return false;
}

static struct tls_client *make_tls(const struct reg_client_access *access, struct err *err)
{
	struct tls_client_options options = { .verify = true, .alpn = "http/1.1" };
	struct tls_identity *identity = NULL;
	struct tls_trust *trust = NULL;
	struct tls_client *tls = NULL;
	bool is_key, ok = true;

	if (access->certificate) {
		identity = tls_identity_load(access->certificate,
					     access->key ? access->key : access->certificate,
					     &is_key, err);
		ok = identity != NULL;
	}
	if (ok && access->ca) {
		trust = tls_trust_load(access->ca, err);
		ok = trust != NULL;
	}
	options.identity = identity;
	options.trust = trust;
	if (ok)
		tls = tls_client_new(&options, err);
	tls_identity_put(&identity);
	tls_trust_put(&trust);
	return tls;
}

static bool is_sendable(const char *token)
{
	for (const char *p = token; *p; p++) {
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	}
	return token[0] != '\0';
}

int reg_client_set_access(struct reg_client *c, const struct reg_client_access *access,
			  struct err *err)
{
	struct tls_client *tls = NULL;
	char *headers = NULL;

	if (access->token && !is_sendable(access->token))
		return err_set(err, -EINVAL,
			       "the token for the registry must consist of visible ASCII "
			       "characters");
	if (wants_tls(c)) {
		tls = make_tls(access, err);
		if (!tls)
			return -EINVAL;
	}
	if (access->token &&
	    asprintf(&headers, "Authorization: Bearer %s\r\n", access->token) < 0) {
		tls_client_free(&tls);
		return err_set(err, -ENOMEM, "out of memory");
	}
	reg_client_access_fini(c);
	c->tls = tls;
	c->headers = headers;
	return 0;
}

void reg_client_access_fini(struct reg_client *c)
{
	tls_client_free(&c->tls);
	if (c->headers)
		OPENSSL_cleanse(c->headers, strlen(c->headers));
	free(c->headers);
	c->headers = NULL;
}
