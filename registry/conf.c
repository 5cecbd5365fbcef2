/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/conf.h"

#include <ctype.h>

#include "lib/redis.h"
#include "lib/tls_identity.h"
#include "registry/instance.h"

static const char *const store_types[] = { "memory", "redis", NULL };

/* What belongs to the other kind would be ignored silently. */
static void check_store(struct conf *c, void *object)
{
	const struct reg_conf_store *store = object;
	struct redis_url url;
	struct err err;

	if (store->type == REG_CONF_MEMORY) {
		if (store->url.p)
			conf_error_at(c, "url", "is for type \"redis\"");
		return;
	}
	if (store->snapshot.p)
		conf_error_at(c, "snapshot", "is for type \"memory\"; Redis keeps what it keeps");
	if (!store->url.p)
		conf_error_at(c, "url", "is missing: where Redis is");
	else if (redis_url_parse(&url, store->url, &err) < 0)
		conf_error_at(c, "url", "%s", err.text);
}

static const struct conf_row store_rows[] = {
	{ CONF_ENUM("type", struct reg_conf_store, type, store_types), .flags = CONF_FIXED,
	  .def = "\"memory\"",
	  .help = "where instances live: \"memory\", with a snapshot file for restarts, or "
		  "\"redis\", "
		  "shared by all registries on it" },
	{ CONF_STRING("snapshot", struct reg_conf_store, snapshot), .flags = CONF_NULL | CONF_FIXED,
	  .help = "file that keeps the instances over a restart; without it they register again" },
	{ CONF_STRING("url", struct reg_conf_store, url), .flags = CONF_NULL | CONF_FIXED,
	  .help = "of Redis: \"redis://[[USER]:PASSWORD@]ADDRESS[:PORT][/DB]\" or "
		  "\"unix:/path[?db=N]\"" },
	{ CONF_STRING("prefix", struct reg_conf_store, prefix), .flags = CONF_FIXED, .max = 64,
	  .def = "\"gatehouse:registry:\"",
	  .help = "of all keys in Redis; the same for registries that share" },
	{ 0 },
};

static const struct conf_object store_object = CONF_OBJECT_OF(struct reg_conf_store, store_rows,
							      .check = check_store);

static const struct conf_row lease_rows[] = {
	{ CONF_INT("default_s", struct reg_conf_lease, default_s), .min = 1, .max = REG_LEASE_MAX_S,
	  .def = "30",
	  .help = "how long an instance lives without renewal, unless it says so itself" },
	{ CONF_INT("sweep_ms", struct reg_conf_lease, sweep_ms), .min = 10, .max = 60000,
	  .def = "500", .help = "how often leases that ran out are looked for" },
	{ CONF_BOOL("self_preservation", struct reg_conf_lease, self_preservation), .def = "true",
	  .help = "hold leases while renewals as a whole have collapsed" },
	{ 0 },
};

static const struct conf_object lease_object = CONF_OBJECT_OF(struct reg_conf_lease, lease_rows);

static const struct conf_row limits_rows[] = {
	{ CONF_INT("instances", struct reg_conf_limits, instances), .min = 1, .max = 100000000,
	  .def = "1000000", .help = "registered at the same time" },
	{ CONF_INT("instances_per_client", struct reg_conf_limits, instances_per_client), .min = 1,
	  .max = 100000000, .def = "10000",
	  .help = "registered at the same time by one token, or without one by one address (IPv6: "
		  "by one /64)" },
	{ CONF_INT("watches", struct reg_conf_limits, watches), .min = 1, .max = 1000000,
	  .def = "10000", .help = "event streams and blocking queries at the same time" },
	{ CONF_INT("checks_at_once", struct reg_conf_limits, checks_at_once), .min = 1,
	  .max = 10000, .def = "64", .help = "checks of instances at the same time" },
	{ CONF_INT("body_bytes", struct reg_conf_limits, body_bytes), .min = 4096, .max = 64 << 20,
	  .def = "1048576", .flags = CONF_FIXED, .help = "of one request" },
	{ 0 },
};

static const struct conf_object limits_object = CONF_OBJECT_OF(struct reg_conf_limits, limits_rows);

static const char *valid_name(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (!isalnum((unsigned char)c) && c != '.' && c != '_' && c != '-')
			return "must consist of letters, digits, \".\", \"_\", \"-\"";
	}
	return NULL;
}

/* What can stand in a header, and is long enough not to be guessed. */
static const char *valid_token(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
			return "must consist of visible ASCII characters, without spaces";
	}
	return s.len >= 16 ? NULL : "must have at least 16 characters";
}

static const char *valid_sha256(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!isxdigit((unsigned char)s.p[i]))
			return "must be 64 hexadecimal digits";
	}
	return s.len == 64 ? NULL : "must be 64 hexadecimal digits";
}

static const char *valid_right(struct str s)
{
	return str_eq(s, STR("read")) || str_eq(s, STR("write")) ? NULL
								 : "must be \"read\" or \"write\"";
}

static const char *valid_app(struct str s)
{
	char name[REG_APP_MAX + 1];

	if (str_ends(s, STR("*")))
		s.len--;
	return s.len == 0 || reg_app_name(s, name)
		       ? NULL
		       : "must be the name of an app, the beginning of one with \"*\" behind, or "
			 "\"*\"";
}

static void check_token(struct conf *c, void *object)
{
	const struct reg_conf_token *t = object;

	if (!t->token.p && !t->sha256.p && !conf_has(c, "token") && !conf_has(c, "sha256"))
		conf_error_at(c, "token", "is missing; or give its \"sha256\"");
	else if (t->token.p && t->sha256.p)
		conf_error_at(c, "sha256", "is instead of \"token\", not beside it");
}

