/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/conf.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"

static struct arena arena;
static struct conf_errors errors;
static struct nlb_conf conf;

static int load(const char *text)
{
	arena_fini(&arena);
	conf_errors_fini(&errors);
	arena_init(&arena, 4096, 0);
	errors = (struct conf_errors) { 0 };
	memset(&conf, 0, sizeof(conf));
	return conf_load_text(&conf, &nlb_conf_object, str_from(text), &arena, &errors);
}

static const char *all_errors(void)
{
	static char text[4096];
	size_t at = 0;

	text[0] = '\0';
	for (const struct conf_error *e = errors.first; e; e = e->next)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s: %s\n", e->path, e->text);
	return text;
}

static void reads_what_the_file_says(void **state)
{
	static const char text[] =
		"{ \"interface\": \"eth0\", \"xdp_mode\": \"native\","
		"  \"source_address\": { \"ipv4\": \"10.9.0.0/24\", \"ipv6\": null },"
		"  \"registry\": { \"urls\": [\"http://10.0.0.9:8761\"] },"
		"  \"admin\": { \"bind\": \"127.0.0.1:9999\", \"socket\": \"/tmp/x.sock\" },"
		"  \"flows_per_cpu\": 4096,"
		"  \"vips\": ["
		"    { \"name\": \"a\", \"address\": \"203.0.113.10\", \"port\": 443, "
		"\"discover\": \"web\","
		"      \"health\": { \"type\": \"http\", \"port\": 9443, \"path\": \"/readyz\","
		"                  \"interval_ms\": 500, \"rise\": 4, \"fall\": 5 } },"
		"    { \"name\": \"b\", \"address\": \"203.0.113.10\", \"port\": 80, "
		"\"encapsulation\": \"ipip\","
		"      \"gateways\": [ { \"name\": \"g\", \"address\": \"10.0.0.21\", \"weight\": "
		"7 },"
		"                    { \"address\": \"10.0.0.22\" } ],"
		"      \"health\": { \"type\": \"tcp\" } } ] }";

	if (load(text) != 0)
		fail_msg("%s", all_errors());
	assert_int_equal(conf.xdp_mode, NLB_XDP_NATIVE);
	assert_true(conf.has_source[0]);
	assert_int_equal(conf.source[0].bits, 96 + 24);
	assert_int_equal(conf.flows_per_cpu, 4096);
	assert_int_equal(net_port(&conf.admin_bind), 9999);
	assert_int_equal(conf.vips_count, 2);

	assert_int_equal(conf.vips[0].encap + 1, NLB_ENCAP_GUE);
	assert_int_equal(net_port(&conf.vips[0].address), 443);
	assert_true(str_eqz(conf.vips[0].discover, "web"));
	assert_int_equal(conf.vips[0].health->type, NLB_HEALTH_HTTP);
	assert_int_equal(conf.vips[0].health->port, 9443);
	assert_int_equal(conf.vips[0].health->timeout_ms, 500); /* never longer than the interval */
	assert_int_equal(conf.vips[0].health->rise, 4);
	assert_int_equal(conf.vips[0].health->fall, 5);

	assert_int_equal(conf.vips[1].encap + 1, NLB_ENCAP_IPIP);
	assert_int_equal(conf.vips[1].health->port, 80); /* the VIP's */
	assert_int_equal(conf.vips[1].gateways[0].weight, 7);
	assert_int_equal(conf.vips[1].gateways[1].weight, 1);
	assert_true(str_eqz(conf.vips[1].gateways[1].name, "10.0.0.22"));
}

static void defaults_are_usable(void **state)
{
	if (load("{ \"interface\": \"eth0\", \"vips\": [ { \"name\": \"a\", \"port\": 1,"
		 "  \"address\": \"192.0.2.1\", \"gateways\": [ { \"address\": \"10.0.0.1\" } ] } "
		 "] }"))
		fail_msg("%s", all_errors());
	assert_int_equal(conf.xdp_mode, NLB_XDP_AUTO);
	assert_int_equal(conf.flows_per_cpu, 1 << 20);
	assert_false(conf.has_source[0]);
	assert_null(conf.vips[0].health);
	assert_true(str_eqz(conf.admin_socket, "/run/gatehouse/nlb.sock"));
	assert_true(str_eqz(conf.pin_directory, "/sys/fs/bpf/gatehouse"));
	assert_int_equal(net_port(&conf.admin_bind), 9440);
}

