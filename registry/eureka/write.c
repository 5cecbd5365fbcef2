/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/eureka/write.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "registry/eureka/instance.h"
#include "registry/eureka/xml.h"

#define DEFAULT_CENTER "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo"
#define AMAZON_CENTER  "com.netflix.appinfo.AmazonInfo"
#define EMPTY_MAP      "java.util.Collections$EmptyMap"

/* --- a value with a name, in either form ----------------------------------------------------- */

/* JSON only. */
static void key(struct eureka_writer *w, const char *name)
{
	if (w->needs_comma)
		buf_putc(w->out, ',');
	w->needs_comma = true;
	if (!name)
		return;
	json_quote(w->out, str_from(name));
	buf_putc(w->out, ':');
}

static void tag(struct eureka_writer *w, const char *before, const char *name, const char *after)
{
	buf_addz(w->out, before);
	buf_addz(w->out, name);
	buf_addz(w->out, after);
}

static void begin(struct eureka_writer *w, const char *name)
{
	if (w->is_xml) {
		tag(w, "<", name, ">");
		return;
	}
	key(w, name);
	buf_putc(w->out, '{');
	w->needs_comma = false;
}

static void end(struct eureka_writer *w, const char *name)
{
	if (w->is_xml)
		tag(w, "</", name, ">");
	else
		buf_putc(w->out, '}');
	w->needs_comma = true;
}

/* The document's root: in JSON an object around it. */
static void begin_root(struct eureka_writer *w, const char *name)
{
	if (!w->is_xml)
		buf_putc(w->out, '{');
	begin(w, name);
}

static void end_root(struct eureka_writer *w, const char *name)
{
	end(w, name);
	if (!w->is_xml)
		buf_putc(w->out, '}');
}

/* In XML a list is just its elements. */
static void begin_list(struct eureka_writer *w, const char *name)
{
	if (w->is_xml)
		return;
	key(w, name);
	buf_putc(w->out, '[');
	w->needs_comma = false;
}

static void end_list(struct eureka_writer *w)
{
	if (w->is_xml)
		return;
	buf_putc(w->out, ']');
	w->needs_comma = true;
}

static void begin_item(struct eureka_writer *w, const char *name)
{
	begin(w, w->is_xml ? name : NULL);
}

static void text(struct eureka_writer *w, const char *name, struct str value)
{
	if (w->is_xml) {
		tag(w, "<", name, ">");
		eureka_xml_text(w->out, value);
		tag(w, "</", name, ">");
		return;
	}
	key(w, name);
	json_quote(w->out, value);
}

static void textz(struct eureka_writer *w, const char *name, const char *value)
{
	text(w, name, str_from(value));
}

static void text_if(struct eureka_writer *w, const char *name, struct str value)
{
	if (value.len)
		text(w, name, value);
}

static void number(struct eureka_writer *w, const char *name, uint64_t value)
{
	if (w->is_xml) {
		tag(w, "<", name, ">");
		buf_u64(w->out, value);
		tag(w, "</", name, ">");
		return;
	}
	key(w, name);
	buf_u64(w->out, value);
}

/* A number that JSON clients expect as a text. */
static void number_text(struct eureka_writer *w, const char *name, uint64_t value)
{
	if (w->is_xml) {
		number(w, name, value);
		return;
	}
	key(w, name);
	buf_putc(w->out, '"');
	buf_u64(w->out, value);
	buf_putc(w->out, '"');
}

static void upper(struct eureka_writer *w, const char *name, const char *app)
{
	char big[REG_APP_MAX + 1];
	size_t len = 0;

	for (; len < REG_APP_MAX && app[len]; len++)
		big[len] = (char)toupper((unsigned char)app[len]);
	text(w, name, str_of(big, len));
}

/* One pair of a map; its key is no constant, and in XML a name. */
static void pair(struct eureka_writer *w, struct str name, struct str value)
{
	if (!w->is_xml) {
		key(w, NULL);
		json_quote(w->out, name);
		buf_putc(w->out, ':');
		json_quote(w->out, value);
		return;
	}
	buf_putc(w->out, '<');
	eureka_xml_name(w->out, name);
	buf_putc(w->out, '>');
	eureka_xml_text(w->out, value);
	buf_addz(w->out, "</");
	eureka_xml_name(w->out, name);
	buf_putc(w->out, '>');
}

/* --- an instance ----------------------------------------------------------------------------- */

