/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/identity/claims.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/identity/identity.h"
#include "lib/cleanup.h"
#include "tests/unit/unit.h"

static bool is_good(struct str text)
{
	struct claims claims;

	return claims_parse(&claims, text) == 0;
}

static void judges_json(void **state)
{
	static const struct {
		const char *json;
		bool is_good;
	} cases[] = {
		{ "{}", true },
		{ " {\t\"a\" : 1 ,\r\n\"b\":[ ] } ", true },
		{ "", false },
		{ "{", false },
		{ "{}{}", false },
		{ "{} x", false },
		{ "[]", false },
		{ "1", false },
		{ "{\"a\"}", false },
		{ "{\"a\":}", false },
		{ "{\"a\":1,}", false },
		{ "{,\"a\":1}", false },
		{ "{a:1}", false },
		{ "{'a':1}", false },
		{ "{\"a\":1 \"b\":2}", false },
		{ "{\"a\":[1,]}", false },
		{ "{\"a\":[,1]}", false },
		{ "{\"a\":[1 2]}", false },
		{ "{\"a\":1,\"a\":2}", false },
		{ "{\"a\":1,\"\\u0061\":2}", false },
		{ "{\"a\":{\"b\":1,\"b\":2}}", false },
		{ "{\"a\":[{\"b\":1,\"b\":2}]}", false },
		{ "{\"a\":{\"b\":1},\"c\":{\"b\":2},\"b\":3}", true },
		{ "{\"a\":01}", false },
		{ "{\"a\":-}", false },
		{ "{\"a\":+1}", false },
		{ "{\"a\":1.}", false },
		{ "{\"a\":.5}", false },
		{ "{\"a\":1e}", false },
		{ "{\"a\":1e+2}", true },
		{ "{\"a\":-0.5E-2}", true },
		{ "{\"a\":1e400}", false },
		{ "{\"a\":-1e400}", false },
		{ "{\"a\":1e-400}", true },
		{ "{\"a\":9223372036854775807}", true },
		{ "{\"a\":9223372036854775808}", false },
		{ "{\"a\":-9223372036854775808}", true },
		{ "{\"a\":-9223372036854775809}", false },
		{ "{\"a\":0x10}", false },
		{ "{\"a\":NaN}", false },
		{ "{\"a\":Infinity}", false },
		{ "{\"a\":tru}", false },
		{ "{\"a\":True}", false },
		{ "{\"a\":truex}", false },
		{ "{\"a\":\"\\u0000\"}", false },
		{ "{\"\\u0000\":1}", false },
		{ "{\"a\":\"\\ud800\"}", false },
		{ "{\"a\":\"\\ud800\\u0041\"}", false },
		{ "{\"a\":\"\\udc00\\ud800\"}", false },
		{ "{\"a\":\"\\ud83d\\ude00\"}", true },
		{ "{\"a\":\"\\u00g0\"}", false },
		{ "{\"a\":\"\\u00", false },
		{ "{\"a\":\"\\x\"}", false },
		{ "{\"a\":\"\\", false },
		{ "{\"a\":\"\n\"}", false },
		{ "{\"a\":\"\t\"}", false },
		{ "{\"a\":\"\x7f\"}", true },
		{ "{\"a\":\"\xc3\xa9\"}", true },
		{ "{\"a\":\"\xc0\xaf\"}", false },
		{ "{\"a\":\"\xc3\"}", false },
		{ "{\"a\":\"\xed\xa0\x80\"}", false },
		{ "{\"a\":\"\xf4\x90\x80\x80\"}", false },
		{ "{\"a\":\"\xf0\x8f\xbf\xbf\"}", false },
		{ "{\"a\":\"\xf0\x9f\x98\x80\"}", true },
		{ "{\"a\":\"\xff\"}", false },
		{ "\xef\xbb\xbf{}", false },
		{ "{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}", true },
		{ "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", false },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		if (is_good(str_from(cases[i].json)) != cases[i].is_good)
			fail_msg("%s", cases[i].json);
	}
	assert_false(is_good(str_of("{}\0", 3)));
}

