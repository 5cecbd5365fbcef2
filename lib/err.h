/* SPDX-License-Identifier: Apache-2.0 */
/* One sentence for a person, for the failures where -errno says too little. */
#pragma once

#include <stdarg.h>
#include <stdio.h>

struct err {
	char text[512];
};

/* Writes the sentence and returns `rc`, so that a failing function can `return err_set(err,
 * -EINVAL, …)`. */
__attribute__((format(printf, 3, 4))) static inline int err_set(struct err *err, int rc,
								const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return rc;
}
