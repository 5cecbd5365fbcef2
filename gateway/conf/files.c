/* SPDX-License-Identifier: Apache-2.0 */
/* The files that a configuration names, looked at together with everything else that is checked. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/conf/check.h"
#include "gateway/conf/conf.h"
#include "gateway/identity/api_keys.h"
#include "gateway/identity/jwks.h"
#include "gateway/identity/revocation_file.h"
#include "gateway/transcode/table.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/tls_identity.h"
#include "lib/tls_tickets.h"

/* --- certificates -------------------------------------------------------------------------- */

static void check_certificate(struct conf *c, const struct gw_certificate *conf)
{
	struct tls_identity *id;
	int64_t now_s = (int64_t)(clock_wall_ms() / MSEC_PER_SEC);
	bool is_key = false;
	struct err err;

	if (!conf->certificate.p || !conf->key.p)
		return; /* said already */
	id = tls_identity_load(conf->certificate.p, conf->key.p, &is_key, &err);
	if (!id) {
		conf_error_at(c, is_key ? "key" : "certificate", "%s", err.text);
		if (!is_key && access(conf->key.p, R_OK) < 0)
			conf_error_at(c, "key", "%s: cannot read the key: %s", conf->key.p,
				      strerror(errno));
		return;
	}
	if (id->until_s < now_s)
		conf_warn_at(c, "certificate", "%s: has expired; clients will refuse it",
			     conf->certificate.p);
	else if (id->from_s > now_s)
		conf_warn_at(c, "certificate", "%s: is not valid yet; clients will refuse it",
			     conf->certificate.p);
	tls_identity_put(&id);
}

static void check_trust(struct conf *c, const char *member, struct str path)
{
	struct tls_trust *trust;
	struct err err;

	if (!path.p)
		return;
	trust = tls_trust_load(path.p, &err);
	if (!trust)
		conf_error_at(c, member, "%s", err.text);
	tls_trust_put(&trust);
}

static void check_ticket_keys(struct conf *c, struct str path)
{
	struct tls_ticket_keys keys;
	struct err err;

	if (!path.p)
		return;
	if (tls_ticket_keys_load(&keys, path.p, &err) < 0)
		conf_error_at(c, "ticket_keys", "%s", err.text);
	else
		OPENSSL_cleanse(&keys, sizeof(keys));
}

static void check_tls(struct conf *c, const struct gw_tls *tls)
{
	conf_enter(c, "tls");
	for (size_t i = 0; i < tls->certificates_count; i++) {
		conf_enter_index(c, "certificates", i);
		check_certificate(c, &tls->certificates[i]);
		conf_leave(c);
	}
	check_trust(c, "client_ca", tls->client_ca);
	for (size_t i = 0; i < tls->hosts_count; i++) {
		if (str_eq(tls->hosts[i].client_ca, tls->client_ca))
			continue; /* inherited */
		conf_enter_name(c, "hosts", tls->hosts[i].name);
		check_trust(c, "client_ca", tls->hosts[i].client_ca);
		conf_leave(c);
	}
	check_ticket_keys(c, tls->ticket_keys);
	conf_leave(c);
}

static void check_service_tls(struct conf *c, const struct gw_service *service)
{
	struct gw_certificate pair = { service->tls->certificate, service->tls->key };

	conf_enter_name(c, "services", service->name);
	conf_enter(c, "tls");
	check_trust(c, "ca", service->tls->ca);
	check_certificate(c, &pair);
	conf_leave(c);
	conf_leave(c);
}

/* --- types of gRPC services ---------------------------------------------------------------- */

static void complain(void *ctx, const char *sentence)
{
	conf_error_at(ctx, "descriptor_set", "%s", sentence);
}

static void check_descriptor_set(struct conf *c, const struct gw_service *service)
{
	conf_enter_name(c, "services", service->name);
	transcode_table_free(transcode_table_load(service->descriptor_set.p, complain, c));
	conf_leave(c);
}

/* --- keys of issuers ----------------------------------------------------------------------- */

