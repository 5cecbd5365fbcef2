/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells when one of some files may have changed, however it is replaced: written in place, renamed
 * over, or reached through symbolic links of which any is swapped. Folders are watched (inotify),
 * not files. What really changed is the caller's to find out.
 */
#pragma once

#include <stddef.h>

#include "lib/loop.h"

struct file_watch;

/* `on_change` runs in the loop, once for all that happens within delay_ms; also every poll_ms (0:
 * never), for file systems without notice. NULL with errno set. */
struct file_watch *file_watch_new(struct loop *loop, unsigned delay_ms, unsigned poll_ms,
				  void (*on_change)(void *arg), void *arg);
/* These files from now on, links followed as they lead now: call it in on_change, before reading
 * the files. 0 or -errno, the watch then being incomplete. */
int file_watch_set(struct file_watch *w, const char *const *paths, size_t count);
void file_watch_free(struct file_watch **w);
