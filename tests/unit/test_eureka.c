/* SPDX-License-Identifier: Apache-2.0 */
/* Eureka's documents: what is read, what is refused, and that what is written can be read again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/cleanup.h"
#include "lib/gzip.h"
#include "registry/eureka/instance.h"
#include "registry/eureka/write.h"
#include "registry/eureka/xml.h"
#include "tests/unit/unit.h"

#define APP "app"
/* What every registration needs. */
#define NEEDED                                                                                     \
	"\"hostName\":\"h\",\"app\":\"APP\",\"ipAddr\":\"10.0.0.1\",\"dataCenterInfo\":{\"name\":" \
	"\"MyOwn\"}"

static struct arena arena;

static int begin(void **state)
{
	(void)state;
	arena_init(&arena, 4096, 0);
	return 0;
}

static int finish(void **state)
{
	(void)state;
	arena_fini(&arena);
	return 0;
}

static int read_json(const char *text, struct reg_instance *i, struct eureka_info *info,
		     struct eureka_problem *problem)
{
	json_t *json = json_loads(text, 0, NULL);
	int r;

	assert_non_null(json);
	problem->text[0] = '\0';
	r = eureka_read(i, info, json, APP, &arena, problem);
	json_decref(json);
	return r;
}

static void assert_str(struct str got, const char *want)
{
	if (!str_eqz(got, want))
		fail_msg("got \"%.*s\", want \"%s\"", STR_ARG(got), want);
}

/* --- reading --------------------------------------------------------------------------------- */

static void fills_in_the_defaults(void **state)
{
	struct eureka_problem problem;
	struct reg_instance i;
	struct eureka_info info;

	(void)state;
	assert_int_equal(read_json("{" NEEDED "}", &i, &info, &problem), 0);
	assert_str(i.id, "h");
	assert_str(i.address, "10.0.0.1");
	assert_int_equal(i.port, 7001);
	assert_int_equal(i.lease_s, 90);
	assert_int_equal(info.renewal_s, 30);
	assert_int_equal(info.secure_port, 7002);
	assert_true(info.has_port && !info.has_secure_port && !i.is_secure);
	assert_int_equal(i.status, REG_UP);
	assert_int_equal(i.override, REG_NO_STATUS);
	assert_int_equal(i.weight, REG_WEIGHT_DEFAULT);
	assert_int_equal(info.country, 1);
}