static void check_jwks(struct conf *c, const struct gw_auth *auth)
{
	struct jwks *keys = NULL;
	unsigned algorithms = 0;
	struct err err;

	check_trust(c, "jwks.ca", auth->jwks.ca);
	if (!auth->jwks.file.p)
		return; /* at a URL, or said already */
	if (jwks_load_file(&keys, auth->jwks.file.p, &err) < 0) {
		conf_error_at(c, "jwks.file", "%s", err.text);
		return;
	}
	for (size_t i = 0; i < keys->count; i++)
		algorithms |= keys->keys[i].algs;
	if (auth->algorithms && !(auth->algorithms & algorithms))
		conf_error_at(c, "algorithms",
			      "no key of %s is for one of these, so no token could be good",
			      auth->jwks.file.p);
	jwks_put(&keys);
}

static void check_keys(struct conf *c, const struct gw_auth *auth)
{
	struct api_keys *keys = NULL;
	struct err err;

	if (auth->type == GW_AUTH_JWT)
		check_jwks(c, auth);
	if (auth->type != GW_AUTH_API_KEY || !auth->keys_file.p)
		return;
	if (api_keys_load_file(&keys, auth->keys_file.p, auth->user_claim, &err) < 0)
		conf_error_at(c, "keys_file", "%s", err.text);
	api_keys_put(&keys);
}

static void check_revocations(struct conf *c, const struct gw_revocations *conf)
{
	struct err err;

	if (conf->file.p && revocation_file_load(conf->file.p, NULL, NULL, &err) < 0)
		conf_error_at(c, "revocations.file", "%s", err.text);
}

/* --- files that are written ---------------------------------------------------------------- */

/* Returns what is wrong with the folder that the file would be in, or 0. */
static int folder_problem(struct str file)
{
	CLEANUP(cleanup_free) char *folder = NULL;
	size_t len = file.len;
	struct stat st;

	while (len > 1 && file.p[len - 1] != '/')
		len--;
	if (len <= 1)
		return 0; /* the root, or where the program was started */
	folder = strndup(file.p, len);
	if (!folder)
		return -ENOMEM;
	if (stat(folder, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static void check_written(struct conf *c, const struct gw_conf *conf)
{
	int rc;

	if (conf->access_log.path.p && !str_eqz(conf->access_log.path, "-")) {
		rc = folder_problem(conf->access_log.path);
		if (rc < 0)
			conf_error_at(c, "access_log.path", "%s: its folder: %s",
				      conf->access_log.path.p, strerror(-rc));
	}
	if (conf->revocations.state.p) {
		rc = folder_problem(conf->revocations.state);
		if (rc < 0)
			conf_error_at(c, "revocations.state", "%s: its folder: %s",
				      conf->revocations.state.p, strerror(-rc));
	}
	for (size_t i = 0; i < conf->auth_count; i++) {
		rc = conf->auth[i].jwks.cache.p ? folder_problem(conf->auth[i].jwks.cache) : 0;
		if (rc == 0)
			continue;
		conf_enter_name(c, "auth", conf->auth[i].name);
		conf_warn_at(c, "jwks.cache",
			     "%s: its folder: %s; a start while the URL is away will know no keys",
			     conf->auth[i].jwks.cache.p, strerror(-rc));
		conf_leave(c);
	}
	if (conf->registry && conf->registry->cache.p) {
		rc = folder_problem(conf->registry->cache);
		if (rc < 0)
			conf_warn_at(c, "registry.cache",
				     "%s: its folder: %s; a start without a registry will know no "
				     "instances",
				     conf->registry->cache.p, strerror(-rc));
	}
}

/* --- all ----------------------------------------------------------------------------------- */

void gw_check_files(struct conf *c, const struct gw_conf *conf)
{
	for (size_t i = 0; i < conf->listeners_count; i++) {
		if (!conf->listeners[i].tls)
			continue;
		conf_enter_index(c, "listeners", i);
		check_tls(c, conf->listeners[i].tls);
		conf_leave(c);
	}
	for (size_t i = 0; i < conf->services_count; i++) {
		if (conf->services[i].tls)
			check_service_tls(c, &conf->services[i]);
		if (conf->services[i].descriptor_set.p)
			check_descriptor_set(c, &conf->services[i]);
	}
	for (size_t i = 0; i < conf->auth_count; i++) {
		conf_enter_name(c, "auth", conf->auth[i].name);
		check_keys(c, &conf->auth[i]);
		conf_leave(c);
	}
	check_revocations(c, &conf->revocations);
	check_written(c, conf);
}
