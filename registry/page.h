/* SPDX-License-Identifier: Apache-2.0 */
/* The page for people, and what only it asks for: ages of leases and the last changes. */
#pragma once

#include "lib/http_server.h"

/* GET /; all of these with a struct reg_api as argument. */
void reg_page_get(struct http_request *req, void *arg);
/* GET /v1/apps/{app}/leases */
void reg_page_leases(struct http_request *req, void *arg);
/* GET /v1/changes */
void reg_page_changes(struct http_request *req, void *arg);
