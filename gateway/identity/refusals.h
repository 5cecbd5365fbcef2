/* SPDX-License-Identifier: Apache-2.0 */
/* Why credentials are refused, for metrics: what jwt.h says of tokens, and the rest. */
#pragma once

#include "gateway/identity/jwt.h"

enum auth_refusal {
	AUTH_JWT_FIRST = 0, /* to JWT_RESULTS - 1: an enum jwt_result */
	AUTH_KEY_UNKNOWN = JWT_RESULTS,
	AUTH_KEY_EXPIRED,
	AUTH_KEY_NOT_YET_VALID,
	AUTH_KEY_DISABLED,
	AUTH_CERTIFICATE, /* none, or none with an allowed name, or over */
	AUTH_REVOKED,
	AUTH_INSUFFICIENT, /* good, but without what the route requires */
	AUTH_REFUSALS,
};

/* "expired", "key_unknown". */
const char *auth_refusal_name(enum auth_refusal r);
