/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at an instance, for what lib/http_client.h does not speak: whether it takes a connection
 * (and TLS), answers a request of HTTP/2, or says SERVING by grpc.health.v1. A connection of its
 * own each time. Main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/net.h"
#include "lib/str.h"

struct loop;
struct probe;
struct tls_client;

enum probe_kind { PROBE_CONNECT, PROBE_HTTP2, PROBE_GRPC };

/* All of it is copied but for what is pointed at, which must outlive the probe. */
struct probe_spec {
	enum probe_kind kind;
	struct net_addr addr;
	struct tls_client *tls; /* NULL: in clear */
	struct str authority;   /* of HTTP/2 */
	struct str path;        /* of PROBE_HTTP2 */
	struct str service;     /* of PROBE_GRPC; may be empty: the server as a whole */
	uint32_t timeout_ms;
	/* Once, never from within probe_start; the probe is gone then. `why` NULL: well, with the
	 * status of HTTP/2; else a short sentence. */
	void (*on_done)(unsigned status, const char *why, void *arg);
	void *arg;
};

/* NULL when out of memory. */
struct probe *probe_start(struct loop *loop, const struct probe_spec *spec);
/* Without on_done. Clears the pointer; NULL inside is fine. */
void probe_cancel(struct probe **p);
