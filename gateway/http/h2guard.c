/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/http/h2guard.h"

#include <nghttp2/nghttp2.h>

static bool has(const int32_t *ids, unsigned count, int32_t id)
{
	for (unsigned i = 0; i < count; i++) {
		if (ids[i] == id)
			return true;
	}
	return false;
}

void h2guard_closed(struct h2guard *g, int32_t id, bool by_client)
{
	if (by_client)
		g->ended[g->ended_at++ % H2GUARD_ENDED] = id;
	else
		g->cut[g->cut_at++ % H2GUARD_CUT] = id;
}

uint32_t h2guard_check(struct h2guard *g, int32_t id, bool is_headers, enum h2guard_stream state)
{
	/* Ids of the other side and of the connection itself are nghttp2's to refuse. */
	if (id % 2 == 0 || state == H2GUARD_OPEN)
		return 0;
	if (state == H2GUARD_HALF)
		return NGHTTP2_STREAM_CLOSED;
	if (id > g->last) {
		if (is_headers)
			g->last = id;
		return 0; /* DATA on an idle stream: nghttp2 refuses it */
	}
	if (has(g->cut, H2GUARD_CUT, id))
		return 0;
	if (has(g->ended, H2GUARD_ENDED, id))
		return NGHTTP2_STREAM_CLOSED;
	/* More were cut than are remembered, as when a client opens very many before it knows the
	 * limit: rather ignored, as nghttp2 does, than wrongly ended. */
	if (g->cut_at > H2GUARD_CUT)
		return 0;
	/* Below an id that was used already: it was closed by that one, without ever being open. */
	return is_headers ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_STREAM_CLOSED;
}
