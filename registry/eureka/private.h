/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of Eureka's API share. */
#pragma once

#include "lib/buf.h"
#include "lib/http_server.h"
#include "registry/eureka/eureka.h"
#include "registry/eureka/write.h"
#include "registry/write.h"

enum eureka_list { EUREKA_ALL, EUREKA_DELTA, EUREKA_LISTS };

/* A list as it was last written, for the next who asks. Made NULL by the next change. */
struct eureka_rendering {
	struct http_shared *bytes;
	uint64_t made_ms;
};

struct reg_eureka {
	struct loop *loop;
	const struct reg_store *store;
	struct reg_writer *writer;
	struct buf text, packed;
	/* by list, XML, compact, gzip */
	struct eureka_rendering renderings[EUREKA_LISTS][2][2][2];
};

void eureka_answer(struct http_request *req, unsigned status);
__attribute__((format(printf, 3, 4))) void
eureka_answer_text(struct http_request *req, unsigned status, const char *fmt, ...);
/* The {app} of the path, in lower case and in the arena; NULL when it is no name. */
const char *eureka_app(struct http_request *req);

/* eureka_read.c, with a struct reg_eureka as argument */
void eureka_get_all(struct http_request *req, void *arg);
void eureka_get_delta(struct http_request *req, void *arg);
void eureka_get_app(struct http_request *req, void *arg);
void eureka_get_instance(struct http_request *req, void *arg);
void eureka_get_by_id(struct http_request *req, void *arg);
void eureka_get_vip(struct http_request *req, void *arg);
void eureka_get_secure_vip(struct http_request *req, void *arg);
void eureka_get_status(struct http_request *req, void *arg);
void eureka_get_overrides(struct http_request *req, void *arg);
