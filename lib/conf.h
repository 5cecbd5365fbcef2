/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a JSON configuration into a struct that rows describe: one row per member with its type,
 * default, range and help. The same rows give --help and the JSON Schema. Unknown members are
 * errors; all mistakes are collected in one run, each with its JSON path.
 *
 * A row is written with one of the CONF_* macros plus designated initialisers:
 *
 *	static const struct conf_row vip_rows[] = {
 *		{ CONF_STRING("name", struct vip, name), .flags = CONF_REQUIRED, .help = "…" },
 *		{ CONF_INT("port", struct vip, port), .min = 1, .max = 65535, .def = "443" },
 *		{ CONF_ARRAY("gateways", struct vip, gateways, &gateway_object) },
 *		{ 0 },
 *	};
 *	static const struct conf_object vip_object = CONF_OBJECT_OF(struct vip, vip_rows,
 *		.name_offset = offsetof(struct vip, name), .check = vip_check);
 *
 * Members whose name begins with "//" are comments; "$schema" is allowed at the top.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/net.h"
#include "lib/str.h"

enum conf_type {
	CONF_TYPE_END, /* all zeroes ends an array of rows */
	CONF_TYPE_BOOL,
	CONF_TYPE_INT,
	CONF_TYPE_DOUBLE,
	CONF_TYPE_STRING,
	CONF_TYPE_ENUM,
	CONF_TYPE_STRINGS,
	CONF_TYPE_PAIRS,
	CONF_TYPE_OBJECT,
	CONF_TYPE_OPTIONAL,
	CONF_TYPE_ARRAY,
	CONF_TYPE_MAP,
	CONF_TYPE_ADDRESS,
	CONF_TYPE_PREFIXES,
	CONF_TYPE_CUSTOM,
	CONF_TYPE_UNSUPPORTED,
};

enum conf_flags {
	CONF_REQUIRED = 1 << 0,
	CONF_NULL = 1 << 1,        /* null is allowed and means "not given" */
	CONF_EMPTY_OK = 1 << 2,    /* an empty string, list or map is allowed although required */
	CONF_FIXED = 1 << 3,       /* cannot change at reload, see conf_check_reload */
	CONF_FIXED_COUNT = 1 << 4, /* lists: the number of items cannot change at reload;
				      OPTIONAL: whether it is there */
	CONF_NOT_EMPTY = 1 << 5,   /* lists that need not be given: but then not an empty one */
	CONF_SECRET = 1 << 6,      /* strings: complaints do not quote them */
};

struct conf;
struct conf_object;

/* A member of a map of strings ("set": { "X-A": "1" }). */
struct conf_pair {
	struct str name, value;
};

struct conf_row {
	const char *name;
	enum conf_type type;
	unsigned flags;
	size_t offset, size; /* lists, maps and pointers have no size */
	size_t count_offset; /* where lists put their size_t count */
	const char *def;  /* the default as JSON text ("30", "\"auto\"", "[\"h2\"]"); NULL: zero */
	int64_t min, max; /* numbers: the range unless both are 0; lists and maps: max items;
			     strings: max bytes; address: `min` is the default port */
	const char *const *choices; /* enum: the words, ended by NULL; the value is the index */
	const struct conf_object *object; /* what OBJECT, OPTIONAL, ARRAY and MAP hold */
	/* STRING, STRINGS, and the values of PAIRS: NULL when good, else a sentence such as
	 * "must begin with \"/\"". valid_name does the same for the names of PAIRS and MAP. */
	const char *(*valid)(struct str value);
	const char *(*valid_name)(struct str name);
	/* CUSTOM: reads `value` (borrowed) into `field`; reports with conf_error. */
	void (*parse)(struct conf *c, void *field, const json_t *value);
	const char
		*schema; /* CUSTOM: its JSON Schema as JSON text without description and default */
	const char *help;
};

struct conf_object {
	const struct conf_row *rows;
	size_t size;
	size_t name_offset; /* MAP: where the item's name goes, a struct str */
	/*
	 * Rules between members, called after all rows were read, innermost objects first. Called
	 * even when members were wrong: those hold their default (or zero), and conf_has is true
	 * for them, so that a check does not complain a second time.
	 */
	void (*check)(struct conf *c, void *object);
};

