/* SPDX-License-Identifier: Apache-2.0 */
/* Rate limits: what needs no identity before authentication, the rest after it. */
#include "gateway/gateway.h"
#include "gateway/problem.h"
#include "gateway/snapshot.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"
#include "lib/clock.h"

static enum stage_result check(struct request *r, const struct limits_rule *const *rules,
			       size_t count)
{
	struct limits_subject subject = {
		.client = &r->client,
		.identity = r->identity,
		.endpoint = r->route ? r->route->conf->name : STR(""),
		.fields = r->headers.fields,
		.field_count = r->headers.count,
	};
	struct limits_verdict verdict;
	char *seconds;

	if (count == 0)
		return STAGE_NEXT;
	limits_check(r->worker->gateway->limits, rules, count, &subject,
		     loop_now_ns(r->worker->loop), &verdict);
	/* The time of the round may be old by now, when the worker has much to do or was held up:
	 * nobody is refused for what the clock would have earned in between. */
	if (!verdict.is_allowed)
		limits_check(r->worker->gateway->limits, rules, count, &subject, clock_mono_ns(),
			     &verdict);
	limits_count(r->worker->gateway->limits, &verdict);
	if (verdict.shadowed && !r->shadowed_by.len)
		r->shadowed_by = verdict.shadowed->name;
	r->limit = r->limit.rule ? *limits_stricter(&r->limit, &verdict) : verdict;
	if (verdict.is_allowed)
		return STAGE_NEXT;
	r->limited_by = verdict.rule->name;
	seconds = arena_printf(&r->arena, "%llu",
			       (unsigned long long)limits_retry_after_s(&verdict));
	if (seconds)
		request_add_extra(r, STR("Retry-After"), str_from(seconds));
	problem_send(r, 429, REASON_RATE_LIMITED, "too many requests, try again later");
	return STAGE_RESPONDED;
}

enum stage_result stage_limit_address(struct request *r)
{
	const struct snapshot *s = r->conf->snapshot;

	if (!r->route)
		return check(r, s->default_limits, s->default_limit_count);
	return check(r, r->route->limits_before, r->route->limits_before_count);
}

enum stage_result stage_limit_identity(struct request *r)
{
	return check(r, r->route->limits_after, r->route->limits_after_count);
}

void limit_add_fields(struct request *r)
{
	char bytes[128]; /* as much as it can be: a name of 64, two numbers */
	struct buf text = { .data = bytes, .cap = sizeof(bytes), .max = sizeof(bytes) };
	struct str copy;

	if (!r->limit.rule)
		return;
	limits_write_ratelimit(&r->limit, &text);
	copy = arena_str(&r->arena, buf_str(&text));
	if (!copy.p)
		return;
	headers_set(&r->response.headers, STR("RateLimit"), copy);
	headers_set(&r->response.headers, STR("RateLimit-Policy"), str_from(r->limit.rule->policy));
}
