/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Second chance: which packets are somebody else's, where they are sent, and what they look like
 * then. Sockets, routes and neighbours are real ones, in a network namespace of the test's own.
 */
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/if_packet.h>
#include <linux/neighbour.h>

#include "nlb/decap_host.h"
#include "tests/bpf/tunnels.h"

#define REMOTE    IP(198, 51, 100, 200) /* a client that is not an address of this host */
#define NEAR      IP(10, 0, 0, 22)      /* gateway on the interface that packets come in by */
#define FAR       IP(10, 0, 1, 23)      /* ... on another one */
#define SILENT    IP(10, 0, 0, 24)      /* ... whose MAC address is unknown */
#define NOWHERE   IP(192, 0, 2, 1)      /* no route */
#define ELSEWHERE IP(10, 0, 0, 99)      /* on the wire, not this host */
#define TCP_PORT  443

static const uint8_t MAC_NEAR[6] = { 2, 0, 0, 0, 0, 0x22 };
static const uint8_t MAC_FAR[6] = { 2, 0, 0, 0, 0, 0x23 };
static const uint8_t MAC_SELF[6] = { 2, 0, 0, 0, 0, 0x21 };
static const uint8_t MAC_OTHER[6] = { 2, 0, 0, 0, 0, 0x31 };

static uint32_t near_index, far_index;
static bool has_network;

static const char script[] =
	"set -e\n"
	"ip link set lo up\n"
	"ip link add near address 02:00:00:00:00:21 type veth peer name near-peer\n"
	"ip link add far address 02:00:00:00:00:31 type veth peer name far-peer\n"
	"for i in near near-peer far far-peer; do\n"
	"  sysctl -qw net.ipv6.conf.$i.accept_dad=0; ip link set $i up; done\n"
	"add() { ip address add $1 dev $2 $3; }\n"
	"add 10.0.0.21/24 near; add 2001:db8::10.0.0.21/120 near nodad\n"
	"add 10.0.1.21/24 far; add 2001:db8::10.0.1.21/120 far nodad\n"
	"for a in 203.0.113.10 198.51.100.7; do\n"
	"  add $a/32 lo; add 2001:db8::$a/128 lo nodad; done\n"
	"hop() { ip neigh add $1 lladdr $2 dev $3 nud permanent; }\n"
	"hop 10.0.0.22 02:00:00:00:00:22 near; hop 2001:db8::10.0.0.22 02:00:00:00:00:22 near\n"
	"hop 10.0.1.23 02:00:00:00:00:23 far; hop 2001:db8::10.0.1.23 02:00:00:00:00:23 far\n"
	"ip route add 198.51.100.200/32 dev far; ip -6 route add 2001:db8::198.51.100.200 dev far\n"
	"hop 198.51.100.200 02:00:00:00:00:44 far\n"
	"hop 2001:db8::198.51.100.200 02:00:00:00:00:44 far\n";

static int shell(const char *text)
{
	FILE *sh = popen("sh 2>/dev/null", "w");

	if (!sh)
		return -1;
	fputs(text, sh);
	return pclose(sh);
}

static int make_network(void **state)
{
	int rc = load_group(state);

	if (rc || load_error)
		return rc;
	if (unshare(CLONE_NEWNET) != 0 || shell(script) != 0)
		return 0;
	decap_host_allow_routing();
	near_index = if_nametoindex("near");
	far_index = if_nametoindex("far");
	has_network = near_index && far_index;
	return 0;
}

static void clear_config(void)
{
	struct decap_config config = { 0 };
	uint32_t zero = 0;

	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.decap_config), &zero, &config, BPF_ANY),
		0);
}

static void fresh_network(void)
{
	fresh_world();
	if (!has_network) {
		print_message("SKIP: network namespaces, veth devices and iproute2 are needed\n");
		skip();
	}
	ingress = near_index;
	clear_config();
}

/* --- packets -----------------------------------------------------------------------------------
 */

/* To us, of a connection that nobody here knows; `hops` gateways are named. */
static struct tunnel_packet unknown(bool outer6, bool inner6, uint32_t hops, uint32_t first,
				    uint32_t second)
{
	uint32_t address_words = outer6 ? 4 : 1;

	return (struct tunnel_packet) { .is_gue = true,
					.outer6 = outer6,
					.inner6 = inner6,
					.ttl = 7,
					.private = { .words = 1 + hops * address_words,
						     .type = 1,
						     .count = (uint8_t)hops,
						     .family = outer6 ? 6 : 4,
						     .hop = { first, second } } };
}

