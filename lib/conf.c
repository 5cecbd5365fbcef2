/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "lib/cleanup.h"
#include "lib/conf_impl.h"
#include "lib/json.h"

#define CONF_MAX_ERRORS 200
#define CONF_MAX_FILE   (64U << 20)
#define CONF_MAX_SECRET (1U << 20)

struct arena *conf_arena(struct conf *c)
{
	return c->arena;
}

/* --- errors -------------------------------------------------------------------------------- */

void conf_errors_fini(struct conf_errors *e)
{
	arena_fini(&e->arena);
	*e = (struct conf_errors) { 0 };
}

__attribute__((format(printf, 4, 0))) static void
errors_add(struct conf_errors *e, bool is_warning, struct str path, const char *fmt, va_list ap)
{
	size_t *count = is_warning ? &e->warnings : &e->count;
	char text[1024];
	struct conf_error *error;

	if (!e->tail) {
		arena_init(&e->arena, 4096, 0);
		e->tail = &e->first;
	}
	if (++*count > CONF_MAX_ERRORS)
		return; /* counted, and conf_errors_write says so */
	vsnprintf(text, sizeof(text), fmt, ap);
	error = arena_new(&e->arena, struct conf_error);
	if (!error)
		return;
	error->path = arena_strz(&e->arena, path);
	error->text = arena_strz(&e->arena, str_from(text));
	if (!error->path || !error->text)
		return;
	error->is_warning = is_warning;
	*e->tail = error;
	e->tail = &error->next;
}

void conf_errors_add(struct conf_errors *e, const char *path, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	errors_add(e, false, str_from(path), fmt, ap);
	va_end(ap);
}

void conf_errors_write(const struct conf_errors *e, const char *file, struct buf *out)
{
	for (const struct conf_error *error = e->first; error; error = error->next)
		buf_printf(out, "%s:%s%s%s%s%s\n", file, error->path[0] ? " " : "", error->path,
			   error->path[0] ? ": " : " ", error->is_warning ? "warning: " : "",
			   error->text);
	if (e->count > CONF_MAX_ERRORS)
		buf_printf(out, "%s: and %zu more mistakes\n", file, e->count - CONF_MAX_ERRORS);
}

static bool is_identifier(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
			return false;
	}
	return s.len > 0;
}

static void path_add(struct buf *path, struct str name)
{
	if (is_identifier(name)) {
		if (buf_len(path))
			buf_putc(path, '.');
		buf_add(path, name);
	} else {
		buf_putc(path, '[');
		json_quote(path, name);
		buf_putc(path, ']');
	}
}

static void path_push(struct conf *c)
{
	if (c->depth < CONF_MAX_DEPTH)
		c->marks[c->depth] = buf_len(&c->path);
	c->depth++;
}

void conf_enter(struct conf *c, const char *member)
{
	path_push(c);
	path_add(&c->path, str_from(member));
}

static void path_add_index(struct conf *c, size_t index)
{
	buf_printf(&c->path, "[%zu]", index);
}

void conf_enter_item(struct conf *c, size_t index)
{
	path_push(c);
	path_add_index(c, index);
}

void conf_enter_index(struct conf *c, const char *member, size_t index)
{
	conf_enter(c, member);
	path_add_index(c, index);
}

void conf_enter_name(struct conf *c, const char *member, struct str name)
{
	conf_enter(c, member);
	path_add(&c->path, name);
}

void conf_leave(struct conf *c)
{
	c->depth--;
	if (c->depth < CONF_MAX_DEPTH)
		c->path.end = c->path.start + c->marks[c->depth];
	c->path.has_failed = false; /* what did not fit is gone */
}

__attribute__((format(printf, 3, 0))) static void error_here(struct conf *c, bool is_warning,
							     const char *fmt, va_list ap)
{
	errors_add(c->errors, is_warning, buf_str(&c->path), fmt, ap);
}

