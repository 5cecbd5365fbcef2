/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

#define APP STR("app")
#define SEC 1000ULL

/* What the store reported, as text: "+a@101 ~a@102 -a@103". */
static char seen[65536];
static int preserving;

static void append(char *out, size_t size, char sign, struct str id)
{
	size_t len = strlen(out);

	if (len + id.len + 2 > size)
		return;
	out[len] = sign;
	memcpy(out + len + 1, id.p, id.len);
	out[len + 1 + id.len] = '\0';
}

static void on_change(const struct reg_entry *e, enum reg_change change, void *arg)
{
	static const char sign[] = {
		[REG_PUT] = '+', [REG_DELETE] = '-', [REG_STATUS_CHANGE] = '~'
	};
	char index[24];
	struct reg_instance i;

	(void)arg;
	reg_entry_get(e, &i);
	if (seen[0])
		append(seen, sizeof(seen), ' ', STR(""));
	append(seen, sizeof(seen), sign[change], i.id);
	snprintf(index, sizeof(index), "%llu", (unsigned long long)reg_entry_index(e));
	append(seen, sizeof(seen), '@', str_from(index));
}

static void on_preserving(bool is_preserving, void *arg)
{
	(void)arg;
	preserving += is_preserving ? 1 : -1;
}

static struct reg_store *store_with(struct reg_store_config config)
{
	config.start_index = 100;
	config.on_change = on_change;
	config.on_preserving = on_preserving;
	seen[0] = '\0';
	preserving = 0;
	return reg_store_new(&config, 0);
}

static struct reg_store *store(void)
{
	return store_with((struct reg_store_config) { .has_self_preservation = true });
}

static struct reg_instance instance(const char *id, uint32_t lease_s)
{
	return (struct reg_instance) {
		.id = str_from(id),
		.address = STR("192.0.2.1"),
		.zone = STR("a"),
		.version = STR(""),
		.metadata = str_of("k\0v", 4),
		.lease_s = lease_s,
		.port = 80,
		.weight = 100,
		.status = REG_UP,
	};
}

static int put(struct reg_store *s, const char *id, uint32_t lease_s, uint64_t now_ms)
{
	struct reg_instance i = instance(id, lease_s);
	uint64_t index;

	return reg_store_put(s, APP, &i, now_ms, 0, &index);
}

static void registers_replaces_and_removes(void **state)
{
	struct reg_store *s = store();
	struct reg_instance i = instance("a", 30), got;
	uint64_t index = 0;

	(void)state;
	assert_int_equal(reg_store_put(s, APP, &i, 0, 5000, &index), REG_PUT_NEW);
	assert_int_equal(index, 101);
	assert_int_equal(reg_store_put(s, APP, &i, 1, 6000, &index), REG_PUT_SAME);
	assert_int_equal(index, 101); /* nobody is woken for the same again */
	i.port = 81;
	i.version = STR("a longer version");
	assert_int_equal(reg_store_put(s, APP, &i, 2, 7000, &index), REG_PUT_REPLACED);
	assert_int_equal(index, 102);
	reg_entry_get(reg_store_find(s, APP, STR("a")), &got);
	assert_int_equal(got.port, 81);
	assert_int_equal(got.registered_ms, 5000);
	assert_true(str_eq(got.version, STR("a longer version")));
	assert_true(str_eq(reg_metadata_get(&got, "k"), STR("v")));
	assert_null(reg_store_find(s, STR("other"), STR("a")));
	assert_int_equal(reg_store_stats(s)->instances, 1);
	assert_int_equal(reg_store_remove(s, APP, STR("a"), 3), 0);
	assert_int_equal(reg_store_remove(s, APP, STR("a"), 3), -ENOENT);
	assert_string_equal(seen, "+a@101 +a@102 -a@103");
	assert_int_equal(reg_store_stats(s)->instances, 0);
	assert_int_equal(reg_store_stats(s)->apps, 0);
	reg_store_free(&s);
}