/* The same after it was sent on. */
static struct bytes sent_on(const struct tunnel_packet *t, const uint8_t *to, const uint8_t *from)
{
	struct tunnel_packet next = *t;

	next.source = t->self ? t->self : SELF;
	next.self = t->private.hop[t->private.next];
	next.private.next++;
	next.ttl = 64;
	next.udp_sum = 0;
	next.to = to;
	next.from = from;
	return *tunnelled(&next);
}

static void assert_sent_on(const struct tunnel_packet *t, const char *why)
{
	struct bytes want = sent_on(t, MAC_NEAR, MAC_SELF);

	assert_becomes(tunnelled(t), &want, DECAP_REASON_SECOND_CHANCE, XDP_TX, why);
}

#define for_all_families(outer6, inner6)               \
	for (int outer6 = 0; (outer6) < 2; (outer6)++) \
		for (int inner6 = 0; (inner6) < 2; (inner6)++)

/* --- where packets go --------------------------------------------------------------------------
 */

static void sends_unknown_connections_on(void **state)
{
	static const uint8_t flags[] = { TCP_ACK,           TCP_FIN | TCP_ACK, TCP_RST,
					 TCP_RST | TCP_ACK, TCP_SYN | TCP_ACK, TCP_FIN };

	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);

		for (size_t i = 0; i < sizeof(flags); i++) {
			t.flags = flags[i];
			assert_sent_on(&t, "one gateway is named");
		}
		t = unknown(outer6, inner6, 2, NEAR, FAR);
		assert_sent_on(&t, "the first of two");
		t = unknown(outer6, inner6, 2, FAR, NEAR);
		t.private.next = 1;
		assert_sent_on(&t, "the second of two");
		t.payload_len = 1300;
		t.outer_tos = 0xbb; /* stays: it is still on its way */
		t.inner_tos = 0x02;
		t.private.words += 3; /* room that a later version may use */
		assert_sent_on(&t, "large, marked, longer private data");
		t.udp_sum = 0x1234;
		assert_sent_on(&t, "the UDP checksum of somebody else");
	}
	struct tunnel_packet t = unknown(false, false, 1, NEAR, 0);
	t.outer_options = 40;
	t.inner_options = 40;
	assert_sent_on(&t, "options");
	t.outer_tos = 3; /* the inner one takes no marks: that is for its end to judge */
	assert_ends(tunnelled(&t), DECAP_REASON_CONGESTED, XDP_DROP, "congested");
}

static void keeps_the_outer_checksum_right(void **state)
{
	struct tunnel_packet t = unknown(false, false, 1, NEAR, 0);
	struct bytes out;

	fresh_network();
	for (uint32_t i = 0; i < 65536; i++) { /* every sum there is */
		struct bytes p;

		t.ttl = (uint8_t)(1 + i % 255);
		p = *tunnelled(&t);
		set16(&p, 14 + 4, i);
		set16(&p, 14 + 10, 0);
		set16(&p, 14 + 10, checksum(p.b + 14, 20));
		assert_int_equal(run(&p, &out), XDP_TX);
		if (checksum(out.b + 14, 20) != 0)
			fail_msg("round %u: the sum is off", i);
	}
	/* A fault on the way stays visible to the next one. */
	struct bytes p = *tunnelled(&t);
	p.b[14 + 11] ^= 1;
	assert_int_equal(run(&p, &out), XDP_TX);
	assert_int_not_equal(checksum(out.b + 14, 20), 0);
}

static void takes_the_interface_of_the_route(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, FAR, 0);
		struct bytes want = sent_on(&t, MAC_FAR, MAC_OTHER);

		assert_becomes(tunnelled(&t), &want, DECAP_REASON_SECOND_CHANCE, XDP_REDIRECT,
			       "by another interface");
		/* A tagged frame goes back where it came from: its VLAN's device takes none. */
		t.vlan_tags = 1 + (uint32_t)inner6;
		want = sent_on(&t, MAC_FAR, MAC_OTHER);
		assert_becomes(tunnelled(&t), &want, DECAP_REASON_SECOND_CHANCE, XDP_TX, "VLAN");
	}
}