void conf_error(struct conf *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_here(c, false, fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 4, 0))) static void
error_at(struct conf *c, bool is_warning, const char *member, const char *fmt, va_list ap)
{
	path_push(c);
	if (buf_len(&c->path))
		buf_putc(&c->path, '.');
	buf_addz(&c->path, member);
	error_here(c, is_warning, fmt, ap);
	conf_leave(c);
}

void conf_error_at(struct conf *c, const char *member, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_at(c, false, member, fmt, ap);
	va_end(ap);
}

void conf_warn_at(struct conf *c, const char *member, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_at(c, true, member, fmt, ap);
	va_end(ap);
}

static void *out_of_memory(struct conf *c)
{
	conf_error(c, "out of memory");
	return NULL;
}

bool conf_has(const struct conf *c, const char *member)
{
	const json_t *value = json_object_get(c->object, member);

	return value && !json_is_null(value);
}

/* --- did you mean -------------------------------------------------------------------------- */

#define DISTANCE_MAX_LEN 64

size_t conf_distance(struct str a, struct str b)
{
	/* Three rows of the table of the optimal string alignment distance. */
	size_t rows[3][DISTANCE_MAX_LEN + 1];
	size_t *before = rows[0], *above = rows[1], *row = rows[2];

	if (a.len > DISTANCE_MAX_LEN || b.len > DISTANCE_MAX_LEN)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.len; j++) {
		before[j] = 0;
		row[j] = j;
	}
	for (size_t i = 1; i <= a.len; i++) {
		size_t *oldest = before;
		int ca = tolower((unsigned char)a.p[i - 1]);

		before = above;
		above = row;
		row = oldest;
		row[0] = i;
		for (size_t j = 1; j <= b.len; j++) {
			int cb = tolower((unsigned char)b.p[j - 1]);
			size_t best = above[j - 1] + (ca != cb);

			best = MIN(best, above[j] + 1);
			best = MIN(best, row[j - 1] + 1);
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b.p[j - 2]) &&
			    cb == tolower((unsigned char)a.p[i - 2]))
				best = MIN(best, before[j - 2] + 1);
			row[j] = best;
		}
	}
	return row[b.len];
}

const char *conf_nearest(struct str name, const char *const *words)
{
	size_t best = CONF_NEAR(name.len) + 1;
	const char *nearest = NULL;

	for (; *words; words++) {
		size_t distance = conf_distance(name, str_from(*words));

		if (distance < best) {
			best = distance;
			nearest = *words;
		}
	}
	return nearest;
}

/* --- strings ------------------------------------------------------------------------------- */

static const char *type_word(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
	default:
		return "null";
	}
}

static bool must_be(struct conf *c, const json_t *value, bool is_right, const char *what)
{
	if (!is_right)
		conf_error(c, "must be %s, not %s", what, type_word(value));
	return is_right;
}

/* The whole file; p is malloc'd. Returns 0 or -errno; -EFBIG beyond max. */
static int read_file(const char *file, size_t max, char **out, size_t *out_len)
{
	CLEANUP(cleanup_close) int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct buf b;
	ssize_t n;

	if (fd < 0)
		return -errno;
	buf_init(&b, max + 1);
	do {
		char *room = buf_reserve(&b, MIN((size_t)65536, max + 1 - buf_len(&b)));

		n = room ? read(fd, room, MIN(buf_room(&b), max + 1 - buf_len(&b))) : -1;
		if (!room)
			errno = ENOMEM;
		if (n > 0)
			buf_commit(&b, (size_t)n);
	} while ((n > 0 && buf_len(&b) <= max) || (n < 0 && errno == EINTR));
	if (n < 0 || buf_len(&b) > max) {
		int rc = n < 0 ? -errno : -EFBIG;

		buf_fini(&b);
		return rc;
	}
	*out = b.data;
	*out_len = buf_len(&b);
	return 0;
}

static bool string_from_env(struct conf *c, struct str text, struct str *out)
{
	const char *value = getenv(text.p + 5);

	if (!value) {
		conf_error(c, "the environment variable %s is not set", text.p + 5);
		return false;
	}
	*out = arena_str(c->arena, str_from(value));
	return out->p || out_of_memory(c);
}

