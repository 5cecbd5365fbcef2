/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the credentials of one `auth` are checked with: a key set, or API keys. It may change while
 * a configuration is in use, so it stands beside it: the main thread replaces the whole, each
 * worker notices at its next request. Reference-counted.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "gateway/identity/api_keys.h"
#include "gateway/identity/jwks.h"
#include "lib/loop.h"

struct auth_keys {
	unsigned refs;
	pthread_mutex_t lock; /* of what is held; taken at changes only */
	uint64_t generation;  /* counts replacements; atomic */
	struct jwks *jwks;    /* held; NULL: none, or none yet */
	struct api_keys *api_keys;

	/* Of a set from a URL: */
	uint64_t retry_after_s; /* while there is none; atomic */
	unsigned is_wanted;     /* a token named a key that is not there; atomic */
	struct loop *loop;      /* where on_wanted runs; NULL: nobody could fetch it */
	struct loop_task wanted;
	void (*on_wanted)(struct auth_keys *keys); /* the main thread's; NULL: no more */
	void *owner;
};

/* NULL when out of memory. */
struct auth_keys *auth_keys_new(void);
struct auth_keys *auth_keys_ref(struct auth_keys *k);
void auth_keys_put(struct auth_keys **k);
/* Replaces what is there; takes the references over. */
void auth_keys_set(struct auth_keys *k, struct jwks *jwks, struct api_keys *api_keys);

/* Any thread: a token names a key that is not in the set. Has it fetched if it was not lately. */
void auth_keys_want(struct auth_keys *k);

/* A thread's own hold on the newest. All zeroes is none. */
struct auth_view {
	uint64_t generation;
	struct jwks *jwks;
	struct api_keys *api_keys;
};

/* Brings the view up to date; true when it has changed. */
bool auth_view_update(struct auth_view *view, struct auth_keys *k);
void auth_view_fini(struct auth_view *view);
