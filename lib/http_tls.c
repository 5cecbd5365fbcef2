/* SPDX-License-Identifier: Apache-2.0 */
/* TLS under the HTTP server: which certificates, and the handshake. */
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/http_server_impl.h"
#include "lib/tls.h"

void http_tls_put(struct http_tls **tlsp)
{
	struct http_tls *tls = TAKE_PTR(*tlsp);

	if (!tls || --tls->refs)
		return;
	tls_server_free(tls->server);
	free(tls);
}

int http_server_set_tls(struct http_server *s, struct tls_server *server)
{
	struct http_tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return -ENOMEM;
	*tls = (struct http_tls) { .server = server, .refs = 1 };
	http_tls_put(&s->tls);
	s->tls = tls;
	return 0;
}

int http_tls_accept(struct http_conn *c)
{
	struct http_tls *tls = c->server->tls;

	/* Nobody listens in on a unix socket. */
	if (!tls || c->is_local)
		return 0;
	c->ssl = tls_server_accept(tls->server, c->io.fd);
	if (!c->ssl)
		return -ENOMEM;
	tls->refs++;
	c->tls = tls;
	return 0;
}

int http_tls_handshake(struct http_conn *c)
{
	enum tls_failure why;
	int r = tls_server_handshake(c->ssl, &why);

	if (r == -EAGAIN)
		return r;
	http_tls_put(&c->tls);
	if (r < 0)
		c->server->stats.failed_handshakes++;
	/* The request may have come with the end of the handshake. */
	c->can_read = true;
	return r;
}

void http_tls_shutdown(struct http_conn *c)
{
	if (!c->ssl || !SSL_is_init_finished(c->ssl))
		return;
	SSL_shutdown(c->ssl);
	ERR_clear_error();
}
