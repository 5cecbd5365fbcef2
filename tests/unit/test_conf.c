/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/conf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static const char *const kinds[] = { "auto", "native", "generic", NULL };

struct health {
	struct str path;
	uint8_t rise;
};

struct item {
	struct str name, path;
	uint16_t port;
	int64_t big;
	struct health health;
	struct conf_pair *set;
	size_t set_count;
};

struct doc {
	bool is_on;
	int workers;
	double ratio;
	int kind;
	struct str title, secret, nothing;
	struct str *list;
	size_t list_count;
	struct net_addr bind;
	struct net_prefix *allow;
	size_t allow_count;
	struct health *maybe;
	struct item *items;
	size_t items_count;
	struct health *pair;
	size_t pair_count;
	struct item *named;
	size_t named_count;
	int custom;
};

static const char *valid_path(struct str s)
{
	return s.p[0] == '/' ? NULL : "must begin with \"/\"";
}

static const char *valid_name(struct str s)
{
	return str_chr(s, ' ') < 0 ? NULL : "must have no space";
}

static void check_item(struct conf *c, void *object)
{
	struct item *item = object;

	if (item->port == 80 && conf_has(c, "health"))
		conf_error_at(c, "health.path", "not with port 80");
}

static void check_doc(struct conf *c, void *object)
{
	struct doc *doc = object;

	for (size_t i = 0; i < doc->items_count; i++) {
		conf_enter_index(c, "items", i);
		if (doc->items[i].big == 13)
			conf_error_at(c, "big", "brings bad luck");
		conf_leave(c);
	}
	for (size_t i = 0; i < doc->named_count; i++) {
		conf_enter_name(c, "named", doc->named[i].name);
		if (doc->named[i].big == 13)
			conf_error(c, "brings bad luck");
		conf_leave(c);
	}
}

static void parse_even(struct conf *c, void *field, const json_t *value)
{
	if (!json_is_integer(value) || json_integer_value(value) % 2)
		conf_error(c, "must be even");
	else
		*(int *)field = (int)json_integer_value(value);
}

static const struct conf_row health_rows[] = {
	{ CONF_STRING("path", struct health, path), .def = "\"/health\"", .valid = valid_path,
	  .help = "Where to ask." },
	{ CONF_INT("rise", struct health, rise), .min = 1, .max = 100, .def = "2" },
	{ 0 },
};
static const struct conf_object health_object = CONF_OBJECT_OF(struct health, health_rows);
static const struct conf_row item_rows[] = {
	{ CONF_STRING("path", struct item, path), .flags = CONF_REQUIRED, .valid = valid_path },
	{ CONF_INT("port", struct item, port), .min = 1, .max = 65535, .def = "443",
	  .flags = CONF_FIXED },
	{ CONF_INT("big", struct item, big), .min = -5, .max = 1LL << 40 },
	{ CONF_OBJECT("health", struct item, health, &health_object) },
	{ CONF_PAIRS("set", struct item, set), .valid_name = valid_name, .flags = CONF_EMPTY_OK },
	{ 0 },
};
static const struct conf_object item_object = CONF_OBJECT_OF(
	struct item, item_rows, .name_offset = offsetof(struct item, name), .check = check_item);
