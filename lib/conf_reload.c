/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "lib/cleanup.h"
#include "lib/conf_impl.h"

static bool values_equal(const struct conf_row *row, const void *a, const void *b);

static bool strings_equal(const void *a, const void *b)
{
	struct str x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	if (!x.p || !y.p)
		return !x.p && !y.p;
	return str_eq(x, y);
}

static bool objects_equal(const struct conf_object *object, const void *a, const void *b)
{
	for (const struct conf_row *row = object->rows; row->name; row++) {
		if (!values_equal(row, a, b))
			return false;
	}
	return true;
}

static bool items_equal(const struct conf_row *row, const char *a, const char *b, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct net_prefix *p = (const void *)a, *q = (const void *)b;

		if (row->type == CONF_TYPE_PREFIXES) {
			if (p[i].bits != q[i].bits || memcmp(p[i].bytes, q[i].bytes, 16) != 0)
				return false;
		} else if (row->type == CONF_TYPE_STRINGS) {
			if (!strings_equal(a + i * sizeof(struct str), b + i * sizeof(struct str)))
				return false;
		} else if (row->type == CONF_TYPE_PAIRS) {
			size_t at = i * sizeof(struct conf_pair);
			size_t value_at = at + offsetof(struct conf_pair, value);

			if (!strings_equal(a + at, b + at) ||
			    !strings_equal(a + value_at, b + value_at))
				return false;
		} else {
			size_t at = i * row->object->size;
			size_t name_at = at + row->object->name_offset;

			if (!objects_equal(row->object, a + at, b + at) ||
			    (row->type == CONF_TYPE_MAP &&
			     !strings_equal(a + name_at, b + name_at)))
				return false;
		}
	}
	return true;
}

static bool values_equal(const struct conf_row *row, const void *a, const void *b)
{
	const char *x = (const char *)a + row->offset, *y = (const char *)b + row->offset;
	const void *px, *py;

	switch (row->type) {
	case CONF_TYPE_STRING:
		return strings_equal(x, y);
	case CONF_TYPE_OBJECT:
		return objects_equal(row->object, x, y);
	case CONF_TYPE_OPTIONAL:
		px = conf_row_pointer(row, a);
		py = conf_row_pointer(row, b);
		return !px == !py && (!px || objects_equal(row->object, px, py));
	case CONF_TYPE_STRINGS:
	case CONF_TYPE_PREFIXES:
	case CONF_TYPE_PAIRS:
	case CONF_TYPE_ARRAY:
	case CONF_TYPE_MAP:
		return conf_row_count(row, a) == conf_row_count(row, b) &&
		       items_equal(row, conf_row_pointer(row, a), conf_row_pointer(row, b),
				   conf_row_count(row, a));
	case CONF_TYPE_ADDRESS: {
		struct net_addr m, n;

		memcpy(&m, x, sizeof(m));
		memcpy(&n, y, sizeof(n));
		return m.len == n.len && (m.len == 0 || net_addr_eq(&m, &n));
	}
	case CONF_TYPE_UNSUPPORTED:
	case CONF_TYPE_END:
		return true;
	default:
		return memcmp(x, y, row->size) == 0;
	}
}

static void check_object_reload(struct conf *c, const struct conf_object *object, const void *a,
				const void *b)
{
	for (const struct conf_row *row = object->rows; row->name; row++) {
		conf_enter(c, row->name);
		if ((row->flags & CONF_FIXED) && !values_equal(row, a, b)) {
			conf_error(c, "cannot change while running; restart to change it");
		} else if ((row->flags & CONF_FIXED_COUNT) && row->type == CONF_TYPE_OPTIONAL &&
			   !conf_row_pointer(row, a) != !conf_row_pointer(row, b)) {
			conf_error(c, "cannot be added or taken away while running; restart to "
				      "change it");
		} else if ((row->flags & CONF_FIXED_COUNT) && row->type != CONF_TYPE_OPTIONAL &&
			   conf_row_count(row, a) != conf_row_count(row, b)) {
			conf_error(c, "cannot have more or fewer items while running; restart to "
				      "change it");
		} else if (row->type == CONF_TYPE_OBJECT) {
			check_object_reload(c, row->object, (const char *)a + row->offset,
					    (const char *)b + row->offset);
		} else if (row->type == CONF_TYPE_OPTIONAL) {
			const void *pa = conf_row_pointer(row, a), *pb = conf_row_pointer(row, b);

			if (pa && pb)
				check_object_reload(c, row->object, pa, pb);
		} else if (row->type == CONF_TYPE_ARRAY || row->type == CONF_TYPE_MAP) {
			size_t both = MIN(conf_row_count(row, a), conf_row_count(row, b));
			const char *pa = conf_row_pointer(row, a), *pb = conf_row_pointer(row, b);

			for (size_t i = 0; i < both; i++) {
				conf_enter_item(c, i);
				check_object_reload(c, row->object, pa + i * row->object->size,
						    pb + i * row->object->size);
				conf_leave(c);
			}
		}
		conf_leave(c);
	}
}

int conf_check_reload(const struct conf_object *root, const void *running, const void *fresh,
		      struct conf_errors *errors)
{
	struct conf c = { .errors = errors };
	size_t errors_before = errors->count;

	buf_init(&c.path, 4096);
	check_object_reload(&c, root, running, fresh);
	buf_fini(&c.path);
	return errors->count == errors_before ? 0 : -EINVAL;
}
