/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/cleanup.h"
#include "lib/file_watch.h"
#include "lib/log.h"
#include "lib/tls_server.h"

#define SETTLE_MS 300   /* certificate and key are two files */
#define POLL_MS   60000 /* for file systems that tell nothing */

struct reg_tls {
	struct http_server *server;
	struct file_watch *watch;
	struct arena arena; /* of the paths */
	const char *
		*paths; /* certificate, key, certificate, key, …, then the client CA if there is one
			 */
	size_t path_count, identity_count;
	struct tls_policy policy;             /* without the CA */
	unsigned char digest[TLS_DIGEST_LEN]; /* of what is in use */
};

static void put_identities(const struct tls_identity **ids, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct tls_identity *id = (struct tls_identity *)(uintptr_t)ids[i];

		tls_identity_put(&id);
	}
}

static struct tls_server *make_server(const struct reg_tls *t, const struct tls_identity **ids,
				      const struct tls_trust *trust, struct err *err)
{
	static const char *const alpn[] = { "http/1.1" };
	struct tls_server_options options = {
		.identities = ids,
		.identity_count = t->identity_count,
		.alpn = alpn,
		.alpn_count = ARRAY_SIZE(alpn),
		.policy = t->policy,
	};

	options.policy.client_ca = trust;
	return tls_server_new(&options, err);
}

/* All zeroes when out of memory: then everything counts as new. */
static void make_digest(const struct reg_tls *t, const struct tls_identity **ids,
			const struct tls_trust *trust, unsigned char out[static TLS_DIGEST_LEN])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL);

	memset(out, 0, TLS_DIGEST_LEN);
	for (size_t i = 0; ok && i < t->identity_count; i++)
		ok = EVP_DigestUpdate(md, ids[i]->digest, TLS_DIGEST_LEN);
	if (ok && trust)
		ok = EVP_DigestUpdate(md, trust->digest, TLS_DIGEST_LEN);
	if (ok)
		ok = EVP_DigestFinal_ex(md, sum, NULL);
	if (ok)
		memcpy(out, sum, TLS_DIGEST_LEN);
	EVP_MD_CTX_free(md);
}

/* Reads all files anew; when that fails, what is in use stays. 0: nothing new, 1: something is. */
static int load(struct reg_tls *t, struct err *err)
{
	unsigned char digest[TLS_DIGEST_LEN];
	CLEANUP(cleanup_free)
	const struct tls_identity **ids = calloc(t->identity_count, sizeof(struct tls_identity *));
	struct tls_trust *trust = NULL;
	struct tls_server *server = NULL;
	size_t loaded = 0;
	bool is_key, is_same = false, ok = true;

	if (!ids)
		return err_set(err, -ENOMEM, "out of memory");
	while (ok && loaded < t->identity_count) {
		ids[loaded] = tls_identity_load(t->paths[2 * loaded], t->paths[2 * loaded + 1],
						&is_key, err);
		ok = ids[loaded] != NULL;
		loaded += ok;
	}
	if (ok && t->path_count > 2 * t->identity_count) {
		trust = tls_trust_load(t->paths[2 * t->identity_count], err);
		ok = trust != NULL;
	}
	if (ok)
		make_digest(t, ids, trust, digest);
	if (ok && memcmp(digest, t->digest, sizeof(digest)) != 0)
		server = make_server(t, ids, trust, err);
	else if (ok)
		is_same = true;
	put_identities(ids, loaded);
	tls_trust_put(&trust);
	if (!server)
		return is_same ? 0 : -EINVAL;
	if (http_server_set_tls(t->server, server) == 0) {
		memcpy(t->digest, digest, sizeof(digest));
		return 1;
	}
	tls_server_free(server);
	return err_set(err, -ENOMEM, "out of memory");
}

static void follow(struct reg_tls *t)
{
	if (file_watch_set(t->watch, t->paths, t->path_count) < 0)
		log_warn("tls: not all files can be watched; looked at every %d s", POLL_MS / 1000);
}

static void on_files(void *arg)
{
	struct reg_tls *t = arg;
	struct err err;
	int r;

	follow(t);
	r = load(t, &err);
	if (r < 0)
		log_error("tls: %s; the certificates in use stay", err.text);
	else if (r > 0)
		log_info("tls: certificates read again");
}

static bool add_path(struct reg_tls *t, struct str path)
{
	t->paths[t->path_count] = arena_strz(&t->arena, path);
	return t->paths[t->path_count++] != NULL;
}

static bool add_paths(struct reg_tls *t, const struct reg_conf_tls *conf)
{
	bool ok = true;

	t->paths = arena_array(&t->arena, const char *, 2 * conf->certificates_count + 1);
	if (!t->paths)
		return false;
	for (size_t i = 0; i < conf->certificates_count; i++)
		ok = ok && add_path(t, conf->certificates[i].certificate) &&
		     add_path(t, conf->certificates[i].key);
	if (conf->client_ca.p)
		ok = ok && add_path(t, conf->client_ca);
	return ok;
}

struct reg_tls *reg_tls_new(struct loop *loop, struct http_server *server,
			    const struct reg_conf_tls *conf, struct err *err)
{
	struct reg_tls *t = calloc(1, sizeof(*t));

	if (!t) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	arena_init(&t->arena, 512, 0);
	t->server = server;
	t->identity_count = conf->certificates_count;
	t->policy.client_auth = (enum tls_client_auth)conf->client_auth;
	t->policy.min_version = conf->min_version == REG_TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
	t->watch = file_watch_new(loop, SETTLE_MS, POLL_MS, on_files, t);
	if (!t->watch || !add_paths(t, conf)) {
		err_set(err, -ENOMEM, "tls: out of memory, or too many inotify instances");
		reg_tls_free(&t);
		return NULL;
	}
	follow(t);
	if (load(t, err) < 0)
		reg_tls_free(&t);
	return t;
}

void reg_tls_free(struct reg_tls **tp)
{
	struct reg_tls *t = TAKE_PTR(*tp);

	if (!t)
		return;
	if (t->watch)
		file_watch_free(&t->watch);
	arena_fini(&t->arena);
	free(t);
}