static const struct conf_row doc_rows[] = {
	{ CONF_BOOL("on", struct doc, is_on), .def = "true", .help = "Whether it is on." },
	{ CONF_INT("workers", struct doc, workers), .max = 1024, .flags = CONF_FIXED },
	{ CONF_DOUBLE("ratio", struct doc, ratio), .max = 1, .def = "0.5" },
	{ CONF_ENUM("kind", struct doc, kind, kinds), .def = "\"native\"" },
	{ CONF_STRING("title", struct doc, title), .flags = CONF_REQUIRED, .max = 20 },
	{ CONF_STRING("secret", struct doc, secret), .valid = valid_path },
	{ CONF_STRING("nothing", struct doc, nothing), .flags = CONF_NULL },
	{ CONF_STRINGS("list", struct doc, list), .def = "[\"a\",\"b\"]", .max = 3 },
	{ CONF_ADDRESS("bind", struct doc, bind), .min = 8080 },
	{ CONF_PREFIXES("allow", struct doc, allow), .def = "[\"10.0.0.0/8\"]" },
	{ CONF_OPTIONAL("maybe", struct doc, maybe, &health_object), .flags = CONF_NULL },
	{ CONF_ARRAY("items", struct doc, items, &item_object) },
	{ CONF_ARRAY("pair", struct doc, pair, &health_object), .flags = CONF_FIXED_COUNT },
	{ CONF_MAP("named", struct doc, named, &item_object), .valid_name = valid_name },
	{ CONF_CUSTOM("custom", struct doc, custom, parse_even),
	  .schema = "{\"type\":\"integer\",\"multipleOf\":2}" },
	{ CONF_UNSUPPORTED("mirror") },
	{ CONF_UNSUPPORTED("stream"), .flags = CONF_NULL },
	{ 0 },
};
static const struct conf_object doc_object = CONF_OBJECT_OF(struct doc, doc_rows,
							    .check = check_doc);

static struct doc doc;
static struct arena arena;
static char said[8192];

/* Loads and leaves the errors as text in `said`. */
static int load(const char *text)
{
	struct conf_errors errors = { 0 };
	struct buf b;
	int rc;

	arena_fini(&arena);
	arena_init(&arena, 4096, 0);
	rc = conf_load_text(&doc, &doc_object, str_from(text), &arena, &errors);
	assert_int_equal(rc == 0, errors.count == 0);
	buf_init(&b, sizeof(said) - 1);
	conf_errors_write(&errors, "f", &b);
	snprintf(said, sizeof(said), "%.*s", STR_ARG(buf_str(&b)));
	buf_fini(&b);
	conf_errors_fini(&errors);
	return rc;
}

static void reads_every_type(void **state)
{
	assert_int_equal(
		load("{\"$schema\":\"x\",\"//\":\"a comment\",\"//2\":1,\"on\":false,"
		     "\"workers\":4,\"ratio\":0.25,\"kind\":\"generic\",\"title\":\"T\","
		     "\"nothing\":null,\"list\":[\"longer than three\"],\"bind\":\"127.0.0.1\","
		     "\"allow\":[\"192.0.2.0/24\",\"2001:db8::1\"],"
		     "\"items\":[{\"path\":\"/a\"},{\"path\":\"/b\",\"port\":65535,\"big\":-5,"
		     "\"health\":{\"rise\":9},\"set\":{\"X-B\":\"2\",\"X-A\":\"1\"}}],"
		     "\"named\":{\"n2\":{\"path\":\"/n2\"},\"n1\":{\"path\":\"/n1\"}},"
		     "\"custom\":42,\"stream\":null}"),
		0);
	assert_false(doc.is_on);
	assert_int_equal(doc.workers, 4);
	assert_true(doc.ratio > 0.24 && doc.ratio < 0.26);
	assert_int_equal(doc.kind, 2);
	assert_string_equal(doc.title.p, "T");
	assert_null(doc.nothing.p);
	assert_null(doc.maybe);
	assert_int_equal(doc.list_count, 1);
	assert_int_equal(net_port(&doc.bind), 8080);
	assert_int_equal(doc.allow_count, 2);
	assert_int_equal(doc.allow[0].bits, 96 + 24);
	assert_int_equal(doc.items_count, 2);
	assert_int_equal(doc.items[0].port, 443);
	assert_string_equal(doc.items[0].health.path.p, "/health");
	assert_int_equal(doc.items[1].port, 65535);
	assert_int_equal(doc.items[1].big, -5);
	assert_int_equal(doc.items[1].health.rise, 9);
	assert_string_equal(doc.items[1].set[0].name.p, "X-B");
	assert_string_equal(doc.items[1].set[1].value.p, "1");
	assert_string_equal(doc.named[0].name.p, "n2");
	assert_string_equal(doc.named[1].path.p, "/n1");
	assert_int_equal(doc.custom, 42);
}

