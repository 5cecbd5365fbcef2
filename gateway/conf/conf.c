/* SPDX-License-Identifier: Apache-2.0 */
/* The rows; what members must have in common is in conf_check.c. */
#include "gateway/conf/conf.h"

#include "gateway/conf/auth.h"
#include "gateway/conf/check.h"
#include "gateway/conf/cors.h"
#include "gateway/conf/limits.h"
#include "gateway/identity/jwks.h"
#include "gateway/routing/media.h"
#include "gateway/routing/router.h"
#include "gateway/routing/template.h"
#include "lib/cleanup.h"
#include "lib/clock.h"

#define HOUR_MS 3600000LL

/* --- validators of single values ----------------------------------------------------------- */

static const char *valid_name(struct str name)
{
	if (name.len > 64)
		return "must have at most 64 characters";
	for (size_t i = 0; i < name.len; i++) {
		if (!isalnum((unsigned char)name.p[i]) && !strchr("_.-", name.p[i]))
			return "must have letters, digits, \"_\", \".\" and \"-\" only";
	}
	return NULL;
}

static const char *valid_path(struct str path)
{
	return path.p[0] == '/' ? NULL : "must begin with \"/\"";
}

static const char *valid_rewrite(struct str path)
{
	const char *complaint = router_check_path(path);

	if (complaint)
		return complaint;
	return strpbrk(path.p, "*{}") ? "must be a plain path" : NULL;
}

static const char *valid_rewrite_path(struct str path)
{
	if (str_ends(path, STR("/*")))
		path.len -= 2;
	return template_check(path, TEMPLATE_PATH);
}

static const char *valid_redirect(struct str location)
{
	return template_check(location, TEMPLATE_LOCATION);
}

static const char *valid_redirect_path(struct str path)
{
	return path.p[0] == '/' && (path.len < 2 || path.p[1] != '/') ? NULL
								      : "must begin with one \"/\"";
}

static const char *valid_redirect_prefix(struct str path)
{
	const char *complaint = valid_redirect_path(path);

	return complaint || !strpbrk(path.p, "?#") ? complaint : "must not have a query";
}

static const char *valid_redirect_host(struct str host)
{
	const char *complaint = router_check_host(host);

	return complaint || host.p[0] != '*' ? complaint : "must be one host";
}

static const char *valid_host_suffix(struct str suffix)
{
	for (size_t i = 0; i < suffix.len; i++) {
		if (!isalnum((unsigned char)suffix.p[i]) && !strchr("-.", suffix.p[i]))
			return "must have letters, digits, \"-\" and \".\" only";
	}
	return suffix.len > 64 ? "must have at most 64 characters" : NULL;
}

static const char *valid_field_value(struct str value)
{
	return http_is_field_value(value) ? NULL
					  : "must be a header value without control characters";
}

static const char *valid_host_field(struct str host)
{
	for (size_t i = 0; i < host.len; i++) {
		if (!isalnum((unsigned char)host.p[i]) && !strchr(".-_:[]", host.p[i]))
			return "must be a host name, with or without a port";
	}
	return NULL;
}

static const char *valid_ip(struct str text)
{
	struct net_addr a;

	return net_parse_ip(&a, text, 0) == 0 ? NULL : "must be an IP address";
}

static const char *valid_method(struct str method)
{
	if (!http_is_token(method))
		return "must be a method";
	for (size_t i = 0; i < method.len; i++) {
		if (islower((unsigned char)method.p[i]))
			return "must be written in capitals, as methods are";
	}
	return http_method_id(method) == METHOD_CONNECT ? "must not be CONNECT" : NULL;
}

static const char *valid_protocol(struct str protocol)
{
	return str_eqz(protocol, "http/1.1") || str_eqz(protocol, "h2")
		       ? NULL
		       : "must be \"h2\" or \"http/1.1\"";
}

static const char *valid_token(struct str name)
{
	return http_is_token(name) ? NULL : "must be a name without white space";
}

static const char *valid_location(struct str location)
{
	for (size_t i = 0; i < location.len; i++) {
		if ((unsigned char)location.p[i] <= ' ' || location.p[i] == 0x7f)
			return "must be a URL or a path without white space";
	}
	return NULL;
}

static const char *valid_scheme(struct str scheme)
{
	return str_eqz(scheme, "https") || str_eqz(scheme, "http")
		       ? NULL
		       : "must be \"https\" or \"http\"";
}

static const char *valid_url(struct str url)
{
	if (str_starts(url, STR("http://")) || str_starts(url, STR("https://")) ||
	    str_starts(url, STR("unix:/")))
		return NULL;
	return "must begin with \"http://\", \"https://\" or \"unix:/\"";
}

/* --- members of a form of their own -------------------------------------------------------- */

static void parse_date(struct conf *c, void *field, const json_t *value)
{
	struct str text;
	uint64_t ms;

	if (!conf_string(c, value, &text))
		return;
	if (clock_parse_rfc3339(text.p, &ms) < 0)
		conf_error(c,
			   "must be a date and time such as \"2026-06-01T00:00:00Z\", not \"%.*s\"",
			   (int)MIN(text.len, (size_t)100), text.p);
	else
		memcpy(field, &ms, sizeof(ms));
}

#define DATE_SCHEMA "{\"type\":\"string\",\"format\":\"date-time\"}"

/* A key, or several of which the first that is there counts. */
static void parse_sticky(struct conf *c, void *field, const json_t *value)
{
	struct gw_sticky *out = field;
	size_t count = json_is_array(value) ? json_array_size(value) : 1;

	if (count == 0 || count > GW_STICKY_MAX) {
		conf_error(c, "must have 1..%d keys", GW_STICKY_MAX);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
		const char *complaint;
		struct str text;

		if (!conf_string(c, item, &text))
			return;
		complaint = request_key_parse(&out->keys[i], text);
		if (complaint) {
			conf_error(c, "%s", complaint);
			return;
		}
	}
	out->count = count;
}

#define STICKY_SCHEMA                                                            \
	"{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\"," \
	"\"minItems\":1,\"maxItems\":4,\"items\":{\"type\":\"string\"}}]}"

/* --- listeners ----------------------------------------------------------------------------- */

static const struct conf_row certificate_rows[] = {
	{ CONF_STRING("certificate", struct gw_certificate, certificate), .flags = CONF_REQUIRED,
	  .help = "PEM file: the certificate, then the chain." },
	{ CONF_STRING("key", struct gw_certificate, key), .flags = CONF_REQUIRED,
	  .help = "PEM file with its private key." },
	{ 0 },
};
static const struct conf_object certificate_object = CONF_OBJECT_OF(struct gw_certificate,
								    certificate_rows);