#define VIP(members)  "{ \"interface\": \"eth0\", \"vips\": [ " members " ] }"
#define GOOD          "\"name\": \"a\", \"address\": \"192.0.2.1\", \"port\": 1"
#define ROOT(members) "{ " members ", \"vips\": [ " ONE " ] }"
#define ETH0          "\"interface\": \"eth0\", "
#define ONE           "{ " GOOD GWS " }"
#define GWS           ", \"gateways\": [ { \"address\": \"10.0.0.1\" } ]"

static void names_every_mistake_with_its_path(void **state)
{
	static const struct {
		const char *text, *error;
	} cases[] = {
		{ "{ \"vips\": [ " ONE " ] }", "interface: is required\n" },
		{ "{ \"interface\": \"eth0\", \"vips\": [] }", "vips: must not be empty\n" },
		{ ROOT("\"interface\": \"a b\""), "interface: must be the name" },
		{ ROOT(ETH0 "\"interfaces\": [\"eth1\", \"eth0\"]"),
		  "interfaces[1]: \"eth0\" is \"interface\" already" },
		{ ROOT(ETH0 "\"interfaces\": [\"eth1\", \"eth1\"]"),
		  "interfaces[1]: \"eth1\" is interfaces[0] already" },
		{ ROOT(ETH0 "\"interfaces\": [\"a/b\"]"), "interfaces[0]: must be the name" },
		{ ROOT(ETH0 "\"registry\": { \"cache\": \"here\" }"),
		  "registry.cache: must be an absolute path" },
		{ ROOT(ETH0 "\"flows_per_cpu\": 3"), "flows_per_cpu: " },
		{ ROOT(ETH0 "\"xdp_mode\": \"fast\""), "xdp_mode: " },
		{ ROOT(ETH0 "\"source_address\": { \"ipv4\": \"::1\" }"), "source_address.ipv4: " },
		{ ROOT(ETH0 "\"source_address\": { \"ipv6\": \"10.0.0.1\" }"),
		  "source_address.ipv6: \"10.0.0.1\" is neither an IPv6 address nor a prefix" },
		{ ROOT(ETH0 "\"source_address\": { \"ipv6\": \"2001:db8::/64\" }"),
		  "source_address.ipv6: \"2001:db8::/64\" is neither" },
		{ ROOT(ETH0 "\"udp_timeout_s\": 0"), "udp_timeout_s: " },
		{ ROOT(ETH0 "\"icmp_per_cpu_s\": -1"), "icmp_per_cpu_s: " },
		{ ROOT(ETH0 "\"registry\": { \"urls\": [\"ftp://x\"] }"),
		  "registry.urls[0]: must be" },
		{ VIP("{ " GOOD " }"), "vips[0]: needs \"gateways\"" },
		{ VIP("{ " GOOD GWS ", \"discover\": \"x\" }"), "vips[0]: has both" },
		{ VIP("{ " GOOD ", \"discover\": \"x\" }"),
		  "vips[0].discover: needs \"registry\"" },
		{ VIP("{ " GOOD GWS ", \"protocol\": \"sctp\" }"), "vips[0].protocol: " },
		{ VIP("{ " GOOD GWS ", \"encapsulation\": \"gre\" }"), "vips[0].encapsulation: " },
		{ VIP("{ " GOOD GWS ", \"announce\": 1 }"), "vips[0].announce: must be true" },
		{ ROOT(ETH0 "\"announce_interface\": \"a/b\""), "announce_interface: must be" },
		{ VIP("{ " GOOD GWS
		      " }, { \"name\": \"a\", \"address\": \"192.0.2.2\", \"port\": 1" GWS " }"),
		  "vips[1].name: \"a\" is vips[0] already\n" },
		{ VIP("{ " GOOD GWS
		      " }, { \"name\": \"b\", \"address\": \"192.0.2.1\", \"port\": 1" GWS " }"),
		  "vips[1]: has the address, port and protocol of vips[0] (a)" },
		{ VIP("{ \"name\": \"a\", \"address\": \"ff02::1\", \"port\": 1" GWS " }"),
		  "vips[0].address: \"ff02::1\" is not the address of a host" },
		{ VIP("{ \"name\": \"a\", \"address\": \"fe80::1\", \"port\": 1" GWS " }"),
		  "vips[0].address: \"fe80::1\" is not the address of a host" },
		{ VIP("{ \"name\": \"a\", \"address\": \"::ffff:192.0.2.1\", \"port\": 1" GWS " }"),
		  "vips[0].address: " },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\" },"
		      " { \"address\": \"2001:db8::1\", \"name\": \"b\" } ] }"),
		  "vips[0].gateways[1].address: is IPv6, while that of gateways[0] (10.0.0.1) is "
		  "IPv4" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"2001:db8::1\" },"
		      " { \"address\": \"2001:DB8:0::1\", \"name\": \"b\" } ] }"),
		  "vips[0].gateways[1].address: is that of gateways[0] (2001:db8::1) already" },
		{ VIP("{ \"name\": \"a\", \"address\": \"224.0.0.1\", \"port\": 1" GWS " }"),
		  "vips[0].address: \"224.0.0.1\" is not the address of a host" },
		{ VIP("{ \"name\": \"a\", \"address\": \"127.0.0.1\", \"port\": 1" GWS " }"),
		  "vips[0].address: " },
		{ VIP("{ \"name\": \"a\", \"address\": \"web.example\", \"port\": 1" GWS " }"),
		  "vips[0].address: \"web.example\" is not an IP address" },
		{ VIP("{ \"name\": \"a\", \"address\": \"192.0.2.1\", \"port\": 65536" GWS " }"),
		  "vips[0].port: " },
		{ VIP("{ \"name\": \"a\", \"address\": \"192.0.2.1\", \"port\": 0" GWS
		      ", \"health\": { \"type\": \"tcp\" } }"),
		  "vips[0].health.port: is required where the VIP takes every port" },
		{ VIP("{ \"name\": \"a b\", \"address\": \"192.0.2.1\", \"port\": 1" GWS " }"),
		  "vips[0].name: must not contain spaces" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\" },"
		      " { \"address\": \"10.0.0.1\", \"name\": \"b\" } ] }"),
		  "vips[0].gateways[1].address: is that of gateways[0] (10.0.0.1) already" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\", \"name\": \"b\" },"
		      " { \"address\": \"10.0.0.2\", \"name\": \"b\" } ] }"),
		  "vips[0].gateways[1].name: \"b\" is gateways[0] already" },
		{ VIP("{ " GOOD
		      ", \"gateways\": [ { \"address\": \"10.0.0.1\", \"weight\": 1001 } ] }"),
		  "vips[0].gateways[0].weight: " },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\" },"
		      " { \"address\": \"192.0.2.1\" } ] }"),
		  "vips[0].gateways[1].address: is the address of the VIP a; a gateway needs" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"192.0.2.2\" } ] },"
		      " { \"name\": \"b\", \"address\": \"192.0.2.2\", \"port\": 0" GWS " }"),
		  "vips[0].gateways[0].address: is the address of the VIP b; a gateway needs" },
		{ VIP("{ " GOOD GWS ", \"allow\": [] }"), "vips[0].allow: must not be empty" },
		{ VIP("{ " GOOD GWS ", \"allow\": [\"10.0.0.0/8\", \"home\"] }"),
		  "vips[0].allow[1]: " },
		{ VIP("{ " GOOD GWS ", \"allow\": [\"10.0.0.0/8\", \"2001:db8::/32\"] }"),
		  "vips[0].allow[1]: is IPv6, while the VIP is IPv4" },
		{ VIP("{ " GOOD GWS ", \"new_connections_per_source\": { } }"),
		  "vips[0].new_connections_per_source.per_s: is required" },
		{ VIP("{ " GOOD GWS ", \"new_connections_per_source\": { \"per_s\": 0 } }"),
		  "vips[0].new_connections_per_source.per_s: " },
		{ VIP("{ " GOOD GWS
		      ", \"new_connections_per_source\": { \"per_s\": 2, \"burst\": 121 } }"),
		  "vips[0].new_connections_per_source.burst: must not be more than what 60 s earn "
		  "(120)" },
		{ VIP("{ " GOOD GWS ", \"health\": { \"type\": \"tcp\", \"path\": \"/\" } }"),
		  "vips[0].health.path: is for checks of type \"http\"" },
		{ VIP("{ " GOOD GWS ", \"health\": { \"type\": \"http\", \"path\": \"x\" } }"),
		  "vips[0].health.path: must begin with \"/\"" },
		{ VIP("{ " GOOD GWS ", \"health\": { \"type\": \"tcp\", \"timeout_ms\": 2000 } }"),
		  "vips[0].health.timeout_ms: must not be longer than interval_ms (1000)" },
		{ VIP("{ " GOOD GWS ", \"health\": { \"type\": \"icmp\" } }"),
		  "vips[0].health.type: " },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		if (load(cases[i].text) == 0)
			fail_msg("taken: %s", cases[i].text);
		if (strncmp(all_errors(), cases[i].error, strlen(cases[i].error)) != 0 ||
		    errors.count != 1)
			fail_msg("%s\nsays: %swants: %s", cases[i].text, all_errors(),
				 cases[i].error);
	}
	load("{ \"interfacez\": 1, \"xdp_mode\": 7, \"vips\": [ { \"name\": \"\" } ] }");
	assert_true(errors.count >= 5); /* all of them in one run */
}

