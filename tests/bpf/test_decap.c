/* SPDX-License-Identifier: Apache-2.0 */
/* The decapsulating program of gateway hosts, packet by packet, through BPF_PROG_TEST_RUN. */
#include "bpf/nlb_abi.h"
#include "decap.skel.h"
#include "tests/bpf/packets.h"

#define CLIENT IP(198, 51, 100, 7)
#define NLB    IP(10, 0, 0, 2)
#define SELF   IP(10, 0, 0, 21)
#define VIP    IP(203, 0, 113, 10)

static struct decap_bpf *skel;
static int load_error;

static int load_group(void **state)
{
	(void)state;
	libbpf_set_print(silent);
	skel = decap_bpf__open();
	if (!skel)
		return -1;
	load_error = decap_bpf__load(skel);
	if (load_error && !is_missing_right(load_error)) {
		print_error("loading the program: %s\n", strerror(-load_error));
		return -1;
	}
	return 0;
}

static int unload_group(void **state)
{
	(void)state;
	decap_bpf__destroy(skel);
	return 0;
}

static void mapped(uint8_t out[16], uint32_t address)
{
	uint32_t word = htonl(address);

	memset(out, 0, 10);
	memset(out + 10, 0xff, 2);
	memcpy(out + 12, &word, 4);
}

static void allow(uint32_t address, uint32_t len)
{
	struct decap_source_key key = { .prefix_len = 96 + len };
	uint32_t one = 1;

	mapped(key.address, address);
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.decap_sources), &key, &one, BPF_ANY), 0);
}

static void fresh_world(void)
{
	struct decap_vip_key vip;
	uint32_t one = 1;

	if (load_error) {
		print_message("SKIP: loading BPF programs needs root or CAP_BPF: %s\n",
			      strerror(-load_error));
		skip();
	}
	allow(NLB, 32);
	mapped(vip.address, VIP);
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.decap_vips), &vip, &one, BPF_ANY), 0);
}

/* --- packets --------------------------------------------------------------------------------- */

struct tunnel_packet {
	uint32_t gue_words; /* of private data; ignored for IP in IP */
	uint32_t source, destination;
	uint32_t outer_options, inner_options, vlan_tags, payload_len, padding, port;
	uint16_t frag;
	uint8_t outer_tos, inner_tos;
	uint8_t gue_version, gue_protocol, gue_flags;
	bool is_gue;
};

static void put_link(struct bytes *p, uint32_t tags)
{
	put_ethernet(p, MAC_NLB, MAC_ROUTER, tags == 2 ? 0x88a8 : tags == 1 ? 0x8100 : 0x0800);
	for (uint32_t i = tags; i > 0; i--) {
		put16(p, 100 + i);
		put16(p, i > 1 ? 0x8100 : 0x0800);
	}
}

static void put_inner(struct bytes *p, const struct tunnel_packet *t, uint8_t tos)
{
	struct ipv4_options ip = { .source = CLIENT,
				   .destination = t->destination ? t->destination : VIP,
				   .protocol = IPPROTO_TCP,
				   .ttl = 61,
				   .tos = tos,
				   .id = 7,
				   .frag = 0x4000,
				   .options_len = t->inner_options };

	put_ipv4(p, &ip, 20 + t->payload_len);
	put_tcp(p, 40000, 443, TCP_ACK);
	for (uint32_t i = 0; i < t->payload_len; i++)
		put8(p, i);
}

static struct bytes *tunnelled(const struct tunnel_packet *t)
{
	static struct bytes p;
	uint32_t inner_len = 40 + t->inner_options + t->payload_len;
	struct ipv4_options outer = { .source = t->source ? t->source : NLB,
				      .destination = SELF,
				      .protocol = t->is_gue ? IPPROTO_UDP : IPPROTO_IPIP,
				      .ttl = 64,
				      .tos = t->outer_tos,
				      .frag = t->frag ? t->frag : 0x4000,
				      .options_len = t->outer_options };

	p.len = 0;
	put_link(&p, t->vlan_tags);
	if (t->is_gue) {
		uint32_t gue_len = 4 + 4 * t->gue_words;

		put_ipv4(&p, &outer, 8 + gue_len + inner_len);
		put16(&p, 50000);
		put16(&p, t->port ? t->port : 6080);
		put16(&p, 8 + gue_len + inner_len);
		put16(&p, 0);
		put8(&p, t->gue_version | t->gue_words);
		put8(&p, t->gue_protocol ? t->gue_protocol : IPPROTO_IPIP);
		put16(&p, t->gue_flags);
		for (uint32_t i = 0; i < t->gue_words; i++)
			put32(&p, 0x01020304);
	} else {
		put_ipv4(&p, &outer, inner_len);
	}
	put_inner(&p, t, t->inner_tos);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&p, 0);
	return &p;
}

