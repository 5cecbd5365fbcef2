/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting ready: what Redis has is compared with what we have. If it has nothing, or less than we
 * know, it lost it, and we put it back; if it has something else, we take that over, and put back
 * what only we know.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "registry/shared/private.h"

/* Beyond every index that may have been given out and forgotten. */
#define INDEX_GAP 1000000
#define FILL_MAX  16 /* batches on their way */

void shared_load_fini(struct reg_shared *s)
{
	arena_reset(&s->rows_arena);
	s->rows = NULL;
	s->row_count = s->row_cap = 0;
	s->fill = NULL;
	s->fill_count = s->fill_at = s->fill_pending = 0;
}

/* What was asked for before the connection broke or the check was begun anew is nobody's. */
struct asked {
	struct reg_shared *s;
	uint64_t generation;
};

static struct asked *asked_new(struct reg_shared *s)
{
	struct asked *a = malloc(sizeof(*a));

	if (a)
		*a = (struct asked) { .s = s, .generation = s->generation };
	return a;
}

/* NULL when it is too late; frees it. */
static struct reg_shared *asked_take(void *arg)
{
	struct asked *a = arg;
	struct reg_shared *s = a->generation == a->s->generation ? a->s : NULL;

	free(a);
	return s;
}

static int ask(struct reg_shared *s, enum shared_script script, const struct shared_args *args,
	       redis_answer_fn *on_answer)
{
	struct asked *a = asked_new(s);
	int r = a ? shared_eval(s, script, args->v, args->count, on_answer, a) : -ENOMEM;

	if (r < 0)
		free(a);
	return r;
}

/* The whole of it again, from the check on. */
static void start_over(struct reg_shared *s, const char *why)
{
	shared_news(s, "%s", why);
	shared_load_fini(s);
	s->generation++;
	shared_enter(s, SHARED_CHECKING);
	s->checked_ms = s->since_ms; /* the tick tries again */
}

/* --- into Redis ------------------------------------------------------------------------------- */

static void fill_more(struct reg_shared *s);

static void on_filled(const struct redis_answer *answer, void *arg)
{
	struct reg_shared *s = asked_take(arg);

	if (!s)
		return;
	if (shared_code(answer) < 0) {
		start_over(s, "putting the state back failed");
		return;
	}
	s->stats.restorations++;
	shared_news(s, "put %zu instances into Redis, which did not have them", s->fill_count);
	reg_store_advance(s->writer.store, s->load_index);
	snprintf(s->last_id, sizeof(s->last_id), "0-0");
	if (!s->writer.is_loaded)
		reg_store_begin(s->writer.store, s->load_index);
	shared_ready(s);
}

static void on_kept(const struct redis_answer *answer, void *arg)
{
	struct reg_shared *s = asked_take(arg);

	if (!s)
		return;
	s->fill_pending--;
	if (shared_code(answer) < 0)
		start_over(s, "putting the state back failed");
	else
		fill_more(s);
}

static void add_kept(struct reg_shared *s, struct shared_args *args, struct str name)
{
	uint64_t now_ms = loop_now_ms(s->writer.loop);
	const struct reg_entry *e;
	struct reg_instance i;
	struct str app, id;

	if (!shared_name_split(name, &app, &id))
		return;
	e = reg_store_find(s->writer.store, app, id);
	if (!e)
		return;
	reg_entry_get(e, &i);
	shared_args_add(args, name);
	shared_args_instance(args, app, &i);
	shared_args_u64(args, i.registered_ms);
	shared_args_u64(args, i.index);
	shared_args_u64(args, now_ms - reg_entry_renewed_ms(e));
	shared_args_u64(args, i.lease_s * MSEC_PER_SEC + SHARED_LINGER_MS);
}

static void fill_more(struct reg_shared *s)
{
	struct shared_args args;
	int r = 0;

	while (r == 0 && s->fill_at < s->fill_count && s->fill_pending < FILL_MAX) {
		size_t end = MIN(s->fill_at + SHARED_BATCH, s->fill_count);

		shared_args_init(&args);
		while (s->fill_at < end)
			add_kept(s, &args, s->fill[s->fill_at++]);
		r = args.has_failed ? -ENOMEM : ask(s, SHARED_KEEP, &args, on_kept);
		s->fill_pending++;
		shared_args_fini(&args);
	}
	if (r == 0 && s->fill_at == s->fill_count && s->fill_pending == 0) {
		args = (struct shared_args) { 0 };
		r = ask(s, SHARED_FILLED, &args, on_filled);
	}
	if (r < 0)
		start_over(s, "putting the state back failed");
}

