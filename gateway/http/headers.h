/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to header fields between client and service: hop-by-hop fields go, identity fields
 * that a client sent go, configured rules set, add and remove. Works in place on an array of
 * fields; values are slices, nothing is copied.
 *
 * Order for a request: headers_strip_hop_by_hop, headers_guard_strip, then headers_rules_apply,
 * then the gateway's own fields. So nothing that a client names in Connection can remove what we
 * set.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/arena.h"
#include "lib/conf.h"
#include "lib/http.h"
#include "lib/str.h"

struct request;

/* An array of fields with room to grow. */
struct headers {
	struct http_field *fields;
	size_t count, max;
};

/* False when there is no room: answer 431 (request) or 502 (response). */
bool headers_add(struct headers *h, struct str name, struct str value);
/* Replaces all fields of the name, in any case and with "_" for "-". False when there is no room.
 */
bool headers_set(struct headers *h, struct str name, struct str value);
/* Begins with X-Forwarded-, in any spelling. */
bool headers_is_forwarding(struct str name);
/* Removes all fields of the id. */
void headers_remove_id(struct headers *h, enum http_name id);

/*
 * Removes Connection, Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE,
 * Trailer, Transfer-Encoding, Upgrade, HTTP2-Settings and every field that Connection names, except
 * Host, Content-Length, Content-Type, Authorization, Cookie, Forwarded and X-Forwarded-*: whoever
 * sits in front must not be able to make these disappear.
 * Look at Upgrade before calling this.
 */
void headers_strip_hop_by_hop(struct headers *h);

/* The names that clients can never set, in any spelling that a service may fold together. */
struct headers_guard;
/* Names are copied into the arena. NULL: out of memory. */
struct headers_guard *headers_guard_new(struct arena *a, const struct str *names, size_t count);
/*
 * Removes the fields of these names in any case and with "_" for "-"; spellings with "_" of the
 * fields that the gateway writes itself (X_Forwarded_For, X_Request_Id, Content_Length, …); and,
 * unless keep_underscores, every field with "_" in its name. Returns how many went.
 */
size_t headers_guard_strip(const struct headers_guard *g, struct headers *h, bool keep_underscores);

/* Rules of one direction, as in the file. Names for removal may end in "*". */
struct headers_spec {
	const struct conf_pair *set, *add;
	size_t set_count, add_count;
	const struct str *remove;
	size_t remove_count;
};

/* For configuration checks: NULL or a sentence. Refused are names that are no tokens and those that
 * frame messages (Host, Content-Length, Connection, …). */
const char *headers_check_name(struct str name);
const char *headers_check_pattern(struct str pattern);
const char *headers_check_value(struct str value);

/* Copies collected trailer lines of HTTP/1.1 into the arena, as fields. False: out of memory, and
 * no fields. */
bool headers_read_trailers(struct headers *h, struct arena *a, struct str lines);
/* Leaves what may come behind a body: no field that some code treats specially, be it written with
 * "_" (RFC 9110 6.5.1). */
void headers_strip_trailers(struct headers *h);

struct headers_rules;
/* Compiles specs one after another (defaults, then the route's): later sets win. Values are
 * templates (template.h) for a route of that path. Strings must outlive it. NULL: out of memory. */
struct headers_rules *headers_rules_new(struct arena *a, const struct headers_spec *const *specs,
					size_t count, struct str path);
/* For trailers: removes what the rules remove or set, and adds nothing. */
void headers_rules_strip(const struct headers_rules *r, struct headers *h);
/* Removes, then sets, then adds. A value with a variable that this request lacks, or that is no
 * header value, is not written; what is set is removed all the same. False when there is no room.
 * NULL rules do nothing. */
bool headers_rules_apply(const struct headers_rules *r, struct headers *h, struct request *request);
