/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to a request, in order: a table of stages. A stage looks at the request, changes it,
 * and says how to go on; it never calls the next one itself. A new feature is one file in stages/
 * and one row in pipeline.c.
 */
#pragma once

#include "gateway/request.h"

enum stage_result {
	STAGE_NEXT,      /* go on */
	STAGE_RESPONDED, /* the response is on its way, nothing more to do */
	STAGE_WAITING,   /* call pipeline_run again when the stage has what it needs */
};

struct stage {
	const char *name;
	enum stage_result (*run)(struct request *r);
};

/* Runs the stages from r->stage on. */
void pipeline_run(struct request *r);
/* Runs over the head of a service's response, before it is sent: strips and sets headers. False:
 * out of room, answer 502. */
bool pipeline_response(struct request *r);
