/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where frames of a WebSocket begin and end (RFC 6455 5.2) in bytes that only pass through: so that
 * a frame of our own can be put between two of theirs. Looks at heads of frames only, at no
 * payload.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/str.h"

#define WS_HEAD_MAX 14

/* One direction. All zeroes: before the first frame. */
struct ws_track {
	uint8_t head[WS_HEAD_MAX];
	uint8_t head_len;
	bool is_masked;  /* frames must be: they come from a client */
	bool is_broken;  /* what came is no WebSocket: nothing is known of it any more */
	bool has_closed; /* a Close frame is complete, or under way */
	uint64_t left;   /* of the payload of the frame under way */
};

/* The bytes that pass. Returns up to where of them the last frame is complete that ends there; 0
 * when none does. */
size_t ws_track_pass(struct ws_track *t, struct str data);
/* Between two frames, or before the first. */
static inline bool ws_track_is_between(const struct ws_track *t)
{
	return !t->is_broken && t->head_len == 0 && t->left == 0;
}
