/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/conf.h"

#include <openssl/evp.h>

#include "lib/http_client.h"
#include "registry/client.h"

#define PIN_DIRECTORY     "/sys/fs/bpf/gatehouse"
#define FLOWS_PER_CPU_MIN 1024
#define FLOWS_PER_CPU_MAX (1U << 26)
#define SETTLE_S_MAX      86400
#define SOURCE_VARIES_MAX 32 /* bits that follow the flow */

const char *const nlb_encap_names[] = { "ipip", "gue", "l2", NULL };
const char *const nlb_protocol_names[] = { "tcp", "udp", NULL };
static const char *const xdp_modes[] = { "auto", "native", "generic", NULL };

_Static_assert(NLB_ENCAP_IPIP == 1 && NLB_ENCAP_GUE == 2 && NLB_ENCAP_L2 == 3,
	       "nlb_encap_names is in the order of enum nlb_encap");

/* --- values ---------------------------------------------------------------------------------- */

static const char *valid_interface(struct str s)
{
	if (s.len > 15)
		return "must be the name of a network interface (at most 15 characters)";
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '/' || isspace((unsigned char)s.p[i]))
			return "must be the name of a network interface";
	}
	return NULL;
}

static const char *valid_app(struct str s)
{
	char lower[REG_APP_MAX + 1];

	return reg_app_name(s, lower)
		       ? NULL
		       : "must be the name of an app: letters, digits, \".\", \"_\", \"-\"";
}

static const char *valid_url(struct str s)
{
	static const char problem[] =
		"must be \"http://ADDRESS:PORT\" or \"https://ADDRESS:PORT\" with an IP address, "
		"or \"unix:/path\"";
	struct http_base base;

	return http_base_parse(&base, s, HTTP_BASE_TLS, NULL) == 0 ? NULL : problem;
}

static const char *valid_absolute(struct str s)
{
	return s.p[0] == '/' ? NULL : "must be an absolute path";
}

/* Names appear in metrics, in tables and as arguments of nlbctl. */
static const char *valid_name(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == '"' || s.p[i] == '\\')
			return "must not contain spaces, quotes or backslashes";
	}
	return s.len <= 63 ? NULL : "must not be longer than 63 characters";
}

bool nlb_conf_is_host(const struct net_addr *a)
{
	const struct in6_addr *v6 = &a->in6.sin6_addr;
	uint32_t v4;

	if (a->sa.sa_family == AF_INET6)
		return !IN6_IS_ADDR_MULTICAST(v6) && !IN6_IS_ADDR_LOOPBACK(v6) &&
		       !IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_LINKLOCAL(v6) &&
		       !IN6_IS_ADDR_V4MAPPED(v6);
	v4 = ntohl(a->in.sin_addr.s_addr);
	return v4 && v4 >> 28 < 14 && v4 >> 24 != 127;
}

static void parse_ip_field(struct conf *c, void *field, const json_t *value)
{
	struct net_addr *out = field;
	struct str text;

	if (!conf_string(c, value, &text))
		return;
	if (net_parse_ip(out, text, 0)) {
		conf_error(c, "\"%.*s\" is not an IP address", STR_ARG(text));
	} else if (!nlb_conf_is_host(out)) {
		conf_error(c, "\"%.*s\" is not the address of a host", STR_ARG(text));
		*out = (struct net_addr) { 0 };
	}
}

static void parse_source_ipv4(struct conf *c, void *field, const json_t *value)
{
	struct nlb_conf *conf =
		(struct nlb_conf *)(void *)((char *)field - offsetof(struct nlb_conf, source[0]));
	struct net_prefix prefix;
	struct str text;

	if (!conf_string(c, value, &text))
		return;
	if (net_parse_prefix(&prefix, text) || !net_prefix_is_ipv4(&prefix) || prefix.bits < 96 + 8)
		conf_error(c,
			   "\"%.*s\" is neither an IPv4 address nor a prefix of addresses such as "
			   "\"10.9.0.0/24\"",
			   STR_ARG(text));
	conf->source[0] = prefix;
	conf->has_source[0] = true;
}

