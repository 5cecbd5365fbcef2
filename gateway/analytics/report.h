/* SPDX-License-Identifier: Apache-2.0 */
/* What the admin port tells of analytics and versions. */
#pragma once

struct buf;
struct gateway;
struct http_request;

/* GET /analytics?window=minute|hour&top=N */
void report_analytics(const struct gateway *g, struct http_request *req);
/* GET /versions?top=N */
void report_versions(const struct gateway *g, struct http_request *req);
/* Requests of versions, and of the deprecated ones by consumer. */
void report_versions_metrics(const struct gateway *g, struct buf *out);
