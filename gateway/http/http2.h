/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 from clients (RFC 9113), on nghttp2. Every stream is a request like any other; what is
 * here is framing, flow control both ways, and bounds against peers that make work on purpose.
 */
#pragma once

#include "gateway/http/conn.h"

/* What a client sends first; on plain connections it tells HTTP/2 apart ("prior knowledge"). */
#define HTTP2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

/* Begins to speak HTTP/2 on a connection. Bytes already read are in its `in`. */
void http2_start(struct conn *c);
