/* SPDX-License-Identifier: Apache-2.0 */
/* registryd's configuration file. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/conf.h"

enum reg_conf_store_type { REG_CONF_MEMORY, REG_CONF_REDIS };

struct reg_conf_store {
	int type; /* enum reg_conf_store_type */
	struct str snapshot;
	struct str url, prefix; /* of Redis */
};

struct reg_conf_lease {
	uint32_t default_s;
	uint32_t sweep_ms;
	bool self_preservation;
};

/* At most this much, of everybody or of one. */
struct reg_conf_limits {
	uint64_t instances;
	uint64_t instances_per_client;
	uint32_t watches;
	uint32_t checks_at_once;
	uint32_t body_bytes;
};

struct reg_conf_token {
	struct str name;
	struct str token, sha256; /* one of them; the other's p is NULL */
	struct str *rights;       /* "read", "write" */
	size_t rights_count;
	struct str *apps; /* "*", "name", "prefix*" */
	size_t apps_count;
};

struct reg_conf_certificate {
	struct str certificate, key; /* files */
};

enum { REG_TLS_1_2, REG_TLS_1_3 };

struct reg_conf_tls {
	struct reg_conf_certificate *certificates;
	size_t certificates_count;
	int min_version;
	int client_auth; /* an enum tls_client_auth */
	struct str client_ca;
};

struct reg_conf {
	struct net_addr bind;
	struct reg_conf_store store;
	struct reg_conf_lease lease;
	struct reg_conf_limits limits;
	uint32_t max_connections;
	struct reg_conf_token *tokens;
	size_t tokens_count;
	bool open_reads;
	struct reg_conf_tls *tls; /* NULL: none */
};

extern const struct conf_object reg_conf_object;