static bool string_from_file(struct conf *c, struct str text, struct str *out)
{
	CLEANUP(cleanup_free) char *content = NULL;
	const char *file = text.p + 6;
	size_t len = 0;
	int rc = read_file(file, CONF_MAX_SECRET, &content, &len);

	if (rc < 0) {
		conf_error(c, "cannot read %s: %s", file, strerror(-rc));
		return false;
	}
	/* Editors end a file with a newline that is no part of the secret. */
	if (len && content[len - 1] == '\n')
		len--;
	if (len && content[len - 1] == '\r')
		len--;
	if (len && memchr(content, '\0', len)) {
		conf_error(c, "%s holds a NUL byte; it must be text", file);
		return false;
	}
	*out = arena_str(c->arena, str_of(content, len));
	return out->p || out_of_memory(c);
}

bool conf_string(struct conf *c, const json_t *value, struct str *out)
{
	struct str text;

	if (!must_be(c, value, json_is_string(value), "a string"))
		return false;
	text = str_of(json_string_value(value), json_string_length(value));
	if (str_starts(text, STR("$env:")))
		return string_from_env(c, text, out);
	if (str_starts(text, STR("$file:")))
		return string_from_file(c, text, out);
	*out = arena_str(c->arena, text);
	return out->p || out_of_memory(c);
}

/* A value from outside may be a secret: it is never quoted. */
static bool is_from_outside(const json_t *value)
{
	struct str text = str_of(json_string_value(value), json_string_length(value));

	return str_starts(text, STR("$env:")) || str_starts(text, STR("$file:"));
}

static bool read_string(struct conf *c, const struct conf_row *row, const json_t *value,
			struct str *out)
{
	const char *complaint;
	struct str s;

	if (!conf_string(c, value, &s))
		return false;
	if (s.len == 0 && !(row->flags & CONF_EMPTY_OK)) {
		conf_error(c, "must not be empty");
		return false;
	}
	/* Of lists and maps, `max` bounds the items. */
	if (row->type == CONF_TYPE_STRING && row->max && s.len > (size_t)row->max) {
		conf_error(c, "must have at most %lld bytes, not %zu", (long long)row->max, s.len);
		return false;
	}
	complaint = row->valid ? row->valid(s) : NULL;
	if (complaint && (is_from_outside(value) || (row->flags & CONF_SECRET)))
		conf_error(c, "%s", complaint);
	else if (complaint)
		conf_error(c, "%s, not \"%.*s\"", complaint, (int)MIN(s.len, (size_t)100), s.p);
	if (complaint)
		return false;
	*out = s;
	return true;
}

/* --- values -------------------------------------------------------------------------------- */

static void read_object(struct conf *c, const struct conf_object *object, void *out,
			const json_t *value, bool is_root);
static void read_value(struct conf *c, const struct conf_row *row, void *out, const json_t *value);

static void *field_of(const struct conf_row *row, void *out)
{
	return (char *)out + row->offset;
}

static void set_count(const struct conf_row *row, void *out, size_t count)
{
	memcpy((char *)out + row->count_offset, &count, sizeof(count));
}

static void set_pointer(const struct conf_row *row, void *out, void *p)
{
	memcpy(field_of(row, out), &p, sizeof(p));
}

static void read_int(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	int64_t min, max, v = json_integer_value(value);

	if (!must_be(c, value, json_is_integer(value), "an integer"))
		return;
	conf_row_range(row, &min, &max);
	if (v < min || v > max) {
		conf_error(c, "must be %lld..%lld, not %lld", (long long)min, (long long)max,
			   (long long)v);
		return;
	}
	memcpy(field_of(row, out), &v, row->size); /* little-endian hosts */
}

