/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration compiled for use: route table, limit rules, header rules, keys. Immutable and
 * reference-counted: a request holds the snapshot under which it began; a reload makes a new one
 * aside and swaps a pointer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/conf/conf.h"
#include "gateway/http/headers.h"
#include "gateway/identity/auth_keys.h"
#include "gateway/identity/jwt.h"
#include "gateway/limits/limits.h"
#include "gateway/routing/router.h"
#include "gateway/routing/template.h"
#include "lib/arena.h"

struct snapshot_auth {
	const struct gw_auth *conf;
	size_t index; /* in snapshot.auths: for one jwt_verifier per worker and issuer */
	struct jwt_rules rules;
	struct auth_keys *keys; /* held; NULL with mtls, which needs none */
	uint64_t fingerprint;   /* of name and rules; see snapshot_auth_fingerprint */
	struct str challenge;   /* "Bearer realm=\"…\"": WWW-Authenticate when no token was sent;
				   p NULL: mtls, which no header asks for */
};

/* For token_cache_key: of name, rules and keys. Unchanged parts keep it over a reload, so cached
 * tokens stay valid exactly then. */
uint64_t snapshot_auth_fingerprint(const struct snapshot_auth *auth, const struct auth_view *view);

/* A configured version, its response fields written beforehand. Empty (len 0): not sent. */
struct snapshot_version {
	struct str deprecation; /* "@1780272000" */
	struct str sunset;      /* HTTP date */
	struct str link;        /* "</api/v2/user/>; rel=\"successor-version\"" */
	uint64_t gone_after_ms; /* wall clock; 410 from then on. UINT64_MAX: never */
};

struct snapshot_route {
	const struct gw_route *conf;
	size_t index;
	const struct snapshot_auth *const *auths; /* in the order of search */
	size_t auth_count;                        /* 0: anonymous */
	/* defaults' limits and the route's, without repetition */
	const struct limits_rule *const *limits_before; /* checked before authentication */
	size_t limits_before_count;
	const struct limits_rule *const *limits_after; /* those that need an identity */
	size_t limits_after_count;
	const struct headers_rules *request, *response; /* defaults and route together */
	const struct headers_rules *respond;            /* headers of conf->respond */
	const struct template *rewrite, *location;      /* of the path, of a redirect; NULL: none */
	const struct snapshot_version *version;         /* NULL: none */
	const struct cors *cors;                        /* NULL: none */
	uint64_t max_body_bytes;
	size_t split_at; /* of its first split, among those of all routes */
};

struct snapshot {
	unsigned refs;
	uint64_t generation; /* counts snapshots of this process from 1 */
	struct arena arena;  /* of conf and all that follows */
	struct gw_conf conf;
	struct router *router; /* indices are those of routes */
	struct snapshot_route *routes;
	size_t route_count;
	size_t split_count; /* of all routes */
	struct snapshot_auth *auths;
	size_t auth_count;
	struct transcode_table **transcoders; /* of each service; NULL: it has no descriptor set */
	struct limits_rule *rules;
	size_t rule_count;
	const struct headers_guard *guard; /* identity headers of all auths */
	/* limits of `defaults` that need no identity: for requests that match no route (404) */
	const struct limits_rule *const *default_limits;
	size_t default_limit_count;
	const struct headers_rules *default_response; /* ... of defaults alone */
	const struct cors *default_cors;              /* for them as well; NULL: none */
	bool has_cors;                                /* any route */
};

/*
 * Reads, checks and compiles the file. 0 and one reference in *out, or -EINVAL with every mistake
 * in `errors`. Looks at the certificates and key sets that it names; opens no socket.
 */
int snapshot_load(struct snapshot **out, const char *file, struct conf_errors *errors);

/* Any thread. snapshot_put clears the pointer and accepts NULL inside. */
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_put(struct snapshot **s);

/*
 * The path to forward: rewrite_prefix in place of the prefix that matched (rewrite_path is not done
 * here, it may take anything of a request). `match` is
 * router_match's for this route. Returns path itself when there is nothing to rewrite; p NULL: out
 * of memory.
 */
struct str snapshot_rewrite_path(const struct snapshot_route *route, struct str path,
				 const struct router_match *match, struct arena *a);

/* Whether the token fulfils the route's `require`; *claim names the first that it does not. */
bool snapshot_fulfils(const struct snapshot_route *route, const struct identity *identity,
		      struct str *claim);
