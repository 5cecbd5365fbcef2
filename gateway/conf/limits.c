/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/conf/limits.h"

#include "gateway/conf/conf.h"
#include "lib/arena.h"
#include "lib/cleanup.h"

/* --- limits -------------------------------------------------------------------------------- */

/* A list of parts is the same as their names joined by "+". */
static bool join_parts(struct conf *c, const json_t *list, struct str *out)
{
	const char *joined = "";
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		struct str part;

		if (!conf_string(c, item, &part))
			return false;
		joined = arena_printf(conf_arena(c), "%s%s%s", joined, i ? "+" : "", part.p);
		if (!joined) {
			conf_error(c, "out of memory");
			return false;
		}
	}
	*out = str_from(joined);
	return true;
}

static void parse_limit_key(struct conf *c, void *field, const json_t *value)
{
	const char *complaint;
	struct str text;

	if (json_is_array(value) ? !join_parts(c, value, &text) : !conf_string(c, value, &text))
		return;
	complaint = limits_parse_key(field, text);
	if (complaint)
		conf_error(c, "%s", complaint);
}

#define LIMIT_KEY_SCHEMA                                                         \
	"{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\"," \
	"\"minItems\":1,\"maxItems\":4,\"items\":{\"type\":\"string\"}}]}"

static void check_limit(struct conf *c, void *object)
{
	struct gw_limit *limit = object;
	struct limits_rule rule;
	const char *complaint;

	if (limit->key.part_count == 0 || limit->limit == 0 || limit->window_s == 0)
		return; /* said already */
	complaint = limits_rule_init(&rule, STR("x"), &limit->key, limit->limit, limit->window_s,
				     limit->burst);
	if (complaint)
		conf_error(c, "%s", complaint);
}

static const struct conf_row limit_rows[] = {
	{ CONF_CUSTOM("key", struct gw_limit, key, parse_limit_key), .flags = CONF_REQUIRED,
	  .schema = LIMIT_KEY_SCHEMA,
	  .help = "Whom to count: user, ip, endpoint, global, api_key, header:NAME, claim:NAME, or "
		  "several." },
	{ CONF_INT("limit", struct gw_limit, limit), .min = 1, .max = 1000000000,
	  .flags = CONF_REQUIRED, .help = "Requests per window." },
	{ CONF_INT("window_s", struct gw_limit, window_s), .min = 1, .max = 31LL * 86400,
	  .flags = CONF_REQUIRED, .help = "The window in seconds." },
	{ CONF_INT("burst", struct gw_limit, burst), .min = 1, .max = 1000000000,
	  .help = "Requests that may come at once; the limit when not given." },
	{ CONF_BOOL("shadow", struct gw_limit, is_shadow), .def = "false",
	  .help = "Only count and log whom it would refuse." },
	{ 0 },
};
const struct conf_object gw_limit_object =
	CONF_OBJECT_OF(struct gw_limit, limit_rows, .name_offset = offsetof(struct gw_limit, name),
		       .check = check_limit);

/* --- the store ----------------------------------------------------------------------------- */

void gw_parse_redis_url(struct conf *c, void *field, const json_t *value)
{
	struct str text;
	struct err err;

	if (conf_string(c, value, &text) && redis_url_parse(field, text, &err) < 0)
		conf_error(c, "%s", err.text);
}

static const char *valid_prefix(struct str prefix)
{
	for (size_t i = 0; i < prefix.len; i++) {
		if (prefix.p[i] <= ' ' || prefix.p[i] > '~')
			return "must be printable ASCII without spaces";
	}
	return NULL;
}

static void check_store(struct conf *c, void *object)
{
	struct gw_limit_store *store = object;
	static const char *const of_redis[] = { "url", "prefix", "on_failure", "timeout_ms",
						"gateways" };

	if (store->type == GW_LIMITS_REDIS && !conf_has(c, "url"))
		conf_error(c, "must have a \"url\" when its type is \"redis\"");
	for (size_t i = 0; i < ARRAY_SIZE(of_redis) && store->type == GW_LIMITS_LOCAL; i++) {
		if (conf_has(c, of_redis[i]) && !conf_has(c, "type"))
			conf_error_at(c, of_redis[i], "needs \"type\": \"redis\"");
	}
}

static const char *const store_types[] = { "local", "redis", NULL };
static const char *const failures[] = { "local", "open", "closed", NULL };

static const struct conf_row store_rows[] = {
	{ CONF_ENUM("type", struct gw_limit_store, type, store_types), .def = "\"local\"",
	  .flags = CONF_FIXED,
	  .help = "Where to count: local, each gateway for itself, or redis, all in common." },
	{ CONF_INT("keys", struct gw_limit_store, keys), .min = 1024, .max = 1 << 28,
	  .def = "1048576", .flags = CONF_FIXED,
	  .help = "Counters in memory at once, 16 bytes each (redis: 48); the idlest make room for "
		  "new ones." },
	{ CONF_CUSTOM("url", struct gw_limit_store, url, gw_parse_redis_url), .flags = CONF_FIXED,
	  .schema = "{\"type\":\"string\"}",
	  .help = "redis: redis://[[USER]:PASSWORD@]ADDRESS[:PORT][/DB] or unix:/path." },
	{ CONF_STRING("prefix", struct gw_limit_store, prefix), .def = "\"gatehouse:\"", .max = 64,
	  .valid = valid_prefix, .flags = CONF_FIXED,
	  .help = "redis: what all keys begin with; the domain and the limit's name follow." },
	{ CONF_ENUM("on_failure", struct gw_limit_store, on_failure, failures), .def = "\"local\"",
	  .flags = CONF_FIXED,
	  .help = "redis: while it does not answer: local, each gateway lets its share pass; open, "
		  "all pass; closed, all are refused." },
	{ CONF_INT("timeout_ms", struct gw_limit_store, timeout_ms), .min = 10, .max = 60000,
	  .def = "250", .flags = CONF_FIXED,
	  .help = "redis: an answer later than this is a failure. No request waits for it." },
	{ CONF_INT("gateways", struct gw_limit_store, gateways), .min = 1, .max = 10000, .def = "1",
	  .flags = CONF_FIXED,
	  .help = "redis: how many gateways share the limits, where no registry tells." },
	{ 0 },
};
const struct conf_object gw_limit_store_object = CONF_OBJECT_OF(struct gw_limit_store, store_rows,
								.check = check_store);