static void reads_what_clients_write(void **state)
{
	static const struct {
		const char *json, *id, *zone, *metadata_a;
		unsigned port, weight;
		enum reg_status status, override;
		bool is_secure;
		const char *why;
	} cases[] = {
		{ NEEDED ",\"port\":{\"$\":8080,\"@enabled\":\"true\"}", "h", "", NULL, 8080, 100,
		  REG_UP, 0, false, "Java's codec" },
		{ NEEDED ",\"port\":{\"$\":\"8080\",\"@enabled\":true}", "h", "", NULL, 8080, 100,
		  REG_UP, 0, false, "Go's: texts and truth" },
		{ NEEDED ",\"port\":8080", "h", "", NULL, 8080, 100, REG_UP, 0, false,
		  "a bare number" },
		{ NEEDED ",\"port\":{\"$\":80,\"@enabled\":\"false\"},"
			 "\"securePort\":{\"$\":8443,\"@enabled\":\"true\"}",
		  "h", "", NULL, 8443, 100, REG_UP, 0, true, "only the secure one is enabled" },
		{ NEEDED ",\"instanceId\":\"h:app:80\",\"status\":\"STARTING\"", "h:app:80", "",
		  NULL, 7001, 100, REG_STARTING, 0, false, "an id of its own" },
		{ NEEDED ",\"metadata\":{\"instanceId\":\"x1\"}", "h:x1", "", NULL, 7001, 100,
		  REG_UP, 0, false, "Spring's id in the metadata" },
		{ NEEDED ",\"status\":\"NONSENSE\"", "h", "", NULL, 7001, 100, REG_UNKNOWN, 0,
		  false, "an unknown status" },
		{ NEEDED ",\"overriddenStatus\":\"UNKNOWN\"", "h", "", NULL, 7001, 100, REG_UP, 0,
		  false, "no override" },
		{ NEEDED ",\"overriddenstatus\":\"OUT_OF_SERVICE\"", "h", "", NULL, 7001, 100,
		  REG_UP, REG_OUT_OF_SERVICE, false, "the older spelling" },
		{ NEEDED ",\"metadata\":{\"@class\":\"java.util.Collections$EmptyMap\",\"a\":5,"
			 "\"b\":null,\"zone\":\"z1\",\"weight\":\"7\"}",
		  "h", "z1", "5", 7001, 7, REG_UP, 0, false, "metadata" },
		{ NEEDED ",\"metadata\":{\"weight\":\"70000\",\"zone\":\"a\\nb\"}", "h", "", NULL,
		  7001, 1000, REG_UP, 0, false, "hints out of bounds" },
		{ NEEDED ",\"metadata\":{\"weight\":\"-1\"}", "h", "", NULL, 7001, 100, REG_UP, 0,
		  false, "a weight that is none" },
		{ "\"hostName\":\"h\",\"app\":\"App\",\"ipAddr\":\"10.0.0.1\",\"dataCenterInfo\":{"
		  "\"name\":"
		  "\"Amazon\",\"metadata\":{\"instance-id\":\"i-1\",\"availability-zone\":\"eu-"
		  "1a\"}},"
		  "\"metadata\":{\"zone\":\"other\"}",
		  "i-1", "eu-1a", NULL, 7001, 100, REG_UP, 0, false, "Amazon's" },
		{ NEEDED ",\"leaseInfo\":null,\"metadata\":null,\"port\":null,\"asgName\":null,"
			 "\"more\":[{}]",
		  "h", "", NULL, 7001, 100, REG_UP, 0, false,
		  "nulls, and members that nobody knows" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct eureka_problem problem;
		struct reg_instance i;
		struct eureka_info info;
		char text[1024];

		snprintf(text, sizeof(text), "{%s}", cases[c].json);
		if (read_json(text, &i, &info, &problem) < 0)
			fail_msg("%s: refused: %s", cases[c].why, problem.text);
		if (!str_eqz(i.id, cases[c].id) || !str_eqz(i.zone, cases[c].zone) ||
		    i.port != cases[c].port || i.weight != cases[c].weight ||
		    i.status != cases[c].status || i.override != cases[c].override ||
		    i.is_secure != cases[c].is_secure)
			fail_msg("%s: id %.*s, zone %.*s, port %u, weight %u, status %d, override "
				 "%d",
				 cases[c].why, STR_ARG(i.id), STR_ARG(i.zone), i.port, i.weight,
				 i.status, i.override);
		if (cases[c].metadata_a)
			assert_str(reg_metadata_get(&i, "a"), cases[c].metadata_a);
		assert_null(reg_metadata_get(&i, "@class").p);
	}
}

static void says_what_is_wrong(void **state)
{
	static const struct {
		const char *json, *want;
	} cases[] = {
		{ "{}", "Missing instanceId" },
		{ "{\"instanceId\":\"a\"}", "Missing hostname" },
		{ "{\"instanceId\":\"a\",\"hostName\":\"h\"}", "Missing ip address" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"10.0.0.1\"}", "Missing appName" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"10.0.0.1\",\"app\":\"other\"}",
		  "Mismatched appName, expecting app but was other" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"10.0.0.1\",\"app\":\"APP\"}",
		  "Missing dataCenterInfo" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"10.0.0.1\",\"app\":\"APP\",\"dataCenterInfo\":{"
		  "}}",
		  "Missing dataCenterInfo Name" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"10.0.0.1\",\"app\":\"APP\","
		  "\"dataCenterInfo\":{\"name\":\"Moon\"}}",
		  "dataCenterInfo Name must be MyOwn, Amazon or Netflix" },
		{ "{\"hostName\":\"h\",\"ipAddr\":\"nowhere\"}",
		  "ipAddr must be an IPv4 or IPv6 address that others can connect to" },
		{ "{" NEEDED ",\"port\":{\"$\":65536}}", "port must be from 0 to 65535" },
		{ "{" NEEDED ",\"port\":{\"$\":-1}}", "port must be a number" },
		{ "{" NEEDED ",\"port\":{\"$\":0}}", "port must not be 0" },
		{ "{" NEEDED ",\"instanceId\":\"a b\"}",
		  "instanceId must have at most 256 visible ASCII characters" },
		{ "{" NEEDED ",\"metadata\":{\"a\":{}}}", "metadata a must be a text" },
		{ "{" NEEDED ",\"homePageUrl\":[]}", "homePageUrl must be a text" },
		{ "[]", "the body must hold an instance" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct eureka_problem problem;
		struct reg_instance i;
		struct eureka_info info;

		assert_int_equal(read_json(cases[c].json, &i, &info, &problem), -EINVAL);
		assert_string_equal(problem.text, cases[c].want);
	}
}

static void bounds_what_it_keeps(void **state)
{
	struct eureka_problem problem;
	struct reg_instance i;
	struct eureka_info info;
	struct buf text;

	(void)state;
	buf_init(&text, 0);
	buf_addz(&text, "{" NEEDED ",\"metadata\":{\"a\":\"");
	for (int n = 0; n <= REG_VALUE_MAX; n++)
		buf_putc(&text, 'x');
	buf_append(&text, "\"}}", 4);
	assert_int_equal(read_json(buf_data(&text), &i, &info, &problem), -EINVAL);
	buf_reset(&text, SIZE_MAX);
	buf_addz(&text, "{" NEEDED ",\"metadata\":{");
	for (int n = 0; n <= REG_METADATA_MAX; n++)
		buf_printf(&text, "%s\"k%d\":\"\"", n ? "," : "", n);
	buf_append(&text, "}}", 3);
	assert_int_equal(read_json(buf_data(&text), &i, &info, &problem), -EINVAL);
	buf_reset(&text, SIZE_MAX);
	buf_addz(&text, "{" NEEDED ",\"homePageUrl\":\"");
	for (int n = 0; n <= REG_EUREKA_BYTES; n++)
		buf_putc(&text, 'x');
	buf_append(&text, "\"}", 3);
	assert_int_equal(read_json(buf_data(&text), &i, &info, &problem), 0);
	assert_int_equal(eureka_info_set(&i, &info, &arena), -E2BIG);
	buf_fini(&text);
}

static void keeps_all_that_eureka_knows(void **state)
{
	static const struct eureka_info given = {
		.host = STR("h"),
		.group = STR("g"),
		.home_url = STR("http://h/"),
		.status_url = STR("s"),
		.health_url = STR("c"),
		.secure_health_url = STR("C"),
		.vip = STR("a,b"),
		.secure_vip = STR("sec"),
		.asg = STR("asg"),
		.sid = STR("sid"),
		.data_center = STR("Amazon"),
		.amazon = STR("mami-id=a=b\0minstance-id=i-1\0"),
		.port = 1,
		.secure_port = 65535,
		.country = 49,
		.renewal_s = 5,
		.has_secure_port = true,
		.is_coordinating = true,
		.dirty_ms = 1795721582851,
		.up_ms = 7,
	};
	struct reg_instance i = { .eureka = STR("") };
	struct str rest, key, value;
	struct eureka_info got;

	(void)state;
	assert_int_equal(eureka_info_set(&i, &given, &arena), 0);
	eureka_info_get(&got, APP, &i);
	assert_str(got.host, "h");
	assert_str(got.group, "g");
	assert_str(got.secure_health_url, "C");
	assert_str(got.vip, "a,b");
	assert_str(got.secure_vip, "sec");
	assert_str(got.asg, "asg");
	assert_str(got.sid, "sid");
	assert_true(got.port == 1 && got.secure_port == 65535 && !got.has_port &&
		    got.has_secure_port && got.is_coordinating && got.country == 49 &&
		    got.renewal_s == 5 && got.dirty_ms == 1795721582851 && got.up_ms == 7);
	rest = got.amazon;
	assert_true(eureka_amazon_next(&rest, &key, &value));
	assert_str(key, "ami-id");
	assert_str(value, "a=b");
	assert_true(eureka_amazon_next(&rest, &key, &value));
	assert_str(value, "i-1");
	assert_false(eureka_amazon_next(&rest, &key, &value));
}

/* --- XML ------------------------------------------------------------------------------------- */

static void xml_becomes_the_json_that_says_the_same(void **state)
{
	static const struct {
		const char *xml, *json;
	} cases[] = {
		{ "<instance/>", "\"\"" },
		{ "<instance><a>1</a><b/><c x=\"y\">2</c><d><e> f </e></d><g h=\"i\"/></instance>",
		  "{\"a\":\"1\",\"b\":\"\",\"c\":{\"@x\":\"y\",\"$\":\"2\"},\"d\":{\"e\":\" f "
		  "\"},\"g\":{\"@h\":\"i\"}}" },
		{ "<?xml version=\"1.0\" "
		  "encoding=\"ISO-8859-1\"?><instance><a>\xe4&amp;&#65;</a></instance>",
		  "{\"a\":\"ä&A\"}" },
		{ "<instance><!-- a comment --><a><![CDATA[<b>]]></a></instance>",
		  "{\"a\":\"<b>\"}" },
		{ "<instance><metadata><a__b "
		  "x=\"1\">1</a__b><_.0031>2</_.0031><_->3</_-></metadata></instance>",
		  "{\"metadata\":{\"a_b\":\"1\",\"1\":\"2\",\"$\":\"3\"}}" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct err err = { "" };
		json_t *got = eureka_xml_read(str_from(cases[c].xml), "instance", &err);
		json_t *want = json_loads(cases[c].json, JSON_DECODE_ANY, NULL);

		if (!got || !json_equal(got, want))
			fail_msg("%s: %s", cases[c].xml, err.text);
		json_decref(got);
		json_decref(want);
	}
}

static void refuses_xml_that_is_none_or_too_much(void **state)
{
	static const char *const cases[] = {
		"",
		"<instance>",
		"<other/>",
		"<instance/><instance/>",
		"<instance><a></b></instance>",
		"<instance>\xff</instance>",
		"<!DOCTYPE instance><instance/>",
		"<!DOCTYPE i [<!ENTITY a \"a\"><!ENTITY b \"&a;&a;\">]><instance>&b;</instance>",
		"<!DOCTYPE i [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><instance>&a;</instance>",
		"<instance>&undefined;</instance>",
		"<instance><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>",
	};
	struct err err;
	struct buf many;

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		err.text[0] = '\0';
		if (eureka_xml_read(str_from(cases[c]), "instance", &err) || !err.text[0])
			fail_msg("taken: %s", cases[c]);
	}
	buf_init(&many, 0);
	buf_addz(&many, "<instance>");
	for (int n = 0; n < EUREKA_XML_ELEMENTS; n++)
		buf_addz(&many, "<a/>");
	buf_addz(&many, "</instance>");
	assert_null(eureka_xml_read(buf_str(&many), "instance", &err));
	buf_fini(&many);
}

static void keys_survive_as_names(void **state)
{
	static const struct {
		const char *key, *name;
	} cases[] = {
		{ "zone", "zone" },  { "a_b", "a__b" },
		{ "$x", "_-x" },     { "management.port", "management.port" },
		{ "1a", "_.0031a" }, { "a b/c<", "a_.0020b_.002fc_.003c" },
		{ "ä", "_.00e4" },   { "😀", "_.d83d_.de00" },
		{ "_", "__" },       { "_.0041", "__.0041" },
		{ "-", "_.002d" },
	};

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct buf name, key;

		buf_init(&name, 0);
		buf_init(&key, 0);
		eureka_xml_name(&name, str_from(cases[c].key));
		assert_str(buf_str(&name), cases[c].name);
		eureka_xml_key(&key, buf_str(&name));
		assert_str(buf_str(&key), cases[c].key);
		buf_fini(&name);
		buf_fini(&key);
	}
}

static void odd_names_stay_as_they_are(void **state)
{
	static const char *const cases[] = { "a_b", "_", "_.00", "_.d83d", "_.zzzz", "_.0000" };

	(void)state;
	for (size_t c = 0; c < CASES(cases); c++) {
		struct buf key;

		buf_init(&key, 0);
		eureka_xml_key(&key, str_from(cases[c]));
		assert_str(buf_str(&key), cases[c]);
		buf_fini(&key);
	}
}

static void text_is_escaped(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 0);
	eureka_xml_text(&out, STR("<a href='b'>\"&\" \r\n\x01\xff\xed\xa0\x80ä😀"));
	assert_str(buf_str(&out), "&lt;a href=&apos;b&apos;&gt;&quot;&amp;&quot; &#xd;\n"
				  "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdä😀");
	buf_fini(&out);
}

