/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upstream/ws_track.h"

#include <string.h>

#include "lib/cleanup.h"

#define WS_CLOSE 8

/* How long the head is, as far as its first two bytes say. */
static size_t head_size(const struct ws_track *t)
{
	size_t size = 2;

	if (t->head_len < 2)
		return size;
	if ((t->head[1] & 0x7f) == 126)
		size += 2;
	else if ((t->head[1] & 0x7f) == 127)
		size += 8;
	return t->head[1] & 0x80 ? size + 4 : size;
}

static bool is_sound(const struct ws_track *t)
{
	unsigned opcode = t->head[0] & 0x0f;
	bool is_control = opcode >= WS_CLOSE;

	/* Extensions use the reserved bits of the first byte, but no opcodes. */
	if ((opcode > 2 && !is_control) || opcode > 10)
		return false;
	if (is_control && (!(t->head[0] & 0x80) || (t->head[1] & 0x7f) > 125))
		return false;
	return !!(t->head[1] & 0x80) == t->is_masked;
}

static uint64_t payload_size(const struct ws_track *t)
{
	unsigned count = (t->head[1] & 0x7f) == 126 ? 2 : (t->head[1] & 0x7f) == 127 ? 8 : 0;
	uint64_t size = 0;

	if (count == 0)
		return t->head[1] & 0x7f;
	for (unsigned i = 0; i < count; i++)
		size = size << 8 | t->head[2 + i];
	return size;
}

/* The head is complete. */
static void begin_frame(struct ws_track *t)
{
	t->left = payload_size(t);
	t->is_broken = t->left >> 63;
	t->has_closed |= (t->head[0] & 0x0f) == WS_CLOSE;
	t->head_len = 0;
}

size_t ws_track_pass(struct ws_track *t, struct str data)
{
	size_t at = 0, end = 0;

	while (at < data.len && !t->is_broken) {
		if (t->left) {
			size_t n = (size_t)MIN(t->left, (uint64_t)(data.len - at));

			t->left -= n;
			at += n;
		} else {
			t->head[t->head_len++] = (uint8_t)data.p[at++];
			if (t->head_len == 2 && !is_sound(t))
				t->is_broken = true;
			else if (t->head_len >= 2 && t->head_len == head_size(t))
				begin_frame(t);
		}
		if (ws_track_is_between(t))
			end = at;
	}
	return end;
}
