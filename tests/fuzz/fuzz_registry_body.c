/* SPDX-License-Identifier: Apache-2.0 */
/* An instance in JSON, as clients register it: what is taken, written and read again, is the same.
 */
#include "registry/instance.h"

#include <errno.h>

#include "tests/fuzz/fuzz.h"

static bool is_same(const struct reg_instance *a, const struct reg_instance *b)
{
	return str_eq(a->id, b->id) && str_eq(a->address, b->address) && str_eq(a->zone, b->zone) &&
	       str_eq(a->version, b->version) && str_eq(a->metadata, b->metadata) &&
	       a->lease_s == b->lease_s && a->port == b->port && a->weight == b->weight &&
	       a->is_secure == b->is_secure && a->status == b->status;
}

static void check_again(const struct reg_instance *i, struct arena *a)
{
	struct reg_problem problem;
	struct reg_instance again;
	struct json_writer w;
	struct net_addr addr;
	struct buf text;
	json_t *json;

	FUZZ_CHECK(reg_instance_addr(i, &addr) == 0 && net_port(&addr) == i->port);
	buf_init(&text, 0);
	w = json_writer(&text);
	reg_instance_write(&w, NULL, NULL, i);
	json = json_loadb(buf_data(&text), buf_len(&text), JSON_REJECT_DUPLICATES, NULL);
	FUZZ_CHECK(json);
	FUZZ_CHECK(reg_instance_read(&again, json, (struct str) { 0 }, 30, a, &problem) == 0);
	FUZZ_CHECK(is_same(i, &again));
	json_decref(json);
	buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	struct reg_problem problem = { "", "" };
	struct reg_instance instance;
	struct arena a;
	int rc;

	arena_init(&a, 4096, 0);
	if (json) {
		rc = reg_instance_read(&instance, json, (struct str) { 0 }, 30, &a, &problem);
		FUZZ_CHECK(rc == 0 || (rc == -EINVAL && problem.text[0]));
		if (rc == 0)
			check_again(&instance, &a);
		if (reg_instance_read(&instance, json, STR("id-1"), 30, &a, &problem) == 0)
			check_again(&instance, &a);
	}
	json_decref(json);
	arena_fini(&a);
	return 0;
}
