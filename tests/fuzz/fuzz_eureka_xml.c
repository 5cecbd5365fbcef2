/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML of Eureka's clients: read into JSON that can be written, or refused with a sentence. The
 * bytes are tried as a key and as a text too: written as XML and read again, they are what they
 * were.
 */
#include "registry/eureka/xml.h"

#include "tests/fuzz/fuzz.h"

static void check_read(struct str bytes)
{
	struct err err = { "" };
	json_t *json = eureka_xml_read(bytes, "instance", &err);
	char *text;

	if (!json) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	text = json_dumps(json, JSON_ENCODE_ANY);
	FUZZ_CHECK(text);
	free(text);
	json_decref(json);
}

/* UTF-8 that jansson takes, and nothing that XML cannot hold or that readers may fold. */
static bool is_plain(struct str s)
{
	json_t *text = json_stringn(s.p, s.len);
	bool is_good = text && s.len;

	for (size_t i = 0; i < s.len; i++)
		is_good = is_good && (unsigned char)s.p[i] > 0x20 && s.p[i] != 0x7f;
	/* U+FFFE and U+FFFF are no characters of XML. */
	is_good = is_good && !memmem(s.p, s.len, "\xef\xbf\xbe", 3) &&
		  !memmem(s.p, s.len, "\xef\xbf\xbf", 3);
	json_decref(text);
	return is_good;
}

static void check_round_trip(struct str bytes)
{
	struct buf name, key, xml;
	struct err err = { "" };
	const json_t *value;
	json_t *json;

	buf_init(&name, 0);
	buf_init(&key, 0);
	buf_init(&xml, 0);
	eureka_xml_name(&name, bytes);
	eureka_xml_key(&key, buf_str(&name));
	FUZZ_CHECK(str_eq(buf_str(&key), bytes));
	buf_addz(&xml, "<instance><a>");
	eureka_xml_text(&xml, bytes);
	buf_addz(&xml, "</a></instance>");
	json = eureka_xml_read(buf_str(&xml), "instance", &err);
	value = json_object_get(json, "a");
	FUZZ_CHECK(json_is_string(value));
	FUZZ_CHECK(str_eq(str_of(json_string_value(value), json_string_length(value)), bytes));
	json_decref(json);
	buf_fini(&name);
	buf_fini(&key);
	buf_fini(&xml);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str bytes = fuzz_str(data, size);
	char *copy = fuzz_copy(bytes);

	bytes.p = copy;
	check_read(bytes);
	if (is_plain(bytes))
		check_round_trip(bytes);
	free(copy);
	return 0;
}
