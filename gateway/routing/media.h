/* SPDX-License-Identifier: Apache-2.0 */
/* Media types in Accept and Content-Type (RFC 9110 8.3.1, 12.5.1), for choosing a route by them. */
#pragma once

#include <stdbool.h>

#include "lib/str.h"

/* For configuration checks: "application/vnd.x.v2+json" or "application/json;version=2", without
 * stars and q. NULL when good, else a sentence. */
const char *media_check(struct str type);

/*
 * How much the list wants the type: its q in thousandths (1000 without one), 0: not at all. A range
 * of the list is for the type when it has the same type and subtype and at least its parameters;
 * with `wildcards` also when it has stars.
 */
unsigned media_quality(struct str list, struct str type, bool wildcards);
