/* SPDX-License-Identifier: Apache-2.0 */
/* Follows the stream of changes, on a connection of its own. */
#include <errno.h>
#include <stdio.h>

#include "lib/cleanup.h"
#include "registry/shared/private.h"

#define BLOCK_MS   "1000"
#define TIMEOUT_MS 3000
#define COUNT      "1000"

/* Value of a field of an entry: fields have one letter. */
static struct str field(const struct redisReply *fields, char name)
{
	for (size_t i = 0; fields && i + 1 < fields->elements; i += 2) {
		struct str key = redis_text(redis_item(fields, i));

		if (key.len == 1 && key.p[0] == name)
			return redis_text(redis_item(fields, i + 1));
	}
	return str_of(NULL, 0);
}

/* "app/id age app/id age …" */
static void follow_renewals(struct reg_shared *s, struct str list)
{
	uint64_t now_ms = loop_now_ms(s->writer.loop);
	struct str name, age, app, id;
	uint64_t ms;

	while (str_split(&list, ' ', &name) && str_split(&list, ' ', &age)) {
		if (shared_name_split(name, &app, &id) && str_u64(age, &ms) && ms < now_ms)
			reg_store_heard(s->writer.store, app, id, now_ms - ms, now_ms);
	}
}

static void follow_put(struct reg_shared *s, const struct redisReply *fields)
{
	struct shared_row row;

	if (!shared_row_read(&row, field(fields, 'd'), field(fields, 'u'), field(fields, 'o'),
			     field(fields, 'r'), field(fields, 'n'))) {
		shared_trouble(s, "a change in Redis makes no sense to this version; left out");
		return;
	}
	if (reg_store_take(s->writer.store, row.app, &row.instance, loop_now_ms(s->writer.loop)) <
	    0)
		shared_trouble(s, "app=%.*s instance=%.*s: no room for it here", STR_ARG(row.app),
			       STR_ARG(row.instance.id));
}

static void follow_status(struct reg_shared *s, const struct redisReply *fields, struct str app,
			  struct str id)
{
	uint64_t u, o;

	if (!str_u64(field(fields, 'u'), &u) || !str_u64(field(fields, 'o'), &o) ||
	    u >= REG_STATUSES || o >= REG_STATUSES)
		return;
	reg_store_set_status(s->writer.store, app, id, (enum reg_status)o, (enum reg_status)u,
			     loop_now_ms(s->writer.loop));
}

/* Returns false when something is missing before it. */
static bool follow_change(struct reg_shared *s, const struct redisReply *fields, char kind)
{
	struct reg_store *store = s->writer.store;
	struct str app, id;
	uint64_t index;

	if (!str_u64(field(fields, 'n'), &index) || index <= reg_store_index(store))
		return true;
	if (index > reg_store_index(store) + 1)
		return false;
	if (kind == 'p') {
		follow_put(s, fields);
	} else if (shared_name_split(field(fields, 'i'), &app, &id)) {
		if (kind == 'd')
			reg_store_depart(store, app, id, loop_now_ms(s->writer.loop),
					 field(fields, 'e').p);
		else
			follow_status(s, fields, app, id);
	}
	reg_store_advance(store, index);
	return true;
}

static bool follow_entry(struct reg_shared *s, const struct redisReply *entry)
{
	const struct redisReply *fields = redis_item(entry, 1);
	struct str id = redis_text(redis_item(entry, 0)), kind = field(fields, 'k');

	if (kind.len == 1 && kind.p[0] == 'r') {
		if (!str_eqz(field(fields, 'f'), s->origin))
			follow_renewals(s, field(fields, 'b'));
	} else if (kind.len == 1 && !follow_change(s, fields, kind.p[0])) {
		return false;
	}
	s->stats.entries++;
	if (id.p && id.len < SHARED_TEXT)
		snprintf(s->last_id, sizeof(s->last_id), "%.*s", STR_ARG(id));
	return true;
}

static void on_entries(const struct redis_answer *answer, void *arg)
{
	struct reg_shared *s = arg;
	const struct redisReply *entries;
	bool is_whole = true;

	s->is_tailing = false;
	/* When we are not ready it begins anew from where that ends. */
	if (answer->error < 0 || s->state != SHARED_READY) {
		if (answer->error == -EREMOTEIO)
			shared_trouble(s, "Redis cannot be followed: %s", answer->problem);
		return;
	}
	entries = redis_item(redis_item(answer->reply, 0), 1);
	for (size_t i = 0; is_whole && entries && i < entries->elements; i++)
		is_whole = follow_entry(s, redis_item(entries, i));
	if (!is_whole) {
		s->must_load = true;
		shared_recover(s, "changes were missed");
		return;
	}
	shared_advanced(s);
	shared_follow(s);
}

void shared_follow(struct reg_shared *s)
{
	const struct str args[] = { STR("XREAD"),         STR("COUNT"),        STR(COUNT),
				    STR("BLOCK"),         STR(BLOCK_MS),       STR("STREAMS"),
				    str_from(s->changes), str_from(s->last_id) };

	if (s->is_tailing || s->state != SHARED_READY)
		return;
	s->is_tailing = redis_command_for(s->tail, TIMEOUT_MS, args, ARRAY_SIZE(args), on_entries,
					  s) == 0;
}