static void follows_policy_routes(void **state)
{
	fresh_network();
	if (shell("set -e\n"
		  "rule() { ip $1 rule add from $2 ipproto udp lookup 77; }\n"
		  "rule -4 10.0.0.21; rule -6 2001:db8::10.0.0.21\n"
		  "ip route add 10.0.0.40 via 10.0.1.23 dev far table 77\n"
		  "ip route add 2001:db8::10.0.0.40 via 2001:db8::10.0.1.23 dev far table 77\n")) {
		print_message("SKIP: this kernel has no policy routing\n");
		skip();
	}
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, IP(10, 0, 0, 40), 0);
		struct bytes want = sent_on(&t, MAC_FAR, MAC_OTHER);

		assert_becomes(tunnelled(&t), &want, DECAP_REASON_SECOND_CHANCE, XDP_REDIRECT,
			       "a rule for UDP from the own address");
	}
}

static void reflects_where_the_next_hop_is_unknown(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, SILENT, 0);
		struct bytes want = sent_on(&t, MAC_ROUTER, MAC_NLB);

		assert_becomes(tunnelled(&t), &want, DECAP_REASON_REFLECTED, XDP_TX,
			       "by way of the sender");
	}
}

static void drops_without_a_route(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NOWHERE, 0);

		if (outer6) /* all test addresses are in one prefix: unreachable on purpose */
			shell("ip -6 route replace unreachable 2001:db8::192.0.2.1\n");
		assert_ends(tunnelled(&t), DECAP_REASON_NO_NEXT_HOP, XDP_DROP, "no route");
	}
}

static void asks_each_gateway_once(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);

		t.private.next = 1;
		assert_passed(&t, 0, DECAP_REASON_LAST_CHANCE, "one named, one asked");
		t = unknown(outer6, inner6, 2, NEAR, FAR);
		t.private.next = 2;
		assert_passed(&t, 0, DECAP_REASON_LAST_CHANCE, "both asked");
	}
}

static void ends_where_the_other_family_begins(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(!outer6, inner6, 2, NEAR, FAR);

		t.outer6 = outer6;
		assert_passed(&t, 0, DECAP_REASON_LAST_CHANCE, "addresses of the other family");
	}
}

static void leaves_alone_what_was_sent_to_another_host(void **state)
{
	fresh_network();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);

		t.self = ELSEWHERE; /* flooded by a switch, seen by a capture */
		assert_passed(&t, 0, DECAP_REASON_LAST_CHANCE, "not for this host");
	}
}

static void needs_an_answer_of_the_routes(void **state)
{
	fresh_network();
	shell("sysctl -qw net.ipv4.conf.lo.forwarding=0 net.ipv6.conf.lo.forwarding=0\n");
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);
		struct decap_host host;

		decap_host_read(&host);
		assert_false(outer6 ? host.routes_ipv6 : host.routes_ipv4);
		assert_ends(tunnelled(&t), DECAP_REASON_NO_NEXT_HOP, XDP_DROP, "not answered");
	}
	decap_host_allow_routing();
	for_all_families(outer6, inner6)
	{
		struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);
		struct decap_host host;

		decap_host_read(&host);
		assert_true(host.routes_ipv4 && host.routes_ipv6);
		assert_sent_on(&t, "answered again");
	}
}

/* --- which packets are ours ---------------------------------------------------------------------
 */

static void has_no_second_chance_for_the_rest(void **state)
{
	static const struct {
		struct tunnel_packet packet;
		const char *why;
	} cases[] = {
		{ { .flags = TCP_SYN }, "SYN" },
		{ { .inner_protocol = IPPROTO_UDP }, "UDP" },
		{ { .inner_protocol = IPPROTO_ICMP }, "ICMP" },
		{ { .inner_protocol = IPPROTO_ICMPV6 }, "ICMPv6" },
		{ { .inner_protocol = 44 }, "IPv6 fragment" },
	};

	fresh_network();
	for_all_families(outer6, inner6)
	{
		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct tunnel_packet t = unknown(outer6, inner6, 1, NEAR, 0);

			t.flags = cases[i].packet.flags;
			t.inner_protocol = cases[i].packet.inner_protocol;
			assert_decapsulated(&t, 0, cases[i].why);
		}
		struct tunnel_packet t = unknown(outer6, inner6, 0, 0, 0);

		t.private.words = 0;
		assert_decapsulated(&t, 0, "GUE that names nobody");
		t.is_gue = false;
		assert_decapsulated(&t, 0, "IP in IP");
		t = unknown(outer6, inner6, 1, NEAR, 0);
		t.private.type = 2;
		assert_decapsulated(&t, 0, "private data of another type");
	}
	struct tunnel_packet t = unknown(false, false, 1, NEAR, 0);
	t.inner_frag = 0x2000;
	assert_decapsulated(&t, 0, "first fragment");
	t.inner_frag = 0x00b9;
	assert_decapsulated(&t, 0, "later fragment");

	/* A TCP header that is not all there is the kernel's to judge. */
	for_all_families(outer6, inner6)
	{
		t = unknown(outer6, inner6, 1, NEAR, 0);
		struct bytes p = *tunnelled(&t), want = { .len = 0 }, out;
		uint32_t at = l4_at(&t) + 12 + 4 * t.private.words;

		if (inner6)
			set16(&p, at + 4, 19);
		else
			set16(&p, at + 2, 39);
		put_link(&want, &t, inner6);
		put(&want, p.b + at, p.len - at);
		assert_int_equal(run(&p, &out), XDP_PASS);
		assert_bytes(&out, &want, "half a TCP header");
	}
}

