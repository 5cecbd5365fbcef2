/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "lib/cleanup.h"
#include "lib/conf_impl.h"

static json_t *object_schema(const struct conf_object *object, bool is_root);

/* "string", or ["string", "null"] where null is allowed. */
static void schema_set_type(json_t *s, const struct conf_row *row, const char *type)
{
	if (row->flags & CONF_NULL)
		json_object_set_new(s, "type", json_pack("[ss]", type, "null"));
	else
		json_object_set_new(s, "type", json_string(type));
}

static void schema_set_range(json_t *s, const struct conf_row *row)
{
	int64_t min, max;

	conf_row_range(row, &min, &max);
	json_object_set_new(s, "minimum", json_integer(min));
	if (row->max)
		json_object_set_new(s, "maximum", json_integer(max));
}

static json_t *string_schema(const struct conf_row *row)
{
	json_t *s = json_pack("{ss}", "type", "string");

	if (!(row->flags & CONF_EMPTY_OK))
		json_object_set_new(s, "minLength", json_integer(1));
	return s;
}

static void schema_set_items(json_t *s, const struct conf_row *row)
{
	bool is_list = row->type == CONF_TYPE_STRINGS || row->type == CONF_TYPE_PREFIXES ||
		       row->type == CONF_TYPE_ARRAY;
	json_t *item = row->object ? object_schema(row->object, false) : string_schema(row);

	schema_set_type(s, row, is_list ? "array" : "object");
	json_object_set_new(s, is_list ? "items" : "additionalProperties", item);
	if ((row->flags & (CONF_REQUIRED | CONF_NOT_EMPTY)) && !(row->flags & CONF_EMPTY_OK))
		json_object_set_new(s, is_list ? "minItems" : "minProperties", json_integer(1));
	if (row->max)
		json_object_set_new(s, is_list ? "maxItems" : "maxProperties",
				    json_integer(row->max));
}

static void schema_set_enum(json_t *s, const struct conf_row *row)
{
	json_t *words = json_array();

	for (int i = 0; row->choices[i]; i++)
		json_array_append_new(words, json_string(row->choices[i]));
	if (row->flags & CONF_NULL)
		json_array_append_new(words, json_null());
	json_object_set_new(s, "enum", words);
}

static void schema_set_nested(json_t *s, const struct conf_row *row)
{
	json_t *nested = object_schema(row->object, false);

	json_object_update(s, nested);
	json_decref(nested);
	schema_set_type(s, row, "object");
}

static void schema_set_custom(json_t *s, const struct conf_row *row)
{
	json_t *custom = row->schema ? json_loads(row->schema, 0, NULL) : NULL;

	if (custom)
		json_object_update(s, custom);
	json_decref(custom);
}

static json_t *row_schema(const struct conf_row *row)
{
	json_t *s = json_object();
	json_t *def;

	switch (row->type) {
	case CONF_TYPE_BOOL:
		schema_set_type(s, row, "boolean");
		break;
	case CONF_TYPE_INT:
		schema_set_type(s, row, "integer");
		schema_set_range(s, row);
		break;
	case CONF_TYPE_DOUBLE:
		schema_set_type(s, row, "number");
		if (row->min || row->max)
			schema_set_range(s, row);
		break;
	case CONF_TYPE_STRING:
	case CONF_TYPE_ADDRESS:
		schema_set_type(s, row, "string");
		if (!(row->flags & CONF_EMPTY_OK))
			json_object_set_new(s, "minLength", json_integer(1));
		break;
	case CONF_TYPE_ENUM:
		schema_set_enum(s, row);
		break;
	case CONF_TYPE_STRINGS:
	case CONF_TYPE_PREFIXES:
	case CONF_TYPE_PAIRS:
	case CONF_TYPE_ARRAY:
	case CONF_TYPE_MAP:
		schema_set_items(s, row);
		break;
	case CONF_TYPE_OBJECT:
	case CONF_TYPE_OPTIONAL:
		schema_set_nested(s, row);
		break;
	case CONF_TYPE_CUSTOM:
		schema_set_custom(s, row);
		break;
	case CONF_TYPE_UNSUPPORTED:
		json_object_set_new(s, "type", json_string("null"));
		break;
	case CONF_TYPE_END:
	default:
		break;
	}
	if (row->help)
		json_object_set_new(s, "description", json_string(row->help));
	def = row->def ? json_loads(row->def, JSON_DECODE_ANY, NULL) : NULL;
	if (def)
		json_object_set_new(s, "default", def);
	return s;
}