static void read_double(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	double v = json_number_value(value);

	if (!must_be(c, value, json_is_number(value), "a number"))
		return;
	if ((row->min || row->max) && (v < (double)row->min || v > (double)row->max)) {
		conf_error(c, "must be %lld..%lld, not %g", (long long)row->min,
			   (long long)row->max, v);
		return;
	}
	memcpy(field_of(row, out), &v, sizeof(v));
}

static void read_enum(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	struct str text;
	const char *nearest;
	struct buf list;

	if (!must_be(c, value, json_is_string(value), "a string"))
		return;
	text = str_of(json_string_value(value), json_string_length(value));
	for (int i = 0; row->choices[i]; i++) {
		if (str_eqz(text, row->choices[i])) {
			memcpy(field_of(row, out), &i, sizeof(i));
			return;
		}
	}
	buf_init(&list, 4096);
	for (int i = 0; row->choices[i]; i++)
		buf_printf(&list, "%s\"%s\"", i ? ", " : "", row->choices[i]);
	nearest = conf_nearest(text, row->choices);
	conf_error(c, "must be one of %.*s, not \"%.*s\"%s%s%s", STR_ARG(buf_str(&list)),
		   (int)MIN(text.len, (size_t)100), text.p, nearest ? "; did you mean \"" : "",
		   nearest ? nearest : "", nearest ? "\"?" : "");
	buf_fini(&list);
}

static void read_address(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	struct net_addr a;
	struct str text;

	if (!conf_string(c, value, &text))
		return;
	if (net_parse(&a, text, (uint16_t)row->min) < 0) {
		conf_error(c,
			   "must be an address such as \"192.0.2.1%s\", \"[2001:db8::1]%s\" or "
			   "\"unix:/path\", not \"%.*s\"",
			   row->min ? "" : ":8080", row->min ? "" : ":8080",
			   (int)MIN(text.len, (size_t)100), text.p);
		return;
	}
	memcpy(field_of(row, out), &a, sizeof(a));
}

/* Allocates the items of a list or map; NULL when there are none or after an error. */
static void *new_items(struct conf *c, const struct conf_row *row, void *out, size_t count,
		       size_t item_size)
{
	void *items;

	if (count == 0 && (row->flags & (CONF_REQUIRED | CONF_NOT_EMPTY)) &&
	    !(row->flags & CONF_EMPTY_OK)) {
		conf_error(c, "must not be empty");
		return NULL;
	}
	if (row->max && count > (size_t)row->max) {
		conf_error(c, "must have at most %lld items, not %zu", (long long)row->max, count);
		return NULL;
	}
	set_count(row, out, 0);
	set_pointer(row, out, NULL);
	if (count == 0)
		return NULL;
	items = arena_zalloc(c->arena, count * item_size);
	if (!items)
		return out_of_memory(c);
	set_pointer(row, out, items);
	set_count(row, out, count);
	return items;
}

static bool read_prefix(struct conf *c, const json_t *value, struct net_prefix *out)
{
	struct str text;

	if (!conf_string(c, value, &text))
		return false;
	if (net_parse_prefix(out, text) < 0) {
		conf_error(c,
			   "must be an address or a network such as \"10.0.0.0/8\" or "
			   "\"2001:db8::/32\", not \"%.*s\"",
			   (int)MIN(text.len, (size_t)100), text.p);
		return false;
	}
	return true;
}

static size_t list_item_size(const struct conf_row *row)
{
	switch (row->type) {
	case CONF_TYPE_STRINGS:
		return sizeof(struct str);
	case CONF_TYPE_PREFIXES:
		return sizeof(struct net_prefix);
	default:
		return row->object->size;
	}
}

static void read_list(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	size_t size, i;
	const json_t *item;
	char *items;

	if (!must_be(c, value, json_is_array(value), "a list"))
		return;
	size = list_item_size(row);
	items = new_items(c, row, out, json_array_size(value), size);
	if (!items)
		return;
	json_array_foreach (value, i, item) {
		void *at = items + i * size;

		conf_enter_item(c, i);
		if (row->type == CONF_TYPE_STRINGS)
			read_string(c, row, item, at);
		else if (row->type == CONF_TYPE_PREFIXES)
			read_prefix(c, item, at);
		else
			read_object(c, row->object, at, item, false);
		conf_leave(c);
	}
}

