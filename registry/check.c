/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

#define INTERVAL_DEFAULT_MS 10000
#define TIMEOUT_DEFAULT_MS  2000

static const char *const type_names[] = { "http", "tcp", "grpc" };

const char *reg_check_type_name(enum reg_check_type type)
{
	return type_names[type];
}

__attribute__((format(printf, 3, 4))) static int wrong(struct reg_problem *problem,
						       const char *field, const char *fmt, ...)
{
	va_list ap;

	snprintf(problem->field, sizeof(problem->field), "check%s%.64s", field[0] ? "." : "",
		 field);
	va_start(ap, fmt);
	vsnprintf(problem->text, sizeof(problem->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int read_type(struct reg_check *c, const json_t *v, struct reg_problem *problem)
{
	const char *text = json_string_value(v);

	for (unsigned i = 0; text && i < ARRAY_SIZE(type_names); i++) {
		if (strcmp(text, type_names[i]) != 0)
			continue;
		c->type = (enum reg_check_type)i;
		return 0;
	}
	return wrong(problem, "type", "must be \"http\", \"tcp\" or \"grpc\"");
}

/* Visible ASCII: it is sent as a path. */
static int read_name(struct reg_check *c, const char *field, const json_t *v,
		     struct reg_problem *problem)
{
	struct str text = str_of(json_string_value(v), json_string_length(v));

	if (!json_is_string(v) || text.len > REG_CHECK_NAME_MAX)
		return wrong(problem, field, "must be a text of at most %d characters",
			     REG_CHECK_NAME_MAX);
	for (size_t i = 0; i < text.len; i++) {
		if (text.p[i] <= ' ' || text.p[i] >= 0x7f || text.p[i] == '"' || text.p[i] == '\\')
			return wrong(problem, field,
				     "must consist of visible ASCII characters, no quotes, no "
				     "backslashes");
	}
	memcpy(c->name, text.p, text.len);
	c->name[text.len] = '\0';
	return 0;
}

struct number {
	const char *name;
	int64_t min, max, value;
};

enum { PORT, INTERVAL, TIMEOUT, RISE, FALL, NUMBERS };

static int read_number(struct number *n, const json_t *v, struct reg_problem *problem)
{
	if (!json_is_integer(v) || json_integer_value(v) < n->min || json_integer_value(v) > n->max)
		return wrong(problem, n->name, "must be an integer from %lld to %lld",
			     (long long)n->min, (long long)n->max);
	n->value = json_integer_value(v);
	return 0;
}

static int read_member(struct reg_check *c, struct number *numbers, const char *name,
		       const json_t *v, struct reg_problem *problem)
{
	if (strcmp(name, "type") == 0)
		return read_type(c, v, problem);
	if (strcmp(name, "path") == 0 || strcmp(name, "service") == 0)
		return read_name(c, name, v, problem);
	for (size_t i = 0; i < NUMBERS; i++) {
		if (strcmp(numbers[i].name, name) == 0)
			return read_number(&numbers[i], v, problem);
	}
	return wrong(problem, name, "is no member of a check");
}

static int check_members(const struct reg_check *c, const json_t *json, struct reg_problem *problem)
{
	if (!json_object_get(json, "type"))
		return wrong(problem, "type", "is missing");
	if (json_object_get(json, "service") && c->type != REG_CHECK_GRPC)
		return wrong(problem, "service", "is for \"grpc\" only");
	if (json_object_get(json, "path") && c->type != REG_CHECK_HTTP)
		return wrong(problem, "path", "is for \"http\" only");
	if (c->type == REG_CHECK_HTTP && c->name[0] != '/')
		return wrong(problem, "path", "must begin with \"/\"");
	if (c->timeout_ms > c->interval_ms)
		return wrong(problem, "timeout_ms", "must not be longer than interval_ms");
	return 0;
}

int reg_check_read(struct reg_check *out, const json_t *json, struct reg_problem *problem)
{
	struct number numbers[NUMBERS] = {
		[PORT] = { "port", 1, UINT16_MAX, 0 },
		[INTERVAL] = { "interval_ms", 100, 3600000, INTERVAL_DEFAULT_MS },
		[TIMEOUT] = { "timeout_ms", 10, 60000, 0 },
		[RISE] = { "rise", 1, 20, 1 },
		[FALL] = { "fall", 1, 20, 2 },
	};
	struct reg_check c = { .name = "" };
	const char *name;
	json_t *v;
	int r;

	if (!json_is_object(json))
		return wrong(problem, "", "must be an object");
	json_object_foreach ((json_t *)(uintptr_t)json, name, v) {
		r = read_member(&c, numbers, name, v, problem);
		if (r < 0)
			return r;
	}
	if (c.type == REG_CHECK_HTTP && !c.name[0])
		memcpy(c.name, "/", 2);
	c.port = (uint16_t)numbers[PORT].value;
	c.interval_ms = (uint32_t)numbers[INTERVAL].value;
	c.timeout_ms = numbers[TIMEOUT].value ? (uint32_t)numbers[TIMEOUT].value
					      : MIN((uint32_t)TIMEOUT_DEFAULT_MS, c.interval_ms);
	c.rise = (unsigned)numbers[RISE].value;
	c.fall = (unsigned)numbers[FALL].value;
	r = check_members(&c, json, problem);
	if (r == 0)
		*out = c;
	return r;
}

void reg_check_write(const struct reg_check *c, struct buf *out)
{
	struct json_writer w = json_writer(out);

	json_open(&w, NULL, '{');
	json_addz(&w, "type", type_names[c->type]);
	if (c->name[0])
		json_addz(&w, c->type == REG_CHECK_HTTP ? "path" : "service", c->name);
	if (c->port)
		json_add_u64(&w, "port", c->port);
	json_add_u64(&w, "interval_ms", c->interval_ms);
	json_add_u64(&w, "timeout_ms", c->timeout_ms);
	json_add_u64(&w, "rise", c->rise);
	json_add_u64(&w, "fall", c->fall);
	json_close(&w, '}');
}

bool reg_check_parse(struct reg_check *out, struct str text)
{
	struct reg_problem problem = { 0 };
	json_t *json = json_loadb(text.p, text.len, 0, NULL);
	bool ok = json && reg_check_read(out, json, &problem) == 0;

	json_decref(json);
	return ok;
}