/* --- sockets -----------------------------------------------------------------------------------
 */

static socklen_t socket_address(struct sockaddr_storage *out, uint32_t address, uint16_t port,
				bool is6)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };

	memset(out, 0, sizeof(*out));
	if (is6) {
		map_address(in6.sin6_addr.s6_addr, address, true);
		memcpy(out, &in6, sizeof(in6));
		return sizeof(in6);
	}
	in.sin_addr.s_addr = htonl(address);
	memcpy(out, &in, sizeof(in));
	return sizeof(in);
}

static int listener(bool is6)
{
	int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_storage at;
	socklen_t len = socket_address(&at, VIP, TCP_PORT, is6);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (is6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* A connection from CLIENT to the listener; returns the client's end, and its port. */
static int connected(bool is6, uint16_t *port)
{
	int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage at;
	socklen_t len = socket_address(&at, CLIENT, 0, is6);

	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	len = socket_address(&at, VIP, TCP_PORT, is6);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, len), 0);
	len = sizeof(at);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	*port = ntohs(is6 ? ((struct sockaddr_in6 *)&at)->sin6_port
			  : ((struct sockaddr_in *)&at)->sin_port);
	return fd;
}

static void keeps_packets_of_its_own_connections(void **state)
{
	fresh_network();
	for (int is6 = 0; is6 < 2; is6++) {
		int listening = listener(is6), client, server;
		uint16_t port;

		client = connected(is6, &port);
		server = accept(listening, NULL, NULL);
		assert_true(server >= 0);
		for (int outer6 = 0; outer6 < 2; outer6++) {
			static const uint8_t flags[] = { TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST };
			struct tunnel_packet t = unknown(outer6, is6, 1, NEAR, 0);

			t.client_port = port;
			for (size_t i = 0; i < sizeof(flags); i++) {
				t.flags = flags[i];
				assert_decapsulated(&t, 0, "established");
			}
			t.inner_options = is6 ? 0 : 40;
			assert_decapsulated(&t, 0, "established, options");
			t.private.next = 1;
			assert_decapsulated(&t, 0, "established, nobody left to ask");
			t.inner_options = 0;
			t.private.next = 0;
			t.client_port = port ^ 1U;
			assert_sent_on(&t, "another port of the client");
			t.client_port = port;
			t.client = CLIENT + 1;
			assert_sent_on(&t, "another client");
		}

		/* We close first, so what remains here is a socket in TIME_WAIT. */
		struct tunnel_packet t = unknown(false, is6, 1, NEAR, 0);
		t.client_port = port;
		close(server);
		close(client);
		close(listening);
		assert_decapsulated(&t, 0, "the last moments of a connection");
	}
}

static void listener_alone_knows_no_connection(void **state)
{
	fresh_network();
	for_all_families(outer6, is6)
	{
		struct tunnel_packet t = unknown(outer6, is6, 1, NEAR, 0);
		int listening = listener(is6);

		assert_sent_on(&t, "a listener, no SYN cookie");
		t.flags = TCP_RST;
		assert_sent_on(&t, "RST to a listener");
		t.flags = TCP_SYN;
		assert_decapsulated(&t, 0, "SYN to a listener");
		close(listening);
	}
}

/* --- handshakes by hand ------------------------------------------------------------------------
 */

#define ISN 0x11223343U /* one below the sequence number of put_tcp() */

