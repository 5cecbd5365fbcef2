/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decapsulating program of gateway hosts, packet by packet, through BPF_PROG_TEST_RUN: what is
 * taken off, what is dropped, what is the kernel's. Second chance: test_decap_second.c.
 */
#include "tests/bpf/tunnels.h"

/* Calls `each` for the packet in all combinations of outer and inner family. */
static void in_all_families(const struct tunnel_packet *t, const char *why,
			    void (*each)(const struct tunnel_packet *t, const char *why))
{
	for (unsigned i = 0; i < 4; i++) {
		struct tunnel_packet copy = *t;
		char text[128];

		copy.outer6 = i & 1;
		copy.inner6 = i & 2;
		if ((copy.outer6 && copy.outer_options) || (copy.inner6 && copy.inner_options))
			continue;
		snprintf(text, sizeof(text), "%s, IPv%d in IPv%d", why, copy.inner6 ? 6 : 4,
			 copy.outer6 ? 6 : 4);
		each(&copy, text);
	}
}

static void decapsulated(const struct tunnel_packet *t, const char *why)
{
	assert_decapsulated(t, t->inner_tos, why);
}

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
		{ { .inner_tos = 0xb8, .outer_tos = 0x48 }, "classes of their own" },
		{ { .is_gue = true }, "GUE" },
		{ { .is_gue = true, .padding = 7 }, "GUE, padding" },
		{ { .is_gue = true, .private.words = 1 }, "GUE, private data of another type" },
		{ { .is_gue = true, .vlan_tags = 2, .private.words = 3 },
		  "GUE, more of it, VLANs" },
		{ { .is_gue = true, .private.words = 31, .outer_options = 40 },
		  "longest GUE header" },
		{ { .is_gue = true, .flags = TCP_SYN, .private = { 2, 1, 0, 1, 4, { NLB, 0 }, 0 } },
		  "SYN with a second choice" },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		in_all_families(&cases[i].packet, cases[i].why, decapsulated);
}

/* What leaves the tunnel, for each pair of marks (RFC 6040, figure 4); DROPPED: nothing. */
#define DROPPED 0xff

static void marked(const struct tunnel_packet *t, const char *why)
{
	static const uint8_t want[4][4] = {
		/* inner: none, capable 1, capable 0, congested; columns: outer the same */
		{ 0, 0, 0, DROPPED },
		{ 1, 1, 1, 3 },
		{ 2, 1, 2, 3 },
		{ 3, 3, 3, 3 },
	};
	uint8_t mark = want[t->inner_tos & 3][t->outer_tos & 3];

	if (mark == DROPPED)
		assert_ends(tunnelled(t), DECAP_REASON_CONGESTED, XDP_DROP, why);
	else
		assert_decapsulated(t, (uint8_t)((t->inner_tos & 0xfc) | mark), why);
}

static void carries_congestion_marks_inside(void **state)
{
	fresh_world();
	for (unsigned i = 0; i < 16; i++) {
		struct tunnel_packet t = { .outer_tos = (uint8_t)(i & 3),
					   .inner_tos = (uint8_t)(i >> 2) };
		char text[64];

		snprintf(text, sizeof(text), "outer mark %u, inner %u", i & 3, i >> 2);
		in_all_families(&t, text, marked);
		/* Whatever else is in the byte, and however the checksum carries over. */
		t.outer_tos |= 0xb8;
		t.inner_tos |= 0x60;
		in_all_families(&t, text, marked);
		t.inner_tos |= 0xfc;
		t.is_gue = true;
		in_all_families(&t, text, marked);
	}
}

/* 65,536 headers: every checksum there is, so that each carry of its arithmetic happens. */
static void keeps_the_checksum_right_whatever_it_was(void **state)
{
	struct tunnel_packet t = { .outer_tos = 3, .inner_tos = 2 };
	struct bytes p;
	struct bytes out;

	fresh_world();
	p = *tunnelled(&t);
	for (uint32_t id = 0; id < 65536; id += 13) {
		uint16_t got;

		set16(&p, 34 + 4, id);
		set16(&p, 34 + 10, 0);
		set16(&p, 34 + 10, checksum(p.b + 34, 20));
		assert_int_equal(run(&p, &out), XDP_PASS);
		assert_int_equal(out.b[14 + 1], 3);
		got = checksum(out.b + 14, 20);
		if (got != 0)
			fail_msg("identifier %u: the sum is off by %04x", id, got);
	}
}

