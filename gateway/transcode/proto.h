/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a protobuf descriptor set as JSON and back (the "JSON Mapping" of proto3), by
 * libprotobuf. A set is immutable once loaded; any thread may use it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/str.h"

struct proto_set;

/* One RPC. */
struct proto_method {
	struct str path; /* "/package.Service/Method" */
	bool client_streams, server_streams;
	const void *descriptor;
	struct proto_set *set;
};

/* How a method is reached over HTTP: one of the bindings of its google.api.http annotation. */
struct proto_rule {
	const struct proto_method *method;
	struct str verb;          /* "GET" */
	struct str path;          /* a template, see http_rule.h */
	struct str body;          /* "*": the whole message; a field's name; len 0: no body */
	struct str response_body; /* the field that is the answer; len 0: all of the message */
};

/* A field of the request by its path ("a.b") and the text that a path or query gave it. */
struct proto_value {
	struct str field, value;
};

/* Reads a FileDescriptorSet (protoc --include_imports --descriptor_set_out). NULL with a sentence.
 */
struct proto_set *proto_set_load(const char *file, struct err *err);
/* Accepts NULL. */
void proto_set_free(struct proto_set *set);

/* Every method, and every annotation's bindings in file order; they belong to the set. */
const struct proto_method *proto_set_methods(const struct proto_set *set, size_t *count);
const struct proto_rule *proto_set_rules(const struct proto_set *set, size_t *count);

/* Whether what the rule names as body and answer, and this field of its path, can be that. 0, or
 * -EINVAL with a sentence. */
int proto_rule_check(const struct proto_rule *rule, struct err *err);
int proto_field_check(const struct proto_method *method, struct str field, struct err *err);

/*
 * Appends the request message: the JSON text as the rule's body says (empty text: nothing), then
 * the values, which win. 0, -EINVAL with what is wrong for the client, or -ENOMEM.
 */
int proto_request(const struct proto_rule *rule, struct str json, const struct proto_value *values,
		  size_t count, struct buf *out, struct err *err);
/* Appends a response message as JSON. 0, -EINVAL when it is no such message, or -ENOMEM. */
int proto_response(const struct proto_rule *rule, struct str message, struct buf *out,
		   struct err *err);
/* Appends the `details` of a google.rpc.Status (grpc-status-details-bin, decoded) as a JSON array.
 * -ENOENT when the set does not know all the types in it. */
int proto_status_details(const struct proto_set *set, struct str message, struct buf *out);

#ifdef __cplusplus
}
#endif