/* --- writing --------------------------------------------------------------------------------- */

static struct reg_store *store_of_two(void)
{
	struct reg_store_config config = { .start_index = 100 };
	struct reg_store *s = reg_store_new(&config, 0);
	struct eureka_problem problem;
	struct eureka_info info;
	struct reg_instance i, plain = {
		.id = STR("n1"),
		.address = STR("2001:db8::1"),
		.zone = STR(""),
		.version = STR(""),
		.metadata = STR(""),
		.eureka = STR(""),
		.lease_s = 30,
		.port = 443,
		.weight = 100,
		.is_secure = true,
		.status = REG_DOWN,
	};
	uint64_t index;

	assert_int_equal(
		read_json("{" NEEDED
			  ",\"instanceId\":\"h:app:80\",\"port\":{\"$\":80},\"vipAddress\":\"v,w\","
			  "\"metadata\":{\"a_1\":\"<&>\",\"7\":\"\",\"n\":\"12\"},"
			  "\"lastDirtyTimestamp\":\"55\","
			  "\"homePageUrl\":\"http://h/?a=1&b=2\"}",
			  &i, &info, &problem),
		0);
	assert_int_equal(eureka_info_set(&i, &info, &arena), 0);
	assert_int_equal(reg_store_put(s, STR("app"), &i, 1000, 5000, &index), REG_PUT_NEW);
	assert_int_equal(reg_store_put(s, STR("plain"), &plain, 2000, 6000, &index), REG_PUT_NEW);
	return s;
}

