/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/upstream/exchange.h"
#include "gateway/upstream/mirror.h"
#include "lib/hash.h"

/* Chooses the service, among several by weight, and hands the request over to it. */
enum stage_result stage_forward(struct request *r)
{
	r->service = snapshot_pick_service(r->route, r->route->split_total ? random_fast() : 0);
	mirror_begin(r);
	exchange_start(r, r->conf->services[r->service->index]);
	mirror_listen(r);
	return STAGE_RESPONDED;
}
