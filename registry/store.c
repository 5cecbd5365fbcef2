/* SPDX-License-Identifier: Apache-2.0 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "registry/quota.h"
#include "registry/store_private.h"

#define MAX_INSTANCES  1000000
#define MAX_BYTES      (1UL << 30)
#define MAX_TOMBSTONES 65536
#define TOMBSTONE_MS   180000
#define HOLD_LEASES    10 /* after so many lease times a held instance goes all the same */
#define ASK_AGAIN_MS   1000

/* --- look-up --------------------------------------------------------------------------------- */

static uint64_t app_hash(const struct reg_store *s, struct str name)
{
	return hash_sip13(&s->key, name.p, name.len);
}

static uint64_t entry_hash(const struct reg_store *s, const struct reg_app *app, struct str id)
{
	return hash_sip13(&s->key, id.p, id.len) ^ hash_mix64(app->by_name.hash);
}

struct reg_app *reg_store_find_app(const struct reg_store *s, struct str name)
{
	uint64_t hash = app_hash(s, name);

	for (struct hmap_node *n = hmap_first(&s->apps_by_name, hash); n; n = hmap_next(n)) {
		struct reg_app *app = container_of(n, struct reg_app, by_name);

		if (str_eqz(name, app->name))
			return app;
	}
	return NULL;
}

/* Alive or departed. */
static struct reg_entry *entry_find(const struct reg_store *s, const struct reg_app *app,
				    struct str id)
{
	uint64_t hash;

	if (!app)
		return NULL;
	hash = entry_hash(s, app, id);
	for (struct hmap_node *n = hmap_first(&s->entries, hash); n; n = hmap_next(n)) {
		struct reg_entry *e = container_of(n, struct reg_entry, by_key);

		if (e->app == app && str_eq(str_of(e->text, e->id_len), id))
			return e;
	}
	return NULL;
}

struct reg_entry *reg_store_find_entry(const struct reg_store *s, struct str app, struct str id)
{
	struct reg_entry *e = entry_find(s, reg_store_find_app(s, app), id);

	return e && !e->is_departed ? e : NULL;
}

/* --- apps ------------------------------------------------------------------------------------ */

static struct reg_app *app_new(struct reg_store *s, struct str name)
{
	struct reg_app *app = calloc(1, sizeof(*app) + name.len + 1);

	if (!app)
		return NULL;
	memcpy(app->name, name.p, name.len);
	list_init(&app->instances);
	if (hmap_insert(&s->apps_by_name, &app->by_name, app_hash(s, name)) < 0) {
		free(app);
		return NULL;
	}
	list_add_tail(&s->apps, &app->node);
	return app;
}

static void app_drop_if_empty(struct reg_store *s, struct reg_app *app)
{
	if (app->entries)
		return;
	hmap_remove(&s->apps_by_name, &app->by_name);
	list_remove(&app->node);
	free(app);
}

/* The number of apps with an instance follows from each app's count. */
static void app_count(struct reg_store *s, struct reg_app *app, int by)
{
	if (app->count == 0)
		s->stats.apps++;
	app->count += (size_t)by;
	if (app->count == 0)
		s->stats.apps--;
}

/* --- entries --------------------------------------------------------------------------------- */

static size_t entry_size(const struct reg_entry *e)
{
	return sizeof(*e) + e->id_len + e->address_len + e->zone_len + e->version_len +
	       e->metadata_len + e->check_len + e->eureka_len;
}

static size_t instance_size(const struct reg_instance *i)
{
	return sizeof(struct reg_entry) + i->id.len + i->address.len + i->zone.len +
	       i->version.len + i->metadata.len + i->check.len + i->eureka.len;
}

static char *put_text(char *at, struct str s, uint16_t *len)
{
	if (s.len)
		memcpy(at, s.p, s.len);
	*len = (uint16_t)s.len;
	return at + s.len;
}

static struct reg_entry *entry_new(struct reg_app *app, const struct reg_instance *i)
{
	struct reg_entry *e = calloc(1, instance_size(i));
	uint16_t check_len;
	char *at;