/* Names, because instances may change meanwhile. */
static int fill_list(struct reg_shared *s)
{
	const struct reg_store *store = s->writer.store;
	size_t count = reg_store_stats(store)->instances;

	s->fill = arena_array(&s->rows_arena, struct str, count + 1);
	if (!s->fill)
		return -ENOMEM;
	for (const struct reg_app *app = reg_store_next_app(store, NULL); app;
	     app = reg_store_next_app(store, app)) {
		for (const struct reg_entry *e = reg_app_next(app, NULL); e;
		     e = reg_app_next(app, e)) {
			struct reg_instance i;
			char *name;

			reg_entry_get(e, &i);
			name = arena_printf(&s->rows_arena, "%s/%.*s", reg_app_get_name(app),
					    STR_ARG(i.id));
			if (!name)
				return -ENOMEM;
			s->fill[s->fill_count++] = str_from(name);
		}
	}
	return 0;
}

static void begin_fill(struct reg_shared *s)
{
	shared_enter(s, SHARED_FILLING);
	s->generation++;
	snprintf(s->epoch, sizeof(s->epoch), "%s", s->load_epoch);
	if (fill_list(s) < 0)
		start_over(s, "out of memory");
	else
		fill_more(s);
}

/* --- into memory ------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
	const struct shared_row *x = a, *y = b;
	size_t len = MIN(x->name.len, y->name.len);
	int r = memcmp(x->name.p, y->name.p, len);

	return r ? r : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

static int by_index(const void *a, const void *b)
{
	const struct shared_row *x = *(const struct shared_row *const *)a;
	const struct shared_row *y = *(const struct shared_row *const *)b;

	return (x->instance.index > y->instance.index) - (x->instance.index < y->instance.index);
}

static bool says_the_same(const struct reg_instance *a, const struct reg_instance *b)
{
	return a->lease_s == b->lease_s && a->port == b->port && a->weight == b->weight &&
	       a->is_secure == b->is_secure && a->status == b->status &&
	       a->override == b->override && str_eq(a->address, b->address) &&
	       str_eq(a->zone, b->zone) && str_eq(a->version, b->version) &&
	       str_eq(a->metadata, b->metadata) && str_eq(a->check, b->check) &&
	       str_eq(a->eureka, b->eureka);
}

/* What we learnt after whoever began this life of Redis: nobody else may know it. */
static bool only_we_know(const struct reg_shared *s, uint64_t index)
{
	return s->is_other_life && s->writer.is_loaded && index > s->load_base;
}

static void take_row(struct reg_shared *s, struct shared_row *row)
{
	struct reg_store *store = s->writer.store;
	const struct reg_entry *e = reg_store_find(store, row->app, row->instance.id);
	struct reg_instance mine;

	if (e) {
		reg_entry_get(e, &mine);
		if (says_the_same(&mine, &row->instance) ||
		    (mine.index > row->instance.index && only_we_know(s, mine.index)))
			return;
	}
	reg_store_cap(store, s->load_index - 1);
	row->instance.index = MAX(row->instance.index, reg_store_index(store) + 1);
	reg_store_take(store, row->app, &row->instance, loop_now_ms(s->writer.loop));
}

static struct shared_row *find_row(const struct reg_shared *s, const char *app,
				   const struct reg_instance *i)
{
	char name[SHARED_NAME_MAX];
	struct shared_row key = { .name = shared_name(name, str_from(app), i->id) };

	return s->row_count ? bsearch(&key, s->rows, s->row_count, sizeof(*s->rows), by_name)
			    : NULL;
}

/* Those that we saw leave, and nobody else: not to be taken. */
static void skip_departed(struct reg_shared *s)
{
	const struct reg_store *store = s->writer.store;

	for (const struct reg_entry *e = reg_store_change_after(store, s->load_base); e;
	     e = reg_store_next_change(store, e)) {
		struct reg_instance i;
		struct shared_row *row;

		if (reg_entry_change(e) != REG_DELETE)
			continue;
		reg_entry_get(e, &i);
		row = find_row(s, reg_entry_app(e), &i);
		if (row && row->instance.index < i.index)
			row->instance.index = 0;
	}
}

/*
 * The differences are told under the numbers that we missed: as many were given out at least. They
 * must not go beyond Redis' own, or it would look as if it had lost some.
 */

/* Of what we have and Redis has not: those that only we know are put back, the others left. Names
 * first, as leaving changes the list. */
