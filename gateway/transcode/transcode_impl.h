/* SPDX-License-Identifier: Apache-2.0 */
/* What the two directions of a translation share. In the request's arena. */
#pragma once

#include "gateway/request.h"
#include "gateway/transcode/table.h"
#include "gateway/transcode/transcode.h"
#include "lib/buf.h"
#include "lib/json.h"
#include "lib/loop.h"

#define TRANSCODE_VALUES_MAX (HTTP_RULE_VARIABLES_MAX + 256)

struct transcode_stream_format;

struct transcode {
	struct request *r;
	const struct transcode_table *table;
	const struct transcode_binding *binding;

	/* to the service */
	struct buf json;    /* of the client */
	struct buf message; /* a frame, made of it */
	struct proto_value values[TRANSCODE_VALUES_MAX];
	size_t value_count;
	bool is_feeding, is_fed; /* the exchange takes the frame, has all of it */

	/* from the service */
	const struct downstream_ops *down; /* towards the client */
	struct buf frame;                  /* what has come of one */
	struct buf answer;                 /* JSON */
	const struct transcode_stream_format *format;
	uint64_t messages;
	const char *failure; /* what is wrong with the service's answer */
	struct loop_timer failed;
	const struct sink_ops *service; /* of the exchange */
	bool is_begun;                  /* the head of a stream went to the client */
	bool is_blocked;                /* the client is slow */
	bool is_over;                   /* the exchange has ended; what is left is in `answer` */
};
