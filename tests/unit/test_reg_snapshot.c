/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/snapshot.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cleanup.h"
#include "tests/unit/unit.h"

#define CHECK "{\"type\":\"tcp\",\"interval_ms\":1000,\"timeout_ms\":100,\"rise\":1,\"fall\":2}"

static struct reg_store *store_of(int count)
{
	struct reg_store_config config = { .start_index = 1000 };
	struct reg_store *s = reg_store_new(&config, 0);

	for (int n = 0; n < count; n++) {
		char id[16];
		struct reg_instance i = {
			.id = str_of(id, (size_t)snprintf(id, sizeof(id), "id-%d", n)),
			.address = n % 2 ? STR("192.0.2.1") : STR("2001:db8::1"),
			.zone = STR("zone"),
			.version = STR("1.2"),
			.metadata = str_of("k\0v\0key\0\0", 9),
			.check = STR(CHECK),
			.lease_s = 30,
			.port = (uint16_t)(8000 + n),
			.weight = 7,
			.is_secure = n % 3 == 0,
			.status = REG_STARTING,
		};
		uint64_t index;

		assert_int_equal(reg_store_put(s, STR("app"), &i, 0, 77, &index), REG_PUT_NEW);
	}
	return s;
}

static void sealed(const struct reg_store *s, struct buf *out)
{
	buf_init(out, 0);
	reg_snapshot_encode(s, 99, out);
	reg_snapshot_seal(out);
}

static void restore(struct str app, const struct reg_instance *i, void *arg)
{
	assert_int_equal(reg_store_restore(arg, app, i, 0), 0);
}

static void ignore(struct str app, const struct reg_instance *i, void *arg)
{
	(void)app;
	(void)i;
	(void)arg;
}

static void gives_back_what_was_written(void **state)
{
	struct reg_store_config config = { .start_index = 5000 };
	struct reg_store *s = store_of(3), *again = reg_store_new(&config, 0);
	struct reg_snapshot_info info;
	struct reg_instance i;
	struct err err;
	struct buf b;

	(void)state;
	reg_store_set_status(s, STR("app"), STR("id-0"), REG_OUT_OF_SERVICE, REG_NO_STATUS, 0);
	reg_store_remove(s, STR("app"), STR("id-1"), 0);
	sealed(s, &b);
	assert_int_equal(reg_snapshot_decode(buf_str(&b), &info, restore, again, &err), 0);
	assert_int_equal(info.index, 1005);
	assert_int_equal(info.saved_ms, 99);
	assert_int_equal(info.count, 2);
	assert_int_equal(info.read, 2);
	assert_int_equal(reg_store_stats(again)->instances, 2);
	assert_null(reg_store_find(again, STR("app"), STR("id-1")));
	reg_entry_get(reg_store_find(again, STR("app"), STR("id-0")), &i);
	assert_int_equal(i.override, REG_OUT_OF_SERVICE);
	assert_int_equal(i.status, REG_STARTING);
	assert_int_equal(i.index, 1004);
	assert_int_equal(i.registered_ms, 77);
	assert_int_equal(i.port, 8000);
	assert_int_equal(i.weight, 7);
	assert_true(i.is_secure);
	assert_true(str_eq(i.address, STR("2001:db8::1")));
	assert_true(str_eq(i.zone, STR("zone")));
	assert_true(str_eq(i.version, STR("1.2")));
	assert_true(str_eq(reg_metadata_get(&i, "k"), STR("v")));
	assert_true(str_eq(reg_metadata_get(&i, "key"), STR("")));
	assert_true(str_eq(i.check, STR(CHECK)));
	/* A lease begins anew, and new indexes are beyond the old ones. */
	reg_store_sweep(again, 29999);
	assert_int_equal(reg_store_stats(again)->instances, 2);
	assert_int_equal(reg_store_history_index(again), 5000);
	reg_store_sweep(again, 30000);
	assert_int_equal(reg_store_stats(again)->instances, 0);
	buf_fini(&b);
	reg_store_free(&s);
	reg_store_free(&again);
}

/* At every byte: refused with a sentence, or every instance in front of the cut. */
static void survives_a_cut_at_every_byte(void **state)
{
	struct reg_store *s = store_of(5);
	size_t record, header = 40;
	struct buf b;

	(void)state;
	sealed(s, &b);
	record = (buf_len(&b) - header) / 5; /* address lengths differ, so only nearly */
	for (size_t len = 0; len <= buf_len(&b); len++) {
		/* A copy of exactly that length: the sanitizer sees a read beyond it. */
		CLEANUP(cleanup_free) char *copy = malloc(len ? len : 1);
		struct reg_snapshot_info info = { .read = 99 };
		struct err err = { "" };
		int r;

		memcpy(copy, buf_data(&b), len);
		r = reg_snapshot_decode(str_of(copy, len), &info, ignore, NULL, &err);
		if (len < header) {
			assert_int_equal(r, -EBADMSG);
			assert_true(err.text[0] != '\0');
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(info.count, 5);
		assert_true(info.read >= (len - header) / (record + 4));
		assert_true(info.read <= (len - header) / (record - 4));
		assert_int_equal(info.read == 5, len == buf_len(&b));
	}
	buf_fini(&b);
	reg_store_free(&s);
}

static void notices_every_flipped_bit(void **state)
{
	struct reg_store *s = store_of(3);
	struct buf b;

	(void)state;
	sealed(s, &b);
	for (size_t bit = 0; bit < buf_len(&b) * 8; bit++) {
		struct reg_snapshot_info info = { 0 };
		struct err err;
		int r;

		buf_data(&b)[bit / 8] ^= (char)(1 << bit % 8);
		r = reg_snapshot_decode(buf_str(&b), &info, ignore, NULL, &err);
		assert_true(r == -EBADMSG || info.read < 3);
		buf_data(&b)[bit / 8] ^= (char)(1 << bit % 8);
	}
	buf_fini(&b);
	reg_store_free(&s);
}

static void saves_over_the_old_file_or_not_at_all(void **state)
{
	char folder[] = "/tmp/gatehouse-test-XXXXXX", path[64], fresh[96];
	struct rlimit limit, small;
	struct err err = { "" };
	struct stat st;
	struct buf b;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/snapshot", folder);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	assert_int_equal(reg_snapshot_save(path, STR("first"), &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(reg_snapshot_save(path, STR("second"), &err), 0);

	/* A disk that is full, by the limit of a file's size. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	small = (struct rlimit) { .rlim_cur = 3, .rlim_max = limit.rlim_max };
	setrlimit(RLIMIT_FSIZE, &small);
	assert_int_equal(reg_snapshot_save(path, STR("third"), &err), -EFBIG);
	setrlimit(RLIMIT_FSIZE, &limit);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(stat(fresh, &st), -1);
	buf_init(&b, 0);
	assert_int_equal(reg_snapshot_load(path, &b, &err), 0);
	assert_true(str_eq(buf_str(&b), STR("second")));
	buf_fini(&b);

	unlink(path);
	buf_init(&b, 0);
	assert_int_equal(reg_snapshot_load(path, &b, &err), -ENOENT);
	buf_fini(&b);
	rmdir(folder);
	assert_int_equal(reg_snapshot_save(path, STR("x"), &err), -ENOENT);
	assert_non_null(strstr(err.text, "make its folder first"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back_what_was_written),
		cmocka_unit_test(survives_a_cut_at_every_byte),
		cmocka_unit_test(notices_every_flipped_bit),
		cmocka_unit_test(saves_over_the_old_file_or_not_at_all),
	};

	return cmocka_run_group_tests_name("reg_snapshot", tests, NULL, NULL);
}
