/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What RFC 9113 5.1 and 5.1.1 say of frames on closed streams and of stream ids, which nghttp2 lets
 * pass: it forgets closed streams and ignores whatever comes for them. No I/O, no heap.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Streams that we cut, whose client may not know it yet and go on sending. Those are streams that
 * are open in its eyes, at most as many as it may have at once (100), and the latest that we cut:
 * resets arrive in order.
 */
#define H2GUARD_CUT 128
/* Streams that the client ended, only to name the error rightly: STREAM_CLOSED or PROTOCOL_ERROR.
 */
#define H2GUARD_ENDED 32

struct h2guard {
	int32_t last; /* highest stream id of the client's */
	int32_t cut[H2GUARD_CUT], ended[H2GUARD_ENDED];
	unsigned cut_at, ended_at;
};

/* The stream is gone: the client ended (or reset) it, or we cut it before. */
void h2guard_closed(struct h2guard *g, int32_t id, bool by_client);

enum h2guard_stream {
	H2GUARD_NONE, /* nothing is known of it any more, or not yet */
	H2GUARD_OPEN, /* the client may send on it */
	H2GUARD_HALF, /* the client sent END_STREAM, we still answer */
};

/*
 * The header of a DATA or HEADERS frame from the client, in the order they come. Returns 0 when it
 * may be handled, else the error that the connection ends with (NGHTTP2_STREAM_CLOSED or
 * NGHTTP2_PROTOCOL_ERROR).
 */
uint32_t h2guard_check(struct h2guard *g, int32_t id, bool is_headers, enum h2guard_stream state);
