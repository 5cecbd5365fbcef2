/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which identities are worth nothing although they are not over: single tokens by their id, API
 * keys by theirs, and whoever has a subject, all his or those issued before some time. Shared by
 * all threads, bounded; costs nothing while it is empty.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/identity/identity.h"
#include "lib/str.h"

#define REVOKED_MAX 200000

enum revoked_kind { REVOKED_JTI, REVOKED_SUB, REVOKED_API_KEY, REVOKED_KINDS };
extern const char *const revoked_kinds[REVOKED_KINDS]; /* "jti", "sub", "api_key" */

/* Who says so: each source is replaced as a whole. */
enum revoked_source { REVOKED_BY_FILE, REVOKED_BY_ADMIN, REVOKED_SOURCES };

struct revocation {
	enum revoked_kind kind;
	enum revoked_source source;
	struct str value;
	struct str auth;  /* only what was proven by this one; len 0: by any */
	int64_t before_s; /* only what was issued before; INT64_MAX: all */
	int64_t until_s;  /* forgotten then; INT64_MAX: never */
	uint64_t round;   /* of reading the source, see revoked_keep */
};

struct revoked;

/* NULL when out of memory. */
struct revoked *revoked_new(void);
void revoked_free(struct revoked **t);

/* Adds one, or replaces that of the same kind, value, auth and source. 0, -ENOSPC when the source
 * has REVOKED_MAX of them (twice as many while it is read again), -ENOMEM. Everything is copied. */
int revoked_add(struct revoked *t, const struct revocation *r);
/* Removes those of an administrator with this kind, value and auth. Returns whether there was one.
 */
bool revoked_remove(struct revoked *t, const struct revocation *r);
/* Removes those of a source that are not of this round: after its next version was added whole, so
 * that nothing is let through in between. */
void revoked_keep(struct revoked *t, enum revoked_source source, uint64_t round);
/* Those whose time is over. */
void revoked_expire(struct revoked *t, int64_t now_s);

/* Whether this identity is revoked. `auth` is the name of what it was proven by. */
bool revoked_has(struct revoked *t, const struct identity *id, struct str auth, int64_t now_s);
size_t revoked_count(const struct revoked *t, enum revoked_source source);
/* Each of them, in no order, under a lock: no call of this module from within. */
void revoked_each(struct revoked *t, void (*visit)(const struct revocation *r, void *arg),
		  void *arg);