static void fills_defaults(void **state)
{
	assert_int_equal(load("{\"title\":\"T\"}"), 0);
	assert_true(doc.is_on);
	assert_int_equal(doc.kind, 1);
	assert_int_equal(doc.list_count, 2);
	assert_string_equal(doc.list[1].p, "b");
	assert_int_equal(doc.allow_count, 1);
	assert_int_equal(doc.bind.len, 0);
	assert_int_equal(doc.items_count, 0);
}

static void tells_each_mistake_with_its_path(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{ "{\"title\":\"\"}", "f: title: must not be empty\n" },
		{ "{}", "f: title: is required\n" },
		{ "{\"title\":null}", "f: title: must be a string, not null\n" },
		{ "{\"title\":\"T\",\"maybe\":{\"rise\":0}}",
		  "f: maybe.rise: must be 1..100, not 0\n" },
		{ "{\"title\":\"T\",\"workers\":1.5}",
		  "f: workers: must be an integer, not a number with a fraction\n" },
		{ "{\"title\":\"T\",\"workers\":-1}", "f: workers: must be 0..1024, not -1\n" },
		{ "{\"title\":\"T\",\"ratio\":1.5}", "f: ratio: must be 0..1, not 1.5\n" },
		{ "{\"title\":\"T\",\"kind\":\"natve\"}",
		  "f: kind: must be one of \"auto\", \"native\", \"generic\", not \"natve\"; did "
		  "you mean \"native\"?\n" },
		{ "{\"title\":\"T\",\"wrokers\":1}",
		  "f: wrokers: unknown member; did you mean \"workers\"?\n" },
		{ "{\"title\":\"T\",\"a b\":1}", "f: [\"a b\"]: unknown member\n" },
		{ "{\"title\":\"T\",\"items\":[{\"path\":\"/\"},{\"path\":\"x\"}]}",
		  "f: items[1].path: must begin with \"/\", not \"x\"\n" },
		{ "{\"title\":\"T\",\"items\":[{\"path\":\"/\",\"port\":80,\"health\":{}}]}",
		  "f: items[0].health.path: not with port 80\n" },
		{ "{\"title\":\"T\",\"items\":[{\"path\":\"/\",\"big\":13}],"
		  "\"named\":{\"a.b\":{\"path\":\"/\",\"big\":13}}}",
		  "f: items[0].big: brings bad luck\nf: named[\"a.b\"]: brings bad luck\n" },
		{ "{\"title\":\"T\",\"named\":{\"a b\":{\"path\":\"/\"}}}",
		  "f: named[\"a b\"]: the name must have no space\n" },
		{ "{\"title\":\"T\",\"items\":{}}", "f: items: must be a list, not an object\n" },
		{ "{\"title\":\"T\",\"list\":[\"a\",1]}",
		  "f: list[1]: must be a string, not an integer\n" },
		{ "{\"title\":\"T\",\"list\":[\"a\",\"b\",\"c\",\"d\"]}",
		  "f: list: must have at most 3 items, not 4\n" },
		{ "{\"title\":\"T23456789012345678901\"}",
		  "f: title: must have at most 20 bytes, not 21\n" },
		{ "{\"title\":\"T\",\"allow\":[\"10.0.0.0/33\"]}",
		  "f: allow[0]: must be an address or a network such as \"10.0.0.0/8\" or "
		  "\"2001:db8::/32\", not \"10.0.0.0/33\"\n" },
		{ "{\"title\":\"T\",\"custom\":3}", "f: custom: must be even\n" },
		{ "{\"title\":\"T\",\"mirror\":1}",
		  "f: mirror: is not supported by this version yet\n" },
		{ "{\"title\":\"$env:CONF_TEST_UNSET\"}",
		  "f: title: the environment variable CONF_TEST_UNSET is not set\n" },
		{ "{\"title\":\"$file:/nonexistent\"}",
		  "f: title: cannot read /nonexistent: No such file or directory\n" },
		{ "[]", "f: must be an object, not a list\n" },
		{ "{\"workers\":-1,\"ratio\":2,\"oops\":{}}",
		  "f: oops: unknown member\nf: workers: must be 0..1024, not -1\n"
		  "f: ratio: must be 0..1, not 2\nf: title: is required\n" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(load(cases[i].text), -EINVAL);
		assert_string_equal(said, cases[i].want);
	}
}

