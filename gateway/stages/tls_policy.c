/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a request may come on the connection that it comes on (RFC 9110 7.4 and 15.5.20). */
#include "gateway/problem.h"
#include "gateway/stages/stages.h"
#include "gateway/worker.h"

/*
 * A name in the handshake opens the connection, another one in Host could open the door: a client
 * that showed no certificate for public.example must not speak to staff.example. The policies of
 * now are what counts, so a reload that tightens them also ends what older connections may do.
 */
enum stage_result stage_tls_policy(struct request *r)
{
	const struct tls_server *tls = r->conf->tls[r->listener];

	if (!tls || tls_server_policy(tls, request_host(r)) == r->tls_policy)
		return STAGE_NEXT;
	problem_send(r, 421, REASON_MISDIRECTED,
		     "this host wants a TLS connection of its own, made for its name");
	return STAGE_RESPONDED;
}
