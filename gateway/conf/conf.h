/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's configuration as it stands in its file. Checked as a whole; names that refer to
 * other parts are resolved to pointers. What is compiled from it (route table, rules, keys) is in
 * snapshot.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/analytics/record_stream.h"
#include "gateway/http/cors.h"
#include "gateway/http/headers.h"
#include "gateway/http/path.h"
#include "gateway/limits/limits.h"
#include "gateway/routing/request_key.h"
#include "gateway/upstream/circuit.h"
#include "lib/conf.h"
#include "lib/net.h"
#include "lib/redis.h"
#include "lib/str.h"

struct gw_certificate {
	struct str certificate, key; /* PEM files */
};

enum gw_tls_version { GW_TLS_1_2, GW_TLS_1_3 };

enum gw_client_auth { GW_CLIENT_AUTH_OFF, GW_CLIENT_AUTH_REQUEST, GW_CLIENT_AUTH_REQUIRE };

/* A host name with a policy of its own; what it does not say is as in the listener. */
struct gw_tls_host {
	struct str name; /* lower case or not; "*.example.com" for wildcards */
	int min_version; /* enum gw_tls_version */
	int client_auth; /* enum gw_client_auth */
	struct str client_ca;
	bool has_min_version, has_client_auth;
};

struct gw_tls {
	struct gw_certificate *certificates; /* at least one; the first is the default */
	size_t certificates_count;
	struct str *alpn; /* "http/1.1"; "h2" needs a version that speaks it */
	size_t alpn_count;
	int min_version; /* enum gw_tls_version */
	int client_auth; /* enum gw_client_auth */
	struct str client_ca;
	struct gw_tls_host *hosts; /* inheritance resolved by the checks */
	size_t hosts_count;
	bool sni_strict;
	struct str ticket_keys;
};

/* Whose word on the client's address is taken at the start of a connection. */
struct gw_proxy_protocol {
	struct net_prefix *from;
	size_t from_count;
};

struct gw_listener {
	struct net_addr bind;
	struct gw_tls *tls;                       /* NULL: plain HTTP */
	struct gw_proxy_protocol *proxy_protocol; /* NULL: spoken by nobody */
	bool redirect_to_https;
	uint16_t https_port; /* there */
};

struct gw_register {
	struct str app, id; /* id p NULL: derived from address and port */
	struct str address; /* an IP address */
	uint16_t port;
	struct str zone, version;
	uint16_t weight;
	uint32_t lease_s;
	struct conf_pair *metadata;
	size_t metadata_count;
};

/* For "https:" URLs; files. */
struct gw_registry_tls {
	struct str ca, certificate, key;
};

struct gw_registry {
	struct str *urls;
	size_t urls_count;
	struct str token;
	struct gw_registry_tls tls;
	struct str cache;                /* file */
	struct gw_register *register_as; /* NULL: not registered */
};

struct gw_jwks {
	struct str file, url; /* p NULL: not that; one of the two is there */
	struct str ca;        /* PEM file; p NULL: whom the system trusts */
	struct str cache;     /* file; p NULL: none */
	uint32_t refresh_s, timeout_ms;
	bool allow_http;
	bool has_file, has_url; /* given, perhaps wrongly */
};

enum gw_auth_type { GW_AUTH_JWT, GW_AUTH_API_KEY, GW_AUTH_MTLS };
extern const char *const gw_auth_types[]; /* their names, and NULL */

/* Where a token or API key stands in a request. */
enum gw_token_place { GW_TOKEN_HEADER, GW_TOKEN_COOKIE, GW_TOKEN_QUERY };

struct gw_token {
	int place; /* enum gw_token_place */
	struct str name;
	enum http_name id; /* of a header */
};

#define GW_TOKENS_MAX 4
struct gw_tokens {
	struct gw_token *list;
	size_t count;
};

struct gw_auth {
	struct str name;
	int type;                /* enum gw_auth_type */
	struct gw_tokens tokens; /* in the order of search; none with mtls */
	bool keep_token;
	struct str keys_file; /* of API keys */
	struct str *allow;    /* patterns for the names in a client certificate, see names.h */
	size_t allow_count;
	struct str issuer;
	struct str *audiences;
	size_t audiences_count;
	unsigned algorithms; /* JWT_ALG_BIT of jwks.h */
	struct gw_jwks jwks;
	int64_t leeway_s, max_lifetime_s;
	struct str user_claim;
	struct conf_pair *forward; /* claim → header name */
	size_t forward_count;
	struct str realm; /* of WWW-Authenticate */
};

enum gw_limits { GW_LIMITS_LOCAL, GW_LIMITS_REDIS };

/* Where counters live. */
struct gw_limit_store {
	int type; /* enum gw_limits */
	uint32_t keys;
	/* only for Redis */
	struct redis_url url;
	struct str prefix;
	int on_failure; /* enum limit_failure */
	uint32_t timeout_ms, gateways;
};

struct gw_limit {
	struct str name;
	struct limits_key_spec key;
	uint64_t limit, window_s, burst; /* burst 0: as limit */
	bool is_shadow;
};

