/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has an interface's pins: one nlbd at a time. A lock of the kernel on their folder, so that it
 * goes with its process however that ends.
 */
#pragma once

#include <sys/types.h>

/*
 * Takes the lock of the folder. Returns a descriptor that holds it until closed; -EWOULDBLOCK when
 * another process has it, whose id is in *holder then (0: not known); or another -errno.
 */
int lock_take(const char *directory, pid_t *holder);
