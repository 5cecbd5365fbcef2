/* SPDX-License-Identifier: Apache-2.0 */
/* An http or https URL cut into the parts that a client needs (RFC 9110 4.2). Looks nothing up. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/str.h"

struct url {
	bool is_https;
	struct str authority; /* "id.example.com:8443", for the Host field */
	struct str host;      /* without port and brackets */
	uint16_t port;        /* 80 or 443 when not given */
	struct str path;      /* "/…"; "/" when there is none */
	struct str query;     /* with its "?"; empty when there is none */
};

/* The parts point into `text`. NULL, or the sentence that says what is wrong ("must …"). User
 * information and fragments are refused. */
const char *url_parse(struct url *out, struct str text);
