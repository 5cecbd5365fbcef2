/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instance of a service is, as a plain value: the form in which API, store, snapshot and
 * client hand it to each other, its rules, and its JSON.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/err.h"
#include "lib/json.h"
#include "lib/net.h"
#include "lib/str.h"

enum reg_status {
	REG_NO_STATUS, /* of an override: none is set */
	REG_UP,
	REG_DOWN,
	REG_STARTING,
	REG_OUT_OF_SERVICE,
	REG_UNKNOWN, /* Eureka's: its client does not know, or has to say it again */
	REG_STATUSES,
};

/* "UP", "OUT_OF_SERVICE", …; "" for REG_NO_STATUS. */
const char *reg_status_name(enum reg_status s);
/* REG_NO_STATUS for anything else. Case-sensitive, as Eureka is. */
enum reg_status reg_status_parse(struct str text);

#define REG_APP_MAX        128
#define REG_ID_MAX         256
#define REG_TEXT_MAX       64 /* zone, version, metadata keys */
#define REG_VALUE_MAX      1024
#define REG_METADATA_MAX   64 /* pairs */
#define REG_METADATA_BYTES 8192
#define REG_EUREKA_BYTES   8192
#define REG_WEIGHT_DEFAULT 100
#define REG_WEIGHT_MAX     1000
#define REG_LEASE_MAX_S    86400

/* Slices belong to whoever made it. */
struct reg_instance {
	struct str id;
	struct str address;       /* IPv4 or IPv6, as text */
	struct str zone, version; /* "" when not given */
	struct str metadata;      /* "key NUL value NUL" for each pair, see reg_metadata_next */
	struct str check;         /* how registryd finds out whether it works (check.h); else "" */
	struct str eureka;        /* what only Eureka's API knows (eureka_instance.h); else "" */
	uint32_t lease_s;
	uint16_t port;
	uint16_t weight; /* 1..REG_WEIGHT_MAX */
	bool is_secure;
	enum reg_status status;   /* what the instance says of itself */
	enum reg_status override; /* what an operator says; goes first */
	/* Set by the registry, ignored when registering. */
	uint64_t index;         /* of its last change */
	uint64_t registered_ms; /* wall clock */
};

/* Whether the override is what counts. Eureka's clients expect that none, say UP, lifts what they
 * say of themselves when that is DOWN or STARTING. */
static inline bool reg_is_overridden(enum reg_status override, enum reg_status status,
				     bool is_eureka)
{
	return override != REG_NO_STATUS &&
	       (!is_eureka || (status != REG_DOWN && status != REG_STARTING));
}

/* The one that counts. */
static inline enum reg_status reg_instance_status(const struct reg_instance *i)
{
	return reg_is_overridden(i->override, i->status, i->eureka.len > 0) ? i->override
									    : i->status;
}

/* Address and port in one. Cannot fail on a checked instance. */
int reg_instance_addr(const struct reg_instance *i, struct net_addr *out);

/* With texts of its own, in the arena; the id's p is NULL when there was no memory. */
struct reg_instance reg_instance_copy(const struct reg_instance *i, struct arena *a);

/* Walks the pairs: `*rest` begins as the metadata. Returns false at the end. */
bool reg_metadata_next(struct str *rest, struct str *key, struct str *value);
/* Value of a key; a NULL p when it is not there. */
struct str reg_metadata_get(const struct reg_instance *i, const char *key);

/* An IPv4 or IPv6 address that something can listen on: not 0.0.0.0, ::, or a group's. */
bool reg_read_address(struct str text, struct net_addr *out);

/* Visible ASCII, 1 to REG_ID_MAX bytes: it stands in paths, logs and tables. */
bool reg_is_id(struct str s);

/* 1 to REG_TEXT_MAX bytes without control characters: what our own readers take. */
bool reg_is_metadata_key(struct str key);

/* Lower case into `out`; false when it is no valid name (letters, digits, "._-", at most
 * REG_APP_MAX). */
bool reg_app_name(struct str name, char out[static REG_APP_MAX + 1]);

/* What is wrong with an instance: which member, and the sentence. */
struct reg_problem {
	char field[96];
	char text[192];
};

/*
 * Reads an instance from a registration or from an answer of the registry, and checks every member
 * against its bounds. `id` is the one of the path, which a member "id" must equal; pass a NULL p to
 * require the member. Everything is copied into the arena. Returns 0, -EINVAL with the problem, or
 * -ENOMEM.
 */
int reg_instance_read(struct reg_instance *out, const json_t *json, struct str id,
		      uint32_t default_lease_s, struct arena *a, struct reg_problem *problem);
/* As one object; `key` NULL inside arrays and at the top. "status" is the one that counts; with an
 * override, "reported" is what the instance says. `app` is NULL to leave that member out. */
void reg_instance_write(struct json_writer *w, const char *key, const char *app,
			const struct reg_instance *i);
