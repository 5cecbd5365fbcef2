/* SPDX-License-Identifier: Apache-2.0 */
#include "nlb/conf_health.h"

#include "lib/cleanup.h"
#include "lib/tls_client.h"

#define INTERVAL_MAX_MS 3600000
#define STATUS_MIN      100
#define STATUS_MAX      599

static const char *const types[] = { "tcp", "http", "https", NULL };

static const char *valid_path(struct str s)
{
	if (s.p[0] != '/')
		return "must begin with \"/\"";
	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
			return "must not contain spaces or control characters";
	}
	return NULL;
}

/* 200, "200" or "200-299". */
static bool parse_range(const json_t *item, uint64_t *from, uint64_t *to)
{
	struct str text, first;
	bool is_range;

	if (json_is_integer(item)) {
		*from = *to = (uint64_t)json_integer_value(item);
		return true;
	}
	if (!json_is_string(item))
		return false;
	text = str_from(json_string_value(item));
	is_range = str_chr(text, '-') >= 0;
	if (!str_split(&text, '-', &first) || !str_u64(first, from))
		return false;
	*to = *from;
	return !is_range || str_u64(text, to);
}

static void parse_statuses(struct conf *c, void *field, const json_t *value)
{
	struct nlb_conf_statuses *out = field;
	size_t count = json_is_array(value) ? json_array_size(value) : 0;

	if (count < 1 || count > NLB_STATUS_RANGES) {
		conf_error(c,
			   "must be a list of 1 to %d numbers such as 204 or ranges such as "
			   "\"200-299\"",
			   NLB_STATUS_RANGES);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		uint64_t from, to;

		if (!parse_range(json_array_get(value, i), &from, &to) || from < STATUS_MIN ||
		    to > STATUS_MAX || from > to) {
			conf_error(c,
				   "item %zu is neither a status (%d to %d) nor a range such as "
				   "\"200-299\"",
				   i, STATUS_MIN, STATUS_MAX);
			continue;
		}
		out->range[i].from = (uint16_t)from;
		out->range[i].to = (uint16_t)to;
	}
	out->count = (uint32_t)count;
}

bool nlb_status_is_good(const struct nlb_conf_statuses *statuses, unsigned status)
{
	if (!statuses->count)
		return status >= 200 && status <= 299;
	for (uint32_t i = 0; i < statuses->count; i++) {
		if (status >= statuses->range[i].from && status <= statuses->range[i].to)
			return true;
	}
	return false;
}

/* --- rules between members ------------------------------------------------------------------- */

static void check_belongs(struct conf *c, const struct nlb_conf_health *health)
{
	static const char *const of_http[] = { "path", "host", "status", "body" };
	static const char *const of_tls[] = { "verify", "ca_file" };

	for (size_t i = 0; i < ARRAY_SIZE(of_http) && health->type == NLB_HEALTH_TCP; i++) {
		if (conf_has(c, of_http[i]))
			conf_error_at(c, of_http[i],
				      "is for checks of type \"http\" and \"https\"");
	}
	for (size_t i = 0; i < ARRAY_SIZE(of_tls) && health->type != NLB_HEALTH_HTTPS; i++) {
		if (conf_has(c, of_tls[i]))
			conf_error_at(c, of_tls[i], "is for checks of type \"https\"");
	}
}

static void check_ca_file(struct conf *c, const struct nlb_conf_health *health)
{
	struct tls_client_options options = { .verify = true, .ca_file = health->ca_file.p };
	struct tls_client *client;
	struct err err;

	if (!health->ca_file.p)
		return;
	if (!health->verify) {
		conf_error_at(c, "ca_file", "needs \"verify\": true");
		return;
	}
	client = tls_client_new(&options, &err);
	if (!client)
		conf_error_at(c, "ca_file", "%s", err.text);
	tls_client_free(&client);
}

