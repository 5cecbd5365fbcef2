/* SPDX-License-Identifier: Apache-2.0 */
/* Eureka's documents, as JSON or as XML, exactly as its clients read them. */
#pragma once

#include "lib/buf.h"
#include "registry/store.h"

struct eureka_writer {
	struct buf *out;
	bool is_xml;
	bool is_compact; /* without what only few clients look at */
	bool needs_comma;
	/* To tell times of the store to people. */
	uint64_t now_ms, wall_ms;
};

/* {"instance": …} */
void eureka_write_instance(struct eureka_writer *w, const struct reg_entry *e);
/* {"application": …} */
void eureka_write_app(struct eureka_writer *w, const struct reg_app *app);
/* {"applications": …} of all, hash code and version "1". */
void eureka_write_all(struct eureka_writer *w, const struct reg_store *store);
/* The same of those that changed since `since_ms`, with the hash code of all. -ENOMEM. */
int eureka_write_delta(struct eureka_writer *w, const struct reg_store *store, uint64_t since_ms);
/* The same of those with `vip` in their list, the secure one if asked. */
void eureka_write_vip(struct eureka_writer *w, const struct reg_store *store, struct str vip,
		      bool is_secure);
/* "DOWN_1_UP_4_" */
void eureka_write_hash(struct buf *out, const size_t by_status[REG_STATUSES]);
/* What Eureka's own status page says of the server. */
void eureka_write_server(struct eureka_writer *w, const struct reg_store *store);
/* Map of id to status, always JSON. */
void eureka_write_overrides(struct buf *out, const struct reg_store *store);
