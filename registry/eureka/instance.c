/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/eureka/instance.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

#define PORT_DEFAULT        7001
#define SECURE_PORT_DEFAULT 7002
#define RENEWAL_DEFAULT_S   30
#define LEASE_DEFAULT_S     90

/* --- what is kept: items of a key, a text and a NUL; what is as by default is left out ---------
 */

static const struct text_item {
	char key;
	size_t offset;
} text_items[] = {
	{ 'h', offsetof(struct eureka_info, host) },
	{ 'g', offsetof(struct eureka_info, group) },
	{ 'u', offsetof(struct eureka_info, home_url) },
	{ 's', offsetof(struct eureka_info, status_url) },
	{ 'c', offsetof(struct eureka_info, health_url) },
	{ 'C', offsetof(struct eureka_info, secure_health_url) },
	{ 'v', offsetof(struct eureka_info, vip) },
	{ 'V', offsetof(struct eureka_info, secure_vip) },
	{ 'a', offsetof(struct eureka_info, asg) },
	{ 'i', offsetof(struct eureka_info, sid) },
	{ 'd', offsetof(struct eureka_info, data_center) },
};

static struct str *text_of(struct eureka_info *info, const struct text_item *item)
{
	return (struct str *)(void *)((char *)info + item->offset);
}

static void put_text(struct buf *b, char key, struct str text)
{
	if (text.len == 0)
		return;
	buf_putc(b, key);
	buf_add(b, text);
	buf_putc(b, '\0');
}

static void put_number(struct buf *b, char key, uint64_t value)
{
	buf_putc(b, key);
	buf_u64(b, value);
	buf_putc(b, '\0');
}

int eureka_info_set(struct reg_instance *i, const struct eureka_info *info, struct arena *a)
{
	struct eureka_info copy = *info;
	struct str key, value;
	struct buf b;
	int r = 0;

	buf_init(&b, REG_EUREKA_BYTES);
	for (size_t n = 0; n < ARRAY_SIZE(text_items); n++)
		put_text(&b, text_items[n].key, *text_of(&copy, &text_items[n]));
	/* Odd is enabled. */
	put_number(&b, 'p', info->port * 2 + info->has_port);
	put_number(&b, 'P', info->secure_port * 2 + info->has_secure_port);
	if (info->renewal_s != RENEWAL_DEFAULT_S)
		put_number(&b, 'r', info->renewal_s);
	if (info->country != 1)
		put_number(&b, 'y', info->country);
	if (info->is_coordinating)
		put_number(&b, 'k', 1);
	if (info->dirty_ms)
		put_number(&b, 't', info->dirty_ms);
	if (info->up_ms)
		put_number(&b, 'U', info->up_ms);
	while (eureka_amazon_next(&copy.amazon, &key, &value)) {
		buf_putc(&b, 'm');
		buf_add(&b, key);
		buf_putc(&b, '=');
		buf_add(&b, value);
		buf_putc(&b, '\0');
	}
	if (buf_failed(&b)) {
		r = -E2BIG;
	} else {
		i->eureka = arena_str(a, buf_str(&b));
		r = i->eureka.p ? 0 : -ENOMEM;
	}
	buf_fini(&b);
	return r;
}

/* One item off the front; false at the end. */
static bool next_item(struct str *rest, char *key, struct str *text)
{
	struct str item;

	if (rest->len == 0 || !str_split(rest, '\0', &item) || item.len == 0)
		return false;
	*key = item.p[0];
	*text = str_sub(item, 1, item.len);
	return true;
}

bool eureka_amazon_next(struct str *rest, struct str *key, struct str *value)
{
	struct str item;
	ptrdiff_t equals;
	char kind;

	if (!next_item(rest, &kind, &item))
		return false;
	equals = str_chr(item, '=');
	if (kind != 'm' || equals < 0)
		return false;
	*key = str_sub(item, 0, (size_t)equals);
	*value = str_sub(item, (size_t)equals + 1, item.len);
	return true;
}

static void get_item(struct eureka_info *out, char key, struct str text)
{
	uint64_t n = 0;

	for (size_t t = 0; t < ARRAY_SIZE(text_items); t++) {
		if (text_items[t].key == key) {
			*text_of(out, &text_items[t]) = text;
			return;
		}
	}
	if (!str_u64(text, &n))
		return;
	switch (key) {
	case 'p':
		out->port = (uint32_t)n / 2;
		out->has_port = n % 2;
		break;
	case 'P':
		out->secure_port = (uint32_t)n / 2;
		out->has_secure_port = n % 2;
		break;
	case 'r':
		out->renewal_s = (uint32_t)n;
		break;
	case 'y':
		out->country = (uint32_t)n;
		break;
	case 'k':
		out->is_coordinating = n;
		break;
	case 't':
		out->dirty_ms = n;
		break;
	case 'U':
		out->up_ms = n;
		break;
	default:
		break;
	}
}