	if (!e)
		return NULL;
	e->app = app;
	e->registered_ms = i->registered_ms;
	e->index = i->index;
	e->lease_s = i->lease_s;
	e->port = i->port;
	e->weight = i->weight;
	e->is_secure = i->is_secure;
	e->status = (uint8_t)i->status;
	e->override = (uint8_t)i->override;
	at = put_text(e->text, i->id, &e->id_len);
	at = put_text(at, i->address, &e->address_len);
	at = put_text(at, i->zone, &e->zone_len);
	at = put_text(at, i->version, &e->version_len);
	at = put_text(at, i->metadata, &e->metadata_len);
	at = put_text(at, i->check, &check_len);
	e->check_len = (uint8_t)check_len;
	put_text(at, i->eureka, &e->eureka_len);
	list_init(&e->in_app);
	list_init(&e->in_changes);
	return e;
}

void reg_entry_get(const struct reg_entry *e, struct reg_instance *out)
{
	const char *at = e->text;

	*out = (struct reg_instance) {
		.lease_s = e->lease_s,
		.port = e->port,
		.weight = e->weight,
		.is_secure = e->is_secure,
		.status = e->status,
		.override = e->override,
		.index = e->index,
		.registered_ms = e->registered_ms,
	};
	out->id = str_of(at, e->id_len);
	at += e->id_len;
	out->address = str_of(at, e->address_len);
	at += e->address_len;
	out->zone = str_of(at, e->zone_len);
	at += e->zone_len;
	out->version = str_of(at, e->version_len);
	at += e->version_len;
	out->metadata = str_of(at, e->metadata_len);
	at += e->metadata_len;
	out->check = str_of(at, e->check_len);
	at += e->check_len;
	out->eureka = str_of(at, e->eureka_len);
}

static enum reg_status entry_status(const struct reg_entry *e)
{
	return reg_is_overridden(e->override, e->status, e->eureka_len > 0) ? e->override
									    : e->status;
}

static bool entry_says(const struct reg_entry *e, const struct reg_instance *i)
{
	struct reg_instance mine;

	reg_entry_get(e, &mine);
	return (i->override == REG_NO_STATUS || mine.override != REG_NO_STATUS) &&
	       mine.lease_s == i->lease_s && mine.port == i->port && mine.weight == i->weight &&
	       mine.is_secure == i->is_secure && mine.status == i->status &&
	       str_eq(mine.address, i->address) && str_eq(mine.zone, i->zone) &&
	       str_eq(mine.version, i->version) && str_eq(mine.metadata, i->metadata) &&
	       str_eq(mine.check, i->check) && str_eq(mine.eureka, i->eureka);
}

/* What the check found out stays when the instance registers again, whatever it says of itself but
 * that it is out of service. */
static enum reg_status entry_checked_status(const struct reg_entry *e, const struct reg_instance *i)
{
	struct reg_instance mine;

	reg_entry_get(e, &mine);
	if (!i->check.len || !str_eq(mine.check, i->check) || i->status == REG_OUT_OF_SERVICE ||
	    mine.status == REG_OUT_OF_SERVICE)
		return i->status;
	return mine.status;
}

/* Counts an instance in or out: everything that is a sum over the living. */
static void entry_count(struct reg_store *s, struct reg_entry *e, int by)
{
	s->stats.instances += (size_t)by;
	s->stats.by_status[entry_status(e)] += (size_t)by;
	app_count(s, e->app, by);
	reg_pulse_expect(&s->pulse, e->lease_s, by);
}

/* Into the app's list and the maps. */
static int entry_link(struct reg_store *s, struct reg_entry *e)
{
	struct reg_app *app = e->app;
	struct str id = str_of(e->text, e->id_len);

	if (hmap_insert(&s->entries, &e->by_key, entry_hash(s, app, id)) < 0)
		return -ENOMEM;
	list_add_tail(&app->instances, &e->in_app);
	list_add_tail(&s->changes, &e->in_changes);
	app->entries++;
	s->stats.bytes += entry_size(e);
	entry_count(s, e, 1);
	return 0;
}

static void entry_free(struct reg_store *s, struct reg_entry *e)
{
	list_remove(&e->in_app);
	list_remove(&e->in_changes);
	s->stats.bytes -= entry_size(e);
	reg_quota_give(e->client);
	e->app->entries--;
	app_drop_if_empty(s, e->app);
	free(e);
}

