/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/ctl/revoke.h"

#include <jansson.h>
#include <stdio.h>

#include "gateway/identity/revoked.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/table.h"

/* "now", Unix seconds, a date, or "+3600" from now. */
static bool parse_time(const char *text, int64_t *out)
{
	int64_t now_s = (int64_t)(clock_wall_ms() / MSEC_PER_SEC);
	bool is_from_now = text[0] == '+';
	uint64_t number;

	if (strcmp(text, "now") == 0) {
		*out = now_s;
		return true;
	}
	if (str_u64(str_from(text + is_from_now), &number) && number < (1ULL << 40)) {
		*out = (int64_t)number + (is_from_now ? now_s : 0);
		return true;
	}
	if (clock_parse_rfc3339(text, &number) < 0)
		return false;
	*out = (int64_t)(number / MSEC_PER_SEC);
	return true;
}

const char *ctl_revoke_body(const struct ctl_revoke *o, bool is_removal, struct buf *out)
{
	struct json_writer w = json_writer(out);
	int64_t before_s = 0, until_s = 0;

	if (!!o->jti + !!o->sub + !!o->api_key != 1)
		return "say one of --jti, --sub and --api-key";
	if (o->issued_before && !parse_time(o->issued_before, &before_s))
		return "--issued-before is now, Unix seconds, or a date such as "
		       "2027-01-01T00:00:00Z";
	if (o->until && !parse_time(o->until, &until_s))
		return "--until is Unix seconds, +SECONDS from now, or a date such as "
		       "2027-01-01T00:00:00Z";
	if (o->is_ban && (!o->sub || o->issued_before))
		return "--ban is for --sub, without --issued-before";
	/* Tokens of this very second as well: whoever wants to come back waits for the next. */
	if (o->sub && !o->is_ban && !o->issued_before)
		before_s = (int64_t)(clock_wall_ms() / MSEC_PER_SEC) + 1;
	json_open(&w, NULL, '{');
	json_addz(&w,
		  o->jti   ? "jti"
		  : o->sub ? "sub"
			   : "api_key",
		  o->jti   ? o->jti
		  : o->sub ? o->sub
			   : o->api_key);
	if (o->auth)
		json_addz(&w, "auth", o->auth);
	if (before_s && !is_removal)
		json_add_i64(&w, "issued_before", before_s);
	if (o->until && !is_removal)
		json_add_i64(&w, "until", until_s);
	json_close(&w, '}');
	return NULL;
}

void ctl_revoke_print(const struct http_answer *answer, bool is_removal)
{
	json_t *json = json_loadb(buf_str(&answer->body).p, buf_len(&answer->body), 0, NULL);

	puts(is_removal ? "unrevoked" : "revoked, in all workers");
	if (!is_removal && json_is_false(json_object_get(json, "survives_restart")))
		fputs("gatewayctl: note: a restart or upgrade forgets it, there is no "
		      "revocations.state in the configuration\n",
		      stderr);
	json_decref(json);
}

static void cell_time(struct table *t, const json_t *value, const char *none)
{
	char date[CLOCK_RFC3339_LEN + 1];

	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		table_cell(t, "%s", none);
		return;
	}
	clock_rfc3339(date, (uint64_t)json_integer_value(value) * MSEC_PER_SEC);
	table_cell(t, "%s", date);
}

void ctl_revocations_print(const struct http_answer *answer)
{
	static const char *const header[] = { "WHAT",  "VALUE", "AUTH", "ISSUED BEFORE",
					      "UNTIL", "BY",    NULL };
	json_t *json = json_loadb(buf_str(&answer->body).p, buf_len(&answer->body), 0, NULL);
	const json_t *list = json_object_get(json, "revoked"), *item;
	json_int_t count = json_integer_value(json_object_get(json, "count"));
	struct table *t = table_new(header);
	size_t i;

	json_array_foreach (list, i, item) {
		unsigned kind = 0;

		while (kind < REVOKED_KINDS - 1 && !json_object_get(item, revoked_kinds[kind]))
			kind++;
		if (!t)
			break;
		table_cell(t, "%s", revoked_kinds[kind]);
		table_cell(t, "%s", json_string_value(json_object_get(item, revoked_kinds[kind])));
		table_cell(t, "%s",
			   json_object_get(item, "auth")
				   ? json_string_value(json_object_get(item, "auth"))
				   : "(any)");
		cell_time(t, json_object_get(item, "issued_before"), "(all)");
		cell_time(t, json_object_get(item, "until"), "(no end)");
		table_cell(t, "%s", json_string_value(json_object_get(item, "source")));
	}
	if (t)
		table_print(t);
	if (count > (json_int_t)json_array_size(list))
		printf("and %lld more\n", (long long)(count - (json_int_t)json_array_size(list)));
	json_decref(json);
}
