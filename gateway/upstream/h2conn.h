/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 connections to a service instance (RFC 9113), shared by many requests of one worker: as
 * many streams as the service allows, then one more connection. A connection takes requests once
 * the service's SETTINGS are in, so whoever does not speak HTTP/2 never sees one; it takes no more
 * after a GOAWAY, or when the instance leaves, and ends with its last stream. It is asked with PING
 * whether it lives when nothing has come for a while.
 */
#pragma once

#include <nghttp2/nghttp2.h>

#include "gateway/upstream/service.h"

struct h2conn;
struct h2stream;

/* Why a stream ended before its response was complete. */
enum h2_failure {
	H2_NO_CONNECTION, /* none could be made; nothing was sent */
	H2_REFUSED,       /* the service did nothing with it: GOAWAY or REFUSED_STREAM */
	H2_RESET,         /* by the service, with RST_STREAM */
	H2_CLOSED,        /* the connection was closed, or does not answer any more */
	H2_GARBAGE,       /* the service broke the protocol */
};

/*
 * The user of a stream. None of the calls comes from within a call of the user's own. Any of them
 * may cancel the stream.
 */
struct h2stream_ops {
	/* The connection is there: submit now. */
	void (*ready)(struct h2stream *s);
	/* A field of a head or of trailers. False: not acceptable, the stream fails as garbage. */
	bool (*field)(struct h2stream *s, struct str name, struct str value);
	/* The head, an interim one or the trailers are complete. */
	void (*fields_end)(struct h2stream *s, bool is_last);
	/* A piece of the body. The service may send as much again after h2stream_consume. */
	void (*data)(struct h2stream *s, struct str data);
	/* The response is complete. Cancel (or release) the stream. */
	void (*end)(struct h2stream *s);
	/* How many bytes of the request body can go now, and whether that is the end of it. */
	size_t (*body)(struct h2stream *s, size_t max, bool *is_last);
	/* Copies what `body` said. */
	void (*take)(struct h2stream *s, char *to, size_t len);
	/* Trailers to send behind the body. The count, 0 for none. */
	size_t (*trailers)(struct h2stream *s, const nghttp2_nv **out);
	/* The stream is gone, and with it the tie to the connection. */
	void (*failed)(struct h2stream *s, enum h2_failure why, uint32_t code);
};

/* Embed it, zeroed but for `ops`. */
struct h2stream {
	struct list node;
	struct h2conn *conn; /* NULL: not attached */
	const struct h2stream_ops *ops;
	int32_t id;     /* 0: not submitted */
	bool is_reused; /* others used the connection before */
	bool is_deferred, was_reset;
};

/* Attaches the stream to a connection of this instance; `ready` or `failed` follows later. -errno
 * when there is none and none can be made. */
int h2conn_attach(struct h2stream *s, struct service *service, struct endpoint *e);
/* Sends the request. 0 or -errno; on failure the stream is still attached. */
int h2stream_submit(struct h2stream *s, const nghttp2_nv *fields, size_t count, bool has_body);
/* There is more of the request body, or its end. */
void h2stream_more(struct h2stream *s);
/* The client took so many bytes. */
void h2stream_consume(struct h2stream *s, size_t len);
/* Lets go of the stream; one that is not complete on both sides is reset with that code. */
void h2stream_cancel(struct h2stream *s, uint32_t code);

/* The instance has left: its connections end with their last stream. */
void h2conn_drain(struct endpoint *e);
