/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load shedding: when requests wait too long for this worker, the less important ones are refused
 * at once, which costs next to nothing, so that the others are answered in time.
 */
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"
#include "lib/clock.h"

/* Refused above so many quarters of max_delay_ms; 0: never. */
static const unsigned quarters[GW_PRIORITIES] = {
	[GW_LOW] = 2,
	[GW_NORMAL] = 4,
	[GW_HIGH] = 8,
	[GW_CRITICAL] = 0,
};

enum stage_result stage_shed(struct request *r)
{
	const struct gw_load_shedding *conf = r->conf->snapshot->conf.load_shedding;
	struct worker *w = r->worker;
	uint64_t delay_ns;
	int priority;
	char *seconds;

	if (!conf)
		return STAGE_NEXT;
	delay_ns = overload_delay_ns(&w->overload, loop_now_ns(w->loop));
	metrics_set(&w->queue_delay_ns, delay_ns);
	priority = r->route ? r->route->conf->priority : GW_NORMAL;
	if (!quarters[priority] ||
	    delay_ns <= conf->max_delay_ms * NSEC_PER_MSEC * quarters[priority] / 4)
		return STAGE_NEXT;
	metrics_inc(&w->counters.shed[priority], 1);
	seconds = arena_printf(&r->arena, "%u", conf->retry_after_s);
	if (seconds)
		request_add_extra(r, STR("Retry-After"), str_from(seconds));
	problem_send(r, 503, REASON_OVERLOADED, "too busy, try again later");
	return STAGE_RESPONDED;
}
