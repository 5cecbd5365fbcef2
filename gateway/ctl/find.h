/* SPDX-License-Identifier: Apache-2.0 */
/* Which gatewayd gatewayctl talks to when nobody says so. */
#pragma once

#include "lib/buf.h"

#define CTL_SOCKET_FOLDER "/run/gatehouse"

/* Adds the path of the folder's only socket that may be a gatewayd's; or -1 after saying what to
 * choose from. */
int ctl_find_socket(const char *folder, struct buf *out);
