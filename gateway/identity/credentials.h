/* SPDX-License-Identifier: Apache-2.0 */
/* Where tokens and API keys stand in a request: finds them and takes them out. */
#pragma once

#include <stdbool.h>

#include "gateway/conf/conf.h"
#include "gateway/request.h"

enum credential {
	CREDENTIAL_ABSENT,
	CREDENTIAL_FOUND,
	CREDENTIAL_TWICE, /* in one place: which of them would the service believe? */
};

/* The first place that has something decides. */
enum credential credential_find(const struct request *r, const struct gw_auth *auth,
				struct str *out);

/* Takes out what the route's auths look for, so that no service sees it, but for those that keep
 * it. False: out of memory. */
bool credentials_strip(struct request *r);