static void check_name(struct conf *c, const struct conf_row *row, struct str name)
{
	const char *complaint = row->valid_name ? row->valid_name(name) : NULL;

	if (name.len == 0)
		conf_error(c, "the name must not be empty");
	else if (complaint)
		conf_error(c, "the name %s", complaint);
}

static void read_map(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	bool is_pairs = row->type == CONF_TYPE_PAIRS;
	size_t size, i = 0;
	char *items;

	if (!must_be(c, value, json_is_object(value), "an object"))
		return;
	size = is_pairs ? sizeof(struct conf_pair) : row->object->size;
	items = new_items(c, row, out, json_object_size(value), size);
	if (!items)
		return;
	/* jansson keeps the order of the file. Its iterators take no const. */
	for (void *it = json_object_iter((json_t *)(uintptr_t)value); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)value, it), i++) {
		char *at = items + i * size;
		struct str name = arena_str(
			c->arena, str_of(json_object_iter_key(it), json_object_iter_key_len(it)));

		if (!name.p) {
			out_of_memory(c);
			return;
		}
		path_push(c);
		path_add(&c->path, name);
		check_name(c, row, name);
		if (is_pairs) {
			struct conf_pair *pair = (void *)at;

			pair->name = name;
			read_string(c, row, json_object_iter_value(it), &pair->value);
		} else {
			read_object(c, row->object, at, json_object_iter_value(it), false);
			memcpy(at + row->object->name_offset, &name, sizeof(name));
		}
		conf_leave(c);
	}
}

static void read_optional(struct conf *c, const struct conf_row *row, void *out,
			  const json_t *value)
{
	void *p = arena_zalloc(c->arena, row->object->size);

	if (!p) {
		out_of_memory(c);
		return;
	}
	set_pointer(row, out, p);
	read_object(c, row->object, p, value, false);
}

static void read_value(struct conf *c, const struct conf_row *row, void *out, const json_t *value)
{
	void *field = field_of(row, out);

	switch (row->type) {
	case CONF_TYPE_BOOL:
		if (must_be(c, value, json_is_boolean(value), "true or false"))
			*(bool *)field = json_is_true(value);
		break;
	case CONF_TYPE_INT:
		read_int(c, row, out, value);
		break;
	case CONF_TYPE_DOUBLE:
		read_double(c, row, out, value);
		break;
	case CONF_TYPE_STRING:
		read_string(c, row, value, field);
		break;
	case CONF_TYPE_ENUM:
		read_enum(c, row, out, value);
		break;
	case CONF_TYPE_STRINGS:
	case CONF_TYPE_PREFIXES:
	case CONF_TYPE_ARRAY:
		read_list(c, row, out, value);
		break;
	case CONF_TYPE_PAIRS:
	case CONF_TYPE_MAP:
		read_map(c, row, out, value);
		break;
	case CONF_TYPE_OBJECT:
		read_object(c, row->object, field, value, false);
		break;
	case CONF_TYPE_OPTIONAL:
		read_optional(c, row, out, value);
		break;
	case CONF_TYPE_ADDRESS:
		read_address(c, row, out, value);
		break;
	case CONF_TYPE_CUSTOM:
		row->parse(c, field, value);
		break;
	case CONF_TYPE_UNSUPPORTED:
		conf_error(c, "is not supported by this version yet");
		break;
	case CONF_TYPE_END:
	default:
		break;
	}
}

static void read_default(struct conf *c, const struct conf_row *row, void *out)
{
	json_t *value;

	if (!row->def && row->type != CONF_TYPE_OBJECT)
		return;
	/* The commonest kind without a tree: large files hold many of these. */
	if (row->type == CONF_TYPE_INT) {
		int64_t v = strtoll(row->def, NULL, 10);

		memcpy(field_of(row, out), &v, row->size);
		return;
	}
	value = row->def ? json_loads(row->def, JSON_DECODE_ANY, NULL) : json_object();
	if (value)
		read_value(c, row, out, value);
	else
		conf_error(c, "its default %s is not JSON", row->def ? row->def : "{}");
	json_decref(value);
}

