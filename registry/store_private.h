/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share. */
#pragma once

#include "lib/hash.h"
#include "lib/hmap.h"
#include "lib/list.h"
#include "lib/wheel.h"
#include "registry/pulse.h"
#include "registry/store.h"

struct reg_app {
	struct hmap_node by_name;
	struct list node; /* in store->apps */
	struct list instances;
	size_t count;   /* alive */
	size_t entries; /* alive and departed: the app lives as long as one is left */
	uint64_t index;
	char name[];
};

/*
 * One allocation with all its text. A departed one stays in `changes` (and in `departed`) for a
 * while, so that watchers can be told what they missed.
 */
struct reg_entry {
	struct hmap_node by_key;
	struct list in_app; /* or in store->departed */
	struct list in_changes;
	struct wheel_timer lease;
	struct wheel_timer untold; /* a renewal that other registries are to be told of */
	struct reg_app *app;
	struct reg_quota *client; /* who registered it; NULL: not known, or departed */
	uint64_t index;
	uint64_t registered_ms;
	uint64_t renewed_ms; /* or when it departed */
	uint64_t changed_ms;
	uint64_t held_ms; /* since when self-preservation holds it */
	uint64_t told_ms; /* when the shared store was last told of a renewal */
	uint32_t lease_s;
	uint16_t port, weight;
	uint16_t id_len, address_len, zone_len, version_len, metadata_len, eureka_len;
	uint8_t status, override, change, check_len;
	bool is_secure : 1, is_departed : 1, is_held : 1;
	char text[]; /* id, address, zone, version, metadata, check, eureka */
};

struct reg_store {
	struct reg_store_config config;
	struct hash_key key;
	struct hmap apps_by_name;
	struct hmap entries;  /* alive and departed, one for each app and id */
	struct list apps;     /* in order of appearance */
	struct list changes;  /* entries, in order of index */
	struct list departed; /* longest first */
	struct wheel leases;  /* milliseconds */
	struct wheel untold;  /* the same, of entry->untold */
	struct list to_tell;  /* of these what came due */
	struct reg_pulse pulse;
	struct reg_quota *actor; /* who registers now */
	uint64_t index, history_index;
	uint64_t start_index; /* indexes up to here are of before this life */
	struct reg_store_stats stats;
};

/* store.c's, for its other files. */
struct reg_app *reg_store_find_app(const struct reg_store *s, struct str name);
/* Of the living. */
struct reg_entry *reg_store_find_entry(const struct reg_store *s, struct str app, struct str id);
/* Adds, or replaces `old` unless that is NULL, with all that `i` says and under the next index. */
int reg_store_set(struct reg_store *s, struct str app, struct reg_entry *old,
		  const struct reg_instance *i, uint64_t now_ms);
/* Takes it out. */
void reg_store_bury(struct reg_store *s, struct reg_entry *e, uint64_t now_ms);
/* 0, -ENOSPC. */
int reg_store_make_room(struct reg_store *s, const struct reg_instance *i, bool is_new);
/* Begins the lease anew at `at_ms`. */
void reg_store_extend(struct reg_store *s, struct reg_entry *e, uint64_t at_ms);
