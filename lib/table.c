/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/arena.h"
#include "lib/cleanup.h"

#define COLUMNS_MAX 16
#define GAP         2

struct table {
	struct arena arena;
	const char *const *header;
	size_t columns;
	int width[COLUMNS_MAX];
	char **cells;
	size_t count, room;
};

static const char *title(const struct table *t, size_t column)
{
	return t->header[column] + (t->header[column][0] == '>');
}

struct table *table_new(const char *const *header)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	arena_init(&t->arena, 4096, 0);
	t->header = header;
	while (t->columns < COLUMNS_MAX && header[t->columns]) {
		t->width[t->columns] = (int)strlen(title(t, t->columns));
		t->columns++;
	}
	return t;
}

void table_cell(struct table *t, const char *fmt, ...)
{
	char text[512];
	size_t column;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (t->count == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		char **cells = realloc(t->cells, room * sizeof(*cells));

		if (!cells)
			return;
		t->cells = cells;
		t->room = room;
	}
	column = t->count % t->columns;
	t->cells[t->count] = arena_strz(&t->arena, str_from(text));
	if (t->cells[t->count])
		t->count++;
	t->width[column] = MAX(t->width[column], (int)strlen(text));
}

static void print_cell(const struct table *t, size_t column, const char *text)
{
	bool is_last = column + 1 == t->columns;

	if (t->header[column][0] == '>')
		printf("%*s", t->width[column], text);
	else
		printf("%-*s", is_last ? 0 : t->width[column], text);
	printf("%*s", is_last ? 0 : GAP, "");
	if (is_last)
		putchar('\n');
}

void table_print(struct table *t)
{
	assert(t->columns > 0);
	for (size_t c = 0; c < t->columns; c++)
		print_cell(t, c, title(t, c));
	for (size_t i = 0; i < t->count; i++)
		print_cell(t, i % t->columns, t->cells[i]);
	arena_fini(&t->arena);
	free(t->cells);
	free(t);
}
