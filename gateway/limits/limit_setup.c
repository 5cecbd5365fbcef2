/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/limits/limit_setup.h"

#include <errno.h>
#include <stdio.h>

#include "gateway/limits/limit_store.h"
#include "lib/cleanup.h"
#include "lib/log.h"

int limit_setup(struct gateway *g, const struct gw_conf *conf, struct err *err)
{
	const struct gw_limit_store *c = &conf->rate_limit_store;
	char prefix[160], name[64];
	struct limit_store_options options = {
		.url = c->url,
		.name = name,
		.on_failure = (enum limit_failure)c->on_failure,
		.timeout_ms = c->timeout_ms,
		.gateways = c->gateways,
	};

	if (c->type == GW_LIMITS_REDIS) {
		/* Two domains on one Redis count apart, even under equal names. */
		snprintf(prefix, sizeof(prefix),
			 "%.*slimits:%.*s:", (int)MIN(c->prefix.len, (size_t)64), c->prefix.p,
			 (int)MIN(conf->domain.len, (size_t)64), conf->domain.p);
		snprintf(name, sizeof(name), "gatehouse:%.*s:limits",
			 (int)MIN(conf->instance.len, (size_t)40), conf->instance.p);
		options.prefix = prefix;
		g->limit_store = limit_store_new(&options, err);
		if (!g->limit_store)
			return -ENOMEM;
	}
	g->limits = limits_table_new_shared(conf->rate_limit_keys, g->limit_store);
	return g->limits ? 0
			 : err_set(err, -ENOMEM, "no memory for %u rate limit keys",
				   conf->rate_limit_keys);
}

struct str limit_peers_app(const struct gateway *g, const struct gw_conf *conf)
{
	if (!g->limit_store || !conf->registry || !conf->registry->register_as)
		return (struct str) { 0 };
	return conf->registry->register_as->app;
}

void limit_use_peers(struct gateway *g, const struct reg_list *list)
{
	uint32_t up = 0;

	for (size_t i = 0; i < list->count; i++)
		up += reg_instance_status(&list->instances[i]) == REG_UP;
	/* Nobody is up, not even we: what the registry knows is not what there is. */
	if (up == 0 || up == limit_store_gateways(g->limit_store))
		return;
	limit_store_set_gateways(g->limit_store, up);
	log_info("rate limits: shared by %u gateways", up);
}