static void tells_syntax_errors_with_line_and_column(void **state)
{
	assert_int_equal(load("{\n \"title\": }"), -EINVAL);
	assert_non_null(strstr(said, "line 2, column "));
	assert_int_equal(load("{\"title\":\"a\",\n\"title\":\"b\"}"), -EINVAL);
	assert_non_null(strstr(said, "duplicate"));
	assert_non_null(strstr(said, "line 2"));
	assert_int_equal(load(""), -EINVAL);
	assert_int_equal(load("{\"title\":\"a\"} x"), -EINVAL);
}

static void reads_secrets_from_outside_without_quoting_them(void **state)
{
	char name[] = "/tmp/test_conf.XXXXXX", text[256];
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "hush\n", 5), 5);
	close(fd);
	snprintf(text, sizeof(text), "{\"title\":\"$file:%s\"}", name);
	assert_int_equal(load(text), 0);
	assert_string_equal(doc.title.p, "hush");
	snprintf(text, sizeof(text), "{\"title\":\"T\",\"secret\":\"$file:%s\"}", name);
	assert_int_equal(load(text), -EINVAL);
	assert_null(strstr(said, "hush"));
	unlink(name);

	setenv("CONF_TEST_ENV", "from outside", 1);
	assert_int_equal(load("{\"title\":\"$env:CONF_TEST_ENV\"}"), 0);
	assert_string_equal(doc.title.p, "from outside");
}

static void reads_files_and_names_what_it_cannot_read(void **state)
{
	struct conf_errors errors = { 0 };
	struct doc d;

	assert_int_equal(conf_load(&d, &doc_object, "/nonexistent/x", &arena, &errors), -EINVAL);
	assert_string_equal(errors.first->text, "cannot read it: No such file or directory");
	assert_int_equal(conf_load(&d, &doc_object, "/tmp", &arena, &errors), -EINVAL);
	assert_string_equal(errors.first->next->text, "cannot read it: Is a directory");
	conf_errors_fini(&errors);
}

static void a_flood_of_mistakes_is_counted(void **state)
{
	char text[8192];
	size_t at = (size_t)snprintf(text, sizeof(text), "{\"title\":\"T\"");

	for (int i = 0; i < 300; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ",\"unknown%d\":1", i);
	snprintf(text + at, sizeof(text) - at, "}");
	assert_int_equal(load(text), -EINVAL);
	/* `said` holds 8 KiB, so that the last line proves the bound. */
	assert_non_null(strstr(said, "and 100 more mistakes"));
}

/* More than is kept of the way to a mistake: it is cut, and the next one is told rightly. */
static void a_name_without_end_is_cut(void **state)
{
	char text[8192] = "{\"title\":\"T\",\"";
	size_t at = strlen(text);

	memset(text + at, 'n', 5000);
	memset(text + at + 5000, '\x7f', 1000);
	snprintf(text + at + 6000, sizeof(text) - at - 6000, "%s",
		 "\":1,\"oops\":2,\"workers\":-1}");
	assert_int_equal(load(text), -EINVAL);
	assert_non_null(strstr(said, "\nf: oops: unknown member\n"));
	assert_non_null(strstr(said, "f: workers: must be 0..1024, not -1\n"));
}

