/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayctl revoke, unrevoke, revocations. */
#pragma once

#include <stdbool.h>

#include "lib/buf.h"
#include "lib/http_client.h"

/* What the options said; NULL: not given. */
struct ctl_revoke {
	const char *jti, *sub, *api_key, *auth, *issued_before, *until;
	bool is_ban; /* with sub: what is issued from now on, too */
};

/* The body for POST /revoke. `is_removal`: for /unrevoke. Returns NULL or what is wrong with the
 * options. */
const char *ctl_revoke_body(const struct ctl_revoke *o, bool is_removal, struct buf *out);
/* Prints what the daemon answered to either, or its list. */
void ctl_revoke_print(const struct http_answer *answer, bool is_removal);
void ctl_revocations_print(const struct http_answer *answer);