static void stranger(const struct tunnel_packet *t, const char *why)
{
	assert_ends(tunnelled(t), DECAP_REASON_STRANGER, XDP_DROP, why);
}

static void accepts_only_configured_sources(void **state)
{
	struct tunnel_packet t = { .source = IP(10, 0, 0, 3) };

	fresh_world();
	in_all_families(&t, "IP in IP of a stranger", stranger);
	t.is_gue = true;
	in_all_families(&t, "GUE of a stranger", stranger);
	t.frag = 0x2000;
	stranger(&t, "fragment of a stranger");

	t.frag = 0;
	for (int is6 = 0; is6 < 2; is6++)
		allow(IP(10, 0, 0, 0), 24, is6);
	in_all_families(&t, "source within an allowed prefix", decapsulated);
	t.source = IP(10, 0, 1, 0);
	in_all_families(&t, "just outside of it", stranger);
	for (int is6 = 0; is6 < 2; is6++)
		forbid(IP(10, 0, 0, 0), 24, is6);

	/* One family says nothing of the other. */
	t.source = IP(10, 0, 0, 9);
	allow(t.source, 32, true);
	stranger(&t, "allowed over IPv6, comes over IPv4");
	t.outer6 = true;
	decapsulated(&t, "allowed over IPv6");
	forbid(t.source, 32, true);
}

static void not_local(const struct tunnel_packet *t, const char *why)
{
	assert_ends(tunnelled(t), DECAP_REASON_NOT_LOCAL, XDP_DROP, why);
}

static void delivers_only_to_local_virtual_addresses(void **state)
{
	fresh_world();
	in_all_families(&(struct tunnel_packet) { .destination = VIP + 1 }, "another VIP",
			not_local);
	in_all_families(&(struct tunnel_packet) { .destination = SELF, .is_gue = true },
			"the host's own address", not_local);
	not_local(&(struct tunnel_packet) { .destination = IP(127, 0, 0, 1) }, "loopback");
}

static void passes_inner_fragments_and_other_protocols(void **state)
{
	static const struct tunnel_packet cases[] = {
		{ .inner_frag = 0x2000 },
		{ .inner_frag = 0x00ff },
		{ .inner_protocol = IPPROTO_ICMP },
		{ .inner_protocol = IPPROTO_ICMPV6 },
		{ .inner_protocol = IPPROTO_UDP },
		{ .inner_protocol = 44 }, /* IPv6 fragment header */
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tunnel_packet t = cases[i];

		in_all_families(&t, "IP in IP", decapsulated);
		t.is_gue = true;
		in_all_families(&t, "GUE", decapsulated);
	}
}

/* The shortest inner packets that are complete: no payload at all. */
static void passes_bare_headers(void **state)
{
	fresh_world();
	for (int is6 = 0; is6 < 2; is6++) {
		struct tunnel_packet t = { .inner6 = is6 };
		struct bytes p = *tunnelled(&t), want = { .len = 0 };

		set16(&p, is6 ? 34 + 4 : 34 + 2, is6 ? 0 : 20);
		put_link(&want, &t, is6);
		put(&want, p.b + 34, p.len - 34);
		assert_becomes(&p, &want, DECAP_REASON_IPIP, XDP_PASS, "bare header");
	}
}

static void others(const struct tunnel_packet *t, const char *why)
{
	assert_ends(tunnelled(t), DECAP_REASON_NOT_TUNNEL, XDP_PASS, why);
}

