/* SPDX-License-Identifier: Apache-2.0 */
/* gzip (RFC 1952) of bodies that are whole in memory. */
#pragma once

#include "lib/buf.h"

/* Appends `in` compressed. 0, -ENOMEM (also when `out` is full). */
int gzip_compress(struct buf *out, struct str in);
/* Appends what `in` holds, which must be one whole gzip file. 0; -EBADMSG when it is none, -ENOSPC
 * when it holds more than `out` may take, -ENOMEM. */
int gzip_expand(struct buf *out, struct str in);