enum gw_protocol { GW_HTTP1, GW_H2, GW_GRPC };
enum gw_balance {
	GW_P2C,
	GW_ROUND_ROBIN,
	GW_LEAST_REQUEST,
	GW_WEIGHTED_RESPONSE_TIME,
	GW_AVAILABILITY,
	GW_RING_HASH,
	GW_RANDOM,
	GW_BALANCES,
};

struct gw_endpoint {
	struct net_addr address;
	uint16_t weight;
	struct str zone; /* p NULL: not said */
};

/* When requests tell that an instance is ill. */
struct gw_ejection {
	uint32_t failures; /* in a row; 0: never */
	uint32_t base_ms, max_ms;
	uint32_t max_percent; /* of a service's instances at once */
};

/* A set of statuses, 100 to 599. */
struct gw_statuses {
	uint64_t bits[8];
};

static inline bool gw_statuses_have(const struct gw_statuses *s, unsigned status)
{
	return status >= 100 && status < 600 &&
	       s->bits[(status - 100) / 64] >> (status - 100) % 64 & 1;
}

enum gw_health_type { GW_HEALTH_HTTP, GW_HEALTH_TCP, GW_HEALTH_GRPC };

struct gw_health {
	int type;           /* enum gw_health_type */
	struct str path;    /* of http; p NULL: no checks by it */
	struct str host;    /* p NULL: the instance's address */
	struct str service; /* of grpc */
	struct gw_statuses statuses;
	uint16_t port; /* 0: the instance's */
	uint32_t interval_ms, timeout_ms, rise, fall;
	int protocol; /* enum gw_protocol, of the service */
	bool is_on;
};

/* TLS towards a service. */
struct gw_service_tls {
	struct str ca;          /* PEM file; p NULL: whom the system trusts */
	struct str server_name; /* p NULL: the instance's address */
	bool verify;
	struct str certificate, key; /* shown when asked for; p NULL: none */
};

struct gw_service {
	struct str name;
	struct gw_service_tls *tls; /* NULL: plain */
	struct str discover;        /* app in the registry; p NULL: endpoints */
	struct gw_endpoint *endpoints;
	size_t endpoints_count;
	int protocol;              /* enum gw_protocol */
	struct str descriptor_set; /* file; p NULL: none */
	int balance;               /* enum gw_balance */
	struct request_key hash_on;
	uint32_t hash_balance_percent; /* 0: no bound */
	bool prefer_zone;
	uint32_t slow_start_ms;
	uint32_t max_pending, pending_timeout_ms;
	uint32_t max_concurrent, max_concurrent_per_instance, max_connections; /* 0: no bound */
	struct circuit_rules *circuit_breaker;                                 /* NULL: none */
	struct gw_ejection ejection;
	uint32_t retries;
	struct gw_statuses retry_on;
	uint32_t connect_timeout_ms, response_timeout_ms, request_timeout_ms;
	uint32_t stream_idle_timeout_ms;         /* between pieces of a response */
	uint32_t idle_timeout_ms;                /* of pooled connections */
	uint32_t max_idle_connections;           /* per worker */
	uint32_t ping_after_ms, ping_timeout_ms; /* HTTP/2 */
	uint32_t websocket_idle_timeout_ms;
	struct gw_health health;
	size_t index; /* in gw_conf.services */
};

/* It can refuse requests for what is known of it as a whole (circuit.h). */
static inline bool gw_service_is_bounded(const struct gw_service *s)
{
	return s->circuit_breaker || s->max_concurrent || s->max_concurrent_per_instance ||
	       s->max_connections;
}

struct gw_transform {
	struct conf_pair *set, *add;
	size_t set_count, add_count;
	struct str *remove;
	size_t remove_count;
};

struct gw_defaults {
	struct str *limits;
	size_t limits_count;
	uint64_t max_body_bytes;
	struct gw_transform request, response;
	struct gw_cors *cors; /* NULL: none */
	/* "keep" or "refuse" */
	int encoded_slash, backslash, parameters, nul;
	bool underscores_in_headers;
};

struct gw_match {
	struct str *hosts;
	size_t hosts_count;
	struct str path;
	struct str *methods;
	size_t methods_count;
	struct conf_pair *headers, *cookies, *query;
	size_t headers_count, cookies_count, query_count;
	struct str *accept, *content_type;
	size_t accept_count, content_type_count;
};

struct gw_version {
	struct str name;
	uint64_t deprecated_ms, sunset_ms; /* wall clock; 0: not set */
	struct str successor;
	bool enforce_sunset;
};

/* Who is refused first under overload. */
enum gw_priority { GW_LOW, GW_NORMAL, GW_HIGH, GW_CRITICAL, GW_PRIORITIES };

extern const char *const gw_priorities[]; /* their names, and NULL */

struct gw_load_shedding {
	uint32_t max_delay_ms;
	uint32_t retry_after_s;
};

struct gw_respond {
	uint16_t status;
	struct str body, content_type;
	struct conf_pair *headers;
	size_t headers_count;
};