static void drop_others(struct reg_shared *s)
{
	struct reg_store *store = s->writer.store;
	size_t gone = 0;

	s->fill_count = 0;
	if (fill_list(s) < 0)
		return;
	for (size_t n = 0; n < s->fill_count; n++) {
		const struct reg_entry *e;
		struct reg_instance i;
		struct str app, id;

		shared_name_split(s->fill[n], &app, &id);
		e = reg_store_find(store, app, id);
		reg_entry_get(e, &i);
		if (find_row(s, reg_entry_app(e), &i) || only_we_know(s, i.index))
			continue;
		reg_store_cap(store, s->load_index - 1);
		reg_store_remove(store, app, id, loop_now_ms(s->writer.loop));
		gone++;
	}
	if (gone)
		shared_news(s, "%zu instances are not in Redis any more", gone);
}

/* When we are ready: tells Redis what only we know. */
static void put_back_ours(struct reg_shared *s, uint64_t until)
{
	const struct reg_store *store = s->writer.store;
	size_t count = 0;

	for (const struct reg_entry *e = reg_store_change_after(store, s->load_base);
	     e && reg_entry_index(e) <= until; e = reg_store_next_change(store, e)) {
		const struct shared_row *row;
		struct reg_instance i;

		reg_entry_get(e, &i);
		row = find_row(s, reg_entry_app(e), &i);
		if (reg_entry_change(e) == REG_DELETE) {
			if (!row || row->instance.index)
				continue;
			shared_remove_again(s, str_from(reg_entry_app(e)), i.id);
		} else {
			if (row && says_the_same(&row->instance, &i))
				continue;
			shared_put_back(s, str_from(reg_entry_app(e)), &i);
		}
		count++;
	}
	if (count)
		shared_news(s, "put %zu changes back into Redis that nobody else knew", count);
}

static void sort_rows(struct reg_shared *s, struct shared_row ***in_order)
{
	size_t kept = 0;

	if (s->row_count)
		qsort(s->rows, s->row_count, sizeof(*s->rows), by_name);
	/* A scan may tell the same twice. */
	for (size_t n = 0; n < s->row_count; n++) {
		if (kept && by_name(&s->rows[kept - 1], &s->rows[n]) == 0)
			continue;
		s->rows[kept++] = s->rows[n];
	}
	s->row_count = kept;
	*in_order = arena_array(&s->rows_arena, struct shared_row *, kept + 1);
	if (!*in_order)
		return;
	for (size_t n = 0; n < kept; n++)
		(*in_order)[n] = &s->rows[n];
	qsort(*in_order, kept, sizeof(**in_order), by_index);
}

static void finish_load(struct reg_shared *s)
{
	struct reg_store *store = s->writer.store;
	uint64_t known = reg_store_index(store);
	bool is_first = !s->writer.is_loaded, is_ours = s->is_other_life && !is_first;
	struct shared_row **in_order;

	sort_rows(s, &in_order);
	if (!in_order) {
		start_over(s, "out of memory");
		return;
	}
	if (is_ours)
		skip_departed(s);
	if (!is_first)
		drop_others(s);
	for (size_t n = 0; n < s->row_count; n++) {
		if (is_first)
			reg_store_restore(store, in_order[n]->app, &in_order[n]->instance,
					  loop_now_ms(s->writer.loop));
		else if (in_order[n]->instance.index > 0)
			take_row(s, in_order[n]);
	}
	if (is_first)
		reg_store_begin(store, s->load_index);
	reg_store_advance(store, s->load_index);
	s->stats.loads++;
	shared_news(s, "took over %zu instances from Redis", s->row_count);
	snprintf(s->epoch, sizeof(s->epoch), "%s", s->load_epoch);
	snprintf(s->last_id, sizeof(s->last_id), "%s", s->load_id);
	/* Needs the rows, so it comes before shared_ready lets go of them. */
	if (is_ours)
		put_back_ours(s, known);
	shared_ready(s);
}

static int add_row(struct reg_shared *s, const struct redisReply *reply, size_t at)
{
	struct shared_row row = { 0 };
	struct str record = arena_str(&s->rows_arena, redis_text(redis_item(reply, at)));

	if (!record.p)
		return -ENOMEM;
	if (!shared_row_read(&row, record, redis_text(redis_item(reply, at + 1)),
			     redis_text(redis_item(reply, at + 2)),
			     redis_text(redis_item(reply, at + 3)),
			     redis_text(redis_item(reply, at + 4)))) {
		shared_trouble(s, "an instance in Redis makes no sense to this version; left out");
		return 0;
	}
	/* What changed meanwhile comes by the stream. */
	if (row.instance.index > s->load_index)
		return 0;
	row.name = str_from(arena_printf(&s->rows_arena, "%.*s/%.*s", STR_ARG(row.app),
					 STR_ARG(row.instance.id)));
	if (s->row_count == s->row_cap) {
		size_t cap = MAX(s->row_cap * 2, (size_t)256);
		struct shared_row *rows = arena_array(&s->rows_arena, struct shared_row, cap);

		if (!rows)
			return -ENOMEM;
		if (s->row_count)
			memcpy(rows, s->rows, s->row_count * sizeof(*rows));
		s->rows = rows;
		s->row_cap = cap;
	}
	if (!row.name.p)
		return -ENOMEM;
	s->rows[s->row_count++] = row;
	return 0;
}