/* No client but Netflix's own takes a member that it does not know. */
static void assert_only(const json_t *object, const char *known)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
		char word[80];

		snprintf(word, sizeof(word), " %s ", key);
		if (!strstr(known, word))
			fail_msg("unknown member %s", key);
	}
}

static void json_has_the_shape_that_clients_want(void **state)
{
	struct reg_store *s = store_of_two();
	struct buf out;
	struct eureka_writer w = { .out = &out, .now_ms = 3000, .wall_ms = 7000 };
	const json_t *apps, *app, *i;
	json_t *json;

	(void)state;
	buf_init(&out, 0);
	eureka_write_all(&w, s);
	json = json_loadb(buf_data(&out), buf_len(&out), 0, NULL);
	assert_non_null(json);
	apps = json_object_get(json, "applications");
	assert_string_equal(json_string_value(json_object_get(apps, "versions__delta")), "1");
	assert_string_equal(json_string_value(json_object_get(apps, "apps__hashcode")),
			    "DOWN_1_UP_1_");
	app = json_array_get(json_object_get(apps, "application"), 0);
	assert_string_equal(json_string_value(json_object_get(app, "name")), "APP");
	assert_only(app, " name instance ");
	i = json_array_get(json_object_get(app, "instance"), 0);
	assert_only(
		i, " instanceId hostName app ipAddr sid status overriddenStatus port securePort "
		   "countryId "
		   "dataCenterInfo leaseInfo metadata appGroupName homePageUrl statusPageUrl "
		   "healthCheckUrl "
		   "secureHealthCheckUrl vipAddress secureVipAddress isCoordinatingDiscoveryServer "
		   "lastUpdatedTimestamp lastDirtyTimestamp actionType asgName ");
	assert_only(
		json_object_get(i, "leaseInfo"),
		" renewalIntervalInSecs durationInSecs registrationTimestamp lastRenewalTimestamp "
		"evictionTimestamp serviceUpTimestamp ");
	assert_only(json_object_get(i, "dataCenterInfo"), " @class name ");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(i, "port"), "$")), 80);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(i, "port"), "@enabled")), "true");
	assert_true(json_is_integer(json_object_get(i, "countryId")));
	assert_string_equal(json_string_value(json_object_get(i, "lastUpdatedTimestamp")), "5000");
	assert_string_equal(json_string_value(json_object_get(i, "lastDirtyTimestamp")), "55");
	assert_string_equal(json_string_value(json_object_get(i, "isCoordinatingDiscoveryServer")),
			    "false");
	assert_string_equal(json_string_value(json_object_get(json_object_get(i, "metadata"), "n")),
			    "12");
	/* One that our own API registered. */
	app = json_array_get(json_object_get(apps, "application"), 1);
	i = json_array_get(json_object_get(app, "instance"), 0);
	assert_string_equal(json_string_value(json_object_get(i, "secureVipAddress")), "plain");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(i, "metadata"), "@class")),
		"java.util.Collections$EmptyMap");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(i, "securePort"), "$")),
			 443);
	json_decref(json);
	buf_fini(&out);
	reg_store_free(&s);
}

