/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our reader of claims beside jansson: what it takes is JSON, every member is what jansson says it
 * is, and what it refuses is no object of claims, or beyond its bounds.
 */
#include "gateway/identity/claims.h"

#include <jansson.h>

#include "tests/fuzz/fuzz.h"

#define NUMBER_MAX 60 /* longer ones may be refused */

static size_t depth_of(const json_t *v)
{
	size_t deepest = 0, i;
	const char *key;
	json_t *item;

	if (json_is_object(v)) {
		json_object_foreach ((json_t *)(uintptr_t)v, key, item)
			deepest = depth_of(item) > deepest ? depth_of(item) : deepest;
	} else if (json_is_array(v)) {
		json_array_foreach (v, i, item)
			deepest = depth_of(item) > deepest ? depth_of(item) : deepest;
	} else {
		return 0;
	}
	return deepest + 1;
}

static size_t members_of(const json_t *v)
{
	size_t count = 0, i;
	const char *key;
	json_t *item;

	if (json_is_object(v)) {
		json_object_foreach ((json_t *)(uintptr_t)v, key, item)
			count += 1 + members_of(item);
	} else if (json_is_array(v)) {
		json_array_foreach (v, i, item)
			count += members_of(item);
	}
	return count;
}

static bool has_long_number(struct str s)
{
	size_t run = 0;

	for (size_t i = 0; i < s.len; i++) {
		run = isdigit((unsigned char)s.p[i]) || strchr("+-.eE", s.p[i]) ? run + 1 : 0;
		if (run > NUMBER_MAX)
			return true;
	}
	return false;
}

static enum claim_kind kind_of(const json_t *v)
{
	json_t *item;
	size_t i;

	switch (json_typeof(v)) {
	case JSON_STRING:
		return CLAIM_STRING;
	case JSON_INTEGER:
	case JSON_REAL:
		return CLAIM_NUMBER;
	case JSON_TRUE:
	case JSON_FALSE:
		return CLAIM_BOOL;
	case JSON_NULL:
		return CLAIM_NULL;
	case JSON_ARRAY:
		json_array_foreach (v, i, item) {
			if (!json_is_string(item))
				return CLAIM_OTHER;
		}
		return json_array_size(v) ? CLAIM_LIST : CLAIM_OTHER;
	case JSON_OBJECT:
	default:
		return CLAIM_OTHER;
	}
}

static void check_items(const struct claim *claim, const json_t *list)
{
	static char room[CLAIMS_MAX_BYTES];
	struct str rest = claim->json, item;
	size_t count = 0;
	bool is_string;

	while (claims_next_item(&rest, &item, &is_string, room)) {
		const json_t *want = json_array_get(list, count++);

		FUZZ_CHECK(want && is_string == json_is_string(want));
		FUZZ_CHECK(!is_string ||
			   str_eq(item, str_of(json_string_value(want), json_string_length(want))));
	}
	FUZZ_CHECK(count == json_array_size(list));
}

static void check_claim(const struct claim *claim, const json_t *want)
{
	json_t *again = json_loadb(claim->json.p, claim->json.len, JSON_DECODE_ANY, NULL);

	FUZZ_CHECK(claim->kind == kind_of(want));
	FUZZ_CHECK(again && json_equal(again, want));
	if (claim->kind == CLAIM_STRING)
		FUZZ_CHECK(str_eq(claim->text,
				  str_of(json_string_value(want), json_string_length(want))));
	if (json_is_array(want))
		check_items(claim, want);
	json_decref(again);
}

static void check_same(const struct claims *claims, const json_t *object)
{
	size_t found = 0;

	for (size_t i = 0; i < claims->count; i++) {
		const struct claim *claim = &claims->list[i];
		char name[CLAIMS_MAX_BYTES + 1];

		FUZZ_CHECK(claim->parent < (int)i);
		if (claim->parent != -1)
			continue;
		FUZZ_CHECK(claim->name.len < sizeof(name));
		memcpy(name, claim->name.p, claim->name.len);
		name[claim->name.len] = '\0';
		FUZZ_CHECK(json_object_get(object, name));
		check_claim(claim, json_object_get(object, name));
		FUZZ_CHECK((claims_find(claims->list, claims->count, claim->name) == claim) ==
			   (claim->kind != CLAIM_NULL));
		found++;
	}
	FUZZ_CHECK(found == json_object_size(object));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	char *copy = fuzz_copy(bytes);
	struct claims claims;
	json_error_t error;
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, &error);

	if (claims_parse(&claims, str_of(copy, bytes.len)) == 0) {
		/* Numbers that jansson cannot hold are texts to us. */
		if (json)
			check_same(&claims, json);
		else
			FUZZ_CHECK(json_error_code(&error) == json_error_numeric_overflow);
	} else {
		/* jansson overlooks a NUL behind a number. */
		FUZZ_CHECK(!json || !json_is_object(json) || str_chr(bytes, '\0') >= 0 ||
			   bytes.len > CLAIMS_MAX_BYTES || depth_of(json) >= CLAIMS_MAX_DEPTH ||
			   members_of(json) >= CLAIMS_MAX || has_long_number(bytes));
	}
	json_decref(json);
	free(copy);
	return 0;
}