static const char *const tls_versions[] = { "1.2", "1.3", NULL };

static const char *const client_auths[] = { "off", "request", "require", NULL };

static const struct conf_row tls_host_rows[] = {
	{ CONF_ENUM("min_version", struct gw_tls_host, min_version, tls_versions),
	  .help = "Oldest TLS version accepted; that of the listener when not given." },
	{ CONF_ENUM("client_auth", struct gw_tls_host, client_auth, client_auths),
	  .help = "Client certificates; as the listener has it when not given." },
	{ CONF_STRING("client_ca", struct gw_tls_host, client_ca),
	  .help = "PEM file with the authorities that sign them; the listener's when not given." },
	{ 0 },
};
static const struct conf_object tls_host_object = CONF_OBJECT_OF(
	struct gw_tls_host, tls_host_rows, .name_offset = offsetof(struct gw_tls_host, name),
	.check = gw_check_tls_host);

static const struct conf_row tls_rows[] = {
	{ CONF_ARRAY("certificates", struct gw_tls, certificates, &certificate_object),
	  .flags = CONF_REQUIRED, .max = 1000,
	  .help = "Chosen by the name that the client asks for; the first is the default." },
	{ CONF_STRINGS("alpn", struct gw_tls, alpn), .def = "[\"h2\", \"http/1.1\"]",
	  .valid = valid_protocol, .max = 8, .help = "Protocols offered, best first." },
	{ CONF_ENUM("min_version", struct gw_tls, min_version, tls_versions), .def = "\"1.2\"",
	  .help = "Oldest TLS version accepted." },
	{ CONF_ENUM("client_auth", struct gw_tls, client_auth, client_auths), .def = "\"off\"",
	  .help = "Client certificates: not asked for, verified if one is shown, or required." },
	{ CONF_STRING("client_ca", struct gw_tls, client_ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities that sign client certificates." },
	{ CONF_MAP("hosts", struct gw_tls, hosts, &tls_host_object), .max = 10000,
	  .valid_name = router_check_host,
	  .help = "Host names with a policy of their own: \"api.example.com\" or "
		  "\"*.example.com\"." },
	{ CONF_BOOL("sni_strict", struct gw_tls, sni_strict), .def = "false",
	  .help = "Refuses handshakes for names that no certificate has, instead of showing the "
		  "first." },
	{ CONF_STRING("ticket_keys", struct gw_tls, ticket_keys), .flags = CONF_NULL,
	  .help = "File with the session ticket keys that all gateways of the domain share." },
	{ 0 },
};
static const struct conf_object tls_object = CONF_OBJECT_OF(struct gw_tls, tls_rows,
							    .check = gw_check_tls);

static const struct conf_row proxy_rows[] = {
	{ CONF_PREFIXES("from", struct gw_proxy_protocol, from), .flags = CONF_REQUIRED, .max = 256,
	  .help = "Peers that begin every connection with a PROXY header, version 1 or 2." },
	{ 0 },
};
static const struct conf_object proxy_object = CONF_OBJECT_OF(struct gw_proxy_protocol, proxy_rows);

static const struct conf_row listener_rows[] = {
	{ CONF_ADDRESS("bind", struct gw_listener, bind), .flags = CONF_REQUIRED | CONF_FIXED,
	  .help = "Address and port to listen on; \"*:443\" is all addresses of both families." },
	{ CONF_OPTIONAL("tls", struct gw_listener, tls, &tls_object), .flags = CONF_NULL,
	  .help = "Without it the listener speaks plain HTTP." },
	{ CONF_BOOL("redirect_to_https", struct gw_listener, redirect_to_https),
	  .help = "Answers every request with a redirect to https." },
	{ CONF_INT("https_port", struct gw_listener, https_port), .min = 1, .max = 65535,
	  .def = "443", .help = "The port that redirect_to_https leads to." },
	{ CONF_OPTIONAL("proxy_protocol", struct gw_listener, proxy_protocol, &proxy_object),
	  .flags = CONF_NULL,
	  .help = "Proxies in front of this listener that tell the client's address." },
	{ 0 },
};
static const struct conf_object listener_object = CONF_OBJECT_OF(struct gw_listener, listener_rows,
								 .check = gw_check_listener);

static const struct conf_row admin_rows[] = {
	{ CONF_ADDRESS("bind", struct gw_admin, bind), .def = "\"127.0.0.1:9443\"",
	  .flags = CONF_FIXED, .help = "Serves /healthz, /readyz, /metrics and /status." },
	{ CONF_STRING("socket", struct gw_admin, socket), .flags = CONF_NULL | CONF_FIXED,
	  .max = 107, .valid = valid_path,
	  .help = "Unix socket for what changes something; its permissions are the access "
		  "control." },
	{ 0 },
};
static const struct conf_object admin_object = CONF_OBJECT_OF(struct gw_admin, admin_rows);

/* --- registry ------------------------------------------------------------------------------ */

static const struct conf_row register_rows[] = {
	{ CONF_STRING("app", struct gw_register, app), .flags = CONF_REQUIRED, .valid = valid_name,
	  .help = "Name under which the NLB finds this gateway." },
	{ CONF_STRING("id", struct gw_register, id), .valid = valid_name,
	  .help = "Name of this instance; made of address and port when not given." },
	{ CONF_STRING("address", struct gw_register, address), .flags = CONF_REQUIRED,
	  .valid = valid_ip, .help = "Where the NLB sends packets for this gateway." },
	{ CONF_INT("port", struct gw_register, port), .min = 1, .max = 65535,
	  .flags = CONF_REQUIRED, .help = "Port of the service." },
	{ CONF_STRING("zone", struct gw_register, zone), .valid = valid_name,
	  .help = "Zone of this host." },
	{ CONF_STRING("version", struct gw_register, version), .valid = valid_name,
	  .help = "Shown in the registry." },
	{ CONF_INT("weight", struct gw_register, weight), .min = 1, .max = 1000, .def = "100",
	  .help = "Share of connections beside other gateways." },
	{ CONF_INT("lease_s", struct gw_register, lease_s), .min = 1, .max = 3600, .def = "10",
	  .help = "How long the registry believes in us without a renewal." },
	{ CONF_PAIRS("metadata", struct gw_register, metadata), .max = 32,
	  .help = "Free texts shown in the registry." },
	{ 0 },
};
static const struct conf_object register_object = CONF_OBJECT_OF(struct gw_register, register_rows);

static const struct conf_row registry_tls_rows[] = {
	{ CONF_STRING("ca", struct gw_registry_tls, ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities that sign the registries' certificates; the "
		  "system's when not given." },
	{ CONF_STRING("certificate", struct gw_registry_tls, certificate), .flags = CONF_NULL,
	  .help = "PEM file shown to registries that ask for a client certificate." },
	{ CONF_STRING("key", struct gw_registry_tls, key), .flags = CONF_NULL,
	  .help = "PEM file with its private key." },
	{ 0 },
};
static const struct conf_object registry_tls_object = CONF_OBJECT_OF(struct gw_registry_tls,
								     registry_tls_rows);

static const struct conf_row registry_rows[] = {
	{ CONF_STRINGS("urls", struct gw_registry, urls), .flags = CONF_REQUIRED | CONF_FIXED,
	  .valid = valid_url, .max = 16, .help = "Registries; one that answers is enough." },
	{ CONF_STRING("cache", struct gw_registry, cache), .flags = CONF_NULL | CONF_FIXED,
	  .help = "File with the last known instances, for starts without a registry." },
	{ CONF_STRING("token", struct gw_registry, token), .flags = CONF_NULL, .max = 512,
	  .help = "Shown to registries that want one; best \"$file:/path\"." },
	{ CONF_OBJECT("tls", struct gw_registry, tls, &registry_tls_object) },
	{ CONF_OPTIONAL("register", struct gw_registry, register_as, &register_object),
	  .flags = CONF_NULL | CONF_FIXED, .help = "How this gateway registers itself." },
	{ 0 },
};
static const struct conf_object registry_object = CONF_OBJECT_OF(struct gw_registry, registry_rows);

/* --- services ------------------------------------------------------------------------------ */

static const char *const balances[] = {
	"p2c",
	"round_robin",
	"least_request",
	"weighted_response_time",
	"availability",
	"ring_hash",
	"random",
	/* Ribbon's; gw_check_service knows what they are here. */
	"RoundRobinRule",
	"BestAvailableRule",
	"WeightedResponseTimeRule",
	"ResponseTimeWeightedRule",
	"AvailabilityFilteringRule",
	"ZoneAvoidanceRule",
	"RandomRule",
	"RetryRule",
	NULL,
};

static const struct conf_row endpoint_rows[] = {
	{ CONF_ADDRESS("address", struct gw_endpoint, address), .flags = CONF_REQUIRED,
	  .help = "Address and port of an instance." },
	{ CONF_INT("weight", struct gw_endpoint, weight), .min = 1, .max = 1000, .def = "1",
	  .help = "Share of requests beside the others." },
	{ CONF_STRING("zone", struct gw_endpoint, zone), .valid = valid_name,
	  .help = "Where it is, for `prefer_zone`." },
	{ 0 },
};
static const struct conf_object endpoint_object = CONF_OBJECT_OF(struct gw_endpoint, endpoint_rows,
								 .check = gw_check_endpoint);

/* "404", 404 or "200-299". */
static bool parse_range(const json_t *item, uint64_t *from, uint64_t *to)
{
	struct str text = str_of(json_string_value(item), json_string_length(item));
	const char *dash;

	if (json_is_integer(item)) {
		*from = *to = (uint64_t)MAX(json_integer_value(item), (json_int_t)0);
		return true;
	}
	if (!json_is_string(item))
		return false;
	dash = memchr(text.p, '-', text.len);
	if (!dash)
		return str_u64(text, from) && str_u64(text, to);
	return str_u64(str_of(text.p, (size_t)(dash - text.p)), from) &&
	       str_u64(str_sub(text, (size_t)(dash - text.p) + 1, text.len), to);
}

static void parse_statuses(struct conf *c, void *field, const json_t *value)
{
	struct gw_statuses *out = field;
	const json_t *item;
	size_t i;

	if (!json_is_array(value)) {
		conf_error(c, "must be a list of statuses");
		return;
	}
	*out = (struct gw_statuses) { 0 };
	json_array_foreach (value, i, item) {
		uint64_t from, to;

		if (!parse_range(item, &from, &to) || from < 100 || to > 599 || from > to) {
			conf_error(c, "must hold statuses from 100 to 599, such as 404 or "
				      "\"200-299\", only");
			return;
		}
		for (uint64_t status = from; status <= to; status++)
			out->bits[(status - 100) / 64] |= 1ULL << (status - 100) % 64;
	}
}

#define STATUSES_SCHEMA                                                                            \
	"{\"type\":\"array\",\"items\":{\"anyOf\":[{\"type\":\"integer\",\"minimum\":100,"         \
	"\"maximum\":599},{\"type\":\"string\",\"pattern\":\"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$\"}]" \
	"}}"

static const char *const health_types[] = { "http", "tcp", "grpc", NULL };

static const struct conf_row health_rows[] = {
	{ CONF_ENUM("type", struct gw_health, type, health_types), .def = "\"http\"",
	  .help = "How: http needs a `path`; tcp connects, by TLS when the service has it; grpc "
		  "asks "
		  "grpc.health.v1.Health." },
	{ CONF_STRING("path", struct gw_health, path), .valid = valid_path, .flags = CONF_NULL,
	  .help = "Asked of each instance, in the service's version of HTTP; no checks by http "
		  "when not given." },
	{ CONF_STRING("host", struct gw_health, host), .max = 255, .valid = valid_host_field,
	  .help = "Host of these requests; the instance's address when not given." },
	{ CONF_STRING("service", struct gw_health, service), .max = 127,
	  .help = "With grpc: the service to ask for; the server as a whole when not given." },
	{ CONF_CUSTOM("statuses", struct gw_health, statuses, parse_statuses),
	  .def = "[\"200-399\"]", .schema = STATUSES_SCHEMA,
	  .help = "With http: the statuses of a healthy instance." },
	{ CONF_INT("port", struct gw_health, port), .max = 65535,
	  .help = "Another port to ask; 0: the instance's." },
	{ CONF_INT("interval_ms", struct gw_health, interval_ms), .min = 50, .max = HOUR_MS,
	  .def = "1000", .help = "Time between two checks." },
	{ CONF_INT("timeout_ms", struct gw_health, timeout_ms), .min = 10, .max = 60000,
	  .def = "500", .help = "Time for an answer." },
	{ CONF_INT("rise", struct gw_health, rise), .min = 1, .max = 100, .def = "2",
	  .help = "Good answers in a row until an instance is used again." },
	{ CONF_INT("fall", struct gw_health, fall), .min = 1, .max = 100, .def = "3",
	  .help = "Failures in a row until an instance is left out." },
	{ 0 },
};
static const struct conf_object health_object = CONF_OBJECT_OF(struct gw_health, health_rows);

static const struct conf_row service_tls_rows[] = {
	{ CONF_STRING("ca", struct gw_service_tls, ca), .flags = CONF_NULL,
	  .help = "PEM file with the authorities to trust; the system's when not given." },
	{ CONF_STRING("server_name", struct gw_service_tls, server_name), .max = 253,
	  .help = "Asked for and compared with the certificate; the instance's address when not "
		  "given." },
	{ CONF_BOOL("verify", struct gw_service_tls, verify), .def = "true",
	  .help = "Whether the certificate must be good; without it anybody can be the service." },
	{ CONF_STRING("certificate", struct gw_service_tls, certificate), .flags = CONF_NULL,
	  .help = "PEM file shown to services that ask for a client certificate." },
	{ CONF_STRING("key", struct gw_service_tls, key), .flags = CONF_NULL,
	  .help = "PEM file with its private key." },
	{ 0 },
};
static const struct conf_object service_tls_object =
	CONF_OBJECT_OF(struct gw_service_tls, service_tls_rows, .check = gw_check_service_tls);

static const struct conf_row ejection_rows[] = {
	{ CONF_INT("failures", struct gw_ejection, failures), .max = 1000, .def = "5",
	  .help = "Failures in a row (no connection, reset, time-out, 5xx) after which an instance "
		  "is left out; 0: never." },
	{ CONF_INT("base_ms", struct gw_ejection, base_ms), .min = 1, .max = HOUR_MS, .def = "1000",
	  .help = "For how long at first, doubled each time after." },
	{ CONF_INT("max_ms", struct gw_ejection, max_ms), .min = 1, .max = HOUR_MS, .def = "30000",
	  .help = "For how long at most." },
	{ CONF_INT("max_percent", struct gw_ejection, max_percent), .max = 100, .def = "50",
	  .help = "How many of the instances at most are left out at once." },
	{ 0 },
};
static const struct conf_object ejection_object = CONF_OBJECT_OF(struct gw_ejection, ejection_rows);

static const struct conf_row breaker_rows[] = {
	{ CONF_INT("failure_percent", struct circuit_rules, failure_percent), .min = 1, .max = 99,
	  .def = "50", .help = "Opens when more of the attempts fail." },
	{ CONF_INT("min_requests", struct circuit_rules, min_requests), .min = 1, .max = 1000000,
	  .def = "20", .help = "... of at least so many in a window." },
	{ CONF_INT("window_ms", struct circuit_rules, window_ms), .min = 100, .max = HOUR_MS,
	  .def = "10000", .help = "Over which they are counted." },
	{ CONF_INT("open_ms", struct circuit_rules, open_ms), .min = 10, .max = HOUR_MS,
	  .def = "5000", .help = "For so long nothing is sent, then one request tries." },
	{ 0 },
};
static const struct conf_object breaker_object = CONF_OBJECT_OF(struct circuit_rules, breaker_rows);

static void parse_hash_on(struct conf *c, void *field, const json_t *value)
{
	const char *complaint;
	struct str text;

	if (!conf_string(c, value, &text))
		return;
	complaint = request_key_parse(field, text);
	if (complaint)
		conf_error(c, "%s", complaint);
}

static const char *const service_protocols[] = { "http/1.1", "h2", "grpc", NULL };

static const struct conf_row service_rows[] = {
	{ CONF_STRING("discover", struct gw_service, discover), .valid = valid_name,
	  .help = "App in the registry whose instances are used." },
	{ CONF_ARRAY("endpoints", struct gw_service, endpoints, &endpoint_object), .max = 1000,
	  .help = "A fixed list of instances instead." },
	{ CONF_ENUM("protocol", struct gw_service, protocol, service_protocols),
	  .def = "\"http/1.1\"",
	  .help = "What the instances speak; grpc is h2 with gRPC's status and deadlines." },
	{ CONF_OPTIONAL("tls", struct gw_service, tls, &service_tls_object), .flags = CONF_NULL,
	  .help = "How TLS is spoken to the instances, health checks too; plain without it." },
	{ CONF_STRING("descriptor_set", struct gw_service, descriptor_set), .flags = CONF_NULL,
	  .help = "Its protobuf types (protoc --include_imports --descriptor_set_out), for routes "
		  "with \"grpc\"." },
	{ CONF_ENUM("balance", struct gw_service, balance, balances), .def = "\"p2c\"",
	  .help = "How an instance is picked: the better of two random ones, in turn, the "
		  "idlest, …; Ribbon's names of rules are known too." },
	{ CONF_CUSTOM("hash_on", struct gw_service, hash_on, parse_hash_on),
	  .schema = "{\"type\":\"string\",\"minLength\":1}",
	  .help = "With ring_hash: requests with the same user, ip, endpoint, header:NAME or "
		  "cookie:NAME go to the same instance." },
	{ CONF_INT("hash_balance_percent", struct gw_service, hash_balance_percent), .max = 10000,
	  .def = "150",
	  .help = "With ring_hash: an instance with more in flight than this part of the average "
		  "leaves keys to the next one; 0: never." },
	{ CONF_BOOL("prefer_zone", struct gw_service, prefer_zone), .def = "false",
	  .help = "Instances of the gateway's own zone first, while they are healthy and not much "
		  "busier than others." },
	{ CONF_INT("slow_start_ms", struct gw_service, slow_start_ms), .max = HOUR_MS,
	  .def = "10000",
	  .help = "An instance that comes or returns gets its whole share after so long." },
	{ CONF_INT("retries", struct gw_service, retries), .max = 10, .def = "1",
	  .help = "Further tries on other instances, where that is safe." },
	{ CONF_CUSTOM("retry_on", struct gw_service, retry_on, parse_statuses),
	  .schema = STATUSES_SCHEMA,
	  .help = "Statuses of a service that are tried elsewhere too, where that is safe." },
	{ CONF_INT("connect_timeout_ms", struct gw_service, connect_timeout_ms), .min = 1,
	  .max = 60000, .def = "250", .help = "Time to connect to an instance." },
	{ CONF_INT("response_timeout_ms", struct gw_service, response_timeout_ms), .min = 1,
	  .max = HOUR_MS, .def = "15000", .help = "Time until the head of the response is there." },
	{ CONF_INT("stream_idle_timeout_ms", struct gw_service, stream_idle_timeout_ms),
	  .max = 24 * HOUR_MS, .def = "60000",
	  .help = "Time between two pieces of a response; 0: no bound." },
	{ CONF_INT("request_timeout_ms", struct gw_service, request_timeout_ms),
	  .max = 24 * HOUR_MS, .def = "60000",
	  .help = "Time for the whole request, retries too; 0: no bound." },
	{ CONF_INT("idle_timeout_ms", struct gw_service, idle_timeout_ms), .min = 1, .max = HOUR_MS,
	  .def = "4000",
	  .help = "How long an idle connection is kept; less than the service keeps it." },
	{ CONF_INT("max_idle_connections", struct gw_service, max_idle_connections), .max = 65536,
	  .def = "256", .help = "Idle connections kept to one instance, per worker." },
	{ CONF_INT("ping_after_ms", struct gw_service, ping_after_ms), .min = 100, .max = HOUR_MS,
	  .def = "10000", .help = "HTTP/2: an instance silent for so long is sent a PING." },
	{ CONF_INT("ping_timeout_ms", struct gw_service, ping_timeout_ms), .min = 10, .max = 60000,
	  .def = "5000", .help = "HTTP/2: time to answer it, else the connection is closed." },
	{ CONF_INT("websocket_idle_timeout_ms", struct gw_service, websocket_idle_timeout_ms),
	  .min = 100, .max = 24 * HOUR_MS, .def = "300000",
	  .help = "A WebSocket in which nothing moves for so long is closed." },
	{ CONF_OBJECT("health", struct gw_service, health, &health_object),
	  .help = "Active checks." },
	{ CONF_OBJECT("ejection", struct gw_service, ejection, &ejection_object),
	  .help = "When instances are left out for what requests tell of them." },
	{ CONF_OPTIONAL("circuit_breaker", struct gw_service, circuit_breaker, &breaker_object),
	  .flags = CONF_NULL,
	  .help = "When the whole service is left alone: 503 at once. Never without it." },
	{ CONF_INT("max_concurrent", struct gw_service, max_concurrent), .max = 1000000,
	  .flags = CONF_NULL,
	  .help = "Requests in flight at once, of all workers; above it 503. 0: no bound." },
	{ CONF_INT("max_pending", struct gw_service, max_pending), .max = 1000000,
	  .help = "Requests above `max_concurrent` that wait for a place, of all workers, instead "
		  "of being refused. 0: none." },
	{ CONF_INT("pending_timeout_ms", struct gw_service, pending_timeout_ms), .min = 1,
	  .max = HOUR_MS, .def = "1000", .help = "For how long at most, then 503." },
	{ CONF_INT("max_concurrent_per_instance", struct gw_service, max_concurrent_per_instance),
	  .max = 1000000,
	  .help = "Requests in flight at once to one instance, of all workers; above it others "
		  "are chosen. 0: no bound." },
	{ CONF_INT("max_connections", struct gw_service, max_connections), .max = 1000000,
	  .help = "Connections at once, of all workers; above it 503. 0: no bound." },
	{ 0 },
};
static const struct conf_object service_object =
	CONF_OBJECT_OF(struct gw_service, service_rows,
		       .name_offset = offsetof(struct gw_service, name), .check = gw_check_service);

/* --- routes -------------------------------------------------------------------------------- */

#define TRANSFORM_ROWS(remove_default)                                             \
	{ CONF_PAIRS("set", struct gw_transform, set),                             \
	  .max = 64,                                                               \
	  .flags = CONF_EMPTY_OK,                                                  \
	  .valid = headers_check_value,                                            \
	  .valid_name = headers_check_name,                                        \
	  .help = "Headers put in place of those that are there." },               \
		{ CONF_PAIRS("add", struct gw_transform, add),                     \
		  .max = 64,                                                       \
		  .flags = CONF_EMPTY_OK,                                          \
		  .valid = headers_check_value,                                    \
		  .valid_name = headers_check_name,                                \
		  .help = "Headers put beside those that are there." },            \
		{ CONF_STRINGS("remove", struct gw_transform, remove), .max = 256, \
		  .def = (remove_default), .valid = headers_check_pattern,         \
		  .help = "Headers taken away; a name may end in \"*\"." },        \
	{                                                                          \
		0                                                                  \
	}

static const struct conf_row default_request_rows[] = { TRANSFORM_ROWS("[\"X-Internal-*\"]") };
static const struct conf_object default_request_object = CONF_OBJECT_OF(struct gw_transform,
									default_request_rows);
static const struct conf_row transform_rows[] = { TRANSFORM_ROWS(NULL) };
static const struct conf_object transform_object = CONF_OBJECT_OF(struct gw_transform,
								  transform_rows);
static const struct conf_row default_response_rows[] = { TRANSFORM_ROWS(
	"[\"X-Internal-*\", \"Server\", \"X-Powered-By\"]") };
static const struct conf_object default_response_object = CONF_OBJECT_OF(struct gw_transform,
									 default_response_rows);

static const char *const refuse_or_keep[] = { "refuse", "keep", NULL };

#define MAX_BODY (1LL << 40)

static const struct conf_row defaults_rows[] = {
	{ CONF_STRINGS("limits", struct gw_defaults, limits), .max = 8,
	  .help = "Rate limits of every route." },
	{ CONF_INT("max_body_bytes", struct gw_defaults, max_body_bytes), .min = 1, .max = MAX_BODY,
	  .def = "10485760", .help = "Largest request body." },
	{ CONF_OBJECT("request", struct gw_defaults, request, &default_request_object),
	  .help = "Changes to every request." },
	{ CONF_OBJECT("response", struct gw_defaults, response, &default_response_object),
	  .help = "Changes to every response, also to those of the gateway's own." },
	{ CONF_ENUM("encoded_slash", struct gw_defaults, encoded_slash, refuse_or_keep),
	  .def = "\"refuse\"", .help = "Paths with %2F." },
	{ CONF_ENUM("backslash", struct gw_defaults, backslash, refuse_or_keep),
	  .def = "\"refuse\"", .help = "Paths with a backslash or %5C." },
	{ CONF_ENUM("parameters", struct gw_defaults, parameters, refuse_or_keep),
	  .def = "\"refuse\"", .help = "Paths with \";\"." },
	{ CONF_ENUM("nul", struct gw_defaults, nul, refuse_or_keep), .def = "\"refuse\"",
	  .help = "Paths with %00." },
	{ CONF_OPTIONAL("cors", struct gw_defaults, cors, &gw_cors_object), .flags = CONF_NULL,
	  .help = "Pages of other origins that may use routes which do not say it themselves." },
	{ CONF_BOOL("underscores_in_headers", struct gw_defaults, underscores_in_headers),
	  .def = "false", .help = "Keep request headers with \"_\" in their name." },
	{ 0 },
};
static const struct conf_object defaults_object = CONF_OBJECT_OF(struct gw_defaults, defaults_rows);

static const struct conf_row match_rows[] = {
	{ CONF_STRINGS("hosts", struct gw_match, hosts), .max = 256, .valid = router_check_host,
	  .help = "\"api.example.com\" or \"*.example.com\"; any host when not given." },
	{ CONF_STRING("path", struct gw_match, path), .flags = CONF_REQUIRED,
	  .valid = router_check_path,
	  .help = "Exact, a prefix (\"/x/*\"), or a template (\"/users/{id}\")." },
	{ CONF_STRINGS("methods", struct gw_match, methods), .max = 32, .valid = valid_method,
	  .help = "GET brings HEAD along; any method when not given." },
	{ CONF_PAIRS("headers", struct gw_match, headers), .max = 16, .valid_name = valid_token,
	  .help = "Values that request headers must have: exact, \"*\" for any, or \"prefix*\"." },
	{ CONF_PAIRS("cookies", struct gw_match, cookies), .max = 16, .valid_name = valid_token,
	  .help = "The same for cookies." },
	{ CONF_PAIRS("query", struct gw_match, query), .max = 16,
	  .help = "The same for query parameters." },
	{ CONF_STRINGS("accept", struct gw_match, accept), .max = 16, .valid = media_check,
	  .help = "Media types of which Accept must name one: \"application/vnd.example.v2+json\" "
		  "or "
		  "\"application/json;version=2\"." },
	{ CONF_STRINGS("content_type", struct gw_match, content_type), .max = 16,
	  .valid = media_check, .help = "Media types of which Content-Type must be one." },
	{ 0 },
};
static const struct conf_object match_object = CONF_OBJECT_OF(struct gw_match, match_rows);

static const struct conf_row version_rows[] = {
	{ CONF_STRING("name", struct gw_version, name), .flags = CONF_REQUIRED, .valid = valid_name,
	  .help = "\"v1\": for the access log and metrics." },
	{ CONF_CUSTOM("deprecated", struct gw_version, deprecated_ms, parse_date),
	  .schema = DATE_SCHEMA, .help = "Sent as Deprecation (RFC 9745)." },
	{ CONF_CUSTOM("sunset", struct gw_version, sunset_ms, parse_date), .schema = DATE_SCHEMA,
	  .help = "Sent as Sunset (RFC 8594)." },
	{ CONF_STRING("successor", struct gw_version, successor), .valid = valid_location,
	  .help = "Sent as Link with rel=\"successor-version\"." },
	{ CONF_BOOL("enforce_sunset", struct gw_version, enforce_sunset), .def = "false",
	  .help = "Answer 410 from the sunset on." },
	{ 0 },
};
static const struct conf_object version_object = CONF_OBJECT_OF(struct gw_version, version_rows,
								.check = gw_check_version);

static const struct conf_row split_rows[] = {
	{ CONF_STRING("service", struct gw_split, service), .flags = CONF_REQUIRED,
	  .help = "Name of a service." },
	{ CONF_INT("weight", struct gw_split, weight), .max = 1000000, .flags = CONF_REQUIRED,
	  .help = "Its share; 0 for none." },
	{ 0 },
};
static const struct conf_object split_object = CONF_OBJECT_OF(struct gw_split, split_rows);

static const struct conf_row mirror_rows[] = {
	{ CONF_STRING("service", struct gw_mirror, service), .flags = CONF_REQUIRED,
	  .help = "Name of the service that gets copies." },
	{ CONF_DOUBLE("percent", struct gw_mirror, percent), .max = 100, .def = "100",
	  .help = "How many of the requests." },
	{ CONF_INT("max_body_bytes", struct gw_mirror, max_body_bytes), .max = 1 << 20,
	  .def = "65536", .help = "Requests with a longer body are not copied." },
	{ CONF_INT("max_requests", struct gw_mirror, max_requests), .min = 1, .max = 10000,
	  .def = "100", .help = "Copies under way at once, per worker." },
	{ CONF_STRING("host_suffix", struct gw_mirror, host_suffix), .flags = CONF_EMPTY_OK,
	  .def = "\"-shadow\"", .valid = valid_host_suffix,
	  .help = "Put behind the name in Host, so that services can tell copies." },
	{ 0 },
};
static const struct conf_object mirror_object = CONF_OBJECT_OF(struct gw_mirror, mirror_rows);

static const struct conf_row respond_rows[] = {
	{ CONF_INT("status", struct gw_respond, status), .min = 200, .max = 599, .def = "200",
	  .help = "Status code." },
	{ CONF_STRING("body", struct gw_respond, body), .flags = CONF_EMPTY_OK, .def = "\"\"",
	  .max = 1 << 20, .help = "The whole body." },
	{ CONF_STRING("content_type", struct gw_respond, content_type),
	  .def = "\"text/plain; charset=utf-8\"", .valid = valid_field_value,
	  .help = "Its Content-Type." },
	{ CONF_PAIRS("headers", struct gw_respond, headers), .max = 64, .flags = CONF_EMPTY_OK,
	  .valid = headers_check_value, .valid_name = headers_check_name,
	  .help = "Other headers; values may be templates." },
	{ 0 },
};
static const struct conf_object respond_object = CONF_OBJECT_OF(struct gw_respond, respond_rows,
								.check = gw_check_respond);

static const struct conf_row redirect_rows[] = {
	{ CONF_INT("status", struct gw_redirect, status), .min = 301, .max = 308, .def = "308",
	  .help = "301, 302, 303, 307 or 308." },
	{ CONF_STRING("location", struct gw_redirect, location), .valid = valid_redirect,
	  .help = "Where to, as a template: \"https://new.example.com/u/${path.id}\"; or give the "
		  "parts that change." },
	{ CONF_STRING("scheme", struct gw_redirect, scheme), .valid = valid_scheme,
	  .help = "\"https\" or \"http\"; the request's when not given." },
	{ CONF_STRING("host", struct gw_redirect, host), .valid = valid_redirect_host,
	  .help = "Another host." },
	{ CONF_INT("port", struct gw_redirect, port), .min = 1, .max = 65535,
	  .help = "Another port; the scheme's own when not given but scheme or host are." },
	{ CONF_STRING("path", struct gw_redirect, path), .valid = valid_redirect_path,
	  .help = "Another path, as a template: \"/v2/people/{id}\"." },
	{ CONF_STRING("prefix", struct gw_redirect, prefix), .valid = valid_redirect_prefix,
	  .help = "Put in place of the prefix that matched." },
	{ CONF_BOOL("keep_query", struct gw_redirect, keep_query),
	  .help = "Pass the query on; when not given: with the parts, not with a location." },
	{ 0 },
};
static const struct conf_object redirect_object = CONF_OBJECT_OF(struct gw_redirect, redirect_rows,
								 .check = gw_check_redirect);

const char *const gw_priorities[] = { [GW_LOW] = "low",
				      [GW_NORMAL] = "normal",
				      [GW_HIGH] = "high",
				      [GW_CRITICAL] = "critical",
				      NULL };

static const struct conf_row route_rows[] = {
	{ CONF_STRING("name", struct gw_route, name), .flags = CONF_REQUIRED, .valid = valid_name,
	  .help = "For logs, metrics and limits by endpoint." },
	{ CONF_OBJECT("match", struct gw_route, match, &match_object), .flags = CONF_REQUIRED,
	  .help = "Which requests it is for; the most specific route wins." },
	{ CONF_CUSTOM("auth", struct gw_route, auth, gw_parse_auth_names), .flags = CONF_NULL,
	  .schema = GW_AUTH_NAMES_SCHEMA,
	  .help = "Who may call it; anybody when not given. Of several, the first for which the "
		  "request brings something decides." },
	{ CONF_BOOL("auth_optional", struct gw_route, auth_optional), .def = "false",
	  .help = "Lets requests through that bring no token, key or certificate; a bad one is "
		  "refused all the same." },
	{ CONF_STRINGS("limits", struct gw_route, limits), .max = 8,
	  .help = "Rate limits beside those of all routes." },
	{ CONF_CUSTOM("require", struct gw_route, require, gw_parse_require),
	  .schema = GW_REQUIRE_SCHEMA,
	  .help = "Claims that the token must have: words of which each must hold one, or "
		  "{\"equals\", \"one_of\", \"contains\", \"contains_one_of\"}." },
	{ CONF_ENUM("priority", struct gw_route, priority, gw_priorities), .def = "\"normal\"",
	  .help = "Who is refused first under overload, if there is load_shedding." },
	{ CONF_STRING("service", struct gw_route, service), .help = "Where requests go." },
	{ CONF_ARRAY("split", struct gw_route, split, &split_object), .max = 32,
	  .help = "Several services by weight instead." },
	{ CONF_OPTIONAL("respond", struct gw_route, respond, &respond_object),
	  .help = "A fixed answer instead." },
	{ CONF_OPTIONAL("redirect", struct gw_route, redirect, &redirect_object),
	  .help = "A redirect instead." },
	{ CONF_STRING("rewrite_prefix", struct gw_route, rewrite_prefix), .valid = valid_rewrite,
	  .help = "Put in place of the prefix that matched." },
	{ CONF_STRING("rewrite_path", struct gw_route, rewrite_path), .valid = valid_rewrite_path,
	  .help = "The path for the service, as a template: \"/v2/people/{id}\"; \"/*\" at its end "
		  "stands for what follows the prefix." },
	{ CONF_OPTIONAL("version", struct gw_route, version, &version_object), .flags = CONF_NULL,
	  .help = "Version of the API that this route serves." },
	{ CONF_OBJECT("request", struct gw_route, request, &transform_object),
	  .help = "Changes to the request." },
	{ CONF_OBJECT("response", struct gw_route, response, &transform_object),
	  .help = "Changes to the response." },
	{ CONF_INT("max_body_bytes", struct gw_route, max_body_bytes), .min = 1, .max = MAX_BODY,
	  .help = "Largest request body; that of the defaults when not given." },
	{ CONF_BOOL("websocket", struct gw_route, websocket), .def = "false",
	  .help = "Let clients switch to WebSocket here (RFC 6455, RFC 8441)." },
	{ CONF_BOOL("grpc", struct gw_route, grpc), .def = "false",
	  .help = "Translate HTTP and JSON to the service's gRPC and back." },
	{ CONF_OPTIONAL("mirror", struct gw_route, mirror, &mirror_object), .flags = CONF_NULL,
	  .help = "Copies of requests for another service, whose answers are ignored." },
	{ CONF_OPTIONAL("cors", struct gw_route, cors, &gw_cors_object), .flags = CONF_NULL,
	  .help = "Pages of other origins that may use it; as in the defaults when not given." },
	{ CONF_CUSTOM("sticky", struct gw_route, sticky, parse_sticky), .schema = STICKY_SCHEMA,
	  .flags = CONF_NULL,
	  .help = "With split: requests with the same \"user\", \"ip\", \"endpoint\", "
		  "\"header:NAME\" or \"cookie:NAME\" go to the same service; of several the first "
		  "that a request has." },
	{ 0 },
};
static const struct conf_object route_object = CONF_OBJECT_OF(struct gw_route, route_rows,
							      .check = gw_check_route);

/* --- the rest ------------------------------------------------------------------------------ */

static const struct conf_row revocations_rows[] = {
	{ CONF_STRING("file", struct gw_revocations, file), .flags = CONF_NULL,
	  .help = "{\"revoked\": [{\"jti\", \"sub\" or \"api_key\": …, \"auth\", "
		  "\"issued_before\", \"until\"}]}, read again when it changes." },
	{ CONF_STRING("state", struct gw_revocations, state), .flags = CONF_NULL | CONF_FIXED,
	  .help = "File that keeps what `gatewayctl revoke` says over restarts and upgrades; "
		  "without it a restart forgets it." },
	{ 0 },
};
static const struct conf_object revocations_object = CONF_OBJECT_OF(struct gw_revocations,
								    revocations_rows);

static const char *valid_key(struct str key)
{
	for (size_t i = 0; i < key.len; i++) {
		if (key.p[i] <= ' ' || key.p[i] > '~')
			return "must be printable ASCII without spaces";
	}
	return NULL;
}

static const struct conf_row redis_stream_rows[] = {
	{ CONF_CUSTOM("url", struct gw_access_stream, url, gw_parse_redis_url),
	  .flags = CONF_REQUIRED, .schema = "{\"type\":\"string\"}",
	  .help = "redis://[[USER]:PASSWORD@]ADDRESS[:PORT][/DB] or unix:/path." },
	{ CONF_STRING("stream", struct gw_access_stream, key), .def = "\"gatehouse:access\"",
	  .max = RECORD_STREAM_KEY_MAX, .valid = valid_key, .help = "The stream's key." },
	{ CONF_INT("max_length", struct gw_access_stream, max_length), .min = 1,
	  .max = 1000000000000LL, .def = "1000000",
	  .help = "How many lines Redis keeps, about; the oldest go." },
	{ 0 },
};
static const struct conf_object redis_stream_object = CONF_OBJECT_OF(struct gw_access_stream,
								     redis_stream_rows);

static const struct conf_row access_log_rows[] = {
	{ CONF_STRING("path", struct gw_access_log, path), .flags = CONF_NULL,
	  .help = "File, opened again at SIGHUP; \"-\" is standard output." },
	{ CONF_OPTIONAL("redis_stream", struct gw_access_log, redis_stream, &redis_stream_object),
	  .flags = CONF_NULL,
	  .help = "The same lines into a Redis stream, for all gateways together." },
	{ 0 },
};
static const struct conf_object access_log_object = CONF_OBJECT_OF(struct gw_access_log,
								   access_log_rows);

static const struct conf_row client_rows[] = {
	{ CONF_INT("handshake_timeout_ms", struct gw_client, handshake_timeout_ms), .min = 100,
	  .max = 60000, .def = "10000", .help = "Time for the TLS handshake." },
	{ CONF_INT("head_timeout_ms", struct gw_client, head_timeout_ms), .min = 100, .max = 300000,
	  .def = "10000", .help = "Time for the head of a request." },
	{ CONF_INT("body_timeout_ms", struct gw_client, body_timeout_ms), .min = 100,
	  .max = HOUR_MS, .def = "30000", .help = "Longest pause within a request body." },
	{ CONF_INT("idle_timeout_ms", struct gw_client, idle_timeout_ms), .min = 100,
	  .max = 24 * HOUR_MS, .def = "60000", .help = "How long an idle connection is kept." },
	{ CONF_INT("write_timeout_ms", struct gw_client, write_timeout_ms), .min = 100,
	  .max = HOUR_MS, .def = "30000", .help = "Longest pause of a client that does not read." },
	{ CONF_INT("max_connections", struct gw_client, max_connections), .max = 10000000,
	  .def = "0", .flags = CONF_FIXED,
	  .help = "At once; 0: as many as the limit of descriptors allows." },
	{ CONF_INT("max_head_bytes", struct gw_client, max_head_bytes), .min = 1024, .max = 262144,
	  .def = "32768", .help = "Largest head of a request." },
	{ CONF_INT("max_fields", struct gw_client, max_fields), .min = 8, .max = 128, .def = "100",
	  .help = "Most headers of a request." },
	{ CONF_INT("max_requests", struct gw_client, max_requests), .max = 1000000000, .def = "0",
	  .help = "Requests on one connection before it is closed; 0: no bound." },
	{ 0 },
};
static const struct conf_object client_object = CONF_OBJECT_OF(struct gw_client, client_rows);

static const struct conf_row load_shedding_rows[] = {
	{ CONF_INT("max_delay_ms", struct gw_load_shedding, max_delay_ms), .min = 1, .max = 60000,
	  .def = "100",
	  .help = "Requests of priority normal are refused while a worker comes to them later than "
		  "this: low ones at half of it, high ones at twice, critical ones never." },
	{ CONF_INT("retry_after_s", struct gw_load_shedding, retry_after_s), .min = 1, .max = 3600,
	  .def = "1", .help = "Told to those who are refused." },
	{ 0 },
};
static const struct conf_object load_shedding_object = CONF_OBJECT_OF(struct gw_load_shedding,
								      load_shedding_rows);

static const struct conf_row conf_rows[] = {
	{ CONF_STRING("instance", struct gw_conf, instance), .flags = CONF_FIXED,
	  .valid = valid_name, .help = "Name of this gateway in logs; the host's when not given." },
	{ CONF_STRING("domain", struct gw_conf, domain), .flags = CONF_REQUIRED | CONF_FIXED,
	  .valid = valid_name, .help = "Whom this gateway serves; one process per domain." },
	{ CONF_INT("workers", struct gw_conf, workers), .max = 1024, .def = "0",
	  .flags = CONF_FIXED, .help = "Threads; 0: one per core." },
	{ CONF_ARRAY("listeners", struct gw_conf, listeners, &listener_object),
	  .flags = CONF_REQUIRED | CONF_FIXED_COUNT, .max = 64, .help = "Where clients connect." },
	{ CONF_OBJECT("admin", struct gw_conf, admin, &admin_object),
	  .help = "For operators and monitoring." },
	{ CONF_STRING("zone", struct gw_conf, zone), .valid = valid_name,
	  .help = "Where this gateway is, for `prefer_zone`; by default the registration's." },
	{ CONF_OPTIONAL("registry", struct gw_conf, registry, &registry_object),
	  .flags = CONF_NULL | CONF_FIXED_COUNT, .help = "Where instances of services are found." },
	{ CONF_MAP("auth", struct gw_conf, auth, &gw_auth_object), .valid_name = valid_name,
	  .max = 64, .help = "Ways to prove an identity, by name." },
	{ CONF_OBJECT("revocations", struct gw_conf, revocations, &revocations_object),
	  .help = "Tokens, keys and callers that are let in no more." },
	{ CONF_INT("token_cache_tokens", struct gw_conf, token_cache_tokens), .min = 64,
	  .max = 1 << 24, .def = "65536", .flags = CONF_FIXED,
	  .help = "Verified tokens remembered." },
	{ CONF_OBJECT("rate_limit_store", struct gw_conf, rate_limit_store, &gw_limit_store_object),
	  .help = "Where rate limits count." },
	{ CONF_MAP("rate_limits", struct gw_conf, rate_limits, &gw_limit_object),
	  .valid_name = valid_name, .max = 1000, .help = "Rate limits, by name." },
	{ CONF_MAP("services", struct gw_conf, services, &service_object), .valid_name = valid_name,
	  .max = 10000, .help = "Services behind the gateway, by name." },
	{ CONF_OBJECT("defaults", struct gw_conf, defaults, &defaults_object),
	  .help = "What goes for all routes." },
	{ CONF_ARRAY("routes", struct gw_conf, routes, &route_object), .flags = CONF_REQUIRED,
	  .max = 100000, .help = "What happens to which request." },
	{ CONF_OBJECT("access_log", struct gw_conf, access_log, &access_log_object),
	  .help = "One JSON line per request." },
	{ CONF_PREFIXES("trusted_proxies", struct gw_conf, trusted_proxies), .max = 256,
	  .help = "Peers whose X-Forwarded-For and X-Request-Id are believed." },
	{ CONF_OBJECT("client", struct gw_conf, client, &client_object),
	  .help = "Deadlines and bounds of client connections." },
	{ CONF_OPTIONAL("load_shedding", struct gw_conf, load_shedding, &load_shedding_object),
	  .flags = CONF_NULL, .help = "Refusing requests when there are more than can be served." },
	{ CONF_INT("drain_delay_ms", struct gw_conf, drain_delay_ms), .max = 600000, .def = "1000",
	  .help = "Time between telling others and refusing new connections." },
	{ CONF_INT("drain_idle_ms", struct gw_conf, drain_idle_ms), .min = 1, .max = HOUR_MS,
	  .def = "1000",
	  .help = "How long an idle HTTP/1.1 connection may still bring its last request when the "
		  "gateway stops." },
	{ CONF_INT("drain_timeout_ms", struct gw_conf, drain_timeout_ms), .max = HOUR_MS,
	  .def = "30000", .help = "Time for what is running when the gateway stops." },
	{ 0 },
};

const struct conf_object gw_conf_object = CONF_OBJECT_OF(struct gw_conf, conf_rows,
							 .check = gw_check_conf);
