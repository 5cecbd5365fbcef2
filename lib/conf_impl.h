/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the configuration reader share among themselves: conf.c reads, conf_reload.c
 * compares, conf_schema.c describes. */
#pragma once

#include <string.h>

#include "lib/conf.h"

#define CONF_MAX_DEPTH 32

struct conf {
	struct arena *arena;
	struct conf_errors *errors;
	const json_t *object; /* the one whose rows or check are being worked on */
	struct buf path;
	size_t marks[CONF_MAX_DEPTH];
	size_t depth;
};

/* An item of the list that was entered last; undone by conf_leave. */
void conf_enter_item(struct conf *c, size_t index);

static inline size_t conf_row_count(const struct conf_row *row, const void *in)
{
	size_t count;

	memcpy(&count, (const char *)in + row->count_offset, sizeof(count));
	return count;
}

static inline void *conf_row_pointer(const struct conf_row *row, const void *in)
{
	void *p;

	memcpy(&p, (const char *)in + row->offset, sizeof(p));
	return p;
}

/* The range of an integer. None given: what surely fits, signed or not. */
static inline void conf_row_range(const struct conf_row *row, int64_t *min, int64_t *max)
{
	*min = row->min;
	*max = row->max;
	if (row->min == 0 && row->max == 0)
		*max = row->size >= 8 ? INT64_MAX : (1LL << (8 * row->size - 1)) - 1;
}
