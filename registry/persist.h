/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the snapshot file up to date: a process of its own writes it, at most a second after a
 * change, so that neither encoding nor a slow disk keeps anybody waiting. A disk that fails is
 * tried again; the registry serves on. No other thread may run in the program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/err.h"
#include "registry/store.h"

struct loop;
struct reg_persist;

struct reg_persist_stats {
	uint64_t writes, failures;
	uint64_t saved_ms;    /* wall clock of the last that succeeded */
	uint64_t saved_index; /* the store's index then */
	uint64_t bytes;       /* of the last one */
	bool is_failing;
	struct err error; /* while failing */
};

/* on_failing: writing begins to fail (with the sentence), or works again (NULL). */
struct reg_persist *reg_persist_new(struct loop *loop, const struct reg_store *store,
				    const char *path,
				    void (*on_failing)(const char *problem, void *arg), void *arg);
/* Something changed. Cheap: only starts a timer. */
void reg_persist_touch(struct reg_persist *p);
/* Waits for a write in progress, then writes if there is anything new. 0, or -errno with the
 * sentence in err. For start and shutdown: it blocks. */
int reg_persist_flush(struct reg_persist *p, struct err *err);
/* Waits for a write in progress. */
void reg_persist_free(struct reg_persist **p);

const struct reg_persist_stats *reg_persist_stats(const struct reg_persist *p);
