/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gateway knows of gRPC over HTTP/2: statuses, deadlines, who speaks it. Messages go
 * through unread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/arena.h"
#include "lib/str.h"

/* A message is framed by a byte that says whether it is compressed and its length, 4 bytes. */
#define GRPC_FRAME_HEAD 5UL

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
/* What a status is for an HTTP client, as google/rpc/code.proto maps them. */
unsigned grpc_http_status(unsigned status);
/* "NOT_FOUND"; "UNKNOWN" for numbers that are none. */
const char *grpc_status_name(unsigned status);
/* What a status of the service's would be as HTTP's 5xx; false for those that are no fault of it.
 */
bool grpc_is_fault(unsigned status);
/* The value of grpc-status: a number without sign or leading zeros. */
bool grpc_parse_status(struct str value, unsigned *out);
/* The value of grpc-timeout (up to 8 digits and a unit), rounded up. */
bool grpc_parse_timeout(struct str value, uint64_t *out_ms);
/* A text as the value of grpc-message: percent-encoded. p NULL: out of memory. */
struct str grpc_message(struct arena *a, struct str text);
/* And back; what is no escape stays as it is. p NULL: out of memory. */
struct str grpc_decode_message(struct arena *a, struct str value);
/* The bytes of a field whose name ends in "-bin": base64, padded or not. p NULL: it is none. */
struct str grpc_decode_binary(struct arena *a, struct str value);
/* The length in a frame's head. */
size_t grpc_get_length(const char *head);
void grpc_put_length(char *head, size_t len);