static void compact_leaves_out_what_few_look_at(void **state)
{
	struct reg_store *s = store_of_two();
	struct buf out;
	struct eureka_writer w = { .out = &out, .is_compact = true };
	json_t *json;

	(void)state;
	buf_init(&out, 0);
	eureka_write_instance(&w, reg_store_find(s, STR("app"), STR("h:app:80")));
	json = json_loadb(buf_data(&out), buf_len(&out), 0, NULL);
	assert_only(
		json_object_get(json, "instance"),
		" instanceId hostName app ipAddr status port securePort dataCenterInfo vipAddress "
		"secureVipAddress lastUpdatedTimestamp actionType asgName ");
	json_decref(json);
	buf_fini(&out);
	reg_store_free(&s);
}

static void xml_can_be_read_again(void **state)
{
	struct reg_store *s = store_of_two();
	const struct reg_entry *e = reg_store_find(s, STR("app"), STR("h:app:80"));
	struct buf out;
	struct eureka_writer w = { .out = &out, .is_xml = true };
	struct reg_instance before, after;
	struct eureka_info info, again;
	struct eureka_problem problem = { "" };
	struct err err;
	json_t *json;

	(void)state;
	buf_init(&out, 0);
	eureka_write_instance(&w, e);
	json = eureka_xml_read(buf_str(&out), "instance", &err);
	assert_non_null(json);
	assert_int_equal(eureka_read(&after, &info, json, APP, &arena, &problem), 0);
	reg_entry_get(e, &before);
	eureka_info_get(&again, APP, &before);
	assert_true(str_eq(before.id, after.id) && before.port == after.port &&
		    before.lease_s == after.lease_s && before.status == after.status);
	assert_str(reg_metadata_get(&after, "a_1"), "<&>");
	assert_str(reg_metadata_get(&after, "7"), "");
	assert_str(info.home_url, "http://h/?a=1&b=2");
	assert_str(info.vip, "v,w");
	assert_int_equal(info.dirty_ms, again.dirty_ms);
	assert_int_equal(info.has_port, again.has_port);
	json_decref(json);
	buf_reset(&out, 0);
	eureka_write_all(&w, s);
	json = eureka_xml_read(buf_str(&out), "applications", &err);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "apps__hashcode")),
			    "DOWN_1_UP_1_");
	json_decref(json);
	buf_fini(&out);
	reg_store_free(&s);
}