static void load_from(struct reg_shared *s, struct str cursor);

static void on_page(const struct redis_answer *answer, void *arg)
{
	struct reg_shared *s = asked_take(arg);
	struct str cursor;
	int r = 0;

	if (!s)
		return;
	cursor = redis_text(redis_item(answer->reply, 1));
	if (shared_code(answer) < 0 || !cursor.p) {
		start_over(s, answer->error ? answer->problem : "Redis changed while it was read");
		return;
	}
	for (size_t at = 2; r == 0 && at + 4 < answer->reply->elements; at += 5)
		r = add_row(s, answer->reply, at);
	if (r < 0)
		start_over(s, "out of memory");
	else if (str_eq(cursor, STR("0")))
		finish_load(s);
	else
		load_from(s, cursor);
}

static void load_from(struct reg_shared *s, struct str cursor)
{
	struct shared_args args;

	shared_args_init(&args);
	shared_args_add(&args, str_from(s->load_epoch));
	shared_args_add(&args, cursor);
	if (args.has_failed || ask(s, SHARED_LOAD, &args, on_page) < 0)
		start_over(s, "Redis cannot be read");
	shared_args_fini(&args);
}

static void begin_load(struct reg_shared *s)
{
	shared_enter(s, SHARED_LOADING);
	s->generation++;
	shared_load_fini(s);
	load_from(s, STR("0"));
}

/* --- the check ------------------------------------------------------------------------------- */

static void copy_text(char out[static SHARED_TEXT], const struct redisReply *item)
{
	struct str text = redis_text(item);

	snprintf(out, SHARED_TEXT, "%.*s", (int)MIN(text.len, (size_t)SHARED_TEXT - 1),
		 text.p ? text.p : "");
}

static void read_check(struct reg_shared *s, const struct redisReply *reply)
{
	int64_t n = 0;

	copy_text(s->load_epoch, redis_item(reply, 1));
	redis_int(redis_item(reply, 2), &n);
	s->load_index = (uint64_t)n;
	n = 0;
	redis_int(redis_item(reply, 3), &n);
	s->load_base = (uint64_t)n;
	copy_text(s->load_id, redis_item(reply, 4));
}

static void on_check(const struct redis_answer *answer, void *arg)
{
	struct reg_shared *s = asked_take(arg);
	int64_t code = shared_code(answer), checks;

	if (!s)
		return;
	if (code < 0) {
		/* Without a connection there will be a new one, and a new check. */
		if (answer->error == -EREMOTEIO)
			shared_trouble(s, "Redis cannot be used: %s", answer->problem);
		return;
	}
	if (code == 0 && s->state == SHARED_READY) {
		s->writer.is_checker = redis_int(redis_item(answer->reply, 5), &checks) && checks;
		return;
	}
	if (s->state == SHARED_READY) {
		shared_news(s, "Redis is not what it was; comparing");
		shared_enter(s, SHARED_CHECKING);
	}
	read_check(s, answer->reply);
	s->is_other_life = code == 1;
	if (code == 2)
		begin_fill(s);
	else if (code == 1 || (code == 0 && (s->must_load || !s->writer.is_loaded)))
		begin_load(s);
	else if (code == 0)
		shared_ready(s);
	/* 3: somebody else fills it; the tick asks again. */
}

void shared_check(struct reg_shared *s)
{
	uint64_t index = s->writer.is_loaded ? reg_store_index(s->writer.store) : 0;
	char epoch[SHARED_TEXT];
	struct shared_args args;
	uint64_t random;

	random_bytes(&random, sizeof(random));
	snprintf(epoch, sizeof(epoch), "%016llx", (unsigned long long)random);
	shared_args_init(&args);
	shared_args_add(&args, str_from(epoch));
	/* The clock makes it new even if nobody remembers anything. */
	shared_args_u64(&args, MAX(index + INDEX_GAP, clock_wall_ms()));
	if (!args.has_failed)
		ask(s, SHARED_CHECK, &args, on_check);
	shared_args_fini(&args);
}
