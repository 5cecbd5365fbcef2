/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All apps and their instances: leases, statuses, and what changed since when. No I/O and no clock:
 * times are parameters, `now_ms` monotonic, `wall_ms` for people.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"
#include "registry/instance.h"

struct reg_store;
struct reg_app;
struct reg_entry; /* one instance, alive or lately gone */
struct reg_quota;

enum reg_change { REG_PUT, REG_DELETE, REG_STATUS_CHANGE };

struct reg_store_config {
	/* Changes get the numbers behind this one. Must be beyond any that was given out before. */
	uint64_t start_index;
	bool has_self_preservation;
	bool is_shared;        /* renewals are remembered for reg_store_next_untold */
	size_t max_instances;  /* 0: 1,000,000 */
	size_t max_per_client; /* 0: no bound of its own */
	size_t max_bytes;      /* of instances; 0: 1 GiB */
	size_t max_tombstones; /* 0: 65,536 */
	uint64_t tombstone_ms; /* how long the departed are remembered; 0: 180 s */
	/* After each change, in the order of their indexes. May read the store, not change it. */
	void (*on_change)(const struct reg_entry *entry, enum reg_change change, void *arg);
	/* A lease ran out: false keeps the instance, and asks again after a second. NULL: it
	 * leaves. */
	bool (*on_expire)(const struct reg_entry *entry, void *arg);
	/* Self-preservation begins to hold leases, or has ended. */
	void (*on_preserving)(bool is_preserving, void *arg);
	void *arg;
};

/* NULL when out of memory. */
struct reg_store *reg_store_new(const struct reg_store_config *config, uint64_t now_ms);
void reg_store_free(struct reg_store **store);

/* --- changes; `app` is in lower case (reg_app_name) ------------------------------------------ */

enum reg_put { REG_PUT_NEW, REG_PUT_REPLACED, REG_PUT_SAME };
/*
 * Registers, or replaces and keeps what the registry itself knows (override, time of registration);
 * an override of `i` counts where none is known. What is the same already only renews the lease.
 * *index is that of the instance's last change. Returns a reg_put, or -ENOMEM, -ENOSPC over the
 * bounds, -EDQUOT over the client's (see reg_store_act_for).
 */
int reg_store_put(struct reg_store *s, struct str app, const struct reg_instance *i,
		  uint64_t now_ms, uint64_t wall_ms, uint64_t *index);
/* Puts back an instance from a snapshot, with its index, override and time of registration; its
 * lease begins anew. No on_change. In ascending order of index, before anything else. */
int reg_store_restore(struct reg_store *s, struct str app, const struct reg_instance *i,
		      uint64_t now_ms);
/* 0, or -ENOENT. */
int reg_store_renew(struct reg_store *s, struct str app, struct str id, uint64_t now_ms);
/* REG_NO_STATUS takes the override away; as `reported` it leaves what the instance says. 0, or
 * -ENOENT. */
int reg_store_set_status(struct reg_store *s, struct str app, struct str id,
			 enum reg_status override, enum reg_status reported, uint64_t now_ms);
int reg_store_remove(struct reg_store *s, struct str app, struct str id, uint64_t now_ms);
/* Who registers from now on; NULL: nobody whose instances are counted. The quota lives as long as
 * it has any. */
void reg_store_act_for(struct reg_store *s, struct reg_quota *client);
void reg_store_set_limits(struct reg_store *s, size_t max_instances, size_t max_per_client);
void reg_store_set_self_preservation(struct reg_store *s, bool is_on);
/* Lets leases run out and forgets old departures. */
void reg_store_sweep(struct reg_store *s, uint64_t now_ms);

/* --- of a store that several registries share ------------------------------------------------ */

/* The next change gets a number beyond this one, if it is more than the last. */
void reg_store_advance(struct reg_store *s, uint64_t index);
/* The last change counts as having at most this number. */
void reg_store_cap(struct reg_store *s, uint64_t index);
/* What was before this index is not known: nobody can be told what he missed. */
void reg_store_begin(struct reg_store *s, uint64_t index);
/* An instance as another one has it: with its index, override and time of registration. Older news
 * than ours change nothing. 0, -ENOMEM, -ENOSPC. */
