/* SPDX-License-Identifier: Apache-2.0 */
/* What a service behind the gateway may be sent: whole requests, one way to read them. */
#pragma once

#include "lib/http1.h"
#include "lib/str.h"

/* Reads all of it strictly; the last request may be cut off. Crashes if anything is in doubt.
 * Returns how many were whole. */
unsigned fuzz_check_requests(struct str bytes);
/* The same for what a client got: at least its first head. */
void fuzz_check_response(struct str bytes);