static const struct conf_row token_rows[] = {
	{ CONF_STRING("name", struct reg_conf_token, name), .flags = CONF_REQUIRED, .max = 64,
	  .valid = valid_name,
	  .help = "for log and metrics, and the user when the token is sent as a password" },
	{ CONF_STRING("token", struct reg_conf_token, token), .valid = valid_token, .max = 512,
	  .flags = CONF_SECRET, .help = "the secret; better \"$file:/path\" than here" },
	{ CONF_STRING("sha256", struct reg_conf_token, sha256), .valid = valid_sha256,
	  .help = "instead of \"token\": its SHA-256, in hexadecimal digits" },
	{ CONF_STRINGS("rights", struct reg_conf_token, rights), .valid = valid_right, .max = 2,
	  .flags = CONF_NOT_EMPTY, .def = "[\"read\", \"write\"]",
	  .help = "\"read\", \"write\" or both" },
	{ CONF_STRINGS("apps", struct reg_conf_token, apps), .valid = valid_app, .max = 1000,
	  .flags = CONF_NOT_EMPTY, .def = "[\"*\"]",
	  .help = "the apps it is good for: names, or beginnings of names as in \"user-*\"" },
	{ 0 },
};

static const struct conf_object token_object = CONF_OBJECT_OF(struct reg_conf_token, token_rows,
							      .check = check_token);

static const struct conf_row certificate_rows[] = {
	{ CONF_STRING("certificate", struct reg_conf_certificate, certificate),
	  .flags = CONF_REQUIRED, .help = "PEM file: the certificate, then the chain" },
	{ CONF_STRING("key", struct reg_conf_certificate, key), .flags = CONF_REQUIRED,
	  .help = "PEM file with the private key" },
	{ 0 },
};

static void check_certificate(struct conf *c, void *object)
{
	const struct reg_conf_certificate *conf = object;
	struct tls_identity *id;
	bool is_key = false;
	struct err err;

	if (!conf->certificate.p || !conf->key.p)
		return; /* said already */
	id = tls_identity_load(conf->certificate.p, conf->key.p, &is_key, &err);
	if (!id)
		conf_error_at(c, is_key ? "key" : "certificate", "%s", err.text);
	tls_identity_put(&id);
}

static const struct conf_object certificate_object =
	CONF_OBJECT_OF(struct reg_conf_certificate, certificate_rows, .check = check_certificate);

static const char *const tls_versions[] = { "1.2", "1.3", NULL };
static const char *const client_auths[] = { "off", "request", "require", NULL };

static void check_tls(struct conf *c, void *object)
{
	const struct reg_conf_tls *tls = object;
	struct tls_trust *trust;
	struct err err;

	if (tls->client_auth != 0 && !tls->client_ca.p)
		conf_error_at(c, "client_auth", "needs a \"client_ca\"");
	if (!tls->client_ca.p)
		return;
	trust = tls_trust_load(tls->client_ca.p, &err);
	if (!trust)
		conf_error_at(c, "client_ca", "%s", err.text);
	tls_trust_put(&trust);
}

static const struct conf_row tls_rows[] = {
	{ CONF_ARRAY("certificates", struct reg_conf_tls, certificates, &certificate_object),
	  .flags = CONF_REQUIRED, .max = 16,
	  .help = "several for different kinds of keys; OpenSSL picks what the client can verify" },
	{ CONF_ENUM("min_version", struct reg_conf_tls, min_version, tls_versions),
	  .def = "\"1.2\"", .help = "oldest version of TLS" },
	{ CONF_ENUM("client_auth", struct reg_conf_tls, client_auth, client_auths),
	  .def = "\"off\"",
	  .help = "client certificates: not asked for, verified if one is shown, or required" },
	{ CONF_STRING("client_ca", struct reg_conf_tls, client_ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities that sign client certificates" },
	{ 0 },
};

static const struct conf_object tls_object = CONF_OBJECT_OF(struct reg_conf_tls, tls_rows,
							    .check = check_tls);

static void check_root(struct conf *c, void *object)
{
	const struct reg_conf *conf = object;

	for (size_t i = 0; i < conf->tokens_count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (!str_eq(conf->tokens[i].name, conf->tokens[j].name))
				continue;
			conf_enter_index(c, "tokens", i);
			conf_error_at(c, "name", "is the name of tokens[%zu] too", j);
			conf_leave(c);
			break;
		}
	}
}

static const struct conf_row rows[] = {
	{ CONF_ADDRESS("bind", struct reg_conf, bind), .flags = CONF_FIXED, .min = 8761,
	  .def = "\"127.0.0.1:8761\"", .help = "address and port of the API, probes and metrics" },
	{ CONF_OBJECT("store", struct reg_conf, store, &store_object) },
	{ CONF_OBJECT("lease", struct reg_conf, lease, &lease_object) },
	{ CONF_INT("max_connections", struct reg_conf, max_connections), .flags = CONF_FIXED,
	  .min = 16, .max = 1000000, .def = "16384",
	  .help = "connections at the same time; beyond, the longest idle one is closed" },
	{ CONF_OBJECT("limits", struct reg_conf, limits, &limits_object) },
	{ CONF_ARRAY("tokens", struct reg_conf, tokens, &token_object), .max = 1000,
	  .help = "who may read and write; without any everybody may" },
	{ CONF_BOOL("open_reads", struct reg_conf, open_reads), .def = "false",
	  .help = "with tokens: reading needs none" },
	{ CONF_OPTIONAL("tls", struct reg_conf, tls, &tls_object),
	  .flags = CONF_NULL | CONF_FIXED_COUNT,
	  .help = "the port speaks HTTPS; files that change are read again by themselves" },
	{ 0 },
};

const struct conf_object reg_conf_object = CONF_OBJECT_OF(struct reg_conf, rows,
							  .check = check_root);