#define CONF_OBJECT_OF(T, row_array, ...)                           \
	{                                                           \
		.rows = (row_array), .size = sizeof(T), __VA_ARGS__ \
	}

/* Zero; refused by the compiler (a constant divided by zero) unless the member has the type. */
#define CONF_CHECK(condition)    ((size_t)(0 / ((condition) ? 1 : 0)))
#define CONF_IS(T, m, type)      CONF_CHECK(__builtin_types_compatible_p(CONF_TYPEOF(T, m), type))
#define CONF_TYPEOF(T, m)        __typeof__(((T *)0)->m)
#define CONF_SIZE_IF(T, m, type) (sizeof(CONF_TYPEOF(T, m)) + CONF_IS(T, m, type))
#define CONF_AT(T, m)            .offset = offsetof(T, m)
#define CONF_COUNT_AT(T, m)      .count_offset = offsetof(T, m##_count)
#define CONF_BASE(n, t, T, m)    .name = (n), .type = CONF_TYPE_##t, CONF_AT(T, m)

/* bool */
#define CONF_BOOL(n, T, m) CONF_BASE(n, BOOL, T, m), .size = CONF_SIZE_IF(T, m, bool)
/* Any integer type; min and max must fit it. Not negative unless min says so. */
#define CONF_INT(n, T, m)    CONF_BASE(n, INT, T, m), .size = sizeof(((T *)0)->m)
#define CONF_DOUBLE(n, T, m) CONF_BASE(n, DOUBLE, T, m), .size = CONF_SIZE_IF(T, m, double)
/* struct str, NUL-terminated, p is NULL when not given. Not empty unless CONF_EMPTY_OK. */
#define CONF_STRING(n, T, m) CONF_BASE(n, STRING, T, m), .size = CONF_SIZE_IF(T, m, struct str)
/* int: index into the choices */
#define CONF_ENUM(n, T, m, words)                                                           \
	CONF_BASE(n, ENUM, T, m),                                                           \
		.size = sizeof(int) + CONF_CHECK(sizeof(CONF_TYPEOF(T, m)) == sizeof(int)), \
		.choices = (words)
/* struct str *m; size_t m_count */
#define CONF_STRINGS(n, T, m) \
	CONF_BASE(n, STRINGS, T, m), .size = CONF_IS(T, m, struct str *), CONF_COUNT_AT(T, m)
/* struct conf_pair *m; size_t m_count */
#define CONF_PAIRS(n, T, m) \
	CONF_BASE(n, PAIRS, T, m), .size = CONF_IS(T, m, struct conf_pair *), CONF_COUNT_AT(T, m)
/* A struct inside the struct; its defaults apply also when it is not given. */
#define CONF_OBJECT(n, T, m, o) \
	CONF_BASE(n, OBJECT, T, m), .size = sizeof(((T *)0)->m), .object = (o)
/* A pointer to a struct, NULL when not given. */
#define CONF_OPTIONAL(n, T, m, o) CONF_BASE(n, OPTIONAL, T, m), .object = (o)
/* struct item *m; size_t m_count */
#define CONF_ARRAY(n, T, m, o) CONF_BASE(n, ARRAY, T, m), CONF_COUNT_AT(T, m), .object = (o)
/* The same from an object whose member names become the items' names, in the file's order. */
#define CONF_MAP(n, T, m, o) CONF_BASE(n, MAP, T, m), CONF_COUNT_AT(T, m), .object = (o)
/* struct net_addr, len is 0 when not given. */
#define CONF_ADDRESS(n, T, m) \
	CONF_BASE(n, ADDRESS, T, m), .size = CONF_SIZE_IF(T, m, struct net_addr)
/* struct net_prefix *m; size_t m_count */
#define CONF_PREFIXES(n, T, m)                                                    \
	CONF_BASE(n, PREFIXES, T, m), .size = CONF_IS(T, m, struct net_prefix *), \
				      CONF_COUNT_AT(T, m)
