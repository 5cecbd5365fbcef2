/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request is counted under: "GET /users/{id}". The path of the route where that says it all;
 * behind a prefix the request's own, with "{id}" for segments that look like an identifier, so that
 * an API has as many endpoints as its documentation.
 */
#pragma once

#include "lib/str.h"

#define ENDPOINT_MAX 256

struct request;

/* Written into `out`. */
struct str endpoint_name(const struct request *r, char out[static ENDPOINT_MAX]);
/* Digits, a UUID, eight and more hexadecimal digits with a figure among them, or something long
 * with figures. */
bool endpoint_is_id(struct str segment);