static void entry_changed(struct reg_store *s, struct reg_entry *e, enum reg_change change,
			  uint64_t now_ms)
{
	e->changed_ms = now_ms;
	e->index = ++s->index;
	e->app->index = e->index;
	e->change = (uint8_t)change;
	list_remove(&e->in_changes);
	list_add_tail(&s->changes, &e->in_changes);
	if (s->config.on_change)
		s->config.on_change(e, change, s->config.arg);
}

/* --- leases ---------------------------------------------------------------------------------- */

static void entry_release(struct reg_store *s, struct reg_entry *e)
{
	if (!e->is_held)
		return;
	e->is_held = false;
	if (--s->stats.held == 0 && s->config.on_preserving)
		s->config.on_preserving(false, s->config.arg);
}

void reg_store_extend(struct reg_store *s, struct reg_entry *e, uint64_t at_ms)
{
	e->renewed_ms = at_ms;
	entry_release(s, e);
	wheel_add(&s->leases, &e->lease, at_ms + e->lease_s * MSEC_PER_SEC);
}

static void entry_renew(struct reg_store *s, struct reg_entry *e, uint64_t now_ms)
{
	reg_pulse_beat(&s->pulse, now_ms, now_ms - e->renewed_ms, e->lease_s);
	reg_store_extend(s, e, now_ms);
}

/* Of a departed one nothing is left. */
static void entry_bury(struct reg_store *s, struct reg_entry *e)
{
	s->stats.tombstones--;
	hmap_remove(&s->entries, &e->by_key);
	entry_free(s, e);
}

/* The oldest departures are forgotten; who has not seen them yet needs the full state. */
static void store_forget_oldest(struct reg_store *s)
{
	struct reg_entry *e = container_of(s->departed.next, struct reg_entry, in_app);

	s->history_index = e->index;
	entry_bury(s, e);
}

static void store_forget(struct reg_store *s, uint64_t now_ms)
{
	while (!list_empty(&s->departed)) {
		const struct reg_entry *e = container_of(s->departed.next, struct reg_entry,
							 in_app);

		if (s->stats.tombstones <= s->config.max_tombstones &&
		    now_ms - e->renewed_ms < s->config.tombstone_ms)
			return;
		store_forget_oldest(s);
	}
}

void reg_store_bury(struct reg_store *s, struct reg_entry *e, uint64_t now_ms)
{
	entry_release(s, e);
	wheel_remove(&s->leases, &e->lease);
	wheel_remove(&s->untold, &e->untold);
	entry_count(s, e, -1);
	list_remove(&e->in_app);
	list_add_tail(&s->departed, &e->in_app);
	reg_quota_give(TAKE_PTR(e->client));
	e->is_departed = true;
	e->renewed_ms = now_ms;
	s->stats.tombstones++;
	entry_changed(s, e, REG_DELETE, now_ms);
}

/* Whether a lease that ran out is held because nearly all seem to run out. */
static bool entry_must_stay(struct reg_store *s, struct reg_entry *e, uint64_t now_ms)
{
	uint64_t lease_ms = e->lease_s * MSEC_PER_SEC;

	if (!s->config.has_self_preservation ||
	    !reg_pulse_has_collapsed(&s->pulse, now_ms, e->lease_s))
		return false;
	if (e->is_held)
		return now_ms - e->held_ms < HOLD_LEASES * lease_ms;
	e->is_held = true;
	e->held_ms = now_ms;
	if (s->stats.held++ == 0 && s->config.on_preserving)
		s->config.on_preserving(true, s->config.arg);
	return true;
}

void reg_store_act_for(struct reg_store *s, struct reg_quota *client)
{
	s->actor = client;
}

void reg_store_set_limits(struct reg_store *s, size_t max_instances, size_t max_per_client)
{
	s->config.max_instances = max_instances;
	s->config.max_per_client = max_per_client;
}

void reg_store_set_self_preservation(struct reg_store *s, bool is_on)
{
	s->config.has_self_preservation = is_on;
}

