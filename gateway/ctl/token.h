/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayctl token: makes keys, signs tokens for trials, and says by the gateway's own code whether
 * and why a token is accepted. Talks to no gatewayd. */
#pragma once

/* argv[0] is "token". Returns the exit status: 0 done or valid, 1 failed or invalid, 2 usage or
 * files that cannot be used. */
int ctl_token(int argc, char **argv);
