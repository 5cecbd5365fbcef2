/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the checks of instances that have one: each at its interval, so many at once, and says UP or
 * DOWN for the instance after as many equal results in a row as it wants. One that passes renews
 * the lease.
 */
#pragma once

#include <stdint.h>

#include "registry/store.h"
#include "registry/write.h"

struct loop;
struct reg_checks;

struct reg_checks_stats {
	uint64_t passed, failed; /* results */
	uint64_t late;           /* began a whole interval late: too many at once */
	uint32_t count, running;
};

/* NULL when out of memory. Store and writer must outlive it. */
struct reg_checks *reg_checks_new(struct loop *loop, struct reg_store *store,
				  struct reg_writer *writer, unsigned at_once);
void reg_checks_free(struct reg_checks **checks);
void reg_checks_set_at_once(struct reg_checks *checks, unsigned at_once);
/* After each change of the store, and once for each instance that was there before. */
void reg_checks_on_change(struct reg_checks *checks, const struct reg_entry *entry,
			  enum reg_change change);
const struct reg_checks_stats *reg_checks_stats(const struct reg_checks *checks);