static void warns_of_vips_that_take_no_new_connections(void **state)
{
	static const struct {
		const char *text, *warning;
	} cases[] = {
		{ VIP("{ " GOOD ", \"gateways\": [] }"), "vips[0].gateways: is empty" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\", \"weight\": 0 },"
		      " { \"address\": \"10.0.0.2\", \"weight\": 0 } ] }"),
		  "vips[0].gateways: all have weight 0" },
		{ VIP("{ " GOOD ", \"gateways\": [ { \"address\": \"10.0.0.1\", \"weight\": 0 },"
		      " { \"address\": \"10.0.0.2\" } ] }"),
		  "" },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		const char *wanted = cases[i].warning;

		if (load(cases[i].text) != 0)
			fail_msg("%s", all_errors());
		assert_int_equal(errors.warnings, *wanted != '\0');
		if (strncmp(all_errors(), wanted, strlen(wanted)) != 0)
			fail_msg("says: %swants: %s", all_errors(), wanted);
	}
}

static void takes_both_families_and_protocols(void **state)
{
	static const char text[] =
		"{ \"interface\": \"eth0\", \"source_address\": { \"ipv6\": \"fd00:9::/112\" },"
		"  \"udp_timeout_s\": 30, \"icmp_per_cpu_s\": 0, \"vips\": ["
		"    { \"name\": \"a\", \"address\": \"2001:db8::10\", \"port\": 443,"
		"      \"gateways\": [ { \"address\": \"10.0.0.21\" } ] },"
		"    { \"name\": \"b\", \"address\": \"2001:db8::10\", \"port\": 443,"
		"      \"protocol\": \"udp\", \"encapsulation\": \"ipip\","
		"      \"gateways\": [ { \"address\": \"fd00::21\" }, { \"address\": \"fd00::22\" "
		"} ] },"
		"    { \"name\": \"c\", \"address\": \"2001:db8::10\", \"port\": 0,"
		"      \"gateways\": [ { \"address\": \"fd00::21\" } ],"
		"      \"health\": { \"type\": \"tcp\", \"port\": 80 } } ] }";

	if (load(text) != 0)
		fail_msg("%s", all_errors());
	assert_true(conf.has_source[1]);
	assert_false(conf.has_source[0]);
	assert_int_equal(conf.source[1].bits, 112);
	assert_int_equal(conf.udp_timeout_s, 30);
	assert_int_equal(conf.icmp_per_cpu_s, 0);
	assert_int_equal(nlb_conf_vip_family(&conf.vips[0]), 4);
	assert_int_equal(nlb_conf_vip_family(&conf.vips[1]), 6);
	assert_string_equal(nlb_protocol_names[conf.vips[0].protocol], "tcp");
	assert_string_equal(nlb_protocol_names[conf.vips[1].protocol], "udp");
	assert_int_equal(conf.vips[2].port, 0);
	assert_int_equal(net_port(&conf.vips[1].address), 443);
}