static void read_row(struct conf *c, const struct conf_row *row, void *out, const json_t *object)
{
	const json_t *value = json_object_get(object, row->name);
	bool is_given = value && !(json_is_null(value) && (row->flags & CONF_NULL));

	conf_enter(c, row->name);
	/* A value that turns out wrong leaves the default in place, for the checks that follow. */
	if (!is_given && (row->flags & CONF_REQUIRED))
		conf_error(c, "is required");
	else if (!is_given || row->type != CONF_TYPE_OBJECT)
		read_default(c, row, out);
	if (is_given)
		read_value(c, row, out, value);
	conf_leave(c);
}

static void unknown_member(struct conf *c, const struct conf_row *rows, struct str name)
{
	size_t best = CONF_NEAR(name.len) + 1;
	const char *nearest = NULL;

	for (const struct conf_row *row = rows; row->name; row++) {
		size_t distance = conf_distance(name, str_from(row->name));

		if (distance < best) {
			best = distance;
			nearest = row->name;
		}
	}
	path_push(c);
	path_add(&c->path, name);
	if (nearest)
		conf_error(c, "unknown member; did you mean \"%s\"?", nearest);
	else
		conf_error(c, "unknown member");
	conf_leave(c);
}

static void refuse_unknown(struct conf *c, const struct conf_row *rows, const json_t *object,
			   bool is_root)
{
	for (void *it = json_object_iter((json_t *)(uintptr_t)object); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
		struct str name = str_of(json_object_iter_key(it), json_object_iter_key_len(it));
		const struct conf_row *row = rows;

		while (row->name && !str_eqz(name, row->name))
			row++;
		if (!row->name && !str_starts(name, STR("//")) &&
		    !(is_root && str_eq(name, STR("$schema"))))
			unknown_member(c, rows, name);
	}
}

static void read_object(struct conf *c, const struct conf_object *object, void *out,
			const json_t *value, bool is_root)
{
	const json_t *outer = c->object;

	if (!must_be(c, value, json_is_object(value), "an object"))
		return;
	refuse_unknown(c, object->rows, value, is_root);
	for (const struct conf_row *row = object->rows; row->name; row++)
		read_row(c, row, out, value);
	if (object->check) {
		c->object = value;
		object->check(c, out);
		c->object = outer;
	}
}

/* --- whole files --------------------------------------------------------------------------- */

int conf_load_text(void *out, const struct conf_object *root, struct str text, struct arena *a,
		   struct conf_errors *errors)
{
	struct conf c = { .arena = a, .errors = errors };
	size_t errors_before = errors->count;
	json_error_t wrong;
	json_t *tree = json_loadb(text.p ? text.p : "", text.len, JSON_REJECT_DUPLICATES, &wrong);

	if (!tree) {
		conf_errors_add(errors, "", "line %d, column %d: %s", wrong.line, wrong.column,
				wrong.text);
		return -EINVAL;
	}
	buf_init(&c.path, 4096);
	memset(out, 0, root->size);
	read_object(&c, root, out, tree, true);
	buf_fini(&c.path);
	json_decref(tree);
	return errors->count == errors_before ? 0 : -EINVAL;
}

int conf_load(void *out, const struct conf_object *root, const char *file, struct arena *a,
	      struct conf_errors *errors)
{
	CLEANUP(cleanup_free) char *text = NULL;
	size_t len = 0;
	int rc = read_file(file, CONF_MAX_FILE, &text, &len);

	if (rc < 0) {
		conf_errors_add(errors, "", "cannot read it: %s", strerror(-rc));
		return -EINVAL;
	}
	return conf_load_text(out, root, str_of(text, len), a, errors);
}