void reg_store_sweep(struct reg_store *s, uint64_t now_ms)
{
	struct wheel_timer *due;
	struct list expired;

	list_init(&expired);
	wheel_advance(&s->leases, now_ms, &expired);
	while ((due = wheel_take(&expired)) != NULL) {
		struct reg_entry *e = container_of(due, struct reg_entry, lease);

		if (entry_must_stay(s, e, now_ms)) {
			/* Looked at again after a lease time. */
			wheel_add(&s->leases, &e->lease, now_ms + e->lease_s * MSEC_PER_SEC);
			continue;
		}
		if (s->config.on_expire && !s->config.on_expire(e, s->config.arg)) {
			wheel_add(&s->leases, &e->lease, now_ms + ASK_AGAIN_MS);
			continue;
		}
		s->stats.expiries++;
		reg_store_bury(s, e, now_ms);
	}
	store_forget(s, now_ms);
}

/* --- changes --------------------------------------------------------------------------------- */

/* History gives way to what is: the departed are forgotten before anybody is refused. */
int reg_store_make_room(struct reg_store *s, const struct reg_instance *i, bool is_new)
{
	if (is_new && s->stats.instances >= s->config.max_instances)
		return -ENOSPC;
	while (s->stats.bytes + instance_size(i) > s->config.max_bytes && !list_empty(&s->departed))
		store_forget_oldest(s);
	return s->stats.bytes + instance_size(i) > s->config.max_bytes ? -ENOSPC : 0;
}

/* Where a departed one of the same id still is, the new one takes its place: whoever missed that it
 * left is told that it is there, and what it is now. */
static int store_add(struct reg_store *s, struct str name, const struct reg_instance *i,
		     uint64_t now_ms, struct reg_entry **out)
{
	struct reg_app *app = reg_store_find_app(s, name);
	struct reg_entry *departed, *e;

	if (!app)
		app = app_new(s, name);
	if (!app)
		return -ENOMEM;
	departed = entry_find(s, app, i->id);
	e = entry_new(app, i);
	if (!e || entry_link(s, e) < 0) {
		free(e);
		app_drop_if_empty(s, app);
		return -ENOMEM;
	}
	if (departed)
		entry_bury(s, departed);
	e->renewed_ms = e->changed_ms = e->told_ms = now_ms;
	wheel_add(&s->leases, &e->lease, now_ms + e->lease_s * MSEC_PER_SEC);
	*out = e;
	return 0;
}

static int store_replace(struct reg_store *s, struct reg_entry *old, const struct reg_instance *i,
			 uint64_t now_ms)
{
	struct reg_entry *e = entry_new(old->app, i);

	if (!e)
		return -ENOMEM;
	e->client = TAKE_PTR(old->client);
	e->renewed_ms = old->renewed_ms;
	e->told_ms = now_ms;
	entry_release(s, old);
	wheel_remove(&s->leases, &old->lease);
	wheel_remove(&s->untold, &old->untold);
	entry_count(s, old, -1);
	hmap_remove(&s->entries, &old->by_key);
	/* Cannot fail: one was just taken out. */
	if (entry_link(s, e) < 0)
		abort();
	entry_free(s, old);
	entry_renew(s, e, now_ms);
	s->stats.replacements++;
	entry_changed(s, e, REG_PUT, now_ms);
	return 0;
}

int reg_store_set(struct reg_store *s, struct str app, struct reg_entry *old,
		  const struct reg_instance *i, uint64_t now_ms)
{
	struct reg_entry *e;
	int r = reg_store_make_room(s, i, !old);

	if (r < 0)
		return r;
	if (old)
		return store_replace(s, old, i, now_ms);
	r = store_add(s, app, i, now_ms, &e);
	if (r < 0)
		return r;
	e->client = s->actor;
	reg_quota_take(e->client);
	reg_pulse_beat(&s->pulse, now_ms, UINT64_MAX, e->lease_s);
	s->stats.registrations++;
	entry_changed(s, e, REG_PUT, now_ms);
	return 0;
}

