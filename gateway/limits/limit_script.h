/* SPDX-License-Identifier: Apache-2.0 */
/* The Lua script of shared rate limits: one call settles what was admitted and grants a lease. */
#pragma once

#include "lib/str.h"

/*
 * KEYS[1]: the key. ARGV, times in microseconds: 1 what one request costs, 2 the burst, 3 requests
 * admitted already (below zero: granted and not used), 4 requests wanted ahead, 5 how early they
 * may be granted, 6 gateways that share, 7 the clock as told last, whole microseconds.
 *
 * Answers five integers: 0 requests granted, 1 the debt with them, 2 the clock, 3 whether others
 * moved it, 4 from when on what was granted may be used (0 or less: now).
 */
extern const struct str limit_script_text;

enum {
	LIMIT_SCRIPT_GRANTED,
	LIMIT_SCRIPT_DEBT,
	LIMIT_SCRIPT_CLOCK,
	LIMIT_SCRIPT_MOVED,
	LIMIT_SCRIPT_VALID,
	LIMIT_SCRIPT_ITEMS
};