/* Where to: a whole location, or what differs from the request's. */
struct gw_redirect {
	uint16_t status;
	struct str location; /* a template; made of the parts by the checks when they are given */
	struct str scheme, host, path, prefix;
	uint16_t port; /* 0: the scheme's own */
	bool keep_query;
};

struct gw_split {
	struct str service;
	uint32_t weight;
	struct gw_service *to; /* resolved */
	uint64_t id;           /* split_id of its name */
};

#define GW_STICKY_MAX 4

/* What the choice among several services hangs on: the first of these that a request has. */
struct gw_sticky {
	struct request_key keys[GW_STICKY_MAX];
	size_t count; /* 0: on chance */
};

/* Copies for another service. */
struct gw_mirror {
	struct str service;
	double percent;
	uint32_t max_body_bytes;
	uint32_t max_requests; /* under way, per worker */
	struct str host_suffix;
	struct gw_service *to; /* resolved */
};

enum gw_require_kind {
	GW_REQUIRE_ANY, /* the claim is or holds one of the words */
	GW_REQUIRE_ALL, /* ... all of them */
	GW_REQUIRE_IS,  /* it is, as a whole and by type, one of them */
};

struct gw_word {
	struct str text; /* as in struct claim */
	bool is_string;
};

/* What a claim must be like; all of a route's must be fulfilled. */
#define GW_CONDITIONS 4U /* at most, of one claim */
struct gw_require {
	struct str claim; /* name or path */
	enum gw_require_kind kind;
	struct gw_word *words;
	size_t words_count;
};

struct gw_requires {
	struct gw_require *claims;
	size_t count;
};

/* Ways to prove an identity on a route, in the order of search. */
#define GW_AUTHS_MAX 8
struct gw_auth_names {
	struct str *names;
	struct gw_auth **to; /* resolved by the checks */
	size_t count;
	bool is_list; /* written as one */
};

struct gw_route {
	struct str name;
	struct gw_match match;
	struct gw_auth_names auth;
	bool auth_optional; /* nobody needs to prove anything, but who tries must succeed */
	struct str *limits;
	size_t limits_count;
	struct gw_requires require;
	int priority; /* enum gw_priority */

	/* exactly one target: */
	struct str service;
	struct gw_split *split;
	size_t split_count;
	struct gw_sticky sticky;
	struct gw_mirror *mirror; /* NULL: none */
	struct gw_respond *respond;
	struct gw_redirect *redirect;

	struct str rewrite_prefix; /* replaces the prefix that matched; p NULL: path unchanged */
	struct str rewrite_path;   /* a template for the whole path */
	struct gw_version *version;
	struct gw_transform request, response;
	struct gw_cors *cors;    /* NULL: as in defaults */
	uint64_t max_body_bytes; /* 0: as in defaults */
	bool websocket;
	bool grpc; /* HTTP/JSON is translated to the service's gRPC */
	/* resolved by the checks: */
	struct gw_service *service_to;
};

struct gw_revocations {
	struct str file;  /* p NULL: none */
	struct str state; /* what was revoked over the admin socket; p NULL: kept in memory only */
};

struct gw_access_log {
	struct str path;                       /* "-": stdout; p NULL: none */
	struct gw_access_stream *redis_stream; /* NULL: none */
};

struct gw_admin {
	struct net_addr bind; /* len 0: none */
	struct str socket;    /* p NULL: none */
};

/* Deadlines and bounds of client connections. */
struct gw_client {
	uint32_t handshake_timeout_ms, head_timeout_ms, body_timeout_ms, idle_timeout_ms;
	uint32_t write_timeout_ms;
	uint32_t max_connections; /* per process; 0: as many as descriptors allow */
	uint32_t max_head_bytes, max_fields;
	uint32_t max_requests; /* per connection; 0: no bound */
};

enum gw_log_format { GW_LOG_TEXT, GW_LOG_JSON };

struct gw_conf {
	struct str instance; /* default: the host's name */
	struct str domain;
	struct str zone;  /* default: that of the registration; p NULL: none */
	uint32_t workers; /* 0: one per core */
	struct gw_listener *listeners;
	size_t listeners_count;
	struct gw_admin admin;
	struct gw_registry *registry; /* NULL: none */
	struct gw_auth *auth;
	size_t auth_count;
	struct gw_revocations revocations;
	struct gw_limit *rate_limits;
	size_t rate_limits_count;
	struct gw_limit_store rate_limit_store;
	uint32_t rate_limit_keys; /* size of the local table, from rate_limit_store */
	uint32_t token_cache_tokens;
	struct gw_service *services;
	size_t services_count;
	struct gw_defaults defaults;
	unsigned path_allow; /* enum path_allow, from defaults */
	struct gw_route *routes;
	size_t routes_count;
	struct gw_access_log access_log;
	struct net_prefix *trusted_proxies;
	size_t trusted_proxies_count;
	struct gw_client client;
	struct gw_load_shedding *load_shedding; /* NULL: none */
	uint32_t drain_delay_ms, drain_idle_ms, drain_timeout_ms;
};

/* The description for conf_load, conf_schema_json, conf_help and conf_check_reload. */
extern const struct conf_object gw_conf_object;