int reg_store_take(struct reg_store *s, struct str app, const struct reg_instance *i,
		   uint64_t now_ms);
/* Another one renewed it, at `at_ms`. */
void reg_store_heard(struct reg_store *s, struct str app, struct str id, uint64_t at_ms,
		     uint64_t now_ms);
/* As reg_store_remove, when it left elsewhere, or its lease ran out there. */
void reg_store_depart(struct reg_store *s, struct str app, struct str id, uint64_t now_ms,
		      bool has_expired);
/* What reg_store_put would take as the status: what a check found out stays. */
enum reg_status reg_store_status_of(struct reg_store *s, struct str app,
				    const struct reg_instance *i);
/* Whether there is room, and quota for who acts: what reg_store_put would say. 0, -ENOSPC, -EDQUOT.
 */
int reg_store_may_put(struct reg_store *s, struct str app, const struct reg_instance *i);
/* Who acts (reg_store_act_for), and whose an instance is that nobody's is yet. */
struct reg_quota *reg_store_actor(const struct reg_store *s);
void reg_store_own(struct reg_store *s, struct str app, struct str id, struct reg_quota *client);
/* All leases begin anew: nobody could renew for a while. */
void reg_store_grace(struct reg_store *s, uint64_t now_ms);
/* The next instance that was renewed and that the others must be told of, at most one time in a
 * third of its lease; from then on it counts as told. NULL when there is none (any more). */
const struct reg_entry *reg_store_next_untold(struct reg_store *s, uint64_t now_ms);
/* They were not told after all. */
void reg_store_untold(struct reg_store *s, struct str app, struct str id, uint64_t now_ms);

/* --- reading: pointers are good until the next change ---------------------------------------- */

/* Of the last change of all. */
uint64_t reg_store_index(const struct reg_store *s);
/* Changes after this index are all known; whoever is further behind needs the full state. */
uint64_t reg_store_history_index(const struct reg_store *s);

const struct reg_app *reg_store_app(const struct reg_store *s, struct str app);
/* Of the last change to any instance of the app, also one that left; for an app that is not known
 * (app NULL) the best that can be said. */
uint64_t reg_app_index(const struct reg_store *s, const struct reg_app *app);
const char *reg_app_get_name(const struct reg_app *app);
size_t reg_app_count(const struct reg_app *app);
/* Begin with NULL; NULL at the end. Apps without an instance may come along. */
const struct reg_app *reg_store_next_app(const struct reg_store *s, const struct reg_app *app);
const struct reg_entry *reg_app_next(const struct reg_app *app, const struct reg_entry *entry);
const struct reg_entry *reg_store_find(const struct reg_store *s, struct str app, struct str id);

/* First entry whose last change is after `index`, then the next one; in ascending order of index.
 * Departed ones come too (REG_DELETE). */
const struct reg_entry *reg_store_change_after(const struct reg_store *s, uint64_t index);
/* The same of a time, in the store's own. */
const struct reg_entry *reg_store_change_since(const struct reg_store *s, uint64_t at_ms);
const struct reg_entry *reg_store_next_change(const struct reg_store *s,
					      const struct reg_entry *entry);
/* The last change (entry NULL), then the one before; NULL at the end. */
const struct reg_entry *reg_store_previous_change(const struct reg_store *s,
						  const struct reg_entry *entry);

/* Slices point into the entry. */
void reg_entry_get(const struct reg_entry *e, struct reg_instance *out);
const char *reg_entry_app(const struct reg_entry *e);
enum reg_change reg_entry_change(const struct reg_entry *e);
uint64_t reg_entry_index(const struct reg_entry *e);
uint64_t reg_entry_renewed_ms(const struct reg_entry *e);
uint64_t reg_entry_changed_ms(const struct reg_entry *e);
bool reg_entry_is_held(const struct reg_entry *e);

struct reg_store_stats {
	size_t apps, instances, tombstones, bytes;
	size_t by_status[REG_STATUSES]; /* effective */
	size_t held;                    /* by self-preservation */
	uint64_t registrations, replacements, renewals, unknown_renewals, removals, expiries,
		overrides;
};
const struct reg_store_stats *reg_store_stats(const struct reg_store *s);
