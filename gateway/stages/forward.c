/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/routing/request_key.h"
#include "gateway/routing/split.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/transcode/transcode.h"
#include "gateway/upstream/exchange.h"
#include "gateway/upstream/mirror.h"
#include "lib/hash.h"

/* The first key that the request has decides; without one chance does. */
static size_t choose_split(struct request *r)
{
	const struct gw_route *route = r->route->conf;
	uint64_t hash;

	for (size_t i = 0; i < route->sticky.count; i++) {
		if (request_key_find(&route->sticky.keys[i], r, &hash))
			return split_stick(route, hash);
	}
	return split_draw(route, random_fast());
}

static const struct gw_service *choose_service(struct request *r)
{
	const struct gw_route *route = r->route->conf;
	size_t at;

	if (route->split_count == 0)
		return route->service_to;
	at = choose_split(r);
	metrics_inc(&r->conf->splits[r->route->split_at + at]->requests, 1);
	return route->split[at].to;
}

/* Chooses the service, among several by weight, and hands the request over to it. */
enum stage_result stage_forward(struct request *r)
{
	r->service = choose_service(r);
	if (transcode_wanted(r)) {
		transcode_start(r);
		return STAGE_RESPONDED;
	}
	mirror_begin(r);
	exchange_start(r, r->conf->services[r->service->index]);
	mirror_listen(r);
	return STAGE_RESPONDED;
}
