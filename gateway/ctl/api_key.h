/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayctl api-key: makes API keys and their entries in the file of an auth. Talks to no
 * gatewayd. */
#pragma once

/* argv[0] is "api-key". Returns the exit status: 0 done, 1 failed, 2 usage. */
int ctl_api_key(int argc, char **argv);