static void leaves_everything_else_to_the_kernel(void **state)
{
	static const uint8_t headers[] = { 0, 43, 44, 51, 60 };
	struct tunnel_packet t = { 0 };

	fresh_world();
	for (int is6 = 0; is6 < 2; is6++) {
		struct bytes p = { .len = 0 };

		t.inner6 = is6;
		put_link(&p, &t, is6);
		put_inner(&p, &t, 0);
		assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "plain TCP to the VIP");
	}

	t = (struct tunnel_packet) { .is_gue = true, .port = 6081 };
	in_all_families(&t, "UDP to another port", others);
	t.port = 0;
	t.frag = 0x0002;
	others(&t, "later fragment of UDP");

	/* ARP, and what says IP but is not. */
	t = (struct tunnel_packet) { 0 };
	struct bytes p = *tunnelled(&t);
	set16(&p, 12, 0x0806);
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "ARP");
	set16(&p, 12, 0x86dd);
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "IPv4 that says IPv6");
	set16(&p, 12, 0x0800);
	p.b[14] = 0x65;
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "outer version 6 as IPv4");
	p.b[14] = 0x44;
	assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "outer header too short");

	t.outer6 = true;
	for (size_t i = 0; i < sizeof(headers); i++) {
		p = *tunnelled(&t);
		p.b[14 + 6] = headers[i];
		assert_ends(&p, DECAP_REASON_NOT_TUNNEL, XDP_PASS, "outer extension header");
	}
}

static void unsupported(const struct tunnel_packet *t, const char *why)
{
	assert_ends(tunnelled(t), DECAP_REASON_UNSUPPORTED, XDP_DROP, why);
}

static void drops_tunnels_it_does_not_speak(void **state)
{
	static const struct tunnel_packet cases[] = {
		{ .is_gue = true, .gue_version = 0x40 }, { .is_gue = true, .gue_version = 0x80 },
		{ .is_gue = true, .gue_version = 0x20 }, /* control message */
		{ .is_gue = true, .gue_protocol = 47 },  { .is_gue = true, .gue_protocol = 6 },
		{ .is_gue = true, .gue_flags = 1 },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		in_all_families(&cases[i], "GUE", unsupported);
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x2000 }), DECAP_REASON_FRAGMENT,
		    XDP_DROP, "first fragment");
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x0004 }), DECAP_REASON_FRAGMENT,
		    XDP_DROP, "later fragment");
	assert_ends(tunnelled(&(struct tunnel_packet) { .frag = 0x2000, .is_gue = true }),
		    DECAP_REASON_FRAGMENT, XDP_DROP, "first fragment of GUE");
}

static void malformed(const struct tunnel_packet *t, const char *why)
{
	assert_ends(tunnelled(t), DECAP_REASON_MALFORMED, XDP_DROP, why);
}

static void drops_private_data_that_contradicts_itself(void **state)
{
	static const struct {
		struct private_data data;
		const char *why;
	} cases[] = {
		{ { 3, 1, 3, 2, 4, { 1, 2 }, 0 }, "next beyond the list" },
		{ { 3, 1, 255, 2, 4, { 1, 2 }, 0 }, "next far beyond" },
		{ { 2, 1, 2, 1, 4, { 1 }, 0 }, "next beyond a list of one" },
		{ { 1, 1, 0, 0, 4, { 0 }, 0 }, "a list of nobody" },
		{ { 4, 1, 0, 3, 4, { 1, 2 }, 0 }, "a list of three" },
		{ { 31, 1, 0, 255, 4, { 1, 2 }, 0 }, "a list of 255" },
		{ { 3, 1, 0, 2, 5, { 1, 2 }, 0 }, "no such family" },
		{ { 3, 1, 0, 2, 0, { 1, 2 }, 0 }, "family 0" },
		{ { 1, 1, 0, 1, 4, { 0 }, 1 }, "no room for the address" },
		{ { 2, 1, 0, 2, 4, { 0 }, 1 }, "room for one of two" },
		{ { 4, 1, 0, 1, 6, { 0 }, 1 }, "three quarters of an IPv6 address" },
		{ { 8, 1, 0, 2, 6, { 0 }, 1 }, "one word too few for two of IPv6" },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		in_all_families(
			&(struct tunnel_packet) { .is_gue = true, .private = cases[i].data },
			cases[i].why, malformed);
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
	static const struct {
		uint32_t at, value;
		const char *why;
	} cases6[] = {
		{ 54, 0x45, "IPv4 inside" },
		{ 54, 0x75, "version 7 inside" },
		{ 54 + 5, 21, "inner length past the outer packet" },
		{ 54 + 4, 0x20, "inner length far past it" },
		{ 14 + 5, 59, "outer length cuts the inner packet" },
		{ 14 + 5, 0, "outer length is none" },
		{ 14 + 5, 61, "outer length past the frame" },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes p = *tunnelled(&(struct tunnel_packet) { 0 });

		p.b[cases[i].at] = (uint8_t)cases[i].value;
		assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, cases[i].why);
	}
	for (size_t i = 0; i < sizeof(cases6) / sizeof(cases6[0]); i++) {
		struct bytes p =
			*tunnelled(&(struct tunnel_packet) { .outer6 = true, .inner6 = true });

		p.b[cases6[i].at] = (uint8_t)cases6[i].value;
		assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, cases6[i].why);
	}
}

