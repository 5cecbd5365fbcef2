/* SPDX-License-Identifier: Apache-2.0 */
/* gatewayctl check: what is wrong with a configuration, with the files that it names. */
#pragma once

#include <stdbool.h>

/* Returns the exit status. */
int ctl_check(const char *file, bool is_json);
