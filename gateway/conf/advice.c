/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration may say, but hardly means: warnings, after everything else was checked. */
#include "gateway/conf/check.h"
#include "gateway/conf/conf.h"

static const char *identity_part(const struct limits_key_spec *key)
{
	for (size_t i = 0; i < key->part_count; i++) {
		switch (key->parts[i].kind) {
		case LIMITS_USER:
			return "user";
		case LIMITS_API_KEY:
			return "API key";
		case LIMITS_CLAIM:
			return "claim";
		default:
			break;
		}
	}
	return NULL;
}

static const char *counts_by(const struct gw_conf *conf, struct str limit)
{
	for (size_t i = 0; limit.p && i < conf->rate_limits_count; i++) {
		if (str_eq(conf->rate_limits[i].name, limit))
			return identity_part(&conf->rate_limits[i].key);
	}
	return NULL;
}

/* Limits of `defaults` are for all routes, with and without identity: that is meant. */
static void advise_limits(struct conf *c, const struct gw_conf *conf, const struct gw_route *route)
{
	if (route->auth.count)
		return;
	for (size_t i = 0; i < route->limits_count; i++) {
		const char *what = counts_by(conf, route->limits[i]);

		if (what)
			conf_warn_at(c, "limits",
				     "\"%.*s\" counts by %s, but the route has no \"auth\": by the "
				     "client's address instead",
				     STR_ARG(route->limits[i]), what);
	}
}

static bool asks_for_certificates(const struct gw_tls *tls)
{
	if (!tls)
		return false;
	if (tls->client_auth != GW_CLIENT_AUTH_OFF)
		return true;
	for (size_t i = 0; i < tls->hosts_count; i++) {
		if (tls->hosts[i].client_auth != GW_CLIENT_AUTH_OFF)
			return true;
	}
	return false;
}

static void advise_auths(struct conf *c, const struct gw_conf *conf)
{
	for (size_t i = 0; i < conf->listeners_count; i++) {
		if (asks_for_certificates(conf->listeners[i].tls))
			return;
	}
	for (size_t i = 0; i < conf->auth_count; i++) {
		if (conf->auth[i].type != GW_AUTH_MTLS)
			continue;
		conf_enter_name(c, "auth", conf->auth[i].name);
		conf_warn_at(c, "type",
			     "\"mtls\" lets nobody in: no listener asks for certificates, see "
			     "\"tls.client_auth\"");
		conf_leave(c);
	}
}

void gw_advise(struct conf *c, const struct gw_conf *conf)
{
	advise_auths(c, conf);
	for (size_t i = 0; i < conf->routes_count; i++) {
		conf_enter_index(c, "routes", i);
		advise_limits(c, conf, &conf->routes[i]);
		conf_leave(c);
	}
}