static void parse_source_ipv6(struct conf *c, void *field, const json_t *value)
{
	struct nlb_conf *conf =
		(struct nlb_conf *)(void *)((char *)field - offsetof(struct nlb_conf, source[1]));
	struct net_prefix prefix;
	struct str text;

	if (!conf_string(c, value, &text))
		return;
	if (net_parse_prefix(&prefix, text) || net_prefix_is_ipv4(&prefix) ||
	    prefix.bits < 128 - SOURCE_VARIES_MAX)
		conf_error(c,
			   "\"%.*s\" is neither an IPv6 address nor a prefix of addresses such as "
			   "\"fd00:9::/112\" (at least /%d)",
			   STR_ARG(text), 128 - SOURCE_VARIES_MAX);
	conf->source[1] = prefix;
	conf->has_source[1] = true;
}

/* --- rules between members ------------------------------------------------------------------- */

/* By its address; what else is wrong with one that has none was said already. */
static void check_gateway(struct conf *c, struct nlb_conf_vip *vip, size_t i)
{
	struct nlb_conf_gateway *gw = &vip->gateways[i], *first = &vip->gateways[0];

	if (!gw->name.p) {
		char text[NET_ADDR_LEN];

		gw->name = arena_str(conf_arena(c), str_from(net_format_ip(text, &gw->address)));
	}
	conf_enter_index(c, "gateways", i);
	if (gw->address.len && first->address.len &&
	    gw->address.sa.sa_family != first->address.sa.sa_family)
		conf_error_at(
			c, "address",
			"is %s, while that of gateways[0] (%.*s) is %s: the gateways of a VIP "
			"are of one address family; give the others a VIP of their own",
			nlb_conf_family_name(&gw->address), STR_ARG(first->name),
			nlb_conf_family_name(&first->address));
	for (size_t j = 0; j < i; j++) {
		const struct nlb_conf_gateway *other = &vip->gateways[j];

		if (str_eq(other->name, gw->name))
			conf_error_at(c, "name", "\"%.*s\" is gateways[%zu] already",
				      STR_ARG(gw->name), j);
		else if (gw->address.len && net_addr_eq(&other->address, &gw->address))
			conf_error_at(c, "address", "is that of gateways[%zu] (%.*s) already", j,
				      STR_ARG(other->name));
	}
	conf_leave(c);
}

static void check_weights(struct conf *c, const struct nlb_conf_vip *vip)
{
	for (size_t i = 0; i < vip->gateways_count; i++) {
		if (vip->gateways[i].weight)
			return;
	}
	if (vip->gateways_count)
		conf_warn_at(c, "gateways",
			     "all have weight 0: new connections to the VIP are dropped");
}

static void check_vip(struct conf *c, void *object)
{
	struct nlb_conf_vip *vip = object;

	if (conf_has(c, "discover") == conf_has(c, "gateways"))
		conf_error(c, conf_has(c, "discover")
				      ? "has both \"discover\" and \"gateways\"; use one of them"
				      : "needs \"gateways\" (a list) or \"discover\" (an app of "
					"the registry)");
	if (conf_has(c, "gateways") && vip->gateways_count == 0)
		conf_warn_at(c, "gateways", "is empty: packets to the VIP are dropped");
	net_set_port(&vip->address, vip->port);
	nlb_conf_health_fit(c, vip->health, vip->port,
			    str_eqz(STR("tcp"), nlb_protocol_names[vip->protocol]));
	for (size_t i = 0; i < vip->gateways_count; i++)
		check_gateway(c, vip, i);
	check_weights(c, vip);
	nlb_conf_filter_fit(c, vip);
}

