/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base64.h"

#include "lib/hash.h"
#include "tests/unit/unit.h"

static void reads_what_it_writes(void **state)
{
	for (size_t len = 0; len < 200; len++) {
		unsigned char data[200], back[BASE64URL_DECODED_MAX(300)];
		char text[300];
		size_t text_len;

		random_bytes(data, sizeof(data));
		text_len = base64url_encode(text, data, len);
		assert_int_equal(text_len, BASE64URL_ENCODED_LEN(len));
		assert_int_equal(base64url_decode(back, str_of(text, text_len)), len);
		assert_memory_equal(back, data, len);
	}
}

static void known_texts(void **state)
{
	static const struct {
		const char *plain, *text; /* RFC 4648 10, without padding */
	} cases[] = {
		{ "", "" },
		{ "f", "Zg" },
		{ "fo", "Zm8" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg" },
		{ "fooba", "Zm9vYmE" },
		{ "foobar", "Zm9vYmFy" },
	};
	char out[64];

	for (size_t i = 0; i < CASES(cases); i++) {
		assert_int_equal(base64url_decode(out, str_from(cases[i].text)),
				 strlen(cases[i].plain));
		assert_memory_equal(out, cases[i].plain, strlen(cases[i].plain));
	}
	assert_int_equal(base64url_encode(out, "\xfb\xff\xfe", 3), 4);
	assert_memory_equal(out, "-__-", 4);
}

static void refuses_every_other_spelling(void **state)
{
	static const char *const bad[] = {
		"Zg==",  "Zm8=", "Z",    "Zh",     "Zm9",  "Zm9vY",
		"Zm9v ", "Zm+v", "Zm/v", "Zm9v\n", "Zm.v", "\xc3\xa9Zg"
	};
	char out[64];

	for (size_t i = 0; i < CASES(bad); i++) {
		if (base64url_decode(out, str_from(bad[i])) >= 0)
			fail_msg("%s is not refused", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_it_writes),
		cmocka_unit_test(known_texts),
		cmocka_unit_test(refuses_every_other_spelling),
	};

	return cmocka_run_group_tests_name("base64", tests, NULL, NULL);
}
