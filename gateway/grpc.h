/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gateway knows of gRPC over HTTP/2: statuses, deadlines, who speaks it. Messages go
 * through unread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/str.h"

/* Codes that the gateway itself gives or looks at; there are 17. */
enum grpc_status {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16,
};

/* Whether a Content-Type is gRPC's: application/grpc, also with "+proto" and parameters, but not
 * application/grpc-web, which is another protocol. */
bool grpc_is_content_type(struct str content_type);
/* What an answer of the gateway's own with this HTTP status is for a gRPC client. */
enum grpc_status grpc_status_of(unsigned http_status);
/* What a status of the service's would be as HTTP's 5xx; false for those that are no fault of it.
 */
bool grpc_is_fault(unsigned status);
/* The value of grpc-status: a number without sign or leading zeros. */
bool grpc_parse_status(struct str value, unsigned *out);
/* The value of grpc-timeout (up to 8 digits and a unit), rounded up. */
bool grpc_parse_timeout(struct str value, uint64_t *out_ms);
/* A text as the value of grpc-message: percent-encoded. p NULL: out of memory. */
struct str grpc_message(struct arena *a, struct str text);