void eureka_info_get(struct eureka_info *out, const char *app, const struct reg_instance *i)
{
	struct str rest = i->eureka, text;
	char key;

	*out = (struct eureka_info) { .country = 1, .renewal_s = RENEWAL_DEFAULT_S };
	if (rest.len == 0) {
		/* Registered by our own API. */
		out->host = i->address;
		out->data_center = STR("MyOwn");
		*(i->is_secure ? &out->secure_vip : &out->vip) = str_from(app);
		out->port = i->is_secure ? PORT_DEFAULT : i->port;
		out->secure_port = i->is_secure ? i->port : SECURE_PORT_DEFAULT;
		out->has_port = !i->is_secure;
		out->has_secure_port = i->is_secure;
		out->renewal_s = MAX(i->lease_s / 3, 1U);
		return;
	}
	while (rest.len) {
		struct str from = rest;

		if (!next_item(&rest, &key, &text))
			return;
		if (key == 'm') {
			out->amazon = from;
			return;
		}
		get_item(out, key, text);
	}
}

/* --- reading --------------------------------------------------------------------------------- */

struct reading {
	struct arena *arena;
	struct eureka_problem *problem;
	int result; /* the first failure */
};

__attribute__((format(printf, 2, 3))) static int wrong(struct reading *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (r->result == 0) {
		vsnprintf(r->problem->text, sizeof(r->problem->text), fmt, ap);
		r->result = -EINVAL;
	}
	va_end(ap);
	return r->result;
}

/* A member that is there and not null. */
static const json_t *member(const json_t *object, const char *name)
{
	const json_t *v = json_object_get(object, name);

	return json_is_null(v) ? NULL : v;
}

/* Jackson turns numbers and truth into text where text is expected; so do we. A NULL p for what is
 * neither. */
static struct str scalar(struct reading *r, const json_t *v)
{
	const char *text = NULL;

	switch (json_typeof(v)) {
	case JSON_STRING:
		return arena_str(r->arena, str_of(json_string_value(v), json_string_length(v)));
	case JSON_INTEGER:
		text = arena_printf(r->arena, "%lld", (long long)json_integer_value(v));
		break;
	case JSON_REAL:
		text = arena_printf(r->arena, "%.17g", json_real_value(v));
		break;
	case JSON_TRUE:
		text = "true";
		break;
	case JSON_FALSE:
		text = "false";
		break;
	case JSON_OBJECT:
	case JSON_ARRAY:
	case JSON_NULL:
		return str_of(NULL, 0);
	}
	return text ? str_from(text) : str_of(NULL, 0);
}

/* "" when it is not there. */
static struct str text_member(struct reading *r, const json_t *object, const char *name)
{
	const json_t *v = member(object, name);
	struct str text = v ? scalar(r, v) : STR("");

	if (!text.p)
		wrong(r, "%s must be a text", name);
	return text.p ? text : STR("");
}

static bool number_of(const json_t *v, uint64_t *out)
{
	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*out = (uint64_t)json_integer_value(v);
		return true;
	}
	return json_is_string(v) &&
	       str_u64(str_trim(str_of(json_string_value(v), json_string_length(v))), out);
}

static bool is_true(const json_t *v, bool by_default)
{
	if (json_is_string(v))
		return strcasecmp(json_string_value(v), "true") == 0;
	return json_is_boolean(v) ? json_is_true(v) : by_default;
}

/* {"$": 8080, "@enabled": "true"}, or just the number. */
static void read_port(struct reading *r, const json_t *instance, const char *name, uint32_t *port,
		      bool *is_enabled)
{
	const json_t *v = member(instance, name);
	uint64_t n = *port;

	if (!v)
		return;
	if (json_is_object(v)) {
		const json_t *number = member(v, "$");

		*is_enabled = is_true(member(v, "@enabled"), *is_enabled);
		if (number && !number_of(number, &n))
			wrong(r, "%s must be a number", name);
	} else if (!number_of(v, &n)) {
		wrong(r, "%s must be a number", name);
	}
	if (n > UINT16_MAX)
		wrong(r, "%s must be from 0 to 65535", name);
	else
		*port = (uint32_t)n;
}

/* Zero or less, or nonsense, means the default to Eureka. */
static uint32_t read_seconds(const json_t *lease, const char *name, uint32_t by_default)
{
	uint64_t n;

	if (!number_of(member(lease, name), &n) || n == 0)
		return by_default;
	return (uint32_t)MIN(n, (uint64_t)REG_LEASE_MAX_S);
}

static enum reg_status read_status(struct reading *r, const json_t *instance, const char *name)
{
	struct str text = text_member(r, instance, name);
	enum reg_status status;