/* Packets would be sent to this host, or round in circles. */
static void check_not_vips(struct conf *c, const struct nlb_conf *conf,
			   const struct nlb_conf_vip *vip)
{
	for (size_t i = 0; i < vip->gateways_count; i++) {
		const struct net_addr *address = &vip->gateways[i].address;

		conf_enter_index(c, "gateways", i);
		for (size_t k = 0; k < conf->vips_count; k++) {
			struct net_addr other = conf->vips[k].address;

			net_set_port(&other, 0);
			if (!address->len || !net_addr_eq(&other, address))
				continue;
			conf_error_at(c, "address",
				      "is the address of the VIP %.*s; a gateway needs one of its "
				      "own",
				      STR_ARG(conf->vips[k].name));
			break;
		}
		conf_leave(c);
	}
}

static void check_interfaces(struct conf *c, const struct nlb_conf *conf)
{
	for (size_t i = 0; i < conf->interfaces_count; i++) {
		conf_enter_index(c, "interfaces", i);
		if (str_eq(conf->interfaces[i], conf->interface))
			conf_error(c, "\"%.*s\" is \"interface\" already",
				   STR_ARG(conf->interfaces[i]));
		for (size_t j = 0; j < i; j++) {
			if (str_eq(conf->interfaces[i], conf->interfaces[j]))
				conf_error(c, "\"%.*s\" is interfaces[%zu] already",
					   STR_ARG(conf->interfaces[i]), j);
		}
		conf_leave(c);
	}
}

static void check_root(struct conf *c, void *object)
{
	struct nlb_conf *conf = object;
	size_t allowed = 0;

	check_interfaces(c, conf);
	for (size_t i = 0; i < conf->vips_count; i++) {
		struct nlb_conf_vip *vip = &conf->vips[i];

		allowed += vip->allow_count;
		conf_enter_index(c, "vips", i);
		if (vip->discover.p && !vip->gateways_count && !conf->registry_urls_count)
			conf_error_at(c, "discover", "needs \"registry\": { \"urls\": [ … ] }");
		check_not_vips(c, conf, vip);
		for (size_t j = 0; j < i; j++) {
			if (str_eq(conf->vips[j].name, vip->name))
				conf_error_at(c, "name", "\"%.*s\" is vips[%zu] already",
					      STR_ARG(vip->name), j);
			if (vip->address.len && conf->vips[j].protocol == vip->protocol &&
			    net_addr_eq(&conf->vips[j].address, &vip->address))
				conf_error(c,
					   "has the address, port and protocol of vips[%zu] (%.*s)",
					   j, STR_ARG(conf->vips[j].name));
		}
		conf_leave(c);
	}
	if (allowed > NLB_ALLOWED_MAX)
		conf_error_at(c, "vips",
			      "all \"allow\" lists together have %zu prefixes, at most %d fit",
			      allowed, NLB_ALLOWED_MAX);
}

/* --- rows ------------------------------------------------------------------------------------ */

#define IP_SCHEMA                                                \
	"{\"anyOf\":[{\"type\":\"string\",\"format\":\"ipv4\"}," \
	"{\"type\":\"string\",\"format\":\"ipv6\"}]}"

static const struct conf_row gateway_rows[] = {
	{ CONF_STRING("name", struct nlb_conf_gateway, name), .valid = valid_name,
	  .help = "for people; the address if not given" },
	{ CONF_CUSTOM("address", struct nlb_conf_gateway, address, parse_ip_field),
	  .flags = CONF_REQUIRED, .schema = IP_SCHEMA,
	  .help = "where tunnelled packets go; of one family in a list" },
	{ CONF_INT("weight", struct nlb_conf_gateway, weight), .max = NLB_WEIGHT_MAX, .def = "1",
	  .help = "share of new connections; 0: none" },
	{ 0 },
};
static const struct conf_object gateway_object = CONF_OBJECT_OF(struct nlb_conf_gateway,
								gateway_rows);