static void rates_are_counted_in_ticks(void **state)
{
	static const struct {
		uint32_t per_s, burst, hz, interval, burst_ticks;
	} cases[] = {
		{ 1, 1, 1000, 65536000, 65536000 },
		{ 1, 60, 1000, 65536000, 3932160000 }, /* the longest that is allowed */
		{ 10, 20, 250, 1638400, 32768000 },
		{ 100000, 6000000, 100, 65, 390000000 },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct nlb_conf_source_rate rate = { cases[i].per_s, cases[i].burst };
		uint32_t interval, burst;

		nlb_conf_source_rate_ticks(&rate, cases[i].hz, &interval, &burst);
		assert_int_equal(interval, cases[i].interval);
		assert_int_equal(burst, cases[i].burst_ticks);
	}
}

static void overhead_is_that_of_the_outer_headers(void **state)
{
	static const struct {
		const char *encap;
		uint32_t v4, v6;
	} cases[] = {
		{ "ipip", 20, 40 },
		{ "gue", 20 + 8 + 4 + 4 + 8, 40 + 8 + 4 + 4 + 32 },
		{ "l2", 0, 0 },
	};

	for (size_t i = 0; i < CASES(cases); i++) {
		struct nlb_conf_vip vip = { 0 };

		while (strcmp(nlb_encap_names[vip.encap], cases[i].encap) != 0)
			vip.encap++;
		assert_int_equal(nlb_conf_vip_overhead(&vip, 4), cases[i].v4);
		assert_int_equal(nlb_conf_vip_overhead(&vip, 6), cases[i].v6);
	}
}

