/* SPDX-License-Identifier: Apache-2.0 */
/* Names in client certificates, and patterns for them: "dns:*.example.com". */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "lib/buf.h"
#include "lib/str.h"

/*
 * KIND:PATTERN with KIND one of uri, dns, email, cn. A "*" stands for any letters but "/" in a URI,
 * "." in a DNS name, "@" in an address; at the end of a URI for all that follows. Returns NULL or
 * the sentence.
 */
const char *names_check_pattern(struct str pattern);

/* Whether a name, "KIND:VALUE", fits. DNS names and addresses in any case. */
bool names_fit(struct str pattern, struct str name);

/* The value of the first name that fits the first pattern that any fits; p NULL: none. `names` is a
 * name a line, as by tls_client_names. */
struct str names_find(struct str names, const struct str *patterns, size_t count);

/* The names as claims: {"sub": user, "uri": […], "dns": […], "email": […], "cn": […]}. */
void names_write_claims(struct str names, struct str user, struct buf *out);