/* A SYN as if it came from the network. */
static void send_syn(uint32_t client, uint16_t port, bool is6)
{
	int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct ipv4_options ip = {
		.source = client, .destination = VIP, .protocol = IPPROTO_TCP, .ttl = 64
	};
	struct bytes p = { .len = 0 }, pseudo = { .len = 0 };
	struct sockaddr_storage at;
	socklen_t len = socket_address(&at, VIP, 0, is6);
	uint32_t tcp;

	put_ip(&p, is6, &ip, 20);
	tcp = p.len;
	put_tcp(&p, port, TCP_PORT, TCP_SYN);
	set16(&p, tcp + 4, ISN >> 16);
	set16(&p, tcp + 6, ISN & 0xffff);
	set16(&p, tcp + 16, 0);
	put_address(&pseudo, client, is6);
	put_address(&pseudo, VIP, is6);
	put32(&pseudo, 20);
	put32(&pseudo, IPPROTO_TCP);
	put(&pseudo, p.b + tcp, 20);
	set16(&p, tcp + 16, checksum(pseudo.b, pseudo.len));
	assert_int_equal(sendto(fd, p.b, p.len, 0, (struct sockaddr *)&at, len), p.len);
	close(fd);
}

static int sniffer(void)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(3 /* ETH_P_ALL */));
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(3),
				  .sll_ifindex = (int)far_index };

	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* The sequence number of the SYN-ACK to that port, which leaves by `far`. */
static uint32_t answered_sequence(int fd, uint16_t port, bool is6)
{
	ssize_t tcp = 14 + (is6 ? 40 : 20);
	uint8_t b[2048];

	for (;;) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		ssize_t len;

		if (poll(&ready, 1, 5000) != 1)
			fail_msg("no SYN-ACK came");
		len = recv(fd, b, sizeof(b), 0);
		if (len >= tcp + 20 && b[tcp + 13] == (TCP_SYN | TCP_ACK) &&
		    (b[tcp + 2] << 8 | b[tcp + 3]) == port)
			return (uint32_t)b[tcp + 4] << 24 | (uint32_t)b[tcp + 5] << 16 |
			       (uint32_t)b[tcp + 6] << 8 | b[tcp + 7];
	}
}

static void keeps_the_end_of_a_handshake_with_a_cookie(void **state)
{
	fresh_network();
	shell("sysctl -qw net.ipv4.tcp_syncookies=2\n");
	for_all_families(outer6, is6)
	{
		struct tunnel_packet t = unknown(outer6, is6, 1, NEAR, 0);
		uint16_t port = (uint16_t)(41000 + outer6);
		int listening = listener(is6), sniffing = sniffer();

		send_syn(REMOTE, port, is6);
		t.client = REMOTE;
		t.client_port = port;
		t.ack = answered_sequence(sniffing, port, is6) + 1;
		assert_decapsulated(&t, 0, "the ACK with the cookie");
		t.payload_len = 100;
		assert_decapsulated(&t, 0, "the same with data");
		t.flags = TCP_RST | TCP_ACK;
		assert_sent_on(&t, "RST with a cookie");
		t.flags = TCP_ACK;
		t.ack += 0x1000;
		assert_sent_on(&t, "a cookie that is not ours");
		t.ack -= 0x1000;
		t.client_port++;
		assert_sent_on(&t, "the cookie of another port");
		close(listening);
		close(sniffing);
	}
	shell("sysctl -qw net.ipv4.tcp_syncookies=1\n");
}

static void keeps_the_end_of_a_handshake_without(void **state)
{
	fresh_network();
	shell("sysctl -qw net.ipv4.tcp_syncookies=0\n");
	for_all_families(outer6, is6)
	{
		struct tunnel_packet t = unknown(outer6, is6, 1, NEAR, 0);
		uint16_t port = (uint16_t)(42000 + outer6);
		int listening = listener(is6), sniffing = sniffer();

		send_syn(REMOTE, port, is6);
		t.client = REMOTE;
		t.client_port = port;
		t.ack = answered_sequence(sniffing, port, is6) + 1;
		assert_decapsulated(&t, 0, "a request socket");
		t.client_port++;
		assert_sent_on(&t, "nobody asked for this one");
		close(listening);
		close(sniffing);
	}
	shell("sysctl -qw net.ipv4.tcp_syncookies=1\n");
}

/* --- another namespace, neighbours -------------------------------------------------------------
 */

