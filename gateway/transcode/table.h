/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which HTTP request stands for which gRPC method of a service: the bindings of its descriptor set,
 * compiled. A method without an annotation is POST /package.Service/Method with the message as the
 * body. Immutable; any thread may use it.
 */
#pragma once

#include "gateway/transcode/http_rule.h"
#include "gateway/transcode/proto.h"
#include "lib/http.h"

struct transcode_binding {
	struct str verb;
	struct http_rule rule;
	struct proto_rule proto;
};

struct transcode_table;

/* One sentence for each mistake in the file. */
typedef void transcode_complain(void *ctx, const char *sentence);

/* NULL when something was wrong. */
struct transcode_table *transcode_table_load(const char *file, transcode_complain *complain,
					     void *ctx);
/* Accepts NULL. */
void transcode_table_free(struct transcode_table *table);

/*
 * The binding of a request and what the path gave (room for HTTP_RULE_VARIABLES_MAX). NULL: none;
 * then *allow says what the path would take ("GET, POST"), len 0 when it is unknown.
 */
const struct transcode_binding *transcode_table_match(const struct transcode_table *table,
						      struct str method, struct str path,
						      struct http_rule_value *values,
						      struct arena *a, struct str *allow);
const struct proto_set *transcode_table_set(const struct transcode_table *table);