static void lease_runs_out_unless_renewed(void **state)
{
	struct reg_store *s = store();

	(void)state;
	put(s, "a", 30, 0);
	put(s, "b", 30, 0);
	assert_int_equal(reg_store_renew(s, APP, STR("a"), 10 * SEC), 0);
	reg_store_sweep(s, 30 * SEC - 1);
	assert_int_equal(reg_store_stats(s)->instances, 2);
	reg_store_sweep(s, 30 * SEC);
	assert_string_equal(seen, "+a@101 +b@102 -b@103");
	assert_int_equal(reg_store_renew(s, APP, STR("b"), 30 * SEC), -ENOENT);
	reg_store_sweep(s, 40 * SEC); /* one lease time after the renewal, not two */
	assert_string_equal(seen, "+a@101 +b@102 -b@103 -a@104");
	assert_int_equal(reg_store_stats(s)->expiries, 2);
	reg_store_free(&s);
}

static void override_goes_first_and_survives(void **state)
{
	struct reg_store *s = store();
	struct reg_instance i = instance("a", 30), got;
	uint64_t index;

	(void)state;
	put(s, "a", 30, 0);
	assert_int_equal(
		reg_store_set_status(s, APP, STR("a"), REG_OUT_OF_SERVICE, REG_NO_STATUS, 0), 0);
	assert_int_equal(
		reg_store_set_status(s, APP, STR("a"), REG_OUT_OF_SERVICE, REG_NO_STATUS, 0), 0);
	assert_int_equal(reg_store_stats(s)->by_status[REG_OUT_OF_SERVICE], 1);
	i.port = 90;
	reg_store_put(s, APP, &i, 1, 0, &index);
	reg_entry_get(reg_store_find(s, APP, STR("a")), &got);
	assert_int_equal(reg_instance_status(&got), REG_OUT_OF_SERVICE);
	assert_int_equal(got.status, REG_UP);
	assert_int_equal(reg_store_set_status(s, APP, STR("a"), REG_NO_STATUS, REG_NO_STATUS, 0),
			 0);
	assert_int_equal(reg_store_stats(s)->by_status[REG_UP], 1);
	assert_string_equal(seen, "+a@101 ~a@102 +a@103 ~a@104");
	reg_store_set_status(s, APP, STR("a"), REG_DOWN, REG_NO_STATUS, 0);
	reg_store_remove(s, APP, STR("a"), 2);
	put(s, "a", 30, 3); /* leaving drops it */
	reg_entry_get(reg_store_find(s, APP, STR("a")), &got);
	assert_int_equal(reg_instance_status(&got), REG_UP);
	reg_store_free(&s);
}

static void changes_since(const struct reg_store *s, uint64_t index, char *out, size_t size)
{
	out[0] = '\0';
	for (const struct reg_entry *e = reg_store_change_after(s, index); e;
	     e = reg_store_next_change(s, e)) {
		struct reg_instance i;

		reg_entry_get(e, &i);
		append(out, size, reg_entry_change(e) == REG_DELETE ? '-' : '+', i.id);
	}
}