static void claims_are_found_by_name_and_path(void **state)
{
	static const char text[] =
		"{ \"a.b\" : \"whole\", \"a\": {\"b\":\"nested\", \"c\":{\"d\":[\"x\", \"y,z\"]},"
		"\"n\":null, \"\":3}, \"list\":[{\"in\":1}], \"e\":\"q\\u00e9\\/\\n\", "
		"\"one\":[\"\\u0041b\"], \"none\":[], \"mixed\":[\"a\", 2], \"t\":true }";
	static const struct {
		const char *path, *text, *json;
		enum claim_kind kind;
	} cases[] = {
		{ "a.b", "whole", "\"whole\"", CLAIM_STRING },
		{ "a.c.d", "x,y,z", "[\"x\",\"y,z\"]", CLAIM_LIST },
		{ "a.c", "{\"d\":[\"x\",\"y,z\"]}", "{\"d\":[\"x\",\"y,z\"]}", CLAIM_OTHER },
		{ "a.", "3", "3", CLAIM_NUMBER },
		{ "e", "q\xc3\xa9/\n", "\"q\\u00e9\\/\\n\"", CLAIM_STRING },
		{ "one", "Ab", "[\"\\u0041b\"]", CLAIM_LIST },
		{ "none", "[]", "[]", CLAIM_OTHER },
		{ "mixed", "[\"a\",2]", "[\"a\",2]", CLAIM_OTHER },
		{ "t", "true", "true", CLAIM_BOOL },
	};
	static const char *const absent[] = { "",  "b",   "a.n",     "a.c.d.x", ".b",  "a.x",
					      "x", "c.d", "list.in", "in",      "a..b" };
	struct identity *id = identity_new(str_from(text), STR("a.b"), 5);

	assert_non_null(id);
	assert_true(str_eqz(id->user->text, "whole"));
	for (size_t i = 0; i < CASES(cases); i++) {
		const struct claim *claim = identity_claim(id, str_from(cases[i].path));

		if (!claim || !str_eqz(claim->text, cases[i].text) ||
		    !str_eqz(claim->json, cases[i].json) || claim->kind != cases[i].kind)
			fail_msg("%s: %.*s", cases[i].path, claim ? (int)claim->text.len : 0,
				 claim ? claim->text.p : "");
	}
	for (size_t i = 0; i < CASES(absent); i++)
		assert_null(identity_claim(id, str_from(absent[i])));
	assert_true(str_eqz(identity_header_text(id, STR("a.b")), "whole"));
	assert_null(identity_header_text(id, STR("e")).p); /* a line feed */
	assert_null(identity_header_text(id, STR("x")).p);
	assert_true(identity_claim_has(id, STR("a.c.d"), STR("y,z")));
	assert_false(identity_claim_has(id, STR("a.c.d"), STR("y")));
	assert_true(identity_claim_has(id, STR("one"), STR("Ab")));
	assert_true(identity_claim_has(id, STR("mixed"), STR("2")));
	assert_false(identity_claim_has(id, STR("none"), STR("")));
	identity_put(&id);
}

static void members_are_bounded(void **state)
{
	char text[CLAIMS_MAX_BYTES + 64];
	size_t len = 0;

	for (int count = CLAIMS_MAX; count <= CLAIMS_MAX + 1; count++) {
		len = 0;
		for (int i = 0; i < count; i++)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%c\"m%d\":%d",
						i ? ',' : '{', i, i);
		text[len++] = '}';
		assert_int_equal(is_good(str_of(text, len)), count == CLAIMS_MAX);
	}
	/* The longest text there may be, of escapes only: decoded ones find room. */
	memcpy(text, "{\"a\":[\"", 7);
	for (len = 7; len < CLAIMS_MAX_BYTES - 10; len += 6)
		memcpy(text + len, "\\u00e9", 6);
	memcpy(text + len - 6, "\",\"\"]}", 6);
	assert_true(is_good(str_of(text, len)));
	memset(text, ' ', sizeof(text));
	memcpy(text, "{}", 2);
	assert_true(is_good(str_of(text, CLAIMS_MAX_BYTES)));
	assert_false(is_good(str_of(text, CLAIMS_MAX_BYTES + 1)));
}