static void reload_refuses_fixed_members_only(void **state)
{
	static const struct {
		const char *fresh, *want;
	} cases[] = {
		{ "{\"title\":\"T\",\"workers\":2,\"items\":[{\"path\":\"/a\"}]}", NULL },
		{ "{\"title\":\"U\",\"workers\":2,\"items\":[{\"path\":\"/b\"},{\"path\":\"/\"}]}",
		  NULL },
		{ "{\"title\":\"T\",\"workers\":3,\"items\":[{\"path\":\"/a\"}]}", "workers" },
		{ "{\"title\":\"T\",\"workers\":2,\"items\":[{\"path\":\"/a\",\"port\":1}]}",
		  "items[0].port" },
		{ "{\"title\":\"T\",\"workers\":2,\"items\":[{\"path\":\"/a\"}],\"pair\":[{}]}",
		  "pair" },
	};
	struct doc old;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct conf_errors errors = { 0 };
		struct arena a;

		arena_init(&a, 4096, 0);
		assert_int_equal(
			conf_load_text(&old, &doc_object, str_from(cases[0].fresh), &a, &errors),
			0);
		assert_int_equal(load(cases[i].fresh), 0);
		if (cases[i].want) {
			assert_int_equal(conf_check_reload(&doc_object, &old, &doc, &errors),
					 -EINVAL);
			assert_int_equal(errors.count, 1);
			assert_string_equal(errors.first->path, cases[i].want);
		} else {
			assert_int_equal(conf_check_reload(&doc_object, &old, &doc, &errors), 0);
		}
		conf_errors_fini(&errors);
		arena_fini(&a);
	}
}

static json_t *schema_at(json_t *schema, const char *member)
{
	return json_object_get(json_object_get(schema, "properties"), member);
}

static void schema_says_what_the_reader_does(void **state)
{
	struct buf b;
	json_t *schema, *items;

	buf_init(&b, 0);
	conf_schema_json(&doc_object, "test", &b);
	assert_false(buf_failed(&b));
	schema = json_loadb(buf_data(&b), buf_len(&b), 0, NULL);
	assert_non_null(schema);
	assert_true(json_is_false(json_object_get(schema, "additionalProperties")));
	assert_string_equal(
		json_string_value(json_array_get(json_object_get(schema, "required"), 0)), "title");
	assert_string_equal(
		json_string_value(json_object_get(schema_at(schema, "on"), "description")),
		"Whether it is on.");
	assert_true(json_is_true(json_object_get(schema_at(schema, "on"), "default")));
	assert_int_equal(
		json_integer_value(json_object_get(schema_at(schema, "workers"), "maximum")), 1024);
	assert_int_equal(
		json_integer_value(json_object_get(schema_at(schema, "custom"), "multipleOf")), 2);
	assert_int_equal(json_array_size(json_object_get(schema_at(schema, "nothing"), "type")), 2);
	assert_null(schema_at(schema, "mirror"));
	items = json_object_get(schema_at(schema, "items"), "items");
	assert_non_null(schema_at(schema_at(items, "health"), "rise"));
	json_decref(schema);

	buf_reset(&b, 0);
	conf_help(&doc_object, &b);
	buf_putc(&b, '\0');
	assert_non_null(
		strstr(buf_data(&b), "items[].health.rise\n    integer 1..100; default 2\n"));
	buf_fini(&b);
}

static void distance_counts_a_swap_once(void **state)
{
	static const char *const words[] = { "routes", "registry", NULL };

	assert_int_equal(conf_distance(STR("routes"), STR("rouets")), 1);
	assert_int_equal(conf_distance(STR("abc"), STR("ABC")), 0);
	assert_int_equal(conf_distance(STR(""), STR("abc")), 3);
	assert_int_equal(conf_distance(STR("kitten"), STR("sitting")), 3);
	assert_string_equal(conf_nearest(STR("regsitry"), words), "registry");
	assert_null(conf_nearest(STR("listeners"), words));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_every_type),
		cmocka_unit_test(fills_defaults),
		cmocka_unit_test(tells_each_mistake_with_its_path),
		cmocka_unit_test(tells_syntax_errors_with_line_and_column),
		cmocka_unit_test(reads_secrets_from_outside_without_quoting_them),
		cmocka_unit_test(reads_files_and_names_what_it_cannot_read),
		cmocka_unit_test(a_flood_of_mistakes_is_counted),
		cmocka_unit_test(a_name_without_end_is_cut),
		cmocka_unit_test(reload_refuses_fixed_members_only),
		cmocka_unit_test(schema_says_what_the_reader_does),
		cmocka_unit_test(distance_counts_a_swap_once),
	};
	int rc = cmocka_run_group_tests_name("conf", tests, NULL, NULL);

	arena_fini(&arena);
	return rc;
}
