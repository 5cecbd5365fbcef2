/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request's dealings with a service over HTTP/1.1: choosing an instance, sending, retrying
 * where that is safe, reading the response strictly and streaming it to the client, with back
 * pressure both ways and a deadline on every wait. The sink of the request (request.h).
 */
#pragma once

#include "gateway/request.h"
#include "gateway/upstream/service.h"

/* Starts; the response, or a problem, comes to the client by itself. */
void exchange_start(struct request *r, struct service *s);
