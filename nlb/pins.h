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
	char link[24]; /* name of the pinned attachment */
	uint32_t ifindex;
	int native_rc;  /* why PINS_AUTO became generic; 0: it did not */
	bool was_empty; /* nothing was pinned here when we came: take all back if we fail */
};

enum pins_mode { PINS_AUTO, PINS_NATIVE, PINS_GENERIC };

/*
 * Finds the interface and makes `directory` (mounting the BPF file system where it is missing).
 * Refuses kernels that are too old or have no BTF, and interfaces with somebody else's XDP program.
 * Returns 0 or -errno with the sentence in err; nothing is left behind then.
 */
int pins_open(struct pins *p, const char *directory, const char *interface, struct err *err);

/* What an object's maps hold, beyond their sizes. */
struct pins_layout {
	uint64_t version;         /* another one: entries mean something else; never 0 */
	const char *const *state; /* maps that make sense only together, ended by NULL; or NULL */
	const char *resizable;    /* one of them whose size alone may change; or NULL */
};

/*
 * Loads the object with its maps pinned here by their names: maps found are used again with what is
 * in them, others are made. When the layout or the shape of a map of `state` has changed, all of
 * `state` is made anew and begins empty. Another map whose shape has changed is replaced, and its
 * entries copied where they are of the same size. `on_replaced` is told of each. The program that
 * is attached goes on with its own maps. After a failure everything is as it was.
 */
int pins_load(struct pins *p, struct bpf_object *object, const struct pins_layout *layout,
	      void (*on_replaced)(const char *map, bool is_copied, void *arg), void *arg,
	      struct err *err);

/*
 * Puts the program on the interface: in place of our own former one, without a gap, or anew.
 * `*mode` is what was asked for, and afterwards what was taken.
 */
int pins_attach(struct pins *p, int prog_fd, enum pins_mode *mode, struct err *err);

/*
 * The link of our own former program, if it is attached (in a mode that `*mode` allows, and set to
 * it) and does not use this map, which has been made anew: then it had better go on until the new
 * maps are filled. Returns the descriptor for pins_replace, or -1: attach at once.
 */
int pins_former(const struct pins *p, enum pins_mode *mode, int map_fd);
/* Puts the program in the place of the former one, without a gap. */
int pins_replace(const struct pins *p, int link_fd, int prog_fd, struct err *err);

/*
 * Another interface for the same program, for pins_attach: its attachment is pinned beside the
 * first one's as "link-INTERFACE". Refuses as pins_open does.
 */
int pins_open_another(struct pins *out, const struct pins *first, const char *interface,
		      struct err *err);
/* Takes the program off other interfaces than these. */
void pins_keep_others(const struct pins *first, const struct pins *others, size_t count);

/* Takes the program off and removes every pin. Returns -ENOENT when there was nothing. */
int pins_remove(const char *directory, struct err *err);

/* For failures at start: takes back what this run has pinned, if there was nothing before. */
void pins_undo(struct pins *p);

/* Opens one of the pinned things of a folder: a descriptor, or -errno. */
int pins_get(const char *directory, const char *name);

const char *pins_mode_name(enum pins_mode mode);
