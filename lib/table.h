/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for people: cells of text, columns as wide as their widest. */
#pragma once

#include <stddef.h>

struct table;

/* `header` ends with NULL; a name that begins with ">" is right-aligned. NULL when out of memory.
 */
struct table *table_new(const char *const *header);
/* The next cell, row by row. The text is copied. */
__attribute__((format(printf, 2, 3))) void table_cell(struct table *t, const char *fmt, ...);
/* Prints to stdout and frees. */
void table_print(struct table *t);