#define CONF_CUSTOM(n, T, m, fn) \
	CONF_BASE(n, CUSTOM, T, m), .size = sizeof(((T *)0)->m), .parse = (fn)
/* A member of the file format that this version does not act on: an error, never ignored. With
 * CONF_NULL it may be given as null. */
#define CONF_UNSUPPORTED(n) .name = (n), .type = CONF_TYPE_UNSUPPORTED

struct conf_error {
	struct conf_error *next;
	const char *path; /* "routes[3].match.path"; "" for the whole file */
	const char *text;
	bool is_warning; /* worth a look, but can be worked with */
};

/* All that is wrong, in the order found. All zeroes is empty. */
struct conf_errors {
	struct conf_error *first, **tail;
	size_t count; /* of mistakes; warnings are not among them */
	size_t warnings;
	struct arena arena;
};

void conf_errors_fini(struct conf_errors *e);
/* Adds one from outside the reader (a certificate that does not load, …). */
__attribute__((format(printf, 3, 4))) void conf_errors_add(struct conf_errors *e, const char *path,
							   const char *fmt, ...);
/* One line each: "FILE: PATH: TEXT\n", with "warning: " before the text of those. */
void conf_errors_write(const struct conf_errors *e, const char *file, struct buf *out);

/*
 * Reads the file into `out` (a struct described by `root`); everything it points at is in `a`.
 * Returns 0, or -EINVAL with errors added; then `out` must not be used.
 */
int conf_load(void *out, const struct conf_object *root, const char *file, struct arena *a,
	      struct conf_errors *errors);
/* The same from memory. */
int conf_load_text(void *out, const struct conf_object *root, struct str text, struct arena *a,
		   struct conf_errors *errors);
/*
 * Adds an error for each member with CONF_FIXED whose value differs. Returns 0 or -EINVAL. Looks
 * into arrays and maps only item by item as far as both have items. A CUSTOM row is compared by its
 * bytes.
 */
int conf_check_reload(const struct conf_object *root, const void *running, const void *fresh,
		      struct conf_errors *errors);

/* The JSON Schema (draft 2020-12), indented, ending in a newline. */
void conf_schema_json(const struct conf_object *root, const char *title, struct buf *out);
/* One line per member, "routes[].match.path  string, required  help text". */
void conf_help(const struct conf_object *root, struct buf *out);

/* --- inside check and parse callbacks ------------------------------------------------------ */

struct arena *conf_arena(struct conf *c);
/* An error at the current place, or at a member of it ("health.path" is fine). */
__attribute__((format(printf, 2, 3))) void conf_error(struct conf *c, const char *fmt, ...);
__attribute__((format(printf, 3, 4))) void conf_error_at(struct conf *c, const char *member,
							 const char *fmt, ...);
/* For what may be meant so, or may be mended without us: the file is taken all the same. */
__attribute__((format(printf, 3, 4))) void conf_warn_at(struct conf *c, const char *member,
							const char *fmt, ...);
/* Whether the object being checked was given this member (and not as null). */
bool conf_has(const struct conf *c, const char *member);
/*
 * Steps into a member for the errors that follow: "match", an item of an array, an item of a map.
 * Each is undone by conf_leave. conf_has still speaks of the object being checked.
 */
void conf_enter(struct conf *c, const char *member);
void conf_enter_index(struct conf *c, const char *member, size_t index);
void conf_enter_name(struct conf *c, const char *member, struct str name);
void conf_leave(struct conf *c);
/* A string value with "$env:" and "$file:" resolved, copied into the arena; false after an error.
 */
bool conf_string(struct conf *c, const json_t *value, struct str *out);
/* The nearest of the words to `name`, or NULL if none is near: for "did you mean". */
const char *conf_nearest(struct str name, const char *const *words);
/* How many letters differ (insert, drop, replace, swap neighbours), case aside. Near is at most
 * CONF_NEAR(len). */
size_t conf_distance(struct str a, struct str b);
#define CONF_NEAR(len) ((size_t)(len) < 5 ? 1U : 2U)
