/* SPDX-License-Identifier: Apache-2.0 */
/* Revocations as JSON: in a file of the operator, in the state file, over the admin socket. */
#pragma once

#include <jansson.h>

#include "gateway/identity/revoked.h"
#include "lib/err.h"
#include "lib/json.h"

#define REVOCATION_FILE_MAX (64U << 20)

/*
 * {"jti" or "sub" or "api_key": …, "auth", "issued_before", "until"}; times in Unix seconds or as
 * "2027-01-01T00:00:00Z". The result's texts are the JSON's. NULL, or what is wrong.
 */
const char *revocation_read(const json_t *json, struct revocation *out);
/* The same object, its members only: the caller opens and closes it. */
void revocation_write(const struct revocation *r, struct json_writer *w);

/* All of {"revoked": [ … ]}, or of a mistake none. `each` may be NULL: the file is only looked at.
 * Returns 0, -EINVAL with the sentence in err, or what `each` returned. */
int revocation_file_load(const char *file, int (*each)(const struct revocation *r, void *arg),
			 void *arg, struct err *err);
