/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/instance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/cleanup.h"
#include "registry/check.h"

static const struct str status_names[REG_STATUSES] = {
	[REG_NO_STATUS] = STR(""),
	[REG_UP] = STR("UP"),
	[REG_DOWN] = STR("DOWN"),
	[REG_STARTING] = STR("STARTING"),
	[REG_OUT_OF_SERVICE] = STR("OUT_OF_SERVICE"),
	[REG_UNKNOWN] = STR("UNKNOWN"),
};

const char *reg_status_name(enum reg_status s)
{
	return status_names[s].p;
}

enum reg_status reg_status_parse(struct str text)
{
	for (unsigned s = REG_NO_STATUS + 1; s < REG_STATUSES; s++) {
		if (str_eq(text, status_names[s]))
			return s;
	}
	return REG_NO_STATUS;
}

int reg_instance_addr(const struct reg_instance *i, struct net_addr *out)
{
	return net_parse_ip(out, i->address, i->port);
}

bool reg_read_address(struct str text, struct net_addr *out)
{
	if (net_parse_ip(out, text, 0) < 0)
		return false;
	if (out->sa.sa_family == AF_INET) {
		uint32_t ip = ntohl(out->in.sin_addr.s_addr);

		return ip != INADDR_ANY && ip != INADDR_BROADCAST && !IN_MULTICAST(ip);
	}
	return !IN6_IS_ADDR_UNSPECIFIED(&out->in6.sin6_addr) &&
	       !IN6_IS_ADDR_MULTICAST(&out->in6.sin6_addr);
}

struct reg_instance reg_instance_copy(const struct reg_instance *i, struct arena *a)
{
	struct reg_instance copy = *i;

	copy.address = arena_str(a, i->address);
	copy.zone = arena_str(a, i->zone);
	copy.version = arena_str(a, i->version);
	copy.metadata = arena_str(a, i->metadata);
	copy.check = arena_str(a, i->check);
	copy.eureka = arena_str(a, i->eureka);
	copy.id = copy.address.p && copy.zone.p && copy.version.p && copy.metadata.p &&
				  copy.check.p && copy.eureka.p
			  ? arena_str(a, i->id)
			  : str_of(NULL, 0);
	return copy;
}

bool reg_metadata_next(struct str *rest, struct str *key, struct str *value)
{
	if (rest->len == 0)
		return false;
	*key = str_from(rest->p);
	*value = str_from(rest->p + key->len + 1);
	*rest = str_sub(*rest, key->len + value->len + 2, rest->len);
	return true;
}

struct str reg_metadata_get(const struct reg_instance *i, const char *key)
{
	struct str rest = i->metadata, k, v;

	while (reg_metadata_next(&rest, &k, &v)) {
		if (str_eqz(k, key))
			return v;
	}
	return str_of(NULL, 0);
}

bool reg_app_name(struct str name, char out[static REG_APP_MAX + 1])
{
	if (name.len == 0 || name.len > REG_APP_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		char c = name.p[i];

		if (!isalnum((unsigned char)c) && c != '.' && c != '_' && c != '-')
			return false;
		out[i] = (char)tolower((unsigned char)c);
	}
	out[name.len] = '\0';
	return true;
}

/* --- reading --------------------------------------------------------------------------------- */

/* What the readers of members share. */
struct reading {
	struct reg_instance *i;
	struct arena *arena;
	struct reg_problem *problem;
	enum reg_status reported;
};

__attribute__((format(printf, 3, 4))) static int wrong(struct reading *r, const char *field,
						       const char *fmt, ...)
{
	va_list ap;

	snprintf(r->problem->field, sizeof(r->problem->field), "%s", field);
	va_start(ap, fmt);
	vsnprintf(r->problem->text, sizeof(r->problem->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static bool has_control(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c < 0x20 || c == 0x7f)
			return true;
	}
	return false;
}

bool reg_is_metadata_key(struct str key)
{
	return key.len > 0 && key.len <= REG_TEXT_MAX && !has_control(key);
}

bool reg_is_id(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c <= 0x20 || c >= 0x7f)
			return false;
	}
	return s.len > 0 && s.len <= REG_ID_MAX;
}