int reg_store_put(struct reg_store *s, struct str app, const struct reg_instance *i,
		  uint64_t now_ms, uint64_t wall_ms, uint64_t *index)
{
	struct reg_entry *e = reg_store_find_entry(s, app, i->id);
	struct reg_instance fresh = *i;
	int r;

	if (e)
		fresh.status = entry_checked_status(e, i);
	if (e && entry_says(e, &fresh)) {
		entry_renew(s, e, now_ms);
		*index = e->index;
		return REG_PUT_SAME;
	}
	if (!e && s->actor && s->config.max_per_client &&
	    reg_quota_count(s->actor) >= s->config.max_per_client)
		return -EDQUOT;
	fresh.registered_ms = e ? e->registered_ms : wall_ms;
	if (e && e->override != REG_NO_STATUS)
		fresh.override = e->override;
	r = reg_store_set(s, app, e, &fresh, now_ms);
	if (r < 0)
		return r;
	*index = s->index;
	return e ? REG_PUT_REPLACED : REG_PUT_NEW;
}

enum reg_status reg_store_status_of(struct reg_store *s, struct str app,
				    const struct reg_instance *i)
{
	const struct reg_entry *e = reg_store_find_entry(s, app, i->id);

	return e ? entry_checked_status(e, i) : i->status;
}

int reg_store_restore(struct reg_store *s, struct str app, const struct reg_instance *i,
		      uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, i->id);
	int r;

	if (e)
		return -EEXIST;
	r = reg_store_make_room(s, i, true);
	if (r == 0)
		r = store_add(s, app, i, now_ms, &e);
	if (!e)
		return r;
	e->app->index = MAX(e->app->index, e->index);
	reg_pulse_beat(&s->pulse, now_ms, UINT64_MAX, e->lease_s);
	return 0;
}

int reg_store_renew(struct reg_store *s, struct str app, struct str id, uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e) {
		s->stats.unknown_renewals++;
		return -ENOENT;
	}
	s->stats.renewals++;
	entry_renew(s, e, now_ms);
	if (s->config.is_shared && !e->untold.is_pending)
		wheel_add(&s->untold, &e->untold,
			  MAX(now_ms, e->told_ms + e->lease_s * MSEC_PER_SEC / 3));
	return 0;
}

int reg_store_set_status(struct reg_store *s, struct str app, struct str id,
			 enum reg_status override, enum reg_status reported, uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e)
		return -ENOENT;
	if (reported == REG_NO_STATUS)
		reported = e->status;
	if (e->override == override && e->status == reported)
		return 0;
	s->stats.overrides += e->override != override;
	s->stats.by_status[entry_status(e)]--;
	e->override = (uint8_t) override;
	e->status = (uint8_t)reported;
	s->stats.by_status[entry_status(e)]++;
	entry_changed(s, e, REG_STATUS_CHANGE, now_ms);
	return 0;
}

int reg_store_remove(struct reg_store *s, struct str app, struct str id, uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e)
		return -ENOENT;
	s->stats.removals++;
	reg_store_bury(s, e, now_ms);
	return 0;
}

/* --- the store ------------------------------------------------------------------------------- */

struct reg_store *reg_store_new(const struct reg_store_config *config, uint64_t now_ms)
{
	struct reg_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->config = *config;
	if (!s->config.max_instances)
		s->config.max_instances = MAX_INSTANCES;
	if (!s->config.max_bytes)
		s->config.max_bytes = MAX_BYTES;
	if (!s->config.max_tombstones)
		s->config.max_tombstones = MAX_TOMBSTONES;
	if (!s->config.tombstone_ms)
		s->config.tombstone_ms = TOMBSTONE_MS;
	s->index = s->history_index = s->start_index = config->start_index;
	random_bytes(&s->key, sizeof(s->key));
	list_init(&s->apps);
	list_init(&s->changes);
	list_init(&s->departed);
	list_init(&s->to_tell);
	wheel_init(&s->leases, now_ms);
	wheel_init(&s->untold, now_ms);
	reg_pulse_init(&s->pulse, now_ms);
	return s;
}

void reg_store_free(struct reg_store **sp)
{
	struct reg_store *s = TAKE_PTR(*sp);

	if (!s)
		return;
	list_for_each_safe (node, &s->changes)
		entry_free(s, container_of(node, struct reg_entry, in_changes));
	hmap_fini(&s->entries);
	hmap_fini(&s->apps_by_name);
	free(s);
}
