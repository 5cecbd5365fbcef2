/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store on disk, for restarts: one file, written anew and renamed into place. Every record has
 * a checksum of its own, so a file cut short gives back all whole records in front of the cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"
#include "lib/err.h"
#include "registry/instance.h"
#include "registry/store.h"

/* Copies the living instances out of the store, without checksums: quick, for the loop's thread. */
void reg_snapshot_encode(const struct reg_store *store, uint64_t wall_ms, struct buf *out);
/* Adds the checksums; the slow half, for any thread. */
void reg_snapshot_seal(struct buf *encoded);

struct reg_snapshot_info {
	uint64_t index;    /* the store's when it was written */
	uint64_t saved_ms; /* wall clock */
	uint64_t count;    /* instances that were written */
	uint64_t read;     /* instances that are whole */
};

/*
 * Reads a sealed snapshot. Returns 0 with `info` and each whole instance given to on_instance in
 * ascending order of index; info->read < info->count says that the rest was cut off or damaged. Or
 * -EBADMSG with the sentence in err when nothing can be made of it.
 */
int reg_snapshot_decode(struct str bytes, struct reg_snapshot_info *info,
			void (*on_instance)(struct str app, const struct reg_instance *i,
					    void *arg),
			void *arg, struct err *err);

/* Writes `sealed` to path + ".new", syncs, renames it over `path`, syncs the folder. Returns 0 or
 * -errno with the sentence in err; then an older file at `path` is as it was. */
int reg_snapshot_save(const char *path, struct str sealed, struct err *err);
/* The whole file. -ENOENT when there is none. */
int reg_snapshot_load(const char *path, struct buf *out, struct err *err);
