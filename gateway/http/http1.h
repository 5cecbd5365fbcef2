/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.0 and 1.1 from clients (RFC 9112): keep-alive, pipelining, chunked both ways, Expect,
 * strict framing. */
#pragma once

#include "gateway/http/conn.h"

extern const struct conn_proto http1_proto;
/* Begins to speak HTTP/1 on a connection whose handshake is done. */
void http1_start(struct conn *c);