static void check_health(struct conf *c, void *object)
{
	struct nlb_conf_health *health = object;

	check_belongs(c, health);
	check_ca_file(c, health);
	health->is_tunnel_given = conf_has(c, "tunnel");
	if (health->timeout_ms > health->interval_ms && conf_has(c, "timeout_ms"))
		conf_error_at(c, "timeout_ms", "must not be longer than interval_ms (%u)",
			      health->interval_ms);
	else if (health->timeout_ms > health->interval_ms)
		health->timeout_ms = health->interval_ms;
}

void nlb_conf_health_fit(struct conf *c, struct nlb_conf_health *health, uint16_t port, bool is_tcp)
{
	if (!health)
		return;
	if (!health->port && !port && conf_has(c, "port"))
		conf_error_at(c, "health.port", "is required where the VIP takes every port");
	if (!health->port)
		health->port = port;
	if (is_tcp)
		return;
	if (health->is_tunnel_given && health->tunnel)
		conf_error_at(c, "health.tunnel", "is for TCP: nobody has to answer a UDP packet");
	health->tunnel = false;
}

/* --- rows ------------------------------------------------------------------------------------ */

static const struct conf_row rows[] = {
	{ CONF_ENUM("type", struct nlb_conf_health, type, types), .flags = CONF_REQUIRED,
	  .help = "tcp: a connection is taken; http, https: a GET is answered as it should be" },
	{ CONF_INT("port", struct nlb_conf_health, port), .min = 1, .max = 65535,
	  .help = "the VIP's port if not given" },
	{ CONF_STRING("path", struct nlb_conf_health, path), .def = "\"/\"", .valid = valid_path,
	  .max = NLB_HEALTH_PATH_MAX, .help = "what http and https ask for" },
	{ CONF_STRING("host", struct nlb_conf_health, host), .max = NLB_HEALTH_HOST_MAX,
	  .help = "Host header, and the name in TLS (SNI); the gateway's address if not given" },
	{ CONF_CUSTOM("status", struct nlb_conf_health, status, parse_statuses),
	  .schema = "{\"type\":\"array\",\"minItems\":1,\"maxItems\":8,\"items\":{\"anyOf\":["
		    "{\"type\":\"integer\",\"minimum\":100,\"maximum\":599},"
		    "{\"type\":\"string\",\"pattern\":\"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$\"}]}}",
	  .help = "answers that are good, such as [200, \"300-399\"]; 200 to 299 if not given" },
	{ CONF_STRING("body", struct nlb_conf_health, body), .max = NLB_HEALTH_BODY_MAX,
	  .help = "text that the answer must contain, within its first 64 KiB" },
	{ CONF_BOOL("verify", struct nlb_conf_health, verify), .def = "false",
	  .help = "https: check the certificate's chain, dates and name; otherwise any will do" },
	{ CONF_STRING("ca_file", struct nlb_conf_health, ca_file),
	  .help = "PEM, whom to trust with verify; the system's list if not given" },
	{ CONF_BOOL("tunnel", struct nlb_conf_health, tunnel), .def = "true",
	  .help = "also ask the VIP itself, in the tunnel that clients' packets take; always false "
		  "for UDP" },
	{ CONF_INT("interval_ms", struct nlb_conf_health, interval_ms), .min = 50,
	  .max = INTERVAL_MAX_MS, .def = "1000", .help = "time between two checks of a gateway" },
	{ CONF_INT("timeout_ms", struct nlb_conf_health, timeout_ms), .min = 10,
	  .max = INTERVAL_MAX_MS, .def = "1000", .help = "a check that takes longer has failed" },
	{ CONF_INT("rise", struct nlb_conf_health, rise), .min = 1, .max = 100, .def = "2",
	  .help = "successes in a row that bring a gateway back" },
	{ CONF_INT("fall", struct nlb_conf_health, fall), .min = 1, .max = 100, .def = "3",
	  .help = "failures in a row that take a gateway out" },
	{ 0 },
};
const struct conf_object nlb_conf_health_object = CONF_OBJECT_OF(struct nlb_conf_health, rows,
								 .check = check_health);