	if (text.len == 0)
		return REG_NO_STATUS;
	status = reg_status_parse(text);
	return status == REG_NO_STATUS ? REG_UNKNOWN : status;
}

/* The pairs of an object, each as `separator` says: with NUL between, or as Amazon's items. */
static struct str read_pairs(struct reading *r, const json_t *object, bool is_amazon)
{
	const char *key;
	json_t *value;
	struct buf b;
	struct str all = STR("");
	size_t count = 0;

	buf_init(&b, REG_METADATA_BYTES);
	json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
		struct str text;

		/* Java's class of the map; and a null is nothing. */
		if (strcmp(key, "@class") == 0 || json_is_null(value))
			continue;
		text = scalar(r, value);
		if (!text.p)
			wrong(r, "metadata %.64s must be a text", key);
		else if (text.len > REG_VALUE_MAX)
			wrong(r, "metadata %.64s must have at most %d bytes", key, REG_VALUE_MAX);
		if (!reg_is_metadata_key(str_from(key)) || (is_amazon && strchr(key, '=')))
			wrong(r,
			      "a key of the metadata must have 1 to %d bytes, none of them a "
			      "control character",
			      REG_TEXT_MAX);
		if (++count > REG_METADATA_MAX)
			wrong(r, "metadata must have at most %d members", REG_METADATA_MAX);
		if (r->result < 0)
			break;
		if (is_amazon)
			buf_putc(&b, 'm');
		buf_addz(&b, key);
		buf_putc(&b, is_amazon ? '=' : '\0');
		buf_add(&b, text);
		buf_putc(&b, '\0');
	}
	if (buf_failed(&b))
		wrong(r, "metadata must have at most %d bytes in all", REG_METADATA_BYTES);
	else if (buf_len(&b))
		all = arena_str(r->arena, buf_str(&b));
	if (!all.p && r->result == 0)
		r->result = -ENOMEM;
	buf_fini(&b);
	return all;
}

static struct str amazon_get(const struct eureka_info *info, const char *name)
{
	struct str rest = info->amazon, key, value;

	while (eureka_amazon_next(&rest, &key, &value)) {
		if (str_eqz(key, name))
			return value;
	}
	return str_of(NULL, 0);
}

/* instanceId, or what stands for it: Amazon's, Spring's in the metadata, the host. */
static void read_id(struct reading *r, const json_t *json, struct reg_instance *i,
		    const struct eureka_info *info)
{
	struct str springs = reg_metadata_get(i, "instanceId"), amazons;

	i->id = text_member(r, json, "instanceId");
	if (i->id.len == 0) {
		amazons = amazon_get(info, "instance-id");
		if (amazons.p)
			i->id = amazons;
		else if (springs.len)
			i->id = str_from(arena_printf(r->arena, "%.*s:%.*s", STR_ARG(info->host),
						      STR_ARG(springs)));
		else
			i->id = info->host;
	}
	if (i->id.len == 0)
		wrong(r, "Missing instanceId");
	else if (!reg_is_id(i->id))
		wrong(r, "instanceId must have at most %d visible ASCII characters", REG_ID_MAX);
}

static void read_data_center(struct reading *r, const json_t *json, struct eureka_info *info)
{
	const json_t *v = member(json, "dataCenterInfo"), *metadata;

	if (!v) {
		wrong(r, "Missing dataCenterInfo");
		return;
	}
	info->data_center = json_is_object(v) ? text_member(r, v, "name") : STR("");
	if (info->data_center.len == 0)
		wrong(r, "Missing dataCenterInfo Name");
	else if (!str_eqz(info->data_center, "MyOwn") && !str_eqz(info->data_center, "Amazon") &&
		 !str_eqz(info->data_center, "Netflix"))
		wrong(r, "dataCenterInfo Name must be MyOwn, Amazon or Netflix");
	metadata = member(v, "metadata");
	if (str_eqz(info->data_center, "Amazon") && json_is_object(metadata))
		info->amazon = read_pairs(r, metadata, true);
}

static void read_urls(struct reading *r, const json_t *json, struct eureka_info *info)
{
	info->group = text_member(r, json, "appGroupName");
	info->home_url = text_member(r, json, "homePageUrl");
	info->status_url = text_member(r, json, "statusPageUrl");
	info->health_url = text_member(r, json, "healthCheckUrl");
	info->secure_health_url = text_member(r, json, "secureHealthCheckUrl");
	info->vip = text_member(r, json, "vipAddress");
	info->secure_vip = text_member(r, json, "secureVipAddress");
	info->asg = text_member(r, json, "asgName");
	info->sid = text_member(r, json, "sid");
}

