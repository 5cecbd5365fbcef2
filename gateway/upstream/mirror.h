/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of requests for another service, whose answers nobody sees: to try a new version with real
 * traffic. A copy is a request of its own with the same head and body, made beside the original,
 * which never waits for it and never fails because of it. It is sent once, when the body is
 * complete; never for WebSockets and gRPC, and not when the body is too long, or too many copies
 * are under way.
 */
#pragma once

#include "gateway/request.h"

/* What became of a copy. Keep mirror_results[] in step. */
enum mirror_result {
	MIRROR_ANSWERED,
	MIRROR_FAILED,    /* no answer in time, no connection, garbage */
	MIRROR_TOO_LARGE, /* not sent: longer than max_body_bytes */
	MIRROR_BUSY,      /* not sent: max_requests under way, or no memory */
	MIRROR_CUT,       /* not sent: the client or the service ended before the body did */
	MIRROR_RESULTS,
};

extern const char *const mirror_results[MIRROR_RESULTS];

/* Before the exchange of a request whose route has a mirror: takes its head, if chance wants it. */
void mirror_begin(struct request *r);
/* After the exchange began: listens to the body. */
void mirror_listen(struct request *r);
/* The request ends: a copy that still waits for its body is not sent. */
void mirror_leave(struct request *r);
/* The worker ends: so do the copies. */
void mirror_end_all(struct worker *w);