static void write_port(struct eureka_writer *w, const char *name, uint32_t port, bool is_enabled)
{
	const char *enabled = is_enabled ? "true" : "false";

	if (w->is_xml) {
		buf_printf(w->out, "<%s enabled=\"%s\">%u</%s>", name, enabled, port, name);
		return;
	}
	begin(w, name);
	number(w, "$", port);
	textz(w, "@enabled", enabled);
	end(w, name);
}

static void begin_class(struct eureka_writer *w, const char *name, const char *class)
{
	if (w->is_xml) {
		buf_printf(w->out, "<%s class=\"%s\">", name, class);
		return;
	}
	begin(w, name);
	textz(w, "@class", class);
}

static void write_data_center(struct eureka_writer *w, const struct eureka_info *info)
{
	bool is_amazon = str_eqz(info->data_center, "Amazon");
	struct str rest = info->amazon, name, value;

	begin_class(w, "dataCenterInfo", is_amazon ? AMAZON_CENTER : DEFAULT_CENTER);
	text(w, "name", info->data_center);
	if (is_amazon) {
		begin(w, "metadata");
		while (eureka_amazon_next(&rest, &name, &value))
			pair(w, name, value);
		end(w, "metadata");
	}
	end(w, "dataCenterInfo");
}

static void write_metadata(struct eureka_writer *w, const struct reg_instance *i)
{
	struct str rest = i->metadata, name, value;

	if (rest.len == 0) {
		begin_class(w, "metadata", EMPTY_MAP);
		end(w, "metadata");
		return;
	}
	begin(w, "metadata");
	while (reg_metadata_next(&rest, &name, &value)) {
		/* Java loads what that names. */
		if (!str_eqz(name, "@class"))
			pair(w, name, value);
	}
	end(w, "metadata");
}

static uint64_t wall_of(const struct eureka_writer *w, uint64_t at_ms)
{
	return w->wall_ms - (w->now_ms - at_ms);
}

static void write_lease(struct eureka_writer *w, const struct reg_entry *e,
			const struct reg_instance *i, const struct eureka_info *info)
{
	bool is_gone = reg_entry_change(e) == REG_DELETE;
	uint64_t up_ms = info->up_ms;

	if (up_ms == 0 && reg_instance_status(i) == REG_UP)
		up_ms = i->registered_ms;
	begin(w, "leaseInfo");
	number(w, "renewalIntervalInSecs", info->renewal_s);
	number(w, "durationInSecs", i->lease_s);
	number(w, "registrationTimestamp", i->registered_ms);
	number(w, "lastRenewalTimestamp", wall_of(w, reg_entry_renewed_ms(e)));
	number(w, "evictionTimestamp", is_gone ? wall_of(w, reg_entry_changed_ms(e)) : 0);
	number(w, "serviceUpTimestamp", up_ms);
	end(w, "leaseInfo");
}

static const char *action_of(const struct reg_entry *e)
{
	switch (reg_entry_change(e)) {
	case REG_DELETE:
		return "DELETED";
	case REG_STATUS_CHANGE:
		return "MODIFIED";
	case REG_PUT:
		break;
	}
	return "ADDED";
}

/* The members in between, in the order of Netflix's codec. */
static void write_rest(struct eureka_writer *w, const struct reg_entry *e,
		       const struct reg_instance *i, const struct eureka_info *info)
{
	if (!w->is_compact) {
		number(w, "countryId", info->country);
		write_data_center(w, info);
		write_lease(w, e, i, info);
		write_metadata(w, i);
		text_if(w, "appGroupName", info->group);
		text_if(w, "homePageUrl", info->home_url);
		text_if(w, "statusPageUrl", info->status_url);
		text_if(w, "healthCheckUrl", info->health_url);
		text_if(w, "secureHealthCheckUrl", info->secure_health_url);
	} else {
		write_data_center(w, info);
	}
	text_if(w, "vipAddress", info->vip);
	text_if(w, "secureVipAddress", info->secure_vip);
	if (!w->is_compact)
		textz(w, "isCoordinatingDiscoveryServer", info->is_coordinating ? "true" : "false");
	number_text(w, "lastUpdatedTimestamp", wall_of(w, reg_entry_changed_ms(e)));
	if (!w->is_compact)
		number_text(w, "lastDirtyTimestamp",
			    info->dirty_ms ? info->dirty_ms : i->registered_ms);
	textz(w, "actionType", action_of(e));
	text_if(w, "asgName", info->asg);
}