static void seed_decides_all_hash_keys(void **state)
{
	uint64_t a[NLB_HASH_KEYS], b[NLB_HASH_KEYS], other[NLB_HASH_KEYS];
	struct hash_key ra, rb, ro;

	conf = (struct nlb_conf) { .hash_seed = STR("one") };
	nlb_conf_hash_keys(&conf, &ra, a);
	nlb_conf_hash_keys(&conf, &rb, b);
	conf.hash_seed = STR("two");
	nlb_conf_hash_keys(&conf, &ro, other);
	assert_memory_equal(a, b, sizeof(a));
	assert_memory_equal(&ra, &rb, sizeof(ra));
	assert_memory_not_equal(&ra, &ro, sizeof(ra));
	for (size_t i = 0; i < NLB_HASH_KEYS; i++) {
		assert_true(a[i] & 1);
		assert_int_not_equal(a[i], other[i]);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(a[i], a[j]);
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
		cmocka_unit_test(reads_what_the_file_says),
		cmocka_unit_test(defaults_are_usable),
		cmocka_unit_test(warns_of_vips_that_take_no_new_connections),
		cmocka_unit_test(takes_both_families_and_protocols),
		cmocka_unit_test(rates_are_counted_in_ticks),
		cmocka_unit_test(overhead_is_that_of_the_outer_headers),
		cmocka_unit_test(names_every_mistake_with_its_path),
		cmocka_unit_test(seed_decides_all_hash_keys),
	};

	return cmocka_run_group_tests_name("nlb_conf", tests, NULL, tear_down);
}