static int read_text(struct reading *r, const char *field, const json_t *v, struct str *out)
{
	struct str text = str_of(json_string_value(v), json_string_length(v));

	if (!json_is_string(v))
		return wrong(r, field, "must be a string");
	if (text.len > REG_TEXT_MAX)
		return wrong(r, field, "must have at most %d bytes", REG_TEXT_MAX);
	if (has_control(text))
		return wrong(r, field, "must not hold control characters");
	*out = arena_str(r->arena, text);
	return out->p ? 0 : -ENOMEM;
}

static int read_number(struct reading *r, const char *field, const json_t *v, int64_t min,
		       int64_t max, int64_t *out)
{
	if (!json_is_integer(v))
		return wrong(r, field, "must be an integer");
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return wrong(r, field, "must be from %lld to %lld", (long long)min, (long long)max);
	*out = json_integer_value(v);
	return 0;
}

static int read_id(struct reading *r, const char *field, const json_t *v)
{
	struct str id = str_of(json_string_value(v), json_string_length(v));

	if (!json_is_string(v))
		return wrong(r, field, "must be a string");
	if (r->i->id.p)
		return str_eq(id, r->i->id) ? 0
					    : wrong(r, field, "differs from the one in the path");
	if (!reg_is_id(id))
		return wrong(r, field, "must have 1 to %d visible ASCII characters", REG_ID_MAX);
	r->i->id = arena_str(r->arena, id);
	return r->i->id.p ? 0 : -ENOMEM;
}

static int read_address(struct reading *r, const char *field, const json_t *v)
{
	struct str text = str_of(json_string_value(v), json_string_length(v));
	char canonical[NET_ADDR_LEN];
	struct net_addr addr;

	if (!json_is_string(v) || !reg_read_address(text, &addr))
		return wrong(r, field,
			     "must be an IPv4 or IPv6 address that others can connect to");
	r->i->address = arena_str(r->arena, str_from(net_format_ip(canonical, &addr)));
	return r->i->address.p ? 0 : -ENOMEM;
}

static int read_port(struct reading *r, const char *field, const json_t *v)
{
	int64_t n = 0;
	int rc = read_number(r, field, v, 1, UINT16_MAX, &n);

	if (rc == 0)
		r->i->port = (uint16_t)n;
	return rc;
}

static int read_secure(struct reading *r, const char *field, const json_t *v)
{
	if (!json_is_boolean(v))
		return wrong(r, field, "must be true or false");
	r->i->is_secure = json_is_true(v);
	return 0;
}

static int read_zone(struct reading *r, const char *field, const json_t *v)
{
	return read_text(r, field, v, &r->i->zone);
}

static int read_version(struct reading *r, const char *field, const json_t *v)
{
	return read_text(r, field, v, &r->i->version);
}

static int read_weight(struct reading *r, const char *field, const json_t *v)
{
	int64_t n = 0;
	int rc = read_number(r, field, v, 1, REG_WEIGHT_MAX, &n);

	if (rc == 0)
		r->i->weight = (uint16_t)n;
	return rc;
}

static int read_lease(struct reading *r, const char *field, const json_t *v)
{
	int64_t n = 0;
	int rc = read_number(r, field, v, 1, REG_LEASE_MAX_S, &n);

	if (rc == 0)
		r->i->lease_s = (uint32_t)n;
	return rc;
}

static int read_any_status(struct reading *r, const char *field, const json_t *v,
			   enum reg_status *out)
{
	struct str text = str_of(json_string_value(v), json_string_length(v));

	if (!json_is_string(v) || reg_status_parse(text) == REG_NO_STATUS)
		return wrong(r, field, "must be UP, DOWN, STARTING, OUT_OF_SERVICE or UNKNOWN");
	*out = reg_status_parse(text);
	return 0;
}

