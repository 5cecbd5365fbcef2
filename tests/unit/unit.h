/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka with the headers it wants before it. */
#pragma once

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define CASES(a) (sizeof(a) / sizeof((a)[0]))