static void lying_udp(const struct tunnel_packet *t, const char *why)
{
	struct bytes p = *tunnelled(t);
	uint32_t at = l4_at(t) + 4, len = (uint32_t)(p.b[at] << 8 | p.b[at + 1]);

	set16(&p, at, len + 1);
	assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, why);
	set16(&p, at, len - 1);
	assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, why);
	set16(&p, at, 7);
	assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, why);
	set16(&p, at, 0);
	assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, why);
}

/* GUE's own length, longer or shorter than it is: what is then taken for an IP header is none. */
static void lying_gue(const struct tunnel_packet *t, const char *why)
{
	struct bytes p = *tunnelled(t);

	for (uint32_t words = 0; words < 32; words++) {
		if (words == t->private.words)
			continue;
		p.b[l4_at(t) + 8] = (uint8_t)words;
		assert_ends(&p, DECAP_REASON_MALFORMED, XDP_DROP, why);
	}
}

static void drops_lengths_that_lie(void **state)
{
	struct tunnel_packet t = { .is_gue = true, .payload_len = 3 };

	fresh_world();
	in_all_families(&t, "UDP length", lying_udp);
	t.private = (struct private_data) { .words = 3, .type = 1, .count = 2, .family = 4 };
	in_all_families(&t, "GUE length", lying_gue);
}

static void truncated(const struct tunnel_packet *t, const char *why)
{
	struct bytes whole = *tunnelled(t);
	uint32_t known_at = t->is_gue ? l4_at(t) + 8 : t->outer6 ? l4_at(t) : outer_at(t) + 20;

	for (uint32_t len = 14; len < whole.len; len++) {
		uint64_t all = all_reasons();
		struct bytes p = whole, out;
		uint32_t want = len < known_at ? XDP_PASS : XDP_DROP;
		uint32_t action;

		p.len = len;
		memset(p.b + len, 0xee, sizeof(p.b) - len);
		action = run(&p, &out);
		if (action != want || all_reasons() != all + 1)
			fail_msg("%s: cut to %u bytes: action %u", why, len, action);
		assert_int_equal(out.len, len);
	}
}

static void survives_truncation_at_every_byte(void **state)
{
	static const struct tunnel_packet shapes[] = {
		{ .payload_len = 4 },
		{ .is_gue = true, .vlan_tags = 2, .private = { 3, 1, 0, 2, 4, { 1, 2 }, 0 } },
		{ .is_gue = true, .private = { 9, 1, 1, 2, 6, { 1, 2 }, 0 } },
		{ .is_gue = true, .outer_options = 40, .inner_options = 8, .vlan_tags = 1 },
	};

	fresh_world();
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		in_all_families(&shapes[i], "shape", truncated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decapsulates_byte_for_byte),
		cmocka_unit_test(carries_congestion_marks_inside),
		cmocka_unit_test(keeps_the_checksum_right_whatever_it_was),
		cmocka_unit_test(accepts_only_configured_sources),
		cmocka_unit_test(delivers_only_to_local_virtual_addresses),
		cmocka_unit_test(passes_inner_fragments_and_other_protocols),
		cmocka_unit_test(passes_bare_headers),
		cmocka_unit_test(leaves_everything_else_to_the_kernel),
		cmocka_unit_test(drops_tunnels_it_does_not_speak),
		cmocka_unit_test(drops_private_data_that_contradicts_itself),
		cmocka_unit_test(drops_impossible_inner_headers),
		cmocka_unit_test(drops_lengths_that_lie),
		cmocka_unit_test(survives_truncation_at_every_byte),
	};

	return cmocka_run_group_tests_name("decap", tests, load_group, unload_group);
}