static void looks_for_sockets_where_it_is_told(void **state)
{
	struct decap_config config = { .flags = DECAP_CONFIG_NETNS };
	int own, other, listening, client;
	char path[64];
	struct err err;
	uint32_t zero = 0, again;
	uint16_t port;

	fresh_network();
	own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	other = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(shell("ip link set lo up; ip address add 203.0.113.10/32 dev lo\n"
			       "ip address add 198.51.100.7/32 dev lo\n"),
			 0);
	listening = listener(false);
	client = connected(false, &port);
	assert_int_equal(setns(own, CLONE_NEWNET), 0);

	struct tunnel_packet t = unknown(false, false, 1, NEAR, 0);
	t.client_port = port;
	assert_sent_on(&t, "no such socket in the interface's namespace");

	snprintf(path, sizeof(path), "/proc/self/fd/%d", other);
	assert_int_equal(decap_host_netns(&config.socket_netns, path, &err), 0);
	assert_int_equal(decap_host_netns(&again, path, &err), 0);
	assert_int_equal(again, config.socket_netns);
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.decap_config), &zero, &config, BPF_ANY),
		0);
	assert_decapsulated(&t, 0, "the socket is in the other namespace");
	t.client_port ^= 1;
	assert_sent_on(&t, "not even there");

	assert_int_equal(decap_host_netns(&again, "no such name", &err), -ENOENT);
	assert_non_null(strstr(err.text, "no such name"));
	assert_int_equal(decap_host_netns(&again, "/dev/null", &err), -EINVAL);
	close(client);
	close(listening);
	close(own);
	close(other);
	clear_config();
}

static bool is_managed(const char *address)
{
	char command[128];

	snprintf(command, sizeof(command), "ip neigh get %s dev near | grep -q managed\n", address);
	return shell(command) == 0;
}

static void keep(uint32_t address, uint8_t bits, bool is6, bool is_kept)
{
	struct net_prefix p = { .bits = bits };

	map_address(p.bytes, address, is6);
	if (is_kept)
		decap_host_keep(&p);
	else
		decap_host_release(&p);
}

static void has_the_kernel_keep_neighbours(void **state)
{
	static const char *const silent[] = { "10.0.0.30", "2001:db8::a00:1e" };
	static const char *const near[] = { "10.0.0.22", "2001:db8::a00:16" };

	fresh_network();
	for (int is6 = 0; is6 < 2; is6++) {
		keep(IP(10, 0, 0, 30), 127, is6, true);
		assert_false(is_managed(silent[is6]));
		keep(IP(10, 0, 0, 30), 128, is6, true);
		assert_true(is_managed(silent[is6]));
		keep(IP(10, 0, 0, 30), 128, is6, true);
		assert_true(is_managed(silent[is6]));
		keep(IP(10, 0, 0, 30), 128, is6, false);
		assert_false(is_managed(silent[is6]));

		/* A permanent neighbour stays what it is, and second chance by it works on. */
		keep(NEAR, 128, is6, true);
		assert_false(is_managed(near[is6]));
		keep(NEAR, 128, is6, false);
		struct tunnel_packet t = unknown(is6, false, 1, NEAR, 0);
		assert_sent_on(&t, "after all that");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sends_unknown_connections_on),
		cmocka_unit_test(keeps_the_outer_checksum_right),
		cmocka_unit_test(takes_the_interface_of_the_route),
		cmocka_unit_test(follows_policy_routes),
		cmocka_unit_test(reflects_where_the_next_hop_is_unknown),
		cmocka_unit_test(drops_without_a_route),
		cmocka_unit_test(asks_each_gateway_once),
		cmocka_unit_test(ends_where_the_other_family_begins),
		cmocka_unit_test(leaves_alone_what_was_sent_to_another_host),
		cmocka_unit_test(needs_an_answer_of_the_routes),
		cmocka_unit_test(has_no_second_chance_for_the_rest),
		cmocka_unit_test(keeps_packets_of_its_own_connections),
		cmocka_unit_test(listener_alone_knows_no_connection),
		cmocka_unit_test(keeps_the_end_of_a_handshake_with_a_cookie),
		cmocka_unit_test(keeps_the_end_of_a_handshake_without),
		cmocka_unit_test(looks_for_sockets_where_it_is_told),
		cmocka_unit_test(has_the_kernel_keep_neighbours),
	};

	return cmocka_run_group_tests_name("decap: second chance", tests, make_network,
					   unload_group);
}
