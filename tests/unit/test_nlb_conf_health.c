/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/conf.h"

#include <stdio.h>

#include "tests/unit/unit.h"

static struct arena arena;
static struct conf_errors errors;
static struct nlb_conf conf;

static const struct nlb_conf_health *load(const char *health)
{
	char text[1024];

	arena_fini(&arena);
	conf_errors_fini(&errors);
	arena_init(&arena, 4096, 0);
	errors = (struct conf_errors) { 0 };
	memset(&conf, 0, sizeof(conf));
	snprintf(text, sizeof(text),
		 "{ \"interface\": \"eth0\", \"vips\": [ { \"name\": \"a\", \"address\": "
		 "\"192.0.2.1\", \"port\": 443, \"gateways\": [ { \"address\": \"10.0.0.1\" } ], "
		 "\"health\": { %s } } ] }",
		 health);
	if (conf_load_text(&conf, &nlb_conf_object, str_from(text), &arena, &errors) != 0)
		return NULL;
	return conf.vips[0].health;
}

static void defaults_are_usable(void **state)
{
	const struct nlb_conf_health *h = load("\"type\": \"https\"");

	assert_non_null(h);
	assert_int_equal(h->port, 443);
	assert_true(h->tunnel);
	assert_false(h->verify);
	assert_true(str_eqz(h->path, "/"));
	assert_true(nlb_status_is_good(&h->status, 200));
	assert_true(nlb_status_is_good(&h->status, 299));
	assert_false(nlb_status_is_good(&h->status, 199));
	assert_false(nlb_status_is_good(&h->status, 300));
	h = load("\"type\": \"tcp\", \"tunnel\": false");
	assert_non_null(h);
	assert_false(h->tunnel);
}

static void names_each_status_that_is_wrong(void **state)
{
	assert_null(load("\"type\": \"http\", \"status\": [99, 204, \"500-400\"]"));
	assert_int_equal(errors.count, 2);
	assert_non_null(strstr(errors.first->text, "item 0"));
	assert_non_null(strstr(errors.first->next->text, "item 2"));
}

static void takes_statuses_and_ranges(void **state)
{
	static const struct {
		unsigned status;
		bool is_good;
	} cases[] = {
		{ 199, false }, { 200, true }, { 201, false }, { 301, true }, { 400, false },
		{ 404, true },  { 449, true }, { 450, false }, { 0, false },  { 599, false }
	};
	const struct nlb_conf_health *h =
		load("\"type\": \"http\", \"status\": [200, \"301\", \"404-449\"]");

	assert_non_null(h);
	for (size_t i = 0; i < CASES(cases); i++) {
		if (nlb_status_is_good(&h->status, cases[i].status) != cases[i].is_good)
			fail_msg("%u", cases[i].status);
	}
}

static void names_every_mistake(void **state)
{
	static const struct {
		const char *health, *error;
	} cases[] = {
		{ "\"type\": \"icmp\"", "vips[0].health.type" },
		{ "\"type\": \"tcp\", \"body\": \"x\"", "vips[0].health.body" },
		{ "\"type\": \"tcp\", \"status\": [200]", "vips[0].health.status" },
		{ "\"type\": \"http\", \"verify\": true", "vips[0].health.verify" },
		{ "\"type\": \"http\", \"status\": []", "vips[0].health.status" },
		{ "\"type\": \"http\", \"status\": [99]", "vips[0].health.status" },
		{ "\"type\": \"http\", \"status\": [\"299-200\"]", "vips[0].health.status" },
		{ "\"type\": \"http\", \"status\": [\"2xx\"]", "vips[0].health.status" },
		{ "\"type\": \"http\", \"status\": [\"200-\"]", "vips[0].health.status" },
		{ "\"type\": \"http\", \"status\": 200", "vips[0].health.status" },
		{ "\"type\": \"https\", \"ca_file\": \"/nowhere.pem\"", "vips[0].health.ca_file" },
		{ "\"type\": \"https\", \"verify\": true, \"ca_file\": \"/nowhere.pem\"",
		  "vips[0].health.ca_file" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		const struct nlb_conf_health *h = load(cases[i].health);

		if (h || errors.count != 1 || strcmp(errors.first->path, cases[i].error) != 0)
			fail_msg("%s: %zu errors, %s", cases[i].health, errors.count,
				 errors.first ? errors.first->text : "");
	}
}

static int tear_down(void **state)
{
	arena_fini(&arena);
	conf_errors_fini(&errors);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_usable),
		cmocka_unit_test(takes_statuses_and_ranges),
		cmocka_unit_test(names_each_status_that_is_wrong),
		cmocka_unit_test(names_every_mistake),
	};

	return cmocka_run_group_tests_name("nlb_conf_health", tests, NULL, tear_down);
}