static uint64_t reason_count(uint32_t reason)
{
	return percpu_sum_u64(bpf_map__fd(skel->maps.decap_reasons), reason, 0, sizeof(uint64_t));
}

static uint64_t all_reasons(void)
{
	uint64_t sum = 0;

	for (uint32_t r = 0; r < DECAP_REASON_COUNT; r++)
		sum += reason_count(r);
	return sum;
}

static uint32_t run(const struct bytes *in, struct bytes *out)
{
	return run_program(bpf_program__fd(skel->progs.decap), in, out);
}

static void assert_ends(const struct bytes *in, uint32_t reason, uint32_t action, const char *why)
{
	uint64_t before = reason_count(reason), all = all_reasons();
	struct bytes copy = *in, out;
	uint32_t got = run(&copy, &out);

	if (got != action)
		fail_msg("%s: action %u, want %u", why, got, action);
	if (reason_count(reason) != before + 1 || all_reasons() != all + 1)
		fail_msg("%s: not counted under its one reason", why);
	assert_bytes(&out, &copy, why);
}

static void assert_decapsulated(const struct tunnel_packet *t, uint8_t tos, const char *why)
{
	uint32_t reason = t->is_gue ? DECAP_REASON_GUE : DECAP_REASON_IPIP;
	uint64_t before = reason_count(reason);
	struct bytes want = { .len = 0 }, out;

	put_link(&want, t->vlan_tags);
	put_inner(&want, t, tos);
	for (uint32_t i = 0; i < t->padding; i++)
		put8(&want, 0);
	if (run(tunnelled(t), &out) != XDP_PASS)
		fail_msg("%s: not passed on", why);
	assert_bytes(&out, &want, why);
	assert_int_equal(reason_count(reason), before + 1);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void decapsulates_byte_for_byte(void **state)
{
	static const struct {
		struct tunnel_packet packet;
		const char *why;
	} cases[] = {
		{ { 0 }, "IP in IP" },
		{ { .payload_len = 1 }, "odd length" },
		{ { .payload_len = 1400 }, "large" },
		{ { .outer_options = 4, .inner_options = 40 }, "options on both headers" },
		{ { .outer_options = 40 }, "as many outer options as there can be" },
		{ { .vlan_tags = 1 }, "VLAN" },
		{ { .vlan_tags = 2, .payload_len = 9 }, "two VLANs" },
		{ { .padding = 3 }, "Ethernet padding" },
		{ { .is_gue = true }, "GUE" },
		{ { .is_gue = true, .gue_words = 2 }, "GUE with one second choice" },
		{ { .is_gue = true, .gue_words = 3, .vlan_tags = 2 }, "GUE, two choices, VLANs" },
		{ { .is_gue = true, .gue_words = 31, .outer_options = 40 }, "longest GUE header" },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_decapsulated(&cases[i].packet, 0, cases[i].why);
}

static void carries_congestion_marks_inside(void **state)
{
	static const struct {
		uint8_t outer, inner, want;
	} cases[] = {
		{ 0x03, 0x02, 0x03 }, { 0x03, 0x01, 0x03 }, { 0xbb, 0x62, 0x63 },
		{ 0x03, 0x00, 0x00 }, /* the inner packet does not understand marks */
		{ 0x02, 0x02, 0x02 }, { 0x00, 0x03, 0x03 }, { 0x03, 0xff, 0xff },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_decapsulated(&(struct tunnel_packet) { .outer_tos = cases[i].outer,
							      .inner_tos = cases[i].inner },
				    cases[i].want, "marks");
}

static void accepts_only_configured_sources(void **state)
{
	struct tunnel_packet t = { .source = IP(10, 0, 0, 3) };
	struct decap_source_key key = { .prefix_len = 96 + 24 };

	(void)state;
	fresh_world();
	assert_ends(tunnelled(&t), DECAP_REASON_STRANGER, XDP_DROP, "IP in IP of a stranger");
	t.is_gue = true;
	assert_ends(tunnelled(&t), DECAP_REASON_STRANGER, XDP_DROP, "GUE of a stranger");
	t.frag = 0x2000;
	assert_ends(tunnelled(&t), DECAP_REASON_STRANGER, XDP_DROP, "fragment of a stranger");

	t.frag = 0;
	allow(IP(10, 0, 0, 0), 24);
	assert_decapsulated(&t, 0, "source within an allowed prefix");
	t.source = IP(10, 0, 1, 0);
	assert_ends(tunnelled(&t), DECAP_REASON_STRANGER, XDP_DROP, "just outside of it");

	mapped(key.address, IP(10, 0, 0, 0));
	assert_int_equal(bpf_map_delete_elem(bpf_map__fd(skel->maps.decap_sources), &key), 0);
}

static void delivers_only_to_local_virtual_addresses(void **state)
{
	(void)state;
	fresh_world();
	assert_ends(tunnelled(&(struct tunnel_packet) { .destination = VIP + 1 }),
		    DECAP_REASON_NOT_LOCAL, XDP_DROP, "another VIP");
	assert_ends(tunnelled(&(struct tunnel_packet) { .destination = SELF, .is_gue = true }),
		    DECAP_REASON_NOT_LOCAL, XDP_DROP, "the host's own address");
	assert_ends(tunnelled(&(struct tunnel_packet) { .destination = IP(127, 0, 0, 1) }),
		    DECAP_REASON_NOT_LOCAL, XDP_DROP, "loopback");
}

static void leaves_everything_else_to_the_kernel(void **state)
{
	struct tunnel_packet t = { 0 };
	struct bytes p = { .len = 0 };

	(void)state;
	fresh_world();
	put_link(&p, 0);
	put_inner(&p, &t, 0);
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "plain TCP to the VIP");

	p.len = 0;
	put_ethernet(&p, MAC_NLB, MAC_ROUTER, 0x86dd);
	for (int i = 0; i < 60; i++)
		put8(&p, 0x60);
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "IPv6");

	t.is_gue = true;
	t.port = 6081;
	assert_ends(tunnelled(&t), DECAP_REASON_NOT_TUNNEL, XDP_PASS, "UDP to another port");
	t.port = 0;
	t.frag = 0x0002;
	assert_ends(tunnelled(&t), DECAP_REASON_NOT_TUNNEL, XDP_PASS, "later fragment of UDP");
}

static void drops_tunnels_it_does_not_speak(void **state)
{
	static const struct tunnel_packet cases[] = {
		{ .is_gue = true, .gue_version = 0x40 }, { .is_gue = true, .gue_version = 0x80 },
		{ .is_gue = true, .gue_version = 0x20 }, /* control message */
		{ .is_gue = true, .gue_protocol = 41 },  { .is_gue = true, .gue_protocol = 6 },
		{ .is_gue = true, .gue_flags = 1 },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_ends(tunnelled(&cases[i]), DECAP_REASON_UNSUPPORTED, XDP_DROP, "GUE");
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x2000 }), DECAP_REASON_FRAGMENT,
		    XDP_DROP, "first fragment");
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x0004 }), DECAP_REASON_FRAGMENT,
		    XDP_DROP, "later fragment");
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x2000, .is_gue = true }),
		    DECAP_REASON_FRAGMENT, XDP_DROP, "first fragment of GUE");
}

