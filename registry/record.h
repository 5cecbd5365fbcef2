/* SPDX-License-Identifier: Apache-2.0 */
/* One instance as bytes, for snapshot and shared store. */
#pragma once

#include "lib/buf.h"
#include "registry/instance.h"

void reg_record_encode(struct str app, const struct reg_instance *i, struct buf *out);
/* The slices point into `record`. False when it is none, or breaks the rules of an instance. */
bool reg_record_decode(struct str record, struct str *app, struct reg_instance *i);
