/* SPDX-License-Identifier: Apache-2.0 */
/* What the store needs of a registry that is not the only one: indexes come from elsewhere, leases
 * are renewed elsewhere too. */
#include <errno.h>

#include "lib/clock.h"
#include "registry/quota.h"
#include "registry/store_private.h"

void reg_store_advance(struct reg_store *s, uint64_t index)
{
	s->index = MAX(s->index, index);
}

void reg_store_cap(struct reg_store *s, uint64_t index)
{
	s->index = MIN(s->index, index);
}

void reg_store_begin(struct reg_store *s, uint64_t index)
{
	reg_store_advance(s, index);
	s->history_index = s->start_index = s->index;
}

int reg_store_take(struct reg_store *s, struct str app, const struct reg_instance *i,
		   uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, i->id);
	int r;

	if (e && e->index >= i->index)
		return 0;
	reg_store_advance(s, i->index - 1);
	r = reg_store_set(s, app, e, i, now_ms);
	reg_store_advance(s, i->index);
	return r;
}

void reg_store_heard(struct reg_store *s, struct str app, struct str id, uint64_t at_ms,
		     uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e || at_ms <= e->renewed_ms)
		return;
	reg_pulse_beat(&s->pulse, now_ms, at_ms - e->renewed_ms, e->lease_s);
	e->told_ms = at_ms;
	reg_store_extend(s, e, at_ms);
}

void reg_store_depart(struct reg_store *s, struct str app, struct str id, uint64_t now_ms,
		      bool has_expired)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e)
		return;
	if (has_expired)
		s->stats.expiries++;
	else
		s->stats.removals++;
	reg_store_bury(s, e, now_ms);
}

int reg_store_may_put(struct reg_store *s, struct str app, const struct reg_instance *i)
{
	const struct reg_entry *e = reg_store_find_entry(s, app, i->id);

	if (!e && s->actor && s->config.max_per_client &&
	    reg_quota_count(s->actor) >= s->config.max_per_client)
		return -EDQUOT;
	return reg_store_make_room(s, i, !e);
}

struct reg_quota *reg_store_actor(const struct reg_store *s)
{
	return s->actor;
}

void reg_store_own(struct reg_store *s, struct str app, struct str id, struct reg_quota *client)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (!e || e->client || !client)
		return;
	e->client = client;
	reg_quota_take(client);
}

void reg_store_grace(struct reg_store *s, uint64_t now_ms)
{
	hmap_for_each (node, &s->entries) {
		struct reg_entry *e = container_of(node, struct reg_entry, by_key);

		if (e->is_departed)
			continue;
		reg_pulse_beat(&s->pulse, now_ms, UINT64_MAX, e->lease_s);
		reg_store_extend(s, e, now_ms);
	}
}

const struct reg_entry *reg_store_next_untold(struct reg_store *s, uint64_t now_ms)
{
	struct wheel_timer *due;
	struct reg_entry *e;

	wheel_advance(&s->untold, now_ms, &s->to_tell);
	due = wheel_take(&s->to_tell);
	if (!due)
		return NULL;
	e = container_of(due, struct reg_entry, untold);
	e->told_ms = now_ms;
	return e;
}

void reg_store_untold(struct reg_store *s, struct str app, struct str id, uint64_t now_ms)
{
	struct reg_entry *e = reg_store_find_entry(s, app, id);

	if (e)
		wheel_add(&s->untold, &e->untold, now_ms);
}
