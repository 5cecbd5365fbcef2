/* SPDX-License-Identifier: Apache-2.0 */
/* The files that a configuration names, looked at together with everything else that is checked. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/conf.h"
#include "gateway/conf_check.h"
#include "gateway/jwks.h"
#include "lib/cleanup.h"
#include "lib/tls.h"

/* --- certificates -------------------------------------------------------------------------- */

static void check_certificate(struct conf *c, const struct gw_certificate *conf)
{
	struct tls_certificate files = { conf->certificate.p, conf->key.p };
	struct tls_finding finding = { 0 };
	struct err err;

	if (!conf->certificate.p || !conf->key.p)
		return; /* said already */
	if (tls_check_certificate(&files, &finding, &err) < 0) {
		conf_error_at(c, finding.is_key ? "key" : "certificate", "%s", err.text);
		if (!finding.is_key && access(conf->key.p, R_OK) < 0)
			conf_error_at(c, "key", "%s: cannot read the key: %s", conf->key.p,
				      strerror(errno));
		return;
	}
	if (finding.is_expired)
		conf_warn_at(c, "certificate", "%s: has expired; clients will refuse it",
			     conf->certificate.p);
	else if (finding.is_early)
		conf_warn_at(c, "certificate", "%s: is not valid yet; clients will refuse it",
			     conf->certificate.p);
}

static void check_tls(struct conf *c, const struct gw_tls *tls)
{
	struct err err;

	conf_enter(c, "tls");
	for (size_t i = 0; i < tls->certificates_count; i++) {
		conf_enter_index(c, "certificates", i);
		check_certificate(c, &tls->certificates[i]);
		conf_leave(c);
	}
	if (tls->ticket_keys.p && tls_check_ticket_keys(tls->ticket_keys.p, &err) < 0)
		conf_error_at(c, "ticket_keys", "%s", err.text);
	conf_leave(c);
}

/* --- keys of issuers ----------------------------------------------------------------------- */

static void check_keys(struct conf *c, const struct gw_auth *auth)
{
	struct jwks *keys = NULL;
	unsigned algorithms = 0;
	struct err err;

	if (!auth->jwks.file.p)
		return; /* said already */
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
	for (size_t i = 0; i < conf->auth_count; i++) {
		conf_enter_name(c, "auth", conf->auth[i].name);
		check_keys(c, &conf->auth[i]);
		conf_leave(c);
	}
	check_written(c, conf);
}
