/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request becomes when the service switched protocols: bytes in both directions that nobody
 * here reads, with back pressure, each direction ended by itself, until both are over or nothing
 * has moved for too long. Only where frames end is followed, so that a worker that ends can say
 * goodbye. The sink of the request (request.h) in place of the exchange.
 */
#pragma once

#include "gateway/request.h"
#include "gateway/upstream/upconn.h"

/*
 * Whether this answer of a service agrees to the switch that the client asked for: 101 with the
 * right Upgrade and the Sec-WebSocket-Accept of the client's key (RFC 6455 4.1).
 */
struct http1_head;
bool tunnel_is_agreed(const struct request *r, const struct http1_head *head);

/*
 * Takes over after the response's head was sent: the connection, the endpoint in flight (finished
 * with the given latency in the end) and the reference to the service. When out of memory the
 * request is aborted.
 */
void tunnel_start(struct request *r, struct upconn *u, struct service *service,
		  struct endpoint *endpoint, uint64_t latency_us);

/* Every tunnel of the worker gets a Close frame, 1001, in both directions: now, or as soon as the
 * frame under way there is complete. */
void tunnels_say_goodbye(struct worker *w);