static const struct conf_row vip_rows[] = {
	{ CONF_STRING("name", struct nlb_conf_vip, name), .flags = CONF_REQUIRED,
	  .valid = valid_name, .help = "distinct; names the VIP in nlbctl, logs and metrics" },
	{ CONF_CUSTOM("address", struct nlb_conf_vip, address, parse_ip_field),
	  .flags = CONF_REQUIRED, .schema = IP_SCHEMA,
	  .help = "the virtual IP that clients connect to" },
	{ CONF_INT("port", struct nlb_conf_vip, port), .flags = CONF_REQUIRED, .max = 65535,
	  .help = "the port that clients connect to; 0: every port that no other VIP names" },
	{ CONF_ENUM("protocol", struct nlb_conf_vip, protocol, nlb_protocol_names),
	  .def = "\"tcp\"", .help = "transport protocol" },
	{ CONF_ENUM("encapsulation", struct nlb_conf_vip, encap, nlb_encap_names), .def = "\"gue\"",
	  .help = "gue or ipip: tunnel to the gateway; l2: gateways on the same segment" },
	{ CONF_STRING("discover", struct nlb_conf_vip, discover), .valid = valid_app,
	  .help = "app of the registry whose instances are the gateways" },
	{ CONF_ARRAY("gateways", struct nlb_conf_vip, gateways, &gateway_object),
	  .max = NLB_MAX_GATEWAYS - 1, .help = "a fixed list of gateways" },
	{ CONF_OPTIONAL("health", struct nlb_conf_vip, health, &nlb_conf_health_object),
	  .flags = CONF_NULL, .help = "how gateways are checked; without it all count as healthy" },
	{ CONF_BOOL("announce", struct nlb_conf_vip, announce), .def = "false",
	  .help = "put the address on announce_interface while a gateway can be used, for a "
		  "routing daemon to announce" },
	{ CONF_INT("slow_start_s", struct nlb_conf_vip, slow_start_s), .max = SETTLE_S_MAX,
	  .def = "0",
	  .help = "time in which a new or recovered gateway comes to its full share, in ten "
		  "steps" },
	{ CONF_PREFIXES("allow", struct nlb_conf_vip, allow), .max = NLB_ALLOWED_MAX,
	  .flags = CONF_NULL | CONF_NOT_EMPTY,
	  .help = "prefixes of the sources that may use it; all if not given" },
	{ CONF_OPTIONAL("new_connections_per_source", struct nlb_conf_vip, source_rate,
			&nlb_conf_source_rate_object),
	  .flags = CONF_NULL, .help = "limit for each source address (IPv6: network of 64 bits)" },
	{ 0 },
};
static const struct conf_object vip_object = CONF_OBJECT_OF(struct nlb_conf_vip, vip_rows,
							    .check = check_vip);

static const struct conf_row source_rows[] = {
	{ CONF_CUSTOM("ipv4", struct nlb_conf, source[0], parse_source_ipv4), .flags = CONF_NULL,
	  .schema = "{\"type\":[\"string\",\"null\"]}",
	  .help = "an address, or a prefix whose host bits follow the flow; the interface's own if "
		  "not given" },
	{ CONF_CUSTOM("ipv6", struct nlb_conf, source[1], parse_source_ipv6), .flags = CONF_NULL,
	  .schema = "{\"type\":[\"string\",\"null\"]}",
	  .help = "the same for gateways with IPv6 addresses" },
	{ 0 },
};
/* These groups have no struct of their own: their rows' offsets count from the root. */
static const struct conf_object source_object = CONF_OBJECT_OF(struct nlb_conf, source_rows);

#define CONF_GROUP(n, o)                                                                     \
	.name = (n), .type = CONF_TYPE_OBJECT, .offset = 0, .size = sizeof(struct nlb_conf), \
	.object = (o)

