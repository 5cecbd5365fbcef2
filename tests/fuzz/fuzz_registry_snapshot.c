/* SPDX-License-Identifier: Apache-2.0 */
/* The registry's snapshot: as it is, and with checksums that are right. */
#include <endian.h>
#include <errno.h>

#include "registry/snapshot.h"
#include "tests/fuzz/fuzz.h"

struct told {
	uint64_t count;
	struct reg_store *store;
};

static void on_instance(struct str app, const struct reg_instance *i, void *arg)
{
	struct told *told = arg;
	struct str rest = i->metadata, key, value;

	told->count++;
	while (reg_metadata_next(&rest, &key, &value))
		FUZZ_CHECK(str_chr(key, '\0') < 0 && str_chr(value, '\0') < 0);
	reg_store_restore(told->store, app, i, 0);
}

static void decode(struct str bytes)
{
	struct reg_store_config config = { .start_index = 1 };
	struct told told = { .store = reg_store_new(&config, 0) };
	struct reg_snapshot_info info;
	struct err err = { "" };
	int rc;

	if (!told.store)
		abort();
	rc = reg_snapshot_decode(bytes, &info, on_instance, &told, &err);
	FUZZ_CHECK(rc == 0 || (rc == -EBADMSG && err.text[0] && !told.count));
	FUZZ_CHECK(rc || (info.read == told.count && info.read <= info.count));
	reg_store_free(&told.store);
}

/* Whether its lengths add up, which sealing relies on: it is meant for what we wrote ourselves. */
static bool is_sealable(struct str bytes)
{
	const size_t header = 40, prefix = 12;
	uint32_t len;

	if (bytes.len < header)
		return false;
	bytes = str_sub(bytes, header, bytes.len);
	while (bytes.len >= prefix) {
		memcpy(&len, bytes.p, sizeof(len));
		if (le32toh(len) > bytes.len - prefix)
			return false;
		bytes = str_sub(bytes, prefix + le32toh(len), bytes.len);
	}
	return bytes.len == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	char *copy = fuzz_copy(bytes);
	struct buf sealed;

	decode(str_of(copy, bytes.len));
	if (is_sealable(bytes)) {
		buf_init(&sealed, 0);
		buf_add(&sealed, bytes);
		reg_snapshot_seal(&sealed);
		decode(buf_str(&sealed));
		buf_fini(&sealed);
	}
	free(copy);
	return 0;
}
