/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/pipeline.h"

#include "gateway/stages/stages.h"
#include "lib/cleanup.h"

static const struct stage stages[] = {
	{ "identify", stage_identify }, /* request id, client address, trace */
	{ "redirect", stage_redirect }, /* listeners that only send people to https */
	{ "tls-policy",
	  stage_tls_policy },   /* a connection speaks for hosts of its own policy only */
	{ "path", stage_path }, /* one normalisation for all that follows */
	{ "route", stage_route },
	{ "shed", stage_shed }, /* under overload, by the route's priority */
	{ "limit-address",
	  stage_limit_address },          /* limits that need no identity, before any other work */
	{ "preflight", stage_preflight }, /* what browsers ask before */
	{ "version", stage_version },     /* deprecated, sunset, gone */
	{ "body-size", stage_body_size },
	{ "authenticate", stage_authenticate },
	{ "limit-identity", stage_limit_identity },
	{ "upgrade", stage_upgrade },     /* WebSocket, where the route allows it */
	{ "transform", stage_transform }, /* what the service will see */
	{ "answer", stage_answer },       /* routes that answer by themselves */
	{ "forward", stage_forward },
};

void pipeline_run(struct request *r)
{
	while (r->stage < ARRAY_SIZE(stages)) {
		switch (stages[r->stage].run(r)) {
		case STAGE_NEXT:
			r->stage++;
			break;
		case STAGE_RESPONDED:
			r->stage = ARRAY_SIZE(stages);
			break;
		case STAGE_WAITING:
			return;
		}
	}
}

bool pipeline_response(struct request *r)
{
	return stage_transform_response(r);
}