static int read_status(struct reading *r, const char *field, const json_t *v)
{
	return read_any_status(r, field, v, &r->i->status);
}

static int read_override(struct reading *r, const char *field, const json_t *v)
{
	return read_any_status(r, field, v, &r->i->override);
}

static int read_reported(struct reading *r, const char *field, const json_t *v)
{
	return read_any_status(r, field, v, &r->reported);
}

static int read_index(struct reading *r, const char *field, const json_t *v)
{
	int64_t n = 0;
	int rc = read_number(r, field, v, 0, INT64_MAX, &n);

	if (rc == 0)
		r->i->index = (uint64_t)n;
	return rc;
}

static int read_registered(struct reading *r, const char *field, const json_t *v)
{
	int64_t n = 0;
	int rc = read_number(r, field, v, 0, INT64_MAX, &n);

	if (rc == 0)
		r->i->registered_ms = (uint64_t)n;
	return rc;
}

/* The caller knows the app: from the path, or from around this object. */
static int read_app(struct reading *r, const char *field, const json_t *v)
{
	return json_is_string(v) ? 0 : wrong(r, field, "must be a string");
}

static int check_pair(struct reading *r, struct str key, const json_t *v)
{
	char field[96];

	snprintf(field, sizeof(field), "metadata.%.*s", (int)MIN(key.len, (size_t)64), key.p);
	if (!reg_is_metadata_key(key))
		return wrong(r, field,
			     "a key must have 1 to %d bytes, none of them a control character",
			     REG_TEXT_MAX);
	if (!json_is_string(v))
		return wrong(r, field, "must be a string");
	if (json_string_length(v) > REG_VALUE_MAX)
		return wrong(r, field, "must have at most %d bytes", REG_VALUE_MAX);
	if (memchr(json_string_value(v), 0, json_string_length(v)))
		return wrong(r, field, "must not hold a NUL");
	return 0;
}

static int read_metadata(struct reading *r, const char *field, const json_t *v)
{
	const char *key;
	json_t *value;
	size_t len = 0;
	char *at;

	if (!json_is_object(v))
		return wrong(r, field, "must be an object of strings");
	if (json_object_size(v) > REG_METADATA_MAX)
		return wrong(r, field, "must have at most %d members", REG_METADATA_MAX);
	/* jansson's iterators want a json_t that is not const, and leave it as it is. */
	json_object_foreach ((json_t *)(uintptr_t)v, key, value) {
		int rc = check_pair(r, str_from(key), value);

		if (rc < 0)
			return rc;
		len += strlen(key) + json_string_length(value) + 2;
	}
	if (len > REG_METADATA_BYTES)
		return wrong(r, field, "must have at most %d bytes in all", REG_METADATA_BYTES);
	at = arena_alloc(r->arena, len + 1);
	if (!at)
		return -ENOMEM;
	r->i->metadata = str_of(at, len);
	json_object_foreach ((json_t *)(uintptr_t)v, key, value) {
		at = stpcpy(at, key) + 1;
		at = stpcpy(at, json_string_value(value)) + 1;
	}
	return 0;
}

static int read_check(struct reading *r, const char *field, const json_t *v)
{
	struct reg_check check;
	struct buf text;
	int rc;

	(void)field;
	if (json_is_null(v))
		return 0;
	rc = reg_check_read(&check, v, r->problem);
	if (rc < 0)
		return rc;
	buf_init(&text, REG_CHECK_MAX);
	reg_check_write(&check, &text);
	if (!buf_failed(&text))
		r->i->check = arena_str(r->arena, buf_str(&text));
	buf_fini(&text);
	return r->i->check.len ? 0 : -ENOMEM;
}

