/* SPDX-License-Identifier: Apache-2.0 */
#include "registry/conf.h"

#include "registry/instance.h"

static const char *const store_types[] = { "memory", NULL };

/* Members that the file format knows: empty is right, anything else would be ignored silently. */
static void parse_not_yet(struct conf *c, void *field, const json_t *value)
{
	(void)field;
	if (!json_is_null(value) && !(json_is_array(value) && json_array_size(value) == 0))
		conf_error(c, "is not supported by this version; leave it out");
}

static const struct conf_row store_rows[] = {
	{ CONF_ENUM("type", struct reg_conf_store, type, store_types), .flags = CONF_FIXED,
	  .def = "\"memory\"",
	  .help = "where instances live: in memory, with a snapshot file for restarts" },
	{ CONF_STRING("snapshot", struct reg_conf_store, snapshot), .flags = CONF_NULL | CONF_FIXED,
	  .help = "file that keeps the instances over a restart; without it they register again" },
	{ CONF_UNSUPPORTED("url") },
	{ CONF_UNSUPPORTED("prefix") },
	{ 0 },
};

static const struct conf_object store_object = CONF_OBJECT_OF(struct reg_conf_store, store_rows);

static const struct conf_row lease_rows[] = {
	{ CONF_INT("default_s", struct reg_conf_lease, default_s), .min = 1, .max = REG_LEASE_MAX_S,
	  .def = "30",
	  .help = "how long an instance lives without renewal, unless it says so itself" },
	{ CONF_INT("sweep_ms", struct reg_conf_lease, sweep_ms), .min = 10, .max = 60000,
	  .def = "500", .help = "how often leases that ran out are looked for" },
	{ CONF_BOOL("self_preservation", struct reg_conf_lease, self_preservation), .def = "true",
	  .help = "hold leases while renewals as a whole have collapsed" },
	{ 0 },
};

static const struct conf_object lease_object = CONF_OBJECT_OF(struct reg_conf_lease, lease_rows);

static const struct conf_row rows[] = {
	{ CONF_ADDRESS("bind", struct reg_conf, bind), .flags = CONF_FIXED, .min = 8761,
	  .def = "\"127.0.0.1:8761\"", .help = "address and port of the API, probes and metrics" },
	{ CONF_OBJECT("store", struct reg_conf, store, &store_object) },
	{ CONF_OBJECT("lease", struct reg_conf, lease, &lease_object) },
	{ CONF_INT("max_connections", struct reg_conf, max_connections), .flags = CONF_FIXED,
	  .min = 16, .max = 1000000, .def = "16384",
	  .help = "connections at the same time; beyond, the longest idle one is closed" },
	{ CONF_CUSTOM("tokens", struct reg_conf, not_yet, parse_not_yet),
	  .schema = "{\"type\":\"array\",\"maxItems\":0}", .help = "reserved" },
	{ CONF_CUSTOM("tls", struct reg_conf, not_yet, parse_not_yet),
	  .schema = "{\"type\":\"null\"}", .help = "reserved" },
	{ 0 },
};

const struct conf_object reg_conf_object = CONF_OBJECT_OF(struct reg_conf, rows);
