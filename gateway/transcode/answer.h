/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way back of a translation: what a gRPC service answers, as JSON. A unary answer is held until
 * its status is known; of a stream each message goes on as it comes, as a JSON array, or as lines
 * (application/x-ndjson) or events (text/event-stream) for clients that ask for these.
 */
#pragma once

struct transcode;

/* Puts itself before the client. */
void transcode_answer_init(struct transcode *t);
/* Starts the exchange, with the message as its body. */
void transcode_answer_start(struct transcode *t);
void transcode_answer_fini(struct transcode *t);
