/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/tls_setup.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"

_Static_assert((int)GW_CLIENT_AUTH_OFF == TLS_CLIENT_AUTH_OFF &&
		       (int)GW_CLIENT_AUTH_REQUEST == TLS_CLIENT_AUTH_REQUEST &&
		       (int)GW_CLIENT_AUTH_REQUIRE == TLS_CLIENT_AUTH_REQUIRE,
	       "the configuration counts as TLS does");

static struct tls_policy policy_of(const struct tls_files *files, int client_auth,
				   struct str client_ca, int min_version)
{
	return (struct tls_policy) {
		.client_auth = (enum tls_client_auth)client_auth,
		.client_ca = tls_files_trust(files, client_ca),
		.min_version = min_version == GW_TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION,
	};
}

struct tls_server *tls_setup_listener(const struct gw_tls *tls, const struct tls_files *files,
				      struct err *err)
{
	CLEANUP(cleanup_free)
	const struct tls_identity **identities = calloc(tls->certificates_count,
							sizeof(struct tls_identity *));
	CLEANUP(cleanup_free) const char **alpn = calloc(tls->alpn_count + 1, sizeof(*alpn));
	CLEANUP(cleanup_free)
	struct tls_host *hosts = calloc(tls->hosts_count + 1, sizeof(*hosts));
	struct tls_server_options o = {
		.identities = identities,
		.identity_count = tls->certificates_count,
		.alpn = alpn,
		.alpn_count = tls->alpn_count,
		.policy = policy_of(files, tls->client_auth, tls->client_ca, tls->min_version),
		.hosts = hosts,
		.host_count = tls->hosts_count,
		.sni_strict = tls->sni_strict,
		.ticket_keys = tls_files_tickets(files, tls->ticket_keys),
	};

	if (!identities || !alpn || !hosts) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	for (size_t i = 0; i < tls->certificates_count; i++)
		identities[i] = tls_files_identity(files, tls->certificates[i].certificate,
						   tls->certificates[i].key);
	for (size_t i = 0; i < tls->alpn_count; i++)
		alpn[i] = tls->alpn[i].p;
	for (size_t i = 0; i < tls->hosts_count; i++) {
		const struct gw_tls_host *h = &tls->hosts[i];

		hosts[i] = (struct tls_host) {
			.name = h->name,
			.policy = policy_of(files, h->client_auth, h->client_ca, h->min_version),
		};
	}
	return tls_server_new(&o, err);
}

struct tls_client *tls_setup_service(const struct gw_service *service,
				     const struct tls_files *files, bool is_pooled, struct err *err)
{
	const struct gw_service_tls *tls = service->tls;
	struct tls_client_options o = {
		.verify = tls->verify,
		.trust = tls_files_trust(files, tls->ca),
		.identity = tls_files_identity(files, tls->certificate, tls->key),
		.name = tls->server_name.p,
		.alpn = service->protocol != GW_HTTP1 ? "h2" : "http/1.1",
		.is_pooled = is_pooled,
	};

	return tls_client_new(&o, err);
}
