/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/auth_keys.h"

#include <stdlib.h>

#include "lib/cleanup.h"

static void on_task(struct loop_task *task)
{
	struct auth_keys *k = container_of(task, struct auth_keys, wanted);

	if (k->on_wanted)
		k->on_wanted(k);
	auth_keys_put(&k);
}

struct auth_keys *auth_keys_new(void)
{
	struct auth_keys *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->refs = 1;
	k->retry_after_s = 1;
	k->wanted.run = on_task;
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

struct auth_keys *auth_keys_ref(struct auth_keys *k)
{
	__atomic_fetch_add(&k->refs, 1, __ATOMIC_RELAXED);
	return k;
}

void auth_keys_put(struct auth_keys **kp)
{
	struct auth_keys *k = *kp;

	*kp = NULL;
	if (!k || __atomic_fetch_sub(&k->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
	jwks_put(&k->jwks);
	api_keys_put(&k->api_keys);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

void auth_keys_set(struct auth_keys *k, struct jwks *jwks, struct api_keys *api_keys)
{
	struct jwks *old_jwks;
	struct api_keys *old_api_keys;

	pthread_mutex_lock(&k->lock);
	old_jwks = k->jwks;
	old_api_keys = k->api_keys;
	k->jwks = jwks;
	k->api_keys = api_keys;
	/* Last: who sees the new number finds the new keys. */
	__atomic_fetch_add(&k->generation, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&k->lock);
	jwks_put(&old_jwks);
	api_keys_put(&old_api_keys);
}

void auth_keys_want(struct auth_keys *k)
{
	/* Looked at first: a flood of unknown keys shall not fight for the line. */
	if (!k->loop || __atomic_load_n(&k->is_wanted, __ATOMIC_RELAXED) ||
	    __atomic_exchange_n(&k->is_wanted, 1, __ATOMIC_ACQ_REL))
		return;
	auth_keys_ref(k); /* the task's */
	loop_post(k->loop, &k->wanted);
}

bool auth_view_update(struct auth_view *view, struct auth_keys *k)
{
	if (__atomic_load_n(&k->generation, __ATOMIC_ACQUIRE) == view->generation)
		return false;
	auth_view_fini(view);
	pthread_mutex_lock(&k->lock);
	view->generation = k->generation;
	view->jwks = k->jwks ? jwks_ref(k->jwks) : NULL;
	view->api_keys = k->api_keys ? api_keys_ref(k->api_keys) : NULL;
	pthread_mutex_unlock(&k->lock);
	return true;
}

void auth_view_fini(struct auth_view *view)
{
	jwks_put(&view->jwks);
	api_keys_put(&view->api_keys);
	view->generation = 0;
}