static void read_address(struct reading *r, const json_t *json, struct reg_instance *i)
{
	struct str text = str_trim(text_member(r, json, "ipAddr"));
	char canonical[NET_ADDR_LEN];
	struct net_addr addr;

	if (text.len == 0) {
		wrong(r, "Missing ip address");
	} else if (!reg_read_address(text, &addr)) {
		wrong(r, "ipAddr must be an IPv4 or IPv6 address that others can connect to");
	} else {
		i->address = arena_str(r->arena, str_from(net_format_ip(canonical, &addr)));
		if (!i->address.p && r->result == 0)
			r->result = -ENOMEM;
	}
}

static void check_app(struct reading *r, const json_t *json, const char *app)
{
	struct str text = str_trim(text_member(r, json, "app"));

	if (text.len == 0)
		wrong(r, "Missing appName");
	else if (!str_ieq(text, str_from(app)))
		wrong(r, "Mismatched appName, expecting %s but was %.*s", app,
		      (int)MIN(text.len, (size_t)REG_APP_MAX), text.p);
}

static bool is_hint(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	}
	return s.len > 0 && s.len <= REG_TEXT_MAX;
}

void eureka_read_hints(struct reg_instance *i, const struct eureka_info *info)
{
	struct str zone = amazon_get(info, "availability-zone"), weight, version;
	uint64_t n;

	if (!zone.p)
		zone = reg_metadata_get(i, "zone");
	weight = reg_metadata_get(i, "weight");
	version = reg_metadata_get(i, "version");
	if (is_hint(zone))
		i->zone = zone;
	if (is_hint(version))
		i->version = version;
	if (str_u64(weight, &n) && n > 0)
		i->weight = (uint16_t)MIN(n, (uint64_t)REG_WEIGHT_MAX);
}

/* Which of the two ports it is spoken to on. */
static void choose_port(struct reading *r, struct reg_instance *i, const struct eureka_info *info)
{
	i->is_secure = !info->has_port && info->has_secure_port;
	i->port = (uint16_t)(i->is_secure ? info->secure_port : info->port);
	if (i->port == 0)
		wrong(r, "%s must not be 0", i->is_secure ? "securePort" : "port");
}

int eureka_read(struct reg_instance *i, struct eureka_info *info, const json_t *json,
		const char *app, struct arena *a, struct eureka_problem *problem)
{
	struct reading r = { .arena = a, .problem = problem };
	const json_t *lease, *metadata;
	uint64_t n;

	*i = (struct reg_instance) {
		.address = STR(""),
		.zone = STR(""),
		.version = STR(""),
		.metadata = STR(""),
		.check = STR(""),
		.eureka = STR(""),
		.weight = REG_WEIGHT_DEFAULT,
	};
	*info = (struct eureka_info) {
		.port = PORT_DEFAULT,
		.secure_port = SECURE_PORT_DEFAULT,
		.has_port = true,
		.country = 1,
	};
	if (!json_is_object(json))
		return wrong(&r, "the body must hold an instance");
	/* The order decides what is told first. */
	metadata = member(json, "metadata");
	if (json_is_object(metadata))
		i->metadata = read_pairs(&r, metadata, false);
	info->host = str_trim(text_member(&r, json, "hostName"));
	if (json_is_object(member(member(json, "dataCenterInfo"), "metadata"))) {
		struct reading quiet = { .arena = a, .problem = &(struct eureka_problem) { "" } };

		read_data_center(&quiet, json, info);
	}
	read_id(&r, json, i, info);
	if (info->host.len == 0)
		wrong(&r, "Missing hostname");
	read_address(&r, json, i);
	check_app(&r, json, app);
	read_data_center(&r, json, info);
	read_urls(&r, json, info);
	read_port(&r, json, "port", &info->port, &info->has_port);
	read_port(&r, json, "securePort", &info->secure_port, &info->has_secure_port);
	choose_port(&r, i, info);
	lease = member(json, "leaseInfo");
	info->renewal_s = read_seconds(lease, "renewalIntervalInSecs", RENEWAL_DEFAULT_S);
	i->lease_s = read_seconds(lease, "durationInSecs", LEASE_DEFAULT_S);
	if (number_of(member(json, "countryId"), &n))
		info->country = (uint32_t)MIN(n, (uint64_t)UINT16_MAX);
	info->is_coordinating = is_true(member(json, "isCoordinatingDiscoveryServer"), false);
	/* Java's clients read a long; one number beyond would spoil the whole list for them. */
	if (number_of(member(json, "lastDirtyTimestamp"), &n) && n <= INT64_MAX)
		info->dirty_ms = n;
	i->status = read_status(&r, json, "status");
	if (i->status == REG_NO_STATUS)
		i->status = REG_UP;
	i->override = read_status(&r, json, "overriddenStatus");
	if (i->override == REG_NO_STATUS)
		i->override = read_status(&r, json, "overriddenstatus");
	if (i->override == REG_UNKNOWN)
		i->override = REG_NO_STATUS;
	eureka_read_hints(i, info);
	return r.result;
}