static void write_members(struct eureka_writer *w, const struct reg_entry *e,
			  const struct reg_instance *i, const struct eureka_info *info)
{
	bool has_override = i->override != REG_NO_STATUS;

	text(w, "instanceId", i->id);
	text(w, "hostName", info->host);
	upper(w, "app", reg_entry_app(e));
	text(w, "ipAddr", i->address);
	if (!w->is_compact && !str_eqz(info->sid, "na") && !str_eqz(info->sid, "unknown"))
		text_if(w, "sid", info->sid);
	textz(w, "status", reg_status_name(reg_instance_status(i)));
	if (!w->is_compact)
		textz(w, w->is_xml ? "overriddenstatus" : "overriddenStatus",
		      has_override ? reg_status_name(i->override) : "UNKNOWN");
	write_port(w, "port", info->port, info->has_port);
	write_port(w, "securePort", info->secure_port, info->has_secure_port);
	write_rest(w, e, i, info);
}

static void write_entry(struct eureka_writer *w, const struct reg_entry *e)
{
	struct reg_instance i;
	struct eureka_info info;

	reg_entry_get(e, &i);
	eureka_info_get(&info, reg_entry_app(e), &i);
	write_members(w, e, &i, &info);
}

/* --- documents ------------------------------------------------------------------------------- */

void eureka_write_instance(struct eureka_writer *w, const struct reg_entry *e)
{
	begin_root(w, "instance");
	write_entry(w, e);
	end_root(w, "instance");
}

static void write_item(struct eureka_writer *w, const struct reg_entry *e)
{
	begin_item(w, "instance");
	write_entry(w, e);
	end(w, "instance");
}

static void begin_app(struct eureka_writer *w, const char *app)
{
	begin_item(w, "application");
	upper(w, "name", app);
	begin_list(w, "instance");
}

static void end_app(struct eureka_writer *w)
{
	end_list(w);
	end(w, "application");
}

static void write_instances(struct eureka_writer *w, const struct reg_app *app)
{
	for (const struct reg_entry *e = reg_app_next(app, NULL); e; e = reg_app_next(app, e))
		write_item(w, e);
}

void eureka_write_app(struct eureka_writer *w, const struct reg_app *app)
{
	begin_root(w, "application");
	upper(w, "name", reg_app_get_name(app));
	begin_list(w, "instance");
	write_instances(w, app);
	end_list(w);
	end_root(w, "application");
}

void eureka_write_hash(struct buf *out, const size_t by_status[REG_STATUSES])
{
	static const enum reg_status alphabetical[] = { REG_DOWN, REG_OUT_OF_SERVICE, REG_STARTING,
							REG_UNKNOWN, REG_UP };

	for (size_t n = 0; n < ARRAY_SIZE(alphabetical); n++) {
		enum reg_status s = alphabetical[n];

		if (by_status[s])
			buf_printf(out, "%s_%zu_", reg_status_name(s), by_status[s]);
	}
}

static void begin_apps(struct eureka_writer *w, const char *version,
		       const size_t by_status[REG_STATUSES])
{
	struct buf hash;

	buf_init(&hash, 0);
	eureka_write_hash(&hash, by_status);
	begin_root(w, "applications");
	textz(w, "versions__delta", version);
	text(w, "apps__hashcode", buf_str(&hash));
	begin_list(w, "application");
	buf_fini(&hash);
}

static void end_apps(struct eureka_writer *w)
{
	end_list(w);
	end_root(w, "applications");
}

void eureka_write_all(struct eureka_writer *w, const struct reg_store *store)
{
	begin_apps(w, "1", reg_store_stats(store)->by_status);
	for (const struct reg_app *app = reg_store_next_app(store, NULL); app;
	     app = reg_store_next_app(store, app)) {
		if (reg_app_count(app) == 0)
			continue;
		begin_app(w, reg_app_get_name(app));
		write_instances(w, app);
		end_app(w);
	}
	end_apps(w);
}

/* By app, then in the order of their changes. */
static int by_app(const void *a, const void *b)
{
	const struct reg_entry *x = *(const struct reg_entry *const *)a;
	const struct reg_entry *y = *(const struct reg_entry *const *)b;
	uintptr_t p = (uintptr_t)reg_entry_app(x), q = (uintptr_t)reg_entry_app(y);

	if (p != q)
		return p < q ? -1 : 1;
	return reg_entry_index(x) < reg_entry_index(y) ? -1 : 1;
}