static void tells_what_changed_since(void **state)
{
	struct reg_store *s = store();
	char text[64];

	(void)state;
	put(s, "a", 30, 0);                                                 /* 101 */
	put(s, "b", 30, 0);                                                 /* 102 */
	reg_store_set_status(s, APP, STR("a"), REG_DOWN, REG_NO_STATUS, 0); /* 103 */
	reg_store_remove(s, APP, STR("b"), 0);                              /* 104 */
	put(s, "c", 30, 0);                                                 /* 105 */
	put(s, "b", 30, 0); /* 106: its departure is forgotten, it is there */
	changes_since(s, 100, text, sizeof(text));
	assert_string_equal(text, "+a+c+b");
	changes_since(s, 104, text, sizeof(text));
	assert_string_equal(text, "+c+b");
	changes_since(s, 106, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(reg_app_index(s, reg_store_app(s, APP)), 106);
	reg_store_free(&s);
}

static void forgets_old_departures(void **state)
{
	struct reg_store *s = store_with((struct reg_store_config) { .max_tombstones = 2 });

	(void)state;
	put(s, "a", 3000, 0);
	put(s, "b", 3000, 0);
	put(s, "c", 3000, 0);
	reg_store_remove(s, APP, STR("a"), 10 * SEC); /* 104 */
	reg_store_remove(s, APP, STR("b"), 20 * SEC); /* 105 */
	reg_store_sweep(s, 30 * SEC);
	assert_int_equal(reg_store_history_index(s), 100);
	reg_store_remove(s, APP, STR("c"), 30 * SEC); /* 106: one too many */
	reg_store_sweep(s, 30 * SEC);
	assert_int_equal(reg_store_history_index(s), 104);
	reg_store_sweep(s, 205 * SEC); /* b is older than three minutes now */
	assert_int_equal(reg_store_history_index(s), 105);
	assert_non_null(reg_store_app(s, APP));
	reg_store_sweep(s, 300 * SEC);
	assert_int_equal(reg_store_history_index(s), 106);
	assert_null(reg_store_app(s, APP)); /* and the app with the last of them */
	assert_int_equal(reg_store_stats(s)->bytes, 0);
	reg_store_free(&s);
}

static void is_bounded(void **state)
{
	struct reg_store *s = store_with((struct reg_store_config) { .max_instances = 2 });

	(void)state;
	assert_int_equal(put(s, "a", 30, 0), REG_PUT_NEW);
	assert_int_equal(put(s, "b", 30, 0), REG_PUT_NEW);
	assert_int_equal(put(s, "c", 30, 0), -ENOSPC);
	assert_int_equal(put(s, "b", 31, 0), REG_PUT_REPLACED);
	reg_store_free(&s);
	s = store_with((struct reg_store_config) { .max_bytes = 300 });
	assert_int_equal(put(s, "a", 30, 0), REG_PUT_NEW);
	assert_int_equal(put(s, "b", 30, 0), -ENOSPC);
	assert_null(reg_store_find(s, APP, STR("b")));
	reg_store_free(&s);
}

static void forgets_the_departed_before_it_refuses(void **state)
{
	struct reg_store *s = store_with((struct reg_store_config) { .max_bytes = 300 });
	char id[16];

	for (int n = 0; n < 20; n++) {
		snprintf(id, sizeof(id), "i%d", n);
		assert_int_equal(put(s, id, 30, 0), REG_PUT_NEW);
		assert_int_equal(reg_store_remove(s, APP, str_from(id), 0), 0);
	}
	assert_int_equal(put(s, "last", 30, 0), REG_PUT_NEW);
	assert_non_null(reg_store_find(s, APP, STR("last")));
	assert_true(reg_store_stats(s)->bytes <= 300);
	reg_store_free(&s);
}

static void name_of(char out[static 16], int n)
{
	snprintf(out, 16, "i%d", n);
}

/* `count` instances that renew each 10 s, staggered; from `cut` on only the first `left` do. */
static void run(struct reg_store *s, int count, int left, uint64_t cut_s, uint64_t until_s)
{
	char id[16];

	for (uint64_t now = 0; now <= until_s; now++) {
		for (int n = 0; n < count; n++) {
			bool is_cut = now >= cut_s && n >= left;

			name_of(id, n);
			if (is_cut || now % 10 != (uint64_t)n % 10)
				continue;
			if (reg_store_renew(s, APP, str_from(id), now * SEC) == -ENOENT)
				put(s, id, 30, now * SEC);
		}
		reg_store_sweep(s, now * SEC);
	}
}

static void single_deaths_always_expire(void **state)
{
	static const struct {
		int count, left;
		size_t want;
		const char *why;
	} cases[] = {
		{ 1, 0, 0, "the only one" },          { 2, 1, 1, "one of two" },
		{ 9, 0, 0, "too few for a verdict" }, { 12, 5, 5, "most, but few all the same" },
		{ 100, 99, 99, "one of a hundred" },  { 100, 60, 60, "less than half" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct reg_store *s = store();

		run(s, cases[c].count, cases[c].left, 100, 131);
		if (reg_store_stats(s)->instances != cases[c].want || preserving)
			fail_msg("%s: %zu left", cases[c].why, reg_store_stats(s)->instances);
		reg_store_free(&s);
	}
}

static void holds_everything_when_renewals_collapse(void **state)
{
	static const struct {
		int count, left;
	} cases[] = { { 10, 0 }, { 100, 0 }, { 100, 30 }, { 1000, 400 } };

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct reg_store *s = store();

		run(s, cases[c].count, cases[c].left, 100, 140);
		assert_int_equal(reg_store_stats(s)->instances, cases[c].count);
		assert_int_equal(preserving, 1);
		assert_int_equal(reg_store_stats(s)->held, cases[c].count - cases[c].left);
		reg_store_free(&s);
	}
}

static void preservation_ends_by_itself(void **state)
{
	struct reg_store *s = store();
	char id[16];

	(void)state;
	/* The network comes back for all but five, who really died. */
	run(s, 50, 0, 100, 140);
	assert_int_equal(preserving, 1);
	for (uint64_t now = 141; now <= 200; now++) {
		for (int n = 5; n < 50; n++) {
			name_of(id, n);
			if (now % 10 == (uint64_t)n % 10)
				assert_int_equal(reg_store_renew(s, APP, str_from(id), now * SEC),
						 0);
		}
		reg_store_sweep(s, now * SEC);
	}
	assert_int_equal(preserving, 0);
	assert_int_equal(reg_store_stats(s)->instances, 45);
	reg_store_free(&s);

	/* All of them really died: they are held for a while, not for ever. */
	s = store();
	run(s, 50, 0, 100, 400);
	assert_int_equal(reg_store_stats(s)->instances, 50);
	reg_store_sweep(s, 130 * SEC + 11 * 30ULL * SEC);
	assert_int_equal(reg_store_stats(s)->instances, 0);
	assert_int_equal(preserving, 0);
	reg_store_free(&s);
}

static void leaving_in_good_order_is_no_collapse(void **state)
{
	struct reg_store *s = store();
	char id[16];

	(void)state;
	run(s, 100, 100, 200, 100);
	for (int n = 20; n < 100; n++) {
		name_of(id, n);
		reg_store_remove(s, APP, str_from(id), 100 * SEC);
	}
	for (uint64_t now = 101; now <= 140; now++) {
		for (int n = 1; n < 20; n++) { /* the first one died */
			name_of(id, n);
			if (now % 10 == (uint64_t)n % 10)
				reg_store_renew(s, APP, str_from(id), now * SEC);
		}
		reg_store_sweep(s, now * SEC);
	}
	assert_int_equal(preserving, 0);
	assert_int_equal(reg_store_stats(s)->instances, 19);
	reg_store_free(&s);
}

static void eager_renewals_do_not_cover_for_the_silent(void **state)
{
	struct reg_store *s = store();

	(void)state;
	run(s, 50, 0, 100, 100);
	for (uint64_t ms = 100 * SEC; ms <= 140 * SEC; ms += 100) {
		reg_store_renew(s, APP, STR("i0"), ms); /* ten times a second */
		reg_store_sweep(s, ms);
	}
	assert_int_equal(preserving, 1);
	assert_int_equal(reg_store_stats(s)->instances, 50);
	reg_store_free(&s);
}

static void can_be_switched_off(void **state)
{
	struct reg_store *s =
		store_with((struct reg_store_config) { .has_self_preservation = false });

	(void)state;
	run(s, 50, 0, 100, 140);
	assert_int_equal(reg_store_stats(s)->instances, 0);
	reg_store_free(&s);
}

/* Random operations beside a model of plain arrays. */
static void agrees_with_a_simple_model(void **state)
{
	enum { IDS = 40 };
	struct reg_store *s = store_with((struct reg_store_config) { .max_tombstones = 5 });
	uint64_t due[IDS] = { 0 }, last_index = 100;
	uint64_t now = 0;
	unsigned seed = 1;

	(void)state;
	for (int step = 0; step < 50000; step++) {
		int n = rand_r(&seed) % IDS, what = rand_r(&seed) % 10;
		size_t alive = 0;
		char id[16];

		name_of(id, n);
		now += (uint64_t)(rand_r(&seed) % 400);
		if (what < 3) {
			put(s, id, 5 + (uint32_t)rand_r(&seed) % 2, now);
			due[n] = 1;
		} else if (what < 6) {
			assert_int_equal(reg_store_renew(s, APP, str_from(id), now),
					 due[n] ? 0 : -ENOENT);
		} else if (what == 6) {
			assert_int_equal(reg_store_remove(s, APP, str_from(id), now),
					 due[n] ? 0 : -ENOENT);
			due[n] = 0;
		} else if (what == 7) {
			assert_int_equal(reg_store_set_status(s, APP, str_from(id),
							      (enum reg_status)(rand_r(&seed) % 5),
							      REG_NO_STATUS, now),
					 due[n] ? 0 : -ENOENT);
		}
		if (due[n] && what < 6) {
			struct reg_instance i;

			reg_entry_get(reg_store_find(s, APP, str_from(id)), &i);
			due[n] = now + i.lease_s * SEC;
		}
		reg_store_sweep(s, now);
		for (int i = 0; i < IDS; i++) {
			if (due[i] && due[i] <= now)
				due[i] = 0;
			alive += due[i] != 0;
		}
		assert_int_equal(reg_store_stats(s)->instances, alive);
		assert_true(reg_store_index(s) >= last_index);
		last_index = reg_store_index(s);
		if (step % 100 == 0) {
			uint64_t before = 0;

			for (const struct reg_entry *e = reg_store_change_after(s, 0); e;
			     e = reg_store_next_change(s, e)) {
				assert_true(reg_entry_index(e) > before);
				before = reg_entry_index(e);
			}
		}
	}
	reg_store_free(&s);
}

/* --- of a store that several registries share ------------------------------------------------ */

static int take(struct reg_store *s, const char *id, uint64_t index, uint64_t now_ms)
{
	struct reg_instance i = instance(id, 30);

	i.index = index;
	i.registered_ms = 77;
	i.override = REG_DOWN;
	return reg_store_take(s, APP, &i, now_ms);
}

static void takes_what_others_say_under_their_index(void **state)
{
	struct reg_store *s = store();
	struct reg_instance got;

	(void)state;
	assert_int_equal(take(s, "a", 150, 0), 0);
	assert_int_equal(take(s, "b", 160, 0), 0);
	assert_int_equal(take(s, "a", 155, 0), 0); /* newer than ours, and under the next number */
	assert_int_equal(take(s, "b", 159, 0), 0); /* older than ours: nothing */
	assert_string_equal(seen, "+a@150 +b@160 +a@161");
	reg_entry_get(reg_store_find(s, APP, STR("a")), &got);
	assert_int_equal(got.override, REG_DOWN);
	assert_int_equal(got.registered_ms, 77);
	reg_store_advance(s, 199);
	reg_store_depart(s, APP, STR("b"), 1, true);
	reg_store_depart(s, APP, STR("nobody"), 1, true);
	assert_int_equal(reg_store_index(s), 200);
	assert_int_equal(reg_store_stats(s)->expiries, 1);
	reg_store_cap(s, 150);
	reg_store_depart(s, APP, STR("a"), 1, false);
	assert_int_equal(reg_store_index(s), 151);
	reg_store_begin(s, 300);
	assert_int_equal(reg_store_history_index(s), 300);
	reg_store_free(&s);
}

/* "a b" of those that the others are to be told of. */
static void untold(struct reg_store *s, uint64_t now_ms, char *out, size_t size)
{
	const struct reg_entry *e;
	size_t len = 0;

	out[0] = '\0';
	while ((e = reg_store_next_untold(s, now_ms)) != NULL) {
		struct reg_instance i;

		reg_entry_get(e, &i);
		len += (size_t)snprintf(out + len, size - len, "%s%.*s", len ? " " : "",
					STR_ARG(i.id));
	}
}

static void tells_of_renewals_a_third_of_a_lease_apart(void **state)
{
	struct reg_store *s = store_with((struct reg_store_config) { .is_shared = true });
	char text[64];

	(void)state;
	put(s, "a", 30, 0);
	put(s, "b", 30, 0);
	untold(s, 5 * SEC, text, sizeof(text));
	assert_string_equal(text, ""); /* registrations are known */
	for (uint64_t now = 0; now < 10 * SEC; now += SEC)
		reg_store_renew(s, APP, STR("a"), now);
	untold(s, 10 * SEC - 1, text, sizeof(text));
	assert_string_equal(text, "");
	untold(s, 10 * SEC, text, sizeof(text));
	assert_string_equal(text, "a"); /* b was not renewed */
	reg_store_renew(s, APP, STR("a"), 11 * SEC);
	reg_store_renew(s, APP, STR("b"), 11 * SEC); /* due already */
	untold(s, 11 * SEC + 1, text, sizeof(text));
	assert_string_equal(text, "b");
	untold(s, 20 * SEC, text, sizeof(text));
	assert_string_equal(text, "a");
	reg_store_untold(s, APP, STR("a"), 20 * SEC); /* it failed */
	untold(s, 20 * SEC + 1, text, sizeof(text));
	assert_string_equal(text, "a");
	reg_store_renew(s, APP, STR("a"), 25 * SEC);
	reg_store_remove(s, APP, STR("a"), 26 * SEC);
	untold(s, 60 * SEC, text, sizeof(text));
	assert_string_equal(text, "");
	reg_store_free(&s);
}

static int expiring;

static bool on_expire(const struct reg_entry *e, void *arg)
{
	(void)e;
	(void)arg;
	expiring++;
	return false;
}

static void others_may_have_heard_of_a_renewal(void **state)
{
	struct reg_store *s =
		store_with((struct reg_store_config) { .is_shared = true, .on_expire = on_expire });

	(void)state;
	expiring = 0;
	put(s, "a", 10, 0);
	reg_store_heard(s, APP, STR("a"), 5 * SEC, 6 * SEC);
	reg_store_heard(s, APP, STR("a"), 4 * SEC, 7 * SEC); /* older */
	reg_store_sweep(s, 15 * SEC - 1);
	assert_int_equal(expiring, 0);
	reg_store_sweep(s, 15 * SEC);
	assert_int_equal(expiring, 1);
	assert_non_null(reg_store_find(s, APP, STR("a"))); /* somebody else decides */
	reg_store_sweep(s, 15 * SEC + 999);
	assert_int_equal(expiring, 1);
	reg_store_sweep(s, 16 * SEC);
	assert_int_equal(expiring, 2); /* asked again after a second */
	reg_store_grace(s, 17 * SEC);
	reg_store_sweep(s, 27 * SEC - 1);
	assert_int_equal(expiring, 2);
	reg_store_sweep(s, 27 * SEC);
	assert_int_equal(expiring, 3);
	assert_int_equal(reg_store_stats(s)->expiries, 0);
	reg_store_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_replaces_and_removes),
		cmocka_unit_test(lease_runs_out_unless_renewed),
		cmocka_unit_test(override_goes_first_and_survives),
		cmocka_unit_test(tells_what_changed_since),
		cmocka_unit_test(forgets_old_departures),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(forgets_the_departed_before_it_refuses),
		cmocka_unit_test(single_deaths_always_expire),
		cmocka_unit_test(holds_everything_when_renewals_collapse),
		cmocka_unit_test(preservation_ends_by_itself),
		cmocka_unit_test(leaving_in_good_order_is_no_collapse),
		cmocka_unit_test(eager_renewals_do_not_cover_for_the_silent),
		cmocka_unit_test(can_be_switched_off),
		cmocka_unit_test(agrees_with_a_simple_model),
		cmocka_unit_test(takes_what_others_say_under_their_index),
		cmocka_unit_test(tells_of_renewals_a_third_of_a_lease_apart),
		cmocka_unit_test(others_may_have_heard_of_a_renewal),
	};

	return cmocka_run_group_tests_name("reg_store", tests, NULL, NULL);
}
