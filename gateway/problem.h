/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's own error answers: problem details for HTTP APIs (RFC 9457). Nothing internal leaks
 * into them. */
#pragma once

#include "gateway/request.h"

/*
 * Answers with application/problem+json: status, title, detail, request_id. `detail` is a sentence
 * for the client's developer. If the head of a response is out already, the response is cut
 * instead.
 */
void problem_send(struct request *r, unsigned status, enum request_reason reason,
		  const char *detail);

/* A Retry-After field for whatever comes, in whole seconds, at least one. */
void problem_retry_after(struct request *r, uint64_t ms);
