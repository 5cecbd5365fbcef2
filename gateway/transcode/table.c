/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/transcode/table.h"

#include "lib/cleanup.h"

struct transcode_table {
	struct proto_set *set;
	struct transcode_binding *bindings; /* in the order in which they are asked */
	size_t count;
};

/* --- loading ------------------------------------------------------------------------------- */

struct loading {
	struct transcode_table *table;
	transcode_complain *complain;
	void *ctx;
	bool has_failed;
};

static void complain(struct loading *l, const struct proto_rule *rule, const char *sentence)
{
	char text[700];

	snprintf(text, sizeof(text), "%.*s: %s", (int)MIN(rule->method->path.len, (size_t)150),
		 rule->method->path.p, sentence);
	l->complain(l->ctx, text);
	l->has_failed = true;
}

static void check_variables(struct loading *l, const struct transcode_binding *b)
{
	struct err err;

	for (size_t i = 0; i < b->rule.variable_count; i++) {
		if (proto_field_check(b->proto.method, b->rule.variables[i].field, &err) < 0)
			complain(l, &b->proto, err.text);
	}
}

static void add(struct loading *l, const struct proto_rule *rule)
{
	struct transcode_binding *b = &l->table->bindings[l->table->count];
	struct err err;

	*b = (struct transcode_binding) { .verb = rule->verb, .proto = *rule };
	if (http_rule_parse(&b->rule, rule->path, &err) < 0 || proto_rule_check(rule, &err) < 0) {
		complain(l, rule, err.text);
		return;
	}
	check_variables(l, b);
	l->table->count++;
}

static bool has_rule(const struct proto_rule *rules, size_t count,
		     const struct proto_method *method)
{
	for (size_t i = 0; i < count; i++) {
		if (rules[i].method == method)
			return true;
	}
	return false;
}

static int compare(const void *a, const void *b)
{
	return http_rule_compare(&((const struct transcode_binding *)a)->rule,
				 &((const struct transcode_binding *)b)->rule);
}

struct transcode_table *transcode_table_load(const char *file, transcode_complain *report,
					     void *ctx)
{
	struct transcode_table *table = calloc(1, sizeof(*table));
	struct loading l = { .table = table, .complain = report, .ctx = ctx };
	const struct proto_method *methods;
	const struct proto_rule *rules;
	size_t method_count, rule_count;
	struct err err;

	if (!table) {
		report(ctx, "out of memory");
		return NULL;
	}
	table->set = proto_set_load(file, &err);
	if (!table->set) {
		report(ctx, err.text);
		transcode_table_free(table);
		return NULL;
	}
	methods = proto_set_methods(table->set, &method_count);
	rules = proto_set_rules(table->set, &rule_count);
	table->bindings = calloc(method_count + rule_count, sizeof(*table->bindings));
	if (!table->bindings) {
		report(ctx, "out of memory");
		transcode_table_free(table);
		return NULL;
	}
	for (size_t i = 0; i < rule_count; i++)
		add(&l, &rules[i]);
	for (size_t i = 0; i < method_count; i++) {
		struct proto_rule plain = { .method = &methods[i],
					    .verb = STR("POST"),
					    .path = methods[i].path,
					    .body = STR("*") };

		if (!has_rule(rules, rule_count, &methods[i]))
			add(&l, &plain);
	}
	qsort(table->bindings, table->count, sizeof(*table->bindings), compare);
	if (!l.has_failed)
		return table;
	transcode_table_free(table);
	return NULL;
}

void transcode_table_free(struct transcode_table *table)
{
	if (!table)
		return;
	free(table->bindings);
	proto_set_free(table->set);
	free(table);
}

/* --- use ----------------------------------------------------------------------------------- */

static void add_allowed(struct str *allow, struct str verb, struct arena *a)
{
	struct str rest = *allow, one;
	char *list;

	while (allow->len && str_split(&rest, ',', &one)) {
		if (str_eq(str_trim(one), verb))
			return;
	}
	list = arena_printf(a, "%.*s%s%.*s", STR_ARG(*allow), allow->len ? ", " : "",
			    STR_ARG(verb));
	if (list)
		*allow = str_from(list);
}

const struct transcode_binding *transcode_table_match(const struct transcode_table *table,
						      struct str method, struct str path,
						      struct http_rule_value *values,
						      struct arena *a, struct str *allow)
{
	/* As everywhere, what answers GET answers HEAD. */
	struct str verb = str_eq(method, STR("HEAD")) ? STR("GET") : method;

	*allow = STR("");
	for (size_t i = 0; i < table->count; i++) {
		const struct transcode_binding *b = &table->bindings[i];

		if (!http_rule_match(&b->rule, path, values))
			continue;
		/* "*" is what http.proto calls any method. */
		if (str_eq(b->verb, verb) || str_eqz(b->verb, "*"))
			return b;
		add_allowed(allow, b->verb, a);
	}
	return NULL;
}

const struct proto_set *transcode_table_set(const struct transcode_table *table)
{
	return table->set;
}
