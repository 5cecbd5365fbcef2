/* SPDX-License-Identifier: Apache-2.0 */
/* The status document, of which gatewayctl makes its tables. Main thread. */
#pragma once

#include "gateway/gateway.h"

struct survey;

/* `survey` may be NULL: then what only workers know is left out. */
void gateway_write_status(const struct gateway *g, const struct survey *survey, struct buf *out);