static void drops_impossible_inner_headers(void **state)
{
	static const struct {
		uint32_t at, value;
		const char *why;
	} cases[] = {
		{ 34, 0x65, "IPv6 inside" },
		{ 34, 0x44, "inner header shorter than a header" },
		{ 37, 19, "inner length shorter than its header" },
		{ 37, 41, "inner length past the outer packet" },
		{ 36, 0x20, "inner length far past it" },
		{ 17, 59, "outer length cuts the inner packet" },
		{ 17, 19, "outer length shorter than its header" },
		{ 17, 61, "outer length past the frame" },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes p = *tunnelled(&(struct tunnel_packet) { 0 });

		p.b[cases[i].at] = (uint8_t)cases[i].value;
		assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, cases[i].why);
	}
}

static void survives_truncation_at_every_byte(void **state)
{
	static const struct tunnel_packet shapes[] = {
		{ .payload_len = 4 },
		{ .is_gue = true, .gue_words = 3, .vlan_tags = 2 },
		{ .is_gue = true, .outer_options = 40, .inner_options = 8, .vlan_tags = 1 },
	};

	(void)state;
	fresh_world();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct bytes whole = *tunnelled(&shapes[i]);
		uint32_t l4 = 14 + 4 * shapes[i].vlan_tags + 20;
		uint32_t known_at = shapes[i].is_gue ? l4 + shapes[i].outer_options + 8 : l4;

		for (uint32_t len = 14; len < whole.len; len++) {
			uint64_t all = all_reasons();
			struct bytes p = whole, out;
			uint32_t want = len < known_at ? XDP_PASS : XDP_DROP;
			uint32_t action;

			p.len = len;
			memset(p.b + len, 0xee, sizeof(p.b) - len);
			action = run(&p, &out);
			if (action != want || all_reasons() != all + 1)
				fail_msg("shape %zu cut to %u bytes: action %u", i, len, action);
			assert_int_equal(out.len, len);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decapsulates_byte_for_byte),
		cmocka_unit_test(carries_congestion_marks_inside),
		cmocka_unit_test(accepts_only_configured_sources),
		cmocka_unit_test(delivers_only_to_local_virtual_addresses),
		cmocka_unit_test(leaves_everything_else_to_the_kernel),
		cmocka_unit_test(drops_tunnels_it_does_not_speak),
		cmocka_unit_test(drops_impossible_inner_headers),
		cmocka_unit_test(survives_truncation_at_every_byte),
	};

	return cmocka_run_group_tests_name("decap", tests, load_group, unload_group);
}