/* A text and what jansson, which we did not write, makes of it. */
static void compare(struct str text)
{
	json_t *theirs = json_loadb(text.p, text.len, JSON_REJECT_DUPLICATES, NULL), *ours;
	struct claims claims;
	int rc = claims_parse(&claims, text);

	/* jansson overlooks a NUL behind a number; there is none in JSON. */
	if (memchr(text.p, 0, text.len)) {
		assert_int_equal(rc, -EINVAL);
		json_decref(theirs);
		return;
	}
	if ((rc == 0) != json_is_object(theirs)) {
		for (size_t i = 0; i < text.len; i++)
			printf(text.p[i] > ' ' ? "%c" : "\\%02hhx", text.p[i]);
		fail_msg("%d", rc);
	}
	if (rc == 0) {
		ours = json_loadb(claims.json.p, claims.json.len, JSON_REJECT_DUPLICATES, NULL);
		if (!json_equal(ours, theirs))
			fail_msg("%.*s -> %.*s", STR_ARG(text), STR_ARG(claims.json));
		json_decref(ours);
	}
	for (size_t i = 0; rc == 0 && i < claims.count; i++) {
		const struct claim *c = &claims.list[i];
		const json_t *value;

		if (c->parent >= 0 || c->kind != CLAIM_STRING)
			continue;
		value = json_object_getn(theirs, c->name.p, c->name.len);
		assert_true(str_eq(c->text,
				   str_of(json_string_value(value), json_string_length(value))));
	}
	json_decref(theirs);
}

static void another_parser_agrees(void **state)
{
	static const char *const seeds[] = {
		"{\"iss\":\"https://id.example.com/\",\"sub\":\"u\\u00e91\",\"exp\":1800000100,"
		"\"roles\":[\"a\",\"b\\\"c\"],\"o\":{\"x\":{\"y\":[1,-2.5e3,true,null]}},\"e\":"
		"\"\"}",
		"{\"a\":\"\\ud83d\\ude00\xf0\x9f\x98\x80\xc3\xa9\",\"b\":[{\"c\":[[],{}]}],\"d\":-"
		"0}",
		" { \"k\" : [ \"v\" , { } ] , \"n\" : 0.0 , \"t\":[true,false,null]} ",
	};
	static const char pieces[] =
		"{}[]\",:\\u0123456789abcdefnrt-+.eE \t\n\x00\x1f\x7f\x80\xbf\xc2\xe0\xed\xf4\xff";
	unsigned seed = 1;

	for (int round = 0; round < 60000; round++) {
		char text[512];
		size_t len = strlen(seeds[round % 3]);

		memcpy(text, seeds[round % 3], len);
		for (int changes = rand_r(&seed) % 3; changes >= 0 && len > 1; changes--) {
			size_t at = (size_t)rand_r(&seed) % len;
			char piece = pieces[(size_t)rand_r(&seed) % (sizeof(pieces) - 1)];

			switch (rand_r(&seed) % 4) {
			case 0:
				text[at] = piece;
				break;
			case 1:
				memmove(text + at + 1, text + at, len - at);
				text[at] = piece;
				len++;
				break;
			case 2:
				memmove(text + at, text + at + 1, len - at - 1);
				len--;
				break;
			default:
				len = at ? at : len;
			}
		}
		compare(str_of(text, len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(judges_json),
		cmocka_unit_test(claims_are_found_by_name_and_path),
		cmocka_unit_test(members_are_bounded),
		cmocka_unit_test(another_parser_agrees),
	};

	return cmocka_run_group_tests_name("claims", tests, NULL, NULL);
}