static json_t *object_schema(const struct conf_object *object, bool is_root)
{
	json_t *properties = json_object(), *required = json_array();
	json_t *s = json_pack("{ss}", "type", "object");

	if (is_root)
		json_object_set_new(properties, "$schema", json_pack("{ss}", "type", "string"));
	for (const struct conf_row *row = object->rows; row->name; row++) {
		if (row->type == CONF_TYPE_UNSUPPORTED && !(row->flags & CONF_NULL))
			continue;
		json_object_set_new(properties, row->name, row_schema(row));
		if (row->flags & CONF_REQUIRED)
			json_array_append_new(required, json_string(row->name));
	}
	json_object_set_new(s, "properties", properties);
	json_object_set_new(s, "patternProperties", json_pack("{s{}}", "^//"));
	json_object_set_new(s, "additionalProperties", json_false());
	if (json_array_size(required))
		json_object_set(s, "required", required);
	json_decref(required);
	return s;
}

void conf_schema_json(const struct conf_object *root, const char *title, struct buf *out)
{
	CLEANUP(cleanup_free) char *text = NULL;
	json_t *s = json_pack("{ssss}", "$schema", "https://json-schema.org/draft/2020-12/schema",
			      "title", title);
	json_t *object = object_schema(root, true);

	json_object_update(s, object);
	json_decref(object);
	text = json_dumps(s, JSON_INDENT(2));
	json_decref(s);
	if (text) {
		buf_addz(out, text);
		buf_putc(out, '\n');
	}
}

static const char *const type_names[] = {
	[CONF_TYPE_BOOL] = "true or false",
	[CONF_TYPE_INT] = "integer",
	[CONF_TYPE_DOUBLE] = "number",
	[CONF_TYPE_STRING] = "string",
	[CONF_TYPE_ENUM] = "one of",
	[CONF_TYPE_STRINGS] = "list of strings",
	[CONF_TYPE_PAIRS] = "strings by name",
	[CONF_TYPE_OBJECT] = "object",
	[CONF_TYPE_OPTIONAL] = "object",
	[CONF_TYPE_ARRAY] = "list of objects",
	[CONF_TYPE_MAP] = "objects by name",
	[CONF_TYPE_ADDRESS] = "address",
	[CONF_TYPE_PREFIXES] = "list of networks",
	[CONF_TYPE_CUSTOM] = "value",
};

static void help_row(const struct conf_row *row, const char *path, struct buf *out)
{
	int64_t min, max;

	buf_printf(out, "%s\n    %s", path, type_names[row->type]);
	if (row->type == CONF_TYPE_ENUM) {
		for (int i = 0; row->choices[i]; i++)
			buf_printf(out, "%s%s", i ? ", " : " ", row->choices[i]);
	} else if (row->type == CONF_TYPE_INT && row->max) {
		conf_row_range(row, &min, &max);
		buf_printf(out, " %lld..%lld", (long long)min, (long long)max);
	}
	if (row->flags & CONF_REQUIRED)
		buf_addz(out, "; required");
	if (row->def)
		buf_printf(out, "; default %s", row->def);
	if (row->flags & CONF_FIXED)
		buf_addz(out, "; restart to change");
	if (row->help)
		buf_printf(out, "\n    %s", row->help);
	buf_putc(out, '\n');
}

static void help_object(const struct conf_object *object, const char *prefix, struct buf *out)
{
	for (const struct conf_row *row = object->rows; row->name; row++) {
		char path[512];

		if (row->type == CONF_TYPE_UNSUPPORTED)
			continue;
		snprintf(path, sizeof(path), "%s%s%s%s", prefix, prefix[0] ? "." : "", row->name,
			 row->type == CONF_TYPE_ARRAY ? "[]"
			 : row->type == CONF_TYPE_MAP ? ".NAME"
						      : "");
		help_row(row, path, out);
		if (row->object)
			help_object(row->object, path, out);
	}
}

void conf_help(const struct conf_object *root, struct buf *out)
{
	help_object(root, "", out);
}
