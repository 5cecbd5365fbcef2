/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the command share: its options, and how it says that something went wrong. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "nlb/decap.h"

enum { DONE = 0, FAILED = 1, USAGE = 2 }; /* exit status */

struct nlbctl_options {
	const char *socket;
	const char *pin_directory;
	enum pins_mode mode;
	bool wants_json;
	/* Names for flows, addresses for decap. */
	const char *vips[DECAP_LIST_MAX], *sources[DECAP_LIST_MAX];
	size_t vip_count, source_count;
};

/* Both print a sentence and return the exit status that goes with it. */
int nlbctl_fail(const char *text);
__attribute__((format(printf, 1, 2))) int nlbctl_misuse(const char *fmt, ...);
