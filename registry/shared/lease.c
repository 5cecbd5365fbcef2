/* SPDX-License-Identifier: Apache-2.0 */
/* Leases: the others are told of renewals, a third of a lease apart; Redis has the last word on
 * whether one ran out. */
#include <errno.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "registry/shared/private.h"

#define BATCHES_MAX 32 /* of renewals, in one round */

/* Renewals on their way. */
struct shared_batch {
	struct list node;
	struct reg_shared *s;
	struct shared_args args; /* name, age and time to live of each */
};

/* An instance that Redis did not have when it was renewed. */
struct shared_lost {
	struct list node;
	uint64_t index; /* of then: when we are there, we know whether it left */
	size_t len;
	char name[];
};

static void batch_free(struct shared_batch *b)
{
	list_remove(&b->node);
	shared_args_fini(&b->args);
	free(b);
}

/* It was not told after all. */
static void batch_again(struct shared_batch *b)
{
	struct str app, id;

	for (size_t i = 0; i < b->args.count; i += 3) {
		if (shared_name_split(b->args.v[i], &app, &id))
			reg_store_untold(b->s->writer.store, app, id,
					 loop_now_ms(b->s->writer.loop));
	}
}

static void lost_add(struct reg_shared *s, struct str name, uint64_t index)
{
	struct shared_lost *lost = malloc(sizeof(*lost) + name.len);

	if (!lost)
		return;
	lost->index = index;
	lost->len = name.len;
	memcpy(lost->name, name.p, name.len);
	list_add_tail(&s->lost, &lost->node);
}

void shared_find_lost(struct reg_shared *s)
{
	const struct reg_store *store = s->writer.store;

	list_for_each_safe (node, &s->lost) {
		struct shared_lost *lost = container_of(node, struct shared_lost, node);
		const struct reg_entry *e = NULL;
		struct str app, id;

		if (lost->index > reg_store_index(store))
			continue;
		if (shared_name_split(str_of(lost->name, lost->len), &app, &id))
			e = reg_store_find(store, app, id);
		if (e && s->state == SHARED_READY) {
			struct reg_instance i;

			reg_entry_get(e, &i);
			shared_put_back(s, app, &i);
		}
		list_remove(&lost->node);
		free(lost);
	}
}

static void on_renewed(const struct redis_answer *answer, void *arg)
{
	struct shared_batch *b = arg;
	struct reg_shared *s = b->s;
	int64_t code = shared_code(answer), index = 0;

	if (code < 0) {
		batch_again(b);
		batch_free(b);
		if (code == SHARED_OTHER_LIFE)
			shared_recover(s, "Redis is not what it was");
		return;
	}
	s->stats.renewals += b->args.count / 3;
	redis_int(redis_item(answer->reply, 1), &index);
	for (size_t i = 2; i < answer->reply->elements; i++)
		lost_add(s, redis_text(redis_item(answer->reply, i)), (uint64_t)index);
	batch_free(b);
	shared_find_lost(s);
}

/* The next ones that came due; NULL when there are none. */
static struct shared_batch *batch_next(struct reg_shared *s)
{
	uint64_t now_ms = loop_now_ms(s->writer.loop);
	const struct reg_entry *e = reg_store_next_untold(s->writer.store, now_ms);
	struct shared_batch *b = e ? calloc(1, sizeof(*b)) : NULL;

	if (!b)
		return NULL;
	b->s = s;
	shared_args_init(&b->args);
	list_add_tail(&s->batches, &b->node);
	for (;;) {
		struct reg_instance i;

		reg_entry_get(e, &i);
		shared_args_name(&b->args, str_from(reg_entry_app(e)), i.id);
		shared_args_u64(&b->args, now_ms - reg_entry_renewed_ms(e));
		shared_args_u64(&b->args, i.lease_s * MSEC_PER_SEC + SHARED_LINGER_MS);
		if (b->args.has_failed || b->args.count >= 3UL * SHARED_BATCH)
			return b;
		e = reg_store_next_untold(s->writer.store, now_ms);
		if (!e)
			return b;
	}
}

void shared_tell_renewals(struct reg_shared *s)
{
	for (int n = 0; n < BATCHES_MAX && !redis_is_full(s->commands); n++) {
		struct shared_batch *b = batch_next(s);

		if (!b)
			return;
		if (b->args.has_failed ||
		    shared_eval(s, SHARED_RENEW, b->args.v, b->args.count, on_renewed, b) < 0) {
			batch_again(b);
			batch_free(b);
			return;
		}
	}
}

void shared_lease_fini(struct reg_shared *s)
{
	while (!list_empty(&s->batches))
		batch_free(container_of(s->batches.next, struct shared_batch, node));
	while (!list_empty(&s->lost)) {
		struct shared_lost *lost = container_of(s->lost.next, struct shared_lost, node);

		list_remove(&lost->node);
		free(lost);
	}
}

/* --- expiry ---------------------------------------------------------------------------------- */

static void on_expired(const struct redis_answer *answer, void *arg)
{
	if (shared_code(answer) == SHARED_OTHER_LIFE)
		shared_recover(arg, "Redis is not what it was");
}

void shared_on_expire_task(struct loop_task *task)
{
	struct reg_shared *s = container_of(task, struct reg_shared, expire);

	for (size_t at = 0; at < s->due_count; at += 2UL * SHARED_BATCH) {
		size_t count = MIN(s->due_count - at, 2UL * SHARED_BATCH);

		shared_eval(s, SHARED_EXPIRE, s->due + at, count, on_expired, s);
	}
	s->due = NULL;
	s->due_count = s->due_cap = 0;
	arena_reset(&s->due_arena);
}

static bool due_room(struct reg_shared *s)
{
	size_t cap = MAX(s->due_cap * 2, (size_t)64);
	struct str *due;

	if (s->due_count + 2 <= s->due_cap)
		return true;
	due = arena_array(&s->due_arena, struct str, cap);
	if (!due)
		return false;
	if (s->due_count)
		memcpy(due, s->due, s->due_count * sizeof(*due));
	s->due = due;
	s->due_cap = cap;
	return true;
}

bool reg_shared_on_expire(struct reg_shared *s, const struct reg_entry *entry)
{
	struct reg_instance i;
	char *name, *lease;

	if (!s || s->state != SHARED_READY || !due_room(s))
		return false;
	reg_entry_get(entry, &i);
	name = arena_printf(&s->due_arena, "%s/%.*s", reg_entry_app(entry), STR_ARG(i.id));
	lease = arena_printf(&s->due_arena, "%llu", (unsigned long long)i.lease_s * MSEC_PER_SEC);
	if (!name || !lease)
		return false;
	s->due[s->due_count++] = str_from(name);
	s->due[s->due_count++] = str_from(lease);
	loop_defer(s->writer.loop, &s->expire);
	return false;
}