/* "APP:h:app:80=ADDED …" in the order of the document. */
static void delta_of(const struct reg_store *s, uint64_t since_ms, char *out, size_t size)
{
	struct buf text;
	struct eureka_writer w = { .out = &text };
	const json_t *app, *i;
	size_t a, n, len = 0;
	json_t *json;

	buf_init(&text, 0);
	assert_int_equal(eureka_write_delta(&w, s, since_ms), 0);
	json = json_loadb(buf_data(&text), buf_len(&text), 0, NULL);
	assert_non_null(json);
	out[0] = '\0';
	json_array_foreach (json_object_get(json_object_get(json, "applications"), "application"),
			    a, app) {
		json_array_foreach (json_object_get(app, "instance"), n, i)
			len += (size_t)snprintf(
				out + len, size - len, "%s%s:%s=%s", len ? " " : "",
				json_string_value(json_object_get(app, "name")),
				json_string_value(json_object_get(i, "instanceId")),
				json_string_value(json_object_get(i, "actionType")));
	}
	json_decref(json);
	buf_fini(&text);
}

static void delta_tells_each_instance_once(void **state)
{
	struct reg_store *s = store_of_two();
	struct reg_instance i;
	char text[512];
	uint64_t index;

	(void)state;
	delta_of(s, 0, text, sizeof(text));
	assert_true(strcmp(text, "APP:h:app:80=ADDED PLAIN:n1=ADDED") == 0 ||
		    strcmp(text, "PLAIN:n1=ADDED APP:h:app:80=ADDED") == 0);
	delta_of(s, 1500, text, sizeof(text));
	assert_string_equal(text, "PLAIN:n1=ADDED");
	reg_store_set_status(s, STR("plain"), STR("n1"), REG_UP, REG_NO_STATUS, 4000);
	delta_of(s, 3000, text, sizeof(text));
	assert_string_equal(text, "PLAIN:n1=MODIFIED");
	reg_entry_get(reg_store_find(s, STR("plain"), STR("n1")), &i);
	i = reg_instance_copy(&i, &arena);
	reg_store_remove(s, STR("plain"), STR("n1"), 5000);
	delta_of(s, 3000, text, sizeof(text));
	assert_string_equal(text, "PLAIN:n1=DELETED");
	i.override = REG_NO_STATUS;
	reg_store_put(s, STR("plain"), &i, 6000, 0, &index);
	delta_of(s, 3000, text, sizeof(text));
	assert_string_equal(text, "PLAIN:n1=ADDED");
	reg_store_remove(s, STR("plain"), STR("n1"), 7000);
	delta_of(s, 3000, text, sizeof(text));
	assert_string_equal(text, "PLAIN:n1=DELETED");
	delta_of(s, 8000, text, sizeof(text));
	assert_string_equal(text, "");
	reg_store_free(&s);
}

