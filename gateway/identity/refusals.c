/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/refusals.h"

const char *auth_refusal_name(enum auth_refusal r)
{
	static const char *const names[AUTH_REFUSALS - JWT_RESULTS] = {
		[AUTH_KEY_UNKNOWN - JWT_RESULTS] = "key_unknown",
		[AUTH_KEY_EXPIRED - JWT_RESULTS] = "key_expired",
		[AUTH_KEY_NOT_YET_VALID - JWT_RESULTS] = "key_not_yet_valid",
		[AUTH_KEY_DISABLED - JWT_RESULTS] = "key_disabled",
		[AUTH_CERTIFICATE - JWT_RESULTS] = "certificate",
		[AUTH_REVOKED - JWT_RESULTS] = "revoked",
		[AUTH_INSUFFICIENT - JWT_RESULTS] = "insufficient",
	};

	return (unsigned)r < JWT_RESULTS ? jwt_result_name((enum jwt_result)r)
					 : names[r - JWT_RESULTS];
}