static const struct conf_row registry_tls_rows[] = {
	{ CONF_STRING("ca", struct nlb_conf, registry_ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities that sign the registries' certificates; the "
		  "system's when not given" },
	{ CONF_STRING("certificate", struct nlb_conf, registry_certificate), .flags = CONF_NULL,
	  .help = "PEM file shown to registries that ask for a client certificate" },
	{ CONF_STRING("key", struct nlb_conf, registry_key), .flags = CONF_NULL,
	  .help = "PEM file with its private key" },
	{ 0 },
};
static const struct conf_object registry_tls_object = CONF_OBJECT_OF(struct nlb_conf,
								     registry_tls_rows);

static const struct conf_row registry_rows[] = {
	{ CONF_STRINGS("urls", struct nlb_conf, registry_urls), .valid = valid_url, .max = 255,
	  .help = "registryd, tried in this order" },
	{ CONF_STRING("cache", struct nlb_conf, registry_cache), .valid = valid_absolute,
	  .flags = CONF_NULL,
	  .help = "file that keeps the last known instances for a start without the registry" },
	{ CONF_STRING("token", struct nlb_conf, registry_token), .flags = CONF_NULL, .max = 512,
	  .help = "shown to registries that want one; best \"$file:/path\"" },
	{ CONF_GROUP("tls", &registry_tls_object), .help = "for \"https:\" URLs" },
	{ 0 },
};
static const struct conf_object registry_object = CONF_OBJECT_OF(struct nlb_conf, registry_rows);

static const struct conf_row admin_rows[] = {
	{ CONF_ADDRESS("bind", struct nlb_conf, admin_bind), .min = 9440,
	  .def = "\"127.0.0.1:9440\"", .flags = CONF_FIXED,
	  .help = "/healthz, /readyz, /metrics and /status, read only" },
	{ CONF_STRING("socket", struct nlb_conf, admin_socket),
	  .def = "\"/run/gatehouse/nlb.sock\"", .flags = CONF_FIXED, .valid = valid_absolute,
	  .max = 100, .help = "unix socket that nlbctl speaks to" },
	{ 0 },
};
static const struct conf_object admin_object = CONF_OBJECT_OF(struct nlb_conf, admin_rows);

static const struct conf_row root_rows[] = {
	{ CONF_STRING("interface", struct nlb_conf, interface), .flags = CONF_REQUIRED | CONF_FIXED,
	  .valid = valid_interface, .help = "where packets of clients arrive" },
	{ CONF_STRINGS("interfaces", struct nlb_conf, interfaces), .flags = CONF_FIXED,
	  .valid = valid_interface, .max = NLB_INTERFACES_MAX,
	  .help = "more interfaces where packets of clients arrive" },
	{ CONF_ENUM("xdp_mode", struct nlb_conf, xdp_mode, xdp_modes), .flags = CONF_FIXED,
	  .def = "\"auto\"",
	  .help = "native: in the driver; generic: works everywhere, slower; auto: native if "
		  "possible" },
	{ CONF_GROUP("source_address", &source_object),
	  .help = "outer source of tunnelled packets" },
	{ CONF_GROUP("registry", &registry_object), .help = "for VIPs with \"discover\"" },
	{ CONF_GROUP("admin", &admin_object), .help = "where nlbd answers" },
	{ CONF_INT("flows_per_cpu", struct nlb_conf, flows_per_cpu), .flags = CONF_FIXED,
	  .min = FLOWS_PER_CPU_MIN, .max = FLOWS_PER_CPU_MAX, .def = "1048576",
	  .help = "connections remembered per CPU, 16 bytes each; rounded up to a power of two" },
	{ CONF_INT("new_flows_per_cpu_s", struct nlb_conf, new_flows_per_cpu_s), .min = 1000,
	  .max = 100000000, .def = "250000",
	  .help = "new connections per CPU and second beyond which none is recorded (SYN flood)" },
	{ CONF_INT("settle_s", struct nlb_conf, settle_s), .min = 60, .max = SETTLE_S_MAX,
	  .def = "3600", .help = "how long the flow table is asked after a change of gateways" },
	{ CONF_INT("udp_timeout_s", struct nlb_conf, udp_timeout_s), .min = 1, .max = SETTLE_S_MAX,
	  .def = "60", .help = "silence after which a UDP flow is forgotten" },
	{ CONF_INT("icmp_per_cpu_s", struct nlb_conf, icmp_per_cpu_s), .max = 10000000,
	  .def = "10000",
	  .help = "echo replies and \"too big\" messages of its own per CPU and second; 0: none" },
	{ CONF_STRING("hash_seed", struct nlb_conf, hash_seed), .flags = CONF_FIXED,
	  .help = "a secret, the same on every NLB of a group; without one clients can choose "
		  "their gateway" },
	{ CONF_STRING("pin_directory", struct nlb_conf, pin_directory), .flags = CONF_FIXED,
	  .def = "\"" PIN_DIRECTORY "\"", .valid = valid_absolute,
	  .help = "below a BPF file system; holds a folder per interface" },
	{ CONF_STRING("announce_interface", struct nlb_conf, announce_interface),
	  .flags = CONF_FIXED, .def = "\"lo\"", .valid = valid_interface,
	  .help = "where VIPs with \"announce\" are put" },
	{ CONF_ARRAY("vips", struct nlb_conf, vips, &vip_object), .flags = CONF_REQUIRED,
	  .max = NLB_MAX_VIPS, .help = "the virtual IPs and their gateways" },
	{ 0 },
};
const struct conf_object nlb_conf_object = CONF_OBJECT_OF(struct nlb_conf, root_rows,
							  .check = check_root);

/* --- derived --------------------------------------------------------------------------------- */

const char *nlb_conf_family_name(const struct net_addr *a)
{
	return a->sa.sa_family == AF_INET6 ? "IPv6" : "IPv4";
}

uint8_t nlb_conf_vip_family(const struct nlb_conf_vip *vip)
{
	if (!vip->gateways_count)
		return 0;
	return vip->gateways[0].address.sa.sa_family == AF_INET6 ? 6 : 4;
}

uint32_t nlb_conf_vip_overhead(const struct nlb_conf_vip *vip, uint8_t family)
{
	uint32_t ip = family == 6 ? 40 : 20, address = family == 6 ? 16 : 4;

	switch (vip->encap + 1) {
	case NLB_ENCAP_IPIP:
		return ip;
	case NLB_ENCAP_GUE:
		return ip + 8 + 4 + 4 + 2 * address; /* with two second choices */
	default:
		return 0;
	}
}

uint32_t nlb_conf_vip_mtu_min(const struct nlb_conf_vip *vip)
{
	return vip->address.sa.sa_family == AF_INET6 ? 1280 : 576;
}

/* One 64-bit key of the many that a seed gives: the head of SHA-256(number, seed). */
static uint64_t derive(struct arena *a, struct str seed, uint8_t number)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	char *text = arena_printf(a, "%03u %.*s", number, STR_ARG(seed));
	uint64_t out;

	if (!text || !EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL))
		return 0;
	memcpy(&out, digest, sizeof(out));
	return out;
}

void nlb_conf_hash_keys(const struct nlb_conf *conf, struct hash_key *rings,
			uint64_t flows[NLB_HASH_KEYS])
{
	struct str seed = conf->hash_seed.p ? conf->hash_seed : STR("gatehouse");

	struct arena a;

	arena_init(&a, 4096, 0);
	rings->k[0] = derive(&a, seed, 0);
	rings->k[1] = derive(&a, seed, 1);
	/* Odd, so that no difference in one word can vanish in the product. */
	for (uint8_t i = 0; i < NLB_HASH_KEYS; i++)
		flows[i] = derive(&a, seed, (uint8_t)(2 + i)) | 1;
	arena_fini(&a);
}
