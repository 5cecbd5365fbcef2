/* SPDX-License-Identifier: Apache-2.0 */
/* The stages of the pipeline, one file each where they are more than a few lines. The order is in
 * pipeline.c. */
#pragma once

#include "gateway/pipeline.h"

enum stage_result stage_identify(struct request *r);
enum stage_result stage_redirect(struct request *r);
enum stage_result stage_tls_policy(struct request *r);
enum stage_result stage_path(struct request *r);
enum stage_result stage_route(struct request *r);
enum stage_result stage_shed(struct request *r);
enum stage_result stage_limit_address(struct request *r);
enum stage_result stage_preflight(struct request *r);
enum stage_result stage_version(struct request *r);
enum stage_result stage_body_size(struct request *r);
enum stage_result stage_authenticate(struct request *r);
enum stage_result stage_limit_identity(struct request *r);
enum stage_result stage_upgrade(struct request *r);
enum stage_result stage_transform(struct request *r);
enum stage_result stage_answer(struct request *r);
enum stage_result stage_forward(struct request *r);

/* Whether it is a preflight for a route with a policy; then that is its route. */
bool cors_find_preflight(struct request *r, const struct router_request *query);
bool stage_transform_response(struct request *r);
/* The traceparent field for the service: the client's trace goes on, or a new one begins. Sets
 * r->trace_id. */
struct str identify_traceparent(struct request *r);
/* RateLimit and RateLimit-Policy, for every response to a request that was limited. */
void limit_add_fields(struct request *r);