int eureka_write_delta(struct eureka_writer *w, const struct reg_store *store, uint64_t since_ms)
{
	const struct reg_entry *first = reg_store_change_since(store, since_ms);
	CLEANUP(cleanup_free) const struct reg_entry **entries = NULL;
	size_t count = 0;
	char version[24];

	for (const struct reg_entry *e = first; e; e = reg_store_next_change(store, e))
		count++;
	entries = calloc(count + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	count = 0;
	for (const struct reg_entry *e = first; e; e = reg_store_next_change(store, e))
		entries[count++] = e;
	qsort(entries, count, sizeof(*entries), by_app);
	snprintf(version, sizeof(version), "%llu", (unsigned long long)reg_store_index(store));
	begin_apps(w, version, reg_store_stats(store)->by_status);
	for (size_t n = 0; n < count; n++) {
		if (n == 0 || reg_entry_app(entries[n]) != reg_entry_app(entries[n - 1]))
			begin_app(w, reg_entry_app(entries[n]));
		write_item(w, entries[n]);
		if (n + 1 == count || reg_entry_app(entries[n]) != reg_entry_app(entries[n + 1]))
			end_app(w);
	}
	end_apps(w);
	return 0;
}

/* A member of the list with commas. */
static bool has_vip(const struct reg_entry *e, struct str vip, bool is_secure)
{
	struct reg_instance i;
	struct eureka_info info;
	struct str rest, one;

	reg_entry_get(e, &i);
	eureka_info_get(&info, reg_entry_app(e), &i);
	rest = is_secure ? info.secure_vip : info.vip;
	while (rest.len && str_split(&rest, ',', &one)) {
		if (str_eq(str_trim(one), vip))
			return true;
	}
	return false;
}

static size_t count_vip(const struct reg_app *app, struct str vip, bool is_secure,
			size_t by_status[REG_STATUSES])
{
	size_t count = 0;

	for (const struct reg_entry *e = reg_app_next(app, NULL); e; e = reg_app_next(app, e)) {
		struct reg_instance i;

		if (!has_vip(e, vip, is_secure))
			continue;
		reg_entry_get(e, &i);
		by_status[reg_instance_status(&i)]++;
		count++;
	}
	return count;
}

static void write_vip_of_app(struct eureka_writer *w, const struct reg_app *app, struct str vip,
			     bool is_secure)
{
	size_t ignored[REG_STATUSES] = { 0 };

	if (count_vip(app, vip, is_secure, ignored) == 0)
		return;
	begin_app(w, reg_app_get_name(app));
	for (const struct reg_entry *e = reg_app_next(app, NULL); e; e = reg_app_next(app, e)) {
		if (has_vip(e, vip, is_secure))
			write_item(w, e);
	}
	end_app(w);
}

void eureka_write_vip(struct eureka_writer *w, const struct reg_store *store, struct str vip,
		      bool is_secure)
{
	size_t by_status[REG_STATUSES] = { 0 };

	for (const struct reg_app *app = reg_store_next_app(store, NULL); app;
	     app = reg_store_next_app(store, app))
		count_vip(app, vip, is_secure, by_status);
	begin_apps(w, "-1", by_status);
	for (const struct reg_app *app = reg_store_next_app(store, NULL); app;
	     app = reg_store_next_app(store, app))
		write_vip_of_app(w, app, vip, is_secure);
	end_apps(w);
}

/* --- about the server ------------------------------------------------------------------------ */

void eureka_write_server(struct eureka_writer *w, const struct reg_store *store)
{
	const struct reg_store_stats *s = reg_store_stats(store);
	const char *root = "com.netflix.eureka.util.StatusInfo";

	if (w->is_xml)
		tag(w, "<", root, ">");
	else
		begin(w, NULL);
	begin(w, "generalStats");
	textz(w, "environment", "gatehouse");
	textz(w, "server-version", GATEHOUSE_VERSION);
	end(w, "generalStats");
	begin(w, "applicationStats");
	number_text(w, "registered-instances", s->instances);
	number_text(w, "registered-applications", s->apps);
	textz(w, "registered-replicas", "");
	textz(w, "available-replicas", "");
	textz(w, "unavailable-replicas", "");
	end(w, "applicationStats");
	textz(w, "healthy", "true");
	if (w->is_xml)
		tag(w, "</", root, ">");
	else
		end(w, NULL);
}

void eureka_write_overrides(struct buf *out, const struct reg_store *store)
{
	struct json_writer j = json_writer(out);

	json_open(&j, NULL, '{');
	for (const struct reg_app *app = reg_store_next_app(store, NULL); app;
	     app = reg_store_next_app(store, app)) {
		for (const struct reg_entry *e = reg_app_next(app, NULL); e;
		     e = reg_app_next(app, e)) {
			struct reg_instance i;

			reg_entry_get(e, &i);
			if (i.override != REG_NO_STATUS)
				json_add_pair(&j, i.id, str_from(reg_status_name(i.override)));
		}
	}
	json_close(&j, '}');
}