static const struct member {
	const char *name;
	int (*read)(struct reading *r, const char *field, const json_t *v);
} members[] = {
	{ "id", read_id },
	{ "app", read_app },
	{ "address", read_address },
	{ "port", read_port },
	{ "secure", read_secure },
	{ "zone", read_zone },
	{ "version", read_version },
	{ "weight", read_weight },
	{ "lease_s", read_lease },
	{ "status", read_status },
	{ "override", read_override },
	{ "reported", read_reported },
	{ "index", read_index },
	{ "registered_ms", read_registered },
	{ "metadata", read_metadata },
	{ "check", read_check },
};

static int read_member(struct reading *r, const char *name, const json_t *v)
{
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		if (strcmp(members[i].name, name) == 0)
			return members[i].read(r, name, v);
	}
	return wrong(r, name, "is no member of an instance");
}

int reg_instance_read(struct reg_instance *out, const json_t *json, struct str id,
		      uint32_t default_lease_s, struct arena *a, struct reg_problem *problem)
{
	struct reg_instance i = {
		.zone = STR(""),
		.version = STR(""),
		.metadata = STR(""),
		.check = STR(""),
		.eureka = STR(""),
		.weight = REG_WEIGHT_DEFAULT,
	};
	struct reading r = { .i = &i, .arena = a, .problem = problem };
	const char *name;
	json_t *v;

	if (!json_is_object(json))
		return wrong(&r, "", "must be a JSON object");
	if (id.p) {
		if (!reg_is_id(id))
			return wrong(&r, "id", "must have 1 to %d visible ASCII characters",
				     REG_ID_MAX);
		i.id = arena_str(a, id);
		if (!i.id.p)
			return -ENOMEM;
	}
	json_object_foreach ((json_t *)(uintptr_t)json, name, v) {
		int rc = read_member(&r, name, v);

		if (rc < 0)
			return rc;
	}
	if (!i.id.p)
		return wrong(&r, "id", "is missing");
	if (!i.address.p)
		return wrong(&r, "address", "is missing");
	if (!i.port)
		return wrong(&r, "port", "is missing");
	if (i.check.len && i.is_secure && str_starts(i.check, STR("{\"type\":\"grpc\"")))
		return wrong(&r, "check", "of type \"grpc\" is not possible with \"secure\"");
	if (r.reported != REG_NO_STATUS)
		i.status = r.reported;
	/* Whoever is checked need not renew, and is what the check says. */
	if (i.status == REG_NO_STATUS)
		i.status = i.check.len ? REG_STARTING : REG_UP;
	if (!i.lease_s)
		i.lease_s = i.check.len ? REG_LEASE_MAX_S : default_lease_s;
	*out = i;
	return 0;
}

/* --- writing --------------------------------------------------------------------------------- */

void reg_instance_write(struct json_writer *w, const char *key, const char *app,
			const struct reg_instance *i)
{
	struct str rest = i->metadata, k, v;

	json_open(w, key, '{');
	if (app)
		json_addz(w, "app", app);
	json_add_str(w, "id", i->id);
	json_add_str(w, "address", i->address);
	json_add_u64(w, "port", i->port);
	json_add_bool(w, "secure", i->is_secure);
	json_add_str(w, "zone", i->zone);
	json_add_u64(w, "weight", i->weight);
	json_add_str(w, "version", i->version);
	json_addz(w, "status", reg_status_name(reg_instance_status(i)));
	if (reg_is_overridden(i->override, i->status, i->eureka.len > 0)) {
		json_addz(w, "override", reg_status_name(i->override));
		json_addz(w, "reported", reg_status_name(i->status));
	}
	json_add_u64(w, "lease_s", i->lease_s);
	json_open(w, "metadata", '{');
	while (reg_metadata_next(&rest, &k, &v))
		json_add_pair(w, k, v);
	json_close(w, '}');
	if (i->check.len)
		json_add_raw(w, "check", i->check);
	if (i->index)
		json_add_u64(w, "index", i->index);
	if (i->registered_ms)
		json_add_u64(w, "registered_ms", i->registered_ms);
	json_close(w, '}');
}