static void an_override_does_not_lift_what_a_client_says_of_being_down(void **state)
{
	struct reg_instance i = { .status = REG_DOWN, .override = REG_UP, .eureka = STR("hh\0") };

	(void)state;
	assert_int_equal(reg_instance_status(&i), REG_DOWN);
	i.status = REG_UP;
	i.override = REG_OUT_OF_SERVICE;
	assert_int_equal(reg_instance_status(&i), REG_OUT_OF_SERVICE);
	i.status = REG_UNKNOWN;
	assert_int_equal(reg_instance_status(&i), REG_OUT_OF_SERVICE);
	/* By our own API the operator has the last word. */
	i = (struct reg_instance) { .status = REG_DOWN, .override = REG_UP, .eureka = STR("") };
	assert_int_equal(reg_instance_status(&i), REG_UP);
}

/* --- gzip ------------------------------------------------------------------------------------ */

static void gzip_packs_and_unpacks(void **state)
{
	struct buf in, packed, out;
	char zeros[1000] = { 0 };

	(void)state;
	buf_init(&in, 0);
	buf_init(&packed, 0);
	buf_init(&out, 0);
	for (unsigned n = 0; n < 300000; n++)
		buf_printf(&in, "%u,", n * 2654435761U);
	assert_int_equal(gzip_compress(&packed, buf_str(&in)), 0);
	assert_int_equal(gzip_expand(&out, buf_str(&packed)), 0);
	assert_true(str_eq(buf_str(&in), buf_str(&out)));
	buf_reset(&out, 0);
	assert_int_equal(gzip_expand(&out, str_sub(buf_str(&packed), 0, buf_len(&packed) - 1)),
			 -EBADMSG);
	buf_reset(&out, 0);
	assert_int_equal(gzip_expand(&out, STR("no gzip at all")), -EBADMSG);
	assert_int_equal(gzip_expand(&out, STR("")), -EBADMSG);
	buf_putc(&packed, 'x');
	buf_reset(&out, 0);
	assert_int_equal(gzip_expand(&out, buf_str(&packed)), -EBADMSG); /* something behind it */
	/* A bomb: a thousandth of what it holds. */
	buf_reset(&packed, 0);
	buf_reset(&in, 0);
	for (int n = 0; n < 10000; n++)
		buf_append(&in, zeros, sizeof(zeros));
	assert_int_equal(gzip_compress(&packed, buf_str(&in)), 0);
	buf_fini(&out);
	buf_init(&out, 1 << 20);
	assert_int_equal(gzip_expand(&out, buf_str(&packed)), -ENOSPC);
	buf_reset(&packed, 0);
	assert_int_equal(gzip_compress(&packed, STR("")), 0);
	buf_reset(&out, 0);
	assert_int_equal(gzip_expand(&out, buf_str(&packed)), 0);
	assert_int_equal(buf_len(&out), 0);
	buf_fini(&in);
	buf_fini(&packed);
	buf_fini(&out);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, begin, finish)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(fills_in_the_defaults),
		EACH(reads_what_clients_write),
		EACH(says_what_is_wrong),
		EACH(bounds_what_it_keeps),
		EACH(keeps_all_that_eureka_knows),
		EACH(xml_becomes_the_json_that_says_the_same),
		EACH(refuses_xml_that_is_none_or_too_much),
		EACH(keys_survive_as_names),
		EACH(odd_names_stay_as_they_are),
		EACH(text_is_escaped),
		EACH(json_has_the_shape_that_clients_want),
		EACH(compact_leaves_out_what_few_look_at),
		EACH(xml_can_be_read_again),
		EACH(delta_tells_each_instance_once),
		EACH(an_override_does_not_lift_what_a_client_says_of_being_down),
		EACH(gzip_packs_and_unpacks),
	};

	return cmocka_run_group_tests_name("eureka", tests, NULL, NULL);
}
