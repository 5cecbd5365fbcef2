/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins and attachments in general: the BPF file system, XDP links, and telling our own program on
 * an interface from somebody else's. Used by nlbd and by `nlbctl decap`.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <bpf/libbpf.h>

#include "lib/err.h"

struct pins {
	char dir[PATH_MAX - 64];
	char interface[16];
	uint32_t ifindex;
	bool was_empty; /* nothing was pinned here when we came: take all back if we fail */
};

enum pins_mode { PINS_AUTO, PINS_NATIVE, PINS_GENERIC };

/*
 * Finds the interface and makes `directory` (mounting the BPF file system where it is missing).
 * Refuses kernels that are too old or have no BTF, and interfaces with somebody else's XDP program.
 * Returns 0 or -errno with the sentence in err; nothing is left behind then.
 */
int pins_open(struct pins *p, const char *directory, const char *interface, struct err *err);

/*
 * Loads the object with its maps pinned here by their names: maps found are used again with what is
 * in them, others are made. A map whose shape has changed is replaced; `on_replaced` is told.
 */
int pins_load(struct pins *p, struct bpf_object *object,
	      void (*on_replaced)(const char *map, void *arg), void *arg, struct err *err);

/*
 * Puts the program on the interface: in place of our own former one, without a gap, or anew.
 * `*mode` is what was asked for, and afterwards what was taken.
 */
int pins_attach(struct pins *p, int prog_fd, enum pins_mode *mode, struct err *err);

/* Takes the program off and removes every pin. Returns -ENOENT when there was nothing. */
int pins_remove(const char *directory, struct err *err);

/* For failures at start: takes back what this run has pinned, if there was nothing before. */
void pins_undo(struct pins *p);

/* Opens one of the pinned things of a folder: a descriptor, or -errno. */
int pins_get(const char *directory, const char *name);

const char *pins_mode_name(enum pins_mode mode);
