/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/JSON clients of gRPC services: the request's JSON, path and query become one message, the
 * answer's messages become JSON. Unary methods and those whose answer is a stream; a client that
 * streams needs gRPC itself, which passes through. Sits between the client's side and the exchange
 * as the one's sink and the other's downstream.
 */
#pragma once

#include "gateway/request.h"

/* Bytes of one message, either way, as JSON or not. */
#define TRANSCODE_MESSAGE_MAX (16UL << 20)

/* Whether this request is to be translated: the route says so and the client does not speak gRPC
 * itself. */
bool transcode_wanted(const struct request *r);
/* Translates and hands over to the service that was chosen (r->service), or answers. */
void transcode_start(struct request *r);
/* When the request ends. */
void transcode_end(struct request *r);
