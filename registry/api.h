/* SPDX-License-Identifier: Apache-2.0 */
/* The native HTTP API: registers, renews, takes away; and what operators look at. Lists and events
 * are registry/watch's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/http_server.h"
#include "registry/access.h"
#include "registry/eureka/eureka.h"
#include "registry/persist.h"
#include "registry/quota.h"
#include "registry/shared/shared.h"
#include "registry/store.h"
#include "registry/watch.h"
#include "registry/write.h"

struct loop;
struct reg_checks;

struct reg_api {
	struct loop *loop;
	const struct reg_store *store;
	struct reg_writer *writer;
	const struct reg_shared *shared; /* NULL with memory */
	struct reg_watch *watch;
	struct reg_eureka *eureka;   /* NULL: not served */
	struct reg_persist *persist; /* NULL without a snapshot */
	const struct http_server *server;
	struct reg_access *access;
	struct reg_quotas *quotas;
	const struct reg_checks *checks;
	struct reg_grant grant; /* of the request being handled */
	uint32_t default_lease_s;
	uint32_t max_watches;
	bool has_self_preservation;
	bool is_stopping;
	uint64_t started_ms; /* wall clock */
};

/* For http_server_config.on_request, with a struct reg_api as argument. */
void reg_api_on_request(struct http_request *req, void *arg);

/* The part for operators: /healthz, /readyz, /metrics, /status. */
void reg_admin_health(struct http_request *req, void *arg);
void reg_admin_ready(struct http_request *req, void *arg);
void reg_admin_metrics(struct http_request *req, void *arg);
void reg_admin_status(struct http_request *req, void *arg);
